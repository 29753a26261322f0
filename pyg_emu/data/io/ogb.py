r"""Folders of OGB's knowledge graphs, ogbl-wikikg2 and ogbl-biokg, as its package leaves them."""
from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.errors import DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.io.numbered import NumberedFacts, check_ids, labels_by_id
from pyg_emu.data.io.textfiles import opened

_COLUMNS = ('head', 'relation', 'tail')


def split_files(folder: Path) -> dict[str, Path]:
    r"""The file of each split in a folder :obj:`split/NAME` of OGB; none if there is no such folder."""
    found = sorted((folder / 'split').glob('*/train.pt')) if (folder / 'split').is_dir() else []
    if len(found) != 1:
        return {}
    files = {split: found[0].with_name(f'{split}.pt') for split in ('train', 'valid', 'test')}
    return {split: path for split, path in files.items() if path.is_file()}


def read_ogb(folder: Path, splits: Sequence[str]) -> NumberedFacts:
    r"""Reads the facts of a folder such as :obj:`dataset/ogbl_wikikg2`.

    Where nodes have types, as in ogbl-biokg, they are labelled by type and name, :obj:`drug:CID000000085`, and numbered
    one type after the other.

    Args:
        folder (Path): The folder.
        splits (sequence of str): The splits to read.

    Raises:
        DataError: If a file cannot be read, or holds something else than facts; names it.
    """
    files = split_files(folder)
    parts = {split: _part(files[split]) for split in splits}
    typed = [split for split, part in parts.items() if 'head_type' in part]
    mapping = folder / 'mapping'
    if typed:
        kinds = sorted({kind for part in parts.values() for end in ('head', 'tail') for kind in part[f'{end}_type']})
        labels = {kind: _labels(mapping, f'{kind}_entidx2name') for kind in kinds}
        relations = _labels(mapping, 'relidx2relname')
    else:
        labels, relations = {'': _labels(mapping, 'nodeidx2entityid')}, _labels(mapping, 'reltype2relid')
    entities = [f'{kind}:{label}' if kind else label for kind, names in labels.items() for label in names]
    facts = {split: _facts(files[split], part, labels, len(relations)) for split, part in parts.items()}
    unread = sorted({key for part in parts.values() for key in part if key.endswith('_neg')})
    if unread:
        warn(f'{folder}: {", ".join(unread)} are not read; facts are ranked among all entities, unless '
             'candidates say otherwise', DataWarning)
    return NumberedFacts(facts, entities, relations)


def _part(path: Path) -> dict[str, Any]:
    from numpy._core.multiarray import _reconstruct

    # Nothing but arrays and what they are made of is unpickled. NumPy 1 knew the function by another name.
    kinds = [getattr(np.dtypes, f'{name}DType') for name in ('Int64', 'Int32', 'Int16', 'Float64', 'Float32', 'Bool')]
    allowed = [np.ndarray, np.dtype, *kinds, _reconstruct, (_reconstruct, 'numpy.core.multiarray._reconstruct')]
    try:
        with torch.serialization.safe_globals(allowed):
            part = torch.load(path, weights_only=True, map_location='cpu')
    except pickle.UnpicklingError as error:
        raise DataError(f'{path}: damaged, or not a file of OGB: expected only arrays, tensors and text') from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(f'{path}: not an intact file of OGB ({" ".join(str(error).split()):.200})') from error
    if not isinstance(part, dict) or any(key not in part for key in _COLUMNS):
        keys = ', '.join(map(str, part)) if isinstance(part, dict) else type(part).__name__
        raise DataError(f'{path}: expected the arrays head, relation and tail of a knowledge graph, got {keys}; give '
                        'a graph without relations as a Data of PyG')
    return part


def _facts(path: Path, part: dict[str, Any], labels: dict[str, list[str]], num_relations: int) -> np.ndarray:
    columns = [_column(path, part, name) for name in _COLUMNS]
    if len({len(column) for column in columns}) != 1:
        raise DataError(f'{path}: head, relation and tail have {", ".join(str(len(column)) for column in columns)} '
                        'values; expected the same number')
    sizes = np.array([len(names) for names in labels.values()])
    starts = dict(zip(labels, np.cumsum([0, *sizes]).tolist()))
    facts = np.stack(columns, axis=1)
    for position, end in ((0, 'head'), (2, 'tail')):
        if '' in labels:
            continue
        kinds = pd.Series(part[f'{end}_type'])
        if len(kinds) != len(facts):
            raise DataError(f'{path}: {end}_type has {len(kinds)} values, {end} has {len(facts)}')
        size = kinds.map({kind: len(names) for kind, names in labels.items()}).to_numpy()
        wrong = (facts[:, position] < 0) | (facts[:, position] >= size)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f'{path}: {end} {row} is {facts[row, position]}, but there are {size[row]} nodes of type '
                            f'{kinds[row]!r}')
        facts[:, position] += kinds.map(starts).to_numpy()
    check_ids(facts, int(sizes.sum()), num_relations, lambda row: f'{path}: fact {row}')
    return facts


def _column(path: Path, part: dict[str, Any], name: str) -> np.ndarray:
    values = part[name].numpy() if isinstance(part[name], Tensor) else part[name]
    if not isinstance(values, np.ndarray) or values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        found = f'{values.dtype} of shape {values.shape}' if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f'{path}: expected {name} to be integers of shape (F,), got {found}')
    return values.astype(np.int64)


def _labels(mapping: Path, name: str) -> list[str]:
    path = next((path for path in (mapping / f'{name}.csv.gz', mapping / f'{name}.csv') if path.is_file()), None)
    if path is None:
        raise DataError(f'{mapping / name}.csv.gz: no such file; expected the labels of OGB')
    try:
        with opened(path) as handle:
            table = pd.read_csv(handle, dtype=str, keep_default_na=False)
        return labels_by_id(table.iloc[:, 0].astype('int64').to_numpy(), list(table.iloc[:, 1]), str(path))
    except (ValueError, IndexError, pd.errors.ParserError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{path}: expected two columns, ids and labels ({error})') from error
