from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import curves_fb15k237 as curves
from benchmarks._record import read_result


def test_recipes_say_what_the_captions_say() -> None:
    arguments = curves.parse(['--data', 'folder'])
    for name, (label, _) in curves.RUNS.items():
        recipe = curves.recipe_of(name, arguments)
        assert (recipe.model['name'], recipe.model['hidden_channels'], recipe.batch_size) == ('DistMult', 100, 1000)
        assert recipe.optimizer == {'name': 'adagrad', 'lr': 0.1} and recipe.num_steps == 20_000
        assert recipe.negatives['num_negatives'] == 256
        if name == 'uniform-l3':
            assert recipe.loss['name'] == 'cross_entropy' and recipe.negatives['mutation_rate'] == 0.0
            assert recipe.loss['regularizer'] == {'name': 'l3', 'weight': 1e-5}
            continue
        assert (recipe.loss['alpha'], recipe.loss['beta'], recipe.loss['regularizer']) == (0.11, 0.53, None)
        rate = float(label.rpartition(' ')[2]) if 'rate' in label else 0.0
        assert recipe.negatives['mutation_rate'] == rate
        assert recipe.negatives['shared'] == ('mask per negative' not in label)


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ['--smoke', '--out', str(tmp_path), '--only', 'emu-triple-0.30', 'uniform-l3']
    curves.main(command)
    table = tmp_path / 'curves_fb15k237' / 'curves.csv'
    frame = pd.read_csv(table)
    assert frame['step'].tolist() == [3, 6] * 2 and frame['label'].nunique() == 2
    assert table.with_suffix('.png').stat().st_size > 10_000
    metrics = read_result('curves_fb15k237/uniform-l3-seed0', tmp_path)['metrics']
    assert metrics['steps'] == 6 and metrics['wall_seconds'] > metrics['seconds'] > 0
    assert 0 < metrics['test']['mrr'] <= 1 and 0 < metrics['test_last']['mrr'] <= 1

    # Recorded runs are skipped. The others continue from their run folder.
    (tmp_path / 'curves_fb15k237' / 'uniform-l3-seed0.json').unlink()
    capsys.readouterr()
    curves.main(command)
    assert 'rate 0.30: already recorded' in capsys.readouterr().out
    again = read_result('curves_fb15k237/uniform-l3-seed0', tmp_path)['metrics']
    assert again['wall_seconds'] is None and again['seconds'] == metrics['seconds']
    assert again['test_last'] == metrics['test_last']


@pytest.mark.parametrize('command', [['--smoke'], ['--data', 'folder', '--only', 'no-such-run']])
def test_refuses(command: list[str]) -> None:
    with pytest.raises(SystemExit):
        curves.parse(command)
