r"""Cross-entropy of positives among their negatives and mutated negatives, and its gradients, in one pass."""
from pyg_emu.ops.emu_loss.operator import EMULossResult, SoftLabels, emu_loss, is_fused

__all__ = [
    'EMULossResult',
    'SoftLabels',
    'emu_loss',
    'is_fused',
]
