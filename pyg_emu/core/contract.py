r"""What a model, a sampler and a mutation must offer each other, and how PyG's own layers come to offer it.

All that scores, samples, mutates or ranks in this package speaks to these protocols and to nothing more concrete.
:func:`as_scorer` turns a model that a user already has into a :class:`Scorer`.
"""
from __future__ import annotations

from typing import Any, Iterator, Literal, NamedTuple, Optional, Protocol, Union, runtime_checkable

import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Interaction

#: Which end of a triple is to be predicted: :obj:`"tail"`, :obj:`"head"`, or, row by row, a boolean tensor of shape
#: :obj:`(B,)` that is true where the tail is.
Side = Union[Literal['tail', 'head'], Tensor]


@runtime_checkable
class Scorer(Protocol):
    r"""A model that factors into queries and candidates: :math:`s = \gamma + \phi(\mathbf{q}, \mathbf{x})`."""
    num_nodes: int
    num_relations: int
    #: :math:`\phi`.
    interaction: Interaction
    #: :math:`\gamma`, the constant part of every score.
    offset: float
    #: Whether gradients of the entity table are to be row-sparse.
    sparse: bool

    def query(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Queries :obj:`(B, d_q)` from the known entities :obj:`(B,)` and the relations :obj:`(B,)`."""

    def entity_table(self) -> Tensor:
        r"""All candidates. shape: :obj:`(num_nodes, d)`."""

    def candidates(self, index: Tensor) -> Tensor:
        r"""The candidates at :obj:`index` :obj:`(...)`. shape: :obj:`(..., d)`."""

    def score(self, query: Tensor, candidates: Tensor) -> Tensor:
        r"""Scores :obj:`(B,)` of candidates :obj:`(B, d)`, or :obj:`(B, K)` of candidates :obj:`(B, K, d)`."""

    def score_all(self, query: Tensor) -> Tensor:
        r"""Scores of every entity. shape: :obj:`(B, num_nodes)`."""

    def embedding_weights(self) -> Iterator[Tensor]:
        r"""The tables that norm regularisers act on, entities first."""


class Negatives(NamedTuple):
    r"""Candidate ids that a sampler drew.

    Args:
        index (torch.Tensor): Entity ids. shape: :obj:`(B, N)`, int64.
        mask (torch.Tensor, optional): True where the slot counts, or :obj:`None` where all do. shape: :obj:`(B, N)`.
    """
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index
    mask: Optional[Tensor] = None


@runtime_checkable
class Sampler(Protocol):
    r"""Where negative candidates come from. A batch is a :class:`~pyg_emu.KGData` made by the loader."""

    def sample(self, batch: Any, num_negatives: int, generator: Optional[torch.Generator] = None) -> Negatives:
        r"""Draws candidates for the unknown end of each triple of :obj:`batch`."""

    def update(self, batch: Any, scorer: Scorer) -> None:
        r"""Learns from the current model; called once a step, before the loss. Most samplers do nothing."""


class ScorerMixin:
    r"""Every scoring route of a :class:`Scorer`, derived from three: :obj:`_query`, :obj:`entity_table` and
    :attr:`interaction`. All routes agree because they are one.

    It fits around whatever makes entity vectors, such as a graph encoder, which then runs once a step:

    .. code-block:: python

        class Decoder(ScorerMixin):
            interaction = Dot()

            def __init__(self, entities, relations):
                self.entities, self.relations = entities, relations
                self.num_nodes, self.num_relations = len(entities), len(relations)

            def entity_table(self):
                return self.entities

            def _query(self, known, rel_type, side):
                return self.entities[known] * self.relations[rel_type]

        loss = criterion(Decoder(encoder(x, edge_index), relations), batch)
    """
    num_nodes: int
    num_relations: int
    interaction: Interaction
    offset: float = 0.0
    sparse: bool = False
    #: Whether rows are complex vectors :math:`[\mathrm{re}, \mathrm{im}]`.
    complex_rows: bool = False

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        raise NotImplementedError

    def entity_table(self) -> Tensor:
        raise NotImplementedError

    def query(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        if isinstance(side, str):
            if side not in ('tail', 'head'):
                raise ValueError(f"side must be 'tail', 'head' or a boolean tensor, got {side!r}")
            return self._query(known, rel_type, side)
        tails = self._query(known, rel_type, 'tail')
        heads = self._query(known, rel_type, 'head')
        return torch.where(side.unsqueeze(-1), tails, heads)

    def candidates(self, index: Tensor) -> Tensor:
        return self.entity_table()[index]

    def score(self, query: Tensor, candidates: Tensor) -> Tensor:
        if candidates.dim() == query.dim() + 1:
            query = query.unsqueeze(-2)
        return self.offset + self.interaction(query, candidates)

    def score_all(self, query: Tensor) -> Tensor:
        table = self.entity_table()
        if self.interaction.matrix_product:
            return self.offset + query @ table.t()
        return self.offset + self.interaction(query.unsqueeze(-2), table)

    def embedding_weights(self) -> Iterator[Tensor]:
        r"""The tables that norm regularisers act on, entities first."""
        raise ArgumentError(f'model: {type(self).__name__} does not say which tables a penalty acts on; implement '
                            'embedding_weights()')

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        r"""The relation vectors that the queries of :obj:`side` are made with, for penalties on them.
        shape: :obj:`(B, d_r)`.
        """
        raise ArgumentError(f'model: {type(self).__name__} does not say which vectors its relations have; implement '
                            'relation_rows(rel_type, side)')

    def triple_score(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Scores :obj:`(B,)` of whole triples, by predicting the tail."""
        return self.score(self.query(head_index, rel_type, 'tail'), self.candidates(tail_index))
