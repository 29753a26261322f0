r"""The protocols that models, samplers and parts that learn implement.

Everything that scores, samples, mutates or ranks in this package uses these protocols and nothing more concrete.
:func:`~pyg_emu.as_scorer` turns a model that a user already has into a :class:`Scorer`.
"""
from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Iterable,
    Iterator,
    Literal,
    NamedTuple,
    Optional,
    Protocol,
    Union,
    runtime_checkable,
)

import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Interaction

if TYPE_CHECKING:
    from pyg_emu.data.batch import Batch
    from pyg_emu.losses.base import ScoredBatch

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


class Negatives(NamedTuple):
    r"""Negative candidates of a batch: entity ids, vectors, or both.

    A sampler that generates vectors returns them as :obj:`vectors`, attached to its parameters if the loss is to train
    them (see :class:`LearningPart`) and detached if not:

    .. code-block:: python

        def sample(self, batch, num_negatives, generator=None):
            index = torch.empty(batch.head_index.numel(), 0, dtype=torch.int64, device=batch.device)  # no ids
            return Negatives(index, vectors=self.network(self.noise(batch, num_negatives)))

    Args:
        index (torch.Tensor): Entity ids. shape: :obj:`(B, N)`, int64.
        mask (torch.Tensor, optional): True where the candidate counts; ids first, then vectors. shape:
            :obj:`(B, N + M)`. (default: :obj:`None`, all count)
        vectors (torch.Tensor, optional): Candidate vectors, as wide as a row of the model's entity table. shape:
            :obj:`(B, M, d)`. (default: :obj:`None`)
    """
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index
    mask: Optional[Tensor] = None
    vectors: Optional[Tensor] = None


@runtime_checkable
class Sampler(Protocol):
    r"""A source of negative candidates. One that learns is a :class:`LearningPart`, too."""

    def sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator] = None) -> Negatives:
        r"""Draws candidates for the unknown end of each triple of :obj:`batch`."""


class LearningPart:
    r"""A part of training, beside the model, that learns: a learned mask, a cache of hard negatives, a generator.

    :class:`~pyg_emu.Trainer` finds the parts in the loader's transform (the transform itself, its :obj:`sampler` and
    its :obj:`mutation`, also inside a :class:`torch_geometric.transforms.Compose`) and treats all of them alike. Each
    method is optional, and a part need not derive from this class: a :class:`torch.nn.Module`, for example, already has
    :meth:`parameters` and its state.

    In each step, the trainer

    1. calls :meth:`update`, after the negatives were drawn and before the loss;
    2. computes the loss and its gradients, which reach the part's :meth:`parameters`;
    3. clips gradients, where :obj:`max_grad_norm` is set, and steps the model's optimiser and the part's own;
    4. calls :meth:`observe` with the scores of the batch.

    State is saved in checkpoints and restored on resumption, that of the part's own optimiser included.
    """
    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        bases = cls.__mro__
        if torch.nn.Module in bases and bases.index(torch.nn.Module) > bases.index(LearningPart):
            raise ArgumentError(f'{cls.__name__}: expected torch.nn.Module before LearningPart among the base classes, '
                                'whose parameters() and state_dict() would hide those of the module')

    def parameters(self) -> Iterable[Tensor]:
        r"""The parameters that gradients of the loss train. Without :meth:`make_optimizer`, they belong into the
        optimiser that the trainer is given.
        """
        return ()

    def make_optimizer(self) -> Optional[torch.optim.Optimizer]:
        r"""Returns an optimiser of the part's own for its :meth:`parameters`, called when training starts, or
        :obj:`None`. An adversary ascends the loss with an optimiser made with :obj:`maximize=True`.
        """
        return None

    def update(self, batch: Batch, scorer: Scorer) -> None:
        r"""Learns from the current model, before the loss.

        Args:
            batch (Batch): The batch, with negatives.
            scorer (Scorer): The model.
        """

    def observe(self, batch: Batch, scored: ScoredBatch) -> None:
        r"""Learns from the scores of the batch, after the step, such as from a reward.

        Args:
            batch (Batch): The batch, with negatives.
            scored (ScoredBatch): The scores that the loss was made of, detached.
        """

    def state_dict(self) -> dict[str, Any]:
        r"""Tensors and numbers from which :meth:`load_state_dict` continues."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        r"""Continues from what :meth:`state_dict` returned."""


class ScorerMixin:
    r"""Derives every method of a :class:`Scorer` from :obj:`_query`, :obj:`entity_table` and :attr:`interaction`, so
    that all of them agree.

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

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        raise NotImplementedError

    def entity_table(self) -> Tensor:
        raise NotImplementedError

    def query(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        if isinstance(side, str):
            if side not in ('tail', 'head'):
                raise ArgumentError(f"side: expected 'tail', 'head' or a boolean tensor, got {side!r}")
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
        raise ArgumentError(f'model: {type(self).__name__} has no embedding_weights(), which names the tables that a '
                            'penalty acts on; implement it')

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        r"""The relation vectors behind the queries of :obj:`side`, for penalties on them. shape: :obj:`(B, d_r)`."""
        raise ArgumentError(f'model: {type(self).__name__} has no relation_rows(rel_type, side), which returns the '
                            'relation vectors that a penalty acts on; implement it')

    def triple_score(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Scores of whole triples, as predictions of the tail. shape: :obj:`(B,)`."""
        return self.score(self.query(head_index, rel_type, 'tail'), self.candidates(tail_index))
