r"""The CPU implementation of :func:`~pyg_emu.ops.rank_counts` in Numba: fused scoring, followed by counting.

All scores result from the same operations in the same order, see :mod:`~pyg_emu.ops.rank_counts.numba_kernels`.
Operations are not reassociated, and multiplications and additions are contracted in the same way for all entities.
Therefore equal rows have equal scores, and neither the size of a block nor the number of threads changes a bit.
"""
from __future__ import annotations

import torch
from torch import Tensor

from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops.numba_runtime import parallel_section
from pyg_emu.ops.rank_counts import numba_kernels as kernels

#: The score of an entity does not depend on the other rows that are scored with it, to the last bit.
EXACT = True
#: The maximum size in bytes of the scores of one block. Memory of more than 32 MiB goes back to the system with each
#: block and comes back page by page, which takes as long as computing the scores of dot products.
BLOCK_BYTES = 24 * 2**20

_KINDS: dict[type[Interaction], int] = {
    Dot: kernels.DOT, L1: kernels.L1, L2: kernels.L2, ComplexModulus: kernels.MODULUS,
    ModulusPhase: kernels.MODULUS_PHASE}


def obstacle(interaction: Interaction | None) -> str | None:
    r"""See :mod:`pyg_emu.ops.backend`. Counting scores requires no interaction."""
    if interaction is None or type(interaction) in _KINDS:
        return None
    return f'it has no kernels for the interaction {type(interaction).__name__}'


def score_block(query: Tensor, table: Tensor, interaction: Interaction) -> Tensor:
    r"""Computes the scores of all entities. shape: :obj:`(Q, V)`."""
    kind, parts = _KINDS[type(interaction)], interaction.parts
    modulus_weight = phase_weight = phase_scale = 0.0
    if isinstance(interaction, ModulusPhase):
        modulus_weight, phase_weight = interaction.modulus_weight, interaction.phase_weight
        phase_scale = interaction.phase_scale
        modulus, weight, phase = query.chunk(3, dim=-1)
        half = phase.double() / 2
        query = torch.cat([modulus, weight, half.sin().to(query.dtype), half.cos().to(query.dtype)], dim=-1)
    scores = query.new_empty(query.size(0), table.size(0))
    with parallel_section():
        kernels.score(kind, query.contiguous().numpy(), table.contiguous().numpy(), parts, modulus_weight, phase_weight,
                      phase_scale, scores.numpy())
    return scores


def count(scores: Tensor, row: Tensor, target: Tensor, own: Tensor, ptr: Tensor,
          index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Computes counts from checked arguments, see :func:`pyg_emu.ops.rank_counts.torch.count`."""
    counts = target.new_empty(3, target.size(0))
    invalid = torch.empty(target.size(0), dtype=torch.bool, device='cpu')
    arrays = [tensor.contiguous().numpy() for tensor in (scores, row, target, own, ptr, index)]
    with parallel_section():
        kernels.count(*arrays, counts.numpy(), invalid.numpy())
    greater, equal, candidates = counts.unbind(0)
    return greater, equal, candidates, invalid
