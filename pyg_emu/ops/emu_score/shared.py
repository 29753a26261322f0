r"""Scores of negatives that chunks of triples share, as matrix products.

For a dot product, the negatives of a chunk are gathered once, and all of its scores are one product. With one mask
:math:`\mathbf{m}_b` per triple, the mutated scores are another one:

.. math::
    \tilde{s}_{bn} = (\mathbf{q}_b \odot (1 - \mathbf{m}_b)) \cdot \mathbf{z}^-_n
    + (\mathbf{q}_b \odot \mathbf{m}_b) \cdot \mathbf{z}^+_b.

Mixing with the positive is linear in the vanilla score, :math:`w_{bn} s_{bn} + (1 - w_{bn})\,
\mathbf{q}_b \cdot \mathbf{z}^+_b`. PyTorch's matrix products run on every device and have all gradients.

Other interactions and other plans are left to the backends, which read the same ids row by row. The distance
:math:`\|\mathbf{q} - \mathbf{x}\|_2` is among them: as :math:`\|\mathbf{q}\|^2 + \|\mathbf{x}\|^2 - 2\, \mathbf{q}
\cdot \mathbf{x}` under a square root, it loses its digits where query and candidate are close, and its gradient is
steepest there.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.interaction import Interaction
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.ops.emu_score.torch import sparse_rows
from pyg_emu.ops.plan import MaskPlan, Plan


def are_products(interaction: Interaction, plan: Plan | None) -> bool:
    r"""Whether the scores are matrix products.

    Args:
        interaction (Interaction): :math:`\phi`.
        plan (MaskPlan or MixPlan, optional): How negatives are mutated.
    """
    if not interaction.matrix_product:
        return False
    return plan is None or (plan.index.dim() == 1 if isinstance(plan, MaskPlan) else plan.partner is None)


def run(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: SharedIndex,
    plan: Plan | None,
    vanilla: bool,
    sparse_grad: bool,
) -> tuple[Tensor | None, Tensor | None]:
    r"""Vanilla and mutated scores of checked arguments for which :func:`are_products` holds; see
    :func:`~pyg_emu.ops.emu_score`.
    """
    # Of the two ways to look rows up, this one has a dense gradient that is the same in each run, on a GPU too.
    rows = sparse_rows(table, index.index) if sparse_grad else F.embedding(index.index, table)
    if isinstance(plan, MaskPlan):
        mask = plan.bank[plan.index].to(query.dtype)
        taken = (query * mask * positive).sum(1)
        mutated = _products(query * (1 - mask), rows, index, taken)
        return _products(query, rows, index) if vanilla else None, mutated
    scores = _products(query, rows, index)
    if plan is None:
        return scores, None
    own = (query * positive).sum(1, keepdim=True)
    return scores if vanilla else None, plan.weight * scores + (1 - plan.weight) * own


def _products(query: Tensor, rows: Tensor, index: SharedIndex, added: Tensor | None = None) -> Tensor:
    r"""The dot products of each query :obj:`(B, d)` with the rows :obj:`(C, N, d)` of its set, plus :obj:`added`
    :obj:`(B,)`. shape: :obj:`(B, N)`.
    """
    candidates = rows.transpose(1, 2)
    parts = []
    for own, sets, size in _runs(index):
        chunks = (sets.stop - sets.start, size)
        scores = torch.bmm(query[own].reshape(*chunks, query.size(1)), candidates[sets])
        if added is not None:  # before the chunks are joined: adding in place to a view costs two more passes back
            scores.add_(added[own].view(*chunks, 1))
        parts.append(scores.flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _runs(index: SharedIndex) -> list[tuple[slice, slice, int]]:
    r"""Chunks of equal size next to one another, of which there are at most three runs: what is left of the first
    chunk, the whole chunks, and the last one. Each with its rows, its sets, and the rows of a chunk.
    """
    runs = []
    row = place = 0
    if index.skipped > 0:
        row = min(index.chunk_size - index.skipped, index.size)
        runs.append((slice(0, row), slice(0, 1), row))
        place = 1
    whole = (index.size - row) // index.chunk_size
    if whole > 0:
        stop = row + whole * index.chunk_size
        runs.append((slice(row, stop), slice(place, place + whole), index.chunk_size))
        row, place = stop, place + whole
    if row < index.size:
        runs.append((slice(row, index.size), slice(place, place + 1), index.size - row))
    return runs or [(slice(0, 0), slice(0, 0), 1)]
