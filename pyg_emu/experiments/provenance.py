r"""Which data a run was trained on, and how other data with the same relations is read."""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import torch

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.datasets import load_dataset


@dataclass(frozen=True)
class TrainedOn:
    r"""What of the data a run folder remembers: enough to read other graphs with the same relations.

    Args:
        relations (list of str, optional): The labels of the relations, in the order of their ids.
        entities (str): A fingerprint of the entities, which tells whether a graph is another one.
    """
    relations: Optional[list[str]]
    entities: str

    @classmethod
    def of(cls, data: KGData) -> TrainedOn:
        r"""What is to be remembered of :obj:`data`."""
        labels = data.entity_labels
        text = str(data.num_nodes) if labels is None else json.dumps(labels)
        return cls(data.relation_labels, hashlib.sha256(text.encode()).hexdigest()[:16])

    @classmethod
    def read(cls, path: Path) -> Optional[TrainedOn]:
        r"""What was written to a file, or :obj:`None` if there is none.

        Raises:
            CheckpointError: If it cannot be read.
        """
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding='utf-8')))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f'{path} cannot be read ({error}); expected the relations of a run, as pyg-emu train '
                                  'writes them') from error

    def to_dict(self) -> dict[str, Any]:
        r"""As plain values."""
        return asdict(self)

    def is_of(self, data: KGData) -> bool:
        r"""Whether :obj:`data` has the same entities."""
        return TrainedOn.of(data).entities == self.entities

    def load(self, source: Union[str, Mapping[str, Any]]) -> KGData:
        r"""Reads a dataset whose relations get the ids that they have here.

        Args:
            source (str or dict): As in a recipe.

        Raises:
            DataError: If it cannot be read, or has a relation that is not known here; names file and line.
        """
        if self.relations is None:
            return load_source(source)
        empty = torch.empty(2, 0, dtype=torch.int64)
        vocabulary = KGData(empty, empty[0], num_nodes=0, relation_labels=self.relations)
        return load_source(source, vocabulary=vocabulary)

    def check(self, data: KGData) -> None:
        r"""Refuses data whose relations have other ids.

        Raises:
            ArgumentError: If they have.
        """
        if self.relations is None or data.relation_labels is None:
            return
        for number, (ours, theirs) in enumerate(zip(self.relations, data.relation_labels)):
            if ours != theirs:
                raise ArgumentError(f'data: its relation {number} is {theirs!r}, and the model was trained with '
                                    f'{ours!r}; load it with load_dataset(..., vocabulary=data_that_was_trained_on)')
        if len(self.relations) != len(data.relation_labels):
            raise ArgumentError(f'data: it has {len(data.relation_labels)} relations, and the model was trained with '
                                f'{len(self.relations)}; load it with load_dataset(..., '
                                'vocabulary=data_that_was_trained_on)')

    def check_entities(self, data: KGData) -> None:
        r"""Refuses data with other entities, or with the same in another order, for models with a vector for each.

        Raises:
            ArgumentError: If it has.
        """
        # Without labels on either side, numbers are all there is, and the model's size is compared with the data's.
        if None not in (self.relations, data.entity_labels) and not self.is_of(data):
            raise ArgumentError(f'data: its {data.num_nodes} entities are not those that the model has vectors for, or '
                                'not in their order; give the data that it was trained on, or load facts about the '
                                'same entities with load_dataset(..., vocabulary=data_that_was_trained_on)')


def load_source(source: Union[str, Mapping[str, Any]], **options: Any) -> KGData:
    r"""Reads what a recipe names: a name, a path, or a mapping of :obj:`source` and options."""
    if isinstance(source, str):
        return load_dataset(source, **options)
    rest = {key: value for key, value in source.items() if key != 'source'}
    return load_dataset(source['source'], **rest, **options)


def source_name(source: Union[str, Mapping[str, Any]]) -> str:
    r"""The name of what a recipe names, for tables."""
    return Path(source if isinstance(source, str) else source['source']).name
