r"""Stopping between two steps when the user, or the machine, asks for it."""
from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Optional


class TrainingInterrupted(KeyboardInterrupt):
    r"""Training stopped on request, after its state was saved. Its message says how to go on."""


class StopRequest:
    r"""While entered, turns the first SIGINT or SIGTERM into a request that can be looked up, and the second into a
    :class:`KeyboardInterrupt`.

    Outside of the main thread, where Python allows no handlers, signals keep their meaning.
    """
    def __init__(self) -> None:
        #: The name of the signal that came, or :obj:`None`.
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
