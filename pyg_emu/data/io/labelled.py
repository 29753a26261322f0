r"""Labelled facts as readers return them: labels, the place of each fact for messages, and its split if it has one."""
from __future__ import annotations

from typing import Callable, NamedTuple, Optional

import numpy as np

from pyg_emu.core.errors import DataError
from pyg_emu.data.graph import SPLITS
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.readers import unknown_relation
from pyg_emu.data.io.splits import SPLIT_NAMES
from pyg_emu.data.io.weights import weight_numbers


class LabelledFacts(NamedTuple):
    r"""Facts of one source.

    Args:
        columns (list of numpy.ndarray): Labels of the heads, relations and tails, arrays of strings of one length.
        place (callable): Describes where a label is: from the row and :obj:`"head"`, :obj:`"relation"`,
            :obj:`"tail"`, :obj:`"split"` or :obj:`"weights"` to a text such as :obj:`"facts.tsv:7"`.
        split (numpy.ndarray, optional): The split of each fact, as the source writes it. (default: :obj:`None`)
        weights (numpy.ndarray, optional): The weight of each fact, as the source writes it. (default: :obj:`None`)
    """
    columns: list[np.ndarray]
    place: Callable[[int, str], str]
    split: Optional[np.ndarray] = None
    weights: Optional[np.ndarray] = None

    def add_to(self, collector: Collector, split: str) -> None:
        r"""Adds the facts to a graph.

        Args:
            collector (Collector): Gathers the graph.
            split (str): The split of the facts, if the source does not name one.

        Raises:
            DataError: If a relation is not allowed, the source names something else than a split, or a weight is no
                finite number above 0; names the place.
        """
        weights = None if self.weights is None else weight_numbers(self.weights, lambda row: self.place(row, 'weights'))
        if self.split is None:
            self._add(collector, split, self.columns, None)
            if weights is not None:
                collector.add_weights(split, weights)
            return
        for name, mask in self._masks(self.split).items():
            self._add(collector, name, [column[mask] for column in self.columns], mask)
            if weights is not None:
                collector.add_weights(name, weights[mask])

    def _add(self, collector: Collector, split: str, columns: list[np.ndarray], mask: Optional[np.ndarray]) -> None:
        bad = collector.add(split, columns)
        if bad is not None:
            row = bad if mask is None else int(np.flatnonzero(mask)[bad])
            raise DataError(f'{self.place(row, "relation")}: '
                            f'{unknown_relation(self.columns[1][row], collector.relation_labels)}')

    def _masks(self, given: np.ndarray) -> dict[str, np.ndarray]:
        masks = {name: np.isin(given, aliases) for name, aliases in SPLIT_NAMES.items()}
        stray = ~np.logical_or.reduce(list(masks.values()))
        if stray.any():
            row = int(stray.argmax())
            raise DataError(f'{self.place(row, "split")}: {given[row]!r} is not a split; expected one of {SPLITS}')
        if not masks['train'].any():
            raise DataError(f"{self.place(0, 'split')}: no fact has the split 'train'; expected at least one to train "
                            'on')
        return masks
