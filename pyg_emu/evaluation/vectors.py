r"""The vectors of entities and relations by label, and which entities are near one another."""
from __future__ import annotations

from typing import Any, Literal, Optional

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import one_of, positive_integer
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError, DivergenceError
from pyg_emu.core.mapped_table import is_mapped, read_in_order
from pyg_emu.core.memory import check_fits, memory_reported
from pyg_emu.core.modes import evaluating
from pyg_emu.core.precision import without_autocast
from pyg_emu.data.candidates import Members, Names, ids_of, members
from pyg_emu.data.checks import SIZES, check_sizes
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.ranking import MEMORY_REMEDY, check_graph, scorer_of, whole_table
from pyg_emu.ops.rank_counts import default_block_size

Kind = Literal['entity', 'relation']
KINDS = ('entity', 'relation')
Similarity = Literal['cosine', 'dot', 'euclidean']
SIMILARITIES = ('cosine', 'dot', 'euclidean')


def embeddings(model: Any, data: KGData, kind: Kind = 'entity') -> pd.DataFrame:
    r"""Returns the vectors of all entities or relations.

    .. code-block:: python

        embeddings(model, data).loc['virus']     # a Series of d numbers
        embeddings(model, data).to_numpy()       # (num_nodes, d), in the order of the ids

    The rows of complex models are :math:`[\mathrm{re}, \mathrm{im}]`. Entity vectors are those that candidates are
    scored by, so that those of PyG's TransE are normalised and those of a graph encoder are encoded.

    Args:
        model (Scorer or torch.nn.Module): A model with a vector for each entity.
        data (KGData): The labels, on the device of the model.
        kind (str, optional): :obj:`"entity"` or :obj:`"relation"`. (default: :obj:`"entity"`)

    Returns:
        pandas.DataFrame: A row for each one. The index holds the labels, or the ids if there are none.

    Raises:
        ArgumentError: If the model has no vectors, or its sizes do not match the data.
    """
    check_graph(data)
    one_of('kind', kind, KINDS)
    with memory_reported('the table of vectors', MEMORY_REMEDY), evaluating(model), torch.no_grad():
        rows = _rows(model, data, kind).cpu()
        rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
        labels = data.entity_labels if kind == 'entity' else data.relation_labels
        index = pd.RangeIndex(len(rows), name=kind) if labels is None else pd.Index(labels, dtype=object, name=kind)
        with read_in_order(rows):
            return pd.DataFrame(rows.numpy().copy(), index=index)


def _rows(model: Any, data: KGData, kind: Kind) -> Tensor:
    scorer: Optional[Scorer] = scorer_of(model, data)
    if scorer is None:
        raise ArgumentError('model: expected a model with a vector for each entity, got a function of scores')
    check_sizes(scorer, data, equal=SIZES)
    if kind == 'entity':
        table = whole_table(scorer, data).detach()
        if is_mapped(table):  # and may exceed the memory, where a copy would end the process
            check_fits(2 * table.nbytes, 'a copy of all entity rows', "open the .npy file in the run's folder tables "
                       "with np.load(path, mmap_mode='r')")
        return table
    rows = getattr(scorer, 'relation_rows', None)
    if rows is None:
        raise ArgumentError(f'model: {type(scorer).__name__} has no relation_rows(rel_type, side), which returns the '
                            'vectors of relations')
    found: Tensor = rows(torch.arange(data.num_relations, device=data.device), 'tail').detach()
    return found


def neighbors(
    model: Any,
    data: KGData,
    entities: Names,
    k: int = 10,
    *,
    similarity: Similarity = 'cosine',
    candidates: Optional[Members] = None,
) -> pd.DataFrame:
    r"""Returns the entities whose vectors are most similar to those of some entities.

    .. code-block:: python

        neighbors(model, data, ['virus', 'bacterium'], k=5)   # five rows for each of the two

    Args:
        model (Scorer or torch.nn.Module): A model with a vector for each entity.
        data (KGData): The labels, on the device of the model.
        entities (str or int or sequence): The entities: labels or ids.
        k (int, optional): The number of neighbours of each. (default: :obj:`10`)
        similarity (str, optional): :obj:`"cosine"`, :obj:`"dot"` or :obj:`"euclidean"` (the negative distance).
            (default: :obj:`"cosine"`)
        candidates (sequence, optional): The entities that may be neighbours: labels or ids, or a boolean mask.
            (default: :obj:`None`, all)

    Returns:
        pandas.DataFrame: A row for each neighbour, the nearest first: :obj:`entity`, :obj:`neighbor` (labels, or ids if
        there are none), :obj:`rank` from 1, and :obj:`similarity`. An entity is not its own neighbour. Equal ones are
        ordered by id.

    Raises:
        ArgumentError: If an argument is outside its domain, or the model has no vectors.
        DataError: If a label does not exist.
        DivergenceError: If a vector holds NaN or infinity.
    """
    check_graph(data)
    k = positive_integer('k', k)
    one_of('similarity', similarity, SIMILARITIES)
    asked = ids_of('entities', entities, data, 'entity')
    answers = None if candidates is None else members('candidates', candidates, data, 'entity')
    with memory_reported('the search for neighbours', MEMORY_REMEDY), evaluating(model), torch.no_grad():
        table = _rows(model, data, 'entity')
        if is_mapped(table):  # of which it needs all, more than once
            with read_in_order(table):
                table = table.clone()
        table = table.float()
        if not bool(table.isfinite().all()):
            row = int((~table.isfinite().all(1)).nonzero()[0, 0])
            name = row if data.entity_labels is None else repr(data.entity_labels[row])
            raise DivergenceError(f'model: the vector of the entity {name} is not finite')
        table = F.normalize(table, dim=1) if similarity == 'cosine' else table
        answers = torch.arange(len(table), device=table.device) if answers is None else answers
        others, parts = table[answers], []
        for block in asked.split(default_block_size(answers.numel(), 4)):
            if similarity == 'euclidean':
                scores = -torch.cdist(table[block], others, compute_mode='donot_use_mm_for_euclid_dist')
            else:
                with without_autocast(table):
                    scores = table[block] @ others.t()
            order = scores.argsort(dim=1, descending=True, stable=True)
            keep = answers[order] != block.unsqueeze(1)
            rank = keep.cumsum(1)
            query, place = (keep & (rank <= k)).nonzero().unbind(1)
            found = order[query, place]
            parts.append((block[query], answers[found], rank[query, place], scores[query, found]))
    entity, neighbor, ranks, values = (torch.cat(column).cpu().numpy() for column in zip(*parts))
    return pd.DataFrame({'entity': _names(data, entity), 'neighbor': _names(data, neighbor), 'rank': ranks,
                         'similarity': values})


def _names(data: KGData, ids: np.ndarray) -> Any:
    return ids if data.entity_labels is None else pd.array(data.entity_labels, dtype=object).take(ids)
