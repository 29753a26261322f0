r"""Filtered ranking, its metrics, labelled predictions, and where negatives lie."""
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.evaluation.prediction import predict
from pyg_emu.evaluation.ranking import evaluate

__all__ = [
    'Metrics',
    'evaluate',
    'predict',
]
