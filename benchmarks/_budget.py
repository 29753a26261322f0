r"""A time limit for long computations."""
from __future__ import annotations

import signal
from threading import Timer, get_ident
from typing import Optional


class Budget:
    r"""Context manager that interrupts the main thread after a time limit, as Ctrl-C does. The trainer then completes
    the current step and saves its state.

    Args:
        limit (float, optional): The limit in seconds, or :obj:`None` for no limit.
    """
    def __init__(self, limit: Optional[float]) -> None:
        self.limit = limit
        #: Whether the limit has been reached.
        self.is_spent = False
        self._timer = None if limit is None else Timer(limit, self._spend)
        self._ignored = False
        self._thread = get_ident()

    def __enter__(self) -> Budget:
        if self._timer is not None:
            # Shells start background processes with SIGINT ignored, so the default handler is restored.
            self._ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            if self._ignored:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _spend(self) -> None:
        self.is_spent = True
        # The signal goes to the main thread, so that it also interrupts blocking calls.
        signal.pthread_kill(self._thread, signal.SIGINT)
