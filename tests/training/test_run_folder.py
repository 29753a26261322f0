from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_emu.core import files
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.checkpoint import save_checkpoint
from pyg_emu.training.run_folder import FORMAT, RunFolder, read_json, versions
from tests.robustness.faults import FaultyOs


def begin(path: Path, resume: Any = 'auto', **options: Any) -> bool:
    folder = RunFolder(path, **options)
    with folder.held():
        going_on = folder.open(resume)
        folder.describe({'model': 'DistMult'})
        return going_on


def checkpoint(path: Path, **state: Any) -> str:
    return save_checkpoint(path, state, fingerprint={'shapes': {}, 'model': None, 'recipe': None})


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='file/run'):
        RunFolder(tmp_path / 'file' / 'run').prepare()
    with pytest.raises(CheckpointError, match='file/run'):
        begin(tmp_path / 'file' / 'run')


@pytest.mark.parametrize('path', ['', ' ', 3, None])
def test_path_that_is_none(path: Any) -> None:
    with pytest.raises(ArgumentError, match=f'run_dir: .* {path!r}'):
        RunFolder(path)


def test_folder_too_small(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r' [\d,]+ MiB .* 1,0'):
        RunFolder(tmp_path).prepare(needed=1 << 60)


def test_full_disk_is_found_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, 'os', FaultyOs(1))
    with pytest.raises(CheckpointError, match='No space left on device'):
        RunFolder(tmp_path).prepare()


def test_begins_and_goes_on(tmp_path: Path) -> None:
    assert not begin(tmp_path, files={'recipe.yaml': b'seed: 0\n'})
    record = read_json(tmp_path / 'run.json')
    assert record['format'] == FORMAT and record['model'] == 'DistMult'
    assert {'last.pt', 'recipe.yaml', 'run.json'} <= set(record['files'])
    assert (tmp_path / 'recipe.yaml').read_bytes() == b'seed: 0\n'
    assert sorted(os.listdir(tmp_path)) == ['recipe.yaml', 'run.json']
    assert not begin(tmp_path)  # nothing to continue without last.pt, and nothing to lose
    checkpoint(tmp_path / 'last.pt', step=1)
    assert begin(tmp_path) and begin(tmp_path, resume=True)


def test_run_to_resume_stays_as_it_is_until_it_is_described(tmp_path: Path) -> None:
    begin(tmp_path, files={'recipe.yaml': b'seed: 0\n'})
    checkpoint(tmp_path / 'last.pt', step=1)
    RunFolder(tmp_path).update_record({'backends': {'emu_loss': 'numba'}})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    folder = RunFolder(tmp_path, files={'recipe.yaml': b'seed: 1\n', 'more.json': b''})
    with folder.held():
        assert folder.open('auto')
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != '.lock'} == before
        folder.describe({'model': 'TransE'})
    record = read_json(folder.record)
    assert (record['model'], record['backends']) == ('TransE', {'emu_loss': 'numba'})
    assert folder.recipe.read_bytes() == b'seed: 1\n' and 'more.json' in record['files']


@pytest.mark.parametrize('name', ['best.pt', 'history.csv', 'metrics.json', 'run.json', 'recipe.yaml', 'last.pt'])
@pytest.mark.parametrize('resume', ['auto', False])
def test_files_of_the_user_are_kept(tmp_path: Path, name: str, resume: Any) -> None:
    (tmp_path / name).write_text('mine')
    with pytest.raises(CheckpointError, match=f'{tmp_path} .*{name}.*overwrite=True'):
        begin(tmp_path, resume, files={'recipe.yaml': b'ours'})
    assert (tmp_path / name).read_text() == 'mine' and os.listdir(tmp_path) == [name]
    begin(tmp_path, resume, files={'recipe.yaml': b'ours'}, overwrite=True)
    assert name in ('recipe.yaml', 'run.json') or not (tmp_path / name).exists()


def test_starting_over_removes_what_the_run_has_written(tmp_path: Path) -> None:
    begin(tmp_path)
    checkpoint(tmp_path / 'last.pt', step=1)
    (tmp_path / 'tensorboard').mkdir()
    for name in ('best.pt', 'history.csv', '.best.pt.next', 'notes.txt', 'tensorboard/events.out.tfevents.1.pyg_emu',
                 'tensorboard/events.out.tfevents.2', '.last.pt.1-00ff00ff.tmp', '.notes.txt.1-00ff00ff.tmp'):
        (tmp_path / name).write_text('')
    begin(tmp_path, resume=False)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*')}
    assert found == {'run.json', 'notes.txt', 'tensorboard', 'tensorboard/events.out.tfevents.2',
                     '.notes.txt.1-00ff00ff.tmp'}


@pytest.mark.parametrize('name', ['best.pt', 'history.csv'])
def test_run_without_its_checkpoint_is_not_replaced(tmp_path: Path, name: str) -> None:
    begin(tmp_path)
    (tmp_path / name).write_text('20 rows')
    with pytest.raises(CheckpointError, match=rf'last\.pt .* {name} .*resume=False'):
        begin(tmp_path)
    with pytest.raises(CheckpointError, match=r"last\.pt .*resume='auto'"):
        begin(tmp_path, resume=True)
    assert (tmp_path / name).read_text() == '20 rows'
    assert not begin(tmp_path, overwrite=True)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize('damage', ['', '{', '[]'])
def test_run_whose_record_is_damaged(tmp_path: Path, damage: str) -> None:
    begin(tmp_path)
    checkpoint(tmp_path / 'last.pt', step=1)
    (tmp_path / 'run.json').write_text(damage)
    for resume in ('auto', False):
        with pytest.raises(CheckpointError, match=r'last\.pt.*run\.json.*overwrite=True'):
            begin(tmp_path, resume)
    assert not begin(tmp_path, overwrite=True) and not (tmp_path / 'last.pt').exists()


def test_run_of_an_older_version_is_taken_over(tmp_path: Path) -> None:
    for name in ('best.pt', 'history.csv', 'recipe.yaml'):
        (tmp_path / name).write_text('')
    checkpoint(tmp_path / 'last.pt', step=1)
    assert begin(tmp_path) and (tmp_path / 'history.csv').exists()


def test_names_outside_of_the_folder_are_not_touched(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    begin(run)
    (tmp_path / 'precious').write_text('mine')
    (run / 'run.json').write_text(json.dumps({'format': FORMAT, 'clearing': True,
                                              'files': ['../precious', str(tmp_path / 'precious'), 3, 'last.pt']}))
    begin(run)
    assert (tmp_path / 'precious').exists()


def test_folder_that_nothing_came_of_is_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / 'a' / 'b').held():
        assert (tmp_path / 'a' / 'b' / '.lock').exists()
    assert os.listdir(tmp_path) == []


def test_folder_in_use(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / 'run')
    with folder.held(), folder.held():
        with pytest.raises(CheckpointError, match=f'run .*process {os.getpid()} '):
            begin(tmp_path / 'run')
    assert not begin(tmp_path / 'run')


def test_best_weights(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run: dict[str, Any] = {'best_step': None, 'best_digest': None}
    checkpoint(folder.last, step=4, run=run)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert folder.weights() == folder.last  # there was no validation
        digest = checkpoint(folder.staged, step=3)
        checkpoint(folder.last, step=4, run={'best_step': 3, 'best_digest': digest})
        assert folder.weights() == folder.staged and folder.weights('last') == folder.last
        folder.settle(3, digest, {}, False)
        assert folder.weights() == folder.best and not folder.staged.exists()
    folder.best.unlink()
    with pytest.warns(UserWarning, match=r'best\.pt .* step 3, .* last\.pt .* step 4'):
        assert folder.weights() == folder.last
    with pytest.raises(CheckpointError, match=r'best\.pt is missing.* step 3'):
        folder.settle(3, digest, {}, False)
    checkpoint(folder.best, step=2)
    with pytest.raises(CheckpointError, match=r'best\.pt is not the file .* step 3'):
        folder.settle(3, digest, {}, False)


def test_metrics_are_merged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update_metrics({'valid': {'mrr': 0.5}})
    folder.update_metrics({'test': {'mrr': 0.4}})
    assert json.loads(folder.metrics.read_text()) == {'valid': {'mrr': 0.5}, 'test': {'mrr': 0.4}}
    folder.metrics.write_text('[')
    with pytest.raises(CheckpointError, match=r'metrics\.json'):
        folder.update_metrics({'test': {'mrr': 0.4}})


def test_two_runs_at_once(tmp_path: Path) -> None:
    script = ('import sys, time; from pyg_emu.training.run_folder import RunFolder\n'
              'with RunFolder(sys.argv[1]).held():\n    print("held", flush=True); time.sleep(60)')
    process = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == 'held\n'
        with pytest.raises(CheckpointError, match=f'process {process.pid} '):
            begin(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert not begin(tmp_path)


def test_versions() -> None:
    found = versions('cpu')
    assert found['python'] == platform.python_version()
    assert found['torch'] == torch.__version__
    assert found['threads'] == torch.get_num_threads()
    assert found['device'] == 'cpu' and found['cpu'] and found['cores'] >= 1
    json.dumps(found)
