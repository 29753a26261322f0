r"""Figures 2 and 3 of the DANS paper.

.. code-block:: console

    python -m benchmarks.dans_figures lines                  # from the recorded runs of --paper DANS --figure 2
    python -m benchmarks.dans_figures embeddings --run runs/reproduction/dans/UMLS/distmult-dans-seed0 --relation isa

``lines`` (Figure 2) draws the MRR on the test facts of the ablation (a), by the number of negatives (b), and by the
weight of the regularizer of FiLM (c). ``embeddings`` (Figure 3) draws the tails of the training facts of one relation,
vectors that each pathway of the generator of a trained run makes for them, and uniformly drawn entities, projected by
t-SNE. Both write a picture and its values to ``benchmarks/results/dans``.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from torch import Tensor

from benchmarks._paper_figures import pyplot
from benchmarks._plots import save
from benchmarks._record import RESULTS, spread, write_result
from benchmarks._reproduction import entries, recorded
from benchmarks.dans_paper import ABLATION
from pyg_emu import Batch, KGData, as_scorer
from pyg_emu.core.contract import for_graph
from pyg_emu.core.errors import ArgumentError, PygEmuError
from pyg_emu.experiments.build import build
from pyg_emu.experiments.runs import open_run
from pyg_emu.training.checkpoint import load_checkpoint

#: The most points of a group in Figure 3.
MAX_POINTS = 300
_PARTS = {'(a) ablation': lambda name: name in ABLATION, '(b) negatives': lambda name: name.startswith('Ns='),
          '(c) weight of the regularizer': lambda name: name.startswith('lambda=')}


def draw_lines(folder: Path) -> list[Path]:
    r"""Draws Figure 2 from recorded runs, one line per dataset.

    Raises:
        SystemExit: If nothing is recorded.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for entry in entries('DANS Figure 2', 'dans'):
        values = [result['metrics']['test']['mrr'] for result in recorded(entry, folder)]
        if values:
            found.setdefault(entry.row.dataset, {})[entry.row.method] = values
    if not found:
        raise SystemExit('no run of Figure 2 is recorded; run python -m benchmarks.reproduce --paper DANS --figure 2')
    plt = pyplot()
    figure, places = plt.subplots(1, len(_PARTS), figsize=(12, 3.6), layout='constrained')
    for place, (title, belongs) in zip(places, _PARTS.items()):
        for dataset, points in found.items():
            own = {name: spread(values) for name, values in points.items() if belongs(name)}
            place.errorbar([name.partition('=')[2] or name for name in own], [mean for mean, _ in own.values()],
                           [std for _, std in own.values()], marker='o', capsize=3, label=dataset)
        place.set(title=title, ylabel='MRR, test facts')
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    written = write_result('dans/figure-2', {'mrr': found}, folder=folder)
    return [written, save(figure, written.with_suffix('.png'))]


@torch.no_grad()
def vectors_of(run: Path, relation: Optional[str]) -> tuple[dict[str, Tensor], str, int]:
    r"""Returns the vectors of each group of Figure 3, the label of the relation, and the seed of the run. The weights
    of the model and of the generator are those of the last step.

    Raises:
        ArgumentError: If the run has no generator.
    """
    model, data, recipe = open_run(run, which='last')
    settings = recipe.negatives.get('sampler') or {}
    if settings.get('name') != 'dans':
        raise ArgumentError(f'--run: expected a run whose negatives come from the sampler dans, got '
                            f'{settings.get("name", "uniform")}')
    # The game is over: the networks stay as they are.
    frozen = {**recipe.negatives, 'sampler': {**settings, 'generator_steps': 0, 'discriminator_steps': 0}}
    transform = build('negatives', frozen)
    sampler = transform.sampler
    sampler.load_state_dict(load_checkpoint(run / 'last.pt')['parts']['transform.sampler'])
    scorer = for_graph(as_scorer(model), data)
    sampler.begin(scorer)
    kind = _relation(data, relation)
    facts = data.facts('train')
    facts = facts[facts[:, 1] == kind][:MAX_POINTS]
    generator = torch.Generator().manual_seed(recipe.seed)
    batch = transform(Batch(facts[:, 0], facts[:, 1], facts[:, 2], side='tail', num_nodes=data.num_nodes,
                            num_relations=data.num_relations, source=data, generator=generator))
    groups = {'true tails': scorer.candidates(torch.unique(facts[:, 2]))}
    if batch.neg_index.size(1) > 0:  # else all negatives are generated
        groups['uniform'] = scorer.candidates(torch.unique(batch.neg_index[:, 0]))
    place = 0
    for name, number in sampler.numbers(transform.num_negatives).items():
        groups[f'{name} pathway'] = batch.neg_vectors[:, place]  # The first vector that it makes for a fact.
        place += number
    labels = data.relation_labels
    return groups, str(labels[kind]) if labels else str(kind), recipe.seed


def draw_embeddings(run: Path, folder: Path, relation: Optional[str]) -> list[Path]:
    r"""Draws Figure 3 of a run, and records the places of its points."""
    from sklearn.manifold import TSNE

    plt = pyplot()
    groups, label, seed = vectors_of(run, relation)
    vectors = torch.cat([*groups.values()]).numpy()
    places = TSNE(perplexity=min(30.0, (len(vectors) - 1) / 3), random_state=seed).fit_transform(vectors)
    figure, place = plt.subplots(figsize=(6, 5), layout='constrained')
    points, start = {}, 0
    for name, own in groups.items():
        part = places[start:start + len(own)]
        start += len(own)
        # Uniform negatives are entities, too, and would hide the few true tails.
        on_top = {'marker': '*', 's': 70, 'zorder': 3, 'edgecolors': 'black', 'linewidths': 0.5}
        place.scatter(part[:, 0], part[:, 1], label=name, **(on_top if name == 'true tails' else {'s': 14}))
        points[name] = part.tolist()
    place.set(title=f'tails of {label}, t-SNE', xticks=[], yticks=[])
    place.legend(fontsize=8)
    written = write_result(f'dans/embeddings-{run.resolve().name}', {'relation': label, 'points': points}, seed=seed,
                           folder=folder)
    return [written, save(figure, written.with_suffix('.png'))]


def _relation(data: KGData, label: Optional[str]) -> int:
    if label is not None:
        return int(data.relation_id(label))
    return int(torch.bincount(data.facts('train')[:, 1]).argmax())


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    lines = commands.add_parser('lines', help='Figure 2')
    embeddings = commands.add_parser('embeddings', help='Figure 3')
    embeddings.add_argument('--run', type=Path, required=True, help='folder of a run with DANS')
    embeddings.add_argument('--relation', help='label of the relation (default: the one with the most facts)')
    for command in (lines, embeddings):
        command.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    arguments: Any = parser.parse_args(argv)
    try:
        written = (draw_lines(arguments.out) if arguments.command == 'lines' else
                   draw_embeddings(arguments.run, arguments.out, arguments.relation))
    except PygEmuError as error:
        raise SystemExit(str(error)) from None
    print(*written, sep='\n')


if __name__ == '__main__':
    main()
