r"""What models offer to samplers, losses and rankings: queries, candidates and scores.

Everything that samples, mutates, trains or ranks uses :class:`Scorer` and nothing more concrete.
:func:`~pyg_emu.as_scorer` turns a model that a user already has into one.
"""
from __future__ import annotations

from typing import Any, Iterator, Literal, NamedTuple, Optional, Protocol, TypeGuard, Union, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import ids_in, kind_of, on_device, same_length_ids, shown, tensors
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Interaction
from pyg_emu.core.precision import without_autocast

#: The end of each triple that is predicted: :obj:`"tail"`, :obj:`"head"`, or a boolean tensor of shape :obj:`(B,)` that
#: is true where the tail is predicted.
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
    #: Whether gradients with respect to the entity table are row-sparse.
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


#: All attributes and methods of a scorer.
_MEMBERS = (*Scorer.__annotations__, *(name for name in vars(Scorer) if callable(getattr(Scorer, name))
                                       and not name.startswith('_')))


def is_scorer(value: Any) -> TypeGuard[Scorer]:
    r"""Whether a value has all members of a :class:`Scorer`. Several times a training step :func:`isinstance`, which
    collects the members anew each time, would take a percent of the step.
    """
    return all(hasattr(value, member) for member in _MEMBERS)


def check_scorer(name: str, value: Any) -> None:
    r"""Checks that a value is a scorer.

    Args:
        name (str): The name of the argument, for the message.
        value (Scorer): The value to check.

    Raises:
        ArgumentError: If it is not, or a class instead of an instance.
    """
    if isinstance(value, type) or not is_scorer(value):
        raise ArgumentError(f'{name}: expected a pyg_emu.Scorer, such as as_scorer(model), got {shown(value)}')


def for_batch(scorer: Scorer, batch: Any) -> Scorer:
    r"""Returns the scorer of a batch: :obj:`scorer` itself, unless its entity vectors are computed from a graph, as
    those of :class:`~pyg_emu.models.RGCN` are. Such a scorer has a method :obj:`for_batch(batch)`, which encodes the
    entities once a step.

    Losses call it, and so does whatever else reads vectors while a batch is drawn or trained on.

    Args:
        scorer (Scorer): The model.
        batch (Batch): The batch.
    """
    encode = getattr(scorer, 'for_batch', None)
    return scorer if encode is None else encode(batch)


def for_graph(scorer: Scorer, data: Any) -> Scorer:
    r"""Returns the scorer of a graph: :obj:`scorer` itself, unless its entity vectors are computed from a graph. Such a
    scorer has a method :obj:`for_graph(data)`, which encodes the entities from all training facts.

    Args:
        scorer (Scorer): The model.
        data (KGData): The graph.
    """
    encode = getattr(scorer, 'for_graph', None)
    return scorer if encode is None else encode(data)


class ScoredBatch(NamedTuple):
    r"""The scores that a loss is computed from. Negatives are the :math:`N` ids of a batch, followed by its :math:`M`
    vectors.

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        vanilla (torch.Tensor, optional): Scores of the negatives as they are, if wanted. shape: :obj:`(B, N + M)`.
        mutated (torch.Tensor, optional): Scores of the mutated negatives, if there is a mutation. Unless the loss
            mutates vectors, too, their scores are the vanilla ones. shape: :obj:`(B, N + M)`.
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N + M)`. (default: :obj:`None`,
            all count)
        label (torch.Tensor, optional): The labels of the mutated ids, if the plan of the mutation holds labels.
            shape: :obj:`(B, N)`. (default: :obj:`None`)
        weight (torch.Tensor, optional): The weights of the triples. shape: :obj:`(B,)`. (default: :obj:`None`, all
            count equally)
    """
    positive: Tensor
    vanilla: Optional[Tensor]
    mutated: Optional[Tensor]
    mask: Optional[Tensor]
    label: Optional[Tensor] = None
    weight: Optional[Tensor] = None

    @property
    def hardest(self) -> Tensor:
        r"""The mutated scores, or the vanilla ones where nothing is mutated."""
        scores = self.vanilla if self.mutated is None else self.mutated
        assert scores is not None
        return scores

    def labels(self, default: float) -> Union[float, Tensor]:
        r"""The labels of :attr:`hardest`: those of the plan, :obj:`default` for vectors; or :obj:`default` for all if
        the plan has none.
        """
        if self.label is None:
            return default
        missing = self.hardest.size(1) - self.label.size(1)
        return self.label if missing == 0 else F.pad(self.label, (0, missing), value=default)

    def detach(self) -> ScoredBatch:
        r"""The same scores without their gradients."""
        others = (value if value is None else value.detach() for value in self[1:])
        return ScoredBatch(self.positive.detach(), *others)


class ScorerMixin:
    r"""Derives every method of a :class:`Scorer` from :obj:`_query`, :obj:`entity_table` and :attr:`interaction`, so
    that all of them agree. The public methods check their arguments and leave the work to :obj:`_query` and
    :obj:`_candidates`, which a subclass overrides. The range of ids is checked on the CPU; on a GPU the host would have
    to wait for it.

    It can wrap anything that computes entity vectors, such as a graph encoder, which then runs once a step:

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
    #: Whether :meth:`relation_rows` of heads are those of inverse relations with vectors of their own.
    reciprocal: bool = False
    #: Whether queries are the same for both sides, so that one of them is enough for a batch of both. It is a fact
    #: about :obj:`_query`, so a subclass that overrides it does not inherit it.
    symmetric: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if '_query' in vars(cls):
            cls.symmetric = vars(cls).get('symmetric', False)

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        raise NotImplementedError

    def entity_table(self) -> Tensor:
        raise NotImplementedError

    def _candidates(self, index: Tensor) -> Tensor:
        return self.entity_table()[index]

    def _device(self) -> Optional[torch.device]:
        r"""The device of ids, or :obj:`None` if it is not known without computing vectors."""
        return None

    def query(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Returns the queries of known entities and relations.

        Args:
            known (torch.Tensor): The known entities: heads where the tail is predicted, tails where the head is.
                shape: :obj:`(B,)`, int64.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`, int64.
            side (str or torch.Tensor): The predicted end: :obj:`"tail"`, :obj:`"head"`, or a boolean tensor of shape
                :obj:`(B,)`, true where the tail is predicted.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, d_q)`.

        Raises:
            ArgumentError: If an argument has the wrong type, shape or device, or an id is out of range.
        """
        same_length_ids(known=(known, self.num_nodes), rel_type=(rel_type, self.num_relations))
        _check_side(side, known)
        device = self._device()
        if device is not None:
            on_device('known', known, device, 'the model')
        if isinstance(side, str) or self.symmetric:
            return self._query(known, rel_type, side if isinstance(side, str) else 'tail')
        tails = self._query(known, rel_type, 'tail')
        heads = self._query(known, rel_type, 'head')
        return torch.where(side.unsqueeze(-1), tails, heads)

    def candidates(self, index: Tensor) -> Tensor:
        r"""Returns the candidate rows of entities.

        Args:
            index (torch.Tensor): The entities. shape: :obj:`(...)`, int64.

        :rtype: :class:`torch.Tensor` of shape :obj:`(..., d)`.

        Raises:
            ArgumentError: If :obj:`index` has the wrong type or device, or an id is out of range.
        """
        ids_in('index', index, self.num_nodes)
        device = self._device()
        if device is not None:
            on_device('index', index, device, 'the model')
        return self._candidates(index)

    def score(self, query: Tensor, candidates: Tensor) -> Tensor:
        r"""Returns the scores of some candidates of each query.

        Args:
            query (torch.Tensor): The queries. shape: :obj:`(B, d_q)`.
            candidates (torch.Tensor): One candidate of each query, shape :obj:`(B, d)`, or several, shape
                :obj:`(B, K, d)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B,)` or :obj:`(B, K)`.

        Raises:
            ArgumentError: If a shape does not fit the other one, or an argument is of another type.
        """
        _check_vectors('candidates', candidates, self.interaction.parts)
        _check_query(query, candidates, self.interaction)
        rows, others = query.shape[:-1], candidates.shape[:query.dim() - 1]
        if candidates.dim() - query.dim() not in (0, 1) or any(
                one != other and 1 not in (one, other) for one, other in zip(rows, others)):
            shape = ''.join(f'{size}, ' for size in rows)
            raise ArgumentError(f'candidates: expected shape ({shape}d) or ({shape}K, d), a row or several for '
                                f'each query of shape {tuple(query.shape)}, got {tuple(candidates.shape)}')
        if candidates.dim() == query.dim() + 1:
            query = query.unsqueeze(-2)
        return self.offset + self.interaction(query, candidates)

    def score_all(self, query: Tensor) -> Tensor:
        r"""Returns the scores of all entities for each query, with gradients.

        Dot products are one matrix product. Other interactions create a tensor of shape :obj:`(B, num_nodes, d)`.
        Without gradients, :func:`~pyg_emu.evaluate`, :func:`~pyg_emu.predict` and :func:`~pyg_emu.ops.score_entities`
        do without it, and so do losses against all entities, such as :class:`~pyg_emu.OneVsAllEMULoss`.

        Args:
            query (torch.Tensor): The queries. shape: :obj:`(B, d_q)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, num_nodes)`.

        Raises:
            ArgumentError: If :obj:`query` has the wrong type, shape or device.
        """
        table = self.entity_table()
        _check_query(query, table, self.interaction)
        with without_autocast(table):
            if self.interaction.matrix_product:
                # Unlike the other interactions, a matrix product does not promote.
                dtype = torch.promote_types(query.dtype, table.dtype)
                return self.offset + query.to(dtype) @ table.t().to(dtype)
            return self.offset + self.interaction(query.unsqueeze(-2), table)

    def embedding_weights(self) -> Iterator[Tensor]:
        r"""The tables that norm regularisers act on, entities first."""
        raise ArgumentError(f'model: {type(self).__name__} has no embedding_weights(), which names the tables that a '
                            'penalty acts on; implement it')

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        r"""The relation vectors behind the queries of :obj:`side`, for penalties on them. shape: :obj:`(B, d_r)`."""
        raise ArgumentError(f'model: {type(self).__name__} has no relation_rows(rel_type, side), which returns the '
                            'relation vectors that a penalty acts on; implement it')

    def triple_score(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Scores of whole triples, as predictions of the tail. shape: :obj:`(B,)`."""
        return self.score(self.query(head_index, rel_type, 'tail'), self.candidates(tail_index))


def _check_side(side: Any, known: Tensor) -> None:
    if isinstance(side, str) and side in ('tail', 'head'):
        return
    expected = f"side: expected 'tail', 'head' or a boolean tensor of shape {tuple(known.shape)}"
    if not isinstance(side, Tensor):
        raise ArgumentError(f'{expected}, got {shown(side)}')
    if side.dtype != torch.bool or side.shape != known.shape:
        raise ArgumentError(f'{expected}, got {kind_of(side)}')
    on_device('side', side, known.device, 'known')


def _check_vectors(name: str, value: Any, parts: int) -> None:
    tensors(**{name: value})
    if not value.is_floating_point() or value.dim() == 0 or value.size(-1) % parts != 0:
        multiple = f', d a multiple of {parts}' if parts > 1 else ''
        raise ArgumentError(f'{name}: expected floating-point numbers of shape (..., d){multiple}, got '
                            f'{kind_of(value)}')


def _check_query(query: Any, candidates: Tensor, interaction: Interaction) -> None:
    tensors(query=query)
    width = interaction.query_width(candidates.size(-1))
    if not query.is_floating_point() or query.dim() == 0 or query.size(-1) != width:
        raise ArgumentError(f'query: expected floating-point numbers of shape (B, {width}), to go with candidates of '
                            f'shape {tuple(candidates.shape)}, got {kind_of(query)}')
    on_device('query', query, candidates.device, 'the candidates')
