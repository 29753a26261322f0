r"""Validation of the facts of a :class:`~pyg_emu.KGData`. An error names the attribute and the column."""
from __future__ import annotations

import difflib
from collections import Counter
from numbers import Integral
from typing import TYPE_CHECKING, Any, Collection, Mapping, Optional, Sequence

import torch
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from pyg_emu.data.graph import KGData

_PREFIX = {'train': '', 'valid': 'valid_', 'test': 'test_'}
#: The attributes that contain facts.
FACT_KEYS = ('edge_index', 'edge_type', 'valid_edge_index', 'valid_edge_type', 'test_edge_index', 'test_edge_type')
#: The attributes that contain the weights of facts, in the order of the splits.
WEIGHT_KEYS = ('edge_weight', 'valid_edge_weight', 'test_edge_weight')
#: The sizes of a graph, and what they count.
SIZES = {'num_nodes': 'entities', 'num_relations': 'relations'}


def check_sizes(model: Any, data: Any, equal: Collection[str] = ()) -> None:
    r"""Checks that a model has the entities and relations of the data.

    Sizes are compared, not ids: reading ids on a GPU would make the host wait for it.

    Args:
        model (object): The model. A size that it does not state is not checked.
        data (object): The graph or batch. A size that it does not state is not checked.
        equal (collection of str, optional): Sizes (:obj:`"num_nodes"`, :obj:`"num_relations"`) that have to be equal
            and not only large enough. A model may have twice the relations, for inverse ones. (default: :obj:`()`)

    Raises:
        ArgumentError: If a size of the model is too small, or differs from one that has to be equal.
    """
    for name, what in SIZES.items():
        needed, held = getattr(data, name, None), getattr(model, name, None)
        if not isinstance(needed, Integral) or not isinstance(held, Integral):
            continue
        allowed = (needed, 2 * needed) if name == 'num_relations' else (needed, )
        if held < needed or (name in equal and held not in allowed):
            raise ArgumentError(f'model: {name}={held}, but the data has {needed} {what}; make the model with '
                                f'{name}={needed}')


def check_data(data: KGData) -> None:
    r"""Checks the requirements of the rest of the package.

    Args:
        data (KGData): The graph.

    Raises:
        DataError: If an attribute is invalid, or describes edges and would be ignored. The message names the attribute
            and the column.
    """
    refuse_edge_attributes(data._store, data._store.get('edge_index'), data._store.get('num_nodes'))
    for name in ('edge_index', 'edge_type'):
        if data._store.get(name) is not None:
            _check_tensor(name, data._store.get(name))
    for name in ('num_nodes', 'num_relations'):
        value = data._store.get(name)
        if value is None:
            if data._store.get('edge_index') is not None:
                raise DataError(f'{name}: expected a number, got None; pass edge_index and edge_type to KGData(...), '
                                f'which infers it, or set {name}')
            raise DataError(f'{name}: expected a number, got None, which cannot be inferred from an empty graph; pass '
                            'an edge_index of shape (2, F) and an edge_type of shape (F,) with at least one training '
                            'fact')
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f'{name}: expected a positive integer, got {value!r}')
    for split, prefix in _PREFIX.items():
        num_types = data.num_edge_types if split == 'train' else data.num_relations
        _check_split(data, f'{prefix}edge_index', f'{prefix}edge_type', data.num_nodes, num_types)
    _check_weights(data)
    edge_type = data.edge_type
    if edge_type is None or edge_type.numel() == 0:
        raise DataError('edge_index: expected at least one training fact, got none')
    if data.has_inverse_relations:
        num_inverse = int((edge_type >= data.num_relations).sum())
        if 2 * num_inverse != edge_type.numel():
            raise DataError(f'has_inverse_relations: expected inverse types ({data.num_relations} and above) for half '
                            f'of the {edge_type.numel()} edges, got {num_inverse}')
    check_label_counts(data)
    _check_labels('entity_labels', data.entity_labels)
    _check_labels('relation_labels', data.relation_labels)


def refuse_edge_attributes(given: Mapping[str, Any], edge_index: Any, num_nodes: Any) -> None:
    r"""Checks that there are no attributes of edges, other than weights, which would be ignored.

    Args:
        given (dict): The attributes by name. Attributes of nodes and of the graph are accepted.
        edge_index (torch.Tensor, optional): The edges that an attribute may belong to.
        num_nodes (int, optional): The number of nodes. An attribute of this size belongs to nodes.

    Raises:
        DataError: If there is an attribute of edges. The message names it.
    """
    num_edges = edge_index.size(1) if isinstance(edge_index, Tensor) and edge_index.dim() == 2 else None
    for key, value in given.items():
        if key in (*FACT_KEYS, *WEIGHT_KEYS) or value is None:
            continue
        size = value.size(0) if isinstance(value, Tensor) and value.dim() > 0 else None
        if 'edge' not in key and (size is None or size != num_edges or size == num_nodes or size == 1):
            continue
        near = difflib.get_close_matches(key, (*FACT_KEYS, *WEIGHT_KEYS), n=1, cutoff=0.85)
        what = f'did you mean {near[0]}?' if near else (
            'attributes of edges other than edge_weight are not used; remove it, or keep it outside of the graph')
        raise DataError(f'{key}: expected attributes that a KGData uses; {what}')


def _check_weights(data: KGData) -> None:
    given = [key for key in WEIGHT_KEYS if data._store.get(key) is not None]
    if given and WEIGHT_KEYS[0] not in given:
        raise DataError(f'{WEIGHT_KEYS[0]}: expected weights of the training facts because {given[0]} is set, got None')
    for key in given:
        edge_type = data._store.get(key.replace('weight', 'type'))
        size = 0 if edge_type is None else edge_type.numel()
        check_weights(key, data._store[key], size, 'one for each fact', data.device)


def check_weights(name: str, value: Any, size: int, what: str, device: torch.device, error: type[Exception] = DataError,
                  wait: bool = True) -> None:
    r"""Checks weights of facts.

    Args:
        name (str): The attribute, for messages.
        value (torch.Tensor): The weights. shape: :obj:`(size,)`.
        size (int): The number of facts.
        what (str): What each weight belongs to, for messages.
        device (torch.device): The device of the facts.
        error (type, optional): The class of the error. (default: :class:`~pyg_emu.core.errors.DataError`)
        wait (bool, optional): Whether values on a GPU are checked, for which the host waits. (default: :obj:`True`)

    Raises:
        DataError: If they are no floating-point numbers, of another shape or device, or one of them is not finite or
            not positive.
    """
    if not isinstance(value, Tensor):
        raise error(f'{name}: expected a tensor of floating-point numbers, got {type(value).__name__}')
    if not value.is_floating_point() or tuple(value.shape) != (size, ) or value.layout is not torch.strided:
        raise error(f'{name}: expected floating-point numbers of shape ({size},), {what}, got {value.dtype} of shape '
                    f'{tuple(value.shape)}')
    if value.device != device or value.is_meta:
        raise error(f'{name}: expected a tensor on {device} like the facts, got one on {value.device}')
    if not (wait or value.device.type == 'cpu'):
        return
    wrong = ~((value > 0) & (value < float('inf')))
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0, 0])
        raise error(f'{name}, position {place}: expected a finite weight above 0, got {value[place].item()}')


def _check_split(data: KGData, index_name: str, type_name: str, num_nodes: int, num_types: int) -> None:
    edge_index, edge_type = data._store.get(index_name), data._store.get(type_name)
    if edge_index is None and edge_type is None:
        return
    if edge_index is None or edge_type is None:
        present, missing = (type_name, index_name) if edge_index is None else (index_name, type_name)
        raise DataError(f'{missing}: expected a tensor because {present} is set, got None')
    # Functions that read inverse edges compute with types, whose products need 64 bits.
    narrow = not data.has_inverse_relations and all(
        isinstance(value, Tensor) and value.dtype == torch.int32 for value in (edge_index, edge_type))
    for name, value in ((index_name, edge_index), (type_name, edge_type)):
        _check_tensor(name, value)
        if value.dtype != torch.int64 and not (value.dtype == torch.int32 and narrow):
            raise DataError(f'{name}: expected dtype int64, got {value.dtype}; use {name}.long()')
        if value.device != data.device:
            raise DataError(f'{name}: expected a tensor on {data.device} like other facts, got one on {value.device}; '
                            'use data.to(device)')
        if value.is_meta:
            raise DataError(f'{name}: expected a tensor with data, got one on the device meta')
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise DataError(f'{index_name}: expected shape (2, F), got {tuple(edge_index.shape)}')
    if edge_type.dim() != 1 or edge_type.numel() != edge_index.size(1):
        raise DataError(f'{type_name}: expected shape ({edge_index.size(1)},), one relation for each column of '
                        f'{index_name}, got {tuple(edge_type.shape)}')
    if edge_type.numel() == 0:
        return
    for row, end in enumerate(('head', 'tail')):
        _check_range(edge_index[row], f'{index_name}[{row}]', end, num_nodes, 'num_nodes')
    sizes = 'num_relations' if num_types == data.num_relations else '2 * num_relations'
    _check_range(edge_type, type_name, 'relation', num_types, sizes)


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise DataError(f'{name}: expected a tensor, got {type(value).__name__}; use torch.as_tensor({name})')
    if value.layout is not torch.strided:
        raise DataError(f'{name}: expected a dense tensor, got one of layout {value.layout}; use {name}.to_dense()')


def _check_range(ids: Tensor, name: str, what: str, limit: int, limit_name: str) -> None:
    low, high = (int(value) for value in torch.aminmax(ids))
    if low < 0 or high >= limit:
        column = int(((ids < 0) | (ids >= limit)).nonzero()[0])
        raise DataError(f'{name}, column {column}: expected a {what} id in [0, {limit - 1}], as {limit_name} is '
                        f'{limit}, got {int(ids[column])}')


def check_label_counts(data: KGData) -> None:
    r"""Checks that entities and relations have one label each, if they have any. It takes no pass over the labels.

    Raises:
        DataError: If there are more or fewer labels, or they are not a sequence.
    """
    for name, size_name in (('entity_labels', 'num_nodes'), ('relation_labels', 'num_relations')):
        labels, size = getattr(data, name), getattr(data, size_name)
        if labels is None:
            continue
        if isinstance(labels, str) or not isinstance(labels, Sequence):
            raise DataError(f'{name}: expected a list of strings, got {type(labels).__name__}')
        if len(labels) != size:
            raise DataError(f'{name}: expected {size} labels, as {size_name} is {size}, got {len(labels)}')


def _check_labels(name: str, labels: Optional[Sequence[str]]) -> None:
    if labels is None:
        return
    wrong = next((place for place, label in enumerate(labels) if not isinstance(label, str)), None)
    if wrong is not None:
        raise DataError(f'{name}, position {wrong}: expected a string, got {shown(labels[wrong])} of type '
                        f'{type(labels[wrong]).__name__}')
    if len(set(labels)) != len(labels):
        raise DataError(f'{name}: expected distinct labels, got {Counter(labels).most_common(1)[0][0]!r} more than '
                        'once')
