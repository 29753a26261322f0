r"""Labels to ids, column by column, with no Python loop over facts."""
from __future__ import annotations

from collections import defaultdict
from itertools import repeat
from typing import Collection, Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.errors import DataError


class Vocabulary:
    r"""Collects labels and numbers them.

    Ids follow the order of the labels by code point, not that of the lines: the same facts get the same ids however
    their files are ordered or split. (PyKEEN numbers labels in the same way.) Labels that are given keep their
    positions as ids, and others come after them. Labels can be added in any number of pieces: a piece costs time in
    proportion to its own size.

    Args:
        labels (sequence of str, optional): Labels whose positions are their ids. (default: :obj:`None`)
        closed (bool, optional): Whether these are the only labels allowed. (default: :obj:`False`)

    Raises:
        DataError: If a given label is repeated.
    """
    def __init__(self, labels: Optional[Sequence[str]] = None, closed: bool = False) -> None:
        self.closed = closed
        given = [] if labels is None else list(labels)
        # Provisional ids, in the order of first occurrence. A new label gets the number of labels before it.
        self._ids: defaultdict[str, int] = defaultdict(None, zip(given, range(len(given))))
        self._ids.default_factory = self._ids.__len__
        self._num_given = len(given)
        if len(self._ids) != len(given):
            repeated = next(label for number, label in enumerate(given) if self._ids[label] != number)
            raise DataError(f'a vocabulary needs distinct labels, but {repeated!r} occurs more than once')

    def add(self, *columns: np.ndarray) -> list[np.ndarray]:
        r"""Provisional ids of each column of labels, to be passed to :meth:`finish`; -1 for labels not allowed."""
        sizes = [len(column) for column in columns]
        codes, found = pd.factorize(np.concatenate(columns) if len(columns) > 1 else columns[0])
        return np.split(self.number(found)[codes], np.cumsum(sizes)[:-1])

    def number(self, labels: Collection[str]) -> np.ndarray:
        r"""Provisional ids of some labels. shape: :obj:`(len(labels),)`, int32."""
        found = map(self._ids.get, labels, repeat(-1)) if self.closed else map(self._ids.__getitem__, labels)
        # int32 halves what millions of facts need until they are done; no vocabulary comes near 2^31 labels.
        return np.fromiter(found, np.int32, len(labels))

    def finish(self) -> tuple[list[str], np.ndarray]:
        r"""The labels in the order of their ids, and the id of each provisional one."""
        labels = list(self._ids)
        labels[self._num_given:] = sorted(labels[self._num_given:])
        ids = np.empty(len(labels), dtype=np.int64)
        ids[np.fromiter(map(self._ids.__getitem__, labels), np.int64, len(labels))] = np.arange(len(labels))
        return labels, ids
