from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.comparison import compare_runs, render
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe


def run(data: Path, folder: Path, *assignments: str) -> Path:
    recipe = load_recipe({'dataset': str(data), 'model': {'hidden_channels': 4}, 'negatives': {'num_negatives': 3},
                          'batch_size': 40, 'num_steps': 2, 'evaluate_every': 2}, [assignment_layer(assignments)])
    run_recipe(recipe, folder, progress=False, device='cpu')
    return folder


def test_two_runs(graph_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run(graph_folder, tmp_path / 'one')
    other = run(graph_folder, tmp_path / 'other', 'optimizer={name: adam, lr: 0.01, fused: true}', 'seed=1')
    entries = {(entry.section, entry.key): entry for entry in compare_runs(one, other)}

    def values(section: str, key: str) -> tuple[Any, Any]:
        return entries[section, key].left, entries[section, key].right

    assert values('settings', 'seed') == (0, 1)
    assert values('built', 'optimizer.class') == ('pyg_emu.training.optimizers.RowAdagrad',
                                                 'torch.optim.adam.Adam')
    assert values('built', 'optimizer.options.fused')[1] is True
    assert values('built', 'optimizer.options.betas') == (None, [0.9, 0.999])
    assert entries['built', 'backends.emu_score'].equal and entries['environment', 'torch'].equal
    assert values('environment', 'device') == ('cpu', 'cpu')
    assert values('data', 'num_nodes') == (12, 12) and entries['data', 'entities'].equal
    metrics = [json.loads((folder / 'metrics.json').read_text())['test']['mrr'] for folder in (one, other)]
    assert values('metrics', 'test.mrr') == (metrics[0], metrics[1])
    assert not any(key.startswith('files') for _, key in entries)

    assert main(['diff', str(one), str(other)]) == 0
    shown = capsys.readouterr().out
    assert f'{metrics[0]:.6g}' in shown and f'{metrics[1]:.6g}' in shown and 'optimizer.class' in shown
    assert not any(line.startswith('torch ') for line in shown.splitlines())
    assert main(['diff', str(one), str(other), '--all']) == 0
    every = capsys.readouterr().out
    assert any(line.startswith('torch ') for line in every.splitlines())
    assert main(['diff', str(one), str(one)]) == 0
    number = len(compare_runs(one, one))
    assert capsys.readouterr().out == f'{number} of {number} entries are equal\n'


def test_long_lists_are_told_apart(tmp_path: Path) -> None:
    for name, labels in (('a', list('abcdefghij')), ('b', list('abcdefghik'))):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'trained_on.json').write_text(json.dumps({'relations': labels}))
        (tmp_path / name / 'metrics.json').write_text('{"valid": {"mrr": 0.5}}')
    entry = next(entry for entry in compare_runs(tmp_path / 'a', tmp_path / 'b') if entry.key == 'relations')
    assert not entry.equal and entry.left.startswith('10 entries') and len(entry.left) < 40
    assert '0.5' in render(compare_runs(tmp_path / 'a', tmp_path / 'b'), 'a', 'b')


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match=f'{tmp_path}'):
        compare_runs(tmp_path, tmp_path)
    assert main(['diff', str(tmp_path), str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert main(['diff', '', '']) == 2
