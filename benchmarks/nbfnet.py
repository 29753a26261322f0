r"""NBFNet with EMU against BCE alone on small graphs, on a CPU: UMLS and Nations, and the inductive versions 1 of
FB15k-237 and WN18RR.

.. code-block:: console

    export PYG_EMU_DATA=<folder>          # holds fb237_v1, fb237_v1_ind, WN18RR_v1 and WN18RR_v1_ind
    python -m benchmarks.nbfnet           # all runs that are not recorded yet, one by one
    python -m benchmarks.nbfnet --only fb237-v1 --method emu --seeds 0

Settings are the published ones: 6 layers of 32 channels, 20 epochs in batches of 64, the best epoch on validation. The
inductive versions are trained on one graph and tested on another with other entities. Test facts are ranked against all
entities (MRR, Hits@k) and, by expectation, against 50 random negatives ("Hits@10 (50 negatives)"); papers mix the two.
A run that was interrupted continues from its folder under ``runs/nbfnet``; one that is recorded is not run again.
"""
from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np

from benchmarks._record import RESULTS, ROOT
from benchmarks.accuracy import record
from pyg_emu.data import KGData
from pyg_emu.datasets import load_dataset
from pyg_emu.errors import DataWarning
from pyg_emu.recipe import Recipe, load_recipe

EPOCHS, BATCH_SIZE = 20, 64
HITS = 'hits@10 (50 negatives)'
#: What each method says over the common settings; alpha, beta and rate are those of the EMU paper's Table 15.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    'emu': ('EMU', {'loss': {'name': 'nbfnet_emu', 'alpha': 1.0, 'beta': 0.25},
                    'negatives': {'mutation_rate': 0.94}}),
    'bce': ('BCE', {'loss': {'name': 'nbfnet_bce'}, 'negatives': {'mutation_rate': 0.0}}),
}


@dataclass(frozen=True)
class Case:
    r"""A graph to train on, and what is known about it.

    Args:
        dataset (str): What is trained on.
        inference (str, optional): The other graph that is tested on. (default: :obj:`None`, the same)
        model (dict): Settings of the model that differ from the defaults.
        temperature (float): Of the weights of negatives.
        published (float, optional): Hits@10 against 50 negatives as the NBFNet paper prints it.
        target (float, optional): What is asked of ours.
    """
    dataset: str
    inference: Optional[str] = None
    model: dict[str, Any] = field(default_factory=dict)
    temperature: float = 0.5
    published: Optional[float] = None
    target: Optional[float] = None


CASES = {
    'umls': Case('UMLS'),
    'nations': Case('Nations'),
    'fb237-v1': Case('fb237_v1', 'fb237_v1_ind', published=0.834, target=0.80),
    'wn18rr-v1': Case('WN18RR_v1', 'WN18RR_v1_ind', {'dependent': False, 'remove_one_hop': False}, 1.0,
                      published=0.948, target=0.93),
}


def source(name: Optional[str], arguments: argparse.Namespace) -> Optional[str]:
    r"""What a graph is loaded by: its name, or, where graphs were generated, their folder."""
    return name if name is None or arguments.data is None else str(arguments.data / name)


def recipe_of(name: str, method: str, num_facts: int, arguments: argparse.Namespace, seed: int) -> Recipe:
    r"""The settings of a run; :obj:`num_facts` make an epoch."""
    case, own = CASES[name], METHODS[method][1]
    per_epoch = -(-num_facts // BATCH_SIZE)
    settings: dict[str, Any] = {
        'dataset': source(case.dataset, arguments), 'inference': source(case.inference, arguments), 'seed': seed,
        'model': {'name': 'NBFNet', 'hidden_channels': 32, 'num_layers': 6, **case.model},
        'loss': {**own['loss'], 'adversarial_temperature': case.temperature},
        'negatives': {'num_negatives': 32, 'sampler': {'name': 'uniform', 'filtered': True}, **own['negatives']},
        'optimizer': {'name': 'adam', 'lr': 5e-3},
        'batch_size': BATCH_SIZE, 'corrupt': 'both', 'num_steps': arguments.epochs * per_epoch,
        'evaluate_every': per_epoch, 'checkpoint_every': min(25, per_epoch), 'evaluation': {'num_negatives': 50},
    }
    if arguments.smoke:
        settings['model'] |= {'hidden_channels': 4, 'num_layers': 2}
        settings['negatives']['num_negatives'] = 2
    return load_recipe(settings)


def run(name: str, method: str, seed: int, data: KGData, arguments: argparse.Namespace) -> str:
    r"""Trains a run, or continues it, records it, and returns a line about it."""
    case, result = CASES[name], f'nbfnet/{name}-{method}-seed{seed}'
    recipe = recipe_of(name, method, data.num_facts('train'), arguments, seed)
    known = {key: value for key, value in (('published', case.published), ('target', case.target)) if value is not None}
    return record(recipe, result, f'{name}, {METHODS[method][0]}', run_dir=arguments.runs / result.partition('/')[2],
                  folder=arguments.out, again=arguments.again, data=data, shown=HITS,
                  extra={'epochs': arguments.epochs, HITS: known})


def generate(folder: Path) -> None:
    r"""Writes tiny stand-ins for all graphs."""
    random = np.random.default_rng(0)
    for name in {name for case in CASES.values() for name in (case.dataset, case.inference) if name}:
        (folder / name).mkdir()
        for split, count in (('train', 60), ('valid', 6), ('test', 6)):
            facts = random.integers([9, 3, 9], size=(count, 3))
            text = ''.join(f'{name}-{head}\tr{relation}\t{name}-{tail}\n' for head, relation, tail in facts)
            (folder / name / f'{split}.txt').write_text(text)


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=CASES, default=list(CASES), help='these graphs (default: all)')
    parser.add_argument('--method', nargs='+', choices=METHODS, default=list(METHODS), help='(default: both)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--epochs', type=int, default=EPOCHS, help='(default: %(default)s)')
    parser.add_argument('--again', action='store_true', help='run what is recorded already')
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'nbfnet', help='where run folders are')
    parser.add_argument('--out', type=Path, default=RESULTS, help='where to write (default: benchmarks/results)')
    parser.set_defaults(data=None)
    parser.add_argument('--smoke', action='store_true', help='tiny, on generated facts: shows that everything runs')
    arguments = parser.parse_args(argv)
    if arguments.epochs < 1:
        parser.error(f'--epochs: expected at least 1, got {arguments.epochs}')
    if arguments.smoke and arguments.out == RESULTS:
        parser.error('--smoke measures nothing worth keeping: give --out')
    return arguments


def run_all(arguments: argparse.Namespace) -> None:
    r"""Runs what is missing, the first seed of everything before the second of anything."""
    for seed in arguments.seeds:
        for name in arguments.only:
            missing = [method for method in arguments.method if arguments.again
                       or not (arguments.out / f'nbfnet/{name}-{method}-seed{seed}.json').exists()]
            data = load_dataset(source(CASES[name].dataset, arguments)) if missing else None
            for method in arguments.method:
                if data is None or method not in missing:
                    print(f'nbfnet/{name}-{method}-seed{seed} is recorded; --again runs it once more')
                else:
                    print(run(name, method, seed, data, arguments), flush=True)


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Trains, prints and records."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    if not arguments.smoke:
        run_all(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.data, arguments.runs, arguments.epochs = Path(folder), Path(folder) / 'runs', 1
        generate(arguments.data)
        run_all(arguments)


if __name__ == '__main__':
    main()
