from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from pyg_emu.core import files
from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import FolderLock, append, atomic_write, remove
from tests.robustness.faults import FaultyOs

_HOLD = """
import sys, time
from pathlib import Path
from pyg_emu.core import files
if sys.argv[2] == 'without':
    files.fcntl = None
files.FolderLock(Path(sys.argv[1])).acquire()
print('held', flush=True)
time.sleep(60)
"""


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


def test_interrupted_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(file: IO[bytes]) -> None:
        file.write(b'new')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / 'file', interrupt)
    assert os.listdir(tmp_path) == []


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / 'file'

    def outer(file: IO[bytes]) -> None:
        file.write(b'outer')
        atomic_write(path, lambda inner: inner.write(b'inner'))
        assert path.read_bytes() == b'inner' and len(os.listdir(tmp_path)) == 2

    atomic_write(path, outer)
    assert path.read_bytes() == b'outer' and os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize('kind', ['raise', 'short'])
@pytest.mark.parametrize('call', ['open', 'write', 'fsync'])
def test_failed_append_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str,
                                                 call: str) -> None:
    path = tmp_path / 'file'
    path.write_bytes(b'one\n')
    monkeypatch.setattr(files, 'os', FaultyOs(['open', 'write', 'fsync'].index(call), kind))
    with pytest.raises(CheckpointError, match=f'file .*{os.strerror(errno.ENOSPC)}'):
        append(path, b'two\n', 4)
    assert path.read_bytes() == b'one\n'


def test_append_to_a_file_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    assert append(path, b'one\n', 0) and append(path, b'two\n', 4)
    assert not append(path, b'three\n', 4)
    assert path.read_bytes() == b'one\ntwo\n'


def test_remove(tmp_path: Path) -> None:
    remove(tmp_path / 'missing')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(CheckpointError, match='cannot remove .*folder'):
        remove(tmp_path / 'folder')


@pytest.mark.parametrize('by', ['with', 'without'])
def test_lock_of_another_process(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == 'without':  # file systems that have no locks
        monkeypatch.setattr(files, 'fcntl', None)
    process = subprocess.Popen([sys.executable, '-c', _HOLD, str(tmp_path), by], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == 'held\n'
        with pytest.raises(CheckpointError, match=rf'{tmp_path.name} is in use by process {process.pid} on '):
            FolderLock(tmp_path).acquire()
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / '.lock').exists()  # of a dead process, and so nobody's
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert f'"pid": {os.getpid()}' in (tmp_path / '.lock').read_text()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_lock_of_the_same_process(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    with pytest.raises(CheckpointError, match=f'process {os.getpid()} '):
        second.acquire()
    first.release()
    second.acquire()
    second.release()




def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    for read in (files.read_bytes, files.open_regular):
        with pytest.raises(OSError, match='pipe'):
            read(path)
    with pytest.raises(CheckpointError, match='pipe'):
        files.append(path, b'row', 0)
