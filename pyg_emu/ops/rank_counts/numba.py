r"""The CPU implementation of :func:`~pyg_emu.ops.rank_counts` in Numba: fused scoring of panels of entities, followed
by counting.

Entities are scored in panels of 64, transposed so that one vector register holds the same component of several
entities. The last panel is padded, so every entity is a lane of a panel and all scores result from the same operations
in the same order. Operations are not reassociated, and multiplications and additions are contracted in the same way for
all lanes. Therefore equal rows have equal scores, and the block size does not change a bit.
"""
from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops.numba_runtime import jit, parallel_section

#: The score of an entity does not depend on the other rows that are scored with it, to the last bit.
EXACT = True

_LANES = 64  # Entities in a panel: four AVX-512 or eight AVX2 registers of float32.
# The number of components that are accumulated in registers, halved for interactions with two parts per component.
_UNROLL = 8
# The interactions that the kernel supports.
_KINDS: dict[type[Interaction], int] = {Dot: 0, L1: 1, L2: 2, ComplexModulus: 3, ModulusPhase: 4}
_CONTRACT = {'contract'}


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
        # |sin((q - x) / 2)| = |sin(q/2) cos(x/2) - cos(q/2) sin(x/2)| needs no sine per pair.
        modulus, weight, phase = query.chunk(3, dim=-1)
        half = phase.double() / 2
        query = torch.cat([modulus, weight, half.sin().to(query.dtype), half.cos().to(query.dtype)], dim=-1)
    # Padding to a multiple of the unrolling with zeros does not change the scores.
    width = table.size(1) // parts
    padded = -(-width // _UNROLL) * _UNROLL
    query = query.reshape(query.size(0), -1, width) if width > 0 else query.reshape(query.size(0), 1, 0)
    query = torch.nn.functional.pad(query, (0, padded - width)).flatten(1).contiguous()
    scores = query.new_empty(query.size(0), table.size(0))
    with parallel_section():
        _score(kind, query.numpy(), table.contiguous().numpy(), parts, padded, modulus_weight, phase_weight,
               phase_scale, scores.numpy())
    return scores


def count(scores: Tensor, row: Tensor, target: Tensor, own: Tensor, ptr: Tensor,
          index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Computes counts from checked arguments, see :func:`pyg_emu.ops.rank_counts.torch.count`."""
    counts = target.new_empty(3, target.size(0))
    invalid = torch.empty(target.size(0), dtype=torch.bool)
    arrays = [tensor.contiguous().numpy() for tensor in (scores, row, target, own, ptr, index)]
    with parallel_section():
        _count(*arrays, counts.numpy(), invalid.numpy())
    greater, equal, candidates = counts.unbind(0)
    return greater, equal, candidates, invalid


@jit(parallel=True, nogil=True)
def _score(kind, query, table, parts, padded, modulus_weight, phase_weight, phase_scale, scores):  # type: ignore[no-untyped-def]
    num_nodes = table.shape[0]
    width = table.shape[1] // parts
    rows = 3 * padded if kind == 4 else parts * padded
    for panel in prange((num_nodes + _LANES - 1) // _LANES):
        start = panel * _LANES
        size = min(_LANES, num_nodes - start)
        block = np.zeros((rows, _LANES), table.dtype)
        total = np.zeros(_LANES, table.dtype)
        square = np.zeros(_LANES, table.dtype)
        for lane in range(size):
            for part in range(parts):
                for k in range(width):
                    value = table[start + lane, part * width + k]
                    if kind == 4 and part == 1:
                        half = value * phase_scale / 2
                        block[padded + k, lane] = math.sin(half)
                        block[2 * padded + k, lane] = math.cos(half)
                    else:
                        block[part * padded + k, lane] = value
        for b in range(query.shape[0]):
            total[:] = 0
            if kind == 0:
                _dot(query[b], block, total)
            elif kind == 1:
                _l1(query[b], block, total)
            elif kind == 2:
                _l2(query[b], block, total)
            elif kind == 3:
                _modulus(query[b], block, total)
            else:
                square[:] = 0
                _weighted_square(query[b, :padded], query[b, padded:2 * padded], block[:padded], square)
                _sine(query[b, 2 * padded:3 * padded], query[b, 3 * padded:], block[padded:2 * padded],
                      block[2 * padded:], total)
                for lane in range(_LANES):
                    total[lane] = -(modulus_weight * math.sqrt(square[lane]) + phase_weight * total[lane])
            for lane in range(size):
                scores[b, start + lane] = total[lane]


# In the following functions, the inner loop over a constant number of components is unrolled, and the loop over lanes
# is vectorized.


@jit(nogil=True, fastmath=_CONTRACT)
def _dot(query, block, total):  # type: ignore[no-untyped-def]
    for k in range(0, query.shape[0], _UNROLL):
        for lane in range(_LANES):
            s = total[lane]
            for i in range(_UNROLL):
                s += query[k + i] * block[k + i, lane]
            total[lane] = s


@jit(nogil=True, fastmath=_CONTRACT)
def _l1(query, block, total):  # type: ignore[no-untyped-def]
    for k in range(0, query.shape[0], _UNROLL):
        for lane in range(_LANES):
            s = total[lane]
            for i in range(_UNROLL):
                s -= abs(query[k + i] - block[k + i, lane])
            total[lane] = s


@jit(nogil=True, fastmath=_CONTRACT)
def _l2(query, block, total):  # type: ignore[no-untyped-def]
    for k in range(0, query.shape[0], _UNROLL):
        for lane in range(_LANES):
            s = total[lane]
            for i in range(_UNROLL):
                difference = query[k + i] - block[k + i, lane]
                s += difference * difference
            total[lane] = s
    for lane in range(_LANES):
        total[lane] = -math.sqrt(total[lane])


@jit(nogil=True, fastmath=_CONTRACT)
def _modulus(query, block, total):  # type: ignore[no-untyped-def]
    half = query.shape[0] // 2
    for k in range(0, half, _UNROLL // 2):
        for lane in range(_LANES):
            s = total[lane]
            for i in range(_UNROLL // 2):
                re = query[k + i] - block[k + i, lane]
                im = query[half + k + i] - block[half + k + i, lane]
                s -= math.sqrt(re * re + im * im)
            total[lane] = s


@jit(nogil=True, fastmath=_CONTRACT)
def _weighted_square(query, weight, block, total):  # type: ignore[no-untyped-def]
    for k in range(0, query.shape[0], _UNROLL // 2):
        for lane in range(_LANES):
            s = total[lane]
            for i in range(_UNROLL // 2):
                difference = weight[k + i] * block[k + i, lane] - query[k + i]
                s += difference * difference
            total[lane] = s


@jit(nogil=True, fastmath=_CONTRACT)
def _sine(sine, cosine, block_sine, block_cosine, total):  # type: ignore[no-untyped-def]
    for k in range(0, sine.shape[0], _UNROLL // 2):
        for lane in range(_LANES):
            s = total[lane]
            for i in range(_UNROLL // 2):
                s += abs(sine[k + i] * block_cosine[k + i, lane] - cosine[k + i] * block_sine[k + i, lane])
            total[lane] = s


@jit(parallel=True, nogil=True)
def _count(scores, row, target, owns, ptr, index, counts, invalid):  # type: ignore[no-untyped-def]
    num_nodes = scores.shape[1]
    for b in prange(row.shape[0]):
        line = scores[row[b]]
        own = owns[b]
        greater, equal, smaller = 0, 0, 0
        for v in range(num_nodes):
            greater += line[v] > own
            equal += line[v] == own
            smaller += line[v] < own
        # Comparisons with NaN are false, so the three numbers do not add up if the target or a competitor is NaN.
        invalid[b] = greater + equal + smaller != num_nodes
        # The target ties with itself, unless another process has it.
        here = 1 if target[b] >= 0 else 0
        candidates = num_nodes - here
        equal -= here
        for slot in range(ptr[row[b]], ptr[row[b] + 1]):
            entity = index[slot]
            if entity != target[b]:
                candidates -= 1
                greater -= line[entity] > own
                equal -= line[entity] == own
        counts[0, b] = greater
        counts[1, b] = equal
        counts[2, b] = candidates
