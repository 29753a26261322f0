r"""The norm of gradients, dense and row-sparse, and how it is limited."""
from __future__ import annotations

from typing import Collection, Iterable, Optional

import torch
from torch import Tensor

from pyg_emu.core.distributed import sum_


def gradient_norm(gradients: Iterable[Tensor], divided: Iterable[Tensor] = ()) -> Tensor:
    r"""Returns the joint norm of all gradients as a tensor on their device, without synchronization.

    Args:
        gradients (iterable of torch.Tensor): The gradients, dense or row-sparse. They are not modified.
        divided (iterable of torch.Tensor, optional): Gradients of rows that are divided among processes, those of this
            process. (default: none)
    """
    # The gradient of a row that occurs several times is the sum.
    norms, own = ([torch.linalg.vector_norm(grad.coalesce().values() if grad.is_sparse else grad) for grad in part]
                  for part in (gradients, divided))
    if own:
        norms.append(sum_(torch.stack(own).square().sum()).sqrt())
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def clip_gradients(parameters: Iterable[Tensor], max_norm: float, divided: Collection[int] = ()) -> Optional[Tensor]:
    r"""Scales all gradients such that their joint norm is at most :obj:`max_norm`.

    It is equivalent to :func:`torch.nn.utils.clip_grad_norm_`, which does not support the row-sparse gradients of
    embedding tables.

    Args:
        parameters (iterable of torch.Tensor): All parameters. Those without a gradient are skipped.
        max_norm (float): The maximum norm.
        divided (collection of int, optional): The :func:`id` of those parameters of which each process has its own
            rows. (default: none)

    Returns:
        The norm before scaling, or :obj:`None` if there are no gradients.
    """
    parameters = [value for value in parameters if value.grad is not None]
    for parameter in parameters:
        if parameter.grad.is_sparse:  # type: ignore[union-attr]
            # The gradient of a row that occurs several times is the sum.
            parameter.grad = parameter.grad.coalesce()  # type: ignore[union-attr]
    values, own = ([grad.values() if grad.is_sparse else grad for grad in
                    (parameter.grad for parameter in parameters if (id(parameter) in divided) == part)
                    if grad is not None] for part in (False, True))
    if not values and not own:
        return None
    norm = gradient_norm(values, own)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in (*values, *own):
        value.mul_(factor)
    return norm
