r"""How many cases the tests of this folder try, and which."""
from __future__ import annotations

import os
import random
from typing import Sequence, TypeVar

T = TypeVar('T')

#: Set to try more than the few cases of an ordinary test run; a number above all that there are means all.
ENVIRONMENT_VARIABLE = 'PYG_EMU_ROBUSTNESS_CASES'


def case_count(default: int) -> int:
    r"""The number of cases to try."""
    return int(os.environ.get(ENVIRONMENT_VARIABLE, default))


def chosen(cases: Sequence[T], default: int, seed: int = 0) -> list[T]:
    r"""Some of the cases, the same ones in every run, in their order; all if there are no more than asked for."""
    count = case_count(default)
    if count >= len(cases):
        return list(cases)
    return [cases[index] for index in sorted(random.Random(seed).sample(range(len(cases)), count))]
