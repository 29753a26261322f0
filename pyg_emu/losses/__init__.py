r"""Losses: :mod:`~pyg_emu.losses.functional` of given scores, all others of a model and a batch."""
from pyg_emu.losses.base import LinkPredictionLoss, Regularizer, ScoredBatch
from pyg_emu.losses.baselines import BCELoss, CrossEntropyLoss, MarginLoss, SelfAdversarialLoss
from pyg_emu.losses.demix import DeMixLoss
from pyg_emu.losses.emu import EMUBCELoss, EMULoss
from pyg_emu.losses.nbfnet import NBFNetBCELoss, NBFNetEMULoss
from pyg_emu.losses.one_vs_all import OneVsAllEMULoss, OneVsAllLoss
from pyg_emu.losses.regularizers import L3Regularizer, LpRegularizer, N3Regularizer

__all__ = [
    'BCELoss',
    'CrossEntropyLoss',
    'DeMixLoss',
    'EMUBCELoss',
    'EMULoss',
    'L3Regularizer',
    'LinkPredictionLoss',
    'LpRegularizer',
    'MarginLoss',
    'N3Regularizer',
    'NBFNetBCELoss',
    'NBFNetEMULoss',
    'OneVsAllEMULoss',
    'OneVsAllLoss',
    'Regularizer',
    'ScoredBatch',
    'SelfAdversarialLoss',
]
