r"""Graphs and datasets of PyG to a :class:`~pyg_emu.KGData`: the only place that knows their shapes."""
from __future__ import annotations

from typing import Any, Collection, Iterable, Mapping, Optional, Sequence, Sized

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_emu.core.arguments import kind_of, shown
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.checks import check_weights
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.data.io.collector import assemble
from pyg_emu.data.io.splits import SPLIT_NAMES, by_split, split_or_keep
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS
from pyg_emu.data.io.weights import split_weighted

# What a Data may hold beside its facts. Types of nodes come with `HeteroData.to_homogeneous()`.
_KNOWN = ('edge_index', 'edge_type', 'num_nodes', 'num_relations', 'entity_labels', 'relation_labels', 'node_type')
#: What RandomLinkSplit adds to each of its parts.
LINK_SPLIT = ('edge_label_index', 'edge_label', 'pos_edge_label_index', 'pos_edge_label', 'neg_edge_label_index',
              'neg_edge_label')
#: Those of its attributes that hold the held-out edges.
LINK_INDEX = frozenset(('edge_label_index', 'pos_edge_label_index', 'neg_edge_label_index'))
#: What to do with one of its parts.
PASS_PARTS = 'pass all three parts: load_dataset((train, val, test))'


def from_pyg(source: Any, fractions: Optional[Sequence[float]] = None, seed: int = 0, *,
             weights: Optional[str] = None, keep: Collection[str] = ()) -> KGData:
    r"""Makes a graph from a PyG dataset, or from its :class:`~torch_geometric.data.Data`.

    PyG's knowledge graphs come in three forms. None of them keeps labels. (:func:`~pyg_emu.load_dataset` with a name
    does, because it reads the raw files.)

    * :class:`~torch_geometric.datasets.FB15k_237` has a dataset per split. Given one of them, the others are loaded
      from the same folder; or give all three as :obj:`{"train": ..., "valid": ..., "test": ...}`.
    * :class:`~torch_geometric.datasets.WordNet18RR` has one :class:`~torch_geometric.data.Data` with the edges of all
      splits and boolean :obj:`train_mask`, :obj:`val_mask` and :obj:`test_mask`.
    * :class:`~torch_geometric.datasets.RelLinkPredDataset` has :obj:`train_edge_index`, :obj:`train_edge_type` and so
      on; its :obj:`edge_index` holds the training facts and their inverses, which are left out here
      (:meth:`KGData.with_inverse_relations` adds them again).

    Any other :class:`~torch_geometric.data.Data` with :obj:`edge_index` is split by :obj:`fractions`. Without
    :obj:`num_nodes` and labels, the number of entities is also inferred from the attributes of nodes that are kept.
    Without :obj:`edge_type`, all edges have one relation. The parts of
    :class:`~torch_geometric.transforms.RandomLinkSplit` are then accepted as splits, too. :obj:`valid` may also be
    called :obj:`val`, :obj:`validation` or :obj:`dev` in all names.

    Args:
        source (torch_geometric.data.Dataset or torch_geometric.data.Data or dict): The dataset.
        fractions (sequence of float, optional): Shares of train, valid and test, for facts that come without a split.
            (default: :obj:`None`)
        seed (int, optional): Seed of that split. (default: :obj:`0`)
        weights (str, optional): The attribute that holds the weights of edges, such as :obj:`"edge_weight"`: finite
            numbers above 0, see :class:`~pyg_emu.KGData`. For :obj:`val_edge_index`, it is :obj:`val_edge_weight`.
            Edges that a split holds without a weight have weight 1. (default: :obj:`None`, all facts count equally)
        keep (collection of str, optional): Attributes of nodes that the graph keeps, such as :obj:`("x", )`, for
            encoders of your own. The models of this package do not read them. (default: :obj:`()`)

    Raises:
        DataError: If the data has none of these forms, if an attribute would be ignored, such as features, weights, or
            masks that are not boolean, or if splits differ in labels or in the attributes of nodes that are kept. The
            message names the attribute.
        ArgumentError: If :obj:`fractions` are given for facts that come with a split, or missing for others.
    """
    kept = _names('keep', keep)
    if weights is not None and not isinstance(weights, str):
        raise ArgumentError(f'weights: expected the name of an attribute of edges, such as edge_weight, got '
                            f'{shown(weights)}')
    own = () if weights is None else (weights, *(f'{name}_{weights}' for names in SPLIT_NAMES.values()
                                                 for name in names))
    if type(source).__name__ == 'FB15k_237':
        source = {split: type(source)(source.root, split=name) for split, name in zip(SPLITS, ('train', 'val', 'test'))}
    if isinstance(source, Mapping):
        parts = {split: _one_data(part) for split, part in by_split(source).items()}
        facts = _from_parts(parts, (*kept, *own))
        values = None if weights is None else {
            split: padded_weights(_weights(part, weights, 'edge_index'), facts[split], split)
            for split, part in parts.items()}
    else:
        data = _one_data(source)
        facts = _from_one(data, fractions, (*kept, *own))
        parts = {'all': data}
        values = None if weights is None else _weights_of_one(data, weights, facts)
    labels = [_shared(parts, key) for key in ('entity_labels', 'relation_labels')]
    of_nodes = {key: _shared(parts, key) for key in (*kept, 'node_type')}
    num_nodes = _given_size(parts, 'num_nodes', labels[0])
    if num_nodes is None:
        num_nodes = _num_nodes(parts, facts, of_nodes.values())
    num_relations = _given_size(parts, 'num_relations', labels[1])
    if num_relations is None:
        num_relations = max(_largest(facts, (1, )), *map(_num_without_inverses, parts.values()))
    if values is not None and 'all' in facts:
        assert fractions is not None
        split, shares = split_weighted(facts['all'].cpu().numpy(), values['all'].cpu().numpy(), fractions, seed)
        out = assemble(split, num_nodes, num_relations, *labels, weights=shares)
    else:
        out = assemble(split_or_keep(facts, fractions, seed), num_nodes, num_relations, *labels, weights=values)
    for key, value in of_nodes.items():
        if key in kept:
            _check_node_values(key, value, num_nodes)
        if value is not None:
            out[key] = value
    return out


def _one_data(source: Any) -> Data:
    if not isinstance(source, Data):
        try:
            count = len(source)
        except TypeError:
            raise DataError(f'{type(source).__name__}: expected a PyG dataset, or a Data with edge_index and '
                            f'edge_type') from None
        if count != 1:
            raise DataError(f'{type(source).__name__} holds {count} graphs; expected a dataset of one graph, one of '
                            'its graphs, or splits as {"train": ..., "valid": ..., "test": ...}')
        try:
            source = source[0]
        except (TypeError, LookupError):  # a set, a table
            pass
    if not isinstance(source, Data):
        raise DataError(f'{type(source).__name__}: expected a PyG dataset, or a Data with edge_index and edge_type')
    if source.get('edge_index') is None and _split_key(source, 'train', 'edge_index') is None:
        raise DataError(f'{_named(source)} has no edge_index; expected a Data with edge_index (2, E) and edge_type '
                        '(E,)')
    return source


def _named(data: Data) -> str:
    return f'{type(data).__name__}({", ".join(data.keys())})'


# Facts #######################################################################

def _from_parts(parts: Mapping[str, Data], used: Sequence[str]) -> dict[str, Tensor]:
    r"""Facts by split, from a Data for each split."""
    link_split = any(part.get(key) is not None for part in parts.values() for key in LINK_SPLIT)
    typed = [split for split, part in parts.items() if part.get('edge_type') is not None]
    if link_split and typed:
        raise DataError(f"'{typed[0]}' is a part of RandomLinkSplit: its held-out edges (edge_label_index) have "
                        'lost their relations, and edge_index repeats those of other parts; give the graph '
                        f'before that split, with fractions=, such as {DEFAULT_FRACTIONS}')
    if 0 < len(typed) < len(parts):
        raise DataError(f"only {', '.join(typed)} has edge_type; expected it for all splits or for none")
    facts = {}
    for split, part in parts.items():
        _refuse_unused(part, (*used, *(LINK_SPLIT if link_split else ())))
        facts[split] = _facts(part, 'edge_index', 'edge_type')
        if link_split:
            facts[split] = link_split_facts(part, split, facts[split])
    return facts


def link_split_facts(part: Any, split: str, edges: Tensor) -> Tensor:
    r"""The facts of a part of RandomLinkSplit, with one relation: its positives, and for train the edges of the part.

    Args:
        part (torch_geometric.data.Data): The part, or its edges of one type.
        split (str): Its split.
        edges (torch.Tensor): The edges of the part. shape: :obj:`(E, 3)`.

    Raises:
        DataError: If it has no positives.
    """
    index = part.get('pos_edge_label_index')
    if index is None:
        index, label = part.get('edge_label_index'), part.get('edge_label')
        if index is None:
            raise DataError(f"'{split}' has no edge_label_index, unlike other parts of RandomLinkSplit")
        index = index if label is None else index[:, label > 0]
    positives = torch.stack([index[0], torch.zeros_like(index[0]), index[1]], dim=1)
    if split != 'train':
        return positives
    size = int(torch.cat([edges, positives]).max()) + 1 if edges.numel() + positives.numel() > 0 else 0
    return torch.cat([edges, positives[~FactIndex(edges, size, 1).contains(*positives.unbind(1))]])


def _from_one(data: Data, fractions: Optional[Sequence[float]], used: Sequence[str]) -> dict[str, Tensor]:
    r"""Facts by split, or as :obj:`"all"`, from one Data for all splits."""
    keys: dict[str, Optional[str]] = {split: _split_key(data, split, 'edge_index') for split in SPLITS}
    if any(key is not None for key in keys.values()):
        return _from_split_edges(data, keys, used)
    facts = _facts(data, 'edge_index', 'edge_type')
    masks = {split: _split_key(data, split, 'mask') for split in SPLITS}
    num_edges = facts.size(0)
    of_edges: dict[str, str] = {split: key for split, key in masks.items()
                                if key is not None and _is_of_edges(data, key, num_edges)}
    _refuse_unused(data, (*used, *of_edges.values()))
    if of_edges:
        return _by_mask(data, of_edges, facts)
    if fractions is None:
        raise ArgumentError(f'{_named(data)} has no split (neither train_edge_index nor a train_mask over edges); pass '
                            f'fractions=, such as {DEFAULT_FRACTIONS}')
    return {'all': facts}


def _from_split_edges(data: Data, keys: Mapping[str, Optional[str]], used: Sequence[str]) -> dict[str, Tensor]:
    found = {split: key for split, key in keys.items() if key is not None}
    # Without edges of its own, train has those of the Data, as in a KGData.
    found = {'train': 'edge_index', **found}
    types = {split: key.removesuffix('index') + 'type' for split, key in found.items()}
    typed = [key for key in types.values() if data.get(key) is not None]
    missing = [key for key in types.values() if key not in typed]
    if typed and missing:
        raise DataError(f'{missing[0]} is missing, but {typed[0]} is there; expected relations for all splits or none')
    _refuse_unused(data, (*used, *found.values(), *types.values()))
    facts = {split: _facts(data, key, types[split]) for split, key in found.items()}
    if found['train'] != 'edge_index' and data.get('edge_index') is not None:
        _check_repeated(data, facts)
    return facts


def _check_repeated(data: Data, facts: Mapping[str, Tensor]) -> None:
    r"""Refuses edges beside those of the splits, unless they repeat them or are their inverses."""
    edges = _facts(data, 'edge_index', 'edge_type')
    every = torch.cat(list(facts.values()))
    num_relations = max(_largest(facts, (1, )), _num_without_inverses(data))
    size = max(_largest({'': every}, (0, 2)), _largest({'': edges}, (0, 2)))
    index = FactIndex(every, size, num_relations)
    head, relation, tail = edges.unbind(1)
    repeated = index.contains(head, relation, tail) | index.contains(tail, relation - num_relations, head)
    if not bool(repeated.all()):
        column = int((~repeated).nonzero()[0])
        raise DataError(f'edge_index, column {column}: {edges[column].tolist()} (head, relation, tail) is in none of '
                        f'the splits ({", ".join(facts)}) and would be ignored; remove edge_index, or the splits')


def _by_mask(data: Data, masks: Mapping[str, str], facts: Tensor) -> dict[str, Tensor]:
    covered = torch.stack([data[key].long() for key in masks.values()]).sum(dim=0)
    if bool((covered != 1).any()):
        edge = int((covered != 1).nonzero()[0])
        raise DataError(f'edge {edge} is in {int(covered[edge])} of the masks {", ".join(masks.values())}; expected '
                        'each in one')
    return {split: facts[data[key]] for split, key in masks.items()}


def _facts(data: Data, index_key: str, type_key: str) -> Tensor:
    edge_index, edge_type = data.get(index_key), data.get(type_key)
    if isinstance(edge_index, Tensor) and edge_index.dim() == 2 and edge_type is None:
        edge_type = edge_index.new_zeros(edge_index.size(1))
    for key, value in ((index_key, edge_index), (type_key, edge_type)):
        if not isinstance(value, Tensor) or value.is_floating_point() or value.dtype == torch.bool:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f'{key}: expected a tensor of integers, got {got}')
    if edge_type.dim() != 1 or edge_index.shape != (2, edge_type.numel()):
        raise DataError(f'{index_key} has shape {tuple(edge_index.shape)} and {type_key} {tuple(edge_type.shape)}; '
                        f'expected (2, E) and (E,)')
    return torch.stack([edge_index[0].long(), edge_type.long(), edge_index[1].long()], dim=1)


# Attributes and sizes ########################################################

def _split_key(data: Data, split: str, suffix: str) -> Optional[str]:
    r"""The attribute of a split, such as :obj:`val_edge_index`, under any name of the split."""
    found = [f'{name}_{suffix}' for name in SPLIT_NAMES[split] if data.get(f'{name}_{suffix}') is not None]
    if len(found) > 1:
        raise DataError(f'{" and ".join(found)} name the same split; expected one of them')
    return found[0] if found else None


def _is_of_edges(data: Data, key: str, num_edges: int) -> bool:
    mask = data[key]
    size = len(mask) if isinstance(mask, (Tensor, list, tuple)) and not (
        isinstance(mask, Tensor) and mask.dim() == 0) else None
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == (num_edges, ):
        return True
    if size == num_edges or size is None or not isinstance(mask, Tensor):
        got = f'{mask.dtype} of shape {tuple(mask.shape)}' if isinstance(mask, Tensor) else type(mask).__name__
        raise DataError(f'{key}: expected a boolean tensor of shape ({num_edges},), true for the edges of the split, '
                        f'got {got}')
    return False


def _refuse_unused(data: Data, used: Sequence[str]) -> None:
    unused = [key for key, value in data.to_dict().items() if key not in (*_KNOWN, *used) and not key.startswith('_')
              and value is not None]
    if LINK_INDEX & {*unused}:
        remedy = PASS_PARTS
        if data.get('edge_type') is not None:  # which the held-out edges have lost
            remedy = f'pass the graph before that split, with fractions=, such as {DEFAULT_FRACTIONS}'
        raise DataError(f'attributes that would be ignored: {", ".join(unused)}. They look like those of a part of '
                        f'RandomLinkSplit; {remedy}')
    if unused:
        raise DataError(f"attributes that would be ignored: {', '.join(unused)}. Pass keep=('x', ...) to keep "
                        "attributes of nodes, weights='edge_weight' for the weights of facts, or a Data without "
                        'them')


def _names(argument: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(name, str) for name in value):
        raise ArgumentError(f'{argument}: expected names of attributes of nodes, such as ("x", ), got {shown(value)}')
    return tuple(value)


def _check_node_values(key: str, value: Any, num_nodes: int) -> None:
    if not isinstance(value, Tensor) or value.dim() == 0 or value.size(0) != num_nodes:
        found = kind_of(value) if isinstance(value, Tensor) else shown(value)
        raise DataError(f'{key}: expected a value for each of the {num_nodes} nodes to keep, got {found}')


def _weights(data: Data, key: str, index_key: str) -> Tensor:
    value, edges = data.get(key), data[index_key]
    if isinstance(value, Tensor) and value.dim() == 2 and value.size(1) == 1:
        value = value.squeeze(1)
    check_weights(key, value, edges.size(1), 'one for each edge', edges.device)
    return value


def padded_weights(values: Tensor, facts: Tensor, split: str) -> Tensor:
    r"""The weights of the facts of a part: those of its edges, which come first in training; held-out edges of
    RandomLinkSplit have none.

    Args:
        values (torch.Tensor): The weights of its edges. shape: :obj:`(E,)`.
        facts (torch.Tensor): Its facts. shape: :obj:`(F, 3)`.
        split (str): Its split.
    """
    if len(values) == len(facts):
        return values
    rest = values.new_ones(len(facts) - (len(values) if split == 'train' else 0))
    return torch.cat([values, rest]) if split == 'train' else rest


def _weights_of_one(data: Data, key: str, facts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""The weights of facts that come from one Data, by split, or as :obj:`"all"`."""
    index_keys: dict[str, Optional[str]] = {split: _split_key(data, split, 'edge_index') for split in SPLITS}
    if any(name is not None for name in index_keys.values()):
        found = {}
        for split in facts:
            name = index_keys[split] or 'edge_index'
            own = key if name == 'edge_index' else name.removesuffix('edge_index') + key
            found[split] = _weights(data, own, name)
        return found
    values = _weights(data, key, 'edge_index')
    if 'all' in facts:
        return {'all': values}
    return {split: values[data[str(_split_key(data, split, 'mask'))]] for split in facts}


def _shared(parts: Mapping[str, Data], key: str) -> Any:
    r"""What the parts that have an attribute agree on.

    Raises:
        DataError: If they differ in it: their nodes or relations are numbered differently.
    """
    (first, value), *others = [(split, part[key]) for split, part in parts.items()
                               if part.get(key) is not None] or [('', None)]
    for split, other in others:
        if not _equal(value, other):
            raise DataError(f"{key}: expected the same for all splits, got other values for '{split}' than for "
                            f"'{first}'; number the nodes and relations of all splits alike")
    return value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        other = other.to(one.device)
        # Features may be missing, NaN.
        return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return list(one) == list(other)
    return np.array_equal(one, other)


def _given_size(parts: Mapping[str, Data], key: str, labels: Any) -> Optional[int]:
    r"""The number of entities or relations that the parts state, or the number of labels. That both agree is a check of
    the :class:`~pyg_emu.KGData`.
    """
    given = [int(part._store[key]) for part in parts.values() if part._store.get(key) is not None]
    return max(given) if given else len(labels) if isinstance(labels, Sized) else None


def _num_nodes(parts: Mapping[str, Data], facts: Mapping[str, Tensor], of_nodes: Iterable[Any]) -> int:
    r"""The number of nodes by the attributes of nodes, as in PyG, or by the largest id."""
    edges = {split: _facts(part, 'edge_index', 'edge_type') for split, part in parts.items()
             if part.get('edge_index') is not None}
    sizes = [len(value) for value in of_nodes if isinstance(value, Sized) and getattr(value, 'ndim', 1) > 0]
    return max(_largest(facts, (0, 2)), _largest(edges, (0, 2)), *sizes)


def _largest(facts: Mapping[str, Tensor], columns: tuple[int, ...]) -> int:
    return max((int(part[:, columns].max()) + 1 for part in facts.values() if len(part) > 0), default=0)


def _num_without_inverses(data: Data) -> int:
    r"""Number of relations, read off the inverse edges: those of relation r have type r + R."""
    forward, every = data.get('train_edge_type'), data.get('edge_type')
    if forward is None or every is None:
        return 0
    inverse = every[forward.numel():]
    if inverse.numel() != forward.numel() or inverse.numel() == 0:
        return 0
    offset = inverse - forward
    return int(offset[0]) if bool((offset == offset[0]).all()) else 0
