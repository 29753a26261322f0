r"""Ranking for models that read a graph: which view of the data they rank with, and over which graph they did."""
from __future__ import annotations

from typing import Any, Mapping, Optional

from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.evaluation.ranking import evaluate

#: How a graph other than the one trained on is ranked unless a recipe says otherwise: as NBFNet's results were.
INDUCTIVE_SETTINGS: dict[str, Any] = {'filter_splits': 'train', 'num_negatives': 50}


def reads_graph(model: Any) -> bool:
    r"""Whether a model's scores are read off a graph, as :class:`~pyg_emu.NBFNet`'s are."""
    return bool(getattr(model, 'reads_graph', False))


def ranker_of(model: Any, data: KGData) -> Any:
    r"""What :func:`~pyg_emu.evaluate` and :func:`~pyg_emu.predict` take for a model: itself, or,
    where it reads a graph, its view of :obj:`data`.
    """
    return model.as_ranker(data) if reads_graph(model) else model


def rank(model: Any, data: KGData, split: Any, settings: Mapping[str, Any], *, name: Optional[str] = None,
         inductive: bool = False, progress: bool = False) -> Metrics:
    r"""Ranks a split, and notes what it was ranked against and, where one was read, over which graph.

    Args:
        model (torch.nn.Module): The model.
        data (KGData): The facts; for a model that reads a graph, with inverse relations.
        split (str): The facts to be ranked.
        settings (dict): Arguments of :func:`~pyg_emu.evaluate`.
        name (str, optional): The name of :obj:`data`, for the table. (default: :obj:`None`)
        inductive (bool): Whether the graph is another than the one trained on, which fills the settings up with
            :obj:`INDUCTIVE_SETTINGS`. (default: :obj:`False`)
        progress (bool): Whether to show a progress bar. (default: :obj:`False`)
    """
    if inductive:
        settings = {**INDUCTIVE_SETTINGS, **settings}
    metrics = evaluate(ranker_of(model, data), data, split=split, progress=progress, **settings)
    if reads_graph(model):
        metrics.info['graph'] = 'training facts' if name is None else f'training facts of {name}'
    number = settings.get('num_negatives')
    if number is not None:
        # Papers mix the two settings without a word.
        metrics.info['ranked against'] = f'all entities, and {number} negatives in the row that says so'
    return metrics
