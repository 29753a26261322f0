r"""The training runs of the rows of the DANS paper, and their recipes.

**Table 2 and Figure 2** share an R-GCN and its pre-training. One pre-training for each dataset, decoder and seed, with
uniform negatives, gives the weights from which the runs of all methods with this seed start. Printed (section 4.1): d =
100, 20 negatives for each fact, five of each pathway of the generator and ten uniform ones, batches of 1,000 facts,
15,000 epochs of pre-training and 5,000 of training with a learning rate of 0.001, five steps of the generator (0.001)
and one of the discriminator (0.0001) for each batch, lambda = 1e-4. The pre-training's learning rate (0.01), two
layers, four bases, dropout 0.2, gradients clipped to 1 and subgraphs of 30,000 edges, half of them hidden, are those of
the authors' code. One of its epochs is one subgraph, whose facts all make one step of the base model, and one step of
the game for each 1,000 of them. Here, an epoch is a step of 1,000 facts: 15,000 and 5,000 steps. On UMLS, the base
model therefore sees a fifth of the facts for each epoch. The optimizer is Adam.

The penalty is 1e-2 times the mean square of the encoded entities, and the squares of the relations get the same weight.
The authors' code takes the mean over each of the two tables, beside a loss that is a mean over 21 scores. The loss of
equation 2 is a sum, so that the penalty weighs less here.

The loss is equation 2, the binary cross-entropy of a fact plus the sum of those of its negatives, which is equation 13
of the DeMix paper and therefore :class:`~pyg_emu.DeMixLoss` without a temperature. Self-adv weighs the negatives by a
softmax of their scores.

**Table 3** quotes systems with encoders of their own. SANS-RW, NSCaching and KBGAN are run as their papers have them,
on plain vectors (SANS-RW with d = 1,000, as printed; KBGAN with one negative, picked from 20 candidates), with the loss
above and 20,000 steps, as many as the two parts of the others. CAKE and SMiLE read types of entities, which none of
these graphs has: no recipe.

``python -m benchmarks.paper_runs`` writes the recipes under ``benchmarks/recipes/dans``.
"""
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Mapping, Optional

from benchmarks._recipes import RECIPES, Recipe
from benchmarks.dans_paper import DATASETS, DECODERS, FILM_WEIGHTS, NEGATIVES, SAMPLERS
from benchmarks.paper import Row

READINGS = ('dans', )
#: The steps of the pre-training and of the runs after it.
PRETRAINING_STEPS, STEPS = 15_000, 5_000
CHANNELS = 100
#: The components of a vector of an entity, by decoder.
_WIDTH = {'DistMult': CHANNELS, 'RotatE': 2 * CHANNELS, 'ComplEx': 2 * CHANNELS}
_ENTITIES = {'UMLS': 135, 'WN18RR': 40_943, 'NELL-995': 75_492, 'FB15k-237': 14_541}

_SHARED: dict[str, Any] = {
    'description': 'Shared settings of the rows of the DANS paper, without a dataset.',
    'optimizer': {'name': 'adam', 'lr': 0.001}, 'loss': {'name': 'demix', 'temperature': None},
    'negatives': {'num_negatives': 20, 'mutation_rate': 0.0}, 'batch_size': 1000, 'corrupt': 'both', 'num_steps': STEPS,
    'evaluate_every': 50, 'max_grad_norm': 1.0, 'evaluation': {'ks': [1, 3, 5]}, 'validation': {'ks': [1, 3, 5]}}


def _sampler(name: str, **settings: Any) -> dict[str, Any]:
    return {'negatives': {'sampler': {'name': name, **settings}}}


# The negatives of each row on the R-GCN: the name of its run, what it is, and the changes.
_METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    'Rand': ('rand', 'uniform negatives', {}),
    'Pop': ('pop', 'negatives by popularity', _sampler('popularity')),
    'Self-adv': ('self-adv', 'uniform negatives with self-adversarial weights',
                 {'loss': {'name': 'demix', 'temperature': 1.0}}),
    'MCNS': ('mcns', 'MCNS', _sampler('mcns')),
    'DANS': ('dans', 'DANS', _sampler('dans')),
    'G-E': ('dans-entity', 'the entity pathway without FiLM', _sampler('dans', pathways='entity', film=False)),
    'G-R': ('dans-relation', 'the relation pathway without FiLM', _sampler('dans', pathways='relation', film=False)),
    'G-ER': ('dans-no-film', 'both pathways without FiLM', _sampler('dans', film=False)),
    **{f'Ns={number}': (f'dans-n{number}', f'DANS with {number} negatives',
                        {'negatives': {'num_negatives': number, 'sampler': {'name': 'dans'}}})
       for number in NEGATIVES if number != 20},
    **{f'lambda={weight}': (f'dans-lambda{weight}', f'DANS with lambda = {weight}',
                            _sampler('dans', film_weight=float(weight)))
       for weight in FILM_WEIGHTS if weight != '1e-4'},
}
# Points of Figure 2 that are DANS itself.
_SAME = {'Ns=20': 'DANS', 'lambda=1e-4': 'DANS'}
# The rows of Table 3 on plain vectors.
_PLAIN: dict[str, tuple[str, str, dict[str, Any]]] = {
    'SANS-RW': ('sans-rw', 'SANS by random walks, d = 1,000',
                {'model': {'hidden_channels': 1000}, **_sampler('sans', mode='walk')}),
    'NSCaching': ('nscaching', 'NSCaching', _sampler('nscaching')),
    'KBGAN': ('kbgan', 'KBGAN', {'negatives': {'num_negatives': 1, 'sampler': {'name': 'kbgan'}}}),
}


def recipe_path(reading: str, row: Row) -> Optional[Path]:
    r"""Returns the recipe file of a row, or :obj:`None` for CAKE and SMiLE."""
    method = _SAME.get(row.method, row.method)
    run = {**_METHODS, **_PLAIN}.get(method)
    return None if run is None else RECIPES / reading / row.dataset / f'{row.model.lower()}-{run[0]}.yaml'


def pretraining(reading: str, row: Row) -> Optional[Path]:
    r"""Returns the recipe of the pre-training that a row starts from, or :obj:`None` if it has none."""
    if _SAME.get(row.method, row.method) not in _METHODS:
        return None
    return RECIPES / reading / row.dataset / f'{row.model.lower()}-pretraining.yaml'


@functools.cache
def recipes() -> Mapping[Path, Recipe]:
    r"""Returns all recipes by their path below :data:`~benchmarks._recipes.RECIPES`."""
    found: dict[Path, Recipe] = {}
    for dataset in DATASETS:
        for decoder in DECODERS:
            slug = decoder.lower()
            # A mean over the encoded entities, written as a sum.
            penalty = {'name': 'lp', 'p': 2.0,
                       'weight': float(f'{0.01 / (_ENTITIES[dataset] * _WIDTH[decoder]):.3g}')}
            model = {'name': 'RGCN', 'decoder': decoder, 'hidden_channels': CHANNELS, 'num_layers': 2, 'num_bases': 4,
                     'dropout': 0.2, 'max_edges': 30_000, 'visible': 0.5}
            found[Path('dans', dataset, f'{slug}-pretraining.yaml')] = Recipe(
                f'R-GCN with {decoder} on {dataset}, pre-training (DANS paper).', '../base.yaml',
                {'dataset': dataset, 'model': model, 'optimizer': {'lr': 0.01}, 'num_steps': PRETRAINING_STEPS,
                 'loss': {'regularizer': penalty}})
            for method, (run, what, changes) in _METHODS.items():
                if method in SAMPLERS or decoder == 'DistMult':  # Figure 2 shows DistMult alone.
                    found[Path('dans', dataset, f'{slug}-{run}.yaml')] = Recipe(
                        f'R-GCN with {decoder} on {dataset}, {what} (DANS paper).', f'{slug}-pretraining.yaml',
                        {'optimizer': {'lr': 0.001}, 'num_steps': STEPS, **changes})
        for run, what, changes in _PLAIN.values():
            found[Path('dans', dataset, f'distmult-{run}.yaml')] = Recipe(
                f'DistMult on {dataset}, {what} (DANS paper).', '../base.yaml',
                {'dataset': dataset, 'num_steps': PRETRAINING_STEPS + STEPS,
                 **changes, 'model': {'name': 'DistMult', 'hidden_channels': CHANNELS, **changes.get('model', {})}})
    return found


def texts() -> dict[Path, dict[str, Any]]:
    r"""Returns the shared recipe by its path."""
    return {Path('dans', 'base.yaml'): _SHARED}
