r"""What losses of a model and a batch, :obj:`criterion(model, batch)`, share: the scores of a batch and its checks."""
from __future__ import annotations

from typing import Any, Callable, ClassVar, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import is_number, penalty
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.models.adapters import as_scorer
from pyg_emu.ops import emu_score

#: A penalty on a model, such as :class:`~pyg_emu.LpRegularizer`.
Regularizer = Callable[[Scorer, Any], Tensor]


class ScoredBatch(NamedTuple):
    r"""The scores that every loss is made of.

    Args:
        positive (torch.Tensor): shape: :obj:`(B,)`.
        vanilla (torch.Tensor, optional): Of the negatives as they are, if wanted. shape: :obj:`(B, N)`.
        mutated (torch.Tensor, optional): Of the mutated negatives, if there is a mutation. shape: :obj:`(B, N)`.
        mask (torch.Tensor, optional): True where a negative counts, or :obj:`None` where all do. shape: :obj:`(B, N)`.
    """
    positive: Tensor
    vanilla: Optional[Tensor]
    mutated: Optional[Tensor]
    mask: Optional[Tensor]

    @property
    def hardest(self) -> Tensor:
        r"""The mutated scores, or the vanilla ones where nothing is mutated."""
        scores = self.vanilla if self.mutated is None else self.mutated
        assert scores is not None
        return scores


class LinkPredictionLoss(torch.nn.Module):
    r"""Base class: scores a batch once, leaves the rest to :meth:`loss`, adds a penalty on the model.

    Called as :obj:`criterion(model, batch)` with a batch that went through :class:`~pyg_emu.EMUNegatives`
    and any model that :func:`~pyg_emu.as_scorer` takes.

    Args:
        mutate (bool, optional): Whether negatives are mutated as the batch says. (default: :obj:`False`)
        regularizer (callable, optional): A penalty :obj:`(scorer, batch) -> scalar`, such as
            :class:`~pyg_emu.LpRegularizer`. (default: :obj:`None`)
    """
    #: Recipes cannot name this class itself.
    recipe_name: ClassVar[Optional[str]] = None
    #: Whether it trains models that read a graph, such as :class:`~pyg_emu.NBFNet`, and no others.
    reads_graph: ClassVar[bool] = False
    #: Whether its gradient is dense even where the model's tables have row-sparse gradients.
    dense_gradient: ClassVar[bool] = False
    #: The packaged search space of :obj:`pyg-emu tune`. (default: the one named after the loss)
    search_space: ClassVar[Optional[str]] = None
    #: Whether the scores of the unmutated negatives are needed even where there are mutated ones.
    needs_vanilla: bool = False

    def __init__(self, *, mutate: bool = False, regularizer: Optional[Regularizer] = None) -> None:
        super().__init__()
        self.mutate = mutate
        self.regularizer = penalty('regularizer', regularizer)
        #: The terms of the last loss by name, detached scalars on the device, for loggers.
        self.terms: dict[str, Tensor] = {}

    def loss(self, scored: ScoredBatch) -> Tensor:
        r"""The loss of given scores, a scalar."""
        raise NotImplementedError

    def forward(self, model: Any, batch: Any) -> Tensor:
        scored = self.score(model, batch)
        self.terms = {'positive_score': scored.positive.detach().mean()}
        loss = self.loss(scored)
        if self.regularizer is None:
            return loss
        return loss + self.term('loss_penalty', self.regularizer(as_scorer(model), batch))

    def term(self, name: str, value: Tensor) -> Tensor:
        r"""Notes a term of the loss under a name, for loggers, and returns it."""
        self.terms[name] = value.detach()
        return value

    def score(self, model: Any, batch: Any) -> ScoredBatch:
        r"""Scores the positives and the negatives of a batch.

        Raises:
            ArgumentError: If the batch has no negatives or is on another device than the model, or the model has fewer
                entities or relations than the data.
        """
        scorer = as_scorer(model)
        if getattr(batch, 'neg_index', None) is None:
            raise ArgumentError('batch: neg_index is missing; give the loader transform=EMUNegatives(...), which draws '
                                'negatives')
        if getattr(batch, 'known_index', None) is None:
            raise ArgumentError(f'batch: expected one of a TripletLoader, or what EMUNegatives returns, got {batch}')
        check_sizes(scorer, batch)
        check_device(model, batch)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        positive = scorer.candidates(batch.target_index)
        table = scorer.entity_table()
        plan = None
        if self.mutate and batch.mutation is not None:
            plan = batch.mutation.plan(query, batch.neg_index.size(1), table.size(1), batch.generator, batch.step)
        scores = emu_score(query, positive, table, batch.neg_index, plan, interaction=scorer.interaction,
                           vanilla=self.needs_vanilla or plan is None, sparse_grad=scorer.sparse)
        vanilla, mutated = (value if value is None or scorer.offset == 0.0 else value + scorer.offset
                            for value in scores)
        return ScoredBatch(scorer.score(query, positive), vanilla, mutated, batch.neg_mask)

    def extra_repr(self) -> str:
        return f'mutate={self.mutate}'


def positive_temperature(value: Any) -> Optional[float]:
    r"""Returns a temperature of self-adversarial weights, or raises :class:`~pyg_emu.core.errors.ArgumentError` if it
    is neither a positive number nor :obj:`None`.
    """
    if value is not None and (not is_number(value) or not 0.0 < value < float('inf')):
        raise ArgumentError('adversarial_temperature: expected a positive number, or None for equal weights, '
                            f'got {value!r}')
    return value


def check_sizes(scorer: Scorer, batch: Any, exact: bool = False) -> None:
    r"""Refuses a model that is too small for the data of a batch.

    Args:
        scorer (Scorer): The model.
        batch (KGData): The batch; its source knows the sizes.
        exact (bool, optional): Whether room for more entities is a misfit, too. (default: :obj:`False`)

    Raises:
        ArgumentError: If it is.
    """
    # Sizes and not ids: looking at ids on a GPU would make the host wait for it.
    source = getattr(batch, 'source', None)
    source = batch if source is None else source
    for name, what in (('num_nodes', 'entities'), ('num_relations', 'relations')):
        needed, held = getattr(source, name, None), getattr(scorer, name)
        if needed is not None and (held < needed or (exact and name == 'num_nodes' and held > needed)):
            raise ArgumentError(f'model: {name}={held}, but the data has {needed} {what}; make the model with '
                                f'{name}={needed}')
        if needed is None and name == 'num_relations' and not batch.rel_type.is_cuda and batch.rel_type.numel() > 0:
            # A batch made by hand, which nothing has checked; an embedding would not say which of its ids is wrong.
            largest = int(batch.rel_type.max())
            if largest >= held:
                raise ArgumentError(f'batch.rel_type: expected ids in [0, {held - 1}] (the model has '
                                    f'num_relations={held}), got {largest}')


def check_device(model: Any, batch: Any) -> None:
    r"""Refuses a batch on another device than the model.

    Args:
        model (torch.nn.Module): The model. What is no module is let through.
        batch (KGData): The batch.

    Raises:
        ArgumentError: If the two are apart.
    """
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    if weight is not None and weight.device != batch.rel_type.device:
        raise ArgumentError(f'batch: it is on {batch.rel_type.device}, the model on {weight.device}; move the data by '
                            f'data.to({str(weight.device)!r}) before the loader is made')
