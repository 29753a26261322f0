r"""Datasets and triples factories of PyKEEN, and the folders it writes, to a :class:`~pyg_emu.KGData`: the only place
that knows their shape.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import numpy as np
import pandas as pd
import torch

from pyg_emu.core.errors import DataError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.collector import assemble
from pyg_emu.data.io.numbered import NumberedFacts, check_ids, labels_by_id
from pyg_emu.data.io.splits import by_split, split_or_keep
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS
from pyg_emu.data.io.textfiles import opened

_TRIPLES = 'numeric_triples.tsv.gz'


def from_pykeen(source: Any, fractions: Optional[Sequence[float]] = None, seed: int = 0) -> KGData:
    r"""Makes a graph from a PyKEEN dataset or :class:`~pykeen.triples.TriplesFactory`, with its labels and ids.

    Inverse triples that a factory would create are left out (:meth:`KGData.with_inverse_relations` adds them).

    Args:
        source (str or pykeen.datasets.Dataset or pykeen.triples.CoreTriplesFactory or dict): The name of one of
            PyKEEN's datasets (:obj:`"Nations"`, :obj:`"UMLS"` and :obj:`"Kinships"` need no download), a dataset, one
            factory, or factories as :obj:`{"train": ..., "valid": ..., "test": ...}`.
        fractions (sequence of float, optional): Shares of train, valid and test for a single factory.
            (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int, optional): Seed of that split. (default: :obj:`0`)

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


def factory_folders(folder: Path) -> dict[str, Path]:
    r"""The folder of each split that PyKEEN has written below :obj:`folder`, or :obj:`folder` itself, if it holds the
    facts of one factory; none if it is not PyKEEN's.
    """
    if (folder / _TRIPLES).is_file():
        return {'train': folder}
    found = {'train': folder / 'training', 'valid': folder / 'validation', 'test': folder / 'testing'}
    found = {split: path for split, path in found.items() if (path / _TRIPLES).is_file()}
    return found if 'train' in found else {}


def read_pykeen_folder(folder: Path, splits: Sequence[str]) -> NumberedFacts:
    r"""Reads what :obj:`Dataset.to_directory_binary` or :obj:`TriplesFactory.to_path_binary` of PyKEEN has written,
    without PyKEEN.

    Args:
        folder (Path): The folder.
        splits (sequence of str): The splits to read.

    Raises:
        DataError: If a file cannot be read, holds something else, or the splits number their labels differently.
    """
    folders = factory_folders(folder)
    reference: Optional[list[list[str]]] = None
    facts = {}
    for split in splits:
        path = folders[split]
        labels = [_labels_of_folder(path / f'{kind}_to_id.tsv.gz') for kind in ('entity', 'relation')]
        if reference is not None and labels != reference:
            raise DataError(f"{path}: numbers its entities or relations unlike the folder of '{splits[0]}'")
        reference = labels
        table = _table(path / _TRIPLES)
        if list(table.columns) != ['head', 'relation', 'tail']:
            raise DataError(f'{path / _TRIPLES}: expected the columns head, relation, tail, got {list(table.columns)}')
        facts[split] = _integers(path / _TRIPLES, table)
        check_ids(facts[split], len(labels[0]), len(labels[1]), lambda row, path=path: f'{path / _TRIPLES}:{row + 2}')
    assert reference is not None
    return NumberedFacts(facts, *reference)


def _labels_of_folder(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f'{path}: no such file; a factory without labels can be loaded with PyKEEN and given to '
                        'load_dataset')
    table = _table(path)
    if list(table.columns) != ['id', 'label']:
        raise DataError(f'{path}: expected the columns id and label, got {list(table.columns)}')
    return labels_by_id(_integers(path, table[['id']])[:, 0], list(table['label']), str(path))


def _table(path: Path) -> pd.DataFrame:
    with opened(path) as handle:
        try:
            return pd.read_csv(handle, sep='\t', dtype=str, keep_default_na=False)
        except (ValueError, pd.errors.ParserError) as error:
            raise DataError(f'{path}: cannot be read as a table of PyKEEN ({error})') from error


def _integers(path: Path, table: pd.DataFrame) -> np.ndarray:
    for name in table.columns:
        wrong = ~table[name].str.fullmatch('[0-9]{1,18}').to_numpy(dtype=bool)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f'{path}:{row + 2}: expected an id in column {name!r}, got {table[name].iloc[row]!r}')
    return table.to_numpy().astype(np.int64)
