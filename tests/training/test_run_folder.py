from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import IO

import pytest
import torch

from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import atomic_write
from pyg_emu.training.run_folder import RunFolder, versions


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    atomic_write(path, lambda file: file.write(b'old'))

    def fail(file: IO[bytes]) -> None:
        file.write(b'new')
        raise OSError(28, 'No space left on device')

    with pytest.raises(CheckpointError, match='file .*No space left on device'):
        atomic_write(path, fail)
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['file']


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='cannot make the run folder'):
        RunFolder(tmp_path / 'file' / 'run').prepare()


def test_folder_too_small(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='MiB free, but the checkpoints of this model need'):
        RunFolder(tmp_path).prepare(needed=1 << 60)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a device that is always full')
def test_full_disk_is_found_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / '..probe.tmp').symlink_to('/dev/full')  # where the probe is written
    with pytest.raises(CheckpointError, match='No space left on device'):
        RunFolder(tmp_path).prepare()


def test_clear_leaves_foreign_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.history, folder.last, folder.best, folder.metrics, tmp_path / 'notes.txt'):
        path.write_text('')
    folder.clear()
    assert os.listdir(tmp_path) == ['notes.txt']


def test_metrics_are_merged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update_metrics({'valid': {'mrr': 0.5}})
    folder.update_metrics({'test': {'mrr': 0.4}})
    assert json.loads(folder.metrics.read_text()) == {'valid': {'mrr': 0.5}, 'test': {'mrr': 0.4}}


def test_versions() -> None:
    found = versions('cpu')
    assert found['python'] == platform.python_version()
    assert found['torch'] == torch.__version__
    assert found['threads'] == torch.get_num_threads()
    assert found['device'] == 'cpu' and found['cpu'] and found['cores'] >= 1
    json.dumps(found)
