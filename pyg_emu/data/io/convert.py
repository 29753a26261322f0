r"""Knowledge graphs of PyG and PyKEEN to a :class:`~pyg_emu.KGData`: the only place that knows their
shapes."""
from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.folders import SPLIT_NAMES
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS, split_facts
from pyg_emu.data.io.collector import assemble


def from_pyg(source: Any, fractions: Optional[Sequence[float]] = None, seed: int = 0) -> KGData:
    r"""Makes a graph from a PyG dataset, or from its :class:`~torch_geometric.data.Data`.

    PyG's knowledge graphs come in three shapes, and none keeps labels (:func:`~pyg_emu.load_dataset`
    with a name does, as it reads the raw files):

    * :class:`~torch_geometric.datasets.FB15k_237` has a dataset per split. Given one of them, the others are loaded
      from the same folder; or give all three as :obj:`{"train": ..., "valid": ..., "test": ...}`.
    * :class:`~torch_geometric.datasets.WordNet18RR` has one :class:`~torch_geometric.data.Data` with the edges of all
      splits and :obj:`train_mask`, :obj:`val_mask` and :obj:`test_mask`.
    * :class:`~torch_geometric.datasets.RelLinkPredDataset` has :obj:`train_edge_index`, :obj:`train_edge_type` and so
      on; its :obj:`edge_index` holds the training facts and their inverses, which are left out here
      (:meth:`KGData.with_inverse_relations` brings them back).

    Any other :class:`~torch_geometric.data.Data` with :obj:`edge_index` and :obj:`edge_type` is split by
    :obj:`fractions`.

    Args:
        source (torch_geometric.data.Dataset or torch_geometric.data.Data or dict): The dataset.
        fractions (sequence of float, optional): Shares of train, valid and test, for facts that come without a split.
            (default: :obj:`None`)
        seed (int): Seed of that split. (default: :obj:`0`)

    Raises:
        DataError: If the shape is none of these.
        ArgumentError: If :obj:`fractions` are given for facts that come with a split, or missing for others.
    """
    if type(source).__name__ == 'FB15k_237':
        source = {split: type(source)(source.root, split=name) for split, name in zip(SPLITS, ('train', 'val', 'test'))}
    if isinstance(source, Mapping):
        parts = {split: _one_data(part) for split, part in _by_split(source).items()}
        for split, part in parts.items():
            if part.get('edge_label_index') is not None:
                raise DataError(f"'{split}' is a part of RandomLinkSplit: its held-out edges (edge_label_index) have "
                                'lost their relations, and edge_index repeats those of other parts; give the graph '
                                f'before that split, with fractions=, such as {DEFAULT_FRACTIONS}')
        facts = {split: _facts(part.edge_index, part.edge_type) for split, part in parts.items()}
        num_nodes = max(int(part.num_nodes) for part in parts.values())
        num_relations = _num_relations(facts)
    else:
        data = _one_data(source)
        num_nodes = int(data.num_nodes)
        if 'train_edge_index' in data:
            facts = {split: _facts(data[f'{split}_edge_index'], data[f'{split}_edge_type']) for split in SPLITS
                     if f'{split}_edge_index' in data}
            num_relations = max(_num_relations(facts), _num_without_inverses(data))
        elif 'train_mask' in data and data.train_mask.numel() == data.edge_type.numel():
            facts = _by_mask(data)
            num_relations = _num_relations(facts)
        else:
            facts = {'all': _facts(data.edge_index, data.edge_type)}
            num_relations = _num_relations(facts)
            if fractions is None:
                raise ArgumentError(f'{data} has no split (neither train_edge_index nor a train_mask over edges); pass '
                                    f'fractions=, such as {DEFAULT_FRACTIONS}')
    return assemble(_split(facts, fractions, seed), num_nodes, num_relations)


def from_pykeen(source: Any, fractions: Optional[Sequence[float]] = None, seed: int = 0) -> KGData:
    r"""Makes a graph from a PyKEEN dataset or :class:`~pykeen.triples.TriplesFactory`, with its labels and ids.

    Inverse triples that a factory would create are left out (:meth:`KGData.with_inverse_relations` adds them).

    Args:
        source (str or pykeen.datasets.Dataset or pykeen.triples.CoreTriplesFactory or dict): The name of one of
            PyKEEN's datasets (:obj:`"Nations"`, :obj:`"UMLS"` and :obj:`"Kinships"` need no download), a dataset, one
            factory, or factories as :obj:`{"train": ..., "valid": ..., "test": ...}`.
        fractions (sequence of float, optional): Shares of train, valid and test for a single factory.
            (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): Seed of that split. (default: :obj:`0`)

    Raises:
        DataError: If :obj:`source` is none of these, or its factories number their entities or relations differently.
        ArgumentError: If :obj:`fractions` are given for something that comes with a split.
    """
    if isinstance(source, str):
        from pykeen.datasets import get_dataset
        source = get_dataset(dataset=source)
    if isinstance(source, Mapping):
        factories = _by_split(source)
    elif hasattr(source, 'training') and hasattr(source, 'testing'):
        factories = {'train': source.training, 'valid': source.validation, 'test': source.testing}
        factories = {split: factory for split, factory in factories.items() if factory is not None}
    else:
        factories = {'all': source}
        fractions = DEFAULT_FRACTIONS if fractions is None else fractions
    for factory in factories.values():
        if not hasattr(factory, 'mapped_triples'):
            raise DataError(f'{type(factory).__name__} is neither a PyKEEN dataset nor a triples factory')

    reference = next(iter(factories.values()))
    labels = [_pykeen_labels(reference, kind) for kind in ('entity', 'relation')]
    for split, factory in factories.items():
        if [_pykeen_labels(factory, kind) for kind in ('entity', 'relation')] != labels:
            raise DataError(f"the factory of '{split}' numbers its entities or relations unlike that of 'train'; "
                            f'create it with entity_to_id and relation_to_id of the training factory')
    # With inverse triples, `num_relations` counts relations twice; the triples themselves never hold inverses.
    num_relations = max(factory.real_num_relations for factory in factories.values())
    num_nodes = max(factory.num_entities for factory in factories.values())
    facts = {split: factory.mapped_triples.to(torch.int64) for split, factory in factories.items()}
    return assemble(_split(facts, fractions, seed), num_nodes, num_relations, *labels)


def _split(facts: dict[str, Tensor], fractions: Optional[Sequence[float]],
           seed: int) -> Mapping[str, Union[Tensor, np.ndarray]]:
    if 'all' in facts:
        assert fractions is not None
        return split_facts(facts['all'].cpu().numpy(), fractions, seed)
    if fractions is not None:
        raise ArgumentError('fractions were given, but the facts come with a split already; leave fractions out')
    return facts


def _by_split(source: Mapping[str, Any]) -> dict[str, Any]:
    alias = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    strange = [key for key in source if key not in alias]
    parts = {alias[key]: part for key, part in source.items() if key in alias}
    if strange or 'train' not in parts:
        raise ArgumentError(f'expected the splits {SPLITS}, train among them, as keys; got {tuple(source)!r}')
    return {split: parts[split] for split in SPLITS if split in parts}


# PyG #########################################################################

def _one_data(source: Any) -> Data:
    if not isinstance(source, Data):
        try:
            count = len(source)
        except TypeError:
            raise DataError(f'{type(source).__name__} is not a PyG dataset, and not a Data with edge_index and '
                            f'edge_type') from None
        if count != 1:
            raise DataError(f'{source} holds {count} graphs; expected a dataset of one graph, or one of its graphs')
        source = source[0]
    for key in ('edge_index', 'edge_type'):
        if not isinstance(source, Data) or source.get(key) is None:
            raise DataError(f'{source} has no {key}; expected a Data with edge_index (2, E) and edge_type (E,)')
    return source


def _facts(edge_index: Tensor, edge_type: Tensor) -> Tensor:
    if edge_type.dim() != 1 or edge_index.shape != (2, edge_type.numel()):
        raise DataError(f'edge_index has shape {tuple(edge_index.shape)} and edge_type {tuple(edge_type.shape)}; '
                        f'expected (2, E) and (E,)')
    return torch.stack([edge_index[0], edge_type, edge_index[1]], dim=1)


def _num_relations(facts: Mapping[str, Tensor]) -> int:
    return max((int(part[:, 1].max()) + 1 for part in facts.values() if len(part) > 0), default=0)


def _num_without_inverses(data: Data) -> int:
    r"""Number of relations, read off the inverse edges: those of relation r have type r + R."""
    forward = data.train_edge_type
    inverse = data.edge_type[forward.numel():]
    if inverse.numel() != forward.numel() or inverse.numel() == 0:
        return 0
    offset = inverse - forward
    return int(offset[0]) if bool((offset == offset[0]).all()) else 0


def _by_mask(data: Data) -> dict[str, Tensor]:
    masks = {split: data.get(f'{name}_mask') for split, name in zip(SPLITS, ('train', 'val', 'test'))}
    masks = {split: mask for split, mask in masks.items() if mask is not None}
    covered = torch.stack([mask.long() for mask in masks.values()]).sum(dim=0)
    if bool((covered != 1).any()):
        edge = int((covered != 1).nonzero()[0])
        raise DataError(f'edge {edge} is in {int(covered[edge])} of the masks {", ".join(masks)}; expected each in '
                        f'one')
    facts = _facts(data.edge_index, data.edge_type)
    return {split: facts[mask] for split, mask in masks.items()}


# PyKEEN ######################################################################

def _pykeen_labels(factory: Any, kind: str) -> Optional[list[str]]:
    mapping = getattr(factory, f'{kind}_id_to_label', None)
    count = factory.num_entities if kind == 'entity' else factory.real_num_relations
    return None if mapping is None else [mapping[position] for position in range(count)]
