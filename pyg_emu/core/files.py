r"""Files that are written as a whole or not at all, rows that are appended as a whole, and locks on folders.

Every write, rename and removal of a run goes through the functions of this module, and these call nothing but
:mod:`os`: tests count these calls and let each of them fail.
"""
from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import socket
import stat
import sys
import time
from pathlib import Path
from typing import IO, Any, Callable, Mapping, Optional, Union

from pyg_emu.core.errors import CheckpointError

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

_BUFFER = 1 << 20
#: Bytes of a digest.
DIGEST_SIZE = 32


def atomic_write(path: Union[str, Path], write: Callable[[IO[bytes]], Any]) -> None:
    r"""Writes a file such that a reader of :obj:`path` sees either the old content or the new one, in full.

    The content goes to a temporary file in the same folder, is synchronised to disk, and is then renamed. The name of
    the temporary file is unique, so two writers do not share it. Any failure before the renaming leaves the old file
    unchanged.

    Args:
        path (str or Path): The file to write.
        write (callable): Receives the open binary file.

    Raises:
        CheckpointError: If the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp')
    renamed = False
    raw: Optional[_Descriptor] = None
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0), 0o666)
        raw = _Descriptor(descriptor)
        with io.BufferedWriter(raw, _BUFFER) as file:
            write(file)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
        renamed = True
        sync_folder(path.parent)
    except BaseException as error:
        if not renamed:
            _discard(temporary)
        if not isinstance(error, (OSError, RuntimeError)):  # torch.save reports a failed write as a RuntimeError
            raise
        # PyTorch reports where it stopped writing, and not why.
        cause = error if raw is None or raw.error is None else raw.error
        state = ('the new content is in place, but may not survive a power failure' if renamed else
                 'the existing file is unchanged' if path.exists() else 'no file was written')
        raise CheckpointError(f'cannot write {path} ({reason(cause)}); {state}. Free some space, or choose a folder '
                              'that can be written to') from error


def open_regular(path: Union[str, Path]) -> IO[bytes]:
    r"""Opens a regular file for reading. Opening a pipe would wait for a writer, and a device may never end.

    Raises:
        OSError: If it cannot be opened, or is not a regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, 'not a regular file', str(path))
    return open(path, 'rb')


def read_bytes(path: Union[str, Path]) -> bytes:
    r"""The content of a regular file.

    Raises:
        OSError: If it cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return file.read()


def append(path: Union[str, Path], content: bytes, size: int) -> bool:
    r"""Appends to a file, in full or not at all, unless a kill comes in between.

    Args:
        path (str or Path): The file. It is created if it does not exist.
        content (bytes): What to append.
        size (int): The size that the file is expected to have.

    Returns:
        Whether the file had this size. Otherwise nothing was appended.

    Raises:
        CheckpointError: If the file cannot be written to or the disk is full.
    """
    try:
        # Without O_NONBLOCK, a pipe in the place of the file would be waited for.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, 'O_BINARY', 0) | getattr(os, 'O_NONBLOCK', 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            if os.fstat(descriptor).st_size != size:
                return False
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
            return True
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CheckpointError(f'cannot write {path} ({reason(error)}). Free some space, or choose a folder that can be '
                              'written to') from error


def rename(source: Path, target: Path) -> None:
    r"""Renames a file in its folder, over an existing one.

    Raises:
        CheckpointError: If the folder cannot be written to.
    """
    try:
        os.replace(source, target)
        sync_folder(target.parent)
    except OSError as error:
        raise CheckpointError(f'cannot rename {source} to {target.name} ({reason(error)}); choose a folder that can be '
                              'written to') from error


def remove(path: Path) -> None:
    r"""Removes a file, if it exists.

    Raises:
        CheckpointError: If it cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CheckpointError(f'cannot remove {path} ({reason(error)}); remove it by hand or choose another '
                              'folder') from error


def sync_folder(folder: Path) -> None:
    r"""Synchronises the names in a folder to disk, where the system can."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    r"""An error in one line, in the words of the operating system if there are any."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Hashing:
    r"""A binary file that computes a digest of what is written to it, which :func:`digest_of` computes of a file.

    Args:
        file (file): The file.
    """
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = new_digest()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def new_digest() -> Any:
    r"""The beginning of a digest, as of :mod:`hashlib`."""
    return hashlib.blake2b(digest_size=DIGEST_SIZE)


def digest_of(path: Path) -> str:
    r"""The digest of a regular file in hexadecimal digits.

    Raises:
        OSError: If it cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, new_digest).hexdigest()  # type: ignore[arg-type]


class FolderLock:
    r"""An exclusive lock on a folder, held by one process.

    The lock file names the process that holds it. The operating system releases the lock when the process ends, however
    it ends, so a lock file left by a killed process does not block others. Where the file system has no locks, the lock
    file itself is the lock, and that of a process which no longer runs on this machine is ignored.

    Args:
        folder (Path): The folder, which has to exist.
    """
    def __init__(self, folder: Path) -> None:
        self.path = folder / '.lock'
        self._descriptor: Optional[int] = None
        self._by_file = False

    def acquire(self) -> None:
        r"""Takes the lock.

        Raises:
            CheckpointError: If another process holds it; names this process.
        """
        for _ in range(100):
            try:
                if self._try():
                    return
            except BlockingIOError:
                holder = _holder(self.path)
                raise CheckpointError(f'{self.path.parent} is in use by {_describe(holder)}; wait for that process, '
                                      f'stop it, or choose another folder') from None
            except OSError as error:
                raise CheckpointError(f'cannot lock {self.path.parent} ({reason(error)}); choose a folder that can be '
                                      'written to') from error
        raise CheckpointError(f'cannot lock {self.path.parent}: other processes keep replacing {self.path.name}')

    def _try(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._by_file = not _flock(descriptor)
            # The former holder removes the file, and a lock on a removed file would protect nothing.
            if not os.path.exists(self.path) or not os.path.samestat(os.stat(self.path), os.fstat(descriptor)):
                os.close(descriptor)
                return False
            holder = _holder(self.path) if self._by_file else {}
            if holder and _alive(holder):
                raise BlockingIOError
            os.ftruncate(descriptor, 0)
            _write_all(descriptor, json.dumps(_own()).encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        r"""Releases the lock and removes its file."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            _discard(self.path)
        finally:
            os.close(descriptor)


class _Descriptor(io.RawIOBase):
    r"""A binary file whose writes go through :func:`os.write` of this module."""
    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        #: The first write that failed.
        self.error: Optional[OSError] = None

    def write(self, data: Any) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self.error = self.error or error
            raise

    def readinto(self, buffer: Any) -> int:
        data = os.read(self._descriptor, len(buffer))
        buffer[:len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        # The system may take less than it is given, for instance when the disk fills up.
        view = view[os.write(descriptor, view):]


def _discard(path: Path) -> None:
    r"""Removes a file on the way out of an error, which a second one must not hide."""
    try:
        os.unlink(path)
    except OSError:
        pass


def _flock(descriptor: int) -> bool:
    r"""Locks an open file; returns whether the file system has locks.

    Raises:
        BlockingIOError: If another process holds the lock.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _own() -> dict[str, Any]:
    return {'pid': os.getpid(), 'host': socket.gethostname(), 'since': time.strftime('%Y-%m-%d %H:%M:%S'),
            'command': ' '.join(sys.argv)[:200]}


def _holder(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alive(holder: Mapping[str, Any]) -> bool:
    if holder.get('host') != socket.gethostname() or not isinstance(holder.get('pid'), int):
        return True  # cannot be known from here
    if holder['pid'] == os.getpid():
        return True
    try:
        os.kill(holder['pid'], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _describe(holder: Mapping[str, Any]) -> str:
    if not holder:
        return 'another process'
    return (f'process {holder.get("pid")} on {holder.get("host")} ({holder.get("command")}, since '
            f'{holder.get("since")})')
