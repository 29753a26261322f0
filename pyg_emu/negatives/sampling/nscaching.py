r"""Negatives from caches of high-scoring candidates."""
from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import non_negative_integer, positive_integer, random_seed
from pyg_emu.core.contract import Scorer, check_scorer, for_batch
from pyg_emu.core.entries import entries
from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.warn import warn
from pyg_emu.data.batch import Batch
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import FilteredSampler, draw_unknown, replace
from pyg_emu.ops import emu_score

#: Batches that may be drawn before the first call of update().
_PATIENCE = 10


class NSCachingSampler(FilteredSampler):
    r"""Negatives from caches, `"NSCaching: Simple and Efficient Negative Sampling for Knowledge Graph Embedding"
    <https://arxiv.org/abs/1812.06410>`_.

    Each pattern of the training facts, :math:`(h, r)` for tails and :math:`(r, t)` for heads, has a cache of entities,
    which starts with random ones. Negatives are drawn from the cache uniformly, with replacement. :meth:`update`
    refreshes the caches of the batch: of the distinct entities among the cache and :obj:`num_candidates` random ones,
    it keeps :obj:`cache_size`, without replacement and with probability proportional to :math:`\exp(s)` (the top-k
    scores after Gumbel noise). :class:`~pyg_emu.Trainer` calls it in each step, after the draw and before the loss. In
    a loop of your own, call it yourself. The sampler warns once if ten batches were drawn without a call:

    .. code-block:: python

        sampler = NSCachingSampler()
        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(sampler=sampler))
        for batch in loader:
            sampler.update(batch, as_scorer(model))
            criterion(model, batch).backward()

    Patterns without a training fact receive uniform draws. The caches are part of :meth:`state_dict`, so that a run can
    be continued.

    Memory: four bytes for each cached entity, thus at most :obj:`8 * num_facts * cache_size` bytes, also in checkpoints
    (30 MB for the 150,000 patterns of FB15k-237). A refresh holds ids and scores of :obj:`B * (cache_size +
    num_candidates)` candidates, and none of their vectors if :func:`~pyg_emu.ops.emu_score` is fused.

    Args:
        cache_size (int, optional): Entities in a cache, :math:`N_1`. (default: :obj:`50`)
        num_candidates (int, optional): Random entities that each refresh adds, :math:`N_2`. (default: :obj:`50`)
        lazy_update (int, optional): Epochs without a refresh between two epochs with one, :math:`n`. An epoch has
            passed when :meth:`update` has seen as many triples as there are training facts. (default: :obj:`0`, every
            epoch)
        filtered (bool, optional): See :class:`FilteredSampler`. Each refresh then keeps known facts out of the caches.
            If one is still drawn from a cache, a uniform draw replaces it. (default: :obj:`False`)
        split (str, optional): The split whose facts are known. (default: :obj:`"train"`)
        seed (int, optional): Seed of the first caches. Everything else is drawn from the stream of the batch. (default:
            :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if the batch has no :obj:`source`.
    """
    learns_from_vectors: ClassVar[bool] = True

    def __init__(
        self,
        cache_size: int = 50,
        num_candidates: int = 50,
        lazy_update: int = 0,
        filtered: bool = False,
        split: str = 'train',
        seed: int = 0,
    ) -> None:
        super().__init__(filtered, split)
        self.cache_size = positive_integer('cache_size', cache_size)
        self.num_candidates = positive_integer('num_candidates', num_candidates)
        self.lazy_update = non_negative_integer('lazy_update', lazy_update)
        self.seed = random_seed('seed', seed)
        self._caches: Optional[_Caches] = None
        self._loaded: Optional[Tensor] = None
        # Training facts that went through update().
        self._seen = 0
        # Batches drawn before the first update(), or None after it.
        self._unlearned: Optional[int] = 0

    def cached(self, batch: Batch) -> Tensor:
        r"""The caches of the patterns of a batch. shape: :obj:`(B, cache_size)`."""
        caches = self._prepare(batch)
        return caches.entity[caches.row(batch)].long()

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        self._warn_if_never_updated()
        caches = self._prepare(batch)
        row = caches.row(batch)
        place = torch.randint(self.cache_size, (row.numel(), num_negatives), generator=generator, device=row.device)
        place += row.unsqueeze(1) * self.cache_size
        entity = entries(caches.entity.view(-1), place).long()
        strange = (row == caches.pattern.numel()).unsqueeze(1)
        if not self.filtered:
            return Negatives(torch.where(strange, torch.randint(batch.num_nodes, place.shape, generator=generator,
                                                                device=row.device), entity))
        index = self._known_facts(batch)
        wrong = strange | index.is_known(entity, batch.known_index, batch.rel_type, batch.corrupts_tail)
        entity = replace(entity, wrong, batch, partial(draw_unknown, index, generator=generator))
        return self._negatives(index, batch, entity)

    @torch.no_grad()
    def update(self, batch: Batch, scorer: Scorer) -> None:
        r"""Refreshes the caches of the patterns of a batch.

        Args:
            batch (Batch): The batch.
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
        """
        batch = Batch.of(batch)
        check_scorer('scorer', scorer)
        scorer = for_batch(scorer, batch)
        self._unlearned = None
        caches = self._prepare(batch)
        assert batch.source is not None
        epoch = self._seen // batch.source.num_facts('train')
        self._seen += batch.head_index.numel()
        if epoch % (self.lazy_update + 1) != 0 or batch.head_index.numel() == 0:
            return
        row = caches.row(batch)
        fresh = torch.randint(batch.num_nodes, (row.numel(), self.num_candidates), generator=batch.generator,
                              device=row.device)
        candidates = torch.cat([caches.entity[row].long(), fresh], dim=1).sort(dim=1).values
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        score = emu_score(query, scorer.candidates(batch.target_index), scorer.entity_table(), candidates,
                          interaction=scorer.interaction).vanilla
        assert score is not None
        excluded = torch.zeros_like(score, dtype=torch.bool)
        excluded[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
        if self.filtered:
            index = self._known_facts(batch)
            excluded |= index.is_known(candidates, batch.known_index, batch.rel_type, batch.corrupts_tail)
        # Kept only if nothing else is left.
        score = score.masked_fill(excluded, -torch.inf)
        caches.write(row, candidates.gather(1, _gumbel_top_k(score, self.cache_size, batch.generator)))

    def _warn_if_never_updated(self) -> None:
        if self._unlearned is None:
            return
        self._unlearned += 1
        if self._unlearned == _PATIENCE:
            warn(f'NSCachingSampler: {_PATIENCE} batches were drawn without a call of update(), so its caches '
                 'still hold random entities; call sampler.update(batch, as_scorer(model)) before each loss, '
                 'or train with Trainer, which does so')

    def _prepare(self, batch: Batch) -> _Caches:
        train = self._facts(batch, 'train')
        held = self._caches
        # A new index is built whenever its facts change or move.
        if held is not None and held.train is train:
            return held
        pattern = torch.unique_consecutive(train.unpacked(train.keys)[0])
        shape = (pattern.numel() + 1, self.cache_size)
        if held is not None and torch.equal(held.pattern.to(pattern.device), pattern):
            entity = held.entity.to(pattern.device)
        elif self._loaded is not None:
            if self._loaded.shape != shape:
                raise CheckpointError(f"the sampler's state holds caches of shape {tuple(self._loaded.shape)}, this "
                                      f'graph and cache_size={self.cache_size} need {shape}')
            entity = self._loaded.to(pattern.device)
        else:
            generator = torch.Generator(pattern.device).manual_seed(self.seed)
            entity = torch.randint(train.num_nodes, shape, generator=generator, device=pattern.device,
                                   dtype=torch.int32)
        self._loaded = None
        self._caches = _Caches(train, pattern, entity)
        return self._caches

    def state_dict(self) -> dict[str, Any]:
        r"""The caches, as a tensor, and the number of triples that :meth:`update` has seen."""
        return {'caches': self._loaded if self._caches is None else self._caches.entity, 'seen': self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues with the caches of another sampler.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete or, when next sampling, belongs to another graph or cache size.
        """
        for key in ('caches', 'seen'):
            if key not in state:
                raise CheckpointError(f"the sampler's state lacks {key}")
        self._caches = None
        self._loaded = None if state['caches'] is None else state['caches'].clone()
        self._seen = state['seen']

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(cache_size={self.cache_size}, num_candidates={self.num_candidates}, '
                f'lazy_update={self.lazy_update}, filtered={self.filtered}, split={self.split!r})')


class _Caches(NamedTuple):
    r"""The caches of a graph.

    Args:
        train (FactIndex): The training facts.
        pattern (torch.Tensor): Their distinct patterns, ascending. shape: :obj:`(P,)`, int64.
        entity (torch.Tensor): The caches; the last is for patterns that do not occur, and what it holds is never used.
            shape: :obj:`(P + 1, cache_size)`, int32.
    """
    train: FactIndex
    pattern: Tensor
    entity: Tensor

    def row(self, batch: Batch) -> Tensor:
        r"""The rows of the batch's patterns. shape: :obj:`(B,)`."""
        pattern = self.train.pattern(batch.known_index, batch.rel_type, batch.side)
        row = torch.searchsorted(self.pattern, pattern)
        found = self.pattern[row.clamp(max=self.pattern.numel() - 1)] == pattern
        return torch.where(found, row, self.pattern.numel())

    def write(self, row: Tensor, kept: Tensor) -> None:
        r"""Stores what was kept :obj:`(B, cache_size)` for each row; the first of those that share one decides."""
        order, first = first_of_equals(row)
        # All writes to a row are of the same values, so that their order does not matter.
        self.entity.index_copy_(0, order, kept[first].int())


def first_of_equals(row: Tensor) -> tuple[Tensor, Tensor]:
    r"""Sorted rows, and for each of them the first place at which :obj:`row` :obj:`(B,)` holds the same number."""
    order, perm = row.sort(stable=True)
    place = torch.arange(order.numel(), device=order.device)
    begins = torch.ones_like(order, dtype=torch.bool)
    begins[1:] = order[1:] != order[:-1]
    return order, perm[torch.where(begins, place, 0).cummax(0).values]


def _gumbel_top_k(score: Tensor, k: int, generator: Optional[torch.Generator]) -> Tensor:
    r"""Draws :obj:`k` columns of each row without replacement, each with probability proportional to exp(score) among
    those that are left: the largest scores plus Gumbel noise. shape: :obj:`(B, k)`.
    """
    noise = torch.empty_like(score).exponential_(generator=generator).log_()
    return (score - noise).topk(k, dim=1).indices
