from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import _negatives, negatives
from benchmarks._negatives import METHODS, SETTINGS, Method, Variant, variants
from benchmarks._negatives_tables import TEXTS, difference, is_clear, ranking, rows_of, significant
from benchmarks._record import ROOT, read_result, read_results, write_result
from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.recipe import load_recipe

pytest.importorskip('pykeen', reason='UMLS and Nations come with PyKEEN')
optuna = pytest.importorskip('optuna')


def smoke(folder: Path, *arguments: str) -> int:
    return negatives.main(['--smoke', '--out', str(folder), *arguments])


@pytest.mark.parametrize('variant', variants(), ids=lambda variant: variant.key)
def test_every_method_has_a_recipe_and_a_search(variant: Variant) -> None:
    assert variant.missing() is None
    recipe = variant.recipe('UMLS')
    space = variant.space(recipe).bound(recipe)
    keys = [parameter.key for parameter in space.parameters]
    assert {'optimizer.lr', 'loss.regularizer.weight'} <= set(keys)
    # The first trial has the values of the recipe.
    assert set(space.start(recipe)) == set(keys)
    if variant.with_emu:
        assert recipe.negatives['mutation_rate'] == 0.3 and 'negatives.mutation_rate' in keys
    base = Variant('uniform', False).recipe('UMLS')
    assert (recipe.model, recipe.optimizer, recipe.batch_size) == (base.model, base.optimizer, base.batch_size)
    assert recipe.loss['regularizer'] == base.loss['regularizer']


def test_the_page_shows_the_recipe_of_every_method() -> None:
    text = (ROOT / 'docs' / 'negatives.md').read_text(encoding='utf-8').partition('## The methods')[2]
    sections = re.findall(r'^### (.+?)\n(.*?)(?=^### |\Z)', text, re.DOTALL | re.MULTILINE)
    titles = {method.title.lower(): name for name, method in METHODS.items()}
    assert [title.lower() for title, _ in sections] == [method.title.lower() for method in METHODS.values()]
    for title, body in sections:
        block, = re.findall(r'^```yaml\n(.*?)^```', body, re.DOTALL | re.MULTILINE)
        assert '$$' in body and '- Cost:' in body and '- Source:' in body and '- Searched:' in body
        variant = Variant(titles[title.lower()], False)
        shown = load_recipe(SETTINGS['UMLS'].base, [Layer(yaml.safe_load(block))])
        if variant.name == 'uniform':  # the page names the default sampler
            assert shown.negatives['sampler'] == {'name': 'uniform', 'filtered': False, 'split': 'train'}
            shown = replace(shown, negatives={**shown.negatives, 'sampler': None})
        assert shown.hash() == variant.recipe('UMLS').hash()


def test_runs_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, 'new', Method('New', _negatives._sampler('not_there')))
    assert smoke(tmp_path, '--methods', 'filtered-emu', 'new') == 0
    captured = capsys.readouterr().out
    assert re.search(r'^New: .*not_there', captured, re.MULTILINE) and '1 of 1 runs' in captured
    metrics = read_result('negatives/Nations/filtered-emu-seed0', tmp_path)['metrics']
    assert (metrics['method'], metrics['emu'], metrics['steps']) == ('filtered', True, 6)
    assert metrics['recipe']['negatives']['sampler']['filtered'] and metrics['recipe']['loss']['name'] == 'emu'
    assert metrics['search']['trials'] == 1 and metrics['search']['found']['loss.alpha'] == 0.11
    assert metrics['curve'][-1]['step'] == 6 and max(metrics['curve'], key=lambda point: point['mrr'])['mrr'] == (
        metrics['valid_mrr'])
    assert metrics['step_ms'] == pytest.approx(1000 * metrics['seconds'] / 6)
    assert (tmp_path / 'negatives' / 'Nations.png').exists() and (tmp_path / 'negatives' / 'Nations.csv').exists()
    # What is recorded is not run again, unless its settings differ.
    before = read_results('negatives/**/*', tmp_path)
    assert smoke(tmp_path, '--methods', 'filtered-emu') == 0 and read_results('negatives/**/*', tmp_path) == before
    assert '0 of 1 runs' in capsys.readouterr().out
    arguments = negatives.parse(['--smoke', '--out', str(tmp_path), '--seconds', '5'])
    assert not negatives.is_recorded(Variant('filtered', True), arguments, 0)

    # Another seed takes the recorded outcome of the search, also where its folder is gone.
    shutil.rmtree(tmp_path / 'runs')
    monkeypatch.setattr(negatives, 'tune', lambda *_, **__: pytest.fail('searched again'))
    assert smoke(tmp_path, '--methods', 'filtered-emu', '--seeds', '2') == 0
    second = read_result('negatives/Nations/filtered-emu-seed1', tmp_path)
    assert second['metrics']['search'] == metrics['search']
    assert second['metrics']['recipe'] == {**metrics['recipe'], 'seed': 1}


def test_seconds_end_a_run_and_an_interruption_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    command = ('--methods', 'uls', '--search-trials', '0', '--seconds', '1e-9')

    def stopped(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt('SIGINT')

    with monkeypatch.context() as patch:
        patch.setattr(negatives, 'run_recipe', stopped)
        assert smoke(tmp_path, *command) == 130
    assert 'SIGINT' in capsys.readouterr().out and read_results('negatives/**/*', tmp_path) == []
    assert smoke(tmp_path, *command) == 0
    metrics = read_result('negatives/Nations/uls-seed0', tmp_path)['metrics']
    # The first step is over the limit, and the run says how many steps it had.
    assert metrics['steps'] == 1 and metrics['seconds'] > 1e-9 and metrics['settings']['seconds'] == 1e-9


def test_memory_is_measured_for_the_recipe_that_is_read(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    monkeypatch.setattr(negatives, 'train_steps', lambda recipe, data, steps: seen.append((recipe, data.num_nodes)))
    monkeypatch.setattr(negatives, 'peak_rise', lambda work: work() or 3 * 2**20)
    monkeypatch.setattr('sys.stdin', io.StringIO(Variant('demix', False).recipe('UMLS').to_yaml()))
    assert negatives.main(['--dataset', 'UMLS', '--measure-memory']) == 0
    assert json.loads(capsys.readouterr().out) == {'peak_mib': 3.0}
    assert [nodes for _, nodes in seen] == [14, 135]
    assert {recipe.negatives['mutation']['warmup'] for recipe, _ in seen} == {0}


def fake(folder: Path, key: str, seed: int, mrr: float, seconds: float = 20.0, **changes: Any) -> None:
    variant = next(variant for variant in variants() if variant.key == key)
    arguments = negatives.parse(['--dataset', 'UMLS', '--seconds', str(seconds)])
    curve = [{'step': 500, 'seconds': 4.0, 'mrr': mrr - 0.1}, {'step': 1000, 'seconds': 8.0, 'mrr': mrr - 0.2},
             {'step': 2500, 'seconds': 20.0, 'mrr': mrr}]
    metrics = {'method': variant.name, 'emu': variant.with_emu, 'test': {'mrr': mrr, 'hits@1': 0.5, 'hits@10': 0.9},
               'settings': {**negatives.settings(variant, arguments), **changes}, 'steps': 2500, 'best_step': 2400,
               'step_ms': 8.0, 'peak_mib': (40.0 if key == 'sans' else 30.0) if seed == 0 else None, 'curve': curve}
    write_result(f'negatives/UMLS/{key}-seed{seed}', metrics, seed=seed, command='made', folder=folder)


def test_table_worked_out_by_hand(tmp_path: Path) -> None:
    # EMU is 0.005 and 0.035 above 1-vs-all: 0.02 with a standard error of 0.015. Its gains over uniform are equal.
    for key, values in (('emu', (0.80, 0.82)), ('one-vs-all', (0.795, 0.785)), ('uniform', (0.70, 0.72)),
                        ('sans', (0.60, 0.62)), ('sans-emu', (0.65, 0.68))):
        for seed, mrr in enumerate(values):
            fake(tmp_path, key, seed, mrr)
    # Neither a search of another length nor another recipe belongs to the table.
    fake(tmp_path, 'mcns', 0, 0.9, seconds=7.0)
    fake(tmp_path, 'demix', 0, 0.9, recipe='another')
    rows = rows_of('UMLS', tmp_path)
    assert [row.variant.key for row in rows] == ['emu', 'one-vs-all', 'uniform', 'sans-emu', 'sans']
    assert difference(rows[0], rows[1]) == pytest.approx((0.02, 0.015)) and not is_clear(rows[0], rows[1])
    lines = ranking(tmp_path, 'UMLS')[0].splitlines()
    assert lines[2] == ('| 1 | EMU | 0.810 ± 0.014 | 0.500 ± 0.000 | 0.900 ± 0.000 | - | 0.710 ± 0.014 | 0.710 ± 0.014 '
                        '| 8.0 | 2,500 | 2,400 | 0 | 2 |')
    assert lines[3].startswith('| 2 | 1-vs-all | 0.790 ± 0.007 |') and '| -0.0200 ± 0.0150, tie |' in lines[3]
    assert '| -0.1000 ± 0.0000 |' in lines[4] and lines[6].endswith('| 10 | 2 |')
    assert 'MCNS, ' in lines[-1] and 'DeMix' in lines[-1] and ', EMU,' not in lines[-1]
    effect = TEXTS['negatives-umls-emu'](tmp_path)[0].splitlines()
    assert effect[2] == '| uniform | 0.710 ± 0.014 | 0.810 ± 0.014 | +0.1000 ± 0.0000 | higher |'
    assert effect[3].startswith('| SANS |') and '2 higher' in effect[-1]
    guide = TEXTS['negatives-guide'](tmp_path)[0]
    assert guide.splitlines()[2:4] == ['- Highest MRR: EMU, 0.810 ± 0.014.', '- Tied with it: 1-vs-all.']
    # Equal differences over both seeds: EMU is above, SANS below. Of SANS with EMU and 1-vs-all, they spread.
    assert 'above uniform negatives (0.710 ± 0.014): EMU.' in guide and guide.endswith('uniform negatives: SANS.')


def test_differences_count_for_all_methods_together(tmp_path: Path) -> None:
    ours = (0.020, 0.022, 0.024)  # p = 0.003 alone
    for seed, gain in enumerate(ours):
        fake(tmp_path, 'uniform', seed, 0.7)
        fake(tmp_path, 'emu', seed, 0.7 + gain)
    rows = rows_of('UMLS', tmp_path)
    assert [row.variant.key for row in significant(rows, rows[1])] == ['emu']
    for number, variant in enumerate(variants()):
        for seed in range(3):
            if variant.key not in ('emu', 'uniform'):
                fake(tmp_path, variant.key, seed, 0.6 + 0.05 * ((seed + number) % 3))
    rows = rows_of('UMLS', tmp_path)
    # The smallest of 32 p-values has to be below 0.05 / 32 = 0.0016.
    assert significant(rows, next(row for row in rows if row.variant.key == 'uniform')) == []


def test_one_seed_is_no_tie(tmp_path: Path) -> None:
    fake(tmp_path, 'emu', 0, 0.8)
    fake(tmp_path, 'uniform', 0, 0.7)
    assert '| -0.1000 |' in ranking(tmp_path, 'UMLS')[0]
    assert 'ignificantly' not in TEXTS['negatives-guide'](tmp_path)[0]


def test_lists_and_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert negatives.main(['--dataset', 'UMLS', '--list', '--methods', 'mixup', 'sans-emu']) == 0
    assert [line.partition(':')[0] for line in capsys.readouterr().out.splitlines()] == ['sans-emu', 'mixup']
    with pytest.raises(SystemExit):
        negatives.parse(['--methods', 'uniform-emu'])
    assert 'uniform-emu' in capsys.readouterr().err
