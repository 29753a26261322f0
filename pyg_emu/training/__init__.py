r"""Training: the loop and one step of it, optimisers and schedules, and what a run writes."""
from pyg_emu.training.graphed_step import GraphedStep
from pyg_emu.training.interrupt import TrainingInterrupted
from pyg_emu.training.loggers import CSVLogger, Logger, RunInfo, TensorBoardLogger
from pyg_emu.training.optimizers import RowAdagrad, RowAdam
from pyg_emu.training.run_state import TrainResult
from pyg_emu.training.schedules import Constant, CosineDecay, LinearDecay, Schedule, SwitchOptimizer
from pyg_emu.training.trackers import MLflowLogger, WandbLogger
from pyg_emu.training.trainer import Trainer

__all__ = [
    'CSVLogger',
    'Constant',
    'CosineDecay',
    'GraphedStep',
    'LinearDecay',
    'Logger',
    'MLflowLogger',
    'RowAdagrad',
    'RowAdam',
    'RunInfo',
    'Schedule',
    'SwitchOptimizer',
    'TensorBoardLogger',
    'TrainResult',
    'Trainer',
    'TrainingInterrupted',
    'WandbLogger',
]
