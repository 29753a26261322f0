r"""Models of PyKEEN as models of this package and of PyG, with the same scores."""
from __future__ import annotations

import math
from typing import Any, Optional

import torch
from torch import Tensor

from pyg_emu.core.contract import is_scorer
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.models.complex import ComplEx
from pyg_emu.models.distmult import DistMult
from pyg_emu.models.reciprocal import Reciprocal
from pyg_emu.models.rotate import RotatE
from pyg_emu.models.transe import TransE


def from_pykeen_model(model: Any, data: Optional[KGData] = None, factory: Any = None) -> torch.nn.Module:
    r"""Returns a model with the tables, and so the scores, of a model of PyKEEN.

    .. code-block:: python

        result = pykeen.pipeline.pipeline(dataset='nations', model='ComplEx')
        data = load_dataset(result.training)                    # keeps PyKEEN's ids
        model = from_pykeen_model(result.model)
        model = from_pykeen_model(result.model, load_dataset('path/to/nations'), result.training)  # by label

    TransE, DistMult and ComplEx become models of this package. RotatE becomes
    :class:`torch_geometric.nn.RotatE` if its norm is 2, PyKEEN's default, or :class:`~pyg_emu.RotatE` if it is 1. The
    margin is 0. A model that was trained with inverse triples (:obj:`create_inverse_triples=True`) becomes a
    :class:`~pyg_emu.Reciprocal`, which predicts heads by the inverse relations, as PyKEEN does
    (RotatE: if its norm is 1).

    Args:
        model (pykeen.models.Model): TransE, DistMult, ComplEx or RotatE.
        data (KGData, optional): A graph whose entities and relations the rows belong to, by label.
            (default: :obj:`None`, rows keep PyKEEN's ids)
        factory (pykeen.triples.TriplesFactory, optional): The labels of PyKEEN's ids; needed with :obj:`data`.
            (default: :obj:`None`)

    Raises:
        ArgumentError: If the model is another one, or its interaction has options that this package does not score.
        DataError: If a label of :obj:`data` is not one of PyKEEN's.
    """
    name = type(model).__name__
    if name not in ('TransE', 'DistMult', 'ComplEx', 'RotatE') or not hasattr(model, 'entity_representations'):
        raise ArgumentError(f'model: expected TransE, DistMult, ComplEx or RotatE of PyKEEN, got {name}')
    if getattr(model.interaction, 'power_norm', False):
        raise ArgumentError(f'model: {name} with power_norm=True has scores that this package does not compute')
    with torch.no_grad():
        entities, relations = (parts[0]().detach().cpu() for parts in (model.entity_representations,
                                                                       model.relation_representations))
    # PyKEEN puts the inverse of relation r, which has the row 2r, after it.
    inverse = bool(getattr(model, 'use_inverse_triples', False))
    blocks = [relations[0::2], relations[1::2]] if inverse else [relations]
    if data is not None:
        entities = entities[_order('entity', data.entity_labels, getattr(factory, 'entity_to_id', None))]
        order = _order('relation', data.relation_labels, getattr(factory, 'relation_to_id', None))
        blocks = [block[order] for block in blocks]
    elif factory is not None:
        raise ArgumentError('factory: its labels are for data=, the graph whose ids the rows get; give both or neither')
    made = _converted(name, model.interaction, entities, torch.cat(blocks))
    if inverse and not is_scorer(made):  # a layer of PyG
        raise ArgumentError(f'model: expected {name} with the norm p=1, or without inverse triples, got '
                            f'p={model.interaction.p} with them')
    return Reciprocal(made) if inverse else made


def _converted(name: str, interaction: Any, entities: Tensor, relations: Tensor) -> torch.nn.Module:
    sizes, width = (len(entities), len(relations)), entities.size(1)
    norm = getattr(interaction, 'p', None)
    made: torch.nn.Module
    if name == 'DistMult':
        made = DistMult(*sizes, width)
    elif name == 'TransE':
        made = TransE(*sizes, width, margin=0.0, p_norm=norm)  # type: ignore[arg-type]
    elif name == 'ComplEx':
        made, entities, relations = ComplEx(*sizes, width), _joined(entities), _joined(relations)
    elif norm == 2:
        from torch_geometric.nn import RotatE as RotatELayer

        made = RotatELayer(*sizes, width, margin=0.0)
        _fill(made, {'node_emb': entities.real, 'node_emb_im': entities.imag, 'rel_emb': relations.angle()})
        return made
    elif norm == 1:
        made = RotatE(*sizes, width, margin=0.0)
        entities, relations = _joined(entities), relations.angle() * (made.init_bound / math.pi)
    else:
        raise ArgumentError(f'model: expected RotatE with the norm p=1 or p=2, got p={norm}')
    _fill(made, {'node_emb': entities, 'rel_emb': relations})
    return made


def _fill(made: Any, tables: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, rows in tables.items():
            getattr(made, name).weight.copy_(rows)


def _joined(rows: Tensor) -> Tensor:
    return torch.cat([rows.real, rows.imag], dim=1)


def _order(kind: str, labels: Optional[list[str]], ids: Any) -> Tensor:
    if labels is None or ids is None:
        raise ArgumentError(f'data, factory: expected labels of each {kind} on both sides; pass a graph with labels '
                            'and the TriplesFactory that the model was trained on')
    missing = [label for label in labels if label not in ids]
    if missing:
        raise DataError(f'data: PyKEEN has no row for {len(missing)} of the {len(labels)} {kind} labels, such as '
                        f'{missing[0]!r}')
    return torch.tensor([ids[label] for label in labels])
