r"""Figures 2 and 5 of the paper from recorded results, and figures 3, 4 and 6 from a trained model."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pandas as pd
import torch
from torch import Tensor

from benchmarks._plots import save
from benchmarks._record import write_result
from benchmarks.accuracy import label
from benchmarks.papers import PAPERS
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.evaluation.analysis import (
    CandidateVectors,
    candidate_vectors,
    deviation_angles,
    negative_negative_cosines,
    positive_negative_cosines,
    principal_axes,
)
from pyg_emu.experiments.build import build
from pyg_emu.experiments.recipe import Recipe
from pyg_emu.experiments.runs import open_run
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.sampling import SANSSampler

_METHODS = {'SAN': 'SANS', 'SAN_EMU': 'SANS + EMU', 'uni': 'uniform', 'uni_EMU': 'uniform + EMU'}
#: The number of training triples for figures 3, 4 and 6.
_FACTS = 64


def draw_figure_2(table: pd.DataFrame, path: Path) -> Path:
    r"""Plots MRR as bars, one panel per dataset, with the paper's values as black lines."""
    plt = pyplot()
    datasets, models = table['dataset'].unique(), list(table['model'].unique())
    figure, places = plt.subplots(1, len(datasets), figsize=(5 * len(datasets), 4), layout='constrained', squeeze=False)
    for place, dataset in zip(places[0], datasets):
        for number, (method, caption) in enumerate(_METHODS.items()):
            own = table[(table['dataset'] == dataset) & (table['method'] == method)].set_index('model').loc[models]
            left = [model + (number - 1.5) * 0.2 for model in range(len(models))]
            place.bar(left, own['mrr ours'], 0.2, yerr=own['mrr ours std'].fillna(0.0), label=caption,
                      color=f'C{number}')
            place.hlines(own['mrr paper'], [x - 0.1 for x in left], [x + 0.1 for x in left], color='black',
                         label='paper' if number == 3 else None)
        place.set(title=dataset, xticks=range(len(models)), xticklabels=models, ylabel='filtered MRR, test')
        place.set_ylim(bottom=0.0)
    figure.legend(*places[0][0].get_legend_handles_labels(), loc='outside upper center', ncols=5, fontsize=8)
    return save(figure, path)


def draw_figure_5(table: pd.DataFrame, path: Path) -> Path:
    r"""Plots MRR against the number of negatives, with 1-vs-all at the right edge."""
    plt = pyplot()
    figure, place = plt.subplots(figsize=(8, 5), layout='constrained')
    counts = sorted({int(count) for count in table['negatives'].dropna()})
    edge = 2 * counts[-1]
    for number, (model, lines) in enumerate(table[table['state'] == 'run'].groupby('model')):
        for method, own in lines.groupby('method'):
            place_of = own['negatives'].fillna(edge).astype(int)
            marker = {'uni': 'o--', 'uni_EMU': 's-'}.get(str(method), '*')
            name = _METHODS.get(str(method), '1-vs-all')
            place.errorbar(place_of, own['mrr ours'], own['mrr ours std'].fillna(0.0).to_numpy(), fmt=marker,
                           color=f'C{number}', label=f'{model}, {name}')
    place.set(xscale='log', xlabel='negatives per triple', ylabel='filtered MRR, test')
    place.set_xticks([*counts, edge], [*map(str, counts), '1-vs-all'], minor=False)
    place.minorticks_off()
    if place.lines:
        place.legend(fontsize=8)
    return save(figure, path)


def draw_model(number: int, run_dir: Path, folder: Path) -> list[Path]:
    r"""Plots figure 3, 4 or 6 of a trained model and records its values.

    Args:
        number (int): The number of the figure.
        run_dir (Path): The run folder.
        folder (Path): The folder of the results.

    Raises:
        RecipeError: If the folder contains no run.
        ArgumentError: If the run was trained without mutation.
    """
    model, data, recipe = open_run(run_dir)
    mutating = build('negatives', recipe.negatives)
    if mutating.mutation is None:
        raise ArgumentError(f'--run {run_dir}: expected a model trained with mutation for figures 3, 4 and 6, got one '
                            'trained without; give the run folder of a row with EMU')
    draw: Callable[..., tuple[Any, dict[str, Any]]] = {3: _figure_3, 4: _figure_4, 6: _figure_6}[number]
    figure, measured = draw(model, data, mutating)
    stem = f'{PAPERS["EMU"].group}/figure-{number}-{dataset_name(recipe)}-{run_dir.resolve().name}'
    metrics = {**measured, 'label': f'{dataset_name(recipe)}: {label(recipe)}', 'recipe': recipe.to_dict(),
               'facts': min(_FACTS, data.num_facts('train'))}
    written = write_result(stem, metrics, seed=recipe.seed, folder=folder)
    return [written, save(figure, written.with_suffix('.png'))]


def _figure_3(model: torch.nn.Module, data: KGData, mutating: EMUNegatives) -> tuple[Any, dict[str, Any]]:
    uniform = _vectors(model, data, mutating)
    sans = _vectors(model, data, EMUNegatives(mutating.num_negatives, 0.0, sampler=SANSSampler()))
    return _histogram({'uniform': positive_negative_cosines(uniform.positive, uniform.vanilla),
                       'EMU': positive_negative_cosines(uniform.positive, _mutated(uniform)),
                       'SANS': positive_negative_cosines(sans.positive, sans.vanilla)},
                      'cosine similarity of a positive and a negative')


def _figure_6(model: torch.nn.Module, data: KGData, mutating: EMUNegatives) -> tuple[Any, dict[str, Any]]:
    own = _vectors(model, data, mutating)
    mutated = _mutated(own)
    return _histogram({'uniform, uniform': negative_negative_cosines(own.vanilla),
                       'EMU, EMU': negative_negative_cosines(mutated),
                       'uniform, EMU': negative_negative_cosines(own.vanilla, mutated)},
                      'cosine similarity of two negatives of a triple')


def _figure_4(model: torch.nn.Module, data: KGData, mutating: EMUNegatives) -> tuple[Any, dict[str, Any]]:
    r"""Plots one true tail and its negatives, projected to the two principal axes of the negatives around the tail. The
    recorded values are means over all sampled triples.
    """
    own = _vectors(model, data, mutating)
    figure, places = pyplot().subplots(1, 2, figsize=(9, 4.5), layout='constrained', sharex=True, sharey=True)
    measured: dict[str, Any] = {}
    for place, (name, negatives) in zip(places, (('uniform', own.vanilla), ('EMU', _mutated(own)))):
        axes = principal_axes(negatives, center=own.positive)
        angles = deviation_angles(own.positive, negatives).rad2deg()
        measured[name] = {'isotropy': axes.isotropy.mean(), 'angle_mean': angles.mean(), 'angle_std': angles.std()}
        points = axes.project(negatives)[0].cpu()
        place.scatter(*points.T, s=8, alpha=0.5, label='negatives')
        place.scatter(0.0, 0.0, marker='*', s=120, color='C3', label='true tail')
        place.set(title=f'{name}: isotropy {float(axes.isotropy.mean()):.2f}', xlabel='first axis',
                  ylabel='second axis')
    places[0].legend(fontsize=8)
    return figure, measured


def _histogram(values: dict[str, Tensor], caption: str) -> tuple[Any, dict[str, Any]]:
    figure, place = pyplot().subplots(figsize=(7, 4), layout='constrained')
    for name, cosines in values.items():
        place.hist(cosines.flatten().cpu().numpy(), bins=100, range=(-1.0, 1.0), density=True, histtype='step',
                   label=f'{name}: mean {float(cosines.mean()):.3f}')
    place.set(xlabel=caption, ylabel='density')
    place.legend(fontsize=8)
    return figure, {name: {'mean': cosines.mean(), 'std': cosines.std()} for name, cosines in values.items()}


def _vectors(model: torch.nn.Module, data: KGData, negatives: EMUNegatives) -> CandidateVectors:
    # One seed, so that all kinds of negatives use the same triples.
    size = min(_FACTS, data.num_facts('train'))
    loader = TripletLoader(data, size, shuffle=True, transform=negatives, corrupt='tail', seed=0)
    return candidate_vectors(model, next(loader.batches()))


def _mutated(vectors: CandidateVectors) -> Tensor:
    assert vectors.mutated is not None
    return vectors.mutated


def dataset_name(recipe: Recipe) -> str:
    r"""Returns the name of the dataset of a recipe, without its folder."""
    source = recipe.dataset if isinstance(recipe.dataset, str) else str(recipe.dataset['source'])
    return Path(source).name


def pyplot() -> Any:
    r"""Returns :mod:`matplotlib.pyplot`, which draws into files."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot
    return pyplot
