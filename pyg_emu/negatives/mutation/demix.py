r"""DeMix: marginal pseudo-negatives are mixed with positives, true negatives with one another."""
from __future__ import annotations

from typing import Any, ClassVar, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import (
    boolean,
    is_number,
    non_negative,
    non_negative_integer,
    positive_integer,
    positive_number,
    shown,
)
from pyg_emu.core.contract import Scorer, Side, check_scorer, for_batch, for_graph
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import LearningPart
from pyg_emu.negatives.mutation.base import MutationContext
from pyg_emu.negatives.mutation.beta import beta_logits
from pyg_emu.negatives.mutation.patterns import Patterns, PatternScores
from pyg_emu.negatives.sampling.filtered import facts_of
from pyg_emu.ops import emu_score
from pyg_emu.ops.mix_partners import PartnerPools, mix_partners
from pyg_emu.ops.plan import MixPlan
from pyg_emu.ops.random_words import random_words


class DeMixMutation(LearningPart):
    r"""The denoising mixup of the `"Negative Sampling with Adaptive Denoising Mixup for Knowledge Graph Embedding"
    <https://doi.org/10.1007/978-3-031-47240-4_14>`_ paper (DeMix).

    **MPNE** (equations 6 to 9). The pattern of a triple is :math:`(h, r)` if its tail is predicted and :math:`(r, t)`
    if its head is. A negative is a *marginal pseudo-negative* if its score lies among the scores of the training facts
    of its pattern,

    .. math::
        -\delta_T + \min f^{\mathcal{T}_{pattern}} \leq f(h', r, t') \leq \mathrm{mean}\, f^{\mathcal{T}_{pattern}},
        \qquad \delta_T = \delta \cdot \min(\beta, T / T_0),

    and the pattern has at least :math:`\mu` facts. All other negatives are *true negatives*.

    **AdaMix** (equations 10 to 12). Each negative is mixed with a partner of the same pattern, and so is its label:

    .. math::
        \hat{\mathbf{e}} = \lambda' \mathbf{e}_i + (1 - \lambda') \mathbf{e}_j, \qquad
        \lambda' = \max(\lambda, 1 - \lambda), \qquad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    The partner of a marginal pseudo-negative is drawn uniformly from the positives of its pattern whose score is at
    most the mean (:math:`\mathcal{T}_{cap}`), and the label becomes :math:`1 - \lambda'`. The partner of a true
    negative is drawn uniformly from the other true negatives of the same triple, and the label stays 0.

    The mixing happens within :func:`~pyg_emu.ops.emu_score`, for every interaction. The loss has to use labels, such as
    :class:`~pyg_emu.losses.DeMixLoss`.

    Scores of the training facts are computed at the first batch after the warm-up and then once an epoch, as Algorithm
    1 of the paper does, or every :obj:`refresh_every` batches. :class:`~pyg_emu.Trainer` calls :meth:`update`, which
    does so. In a loop of your own, call it before each loss:

    .. code-block:: python

        mutation = DeMixMutation(warmup=8)
        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(16, mutation=mutation))
        for batch in loader:
            mutation.update(batch, as_scorer(model))
            criterion(model, batch).backward()

    What the paper leaves open is decided as follows:

    * An epoch has passed when :meth:`update` has seen as many triples as there are training facts. :math:`T` counts
      from 1 and includes the epochs of the warm-up.
    * During the warm-up, and where :math:`\mathcal{T}_{cap}` is empty or the pattern has fewer than :math:`\mu` facts,
      there are no marginal pseudo-negatives. The warm-up mixes nothing and draws no random numbers.
    * A true negative without another one in its triple stays as it is. Slots are counted, not entities: two slots may
      hold the same entity and be partners.
    * The positive of the triple belongs to its own pattern and may be a partner, see :obj:`include_target`.
    * Masked candidates (:obj:`batch.neg_mask`) are neither marginal nor partners.
    * Scores of one pattern and one side are those of queries for that side, also for models whose two sides differ.

    Memory: nine bytes for each training fact and side, and at most 16 more for those in a pool; checkpoints hold one
    for each, and two scores for each pattern. A step scores its negatives once more, without a gradient.

    Args:
        delta (float, optional): :math:`\delta`; the paper chooses from 0, 0.1 and 1. (default: :obj:`0.1`)
        beta (float, optional): :math:`\beta`; the paper chooses from 1 and 3. (default: :obj:`1.0`)
        mu (float, optional): :math:`\mu`, the number of facts from which on a pattern has marginal pseudo-negatives;
            the paper chooses from 1, 3 and 5. With infinity, all negatives are true negatives. (default: :obj:`3`)
        ramp_epochs (float, optional): :math:`T_0`; not in the paper. (default: :obj:`10.0`)
        alpha (float, optional): :math:`\alpha` of the Beta distribution. (default: :obj:`1.0`, so that
            :math:`\lambda'` is uniform on :math:`[0.5, 1]`)
        warmup (int, optional): Epochs without mixing. (default: :obj:`8`)
        refresh_every (int, optional): Batches from one refresh of the scores of facts to the next.
            (default: :obj:`None`, an epoch)
        include_target (bool, optional): Whether the positive of a triple may be the partner of its marginal
            pseudo-negatives. (default: :obj:`True`, as equation 11 is written)
        mix (bool, optional): If set to :obj:`False`, nothing is mixed, and marginal pseudo-negatives have label 1: the
            paper's ablation "-AdaMix" (Table 6). (default: :obj:`True`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when planning, if :meth:`update` was never called, the
            batch has no :obj:`source`, the model is no :class:`~pyg_emu.Scorer`, or the loss has no sampled negatives.
    """
    recipe_name: ClassVar[Optional[str]] = 'demix'
    #: Its plans hold labels.
    gives_labels: ClassVar[bool] = True
    learns_from_vectors: ClassVar[bool] = True

    def __init__(
        self,
        delta: float = 0.1,
        beta: float = 1.0,
        mu: float = 3,
        ramp_epochs: float = 10.0,
        alpha: float = 1.0,
        warmup: int = 8,
        refresh_every: Optional[int] = None,
        include_target: bool = True,
        mix: bool = True,
    ) -> None:
        self.delta = non_negative('delta', delta)
        self.beta = non_negative('beta', beta)
        if not is_number(mu) or not mu >= 1:
            raise ArgumentError(f'mu: expected a number of facts, at least 1, got {shown(mu)}')
        self.mu = mu
        self.ramp_epochs = positive_number('ramp_epochs', ramp_epochs)
        self.alpha = positive_number('alpha', alpha)
        self.warmup = non_negative_integer('warmup', warmup)
        self.refresh_every = None if refresh_every is None else positive_integer('refresh_every', refresh_every)
        self.include_target = boolean('include_target', include_target)
        self.mix = boolean('mix', mix)
        self._patterns: Optional[Patterns] = None
        self._scores: Optional[PatternScores] = None
        self._loaded: Optional[dict[str, Tensor]] = None
        # Triples that went through update(), and the epoch of the last batch that did.
        self._seen = 0
        self._epoch: Optional[int] = None
        # The epoch of the last refresh, and the batches since.
        self._refreshed: Optional[int] = None
        self._since = 0

    @property
    def active(self) -> bool:
        r"""Whether the batch that :meth:`update` saw last comes after the warm-up."""
        return self._epoch is not None and self._epoch >= self.warmup

    @property
    def tolerance(self) -> float:
        r""":math:`\delta_T` in the epoch of the batch that :meth:`update` saw last."""
        return self.delta * min(self.beta, ((self._epoch or 0) + 1) / self.ramp_epochs)

    # Learning ################################################################

    def update(self, batch: Batch, scorer: Scorer) -> None:
        r"""Counts the batch, and scores the training facts with the current model where that is due.

        Args:
            batch (Batch): The batch.
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
        """
        batch = Batch.of(batch)
        check_scorer('scorer', scorer)
        scorer = for_batch(scorer, batch)
        index = facts_of(batch, 'train', self)
        assert batch.source is not None
        self._epoch = self._seen // max(batch.source.num_facts('train'), 1)
        self._seen += batch.head_index.numel()
        if not self.active:
            return
        self._prepare(index)
        self._since += 1
        due = self._refreshed != self._epoch if self.refresh_every is None else self._since >= self.refresh_every
        if due or self._scores is None:
            self._refresh(scorer)

    def refresh(self, data: KGData, scorer: Scorer) -> None:
        r"""Scores the training facts now, for example before :meth:`is_marginal` with a trained model.

        Args:
            data (KGData): The graph.
            scorer (Scorer): The model.
        """
        if not isinstance(data, KGData):
            raise ArgumentError(f'data: expected a KGData, got {shown(data)}')
        check_scorer('scorer', scorer)
        scorer = for_graph(scorer, data)
        self._prepare(data.fact_index('train'))
        self._refresh(scorer)

    def _refresh(self, scorer: Scorer) -> None:
        assert self._patterns is not None
        self._scores = PatternScores.of(self._patterns, scorer)
        self._refreshed, self._since = self._epoch, 0

    def _prepare(self, index: FactIndex) -> None:
        r"""Takes over the facts of a batch. Scores of the same facts stay."""
        held = self._patterns
        # A new index is built whenever its facts change or move.
        if held is not None and held.index is index:
            return
        self._patterns = patterns = Patterns.of(index)
        if self._loaded is not None:
            self._scores, self._loaded = PatternScores.restored(patterns, **self._loaded), None
        elif held is not None and self._scores is not None:
            same = all(torch.equal(mine.to(index.device), other) for mine, other in (
                (held.index.keys, index.keys), (held.number, patterns.number)))
            self._scores = PatternScores.restored(patterns, **self._scores.saved()) if same else None

    # Planning ################################################################

    def plan(self, context: MutationContext) -> Optional[MixPlan]:
        r"""See :meth:`Mutation.plan() <pyg_emu.negatives.mutation.Mutation.plan>`."""
        ids, batch = context.index, context.batch
        # Before the warm-up ends, so that an error comes before there is work to lose.
        if ids is None or ids.size(1) != context.num_negatives:
            raise ArgumentError('mutation: DeMixMutation mixes the sampled negatives of a batch, and the loss has '
                                'others; expected a loss of sampled negatives, such as DeMixLoss')
        check_scorer('model', context.model)
        if self._epoch is None:
            raise ArgumentError('mutation: DeMixMutation needs update(batch, as_scorer(model)) before each loss, which '
                                'Trainer calls, and it was not called')
        if not self.active:
            return None
        with torch.no_grad():
            score = self._score(context, ids)
            row = self._rows(batch)
            marginal = self._classified(score, row)
            kept = None if batch.neg_mask is None else batch.neg_mask[:, :ids.size(1)]
            if kept is not None:
                marginal &= kept
            if self.mix:
                return self._mixed(context, ids, marginal, kept, row)
            label = marginal.to(context.query.dtype)
            return MixPlan(torch.ones_like(label), ids, label)

    def _score(self, context: MutationContext, ids: Tensor) -> Tensor:
        scorer = context.model
        score = emu_score(context.query.detach(), scorer.candidates(context.batch.target_index), scorer.entity_table(),
                          ids, interaction=scorer.interaction).vanilla
        assert score is not None
        return score if scorer.offset == 0.0 else score + scorer.offset

    def _rows(self, batch: Batch) -> Tensor:
        self._prepare(facts_of(batch, 'train', self))
        if self._patterns is None or self._scores is None:
            raise ArgumentError('mutation: the facts of the batch have changed since update(); expected '
                                'update(batch, as_scorer(model)) before each loss')
        return self._patterns.rows(batch.known_index, batch.rel_type, batch.side)

    def is_marginal(self, score: Tensor, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Whether candidates with given scores would be marginal pseudo-negatives, equations 8 and 9, by the scores of
        the facts at the last refresh. False for patterns without a training fact.

        Args:
            score (torch.Tensor): Scores of the candidates, as :meth:`Scorer.score` returns them. shape: :obj:`(B, N)`.
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): The side that is predicted.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, N)`, boolean.

        Raises:
            ArgumentError: If the facts were not scored yet.
        """
        if self._patterns is None or self._scores is None:
            raise ArgumentError('is_marginal: the training facts were not scored yet; call refresh(data, '
                                'as_scorer(model)) before')
        return self._classified(score, self._patterns.rows(known, rel_type, side))

    def _classified(self, score: Tensor, row: Tensor) -> Tensor:
        scores = self._scores
        assert scores is not None
        lower = torch.where(scores.count[row] >= self.mu, scores.low[row] - self.tolerance, torch.inf)
        return (score >= lower.unsqueeze(1)) & (score <= scores.mean[row].unsqueeze(1))

    def _mixed(self, context: MutationContext, ids: Tensor, marginal: Tensor, kept: Optional[Tensor],
               row: Tensor) -> MixPlan:
        r"""Draws partners and weights. The random numbers depend on shapes alone: processes that see other queries draw
        the same ones.
        """
        # 64 random bits for each slot: the upper half chooses the partner, the lower half weighs it.
        words = random_words(ids.shape, context.generator, ids.device)
        weight = self._weights(words, context)
        return mix_partners(ids, marginal, kept, words, weight, self._pools(context.batch, row))

    def _pools(self, batch: Batch, row: Tensor) -> PartnerPools:
        r"""The pools of a batch, without the target if it is no partner."""
        patterns, scores = self._patterns, self._scores
        assert patterns is not None and scores is not None
        size, first = scores.size[row], scores.first[row]
        if self.include_target or scores.key.numel() == 0:
            return PartnerPools(scores.pool, first, size)
        index = patterns.index
        key = index.base(batch.known_index, batch.rel_type, batch.side) + batch.target_index
        place = torch.searchsorted(scores.key, key)
        held = scores.key[place.clamp(max=scores.key.numel() - 1)] == key
        return PartnerPools(scores.pool, first, size - held.long(), torch.where(held, place - first, -1))

    def _weights(self, words: Tensor, context: MutationContext) -> Tensor:
        r""":math:`\lambda'` of each slot, of the lower 32 bits of its word if it is uniform."""
        dtype = context.query.dtype
        if self.alpha == 1.0:
            wide = torch.promote_types(dtype, torch.float32)
            return words.to(torch.int32).to(wide).mul_(2.0**-33).add_(0.75).to(dtype)
        drawn = beta_logits(self.alpha, self.alpha, words.shape, dtype, words.device, context.generator)
        return drawn.abs().sigmoid().to(dtype)

    # State ###################################################################

    def state_dict(self) -> dict[str, Any]:
        r"""The scores of the facts, as tensors, and counters."""
        scores = self._loaded if self._scores is None else self._scores.saved()
        return {'scores': scores, 'seen': self._seen, 'epoch': self._epoch, 'refreshed': self._refreshed,
                'since': self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues with the state of another mutation.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete or, at the next batch, belongs to other facts.
        """
        for key in self.state_dict():
            if key not in state:
                raise CheckpointError(f"the mutation's state lacks {key}; give the result of state_dict()")
        self._patterns = self._scores = None
        self._loaded = None if state['scores'] is None else dict(state['scores'])
        self._seen, self._epoch = state['seen'], state['epoch']
        self._refreshed, self._since = state['refreshed'], state['since']

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(delta={self.delta}, beta={self.beta}, mu={self.mu}, '
                f'ramp_epochs={self.ramp_epochs}, alpha={self.alpha}, warmup={self.warmup}, '
                f'refresh_every={self.refresh_every}, include_target={self.include_target}, mix={self.mix})')
