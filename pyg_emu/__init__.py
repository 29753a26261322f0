r"""Embedding mutation (EMU) for knowledge graph link prediction with PyTorch Geometric.

The public names below are imported on first use: ``import pyg_emu`` alone loads neither PyTorch nor any kernel.
"""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyg_emu.core.contract import Scorer, ScorerMixin
    from pyg_emu.core.distributed import process_group
    from pyg_emu.core.interaction import Interaction
    from pyg_emu.data.batch import Batch
    from pyg_emu.data.candidates import RelationCandidates
    from pyg_emu.data.graph import KGData
    from pyg_emu.data.io.datasets import load_dataset
    from pyg_emu.data.loader import TripletLoader
    from pyg_emu.evaluation.calibration import Calibration
    from pyg_emu.evaluation.classification import calibrate, classify
    from pyg_emu.evaluation.prediction import predict
    from pyg_emu.evaluation.questions import answer
    from pyg_emu.evaluation.ranking import evaluate
    from pyg_emu.evaluation.scoring import score
    from pyg_emu.evaluation.vectors import embeddings, neighbors
    from pyg_emu.experiments.growing import extend
    from pyg_emu.losses.baselines import CrossEntropyLoss
    from pyg_emu.losses.demix import DeMixLoss
    from pyg_emu.losses.emu import EMUBCELoss, EMULoss
    from pyg_emu.losses.nbfnet import NBFNetBCELoss, NBFNetEMULoss
    from pyg_emu.losses.one_vs_all import OneVsAllEMULoss, OneVsAllLoss
    from pyg_emu.losses.regularizers import L3Regularizer, LpRegularizer, N3Regularizer
    from pyg_emu.models import (
        HAKE,
        RGCN,
        ComplEx,
        DistMult,
        NBFNet,
        RotatE,
        TransE,
        load_nbfnet_pyg_state_dict,
        map_entities,
        shard_entities,
    )
    from pyg_emu.models.adapters import as_scorer
    from pyg_emu.models.encoders import GNNEncoder
    from pyg_emu.models.nbfnet.explanation import draw_paths, explain
    from pyg_emu.negatives import DeMixNegatives, EMUNegatives
    from pyg_emu.negatives.adversarial import DANSSampler, KBGANSampler
    from pyg_emu.negatives.contract import LearningPart, Negatives, Sampler
    from pyg_emu.negatives.sampling import (
        CandidateSampler,
        CANSLikeSampler,
        ESNSLikeSampler,
        MCNSSampler,
        NSCachingSampler,
        PopularitySampler,
        SANSSampler,
        SharedNegativesSampler,
        StratifiedSampler,
        TypedSampler,
        UniformSampler,
    )
    from pyg_emu.training.optimizers import RowAdagrad, RowAdam
    from pyg_emu.training.trainer import Trainer
    from pyg_emu.training.warm_start import warm_start

__version__ = '0.1.0'

# Which module defines each public name.
_MODULES = {
    'Scorer': 'core.contract',
    'ScorerMixin': 'core.contract',
    'process_group': 'core.distributed',
    'Interaction': 'core.interaction',
    'Batch': 'data.batch',
    'RelationCandidates': 'data.candidates',
    'KGData': 'data.graph',
    'load_dataset': 'data.io.datasets',
    'TripletLoader': 'data.loader',
    'Calibration': 'evaluation.calibration',
    'calibrate': 'evaluation.classification',
    'classify': 'evaluation.classification',
    'predict': 'evaluation.prediction',
    'answer': 'evaluation.questions',
    'evaluate': 'evaluation.ranking',
    'score': 'evaluation.scoring',
    'embeddings': 'evaluation.vectors',
    'neighbors': 'evaluation.vectors',
    'extend': 'experiments.growing',
    'CrossEntropyLoss': 'losses.baselines',
    'DeMixLoss': 'losses.demix',
    'EMUBCELoss': 'losses.emu',
    'EMULoss': 'losses.emu',
    'NBFNetBCELoss': 'losses.nbfnet',
    'NBFNetEMULoss': 'losses.nbfnet',
    'OneVsAllEMULoss': 'losses.one_vs_all',
    'OneVsAllLoss': 'losses.one_vs_all',
    'L3Regularizer': 'losses.regularizers',
    'LpRegularizer': 'losses.regularizers',
    'N3Regularizer': 'losses.regularizers',
    'HAKE': 'models',
    'ComplEx': 'models',
    'DistMult': 'models',
    'NBFNet': 'models',
    'RGCN': 'models',
    'RotatE': 'models',
    'TransE': 'models',
    'load_nbfnet_pyg_state_dict': 'models',
    'map_entities': 'models',
    'shard_entities': 'models',
    'as_scorer': 'models.adapters',
    'GNNEncoder': 'models.encoders',
    'draw_paths': 'models.nbfnet.explanation',
    'explain': 'models.nbfnet.explanation',
    'DeMixNegatives': 'negatives',
    'EMUNegatives': 'negatives',
    'DANSSampler': 'negatives.adversarial',
    'KBGANSampler': 'negatives.adversarial',
    'LearningPart': 'negatives.contract',
    'Negatives': 'negatives.contract',
    'Sampler': 'negatives.contract',
    'CANSLikeSampler': 'negatives.sampling',
    'CandidateSampler': 'negatives.sampling',
    'ESNSLikeSampler': 'negatives.sampling',
    'MCNSSampler': 'negatives.sampling',
    'NSCachingSampler': 'negatives.sampling',
    'PopularitySampler': 'negatives.sampling',
    'SANSSampler': 'negatives.sampling',
    'SharedNegativesSampler': 'negatives.sampling',
    'StratifiedSampler': 'negatives.sampling',
    'TypedSampler': 'negatives.sampling',
    'UniformSampler': 'negatives.sampling',
    'RowAdagrad': 'training.optimizers',
    'RowAdam': 'training.optimizers',
    'Trainer': 'training.trainer',
    'warm_start': 'training.warm_start',
}

__all__ = [*_MODULES, '__version__']


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
