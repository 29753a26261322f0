r"""Operators for scoring, ranking and message passing, with one public function each."""
from __future__ import annotations

from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.ops.all_entities import all_entities_cross_entropy
from pyg_emu.ops.backend import last_backend, use_backend
from pyg_emu.ops.basis_sum import basis_sum
from pyg_emu.ops.emu_loss import EMULossResult, SoftLabels, emu_loss
from pyg_emu.ops.emu_score import EMUScores, emu_score, mutate
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan
from pyg_emu.ops.rank_counts import RankCounts, rank_counts, rank_from_scores, score_entities
from pyg_emu.ops.relation_blocks import block_sum
from pyg_emu.ops.relational import BoundaryRows, EdgeOrders, relational_conv

__all__ = [
    'BoundaryRows',
    'EMULossResult',
    'EMUScores',
    'EdgeOrders',
    'MaskPlan',
    'MixPlan',
    'Plan',
    'RankCounts',
    'SharedIndex',
    'SoftLabels',
    'all_entities_cross_entropy',
    'basis_sum',
    'block_sum',
    'emu_loss',
    'emu_score',
    'last_backend',
    'mutate',
    'rank_counts',
    'rank_from_scores',
    'relational_conv',
    'score_entities',
    'use_backend',
]
