r"""The training run of each row of the paper, and its recipe in each reading of the paper.

``paper``
    Equation 12 without division by the number of negatives, Tables 5, 6, 7 and 11 as printed, Adam, and masks of
    exactly n_P components, one per negative.
``reference-code``
    The published scripts: alpha 0.11, beta 0.53, 61 % of the components from the positive (their flag is the fraction
    that is KEPT), the EMU term divided by the number of negatives, Adagrad for the first half of the steps, then Adam
    with a tenth of its learning rate. They do not cover HAKE, NBFNet and NSCaching. One difference remains: here, both
    terms of the loss use the same negatives.
``tuned``
    Adagrad throughout and one mask per triple, with the mutation rates that reached the paper's values on FB15k-237,
    and for ComplEx a beta chosen on its validation triples. No setting was tuned for the other datasets. Tables 12 and
    13 vary these settings as the paper varies its own.

All readings alternate between tails and heads by batch. NBFNet, whose rows are the packaged recipes, alternates within
each batch. This module generates the recipes under ``benchmarks/recipes``, also those of
:mod:`benchmarks.demix_runs` and :mod:`benchmarks.dans_runs`:

.. code-block:: console

    python -m benchmarks.paper_runs           # rewrite outdated files
    python -m benchmarks.paper_runs --check   # report outdated files and fail
"""
from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from benchmarks import dans_runs, demix_runs
from benchmarks._recipes import RECIPES, Recipe
from benchmarks.paper import DATASETS, MODELS, VANILLA_SMOOTHING, Hyperparameters, Row, hyperparameters, rows
from pyg_emu.experiments.layers import dump

READINGS = ('paper', 'reference-code', 'tuned')
#: The numbers of negatives in Figure 5. All other runs use 256.
FIGURE_5_NEGATIVES = (16, 64, 256, 1024)

_SETTINGS: dict[str, dict[str, Any]] = {
    'paper': {'optimizer': {'name': 'adam'}, 'num_steps': 100_000, 'evaluate_every': 1000,
              'negatives': {'mask': 'exact', 'shared': False}},
    'reference-code': {'optimizer': {'name': 'adagrad'}, 'schedule': {'name': 'switch', 'at': 0.5, 'factor': 0.1},
                       'num_steps': 100_000, 'evaluate_every': 500,
                       'negatives': {'mask': 'bernoulli', 'shared': False}},
    'tuned': {'optimizer': {'name': 'adagrad'}, 'num_steps': 30_000, 'evaluate_every': 1000,
              'negatives': {'mask': 'bernoulli', 'shared': True}},
}
# Alpha, mutation rate and beta. ComplEx's beta is the best of five single changes on validation triples.
_TUNED = {'DistMult': (0.11, 0.61, 0.53), 'ComplEx': (0.11, 0.45, 0.8), 'RotatE': (0.11, 0.39, 0.53),
          'TransE': (0.11, 0.39, 0.53)}
# From the HAKE repository: gamma, the weights of modulus and phase, and the temperature of the loss.
_HAKE = {'FB15k-237': (9.0, 3.5, 1.0, 1.0), 'WN18RR': (6.0, 0.5, 0.5, 0.5), 'YAGO3-10': (24.0, 1.0, 0.5, 1.0)}
# The paper does not state its variant of SANS. Exact neighbourhoods reach its value for DistMult on FB15k-237, and
# random walks are far below it. On YAGO3-10, however, three hops give too many pairs for the memory.
_SANS = {'YAGO3-10': 'walk'}
_RUNS = {'uni': 'uni', 'SAN': 'san', 'SAN_EMU': 'san-emu', 'uni_EMU': 'uni-emu', 'uni_MIXUP': 'uni-mixup',
         'NSCaching': 'nscaching', 'NSCaching_EMU': 'nscaching-emu', 'EMU': 'uni-emu', 'without_EMU': 'uni',
         'without_ULS': 'uni-emu-no-uls', 'without_mutation': 'uni-emu-no-mutation', 'unbounded_LS': 'uni-emu',
         'vanilla_LS': 'uni-emu-vanilla-ls', 'one_vs_all': 'uni-one-vs-all', 'reported': 'uni',
         'our_experiments': 'uni'}
# The packaged recipes of the rows of Table 3. The EMU settings are those of Table 15.
_NBFNET = {'uni': ('nbfnet-fb15k237-bce', 'its own loss'), 'uni-emu': ('nbfnet-fb15k237', 'EMU, Table 15')}


def run_of(row: Row) -> Optional[str]:
    r"""Returns the name of the training run of a row, or :obj:`None` if there is no recipe: the paper has no NSCaching
    for RotatE. Rows that differ only in their table share a run, and so do NBFNet's two baselines, of the NBFNet paper
    and of the EMU paper.
    """
    if row.model == 'RotatE' and row.method.startswith('NSCaching'):
        return None
    if row.model == 'NBFNet':
        return _RUNS[row.method]
    if row.source == 'Table 12':
        return 'emu-alpha{}-rate{}-beta{}'.format(*row.method.split(','))
    usual = hyperparameters(row.dataset, row.model, emu=False)
    channels = f'-d{row.channels}' if row.channels not in (None, usual.channels) else ''
    negatives = f'-n{row.negatives}' if row.negatives not in (None, usual.negatives) else ''
    return f'{_RUNS[row.method]}{channels}{negatives}'


def recipe_path(reading: str, row: Row) -> Optional[Path]:
    r"""Returns the recipe file of a row, or :obj:`None` if this reading has no recipe for it."""
    run = run_of(row)
    path = RECIPES / reading / row.dataset / f'{row.model.lower()}-{run}.yaml'
    return path if run is not None and path.relative_to(RECIPES) in recipes() else None


def figure_5_rows() -> list[Row]:
    r"""Returns the points of Figure 5, whose values are not printed. The last point of a line is 1-vs-all."""
    found = [Row('Figure 5', 'FB15k-237', model, method, {}, negatives=count)
             for model in MODELS for method in ('uni', 'uni_EMU') for count in FIGURE_5_NEGATIVES]
    return found + [Row('Figure 5', 'FB15k-237', model, 'one_vs_all', {}) for model in ('ComplEx', 'DistMult')]


@functools.cache
def recipes() -> Mapping[Path, Recipe]:
    r"""Returns all recipes by their path below :data:`RECIPES`."""
    found: dict[Path, Recipe] = {}
    for reading in READINGS:
        for dataset in DATASETS[:1] if reading == 'tuned' else DATASETS:
            for model in MODELS:
                for run, recipe in _recipes(reading, dataset, model):
                    found[Path(reading, dataset, f'{model.lower()}-{run}.yaml')] = recipe
    for dataset in DATASETS:
        for run, recipe in _hake(dataset):
            found[Path('paper', dataset, f'hake-{run}.yaml')] = recipe
    for run, (packaged, what) in _NBFNET.items():
        found[Path('paper', 'FB15k-237', f'nbfnet-{run}.yaml')] = Recipe(
            f'NBFNet on FB15k-237, {what}, Table 3 (reading: paper).', packaged, {})
    return found


def texts() -> dict[Path, str]:
    r"""Returns the content of all files, including the base recipes of the readings."""
    found = {}
    for reading, settings in _SETTINGS.items():
        shared = {'description': f'Shared settings of the reading {reading!r}, without a dataset.', **settings,
                  'batch_size': 1000, 'corrupt': 'alternate',
                  'negatives': {'num_negatives': 256, 'mutation_rate': 0.0, **settings['negatives']}}
        found[Path(reading, 'base.yaml')] = dump(shared)
    found |= {path: dump(settings) for path, settings in {**demix_runs.texts(), **dans_runs.texts()}.items()}
    every = {**recipes(), **demix_runs.recipes(), **dans_runs.recipes()}
    return {**found, **{path: recipe.text() for path, recipe in every.items()}}


def _recipes(reading: str, dataset: str, model: str) -> Iterator[tuple[str, Recipe]]:
    slug = model.lower()
    uni, emu = _values(reading, dataset, model)

    def recipe(run: str, base: Optional[str], what: str, **settings: Any) -> tuple[str, Recipe]:
        below = '../base.yaml' if base is None else f'{slug}-{base}.yaml'
        return run, Recipe(f'{model} on {dataset}, {what} (reading: {reading}).', below, settings)

    yield recipe('uni', None, f'uniform negatives and L3, Table {uni.table}', dataset=dataset,
                 model={'name': model, 'hidden_channels': uni.channels}, loss=_baseline(uni), optimizer={'lr': uni.lr})
    yield recipe('uni-emu', 'uni', 'EMU on uniform negatives', **_emu(emu, reading))
    near = {'sampler': {'name': 'sans', 'mode': _SANS.get(dataset, 'khop')}}
    yield recipe('san', 'uni', 'SANS', negatives=near)
    yield recipe('san-emu', 'uni-emu', 'EMU on SANS', negatives=near)
    yield recipe('uni-mixup', 'uni-emu', 'Mixup in place of mutation, Table 2',
                 negatives={'mutation': {'name': 'mixup', 'alpha': 2.0, 'beta': 1.0}})
    yield from (recipe(run, base, f'{row.channels} channels and {row.negatives} negatives, Table 1',
                       model={'hidden_channels': row.channels}, negatives={'num_negatives': row.negatives})
                for run, base, row in _other_sizes(dataset, model))
    if dataset != 'FB15k-237':
        return
    yield recipe('uni-emu-no-uls', 'uni-emu', 'EMU without label smoothing, Table 13', loss={'beta': 0.0})
    yield recipe('uni-emu-no-mutation', 'uni-emu', 'label smoothing without mutation, Table 13',
                 negatives={'mutation_rate': 0.0})
    yield recipe('uni-emu-vanilla-ls', 'uni-emu', 'EMU with ordinary label smoothing, Table 14',
                 loss=_vanilla_smoothing(emu))
    if reading != 'reference-code' and model != 'RotatE':
        uni_, emu_ = _values(reading, dataset, model, nscaching=True)
        yield recipe('nscaching', 'uni', f'NSCaching, Table {uni_.table}', loss=_baseline(uni_),
                     optimizer={'lr': uni_.lr}, negatives={'sampler': {'name': 'nscaching'}})
        yield recipe('nscaching-emu', 'nscaching', 'EMU on NSCaching', **_emu(emu_, reading))
    for count in FIGURE_5_NEGATIVES:
        if count != uni.negatives:
            for run in ('uni', 'uni-emu'):
                yield recipe(f'{run}-n{count}', run, f'{count} negatives, Figure 5', negatives={'num_negatives': count})
    if model in ('ComplEx', 'DistMult'):
        yield recipe('uni-one-vs-all', 'uni', 'against all entities, Figure 5', loss={'name': 'one_vs_all'},
                     negatives={'num_negatives': 1})
    for row in rows() if model == 'DistMult' else ():
        if row.source == 'Table 12':
            alpha, rate, beta = map(float, row.method.split(','))
            # The flag of the published scripts is the fraction that is kept.
            rate = round(1.0 - rate, 3) if reading == 'reference-code' else rate
            yield recipe(str(run_of(row)), 'uni-emu', f'({row.method}) of Table 12',
                         loss={'alpha': alpha, 'beta': beta}, negatives={'mutation_rate': rate})


def _hake(dataset: str) -> Iterator[tuple[str, Recipe]]:
    uni, emu = hyperparameters(dataset, 'HAKE', emu=False), hyperparameters(dataset, 'HAKE', emu=True)
    margin, modulus, phase, temperature = _HAKE[dataset]

    def recipe(run: str, base: Optional[str], what: str, **settings: Any) -> tuple[str, Recipe]:
        below = '../base.yaml' if base is None else f'hake-{base}.yaml'
        return run, Recipe(f'HAKE on {dataset}, {what} (reading: paper).', below, settings)

    yield recipe('uni', None, "Table 7, with its repository's loss", dataset=dataset,
                 model={'name': 'HAKE', 'hidden_channels': uni.channels, 'margin': margin, 'modulus_weight': modulus,
                        'phase_weight': phase},
                 loss={'name': 'self_adversarial', 'temperature': temperature}, optimizer={'lr': uni.lr},
                 negatives={'num_negatives': uni.negatives}, batch_size=uni.batch_size, num_steps=uni.steps)
    yield recipe('uni-emu', 'uni', 'EMU, Table 7', **_emu(emu, 'paper'))
    yield from (recipe(run, base, f'{row.channels} channels, Table 1', model={'hidden_channels': row.channels})
                for run, base, row in _other_sizes(dataset, 'HAKE'))


def _other_sizes(dataset: str, model: str) -> Iterator[tuple[str, str, Row]]:
    r"""Yields the runs of Table 1 that are not in Tables 8 and 9: name, base, row."""
    for row in rows():
        run, base = run_of(row), _RUNS.get(row.method)
        if (row.source, row.dataset, row.model) == ('Table 1', dataset, model) and run and base and run != base:
            yield run, base, row


def _values(reading: str, dataset: str, model: str,
            nscaching: bool = False) -> tuple[Hyperparameters, Hyperparameters]:
    r"""Returns the hyperparameters of the baseline and of EMU."""
    uni = hyperparameters(dataset, model, emu=False, nscaching=nscaching and reading == 'paper')
    if reading == 'paper':
        return uni, hyperparameters(dataset, model, emu=True, nscaching=nscaching)
    lr = 0.1 if model in ('ComplEx', 'DistMult') else 0.05
    alpha, rate, beta = (0.11, 0.61, 0.53) if reading == 'reference-code' else _TUNED[model]
    return Hyperparameters(uni.table, lr, uni.l3), Hyperparameters(uni.table, lr, 0.0, alpha, rate, beta)


def _baseline(values: Hyperparameters) -> dict[str, Any]:
    return {'name': 'cross_entropy', 'regularizer': {'name': 'l3', 'weight': values.l3}}


def _emu(values: Hyperparameters, reading: str) -> dict[str, Any]:
    undivided = {'divide_by_negatives': False} if reading == 'paper' else {}
    return {'loss': {'name': 'emu', 'alpha': values.alpha, 'beta': values.beta, 'regularizer': None, **undivided},
            'negatives': {'mutation_rate': values.rate}}


def _vanilla_smoothing(values: Hyperparameters) -> dict[str, float]:
    r"""Returns alpha and beta for the labels :math:`1 - \epsilon + \epsilon / K` and :math:`\epsilon / K` of equation
    20, with :math:`K = N + 1`. EMU's labels are one and beta, so both labels and alpha are divided by the first label.
    This scales the loss by a constant, which has no effect with Adagrad or Adam.
    """
    assert values.alpha is not None
    share = VANILLA_SMOOTHING / (values.negatives + 1)
    positive = 1.0 - VANILLA_SMOOTHING + share
    return {'alpha': values.alpha / positive, 'beta': share / positive}


def main() -> int:
    r"""Runs the command line. With :obj:`--check`, returns exit code 1 if a file is outdated."""
    parser = argparse.ArgumentParser(description='Write benchmarks/recipes from the hyperparameters of the paper.')
    parser.add_argument('--check', action='store_true', help='write nothing and fail if a file is outdated')
    arguments = parser.parse_args()
    wanted = {RECIPES / path: text for path, text in texts().items()}
    present = {path: path.read_text(encoding='utf-8') for path in sorted(RECIPES.rglob('*.yaml'))}
    stale = [path for path in {**wanted, **present} if wanted.get(path) != present.get(path)]
    for path in stale:
        print(f'{path.relative_to(RECIPES)}: {"outdated" if arguments.check else "rewritten"}')
        if arguments.check:
            continue
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding='utf-8')
        else:
            path.unlink()
    return int(arguments.check and bool(stale))


if __name__ == '__main__':
    sys.exit(main())
