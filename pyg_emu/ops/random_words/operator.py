r"""Random bits from a counter, in parallel and the same for any number of threads."""
from __future__ import annotations

from typing import Optional, Sequence

import torch
from torch import Tensor

from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled


@uncompiled
def random_words(
    size: Sequence[int],
    generator: Optional[torch.Generator] = None,
    device: torch.device | str = 'cpu',
    backend: Optional[str] = None,
) -> Tensor:
    r"""Returns 64 random bits for each element.

    PyTorch's generator on the CPU computes one number after the other, which takes longer than what a step does with
    them. Here, it draws a seed, and word :math:`i` is the :math:`i`-th output of `SplitMix64
    <https://doi.org/10.1145/2660193.2660195>`_ with this seed, which does not depend on the words before. PyTorch's
    generators of other devices work like this themselves and draw the words.

    Args:
        size (tuple of int): The shape.
        generator (torch.Generator, optional): The random stream. (default: :obj:`None`, the default of the device)
        device (torch.device or str, optional): The device, which has to be that of :obj:`generator`.
            (default: :obj:`"cpu"`)
        backend (str, optional): See :mod:`pyg_emu.ops.backend`. (default: :obj:`None`, by device)

    :rtype: :class:`torch.Tensor` of shape :obj:`size`, int64.
    """
    words = torch.empty(tuple(size), dtype=torch.int64, device=device)
    if words.device.type != 'cpu':
        return words.random_(-2**63, None, generator=generator)
    seed = int(torch.empty((), dtype=torch.int64, device='cpu').random_(-2**63, None, generator=generator))
    # Backends are chosen by a floating-point tensor; words have none.
    module = load_backend('random_words', torch.empty(0, dtype=torch.float32, device='cpu'), backend)
    module.fill(words, seed)
    return words
