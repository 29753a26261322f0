r"""Facts without a split to train, valid and test, such that train has every entity and relation of the others."""
from __future__ import annotations

import math
from typing import Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import is_number, random_seed
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn

#: What a single file or table is split into unless told otherwise.
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)


def split_facts(
    facts: np.ndarray,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    r"""Splits facts at random, keeping for training at least one fact of each entity and each relation.

    A fact, its copies and its reverse :math:`(t, r, h)` stay together, so that no test fact is a training fact in
    either direction; the fractions are of distinct facts. The order of the facts within a split is the one they came
    in.

    .. note::
        Where so many entities occur only once that the fractions cannot be met, as many facts go to validation and test
        as can be spared, in the same proportion, with a :class:`~pyg_emu.core.errors.DataWarning` that says how many.

    Args:
        facts (numpy.ndarray): Heads, relations and tails, and columns that go with them. shape: :obj:`(F, 3 + n)`,
            int64.
        fractions (sequence of float, optional): Shares of train, valid and test; their sum is one.
            (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int, optional): The same seed gives the same split. (default: :obj:`0`)

    Raises:
        ArgumentError: If the fractions are not three shares with a sum of one, or leave nothing to train on, or if
            :obj:`seed` is not an integer in :obj:`[0, 2^63)`.
        DataError: If there are no facts.
    """
    shares = _validated(fractions)
    seed = random_seed('seed', seed)
    if len(facts) == 0:
        raise DataError('there are no facts to split; expected at least one')
    # What follows chooses among groups: a fact, its copies and its reverse, which name the same entities and relation.
    group = _numbered(np.sort(facts[:, [0, 2]], axis=1), facts[:, 1])
    _, first = np.unique(group, return_index=True)
    distinct = facts[first]
    forward = np.zeros(len(distinct), dtype=bool)
    forward[group[facts[:, 0] <= facts[:, 2]]] = True
    backward = np.zeros(len(distinct), dtype=bool)
    backward[group[facts[:, 0] > facts[:, 2]]] = True
    size = forward.astype(np.int64) + backward
    total = int(size.sum())
    order = np.random.default_rng(seed).permutation(len(distinct))
    needed = np.zeros(len(distinct), dtype=bool)
    needed[_cover(distinct, order)] = True

    spare = order[~needed[order]]
    # Nearest whole numbers whose sum leaves train at least its own, rounded down.
    asked = _apportion(total - math.floor(shares[0] * total + 1e-9), shares, total)
    wanted, spared = asked, int(size[spare].sum())
    if sum(asked) > spared:
        valid = round(spared * asked[0] / sum(asked))
        wanted = (valid, spared - valid)
    split = np.zeros(len(distinct), dtype=np.int8)
    for code, count in enumerate(wanted, start=1):
        chosen = _take(size[spare], count)
        split[spare[chosen]] = code
        spare = spare[~chosen]
    granted = (int(size[split == 1].sum()), int(size[split == 2].sum()))
    _warn_if_short(shares, asked, granted, total, int(size[needed].sum()))
    each = split[group]
    return {name: facts[each == code] for code, name in enumerate(('train', 'valid', 'test'))}


def _numbered(ends: np.ndarray, relation: np.ndarray) -> np.ndarray:
    r"""A number for each row, equal for equal rows, by first occurrence."""
    return pd.DataFrame({0: ends[:, 0], 1: relation, 2: ends[:, 1]}).groupby([0, 1, 2], sort=False).ngroup().to_numpy()


def _take(size: np.ndarray, count: int) -> np.ndarray:
    r"""The first groups, of one or two facts each, that together have :obj:`count` facts, or one less where only pairs
    are left.
    """
    chosen = np.cumsum(size) <= count
    single = ~chosen & (size == 1)
    if size[chosen].sum() < count and single.any():
        chosen[single.argmax()] = True
    return chosen


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
    given = list(fractions) if isinstance(fractions, (Sequence, np.ndarray)) and not isinstance(fractions, str) else []
    shares = tuple(float(share) for share in given if is_number(share))
    if len(given) != 3 or len(shares) != 3 or not all(0.0 <= share <= 1.0 for share in shares) or (
            abs(sum(shares) - 1.0) > 1e-6):
        raise ArgumentError(f'fractions: expected three shares (train, valid, test) in [0, 1] with a sum of 1, got '
                            f'{fractions!r}')
    if shares[0] == 0.0:
        raise ArgumentError(f'fractions: expected a positive share to train on, got {fractions!r}')
    return shares[0], shares[1], shares[2]


def _warn_if_short(shares: tuple[float, float, float], asked: tuple[int, int], granted: tuple[int, int], total: int,
                   needed: int) -> None:
    empty = any(share > 0 and count == 0 for share, count in zip(shares[1:], granted))
    # A share may be one fact short where it would part a fact from its reverse: no reason for a warning.
    if sum(asked) > total - needed:
        warn(f'the fractions ask for {asked[0]} validation and {asked[1]} test facts of {total}, but {needed} '
             f'facts stay in training so that each entity and relation occurs there; validation gets '
             f'{granted[0]} and test {granted[1]}', DataWarning)
    elif empty:
        warn(f'{total} distinct facts are too few for fractions {shares}: validation gets {granted[0]} and '
             f'test {granted[1]}', DataWarning)
