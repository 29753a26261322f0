r"""Baselines with the same budget, worked out by hand from made-up searches and runs."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks._budgets import TEXTS, unsearched
from benchmarks._recipes import RECIPES
from benchmarks._record import write_result
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe


def final(folder: Path, name: str, values: tuple[float, ...], **metrics: float) -> None:
    for seed, mrr in enumerate(values):
        recipe = load_recipe('distmult-fb15k237-emu', [assignment_layer([f'seed={seed}', 'num_steps=40000'])]).to_dict()
        write_result(f'tuned/{name}-seed{seed}', {'test': {'mrr': mrr, 'hits@10': 2 * mrr, **metrics},
                                                  'recipe': recipe}, seed=seed, folder=folder)


def searched(folder: Path, name: str, value: float, settings: list[str], space: dict[str, Any]) -> None:
    recipe = load_recipe('distmult-fb15k237-emu', [assignment_layer(settings)]).to_dict()
    trials = [{'outcome': outcome} for outcome in ('complete', 'pruned', 'pruned')]
    write_result(f'search/{name}', {'value': value, 'recipe': recipe, 'space': space, 'trials': trials}, folder=folder)


def rows(name: str, folder: Path) -> list[list[str]]:
    lines = [line for line in TEXTS[name](folder)[0].splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


def test_what_is_left_of_the_lead(tmp_path: Path) -> None:
    final(tmp_path, 'distmult-emu', (0.330, 0.334))
    final(tmp_path, 'distmult-emu-n3', (0.340, ))
    final(tmp_path, 'distmult-uls', (0.331, 0.333))
    final(tmp_path, 'distmult-uniform-l3', (0.300, 0.304))
    searched(tmp_path, 'distmult-uls', 0.3456, [], {})
    found = rows('reproduction-budgets', tmp_path)
    assert [row[1] for row in found] == ['EMU, N3', 'EMU, L3', 'ULS alone, L3', 'uniform negatives, L3']
    assert found[2] == ['DistMult', 'ULS alone, L3', '0.3320 ± 0.0014', '0.664 ± 0.003', '0.346', '40,000', '2']
    # Deviations of 2.83 and 1.41 thousandths over two seeds each: sqrt(4 + 1) thousandths; and sqrt(4 + 4), where
    # Welch's t is 0.030 / 0.00283 = 10.6 at two degrees of freedom.
    assert rows('reproduction-leads', tmp_path) == [
        ['DistMult', 'ULS alone, L3', '+0.0080 (one seed)', '+0.0000 ± 0.0022, p = 1.000', '-'],
        ['DistMult', 'uniform negatives, L3', '+0.0380 (one seed)', '+0.0300 ± 0.0028, p = 0.009', '-']]
    assert 'uniform negatives, N3' in unsearched(tmp_path)['DistMult'] and 'ComplEx' not in unsearched(tmp_path)
    assert not {'EMU, L3', 'ULS alone, L3'} & {*unsearched(tmp_path)['DistMult']}


def test_lead_of_the_settings_of_tuned(tmp_path: Path) -> None:
    final(tmp_path, 'distmult-emu', (0.320, 0.322))
    final(tmp_path, 'distmult-uls', (0.331, 0.333))
    for seed, mrr in enumerate((0.334, 0.336)):
        recipe = load_recipe(RECIPES / 'tuned/FB15k-237/distmult-uni-emu.yaml', [assignment_layer([f'seed={seed}'])])
        write_result(f'reproduction/tuned/FB15k-237/distmult-uni-emu-steps40000-seed{seed}',
                     {'test': {'mrr': mrr, 'hits@10': 0.5}, 'recipe': {**recipe.to_dict(), 'num_steps': 40000}},
                     seed=seed, folder=tmp_path)
    # Deviations of 1.41 thousandths over two seeds each: sqrt(2) thousandths.
    (_, _, *cells), = rows('reproduction-leads', tmp_path)
    assert cells[0] == '-' and cells[1].startswith('-0.0110 ± 0.0014') and cells[2].startswith('+0.0030 ± 0.0014')


def test_better_settings_that_a_search_missed(tmp_path: Path) -> None:
    final(tmp_path, 'distmult-emu', (0.320, ))
    write_result('curves_fb15k237/emu-triple-0.61-seed0', {'curve': [
        {'step': 5000, 'mrr': 0.4}, {'step': 6000, 'mrr': 0.3251}]}, folder=tmp_path)
    for value, missed in ((0.3198, True), (0.3252, False)):
        searched(tmp_path, 'distmult-emu', value, ['num_steps=6000'], {})
        text = TEXTS['reproduction-budgets'](tmp_path)[0]
        assert ('0.320 after 6,000 steps' in text and '0.325 after as' in text) is missed


def test_what_searches_chose(tmp_path: Path) -> None:
    searched(tmp_path, 'complex-emu', 0.35, ['loss.alpha=0.25', 'optimizer.lr=0.0512'],
             {'loss.name': 'emu', 'loss.alpha': {'low': 0.01, 'high': 1.0}, 'optimizer.lr': {'factor': 5},
              'loss.regularizer.weight': {'low': 0.1, 'high': 1.0}})
    assert rows('reproduction-chosen', tmp_path) == [['ComplEx', 'EMU, L3', '3', '2', 'alpha 0.25, lr 0.0512']]


def test_nbfnet_with_and_without_emu(tmp_path: Path) -> None:
    hits = 'hits@10 (50 negatives)'
    for key, values in (('emu', (0.31, 0.33)), ('bce', (0.30, 0.30))):
        final(tmp_path, f'nbfnet-v1-{key}', values, **{hits: 0.8})
        searched(tmp_path, f'nbfnet-v1-{key}', 0.3, [], {})
    assert [row[:3] for row in rows('nbfnet-search', tmp_path)] == [
        ['EMU', '0.800 ± 0.000', '0.320 ± 0.014'], ['its own loss', '0.800 ± 0.000', '0.300 ± 0.000']]
    assert TEXTS['nbfnet-search'](tmp_path)[0].endswith('without: +0.0200 ± 0.0100 (within two standard errors).')
    # Searches of another model are none of the shallow models' baselines.
    assert rows('reproduction-budgets', tmp_path) == []
