r"""How many cases the robustness tests try, which ones, and what they find.

All sizes are those of :obj:`make robustness`. The option :obj:`--robustness-cases SHARE` tries a share of them, one in
a hundred by default, and :obj:`--robustness-seed SEED` draws others.
"""
from __future__ import annotations

import math
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from types import FrameType
from typing import Any, Iterator, Optional, Sequence, TypeVar

T = TypeVar('T')

#: Seconds after which a case counts as a hang.
LIMIT = 30.0
#: Number of failures that a message quotes.
_QUOTED = 5


class Hang(BaseException):
    r"""A case has used up its time. No code of the package handles this."""


def case_count(full: int, share: float, least: int = 1) -> int:
    r"""A share of :obj:`full` cases, at least :obj:`least` of them."""
    return min(full, max(least, math.ceil(full * share)))


class Cases:
    r"""The cases of one test.

    Args:
        share (float): The share of the full number of cases.
        seed (int): The seed of the session.
        name (str): The name of the test, so that each test draws its own cases.
    """
    def __init__(self, share: float, seed: int, name: str) -> None:
        self.share = share
        self.seed = seed
        self.name = name
        self.tried = 0
        self.failures: list[tuple[str, str]] = []

    def count(self, full: int, least: int = 1) -> int:
        r"""The number of cases to try, of :obj:`full` ones."""
        return case_count(full, self.share, least)

    def random(self) -> random.Random:
        r"""The source of all that is random in the test."""
        return random.Random(f'{self.seed} {self.name}')

    def chosen(self, cases: Sequence[T], least: int = 1) -> list[T]:
        r"""A share of the cases, in their order."""
        count = self.count(len(cases), least)
        return [cases[index] for index in sorted(self.random().sample(range(len(cases)), count))]

    @contextmanager
    def attempt(self, case: Any) -> Iterator[None]:
        r"""One case. Its failure is recorded, and the next case is tried; the test fails in the end.

        Args:
            case (Any): What is needed to repeat it, for the message.
        """
        self.tried += 1
        try:
            with time_limit(LIMIT):
                yield
        except (Exception, Hang) as error:
            self.failures.append((type(error).__name__, f'{case!r:.2000}\n    {type(error).__name__}: {error!s:.2000}'))

    def kinds(self) -> dict[str, int]:
        r"""The number of failures by the kind of exception."""
        return dict(Counter(kind for kind, _ in self.failures))

    def message(self) -> str:
        r"""The shortest failures, and how to repeat them."""
        shortest = sorted((text for _, text in self.failures), key=len)[:_QUOTED]
        listed = '\n'.join(shortest)
        return (f'{len(self.failures)} of {self.tried} cases failed: {self.kinds()}. Repeat with --robustness-cases '
                f'{self.share} --robustness-seed {self.seed}\n{listed}')


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    r"""Raises :class:`Hang` after so many seconds."""
    def stop(number: int, frame: Optional[FrameType]) -> None:
        raise Hang(f'more than {seconds:g} s')

    # pytest-timeout uses the same timer.
    handler, left = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    start = time.monotonic()
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - start)) if left else 0.0)
