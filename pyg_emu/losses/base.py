r"""The base class of losses of a model and a batch, :obj:`criterion(model, batch)`: scores, labels and checks."""
from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Callable, ClassVar, Mapping, NamedTuple, Optional, Union

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, penalty, positive_number
from pyg_emu.core.contract import ScoredBatch, Scorer, for_batch
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.row_gradients import check_row_sparse, row_gradients
from pyg_emu.core.sharded_table import rows_of
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.data.batch import Batch
from pyg_emu.data.checks import check_sizes
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.mutation.base import draw_plan
from pyg_emu.ops import SoftLabels, emu_loss, emu_score, mutate
from pyg_emu.ops.emu_loss import is_fused
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan

#: A penalty on a model, such as :class:`~pyg_emu.LpRegularizer`.
Regularizer = Callable[[Scorer, Batch], Tensor]


class LinkPredictionLoss(torch.nn.Module):
    r"""Base class of losses. Scores a batch once, computes the loss with :meth:`loss` and adds a penalty on the model.

    Called as :obj:`criterion(model, batch)` with a batch from :class:`~pyg_emu.EMUNegatives` and any model that
    :func:`~pyg_emu.as_scorer` takes. The scores are left, detached, as :obj:`batch.scored`. If the facts have weights,
    the loss is their weighted mean, see :func:`~pyg_emu.losses.functional.mean_of_rows`.

    Args:
        mutate (bool, optional): Whether negatives are mutated as the batch says. (default: :obj:`False`)
        mutate_vectors (bool, optional): Whether the vectors of a batch, such as generated ones, are mutated beside its
            ids. One plan is drawn for both. (default: :obj:`False`, their mutated scores are the vanilla ones)
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
    #: Whether the scores of unmutated negatives are needed even if there are mutated ones.
    needs_vanilla: bool = False
    #: Whether :meth:`loss` uses :meth:`ScoredBatch.labels`. If it does not, a plan with labels raises an error.
    uses_labels: bool = False
    #: Whether loss and gradients are computed at once where :meth:`cross_entropies` and
    #: :func:`~pyg_emu.ops.emu_loss` allow it, which is faster and differs in rounding only.
    fused: bool = True
    #: Whether :meth:`loss` uses :obj:`scored.weight`. If it does not, a batch with weights raises an error.
    uses_weights: bool = False

    def __init__(self, *, mutate: bool = False, mutate_vectors: bool = False,
                 regularizer: Optional[Regularizer] = None) -> None:
        super().__init__()
        self.mutate = boolean('mutate', mutate)
        self.mutate_vectors = boolean('mutate_vectors', mutate_vectors)
        if mutate_vectors and not mutate:
            raise ArgumentError('mutate_vectors: expected False without mutate=True, got True')
        self.regularizer = penalty('regularizer', regularizer)
        #: The terms of the last loss by name, detached scalars on the device, for loggers.
        self.terms: dict[str, Tensor] = {}

    def loss(self, scored: ScoredBatch) -> Tensor:
        r"""The loss of given scores, a scalar."""
        raise NotImplementedError

    def cross_entropies(self, num_negatives: int, masked: bool) -> Optional[Mapping[str, SoftLabels]]:
        r"""What :meth:`loss` computes, if that is a sum of cross-entropies with the same labels for all triples: by the
        names of its terms, the labels of :attr:`ScoredBatch.hardest` and then, if there is a second term, those of the
        vanilla negatives. A name that is empty is not noted. :obj:`None` if it is something else.

        Args:
            num_negatives (int): The number of negatives per triple.
            masked (bool): Whether some of them may not count.
        """
        return None

    def forward(self, model: Any, batch: Batch) -> Tensor:
        batch = with_negatives(batch)
        if batch.weight is not None and not self.uses_weights:
            raise ArgumentError(f'batch.weight: {type(self).__name__} does not use the weights of facts; let its '
                                'loss use scored.weight and set uses_weights = True, or load the data without weights')
        self.terms = {}
        with ExitStack() as look_ups:
            loss, scored = (self._fused(model, batch, look_ups) if self._is_stated() else
                            (None, self.score(model, batch)))
            batch.scored = scored.detach()
            self.terms = {'positive_score': scored.positive.detach().mean(), **self.terms}
            if loss is None:
                loss = self.loss(scored)
            if self.regularizer is None:
                return loss
            return loss + self.term('loss_penalty', self.regularizer(for_batch(as_scorer(model), batch), batch))

    def term(self, name: str, value: Tensor) -> Tensor:
        r"""Notes a term of the loss under a name, for loggers, and returns it."""
        self.terms[name] = value.detach()
        return value

    def score(self, model: Any, batch: Batch) -> ScoredBatch:
        r"""Scores the positives and the negatives of a batch.

        Args:
            model (torch.nn.Module): Any model that :func:`~pyg_emu.as_scorer` takes.
            batch (Batch): The batch, with negatives.

        Raises:
            ArgumentError: If the batch has no negatives or is on another device than the model, or the model has fewer
                entities or relations than the data, or gradients that PyTorch cannot add.
        """
        batch = with_negatives(batch)
        return self._scored(self._prepared(model, batch), batch)

    def _prepared(self, model: Any, batch: Batch, look_ups: Optional[ExitStack] = None) -> _Operands:
        r"""The operands of a batch. Within :obj:`look_ups`, the gradient of the negatives' scores is the dense one of
        the table, to which look-ups, also those of a penalty, add rows.
        """
        scorer = as_scorer(model)
        check_sizes(scorer, batch if batch.source is None else batch.source)
        check_relations(scorer, batch)
        check_device(model, batch)
        scorer = for_batch(scorer, batch)
        index = batch.neg_index if batch.shared_index is None else batch.shared_index
        num_ids = 0 if index is None else index.shape[1]
        table = scorer.entity_table()
        if scorer.sparse:
            check_row_sparse(rows_of(table))
        if look_ups is not None and num_ids > 0 and isinstance(table, Tensor) and not scorer.sparse:
            table = look_ups.enter_context(row_gradients(table))
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        positive = scorer.candidates(batch.target_index)
        vectors = batch.neg_vectors
        if vectors is not None and vectors.size(1) > 0:
            vectors = as_candidates(vectors, positive)
        num_mutated = num_ids + (vectors.size(1) if vectors is not None and self.mutate_vectors else 0)
        plan = plan_of_vectors = None
        if num_mutated > 0:
            plan = self.plan(batch, scorer, query, num_mutated, positive.size(1))
            if num_mutated > num_ids:
                plan, plan_of_vectors = _divided(plan, num_ids, batch.mutation)
        return _Operands(scorer, query, positive, table, index if num_ids > 0 else None, plan, vectors, plan_of_vectors)

    def _scored(self, operands: _Operands, batch: Batch) -> ScoredBatch:
        r"""The scores of negatives, ids first."""
        scorer, query, positive, table, index, plan, vectors, plan_of_vectors = operands
        vanilla = mutated = None
        if index is not None:
            scores = emu_score(query, positive, table, index, plan, interaction=scorer.interaction,
                               vanilla=self.needs_vanilla or plan is None, sparse_grad=scorer.sparse)
            vanilla, mutated = (value if value is None or scorer.offset == 0.0 else value + scorer.offset
                                for value in scores)
        if vectors is not None and vectors.size(1) > 0:
            plain = scorer.score(query, vectors)
            mixed = None if plan_of_vectors is None else scorer.score(query, mutate(positive, vectors, plan_of_vectors))
            vanilla, mutated = _beside(vanilla, mutated, plain, mixed)
        return ScoredBatch(scorer.score(query, positive), vanilla, mutated, batch.neg_mask,
                           None if plan is None else plan.label, batch.weight)

    def _fused(self, model: Any, batch: Batch, look_ups: ExitStack) -> tuple[Optional[Tensor], ScoredBatch]:
        r"""The loss without its penalty, or :obj:`None` if it has to be computed from the scores, and the scores."""
        operands = self._prepared(model, batch, look_ups)
        scorer, query, positive, table, index, plan, vectors, _ = operands
        stated = None
        # The fused operator takes the mean of all rows alike.
        plain = batch.weight is None and (vectors is None or vectors.size(1) == 0)
        if plain and isinstance(index, Tensor) and isinstance(table, Tensor):
            stated = self.cross_entropies(index.size(1), batch.neg_mask is not None)
            if not is_fused(query, positive, table, index, plan, scorer.interaction):
                stated = None
        if stated is None:
            return None, self._scored(operands, batch)
        assert isinstance(index, Tensor)
        labels, vanilla_labels = (*stated.values(), SoftLabels(0.0))[:2]
        result = emu_loss(query, positive, table, index, plan, labels=labels, vanilla_labels=vanilla_labels,
                          interaction=scorer.interaction, offset=scorer.offset, mask=batch.neg_mask,
                          sparse_grad=scorer.sparse)
        self.terms = {name: term for name, term in zip(stated, result.terms.unbind()) if name}
        vanilla = result.vanilla if self.needs_vanilla or plan is None else None
        return result.loss, ScoredBatch(result.positive, vanilla, result.mutated, batch.neg_mask)

    def _is_stated(self) -> bool:
        r"""Whether :meth:`cross_entropies` speaks of :meth:`loss`, and not of one that a subclass has replaced."""
        owners = [next(cls for cls in type(self).__mro__ if name in vars(cls)) for name in
                  ('loss', 'cross_entropies', 'score')]
        return self.fused and owners[0] is owners[1] and owners[2] is LinkPredictionLoss

    def plan(self, batch: Batch, model: Any, query: Tensor, num_negatives: int, width: int) -> Optional[Plan]:
        r"""Draws the plan of the batch's mutation, if negatives are mutated.

        Args:
            batch (Batch): The batch.
            model (Any): The scorer, or another model.
            query (torch.Tensor): The queries. shape: :obj:`(B, d_q)`.
            num_negatives (int): :math:`N`.
            width (int): The width of a candidate row.

        Raises:
            ArgumentError: If the plan has labels and the loss does not use them, or mutates no negatives.
        """
        # A mutation may begin with steps that mix nothing, and says before them that its plans will hold labels.
        labelled = getattr(batch.mutation, 'gives_labels', False)
        if labelled and not self.mutate:
            raise ArgumentError(f'mutation: {batch.mutation!r} gives each negative a label, and {self} mutates no '
                                'negatives; give the loss mutate=True, or leave out the mutation')
        mutation = batch.mutation if self.mutate else None
        plan = None
        if labelled and self.mutate_vectors:
            raise ArgumentError(f'mutate_vectors: {batch.mutation!r} gives labels to ids, and has none for vectors; '
                                'expected False, got True')
        if self.uses_labels or not labelled:
            plan = draw_plan(mutation, batch, model, query, num_negatives, width)
            labelled = plan is not None and plan.label is not None
        if labelled and not self.uses_labels:
            raise ArgumentError(f'mutation: {batch.mutation!r} gives each negative a label, and {type(self).__name__} '
                                'does not use labels; train with DeMixLoss, EMULoss, EMUBCELoss, BCELoss or '
                                'SelfAdversarialLoss')
        return plan

    def extra_repr(self) -> str:
        return f'mutate={self.mutate}'


class _Operands(NamedTuple):
    r"""What the scores of a batch are computed from. Negatives are ids, vectors, or both."""
    scorer: Scorer
    query: Tensor
    positive: Tensor
    table: Any
    index: Optional[Union[Tensor, SharedIndex]]  # type: ignore[assignment]  # shadows tuple.index
    plan: Optional[Plan]
    vectors: Optional[Tensor]
    plan_of_vectors: Optional[Plan]


def with_negatives(batch: Batch) -> Batch:
    r"""Returns a batch as :meth:`Batch.of() <pyg_emu.Batch.of>` does.

    Raises:
        ArgumentError: If it is unusable or has no negatives.
    """
    batch = Batch.of(batch)
    if batch.num_negatives == 0:
        raise ArgumentError('batch.neg_index: the batch has no negatives; give the loader transform=EMUNegatives(...), '
                            'which draws them')
    return batch


def as_candidates(vectors: Tensor, positive: Tensor) -> Tensor:
    r"""Returns the vectors that a batch gives itself in the data type of a model's candidates.

    Args:
        vectors (torch.Tensor): The vectors. shape: :obj:`(B, M, d)`.
        positive (torch.Tensor): Candidates of the model. shape: :obj:`(B, d)`.

    Raises:
        ArgumentError: If the width or the device differs.
    """
    if vectors.size(2) != positive.size(1) or vectors.device != positive.device:
        raise ArgumentError(f'batch.neg_vectors: expected vectors of width {positive.size(1)}, as in the entity table, '
                            f'on {positive.device}, got width {vectors.size(2)} on {vectors.device}')
    return vectors.to(positive.dtype)


def _divided(plan: Optional[Plan], num_ids: int, mutation: Any) -> tuple[Optional[Plan], Optional[Plan]]:
    r"""The parts of a plan for ids and for vectors.

    Raises:
        ArgumentError: If it mixes negatives with other entities or gives them labels.
    """
    if plan is None:
        return None, None
    if plan.label is not None or isinstance(plan, MixPlan) and plan.partner is not None:
        raise ArgumentError(f'mutate_vectors: {mutation!r} gives negatives labels or mixes them with other entities, '
                            'and does so only for ids; expected False, got True')
    if isinstance(plan, MixPlan):
        return MixPlan(plan.weight[:, :num_ids].contiguous()), MixPlan(plan.weight[:, num_ids:].contiguous())
    if plan.index.dim() == 1:  # one mask for all negatives of a triple
        return plan, plan
    first, second = (MaskPlan(plan.bank, places.contiguous()) for places in (plan.index[:, :num_ids],
                                                                            plan.index[:, num_ids:]))
    return first, second


def _beside(vanilla: Optional[Tensor], mutated: Optional[Tensor], plain: Tensor,
            mixed: Optional[Tensor]) -> tuple[Optional[Tensor], Optional[Tensor]]:
    r"""Adds scores of vectors to those of ids, of which at least one is there unless there are no ids. Without mutated
    scores of their own, vectors count with their plain ones.
    """
    if vanilla is None and mutated is None:
        return plain, mixed
    return (None if vanilla is None else torch.cat([vanilla, plain], dim=1),
            None if mutated is None else torch.cat([mutated, plain if mixed is None else mixed], dim=1))


#: :attr:`LinkPredictionLoss.needs_vanilla` of losses that add the vanilla term with a weight :obj:`alpha`, which may be
#: changed during training.
weighs_vanilla = property(lambda self: self.alpha > 0)


def positive_temperature(value: Any, name: str = 'adversarial_temperature') -> Optional[float]:
    r"""Returns a temperature of self-adversarial weights.

    Raises:
        ArgumentError: If it is neither a positive number nor :obj:`None`.
    """
    return None if value is None else positive_number(name, value, 'a positive number, or None for equal weights')


def check_relations(scorer: Scorer, batch: Batch) -> None:
    r"""Checks that the relations of a batch were given, if the model has several, and compares those of a batch without
    a source, which nothing has checked yet, with the model. An embedding would not say which id is wrong. On a GPU, the
    host would have to wait for the ids: they are not compared there.

    Args:
        scorer (Scorer): The model.
        batch (Batch): The batch.

    Raises:
        ArgumentError: If a relation is missing or out of range.
    """
    if batch.lacks_relation and scorer.num_relations > 1:
        raise ArgumentError(f'batch: rel_type is missing, and the model has num_relations={scorer.num_relations}; set '
                            'rel_type to the relation of each triple, shape (B,)')
    source = batch if batch.source is None else batch.source
    if getattr(source, 'num_relations', None) is None and not batch.rel_type.is_cuda and batch.rel_type.numel() > 0:
        largest = int(batch.rel_type.max())
        if largest >= scorer.num_relations:
            raise ArgumentError(f'batch.rel_type: expected ids in [0, {scorer.num_relations - 1}] (the model has '
                                f'num_relations={scorer.num_relations}), got {largest}')


def check_device(model: Any, batch: Batch) -> None:
    r"""Checks that a batch is on the device of the model.

    Args:
        model (torch.nn.Module): The model. Anything but a module passes.
        batch (Batch): The batch.

    Raises:
        ArgumentError: If it is on another one.
    """
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    if weight is not None and weight.device != batch.rel_type.device:
        raise ArgumentError(f'batch: it is on {batch.rel_type.device}, the model on {weight.device}; move the data by '
                            f'data.to({str(weight.device)!r}) before the loader is made')
