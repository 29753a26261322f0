from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks._record import write_result
from benchmarks._texts import TEXTS
from benchmarks.paper_runs import RECIPES
from pyg_emu.experiments.recipe import load_recipe


def record(folder: Path, run: str, mrr: float, seed: int, reading: str = 'tuned', name: str | None = None) -> None:
    recipe = load_recipe(RECIPES / reading / 'FB15k-237' / f'{run}.yaml').to_dict() | {'seed': seed}
    metrics = {'test': {'mrr': mrr, 'hits@10': 2 * mrr}, 'valid_mrr': mrr + 0.005, 'recipe': recipe}
    write_result(name or f'reproduction/{reading}/FB15k-237/{run}-seed{seed}', metrics, seed=seed, command='make it',
                 folder=folder)


def text(name: str, folder: Path) -> str:
    return TEXTS[name](folder)[0]


@pytest.mark.parametrize('name', TEXTS)
def test_nothing_recorded(name: str, tmp_path: Path) -> None:
    found, results = TEXTS[name](tmp_path)
    assert results == [] and '\n\n\n' not in found
    assert found == '' or 'not run' in found or 'Too little' in found


def test_first_row_worked_out_by_hand(tmp_path: Path) -> None:
    for run, values in (('distmult-uni', (0.30, 0.30)), ('distmult-uni-emu-no-mutation', (0.321, 0.323)),
                        ('distmult-uni-emu', (0.331, 0.333))):
        for seed, mrr in enumerate(values):
            record(tmp_path, run, mrr, seed)
    record(tmp_path, 'distmult-uni-emu', 0.325, 0, name='beyond/distmult-mask-per-negative-seed0')
    lines = text('reproduction-first-row', tmp_path).splitlines()
    assert lines[2] == '| uniform negatives, L3 | 0.300 ± 0.000 | 0.600 ± 0.000 | 0.299 | 0.476 | 30,000 | 2 |'
    assert lines[4] == '| EMU, one mask per triple | 0.332 ± 0.001 | 0.664 ± 0.003 | 0.332 | 0.513 | 30,000 | 2 |'
    assert lines[5].startswith('| EMU, one mask per negative | 0.325 | 0.650 |')
    # Deviations of sqrt(2) / 1000 over two seeds each give a standard error of sqrt(2) / 1000 for the difference.
    assert lines[-1] == (
        'One mask per triple gains 0.0100 MRR over label smoothing alone, more than twice the standard error of the '
        'difference (0.0014); one mask per negative gains 0.0030 MRR over label smoothing alone (one seed: no spread '
        'is known); label smoothing alone gains 0.0220 MRR over uniform negatives, more than twice the standard error '
        'of the difference (0.0010).')
    assert 'brings 69% of what EMU gains over uniform negatives, and mutation 31%' in text('reproduction-shares',
                                                                                           tmp_path)


def test_shares_are_those_of_seeds_that_all_have(tmp_path: Path) -> None:
    for run, mrr in (('distmult-uni', 0.30), ('distmult-uni-emu-no-mutation', 0.32), ('distmult-uni-emu', 0.34)):
        record(tmp_path, run, mrr, 0)
    before = text('reproduction-shares', tmp_path)
    assert 'brings 50%' in before and before.endswith('seeds: 1.')
    record(tmp_path, 'distmult-uni-emu', 0.5, 1)
    assert text('reproduction-shares', tmp_path) == before


def test_results_against_mutation_are_told_as_well(tmp_path: Path) -> None:
    for run, values in (('distmult-uni', (0.30, 0.30)), ('distmult-uni-emu-no-mutation', (0.321, 0.323)),
                        ('distmult-uni-emu', (0.321, 0.3232))):
        for seed, mrr in enumerate(values):
            record(tmp_path, run, mrr, seed)
    assert 'gains 0.0001 MRR over label smoothing alone, no more than twice' in text('reproduction-first-row', tmp_path)
    record(tmp_path, 'distmult-uni-emu', 0.2, 0)
    record(tmp_path, 'distmult-uni-emu', 0.2, 1)
    assert 'EMU gains nothing' in text('reproduction-shares', tmp_path)
    assert 'is 0.1220 MRR below label smoothing alone' in text('reproduction-first-row', tmp_path)


def test_readings(tmp_path: Path) -> None:
    record(tmp_path, 'distmult-uni-emu', 0.262, 0, reading='paper')
    record(tmp_path, 'complex-uni-emu', 0.342, 0)
    found = text('reproduction-readings', tmp_path)
    assert '| the paper prints | 0.344 | 0.332 | 0.329 | 0.323 |' in found
    assert '| `paper` | not run | 0.262 (100,000 steps, 1 seed) | not run | not run |' in found
    assert found.endswith('DistMult as `paper` ends 0.070 below the paper; ComplEx as `tuned` agrees with the paper '
                          '(-0.002).')
    # Results of settings that differ from the current recipe are not shown.
    recipe: dict[str, Any] = load_recipe(RECIPES / 'tuned/FB15k-237/complex-uni-emu.yaml').to_dict()
    write_result('reproduction/tuned/FB15k-237/complex-uni-emu-seed0',
                 {'test': {'mrr': 0.3}, 'recipe': recipe | {'batch_size': 7}}, seed=0, folder=tmp_path)
    assert 'ComplEx as' not in text('reproduction-readings', tmp_path)


def test_split(tmp_path: Path) -> None:
    record(tmp_path, 'distmult-uni', 0.3, 0)
    assert 'the validation MRR minus the test MRR is +0.0050 on average' in text('reproduction-split', tmp_path)


def test_memory(tmp_path: Path) -> None:
    rows = [{'model': 'distmult', 'negatives': number, 'contender': name, 'mib': mib * number} for name, mib in
            (('pykeen_vanilla', 2.5), ('emu_triple', 0.25)) for number in (4096, 256)]
    rows.append({'model': 'transe', 'negatives': 256, 'contender': 'vanilla', 'mib': 1.0})
    write_result('speed/memory', {'rows': rows}, seed=0, command='make it', folder=tmp_path)
    assert text('memory', tmp_path).splitlines() == [
        '| DistMult, MiB | 256 negatives | 4,096 negatives |', '| --- | ---: | ---: |',
        '| EMU, one mask per triple | 64 | 1,024 |', '| PyKEEN, without mutation | 640 | 10,240 |']


def test_headline(tmp_path: Path) -> None:
    for name, label, reached, mrr in (('emu', 'ours', 20.0, 0.33), ('pykeen', 'PyKEEN, sLCWA', 90.0, 0.28),
                                      ('pykeen-lcwa', 'PyKEEN, LCWA', None, 0.2)):
        write_result(f'headline/{name}', {
            'label': label, 'target': 0.3, 'seconds_to_target': reached, 'steps': 1000, 'seconds': 600.0,
            'valid_mrr': mrr, 'test': {'mrr': mrr}}, seed=0, command='make it', folder=tmp_path)
    found = text('headline', tmp_path)
    assert 'validation MRR 0.30 after' in found and '\n| ours | 20 s | 0.330 | 0.330 | 1,000 | 600 |\n' in found
    assert ', sLCWA | 90 s | 0.280 |' in found and ', LCWA | not reached | 0.200 |' in found
    assert found.endswith('(benchmarks/results/headline/headline.png)')


def test_trials_of_a_search(tmp_path: Path) -> None:
    trial = {'seconds': 1.0, 'steps': 9}
    write_result('search/transe-demix', {'metric': 'mrr', 'base': {'num_steps': 9000}, 'trials': [
        {**trial, 'trial': 1, 'outcome': 'pruned', 'mrr': 0.2, 'best_step': None, 'optimizer.lr': 0.001},
        {**trial, 'trial': 2, 'outcome': 'complete', 'mrr': 0.3, 'best_step': 4000, 'optimizer.lr': 0.0123}]},
        folder=tmp_path)
    table = ['| validation MRR | at step | lr |', '| ---: | ---: | ---: |', '| 0.300 | 4,000 | 0.0123 |',
             '| 0.200 | pruned | 0.001 |', '']
    assert text('demix-search', tmp_path).splitlines() == [*table, '2 trials of 9,000 steps.']
    write_result('demix/FB15k-237/transe-self-adv-seed0', {'valid_mrr': 0.25, 'best_step': 5000, 'steps': 10_000},
                 folder=tmp_path)
    assert text('demix-search', tmp_path).splitlines() == [
        *table, '2 trials of 9,000 steps. Self-adversarial negatives with the settings of Table 2: 0.250 at step '
        '5,000 of 10,000.']
