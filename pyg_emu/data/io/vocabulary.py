r"""Labels to ids, column by column, with no Python loop over facts."""
from __future__ import annotations

from typing import Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.errors import DataError


class Vocabulary:
    r"""Collects labels and numbers them.

    Ids follow the order of the labels by code point, not that of the lines: the same facts get the same ids however
    their files are ordered or split. (PyKEEN numbers labels in the same way.) Labels that are given keep their
    positions as ids, and others come after them.

    Args:
        labels (sequence of str, optional): Labels whose positions are their ids. (default: :obj:`None`)
        closed (bool): Whether these are the only labels allowed. (default: :obj:`False`)

    Raises:
        DataError: If a given label is repeated.
    """
    def __init__(self, labels: Optional[Sequence[str]] = None, closed: bool = False) -> None:
        self.closed = closed
        self._labels = pd.Index([] if labels is None else list(labels), dtype=object)
        self._num_given = len(self._labels)
        if not self._labels.is_unique:
            repeated = self._labels[self._labels.duplicated()][0]
            raise DataError(f'a vocabulary needs distinct labels, but {repeated!r} occurs more than once')

    def add(self, *columns: np.ndarray) -> list[np.ndarray]:
        r"""Provisional ids of each column of labels, to be passed to :meth:`finish`; -1 for labels not allowed."""
        sizes = [len(column) for column in columns]
        codes, found = pd.factorize(np.concatenate(columns) if len(columns) > 1 else columns[0])
        known = pd.Index(found, dtype=object)
        ids = self._labels.get_indexer(known)
        if not self.closed:
            new = ids < 0
            ids[new] = np.arange(len(self._labels), len(self._labels) + new.sum())
            self._labels = self._labels.append(known[new])
        # int32 halves what millions of facts need until they are done; no vocabulary comes near 2^31 labels.
        return np.split(ids.astype(np.int32)[codes], np.cumsum(sizes)[:-1])

    def finish(self) -> tuple[list[str], np.ndarray]:
        r"""The labels in the order of their ids, and the id of each provisional one."""
        labels = self._labels.to_numpy(dtype=object)
        new = np.argsort(labels[self._num_given:], kind='stable') + self._num_given
        order = np.concatenate([np.arange(self._num_given), new])
        ids = np.empty(len(labels), dtype=np.int64)
        ids[order] = np.arange(len(labels))
        return labels[order].tolist(), ids
