r"""Hyperparameter search for a recipe: search spaces and studies (requires the extra :obj:`tune`)."""
from pyg_emu.experiments.tuning.space import Parameter, SearchSpace, default_space, load_space, packaged_spaces
from pyg_emu.experiments.tuning.study import TuneResult, tune

__all__ = ['Parameter', 'SearchSpace', 'TuneResult', 'default_space', 'load_space', 'packaged_spaces', 'tune']
