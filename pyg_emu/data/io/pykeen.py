r"""Datasets and triples factories of PyKEEN to a :class:`~pyg_emu.KGData`: the only place that knows their shape."""
from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import torch

from pyg_emu.core.errors import DataError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.collector import assemble
from pyg_emu.data.io.splits import by_split, split_or_keep
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS


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
        factories = by_split(source)
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
    return assemble(split_or_keep(facts, fractions, seed), num_nodes, num_relations, *labels)


def _pykeen_labels(factory: Any, kind: str) -> Optional[list[str]]:
    mapping = getattr(factory, f'{kind}_id_to_label', None)
    count = factory.num_entities if kind == 'entity' else factory.real_num_relations
    return None if mapping is None else [mapping[position] for position in range(count)]
