r"""Facts that come as ids beside dictionaries of labels, as the folders of other libraries hold them."""
from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.errors import DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.collector import Collector, assemble
from pyg_emu.data.io.readers import unknown_relation


class NumberedFacts(NamedTuple):
    r"""Facts as ids.

    Args:
        facts (dict): Heads, relations and tails by split. shape: :obj:`(F, 3)`, int64.
        entities (list of str): The labels of the entities, in the order of their ids.
        relations (list of str): The labels of the relations.
    """
    facts: dict[str, np.ndarray]
    entities: list[str]
    relations: list[str]

    def to_graph(self, folder: Path, vocabulary: Optional[KGData], entities: Optional[KGData]) -> KGData:
        r"""The checked graph. It keeps the ids, unless it shares those of another graph.

        Args:
            folder (Path): Where the facts are, for messages.
            vocabulary (KGData, optional): See :func:`~pyg_emu.data.io.files.from_folder`.
            entities (KGData, optional): Likewise.

        Raises:
            DataError: If a relation is not one of those to share.
        """
        if vocabulary is None and entities is None:
            return assemble(self.facts, len(self.entities), len(self.relations), self.entities, self.relations)
        collector = Collector(vocabulary, entities)
        names = [np.array(labels, dtype=object) for labels in (self.entities, self.relations)]
        for split, facts in self.facts.items():
            bad = collector.add(split, [names[0][facts[:, 0]], names[1][facts[:, 1]], names[0][facts[:, 2]]])
            if bad is not None:
                told = unknown_relation(names[1][facts[bad, 1]], collector.relation_labels)
                raise DataError(f'{folder}, fact {bad} of {split}: {told}')
        used = np.unique(np.concatenate([facts[:, [0, 2]].ravel() for facts in self.facts.values()]))
        if len(used) < len(self.entities):
            warn(f'{folder}: {len(self.entities) - len(used)} of {len(self.entities)} entities are in no fact '
                 'and are left out', DataWarning)
        return collector.finish()


def labels_by_id(ids: Any, labels: Sequence[str], place: str) -> list[str]:
    r"""Labels in the order of their ids.

    Args:
        ids (array of int): The id of each label.
        labels (sequence of str): The labels.
        place (str): Where they are, for messages.

    Raises:
        DataError: If the ids are not those from 0 on, each once, or a label is empty or occurs twice.
    """
    numbers = np.asarray(ids, dtype=np.int64)
    names = pd.Series(labels, dtype=object)
    order = np.argsort(numbers, kind='stable')
    wrong = numbers[order] != np.arange(len(numbers))
    if wrong.any():
        position = int(wrong.argmax())
        raise DataError(f'{place}: expected the ids 0 to {len(numbers) - 1}, each once, got {numbers[order][position]} '
                        f'where {position} should be')
    if not names.is_unique:
        repeated = names[names.duplicated()].iloc[0]
        raise DataError(f'{place}: two ids have the label {repeated!r}; expected distinct labels')
    empty = (names == '').to_numpy()
    if empty.any():
        raise DataError(f'{place}: the label of the id {numbers[int(empty.argmax())]} is empty')
    return names.to_numpy()[order].tolist()


def check_ids(facts: np.ndarray, num_entities: int, num_relations: int, place: Any) -> None:
    r"""Checks that ids have labels.

    Args:
        facts (numpy.ndarray): Heads, relations and tails. shape: :obj:`(F, 3)`
        num_entities (int): The number of entities.
        num_relations (int): The number of relations.
        place (callable): Describes where a row is.

    Raises:
        DataError: If one has none; names the place.
    """
    limits = np.array([num_entities, num_relations, num_entities])
    wrong = (facts < 0) | (facts >= limits)
    if wrong.any():
        row, column = (int(index[0]) for index in np.nonzero(wrong))
        role, kind = (('head', 'entities'), ('relation', 'relations'), ('tail', 'entities'))[column]
        raise DataError(f'{place(row)}: the {role} is {facts[row, column]}, but there are {limits[column]} {kind} with '
                        f'the ids from 0 on')
