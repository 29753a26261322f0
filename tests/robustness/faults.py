r"""A stand-in for :mod:`os` under :mod:`pyg_emu.core.files` that counts all changes to files and lets one fail."""
from __future__ import annotations

import errno
import os
from typing import Any, Optional

#: What can happen to a change. After ``kill`` and ``torn``, nothing more reaches the disk, as after a SIGKILL.
KINDS = ('raise', 'kill', 'short', 'torn')


class Killed(BaseException):
    r"""The process has ended. No code of the package may handle this."""


class FaultyOs:
    r"""Counts calls that change files; the call number :obj:`at` fails.

    Args:
        at (int, optional): The call, from 0. (default: :obj:`None`, none fails)
        kind (str, optional): ``raise``: an :class:`OSError`. ``kill``: the process ends before the call. ``short``: a
            write takes half of its data, and the next one finds the disk full. ``torn``: the process ends in the
            middle of a write. The latter two are the former two for calls other than writes.
    """
    def __init__(self, at: Optional[int] = None, kind: str = 'raise') -> None:
        self.at = at
        self.kind = kind
        self.calls: list[str] = []
        self.dead = False
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _next(self, name: str) -> bool:
        if self.dead:
            raise Killed
        self.calls.append(name)
        if self.at is None or len(self.calls) - 1 != self.at:
            return False
        if name == 'write' and self.kind in ('short', 'torn'):
            return True
        if self.kind in ('kill', 'torn'):
            self.dead = True
            raise Killed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._next('open')
        return os.open(path, flags, mode)

    def write(self, descriptor: int, data: Any) -> int:
        if self.full and not self.dead:
            self.full = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not self._next('write'):
            return os.write(descriptor, data)
        written = os.write(descriptor, bytes(data)[:len(data) // 2])
        if self.kind == 'torn':
            self.dead = True
            raise Killed
        self.full = True
        return written

    def fsync(self, descriptor: int) -> None:
        self._next('fsync')  # and no more than that: a test need not wait for the disk

    def replace(self, source: Any, target: Any) -> None:
        self._next('replace')
        os.replace(source, target)

    def unlink(self, path: Any) -> None:
        self._next('unlink')
        os.unlink(path)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._next('ftruncate')
        os.ftruncate(descriptor, size)
