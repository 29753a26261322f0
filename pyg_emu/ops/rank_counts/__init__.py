r"""The number of entities with a higher score than a target, and with the same score."""
from pyg_emu.ops.rank_counts.blocks import BLOCK_BYTES
from pyg_emu.ops.rank_counts.operator import (
    NaNScoreError,
    RankCounts,
    default_block_size,
    rank_counts,
    rank_from_scores,
    ranking_block_size,
    score_entities,
    score_parts,
)

__all__ = [
    'BLOCK_BYTES',
    'NaNScoreError',
    'RankCounts',
    'default_block_size',
    'rank_counts',
    'rank_from_scores',
    'ranking_block_size',
    'score_entities',
    'score_parts',
]
