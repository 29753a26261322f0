r"""Filtered ranking, its metrics, labelled predictions, scores and probabilities of facts, and where negatives lie."""
from pyg_emu.evaluation.calibration import Calibration
from pyg_emu.evaluation.classification import Classification, calibrate, classify
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.evaluation.prediction import predict
from pyg_emu.evaluation.questions import answer
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.evaluation.scoring import score
from pyg_emu.evaluation.vectors import embeddings, neighbors

__all__ = [
    'Calibration',
    'Classification',
    'Metrics',
    'answer',
    'calibrate',
    'classify',
    'embeddings',
    'evaluate',
    'neighbors',
    'predict',
    'score',
]
