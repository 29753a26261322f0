r"""What is done to candidate vectors before they are scored: masks (EMU), Mixup and DeMix."""
from __future__ import annotations

import torch

from pyg_emu.negatives.mutation.base import LinearSchedule, Mutation, MutationContext, Rate, draw_plan
from pyg_emu.negatives.mutation.demix import DeMixMutation
from pyg_emu.negatives.mutation.masks import (
    BernoulliMask,
    BlockMask,
    ExactMask,
    ImportanceMask,
    LearnedMask,
    MaskMutation,
)
from pyg_emu.negatives.mutation.mixup import Mixup

__all__ = [
    'BernoulliMask',
    'BlockMask',
    'DeMixMutation',
    'ExactMask',
    'ImportanceMask',
    'LearnedMask',
    'LinearSchedule',
    'MaskMutation',
    'Mixup',
    'Mutation',
    'MutationContext',
    'Rate',
    'draw_plan',
]

# What a saved batch may hold.
torch.serialization.add_safe_globals([value for value in map(globals().get, __all__) if isinstance(value, type)])
