r"""A map of the entities: their vectors in two dimensions."""
from __future__ import annotations

from importlib.util import find_spec
from typing import Optional

import numpy as np
import pandas as pd
import torch

from pyg_emu.core.errors import PygEmuError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.graphs import reads_graph
from pyg_emu.evaluation.vectors import embeddings
from pyg_emu.experiments.report.content import Section, Text
from pyg_emu.experiments.report.figures import COLORS, figure, shown_label
from pyg_emu.experiments.report.opened import Choices, OpenedRun

#: Entities that are named on the map itself.
_NAMED = 40
#: Dimensions that t-SNE starts from.
_REDUCED = 50
_TITLES = {'tsne': 't-SNE', 'pca': 'principal components'}


def map_section(run: OpenedRun, choices: Choices) -> Section:
    r"""The map of the entities of a run."""
    absent = _obstacle(run, choices)
    if absent is not None:
        return Section('map', 'Entities', absent=absent)
    assert run.data is not None
    try:
        vectors = embeddings(run.model, run.data)
    except PygEmuError as error:
        return Section('map', 'Entities', absent=f'The entities have no vectors that could be drawn: {error}.')
    degree = _degrees(run.data)
    shown = np.argsort(-degree, kind='stable')[:choices.max_entities]
    rows = vectors.to_numpy()[shown].astype(np.float64)
    finite = np.isfinite(rows).all(1)
    shown, rows = shown[finite], rows[finite]
    if len(shown) < 3 or rows.shape[1] < 2:
        return Section('map', 'Entities', absent=f'A map needs three entities with vectors of two components; there '
                                                 f'are {len(shown)} with {rows.shape[1]}.')
    method = choices.projection if choices.projection == 'pca' or len(shown) > 5 else 'pca'
    points = project(rows, method or 'tsne')
    groups, what = _groups(run.data, shown)
    names = vectors.index[shown]
    traces = []
    for place, group in enumerate(dict.fromkeys(groups.cat.categories)):
        own = np.flatnonzero((groups == group).to_numpy())
        if len(own) == 0:
            continue
        traces.append({
            'type': 'scatter', 'mode': 'markers+text' if len(shown) <= _NAMED else 'markers',
            'name': shown_label(group), 'x': points[own, 0].round(4).tolist(),
            'y': points[own, 1].round(4).tolist(),
            'text': [shown_label(name) for name in names[own]], 'customdata': degree[shown[own]].tolist(),
            'textposition': 'top center', 'textfont': {'size': 10.5, 'color': '#5b6675'},
            'marker': {'size': _sizes(degree[shown[own]], degree[shown].max()), 'opacity': 0.8,
                       'color': COLORS[place % len(COLORS)], 'line': {'width': 0.7, 'color': '#ffffff'}},
            'hovertemplate': '<b>%{text}</b><br>in %{customdata:,} training facts<extra></extra>'})
    hidden = {'showgrid': False, 'showticklabels': False, 'ticks': '', 'showline': False}
    number = len(vectors)
    which = (f'all {number:,} entities' if len(shown) == number else
             f'{len(shown):,} of {number:,} entities, those with the most training facts')
    text = f'{_TITLES[method or "tsne"]} of the vectors of {which}.{what}'
    drawn = figure(traces, height=620, xaxis=hidden, yaxis=hidden, hovermode='closest',
                   margin={'l': 8, 'r': 8, 't': 44, 'b': 8})
    return Section('map', 'Entities', [Text(text), drawn])


def project(rows: np.ndarray, method: str) -> np.ndarray:
    r"""Projects vectors to two dimensions, equal vectors to the same points each time.

    Args:
        rows (numpy.ndarray): The vectors. shape: :obj:`(n, d)`.
        method (str): :obj:`"tsne"` (`"Visualizing Data using t-SNE"
            <https://www.jmlr.org/papers/v9/vandermaaten08a.html>`_) or :obj:`"pca"`.

    :rtype: :class:`numpy.ndarray` of shape :obj:`(n, 2)`.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if (rows == rows[0]).all():
        return np.zeros((len(rows), 2))
    size = 2 if method == 'pca' else min(_REDUCED, *rows.shape)
    reduced = PCA(size, svd_solver='full').fit_transform(rows)
    if method == 'pca':
        return np.asarray(reduced)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    return np.asarray(TSNE(2, perplexity=perplexity, init='pca', random_state=0).fit_transform(reduced))


def _obstacle(run: OpenedRun, choices: Choices) -> Optional[str]:
    if choices.projection == 'none':
        return 'The map was not asked for.'
    if run.model is None or run.data is None:
        return run.absent.get('model') or run.absent['data']
    if reads_graph(run.model):
        return (f'{type(run.model).__name__} has no vector for each entity: its scores come from the paths between two '
                'entities.')
    if find_spec('sklearn') is None:
        return "The map needs the package scikit-learn, which is not installed; install the extra 'report'."
    return None


def _degrees(data: KGData) -> np.ndarray:
    r"""The number of training facts of each entity."""
    facts = data.facts('train')
    return torch.bincount(facts[:, [0, 2]].flatten(), minlength=data.num_nodes or 0).cpu().numpy()


def _sizes(degree: np.ndarray, most: int) -> list[float]:
    return (6 + 9 * np.log1p(degree) / max(np.log1p(most), 1e-9)).round(1).tolist()


def _groups(data: KGData, shown: np.ndarray) -> tuple[pd.Series, str]:
    r"""The group of each entity, which its colour shows, and a sentence that says what the groups are."""
    kinds = data.node_type if 'node_type' in data else None
    if isinstance(kinds, torch.Tensor) and kinds.numel() == data.num_nodes:
        names = pd.Series(kinds.cpu().numpy()[shown]).map('type {}'.format)
        return _common(names), ' Colours are types of nodes.'
    facts = data.facts('train').cpu()
    if len(facts) == 0:
        return pd.Series(['entities'] * len(shown), dtype='category'), ''
    ends = pd.DataFrame({'entity': torch.cat([facts[:, 0], facts[:, 2]]).numpy(),
                         'end': torch.cat([2 * facts[:, 1], 2 * facts[:, 1] + 1]).numpy()})
    counts = ends.value_counts(sort=False).reset_index().sort_values(['entity', 'count'], kind='stable')
    most = counts.drop_duplicates('entity', keep='last').set_index('entity')['end'].reindex(shown)
    labels = data.relation_labels

    def name(end: float) -> str:
        if np.isnan(end):
            return 'no training fact'
        number = int(end) // 2
        return f'{"tail" if int(end) % 2 else "head"} of {f"relation {number}" if labels is None else labels[number]}'

    return _common(most.reset_index(drop=True).map(name)), (
        ' Colours show the relation, and its end, in which an entity stands most often. Points are larger for entities '
        'with more facts.')


def _common(names: pd.Series) -> pd.Series:
    r"""The most common groups, and one for all others."""
    number = len(COLORS) - 1
    common = list(names.value_counts().sort_values(ascending=False, kind='stable').index)
    kept = common if len(common) <= number + 1 else common[:number]
    categories = [*kept, *(['other'] if len(common) > len(kept) else [])]
    return pd.Series(pd.Categorical(names.where(names.isin(kept), 'other'), categories))
