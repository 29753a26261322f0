r"""The training run of each row of the DeMix paper, and its recipe.

The paper prints: Adam, 16 negatives for distance models and 50 for the others, 8 epochs of warm-up, Beta(1, 1), and the
sets that :math:`\beta`, :math:`\delta`, :math:`\mu`, the margin and the learning rate were chosen from. It does not
print the dimension, the batch size, the number of epochs, the temperature, :math:`T_0` and what was chosen. Here, all
rows of a model and dataset share dimension 100, batches of 1,000 facts, 30,000 steps, temperature 1, a margin and a
learning rate. These were chosen for self-adversarial negatives on the validation split, from runs of 6,000 steps on
FB15k-237 and of 3,000 steps on UMLS, rates first and margins 6 and 9 for some: all models on FB15k-237, and all but
TransE on UMLS. ``benchmarks/results/demix-rates`` holds the runs for RotatE and HAKE on FB15k-237, whose margin is a
first guess. WN18RR shares what was chosen for FB15k-237. So a row differs from its baseline in its negatives only.
:math:`\delta`, :math:`\beta` and :math:`\mu` are those of :data:`DEMIX`.

``python -m benchmarks.paper_runs`` writes the recipes under ``benchmarks/recipes/demix``.
"""
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Mapping, Optional

from benchmarks._recipes import RECIPES, Recipe
from benchmarks.demix_paper import DATASETS, rows
from benchmarks.paper import Row

READINGS = ('demix', )
DEMIX: dict[str, Any] = {'name': 'demix', 'delta': 0.1, 'beta': 1.0, 'mu': 3, 'ramp_epochs': 10.0, 'warmup': 8}
_SHARED: dict[str, Any] = {
    'description': 'Shared settings of the rows of the DeMix paper, without a dataset.', 'optimizer': {'name': 'adam'},
    'loss': {'name': 'demix', 'temperature': 1.0}, 'negatives': {'num_negatives': 16, 'mutation_rate': 0.0},
    'batch_size': 1000, 'corrupt': 'alternate', 'num_steps': 30_000, 'evaluate_every': 1000}
# Settings of each model, margin included; negatives as printed: 16 for distance models, 50 for the others.
_MODELS: dict[str, dict[str, Any]] = {
    'TransE': {'model': {'name': 'TransE', 'hidden_channels': 100, 'margin': 6.0}, 'optimizer': {'lr': 0.001}},
    'RotatE': {'model': {'name': 'RotatE', 'hidden_channels': 100, 'margin': 9.0}, 'optimizer': {'lr': 0.001}},
    'HAKE': {'model': {'name': 'HAKE', 'hidden_channels': 100, 'margin': 9.0, 'modulus_weight': 3.5,
                       'phase_weight': 1.0}, 'optimizer': {'lr': 0.001}},
    'DistMult': {'model': {'name': 'DistMult', 'hidden_channels': 100}, 'optimizer': {'lr': 0.01},
                 'negatives': {'num_negatives': 50}},
    'ComplEx': {'model': {'name': 'ComplEx', 'hidden_channels': 100}, 'optimizer': {'lr': 0.01},
                'negatives': {'num_negatives': 50}},
}
# UMLS has 135 entities: what is chosen for large graphs overfits within a few epochs.
_STEPS = {'UMLS': 3000}
# Chosen for UMLS, but for TransE, whose runs came before the rate and margin of the large graphs were chosen.
_OWN: dict[tuple[str, str], dict[str, Any]] = {
    ('UMLS', 'TransE'): {'model': {'name': 'TransE', 'hidden_channels': 100, 'margin': 9.0},
                         'optimizer': {'lr': 0.003}},
    ('UMLS', 'RotatE'): {'optimizer': {'lr': 0.003}},
    ('UMLS', 'HAKE'): {'optimizer': {'lr': 0.003}},
    ('UMLS', 'DistMult'): {'optimizer': {'lr': 0.001}},
    ('UMLS', 'ComplEx'): {'optimizer': {'lr': 0.001}},
}
_UNIFORM: dict[str, Any] = {'loss': {'temperature': None, 'divide_by_negatives': True}}


def _demix(**changes: Any) -> dict[str, Any]:
    return {'negatives': {'mutation': {**DEMIX, **changes}}}


def _sampler(name: str, **settings: Any) -> dict[str, Any]:
    return {'negatives': {'sampler': {'name': name, **settings}}}


# The run of each method, the run that it changes, what it is, and the changes.
_METHODS: dict[str, tuple[str, Optional[str], str, dict[str, Any]]] = {
    'Self-Adv': ('self-adv', None, 'uniform negatives with self-adversarial weights', {}),
    'Normal': ('self-adv', None, 'uniform negatives with self-adversarial weights', {}),
    'Leakage': ('leakage', 'self-adv', 'no known fact of any split as a negative, Figure 1',
                _sampler('uniform', filtered=True, split='all')),
    'Uniform': ('uniform', 'self-adv', 'uniform negatives', _UNIFORM),
    'Bernoulli': ('bernoulli', 'uniform', 'Bernoulli sampling', {'corrupt': 'bernoulli'}),
    'NSCaching': ('nscaching', 'uniform', 'NSCaching', _sampler('nscaching')),
    'RW-SANS': ('sans', 'self-adv', 'SANS by random walks', _sampler('sans', mode='walk')),
    'ESNS': ('esns-like', 'uniform', 'negatives similar to the positive, after ESNS', _sampler('esns_like')),
    'CANS': ('cans-like', 'self-adv', 'negatives of inferred types, after CANS', _sampler('cans_like')),
    'DeMix-Adv': ('demix-adv', 'self-adv', 'DeMix with self-adversarial weights', _demix()),
    'DeMix-Uni': ('demix-uni', 'uniform', 'DeMix with equal weights', _demix()),
    'DeMix-RW-SANS': ('demix-sans', 'sans', 'DeMix on SANS', _demix()),
    '-WARM': ('demix-no-warmup', 'demix-adv', 'DeMix without a warm-up', _demix(warmup=0)),
    '-MPNE': ('demix-no-mpne', 'demix-adv', 'DeMix without marginal pseudo-negatives', _demix(mu=float('inf'))),
    '-AdaMix': ('demix-no-adamix', 'demix-adv', 'DeMix with label 1 in place of mixing', _demix(mix=False)),
}


def recipe_path(reading: str, row: Row) -> Path:
    r"""Returns the recipe file of a row."""
    return RECIPES / reading / row.dataset / f'{row.model.lower()}-{_METHODS[row.method][0]}.yaml'


@functools.cache
def recipes() -> Mapping[Path, Recipe]:
    r"""Returns all recipes by their path below :data:`~benchmarks._recipes.RECIPES`."""
    found: dict[Path, Recipe] = {}
    for dataset in DATASETS:
        for model, settings in _MODELS.items():
            methods = {row.method for row in rows() if (row.dataset, row.model) == (dataset, model)}
            for method in _with_bases(methods):
                run, base, what, changes = _METHODS[method]
                below = '../base.yaml' if base is None else f'{model.lower()}-{base}.yaml'
                if base is None:
                    steps = {'num_steps': _STEPS[dataset]} if dataset in _STEPS else {}
                    changes = {'dataset': dataset, **settings, **_OWN.get((dataset, model), {}), **steps, **changes}
                found[Path('demix', dataset, f'{model.lower()}-{run}.yaml')] = Recipe(
                    f'{model} on {dataset}, {what} (DeMix paper).', below, changes)
    return found


def _with_bases(methods: set[str]) -> list[str]:
    bases = {run: method for method, (run, *_) in _METHODS.items()}
    wanted = set(methods)
    for method in methods:
        while (base := _METHODS[method][1]) is not None:
            method = bases[base]
            wanted.add(method)
    return [method for method in _METHODS if method in wanted]


def texts() -> dict[Path, dict[str, Any]]:
    r"""Returns the shared recipe by its path."""
    return {Path('demix', 'base.yaml'): _SHARED}
