r"""Stopping a training run between two steps on a signal."""
from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Optional


class TrainingInterrupted(KeyboardInterrupt):
    r"""Training stopped on request, after its state was saved. The message says how to continue."""


class StopRequest:
    r"""A context manager that stores the first SIGINT or SIGTERM in :attr:`signal`, and raises
    :class:`KeyboardInterrupt` on the second.

    It has no effect outside of the main thread, because Python only allows signal handlers there.
    """
    def __init__(self) -> None:
        #: The name of the received signal, or :obj:`None`.
        self.signal: Optional[str] = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
