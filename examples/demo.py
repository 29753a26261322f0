r"""Uniform negatives against EMU: DistMult, several seeds each, the same number of steps. What ``make demo`` runs.

.. code-block:: console

    python -m examples.demo                  # UMLS, which comes with PyKEEN
    python -m examples.demo --data <folder>  # train.txt, valid.txt and test.txt of your own
    python -m examples.demo --l3             # also the best of three L3 strengths for uniform negatives

Each run keeps the weights of its best validation; the table shows the test facts, ranked once with those weights.
"""
from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pandas as pd
import torch

from pyg_emu import (
    CrossEntropyLoss,
    DistMult,
    EMULoss,
    EMUNegatives,
    KGData,
    L3Regularizer,
    Trainer,
    TripletLoader,
    evaluate,
    load_dataset,
)

# Chosen on the validation facts of UMLS. There a mask per negative does better than one mask per triple.
CHANNELS = 100
BATCH_SIZE = 500
NUM_NEGATIVES = 64
LEARNING_RATE = 0.1
MUTATION_RATE = 0.6
ALPHA, BETA = 0.11, 0.53
L3_STRENGTHS = (3e-4, 1e-3, 3e-3)

HITS = ('mrr', 'hits@1', 'hits@3', 'hits@10')


@dataclass(frozen=True)
class Setting:
    r"""One row of the table.

    Args:
        name (str): How it is called in the names of files.
        label (str): How it is called in the table.
        emu (bool): Whether negatives are mutated, and the loss is EMU's.
        l3 (float): The strength of the L3 regulariser.
    """
    name: str
    label: str
    emu: bool = False
    l3: float = 0.0


@dataclass(frozen=True)
class Run:
    r"""What one training with one seed came to."""
    setting: Setting
    seed: int
    valid: dict[str, float]
    test: dict[str, float]
    seconds: float
    curve: pd.DataFrame


UNIFORM = Setting('uniform', 'uniform negatives')
EMU = Setting('emu', 'EMU', emu=True)


def main(argv: Optional[list[str]] = None) -> None:
    r"""Trains, prints the table and writes ``demo/runs.csv`` and ``demo/valid_mrr.png``.

    Args:
        argv (list of str, optional): The command line. (default: that of the process)
    """
    arguments = parse_arguments(argv)
    data = load_dataset(arguments.data or 'UMLS')
    print(f'{data.num_nodes:,} entities, {data.num_relations:,} relations, '
          f'{len(data.facts("train")):,} / {len(data.facts("valid")):,} / {len(data.facts("test")):,} facts '
          f'(train / valid / test); {arguments.steps:,} steps of {arguments.batch_size} facts', flush=True)

    for setting in (UNIFORM, EMU):  # compiles the kernels where that has not been done yet, so that it is not timed
        train(data, setting, 0, 2, arguments.batch_size, progress=False)

    def repeat(setting: Setting) -> list[Run]:
        return [train(data, setting, seed, arguments.steps, arguments.batch_size) for seed in range(arguments.seeds)]

    runs = [*repeat(UNIFORM), *repeat(EMU)]
    if arguments.l3:
        regularised = [repeat(Setting('uniform-l3', f'uniform negatives, L3 {l3:g}', l3=l3)) for l3 in L3_STRENGTHS]
        # Which strength is best is decided on the validation facts; the test facts only describe it.
        best = max(regularised, key=valid_mrr)
        runs[arguments.seeds:arguments.seeds] = best
        print('\nValidation MRR by strength of L3:', *(f'{group[0].setting.l3:g}: {valid_mrr(group):.3f}'
                                                      for group in regularised), sep='\n  ')

    print(f'\nTest facts, filtered, heads and tails, {arguments.seeds} seeds:\n')
    print(table(runs).to_string())
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    curves(runs).to_csv(folder / 'runs.csv', index=False)
    print(f'\nWrote {folder / "runs.csv"}{draw(runs, folder / "valid_mrr.png")}')
    if arguments.record:
        name = Path(arguments.data).name if arguments.data else 'umls'
        record(runs, name, arguments.steps)
        draw(runs, Path(__file__).resolve().parent.parent / 'benchmarks' / 'results' / 'demo' / f'{name}.png')


def train(data: KGData, setting: Setting, seed: int, steps: int, batch_size: int, progress: bool = True) -> Run:
    r"""One training, and the ranking of the test facts with the weights that were best on the validation facts."""
    torch.manual_seed(seed)
    model = DistMult(data.num_nodes, data.num_relations, CHANNELS)
    rate = MUTATION_RATE if setting.emu else 0.0
    negatives = EMUNegatives(NUM_NEGATIVES, mutation_rate=rate, shared=False)
    loader = TripletLoader(data, batch_size=batch_size, shuffle=True, transform=negatives, seed=seed)
    regularizer = L3Regularizer(setting.l3) if setting.l3 else None
    criterion = EMULoss(ALPHA, BETA) if setting.emu else CrossEntropyLoss(regularizer=regularizer)
    result = Trainer(
        model, criterion, loader, torch.optim.Adagrad(model.parameters(), lr=LEARNING_RATE),
        num_steps=steps, evaluate_every=validation_steps(steps),
        validate=lambda model: evaluate(model, data, split='valid'),
        progress=progress, name=f'{setting.label}, seed {seed}',
    ).fit()
    test = evaluate(model, data, split='test')
    return Run(setting, seed, result.metrics, {key: test[key] for key in HITS}, result.seconds, result.history)


def validation_steps(steps: int) -> list[int]:
    r"""The steps to validate after, about equally far apart on a logarithmic axis: 5, 7, 10, 15, 20, 30, 50, ...

    On a small graph, most is learned within the first hundred steps.
    """
    marks = [mark * 10**power // 10 for power in range(len(str(steps))) for mark in (10, 15, 20, 30, 50, 70)]
    return [mark for mark in marks if 5 <= mark < steps] + [steps]


def valid_mrr(runs: list[Run]) -> float:
    r"""Mean validation MRR."""
    return statistics.fmean(run.valid['mrr'] for run in runs)


def table(runs: list[Run]) -> pd.DataFrame:
    r"""Mean and standard deviation of the test metrics and of the seconds spent in training steps."""
    rows = pd.DataFrame([{'': run.setting.label, **run.test, 'seconds': run.seconds} for run in runs])
    groups = rows.groupby('', sort=False)
    mean, deviation = groups.mean(), groups.std().fillna(0.0)
    text = pd.DataFrame(index=mean.index)
    for column in mean:
        digits = 1 if column == 'seconds' else 3
        text[column] = [f'{a:.{digits}f} ± {b:.{digits}f}' for a, b in zip(mean[column], deviation[column])]
    return text.rename(columns={'mrr': 'MRR', **{key: key.capitalize() for key in HITS[1:]}}).rename_axis(None)


def curves(runs: list[Run]) -> pd.DataFrame:
    r"""The histories of all runs, one below the other."""
    return pd.concat([run.curve.assign(setting=run.setting.label, seed=run.seed) for run in runs], ignore_index=True)


def draw(runs: list[Run], path: Path) -> str:
    r"""Draws validation MRR against the seconds spent in training steps, from the first steps on a logarithmic axis;
    says what it did."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return ' (no figure: pip install matplotlib)'
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for position, (label, group) in enumerate(curves(runs).groupby('setting', sort=False)):
        by_step = group.groupby('step')
        seconds, mrr = by_step['seconds'].mean(), by_step['valid_mrr']
        axes.plot(seconds, mrr.mean(), color=f'C{position}', label=label)
        axes.fill_between(seconds, mrr.min(), mrr.max(), color=f'C{position}', alpha=0.2)
    axes.set(xscale='log', xlabel='seconds of training', ylabel='validation MRR', title='mean and range over seeds')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    return f' and {path}'


def record(runs: list[Run], dataset: str, steps: int, folder: Optional[Path] = None) -> None:
    r"""Writes each run under ``benchmarks/results/demo``, for the tables of the README."""
    from benchmarks._record import RESULTS, write_result

    for run in runs:
        write_result(f'demo/{dataset}-{run.setting.name}-seed{run.seed}', {
            'label': run.setting.label, 'test': run.test, 'valid': {key: run.valid[key] for key in HITS},
            'seconds': round(run.seconds, 2), 'steps': steps,
        }, seed=run.seed, folder=folder or RESULTS)


def parse_arguments(argv: Optional[list[str]] = None) -> Any:
    r"""Reads the command line."""
    parser = argparse.ArgumentParser(prog='python -m examples.demo', description=__doc__.splitlines()[0])
    parser.add_argument('--data', help='a folder with train.txt, valid.txt and test.txt (default: UMLS)')
    parser.add_argument('--steps', type=int, default=2000, help='training steps of each run (default: 2000)')
    parser.add_argument('--seeds', type=int, default=3, help='runs of each setting (default: 3)')
    parser.add_argument('--batch-size', type=int, default=BATCH_SIZE, help=f'facts a step (default: {BATCH_SIZE})')
    parser.add_argument('--l3', action='store_true', help='also train uniform negatives with three L3 strengths')
    parser.add_argument('--out', default='demo', help='folder for the figure and the curves (default: demo)')
    parser.add_argument('--record', action='store_true', help='also write benchmarks/results')
    return parser.parse_args(argv)


if __name__ == '__main__':
    main()
