r"""What can be wrong with the facts of a :class:`~pyg_emu.KGData`, said in one sentence each."""
from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING, Any, Optional, Sequence

import torch
from torch import Tensor

from pyg_emu.core.errors import DataError

if TYPE_CHECKING:
    from pyg_emu.data.graph import KGData, Split

_PREFIX = {'train': '', 'valid': 'valid_', 'test': 'test_'}
# The search for the nearest label compares with every candidate.
_MAX_SUGGESTION_LABELS = 20_000


def check_data(data: KGData) -> None:
    r"""Raises a :class:`~pyg_emu.core.errors.DataError` that names the attribute and the column of what cannot be
    used."""
    for name in ('edge_index', 'edge_type'):
        if data._store.get(name) is not None:
            _check_tensor(name, data._store.get(name))
    for name in ('num_nodes', 'num_relations'):
        value = data._store.get(name)
        if value is None:
            raise DataError(f'{name} is not set and cannot be inferred: the graph is empty; expected an edge_index of '
                            'shape (2, F) and an edge_type of shape (F,) with at least one training fact')
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f'{name} has to be a positive integer, got {value!r}')
    for split, prefix in _PREFIX.items():
        num_types = data.num_edge_types if split == 'train' else data.num_relations
        _check_split(data, f'{prefix}edge_index', f'{prefix}edge_type', data.num_nodes, num_types)
    edge_type = data.edge_type
    if edge_type is None or edge_type.numel() == 0:
        raise DataError('edge_index has no columns: a graph needs at least one training fact')
    if data.has_inverse_relations:
        num_inverse = int((edge_type >= data.num_relations).sum())
        if 2 * num_inverse != edge_type.numel():
            raise DataError(f'has_inverse_relations is set, but {num_inverse} of the {edge_type.numel()} edges are of '
                            f'an inverse type ({data.num_relations} and above); it has to be half of them')
    _check_labels('entity_labels', data.entity_labels, 'num_nodes', data.num_nodes)
    _check_labels('relation_labels', data.relation_labels, 'num_relations', data.num_relations)


def _check_split(data: KGData, index_name: str, type_name: str, num_nodes: int, num_types: int) -> None:
    edge_index, edge_type = data._store.get(index_name), data._store.get(type_name)
    if edge_index is None and edge_type is None:
        return
    if edge_index is None or edge_type is None:
        present, missing = (type_name, index_name) if edge_index is None else (index_name, type_name)
        raise DataError(f'{present} is set but {missing} is missing')
    for name, value in ((index_name, edge_index), (type_name, edge_type)):
        _check_tensor(name, value)
        if value.dtype != torch.int64:
            raise DataError(f'{name} has to be int64, got {value.dtype}; use {name}.long()')
        if value.device != data.device:
            raise DataError(f'{name} is on {value.device}, other facts are on {data.device}; use data.to(device)')
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise DataError(f'{index_name} has to be of shape (2, F), got {tuple(edge_index.shape)}')
    if edge_type.dim() != 1 or edge_type.numel() != edge_index.size(1):
        raise DataError(f'{type_name} has to be of shape ({edge_index.size(1)},), one for each column of {index_name}, '
                        f'got {tuple(edge_type.shape)}')
    if edge_type.numel() == 0:
        return
    for row, end in enumerate(('head', 'tail')):
        _check_range(edge_index[row], f'{index_name}[{row}]', end, num_nodes, 'num_nodes')
    sizes = 'num_relations' if num_types == data.num_relations else '2 * num_relations'
    _check_range(edge_type, type_name, 'relation', num_types, sizes)


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise DataError(f'{name} has to be a tensor, got {type(value).__name__}; use torch.as_tensor({name})')


def _check_range(ids: Tensor, name: str, what: str, limit: int, limit_name: str) -> None:
    low, high = (int(value) for value in torch.aminmax(ids))
    if low < 0 or high >= limit:
        column = int(((ids < 0) | (ids >= limit)).nonzero()[0])
        raise DataError(f'{name}, column {column}: {what} id {int(ids[column])} is outside of [0, {limit - 1}] '
                        f'({limit_name} is {limit})')


def _check_labels(name: str, labels: Optional[Sequence[str]], size_name: str, size: int) -> None:
    if labels is None:
        return
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise DataError(f'{name} has to be a list of strings, got {type(labels).__name__}')
    if len(labels) != size:
        raise DataError(f'{name} has {len(labels)} labels, but {size_name} is {size}')
    if len(set(labels)) != len(labels):
        raise DataError(f'{name} has the label {Counter(labels).most_common(1)[0][0]!r} more than once')


def count_oddities(data: KGData) -> dict[str, int]:
    r"""What is usable but suspicious, and the sizes; the keys stand in :meth:`~pyg_emu.KGData.report`."""
    train = data.facts('train')
    known_entity = torch.zeros(data.num_nodes, dtype=torch.bool, device=train.device)
    known_entity[train[:, 0]] = True
    known_entity[train[:, 2]] = True
    known_relation = torch.zeros(data.num_relations, dtype=torch.bool, device=train.device)
    known_relation[train[:, 1]] = True
    counts = {'num_nodes': data.num_nodes, 'num_relations': data.num_relations}
    counts['relations_without_facts'] = int((~known_relation).sum())
    counts['entities_without_facts'] = int((~known_entity).sum())
    splits: tuple[Split, ...] = ('train', 'valid', 'test')
    for split in splits:
        facts = data.facts(split)
        head, relation, tail = facts.unbind(1)
        counts[f'{split}_facts'] = facts.size(0)
        counts[f'{split}_duplicates'] = facts.size(0) - data.fact_index(split).num_facts
        if split != 'train':
            unseen = torch.cat([head, tail])
            unseen = unseen[~known_entity[unseen]]
            counts[f'{split}_unseen_entities'] = unseen.unique().numel()
            counts[f'{split}_facts_with_unseen_entities'] = int((~(known_entity[head] & known_entity[tail])).sum())
            counts[f'{split}_unseen_relations'] = relation[~known_relation[relation]].unique().numel()
            counts[f'{split}_facts_in_train'] = int(data.fact_index('train').contains(head, relation, tail).sum())
    return counts


def describe_oddities(counts: dict[str, int]) -> list[str]:
    r"""One sentence for each suspicious count that is not zero."""
    found = []
    for split in ('train', 'valid', 'test'):
        num_facts = counts[f'{split}_facts']
        part = {key.removeprefix(f'{split}_'): value for key, value in counts.items() if key.startswith(f'{split}_')}
        if part['duplicates']:
            found.append(f"{part['duplicates']} of the {num_facts} {split} facts are duplicates")
        if part.get('unseen_entities'):
            subject = _counted(part['unseen_entities'], 'entity', 'entities')
            found.append(f"{subject} of the {split} split {_have(part['unseen_entities'])} no training fact; "
                         f"{part['facts_with_unseen_entities']} of its {num_facts} facts are affected")
        if part.get('unseen_relations'):
            subject = _counted(part['unseen_relations'], 'relation', 'relations')
            found.append(f"{subject} of the {split} split {_have(part['unseen_relations'])} no training fact")
        if part.get('facts_in_train'):
            found.append(f"{part['facts_in_train']} of the {num_facts} {split} facts are training facts too")
    if counts['relations_without_facts']:
        found.append(f"{counts['relations_without_facts']} of the {counts['num_relations']} relations have no training "
                     f'fact')
    return found


def _counted(number: int, one: str, many: str) -> str:
    return f'{number} {one if number == 1 else many}'


def _have(number: int) -> str:
    return 'has' if number == 1 else 'have'


def unknown_label(kind: str, label: Any, labels: Sequence[str]) -> DataError:
    r"""The error for a label that does not exist, with the one most like it."""
    if not isinstance(label, str):
        return DataError(f'{kind} labels are strings, got {label!r} of type {type(label).__name__}')
    near = labels
    if len(labels) > _MAX_SUGGESTION_LABELS:
        near = [other for other in labels if other[:2].lower() == label[:2].lower()][:_MAX_SUGGESTION_LABELS]
    match = difflib.get_close_matches(label, near, n=1)
    hint = f'; did you mean {match[0]!r}?' if match else ''
    return DataError(f'there is no {kind} {label!r} among the {len(labels)} {kind} labels{hint}')
