r"""Which held-out facts MPNE of DeMix estimates to be marginal, and how many other candidates (the paper's Figure 4).

.. code-block:: console

    python -m benchmarks.demix_estimation --run runs/reproduction/demix/FB15k-237/transe-demix-adv-seed0

For each pattern of a validation or test fact that has training facts, all entities are candidates but those of its
training facts. *Recall* is the share of held-out facts that are estimated to be marginal, which the paper calls
estimation accuracy. *Precision* is the share of held-out facts among all candidates that are estimated to be marginal,
and a *false alarm* any other of them. Writes ``benchmarks/results/demix/estimation-{run}.json``.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks._paper_figures import dataset_name
from benchmarks._record import RESULTS, write_result
from pyg_emu import KGData, as_scorer
from pyg_emu.experiments.runs import open_run
from pyg_emu.negatives.mutation import DeMixMutation

_SIDES = ('tail', 'head')


@torch.no_grad()
def estimate(model: Any, data: KGData, mutation: DeMixMutation, block: int = 256) -> dict[str, dict[str, float]]:
    r"""Counts marginal candidates, for the patterns of each side and for both.

    Args:
        model (Scorer): The model.
        data (KGData): The graph.
        mutation (DeMixMutation): MPNE, with its settings.
        block (int, optional): The number of patterns at a time. (default: :obj:`256`)
    """
    scorer = as_scorer(model)
    mutation.refresh(data, scorer)
    train, every = data.fact_index('train'), data.fact_index('all')
    held_out = torch.cat([data.facts('valid'), data.facts('test')])
    found = {}
    for side, column in (('tail', 0), ('head', 2)):
        patterns = torch.unique(held_out[:, [column, 1]], dim=0)
        totals = torch.zeros(4, dtype=torch.int64)  # patterns, held-out facts, those that are marginal, false alarms
        for part in patterns.split(block):
            known, relation = part.unbind(dim=1)
            used = train.count(known, relation, side) > 0  # type: ignore[arg-type]
            known, relation = known[used], relation[used]
            entity = torch.arange(data.num_nodes).expand(len(known), -1)
            seen = train.is_known(entity, known, relation, side)  # type: ignore[arg-type]
            score = scorer.score_all(scorer.query(known, relation, side))  # type: ignore[arg-type]
            marginal = mutation.is_marginal(score, known, relation, side) & ~seen  # type: ignore[arg-type]
            facts = every.is_known(entity, known, relation, side) & ~seen  # type: ignore[arg-type]
            totals += torch.stack([used.sum(), facts.sum(), (facts & marginal).sum(), (marginal & ~facts).sum()])
        found[side] = totals
    found['both'] = found['tail'] + found['head']
    return {side: _shares(totals) for side, totals in found.items()}


def _shares(totals: torch.Tensor) -> dict[str, float]:
    patterns, held_out, hits, false_alarms = totals.tolist()
    return {'patterns': patterns, 'held_out': held_out, 'found': hits, 'false_alarms': false_alarms,
            'recall': hits / held_out if held_out else 0.0,
            'precision': hits / (hits + false_alarms) if hits + false_alarms else 0.0}


def main(argv: list[str] | None = None) -> None:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', type=Path, required=True, help='run folder of a model trained with DeMix')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    arguments = parser.parse_args(argv)
    model, data, recipe = open_run(arguments.run)
    settings = dict(recipe.negatives.get('mutation') or {})
    if settings.pop('name', None) != 'demix':
        parser.error(f'--run: expected a model trained with DeMix, got {arguments.run}')
    mutation = DeMixMutation(**settings)
    counts = estimate(model, data, mutation)
    label = f'{dataset_name(recipe)}, {recipe.model["name"]}'
    write_result(f'demix/estimation-{arguments.run.resolve().name}', {
        'label': label, **counts['both'], **{side: counts[side] for side in _SIDES}, 'settings': settings},
        seed=recipe.seed, folder=arguments.out)
    for side, found in counts.items():
        print(f'{side}: ' + ', '.join(f'{key} {value:,.4g}' for key, value in found.items()))


if __name__ == '__main__':
    main()
