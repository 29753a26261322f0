r"""How many entities score better than, and equal to, a target."""
from pyg_emu.ops.rank_counts.operator import (
    BLOCK_BYTES,
    NaNScoreError,
    RankCounts,
    default_block_size,
    rank_counts,
    rank_from_scores,
    score_entities,
)

__all__ = [
    'BLOCK_BYTES',
    'NaNScoreError',
    'RankCounts',
    'default_block_size',
    'rank_counts',
    'rank_from_scores',
    'score_entities',
]
