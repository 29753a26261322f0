r"""Plots of :mod:`benchmarks.speed` (step times and their growth), :mod:`benchmarks.curves_fb15k237` and
:mod:`benchmarks.headline`.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pandas as pd

_LABELS = {'vanilla': 'ours, vanilla', 'emu_triple': 'ours, EMU, mask per triple',
           'emu_negative': 'ours, EMU, mask per negative', 'eager_vanilla': 'eager PyTorch, vanilla',
           'eager_emu_triple': 'eager, EMU, mask per triple', 'eager_emu_negative': 'eager, EMU, mask per negative',
           'pykeen_vanilla': 'PyKEEN, vanilla', 'pyg_one_negative': 'PyG, a single negative',
           'sparse_vanilla': 'sparse products, vanilla'}
_AXES = {'negatives': 'negatives per triple', 'channels': 'channels', 'entities': 'entities (row-sparse)'}


def draw(results: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    r"""Plots the available results of :obj:`"steps"` and :obj:`"scaling"`.

    Args:
        results (Mapping): The metrics of each part.
        path (Path): The output file.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, places = plt.subplot_mosaic([['steps'] * 3, list(_AXES)], figsize=(11, 8), layout='constrained')
    if 'steps' in results:
        _bars(places['steps'], pd.DataFrame(results['steps']['rows']), plt.get_cmap('tab10'))
    for axis, caption in _AXES.items():
        place = places[axis]
        place.set(xlabel=caption, ylabel='ms per step', xscale='log', yscale='log')
        if 'scaling' in results:
            _lines(place, axis, pd.DataFrame(results['scaling']['rows']), results['scaling']['ratios'])
    return save(figure, path)


def _bars(place: Any, rows: pd.DataFrame, colours: Any) -> None:
    models = list(dict.fromkeys(rows['model']))
    names = [name for name in _LABELS if name in set(rows['contender'])]
    width = 0.85 / len(names)
    for number, name in enumerate(names):
        own = rows[rows['contender'] == name]
        left = [models.index(model) - 0.425 + (number + 0.5) * width for model in own['model']]
        bars = place.bar(left, own['ms'], width, label=_LABELS[name], color=colours(number))
        place.bar_label(bars, fmt='%.3g', fontsize=7)
    place.set(xticks=range(len(models)), xticklabels=models, yscale='log', ylabel='ms per training step')
    place.legend(fontsize=8, ncols=4, loc='upper center', bbox_to_anchor=(0.5, 1.2))


def _lines(place: Any, axis: str, rows: pd.DataFrame, exponents: Mapping[str, Any]) -> None:
    for name, own in rows[rows['axis'] == axis].groupby('contender'):
        exponent = exponents[f'exponent in {axis}, {name}']['value']
        place.plot(own['value'], own['ms'], marker='o', label=f'{_LABELS[str(name)]}: exponent {exponent:.2f}')
    place.legend(fontsize=8, loc='upper left')


def draw_curves(frame: pd.DataFrame, path: Path) -> Path:
    r"""Plots validation MRR against training time, one line per run.

    Args:
        frame (pandas.DataFrame): Columns :obj:`run`, :obj:`label`, :obj:`seconds` and :obj:`mrr`.
        path (Path): The output file.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, place = plt.subplots(figsize=(8, 5), layout='constrained')
    for colour, (label, own) in enumerate(frame.groupby('label', sort=False)):
        for number, (_, single) in enumerate(own.groupby('run')):  # One line per seed.
            place.plot(single['seconds'], single['mrr'], color=f'C{colour}', label=label if number == 0 else None)
    place.set(xlabel='seconds of training steps (validation not included)', ylabel='filtered MRR, validation')
    place.grid(alpha=0.3)
    place.legend(fontsize=9)
    return save(figure, path)


def draw_headline(frame: pd.DataFrame, title: str, target: float, path: Path) -> Path:
    r"""Plots validation MRR against training time on a logarithmic axis and marks when the target was reached.

    Args:
        frame (pandas.DataFrame): Columns :obj:`label`, :obj:`seconds` and :obj:`mrr`.
        title (str): The title.
        target (float): The target MRR.
        path (Path): The output file.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, place = plt.subplots(figsize=(8, 5), layout='constrained')
    place.axhline(target, color='grey', linewidth=0.8, linestyle=':')
    for colour, (label, own) in enumerate(frame.groupby('label', sort=False)):
        place.plot(own['seconds'], own['mrr'], color=f'C{colour}', label=label)
        reached = own[own['mrr'] >= target].head(1)
        for seconds, mrr in zip(reached['seconds'], reached['mrr']):
            place.plot(seconds, mrr, 'o', color=f'C{colour}')
            place.annotate(f'{seconds:.0f} s', (seconds, mrr), xytext=(6, -14), textcoords='offset points',
                           color=f'C{colour}', fontsize=10)
    place.set(xscale='log', xlabel='seconds of training', ylabel='filtered MRR, validation facts', title=title)
    place.xaxis.set_major_formatter('{x:g}')
    place.grid(alpha=0.3)
    place.legend(fontsize=9, loc='best')
    return save(figure, path)


def save(figure: Any, path: Path) -> Path:
    r"""Writes a figure atomically as PNG and closes it."""
    from matplotlib import pyplot as plt

    # A temporary file in the same folder, so that the file is never incomplete.
    partial = path.with_name(f'.{path.name}')
    figure.savefig(partial, dpi=110, format='png', metadata={'Software': None})
    plt.close(figure)
    partial.replace(path)
    return path
