r"""Norm penalties on whole embedding tables."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pyg_emu.contract import Scorer
from pyg_emu.errors import ArgumentError


class LpRegularizer(torch.nn.Module):
    r"""The :math:`p`-th powers of all embeddings, summed over the whole tables of entities and relations:

    .. math::
        w \left( \sum |\mathbf{E}|^p + \sum |\mathbf{R}|^p \right)

    The EMU paper's baselines use :math:`p = 3` (section G, "L3-norm"). The gradient is dense, also where the tables'
    own gradients are row-sparse.

    Args:
        p (float): :math:`p`, at least 1.
        weight (float): :math:`w`.

    Raises:
        ArgumentError: If :obj:`p` is below 1 or :obj:`weight` is negative or NaN.
    """
    def __init__(self, p: float, weight: float) -> None:
        super().__init__()
        if not 1.0 <= p < float('inf'):
            raise ArgumentError(f'p: expected a number >= 1, got {p}')
        if not 0.0 <= weight < float('inf'):
            raise ArgumentError(f'weight: expected a number >= 0, got {weight}')
        self.p = p
        self.weight = weight

    def forward(self, scorer: Scorer, batch: Optional[Any] = None) -> Tensor:
        r"""The penalty.

        Args:
            scorer (Scorer): The model, see :func:`~pyg_emu.adapters.as_scorer`.
            batch (KGData, optional): The batch of this step; not needed here, as the penalty is on whole tables.
                (default: :obj:`None`)

        :rtype: :class:`torch.Tensor`, a scalar.
        """
        powers = [_PowerSum.apply(weight, self.p) for weight in scorer.embedding_weights()]
        return self.weight * torch.stack(powers).sum()

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(p={self.p}, weight={self.weight})'


class L3Regularizer(LpRegularizer):
    r"""The cubes of all embeddings, :class:`LpRegularizer` with :math:`p = 3`.

    Args:
        weight (float): :math:`w`. (1e-5 suits DistMult on FB15k-237.)
    """
    def __init__(self, weight: float) -> None:
        super().__init__(3.0, weight)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(weight={self.weight})'


class _PowerSum(torch.autograd.Function):
    r""":math:`\sum |w|^p`. Value and gradient share the one factor :math:`\mathrm{sign}(w) |w|^{p - 1}`, so that
    nothing but products of neighbouring numbers is computed for the usual, whole :math:`p`: autograd's own would
    cost several times as much.
    """
    @staticmethod
    def forward(ctx: Any, weight: Tensor, p: float) -> Tensor:
        if p == 2.0:
            factor = weight
        elif p == 3.0:
            factor = weight.abs().mul_(weight)
        else:
            factor = weight.abs().pow_(p - 1.0).mul_(weight.sign())
        ctx.save_for_backward(factor)
        ctx.p = p
        return torch.dot(factor.flatten(), weight.flatten())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factor, ) = ctx.saved_tensors
        return factor * (ctx.p * grad), None
