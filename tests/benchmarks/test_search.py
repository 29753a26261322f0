from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy, search
from benchmarks._record import read_result
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe


def short(steps: int = 4) -> Recipe:
    return load_recipe('distmult-umls-emu', [assignment_layer([
        f'num_steps={steps}', 'evaluate_every=2', 'batch_size=64', 'negatives.num_negatives=4',
        'model.hidden_channels=4'])])


def test_trials_are_recorded_and_read_instead_of_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: dict[str, Any] = {'runs': tmp_path / 'runs', 'folder': tmp_path / 'results'}
    best = search.search(short(), 'emu', 'tiny', 2, seed=3, **places)
    metrics = read_result('search/tiny', tmp_path / 'results')['metrics']
    assert len(metrics['trials']) == metrics['num_trials'] == 2 and metrics['search_seed'] == 3
    values = [trial['mrr'] for trial in metrics['trials'] if trial['outcome'] == 'complete']
    assert metrics['value'] == max(values)
    assert load_recipe(metrics['recipe']).hash() == best.hash() and metrics['base'] == short().to_dict()

    def no_study(*_: Any, **__: Any) -> None:
        raise AssertionError('searched again')

    monkeypatch.setattr(search, 'tune', no_study)
    assert search.search(short(), 'emu', 'tiny', 2, seed=3, **places).to_dict() == best.to_dict()
    for other, key in ((short(6), 'base'), (short(), 'num_trials')):
        with pytest.raises(RecipeError, match=key):
            search.search(other, 'emu', 'tiny', 2 if key == 'base' else 3, seed=3, **places)


def test_final_runs_have_the_best_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained = []

    def record(recipe: Recipe, result: str, title: str, **_: Any) -> str:
        trained.append((result, recipe.num_steps, recipe.seed, recipe.loss['alpha']))
        return ''

    best = load_recipe(short().to_dict(), [assignment_layer(['loss.alpha=0.25'])])
    monkeypatch.setattr(search, 'search', lambda *_, **__: best)
    monkeypatch.setattr(accuracy, 'record', record)
    monkeypatch.setattr(accuracy, 'RESULTS', tmp_path)
    arguments = ['distmult-umls-emu', '--space', 'emu', '--name', 'tiny', '--steps', '4']
    search.main([*arguments, '--final-steps', '9', '--seeds', '0', '2'])
    assert trained == [('tuned/tiny-seed0', 9, 0, 0.25), ('tuned/tiny-seed2', 9, 2, 0.25)]
    search.main(arguments)
    assert len(trained) == 2


def test_steps_of_no_run_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        search.main(['distmult-umls-emu', '--space', 'emu', '--name', 'tiny', '--final-steps', '9'])
    assert '--final-steps' in capsys.readouterr().err


def test_ends_in_a_sentence() -> None:
    with pytest.raises(SystemExit, match='distmult-umls-nothing'):
        search.main(['distmult-umls-nothing', '--space', 'emu', '--name', 'tiny', '--steps', '4'])
