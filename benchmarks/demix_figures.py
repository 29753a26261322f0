r"""Figures 3 and 5 of the DeMix paper from run folders.

.. code-block:: console

    python -m benchmarks.demix_figures convergence --runs runs/reproduction/demix/WN18RR/hake-*-seed0
    python -m benchmarks.demix_figures embeddings --run runs/reproduction/demix/FB15k-237/hake-demix-adv-seed0

``convergence`` (Figure 3) draws Hits@10 on the validation split against seconds of training. ``embeddings`` (Figure 5)
draws, for one pattern (h, r), the tail vectors of 20 training facts near the boundary (the lowest scores), of the 10
facts of the other splits with the lowest scores, and of the 10 other entities with the highest scores, projected by
t-SNE. The pattern is the one with the most held-out facts among those with at least 20 training facts, or the one that
``--head`` and ``--relation`` name. Both write a picture and their values to ``benchmarks/results/demix``.
"""
from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any, Optional, Sequence

import pandas as pd
import torch
from torch import Tensor

from benchmarks._paper_figures import dataset_name, pyplot
from benchmarks._plots import save
from benchmarks._record import RESULTS, write_result
from pyg_emu import KGData, as_scorer
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import open_run

#: The numbers of tails that Figure 5 shows, by group.
SHOWN = {'training facts': 20, 'held-out facts': 10, 'other entities': 10}


def draw_convergence(runs: Sequence[Path], folder: Path) -> list[Path]:
    r"""Draws the curves of several runs, and records them."""
    plt = pyplot()
    figure, place = plt.subplots(figsize=(7, 4.5), layout='constrained')
    curves, datasets = {}, set()
    for run in runs:
        history = pd.read_csv(run / 'history.csv')[['seconds', 'valid_hits@10']].dropna()
        curves[run.name] = history.to_dict('list')
        datasets.add(dataset_name(load_recipe(run / 'recipe.yaml')))
        place.plot(history['seconds'], history['valid_hits@10'], label=run.name)
    place.set(xlabel='seconds of training', ylabel='Hits@10, validation', title=', '.join(sorted(datasets)))
    place.legend(fontsize=8)
    written = write_result(f'demix/convergence-{"-".join(sorted(datasets))}', {'curves': curves}, folder=folder)
    return [written, save(figure, written.with_suffix('.png'))]


@torch.no_grad()
def tails(model: Any, data: KGData, head: int, relation: int) -> dict[str, Tensor]:
    r"""Returns the ids of the tails of each group of :data:`SHOWN` for the pattern (h, r)."""
    known, kind = torch.tensor([head]), torch.tensor([relation])
    scorer = as_scorer(model)
    score = scorer.score_all(scorer.query(known, kind, 'tail'))[0]
    every = torch.arange(data.num_nodes).unsqueeze(0)
    train = data.fact_index('train').is_known(every, known, kind, 'tail')[0]
    facts = data.fact_index('all').is_known(every, known, kind, 'tail')[0]
    groups = zip(SHOWN.items(), (train, facts & ~train, ~facts), (False, False, True))
    return {name: ids[score[ids].argsort(descending=highest)[:count]]
            for (name, count), mask, highest in groups for ids in [mask.nonzero().view(-1)]}


def busiest_pattern(data: KGData) -> tuple[int, int]:
    r"""Returns the pattern (h, r) with the most held-out facts among those with at least 20 training facts; with fewer
    where there is none.
    """
    held_out = torch.cat([data.facts('valid'), data.facts('test')])
    patterns, count = torch.unique(held_out[:, :2], dim=0, return_counts=True)
    enough = data.fact_index('train').count(patterns[:, 0], patterns[:, 1], 'tail') >= SHOWN['training facts']
    best = int((count + enough * int(count.max())).argmax())
    return int(patterns[best, 0]), int(patterns[best, 1])


def draw_embeddings(run: Path, folder: Path, head: Optional[str], relation: Optional[str]) -> list[Path]:
    r"""Draws the tail vectors of one pattern, and records their places."""
    from sklearn.manifold import TSNE

    plt = pyplot()
    model, data, recipe = open_run(run)
    pattern = busiest_pattern(data) if head is None or relation is None else (data.entity_id(head),
                                                                              data.relation_id(relation))
    groups = tails(model, data, *pattern)
    ids = torch.cat(list(groups.values()))
    vectors = as_scorer(model).candidates(ids).detach().numpy()
    # Perplexity has to be below the number of points.
    places = TSNE(perplexity=min(10.0, (len(ids) - 1) / 3), random_state=recipe.seed).fit_transform(vectors)
    figure, place = plt.subplots(figsize=(6, 5), layout='constrained')
    points, start = {}, 0
    for name, own in groups.items():
        own_places = places[start:start + len(own)]
        start += len(own)
        place.scatter(own_places[:, 0], own_places[:, 1], label=name)
        points[name] = own_places.tolist()
    names = [str(data.entity_labels[pattern[0]] if data.entity_labels else pattern[0]),
             str(data.relation_labels[pattern[1]] if data.relation_labels else pattern[1])]
    # Names of relations may be longer than the picture is wide, and have no spaces.
    title = [line for text in (f'tails of {names[0]} and', names[1]) for line in textwrap.wrap(text, 60)]
    place.set_title('\n'.join([*title, 't-SNE']), fontsize=9)
    place.set(xticks=[], yticks=[])
    place.legend(fontsize=8)
    written = write_result(f'demix/embeddings-{run.resolve().name}', {'pattern': names, 'points': points},
                           seed=recipe.seed, folder=folder)
    return [written, save(figure, written.with_suffix('.png'))]


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    convergence = commands.add_parser('convergence', help='Figure 3')
    convergence.add_argument('--runs', type=Path, nargs='+', required=True, help='run folders')
    embeddings = commands.add_parser('embeddings', help='Figure 5')
    embeddings.add_argument('--run', type=Path, required=True, help='run folder')
    embeddings.add_argument('--head', help='label of the head (default: see above)')
    embeddings.add_argument('--relation', help='label of the relation')
    for command in (convergence, embeddings):
        command.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    arguments = parser.parse_args(argv)
    if arguments.command == 'convergence':
        print(*draw_convergence(arguments.runs, arguments.out), sep='\n')
        return
    if (arguments.head is None) != (arguments.relation is None):
        parser.error('--head, --relation: expected both or neither')
    print(*draw_embeddings(arguments.run, arguments.out, arguments.head, arguments.relation), sep='\n')


if __name__ == '__main__':
    main()
