r"""What changes bring, worked out by hand from made-up runs."""
from __future__ import annotations

from pathlib import Path
from typing import Sequence

import pytest

from benchmarks._recipes import RECIPES
from benchmarks._record import write_result
from benchmarks._variations import TEXTS
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe

BASE = 'tuned/FB15k-237/distmult-uni-emu'


def record(folder: Path, name: str, mrr: float, settings: Sequence[str] = (), curve: Sequence[float] = (),
           recipe: str = BASE) -> None:
    made = load_recipe(RECIPES / f'{recipe}.yaml', [assignment_layer([*settings, 'num_steps=40000'])]).to_dict()
    metrics = {'test': {'mrr': mrr, 'hits@10': 0.5}, 'valid_mrr': mrr, 'seconds': 600.0, 'recipe': made,
               'curve': [{'step': 10 * k, 'seconds': 100.0 * k, 'mrr': value} for k, value in enumerate(curve, 1)]}
    write_result(name, metrics, seed=int(name[-1]), folder=folder)


def rows(name: str, folder: Path) -> list[list[str]]:
    lines = [line for line in TEXTS[name](folder)[0].splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


def test_changes_and_what_they_bring(tmp_path: Path) -> None:
    record(tmp_path, f'reproduction/{BASE}-steps40000-seed0', 0.330)
    record(tmp_path, 'beyond/distmult-a-seed0', 0.340, ['model.reciprocal=true', 'evaluate_every=7'],
           curve=(0.30, 0.345, 0.35))
    record(tmp_path, 'beyond/distmult-a-seed1', 0.344, ['model.reciprocal=true', 'evaluate_every=7', 'seed=1'],
           curve=(0.30, 0.34, 0.345))
    record(tmp_path, 'beyond/complex-a-seed0', 0.340, recipe='tuned/FB15k-237/complex-uni-emu')
    first, second = rows('reproduction-beyond', tmp_path)
    assert first == ['DistMult', 'none', '0.330', '-', '0.500', '0.330', '40,000', '600', '-', '1']
    assert second == ['DistMult', '`model.reciprocal: true`', '0.342 ± 0.003', '+0.0120', '0.500 ± 0.000',
                      '0.342 ± 0.003', '40,000', '600', '250', '2']


def test_best_change_by_validation(tmp_path: Path) -> None:
    record(tmp_path, f'reproduction/{BASE}-steps40000-seed0', 0.330)
    record(tmp_path, 'beyond/distmult-a-seed0', 0.335, ['model.reciprocal=true'], curve=(0.30, 0.344))
    record(tmp_path, 'beyond/distmult-b-seed0', 0.333, ['optimizer.lr=0.2'])
    said = TEXTS['reproduction-beyond'](tmp_path)[0].splitlines()[-1]
    assert said.startswith('DistMult: of 2 ') and '`model.reciprocal: true` ' in said and '+0.0050' in said
    assert 'No run reaches' in said
    record(tmp_path, 'beyond/distmult-b-seed0', 0.333, ['optimizer.lr=0.2'], curve=(0.345, ))
    assert 'A run reaches' in TEXTS['reproduction-beyond'](tmp_path)[0].splitlines()[-1]


@pytest.mark.parametrize(('settings', 'wanted'), [
    (['negatives.sampler=shared_negatives', 'optimizer.lr=0.2'],
     '`negatives.sampler: shared_negatives`, `optimizer.lr: 0.2`'),
    (['negatives.sampler={name: sans, num_hops: 2}'], '`negatives.sampler: {name: sans, num_hops: 2}`'),
    (['loss.regularizer={name: n3, weight: 1e-3}'], '`loss.regularizer: {name: n3, weight: 0.001}`'),
    (['loss={name: one_vs_all_emu, beta: 0.75}', 'negatives.num_negatives=1'],
     '`loss.name: one_vs_all_emu`, `loss.beta: 0.75`, `negatives.num_negatives: 1`')])
def test_changes_are_told_as_in_a_recipe(tmp_path: Path, settings: list[str], wanted: str) -> None:
    record(tmp_path, f'reproduction/{BASE}-steps40000-seed0', 0.330)
    record(tmp_path, 'beyond/distmult-a-seed0', 0.340, settings)
    told = rows('reproduction-beyond', tmp_path)[1][1]
    assert sorted(told.strip('`').split('`, `')) == sorted(wanted.strip('`').split('`, `'))


def test_another_graph_takes_both(tmp_path: Path) -> None:
    record(tmp_path, 'nell995/distmult-uni-seed0', 0.20)
    assert rows('reproduction-nell995', tmp_path) == []
    record(tmp_path, 'nell995/distmult-uni-emu-seed0', 0.25)
    assert rows('reproduction-nell995', tmp_path) == [
        ['DistMult', '0.200', '0.250', '+0.0500', '0.500', '0.500', '40,000', '1']]


def test_smoothing_on_wn18rr(tmp_path: Path) -> None:
    record(tmp_path, 'wn18rr/transe-uls-seed0', 0.20)
    assert rows('reproduction-wn18rr-smoothing', tmp_path) == [
        ['TransE, unbounded label smoothing alone', '0.200', '0.500', '40,000', '1']]
