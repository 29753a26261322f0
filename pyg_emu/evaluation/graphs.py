r"""Ranking for models that read a graph: their view of the data, and a record of the graph they read."""
from __future__ import annotations

import warnings
from typing import Any, Mapping, Optional

from pyg_emu.core.errors import DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.given import known_facts_of
from pyg_emu.evaluation.candidates import Candidates
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.evaluation.ranking import checked_settings, evaluate

#: Default settings for a graph other than the training graph, as in the NBFNet paper.
INDUCTIVE_SETTINGS: dict[str, Any] = {'filter_splits': 'train', 'num_negatives': 50}


def reads_graph(model: Any) -> bool:
    r"""Whether a model computes its scores from a graph, as :class:`~pyg_emu.NBFNet` does."""
    return bool(getattr(model, 'reads_graph', False))


def ranker_of(model: Any, data: KGData) -> Any:
    r"""Returns what :func:`~pyg_emu.evaluate` and :func:`~pyg_emu.predict` take: the model itself, or its view of
    :obj:`data` if it reads a graph.
    """
    return model.as_ranker(data) if reads_graph(model) else model


def check_settings(data: KGData, settings: Mapping[str, Any]) -> None:
    r"""Checks the settings of a ranking, before a model is trained for it; candidates and known facts against a graph.

    Args:
        data (KGData): The graph.
        settings (dict): Arguments of :func:`~pyg_emu.evaluate`.

    Raises:
        ArgumentError: If a setting is outside its domain, candidates are none, or an id is out of range.
        DataError: If a label does not exist, or known facts cannot be read.
    """
    checked_settings(settings)
    Candidates.of(settings.get('candidates'), data)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DataWarning)  # the ranking warns
        known_facts_of(settings.get('known_facts'), data)


def rank(model: Any, data: KGData, split: Any, settings: Mapping[str, Any], *, name: Optional[str] = None,
         inductive: bool = False, progress: bool = False) -> Metrics:
    r"""Ranks a split and records in :obj:`metrics.info` what it was ranked against and which graph the model read.

    Args:
        model (torch.nn.Module): The model.
        data (KGData): The facts; with inverse relations if the model reads a graph.
        split (str): The facts to rank.
        settings (dict): Arguments of :func:`~pyg_emu.evaluate`.
        name (str, optional): The name of :obj:`data`, for the table. (default: :obj:`None`)
        inductive (bool, optional): Whether the graph differs from the training graph. Missing settings are then taken
            from :obj:`INDUCTIVE_SETTINGS`. (default: :obj:`False`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
    """
    if inductive:
        settings = {**INDUCTIVE_SETTINGS, **settings}
    metrics = evaluate(ranker_of(model, data), data, split=split, progress=progress, **settings)
    if reads_graph(model):
        metrics.info['graph'] = 'training facts' if name is None else f'training facts of {name}'
    number = settings.get('num_negatives')
    if number is not None:
        # Papers rarely say which of the two settings they report.
        against = 'all candidates' if 'candidates' in metrics.info else 'all entities'
        metrics.info['ranked against'] = f'{against}, and {number} negatives in the row that says so'
    return metrics
