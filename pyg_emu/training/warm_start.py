r"""Training from given vectors: those of another model, or of descriptions of the entities."""
from __future__ import annotations

import os
from typing import Any, Callable, NamedTuple, Optional, Union

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.nn import kge

from pyg_emu.core.arguments import instance, shown
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.checks import SIZES, check_sizes
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.vectors import read_vectors
from pyg_emu.data.labels import label_of
from pyg_emu.models.adapters import unwrap
from pyg_emu.models.base import KGEScorer
from pyg_emu.models.encoders import RGCN
from pyg_emu.models.reciprocal import Reciprocal

#: Vectors by label: a table, or a file for :func:`~pyg_emu.data.io.read_vectors`.
Vectors = Union[pd.DataFrame, str, os.PathLike]


def warm_start(model: torch.nn.Module, data: KGData, entities: Optional[Vectors] = None,
               relations: Optional[Vectors] = None) -> None:
    r"""Replaces initial vectors of a model by given ones. Entities and relations without a given vector keep theirs; a
    warning counts them.

    .. code-block:: python

        model = DistMult(data.num_nodes, data.num_relations, 100)
        warm_start(model, data, embeddings(other_model, other_data))       # by label
        warm_start(model, data, 'entities.parquet', 'relations.parquet')   # files of pyg-emu export

    The vectors are those that :func:`~pyg_emu.embeddings` returns: rows of complex models are
    :math:`[\mathrm{re}, \mathrm{im}]`. An :class:`~pyg_emu.RGCN` gets them as input of its first layer. Reciprocal
    relations keep their initial vectors.

    Args:
        model (torch.nn.Module): A model with an embedding for each entity: one of :mod:`pyg_emu.models`, a class
            derived from :class:`~pyg_emu.models.KGEScorer`, or one of PyG's KGE layers. It is changed in place.
        data (KGData): The labels. Where there are none, ids serve as such.
        entities (pandas.DataFrame or str or os.PathLike, optional): A row for each label in the index, or a file for
            :func:`~pyg_emu.data.io.read_vectors` (Parquet, safetensors, the text format of word2vec).
            (default: :obj:`None`)
        relations (pandas.DataFrame or str or os.PathLike, optional): The same for relations. (default: :obj:`None`)

    Raises:
        ArgumentError: If the model has no such embeddings, its sizes do not match the data, or vectors have another
            width than its rows.
        DataError: If a file cannot be read, a vector is not finite, a label has two vectors, or no label is one of the
            data.
    """
    instance('data', data, KGData)
    for kind, vectors in (('entity', entities), ('relation', relations)):
        if vectors is not None:
            fill_rows(model, data, kind, vectors)


def fill_rows(model: Any, data: KGData, kind: str, vectors: Vectors, first: int = 0) -> int:
    r"""Replaces vectors of entities or relations from an id on, see :func:`warm_start`.

    Args:
        model (torch.nn.Module): The model.
        data (KGData): The labels.
        kind (str): :obj:`"entity"` or :obj:`"relation"`.
        vectors (pandas.DataFrame or str or os.PathLike): The vectors.
        first (int, optional): The first id whose vector may change. (default: :obj:`0`)

    Returns:
        The number of vectors that were replaced.
    """
    argument = {'entity': 'entities', 'relation': 'relations'}[kind]
    table = _table(model, kind)
    check_sizes(unwrap(model), data, equal=SIZES)
    labels, given = _checked(argument, vectors)
    if given.shape[1] != table.width:
        name = type(unwrap(model)).__name__
        raise ArgumentError(f'{argument}: expected vectors of {table.width} components, as {name} has for each {kind}, '
                            f'got {given.shape[1]}')
    own, size = (data.entity_labels, data.num_nodes) if kind == 'entity' else (data.relation_labels, data.num_relations)
    names = pd.Index([str(number) for number in range(size or 0)] if own is None else list(own), dtype=object)
    place = names.get_indexer(labels)
    if not (place >= 0).any():
        raise DataError(f'{argument}: none of the {len(labels)} labels, such as {labels[0]!r}, is one of the '
                        f'{len(names)} {argument} of the data, such as {names[0]!r}')
    there = np.zeros(len(names), dtype=bool)
    there[place[place >= 0]] = True
    _tell(argument, names[first:], there[first:], labels[place < 0])
    used = place >= first
    with torch.no_grad():
        table.write(torch.from_numpy(place[used]), torch.from_numpy(np.ascontiguousarray(given[used])))
    return int(used.sum())


class _Table(NamedTuple):
    r"""The embeddings of a model.

    Args:
        width (int): The number of components of a vector.
        write (callable): Writes vectors :obj:`(n, width)` to rows :obj:`(n,)`.
    """
    width: int
    write: Callable[[Tensor, Tensor], None]


def _table(model: Any, kind: str) -> _Table:
    scorer = unwrap(model)
    while isinstance(scorer, (Reciprocal, RGCN)):
        scorer = scorer.model if isinstance(scorer, Reciprocal) else scorer.decoder
    name = 'node_emb' if kind == 'entity' else 'rel_emb'
    held = [getattr(scorer, part, None) for part in (name, f'{name}_im')]
    parts = [part.weight for part in held if isinstance(part, torch.nn.Embedding)]
    if not isinstance(scorer, kge.KGEModel) or not parts:
        what = 'whose rows are divided among processes' if held[0] is not None else f'without a row for each {kind}'
        raise ArgumentError(f'model: expected a model with a row for each {kind} to start from given vectors, got '
                            f'{shown(scorer)}, {what}')
    convert = _conversion(scorer, kind)
    width = sum(part.size(1) for part in parts)
    if kind == 'relation' and isinstance(scorer, KGEScorer):
        width = scorer.relation_rows(torch.zeros(1, dtype=torch.int64, device=parts[0].device), 'tail').size(-1)
    elif kind == 'relation' and isinstance(scorer, kge.RotatE):
        width *= 2

    def write(index: Tensor, rows: Tensor) -> None:
        rows = convert(rows.to(parts[0]))
        for part, own in zip(parts, rows.split([part.size(1) for part in parts], dim=1)):
            part[index.to(part.device)] = own

    return _Table(width, write)


def _conversion(scorer: Any, kind: str) -> Callable[[Tensor], Tensor]:
    r"""From vectors as they are scored to rows as they are stored."""
    if kind == 'relation' and isinstance(scorer, kge.RotatE):
        return lambda rows: torch.atan2(*reversed(rows.chunk(2, dim=1)))
    if kind == 'relation' and isinstance(scorer, KGEScorer):
        own = type(scorer)
        if own.relation_rows is not KGEScorer.relation_rows and own.relation_parameters is (
                KGEScorer.relation_parameters):
            raise ArgumentError(f'model: {own.__name__} computes its relation vectors and does not say from which '
                                'parameters; implement relation_parameters(rows)')
        return scorer.relation_parameters
    return lambda rows: rows


def _checked(argument: str, vectors: Any) -> tuple[pd.Index, np.ndarray]:
    r"""The labels and the rows of given vectors."""
    if isinstance(vectors, (str, os.PathLike)):
        vectors = read_vectors(vectors)
    if not isinstance(vectors, pd.DataFrame):
        raise ArgumentError(f'{argument}: expected a DataFrame with a row for each label, or the path of a file of '
                            f'vectors, got {shown(vectors)}')
    if vectors.empty or not all(map(pd.api.types.is_numeric_dtype, vectors.dtypes)):
        kinds = ', '.join(sorted({str(kind) for kind in vectors.dtypes}))
        raise DataError(f'{argument}: expected rows of numbers with labels as index, got a table of shape '
                        f'{vectors.shape} with columns of {kinds or "no type"}')
    labels, rows = pd.Index([label_of(label) for label in vectors.index], dtype=object), vectors.to_numpy(np.float64)
    if not labels.is_unique:
        raise DataError(f'{argument}: expected one vector for each label, got several for '
                        f'{labels[labels.duplicated()][0]!r}')
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise DataError(f'{argument}: the vector of {labels[int((~finite).argmax())]!r} is not finite')
    return labels, rows


def _tell(argument: str, names: pd.Index, there: np.ndarray, unknown: pd.Index) -> None:
    if not there.all():
        missing = names[~there]
        warn(f'{argument}: {len(missing)} of {len(names)} have no given vector and keep their initial one: '
             f'{_examples(missing)}', DataWarning)
    if len(unknown) > 0:
        warn(f'{argument}: {len(unknown)} of the given vectors have labels that the data does not have, and '
             f'are not used: {_examples(unknown)}', DataWarning)


def _examples(labels: pd.Index) -> str:
    return f'{", ".join(map(repr, labels[:3]))}{", ..." if len(labels) > 3 else ""}'
