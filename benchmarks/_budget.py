r"""An end to what may take long."""
from __future__ import annotations

import signal
from threading import Timer, get_ident
from typing import Optional


class Budget:
    r"""While entered, interrupts the main thread once the time is over, just as Ctrl-C does: a training takes its step
    to the end and saves its state.

    Args:
        limit (float, optional): Seconds, or :obj:`None` for no end.
    """
    def __init__(self, limit: Optional[float]) -> None:
        self.limit = limit
        #: Whether the time is over.
        self.is_spent = False
        self._timer = None if limit is None else Timer(limit, self._spend)
        self._ignored = False
        self._thread = get_ident()

    def __enter__(self) -> Budget:
        if self._timer is not None:
            # A shell starts what runs in the background with SIGINT ignored, and would so let the end go by.
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
        # To that thread, so that what it waits for does not hold it up.
        signal.pthread_kill(self._thread, signal.SIGINT)
