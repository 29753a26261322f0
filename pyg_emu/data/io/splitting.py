r"""Facts that come without a split -> train, valid and test, with nothing in valid or test that train lacks."""
from __future__ import annotations

import math
import warnings
from typing import Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning

#: What a single file or table is split into unless told otherwise.
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)


def split_facts(
    facts: np.ndarray,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    r"""Splits facts at random, keeping for training at least one fact of each entity and each relation.

    Copies of a fact stay together, so that no test fact is also a training fact; the fractions are of distinct facts.
    The order of the facts within a split is the one they came in.

    .. note::
        Where so many entities occur only once that the fractions cannot be met, as many facts go to validation and test
        as can be spared, in the same proportion, with a :class:`~pyg_emu.core.errors.DataWarning` that says how many.

    Args:
        facts (numpy.ndarray): Heads, relations and tails. shape: :obj:`(F, 3)`, int64.
        fractions (sequence of float): Shares of train, valid and test; their sum is one.
            (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): The same seed gives the same split. (default: :obj:`0`)

    Raises:
        ArgumentError: If the fractions are not three shares with a sum of one, or leave nothing to train on.
    """
    shares = _validated(fractions)
    if len(facts) == 0:
        raise DataError('there are no facts to split; expected at least one')
    # Copies share a group, and what follows chooses among groups.
    group = pd.DataFrame(facts).groupby([0, 1, 2], sort=False).ngroup().to_numpy()
    _, first = np.unique(group, return_index=True)
    distinct = facts[first]
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(distinct))
    needed = np.zeros(len(distinct), dtype=bool)
    needed[_cover(distinct, order)] = True

    spare = order[~needed[order]]
    # Nearest whole numbers whose sum leaves train at least its own, rounded down.
    asked = _apportion(len(distinct) - math.floor(shares[0] * len(distinct) + 1e-9), shares, len(distinct))
    granted = asked
    if sum(asked) > len(spare):
        valid = round(len(spare) * asked[0] / sum(asked))
        granted = (valid, len(spare) - valid)
    _warn_if_short(shares, asked, granted, len(distinct), int(needed.sum()))

    split = np.zeros(len(distinct), dtype=np.int8)
    split[spare[:granted[0]]] = 1
    split[spare[granted[0]:sum(granted)]] = 2
    each = split[group]
    return {name: facts[each == code] for code, name in enumerate(('train', 'valid', 'test'))}


def _cover(facts: np.ndarray, order: np.ndarray) -> np.ndarray:
    r"""Positions of few facts that together name every entity and every relation."""
    num_entities = int(facts[:, [0, 2]].max()) + 1
    symbols = np.stack([facts[:, 0], facts[:, 2], facts[:, 1] + num_entities], axis=1)
    cover = order[_first_occurrences(symbols[order])]
    # Backwards, what later facts of the cover name too is no longer needed: a sixth of the cover, typically.
    return cover[::-1][_first_occurrences(symbols[cover[::-1]])]


def _first_occurrences(symbols: np.ndarray) -> np.ndarray:
    r"""Rows in which some symbol occurs for the first time, in order."""
    _, first = np.unique(symbols.ravel(), return_index=True)
    return np.unique(first // symbols.shape[1])


def _apportion(rest: int, shares: tuple[float, float, float], total: int) -> tuple[int, int]:
    valid = min(round(shares[1] * total), rest)
    return valid, min(round(shares[2] * total), rest - valid)


def _validated(fractions: Sequence[float]) -> tuple[float, float, float]:
    shares = tuple(float(fraction) for fraction in fractions)
    if len(shares) != 3 or not all(0.0 <= share <= 1.0 for share in shares) or abs(sum(shares) - 1.0) > 1e-6:
        raise ArgumentError(f'fractions must be three shares (train, valid, test) in [0, 1] with a sum of 1, got '
                            f'{tuple(fractions)!r}')
    if shares[0] == 0.0:
        raise ArgumentError(f'fractions must leave something to train on, got {tuple(fractions)!r}')
    return shares[0], shares[1], shares[2]


def _warn_if_short(shares: tuple[float, float, float], asked: tuple[int, int], granted: tuple[int, int], total: int,
                   needed: int) -> None:
    empty = any(share > 0 and count == 0 for share, count in zip(shares[1:], granted))
    if granted != asked:
        warnings.warn(f'the fractions ask for {asked[0]} validation and {asked[1]} test facts of {total}, but {needed} '
                      f'facts stay in training so that each entity and relation occurs there; validation gets '
                      f'{granted[0]} and test {granted[1]}', DataWarning, stacklevel=4)
    elif empty:
        warnings.warn(f'{total} distinct facts are too few for fractions {shares}: validation gets {granted[0]} and '
                      f'test {granted[1]}', DataWarning, stacklevel=4)
