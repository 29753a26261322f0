r"""Which data a run was trained on, and how other data with the same relations is read."""
from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import torch

from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError, DataWarning
from pyg_emu.core.files import read_bytes
from pyg_emu.core.warn import warn
from pyg_emu.data.alignment import aligned
from pyg_emu.data.fingerprints import entities_fingerprint, facts_entry, facts_fingerprint, text_fingerprint
from pyg_emu.data.graph import SPLITS, KGData, Split
from pyg_emu.data.io.datasets import is_published, load_dataset, reader_options


@dataclass(frozen=True)
class TrainedOn:
    r"""The description of the data in a run folder: enough to recognise it and to read other graphs with the same
    relations.

    Args:
        relations (list of str, optional): The labels of the relations, in the order of their ids.
        entities (str): A fingerprint of the entities and their order.
        facts (dict, optional): The number and a fingerprint of the facts of each split, and of :obj:`"all"`. The order
            of the facts does not matter. (default: :obj:`None`, for folders of earlier versions)
        num_nodes (int, optional): The number of entities. (default: :obj:`None`, likewise)
        num_relations (int, optional): The number of relations. (default: :obj:`None`, likewise)
        entity_labels (list of str, optional): The labels of the entities, in the order of their ids. (default:
            :obj:`None`, without labels, or likewise)
        source (str or dict, optional): The dataset in the recipe that the run was begun with, which marks its
            checkpoints. The data may have moved since. (default: :obj:`None`, likewise)
    """
    relations: Optional[list[str]]
    entities: str
    facts: Optional[dict[str, dict[str, Any]]] = None
    num_nodes: Optional[int] = None
    num_relations: Optional[int] = None
    entity_labels: Optional[list[str]] = None
    source: Optional[Union[str, dict[str, Any]]] = None

    @classmethod
    def of(cls, data: KGData, source: Optional[Union[str, dict[str, Any]]] = None) -> TrainedOn:
        r"""The description of :obj:`data`.

        Args:
            data (KGData): The data.
            source (str or dict, optional): See above. (default: :obj:`None`)
        """
        splits: tuple[Split, ...] = (*SPLITS, 'all')
        facts = {str(split): facts_entry(data, split) for split in splits}
        return cls(data.relation_labels, entities_fingerprint(data), facts, data.num_nodes, data.num_relations,
                   data.entity_labels, source)

    @classmethod
    def read(cls, path: Path) -> Optional[TrainedOn]:
        r"""Reads a file; returns :obj:`None` if it does not exist.

        Raises:
            CheckpointError: If it cannot be read.
        """
        if not path.exists():
            return None
        try:
            found = cls(**json.loads(read_bytes(path).decode()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f'{path} cannot be read ({error}); expected the relations of a run, as pyg-emu train '
                                  'writes them') from error
        fault = found._fault()
        if fault is not None:
            raise CheckpointError(f'{path}: {fault}; expected what pyg-emu train writes')
        return found

    def _fault(self) -> Optional[str]:
        r"""Returns what is wrong with the content of a file, or :obj:`None`."""
        if not (self.relations is None or (isinstance(self.relations, list)
                                           and all(isinstance(label, str) for label in self.relations)
                                           and len(set(self.relations)) == len(self.relations))):
            return 'relations is not a list of distinct labels'
        if not isinstance(self.entities, str):
            return f'entities is not a fingerprint, but {self.entities!r:.50}'
        for name in ('num_nodes', 'num_relations'):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 <= value < 2**62):
                return f'{name} is not a number of at least 0, but {value!r:.50}'
        if self.entity_labels is not None:
            labels = self.entity_labels
            if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
                return 'entity_labels is not a list of labels'
            if text_fingerprint(json.dumps(self.entity_labels)) != self.entities:
                return 'entity_labels are not the labels that entities is the fingerprint of'
        if self.relations is not None and self.num_relations not in (None, len(self.relations)):
            return f'relations holds {len(self.relations)} labels, but num_relations is {self.num_relations}'
        if not isinstance(self.source, (str, dict, type(None))):
            return f'source is not a dataset, but {self.source!r:.50}'
        if self.facts is None:
            return None
        if not isinstance(self.facts, dict):
            return f'facts is not an object with an entry for each split, but {self.facts!r:.50}'
        for split in (*SPLITS, 'all'):
            entry = self.facts.get(split)
            if not (isinstance(entry, dict) and type(entry.get('number')) is int
                    and isinstance(entry.get('fingerprint'), str)):
                return f'facts.{split} does not hold the number of facts and their fingerprint, but {entry!r:.50}'
        return None

    def to_dict(self) -> dict[str, Any]:
        r"""Returns plain values."""
        return asdict(self)

    def is_of(self, data: KGData) -> bool:
        r"""Returns :obj:`True` if :obj:`data` has the same entities."""
        return entities_fingerprint(data) == self.entities

    def changed_splits(self, data: KGData) -> list[str]:
        r"""Returns descriptions of the splits whose facts differ from those of the run, if it knows its facts."""
        if self.facts is None:
            return []
        now = TrainedOn.of(data).facts or {}
        return [f'{split} ({now[split]["number"]} facts, the run had {self.facts[split]["number"]})'
                for split in SPLITS if now[split] != self.facts[split]]

    def check_same(self, data: KGData) -> None:
        r"""Checks that the facts of each split are those of the run.

        Raises:
            ArgumentError: If a split differs; names the splits.
        """
        changed = self.changed_splits(data)
        if changed:
            raise ArgumentError(f'data: its facts are not those that the run was started with; the differences are in '
                                f'{", ".join(changed)}; continue with the same data, or start a new run')

    def without_facts(self) -> Optional[KGData]:
        r"""Returns the entities and relations of the run, and no facts; :obj:`None` for folders of earlier versions."""
        if self.num_nodes is None or self.num_relations is None:
            return None
        empty = torch.empty(2, 0, dtype=torch.int64)
        return KGData(empty, empty[0], self.num_nodes, self.num_relations, entity_labels=self.entity_labels,
                      relation_labels=self.relations)

    def with_own_ids(self, data: KGData) -> KGData:
        r"""Returns data whose entities and relations have the ids of the run, by their labels: the data as it is, if it
        has other labels, or none, or if the run is of an earlier version.
        """
        if self.num_nodes is None or self.num_relations is None or (
                self.is_of(data) and self.relations == data.relation_labels):
            return data
        if (data.entity_labels is None) != (self.entity_labels is None) or (
                (data.relation_labels is None) != (self.relations is None)):
            return data
        found = aligned(data, self.num_nodes if self.entity_labels is None else self.entity_labels,
                        self.num_relations if self.relations is None else self.relations)
        return data if found.entities.new or found.relations.new else found.data

    def check_split(self, data: KGData, other_facts: bool = False) -> None:
        r"""Refuses another split of the facts of the run, in which facts that were trained on would be ranked, and
        other facts about the same entities.

        Args:
            data (KGData): The data.
            other_facts (bool, optional): Whether to warn of other facts instead of refusing them. (default:
                :obj:`False`)

        Raises:
            ArgumentError: If the facts of the run are split otherwise, or are others.
        """
        changed = self.changed_splits(data)
        if not changed or not self.is_of(data):
            return
        assert self.facts is not None
        if facts_fingerprint(data, 'all') == self.facts['all']['fingerprint']:
            raise ArgumentError(f'data: its facts are those of the run in another split, so that facts which were '
                                f'trained on would be ranked; the differences are in {", ".join(changed)}; read it '
                                'with the seed and the fractions in recipe.yaml of the run, or from its split files')
        told = (f'data: it has the entities of the run, but other facts; the differences are in {", ".join(changed)}; '
                'facts that the run was trained on may be among those that are ranked')
        if not other_facts:
            raise ArgumentError(f'{told}; to rank them nevertheless, pass other_facts=True')
        warn(told, DataWarning)

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
        found = self._other_relations(data)
        if found is not None:
            raise ArgumentError(f'data: {found}; give its name or its path instead, which is then read with the '
                                'relation ids of the run')

    def _other_relations(self, data: KGData) -> Optional[str]:
        if self.relations is None or data.relation_labels is None:
            return None
        for number, (ours, theirs) in enumerate(zip(self.relations, data.relation_labels)):
            if ours != theirs:
                return f'its relation {number} is {theirs!r}, but the model was trained with {ours!r}'
        if len(self.relations) != len(data.relation_labels):
            return (f'it has {len(data.relation_labels)} relations, but the model was trained with '
                    f'{len(self.relations)}')
        return None

    def other_ids(self, data: KGData, entities: bool = True) -> Optional[str]:
        r"""Says which ids of the data are not those of the run, or returns :obj:`None`.

        Args:
            data (KGData): The data.
            entities (bool, optional): Whether those of entities are compared, too. (default: :obj:`True`)
        """
        found = self._other_relations(data)
        if found is None and entities and self._has_other_entities(data):
            found = f'its {data.num_nodes} entities are not those of the run, or not in the same order'
        return found

    def _has_other_entities(self, data: KGData) -> bool:
        # Without labels on either side, numbers are all there is, and the model's size is compared with the data's.
        return None not in (self.relations, data.entity_labels) and not self.is_of(data)

    def check_entities(self, data: KGData, trained: Optional[KGData] = None) -> None:
        r"""Refuses data with other entities, or with the same in another order, for models with a vector for each.

        Args:
            data (KGData): The data.
            trained (KGData, optional): The data of the run, to name an entity that is new. (default: :obj:`None`)

        Raises:
            ArgumentError: If it has.
        """
        if not self._has_other_entities(data):
            return
        if trained is not None and trained.entity_labels is not None and data.entity_labels is not None:
            known = set(trained.entity_labels)
            new = [label for label in data.entity_labels if label not in known]
            if new:
                raise ArgumentError(f'data: the model has no vector for {len(new)} of its entities, such as '
                                    f'{new[0]!r}; leave out the facts about them, or train a model that reads a graph '
                                    '(NBFNet)')
        raise ArgumentError(f'data: its {data.num_nodes} entities are not those that the model has vectors for, or not '
                            'in the same order; give its name or its path, or load it with load_dataset(..., '
                            'entities=data_that_was_trained_on), and leave out facts about other entities')

    def load_like(self, source: Union[str, Mapping[str, Any]], recorded: Union[str, Mapping[str, Any]]
                  ) -> tuple[KGData, Optional[KGData]]:
        r"""Reads a dataset whose entities and relations get the ids that they have in the data of the run.

        Args:
            source (str or dict): As in a recipe.
            recorded (str or dict): The source in the recipe of the run.

        Returns:
            The data, and the data of the run, or :obj:`None` where it was not needed or is no longer there.
        """
        data = self.with_own_ids(self.load(source))
        if self.is_of(data) or data.entity_labels is None:
            return data, None
        if self.entity_labels is not None:
            return data, self.without_facts()
        if source == recorded:
            return data, None
        try:
            trained = self.load(recorded)
        except DataError:
            return data, None
        if trained.entity_labels is None or not self.is_of(trained):
            return data, None
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DataWarning)  # of new entities, for which there will be an error
            return load_source(source, entities=trained), trained


def merged_source(given: Optional[Union[str, Mapping[str, Any]]], recorded: Union[str, Mapping[str, Any]],
                  whole: bool = False) -> Union[str, dict[str, Any]]:
    r"""The source to read, with the options that a run was trained with, as far as they apply to it.

    Args:
        given (str or dict, optional): A name, a path, or options with or without a :obj:`source`, which come before
            those of the run.
        recorded (str or dict): The source in the recipe of the run.
        whole (bool, optional): Whether all facts of a source that was given are known facts: a file is not split, and a
            folder needs no other file than train.txt. (default: :obj:`False`)
    """
    before = {'source': recorded} if isinstance(recorded, str) else dict(recorded)
    own = {} if given is None else {'source': given} if isinstance(given, str) else dict(given)
    if 'source' not in own:
        merged = {**before, **own}
    else:
        applicable = {'root'} if is_published(own['source']) else reader_options(own['source'], own)
        # What another source is, it says itself.
        merged = {**{key: value for key, value in before.items() if key in applicable and key != 'format'}, **own}
        if whole and 'fractions' in applicable:
            merged.pop('seed', None)
            if 'split' not in merged:
                merged = {**merged, 'fractions': own.get('fractions', (1.0, 0.0, 0.0))}
        elif whole and 'require_splits' in applicable:
            merged = {**merged, 'require_splits': own.get('require_splits', ('train', ))}
    return merged['source'] if len(merged) == 1 else merged


def load_source(source: Union[str, Mapping[str, Any]], **options: Any) -> KGData:
    r"""Reads what a recipe names: a name, a path, or a mapping of :obj:`source` and options."""
    if isinstance(source, str):
        return load_dataset(source, **options)
    rest = {key: value for key, value in source.items() if key != 'source'}
    return load_dataset(source['source'], **rest, **options)


def source_name(source: Union[str, Mapping[str, Any]]) -> str:
    r"""The name of what a recipe names, for tables."""
    return Path(source if isinstance(source, str) else source['source']).name
