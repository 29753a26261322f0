r"""Negatives that resemble the positive: entities that share facts with it."""
from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import one_of, share
from pyg_emu.core.entries import entries
from pyg_emu.data.batch import Batch
from pyg_emu.data.candidates import ends_of_relations
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import (
    FilteredSampler,
    draw_unknown,
    mix_with_uniform,
    random_below,
    redraw,
)

#: How often a known fact is drawn again before an unknown entity is drawn from all.
_REDRAWS = 3


class ESNSLikeSampler(FilteredSampler):
    r"""Entities similar to the predicted one, after an idea of the `"Entity Similarity-Based Negative Sampling for
    Knowledge Graph Embedding" <https://doi.org/10.1007/978-3-031-20865-2_6>`_ paper (ESNS): entities with similar
    contexts deceive a model and make good negatives. It is not their system.

    The idea and the context of an entity are those of the paper: the relations and the entities that its facts link it
    to. The distribution is not. An entity :math:`x` shares a set of contexts :math:`F(x)` with others, and :math:`E(f)`
    are the entities that share context :math:`f`. A draw for the predicted entity :math:`x` takes one of these
    contexts, uniformly, and then one of the other entities that share it, uniformly:

    .. math::
        p(y \mid x) = \frac{1}{|F(x)|} \sum_{f \in F(x) \cap F(y)} \frac{1}{|E(f)| - 1}, \qquad y \neq x

    The more contexts an entity shares, and the fewer other entities share them, the more probable it is. Nothing of
    size :math:`V^2` is computed, and no list of nearest entities is truncated. The paper's index, its exploration by
    model scores and its shift-based loss are not implemented.

    If the predicted entity shares no context, draws are uniform over all entities. With :obj:`filtered`, a known
    answer is drawn again up to three times, and then replaced by a uniform draw of the unknown entities.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, sampler=ESNSLikeSampler(filtered=True))

    Memory: 32 bytes for each training fact and end.

    Args:
        context (str, optional): What a context is: :obj:`"fact"` (a relation, the end, and the entity at the other end)
            or :obj:`"relation"` (a relation and the end), which also finds similar entities in a sparse graph.
            (default: :obj:`"fact"`)
        uniform (float, optional): The probability that a candidate is drawn uniformly from all entities instead (with
            :obj:`filtered`, from all unknown ones). With zero, a model does not learn to reject entities that do not
            fit, and ranks poorly among all. (default: :obj:`0.5`)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`True`)
        split (str, optional): The split whose facts are known. Contexts are always those of the training facts.
            (default: :obj:`"train"`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if the batch has no :obj:`source`.
    """
    recipe_name: ClassVar[Optional[str]] = 'esns_like'

    def __init__(
        self,
        context: Literal['fact', 'relation'] = 'fact',
        uniform: float = 0.5,
        filtered: bool = True,
        split: str = 'train',
    ) -> None:
        super().__init__(filtered, split)
        self.uniform = float(share('uniform', uniform))
        self.context = one_of('context', context, ('fact', 'relation'))
        self._state: Optional[_State] = None

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        state, target = self._prepare(batch), batch.target_index
        if not self.filtered:
            entity = state.draw(target, num_negatives, generator)
            anywhere = torch.randint(batch.num_nodes, entity.shape, generator=generator, device=entity.device)
            entity = torch.where((state.size(target) > 0).unsqueeze(1), entity, anywhere)
            return Negatives(mix_with_uniform(entity, self.uniform, batch, None, generator))
        index = self._known_facts(batch)
        pattern = (batch.known_index, batch.rel_type, batch.corrupts_tail)
        entity = state.draw_unknown(index, target, pattern, num_negatives, generator, _REDRAWS)
        entity = mix_with_uniform(entity, self.uniform, batch, index, generator)
        return self._negatives(index, batch, entity)

    def _prepare(self, batch: Batch) -> _State:
        train = self._facts(batch, 'train')
        # A new index is built whenever facts change or move.
        if self._state is None or self._state.train is not train:
            self._state = _State.of(train, self.context)
        return self._state

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(context={self.context!r}, uniform={self.uniform}, '
                f'filtered={self.filtered}, split={self.split!r})')


class _State(NamedTuple):
    r"""Contexts and the entities in them.

    Args:
        train (FactIndex): The training facts.
        ptr (torch.Tensor): Where the contexts of an entity begin in :obj:`place`. shape: :obj:`(V + 1,)`.
        place (torch.Tensor): The places of entities in :obj:`entity`, by entity, of shared contexts alone.
        entity (torch.Tensor): The entities of all contexts, one context after the other. shape: :obj:`(M,)`.
        begin (torch.Tensor): Where the context of a place begins. shape: :obj:`(M,)`.
        length (torch.Tensor): How many entities the context of a place has. shape: :obj:`(M,)`.
    """
    train: FactIndex
    ptr: Tensor
    place: Tensor
    entity: Tensor
    begin: Tensor
    length: Tensor

    @classmethod
    def of(cls, train: FactIndex, context: str) -> _State:
        if context == 'fact':
            # The known answers of a pattern (h, r) or (r, t) are the entities that share a context.
            which, entity = train.unpacked(train.keys)
        else:
            which, entity, _ = ends_of_relations(train)
        begin = torch.searchsorted(which, which)
        length = torch.searchsorted(which, which, right=True) - begin
        shared = (length > 1).nonzero().squeeze(1)
        owner, order = entity[shared].sort(stable=True)
        ptr = torch.searchsorted(owner, torch.arange(train.num_nodes + 1, device=owner.device))
        # Never empty, so that they can be read from.
        if entity.numel() == 0:
            entity, begin, length = (value.new_zeros(1) for value in (entity, begin, length))
        place = shared[order] if shared.numel() > 0 else shared.new_zeros(1)
        return cls(train, ptr, place, entity, begin, length)

    def size(self, target: Tensor) -> Tensor:
        r"""The numbers of contexts that entities share with others. shape: :obj:`(B,)`."""
        valid = target < self.ptr.numel() - 1
        target = torch.where(valid, target, 0)
        return torch.where(valid, self.ptr[target + 1] - self.ptr[target], 0)

    def draw(self, target: Tensor, num_negatives: int, generator: Optional[torch.Generator]) -> Tensor:
        r"""Draws entities similar to :obj:`target` :obj:`(B,)`; some entity where there are none. shape: :obj:`(B, N)`.
        """
        target = target.clamp(max=self.ptr.numel() - 2)
        rank = random_below(self.size(target).unsqueeze(1).expand(-1, num_negatives), generator)
        place = self.ptr[target].unsqueeze(1) + rank
        own = entries(self.place, place.clamp_(max=self.place.numel() - 1))
        other = entries(self.begin, own) + random_below(entries(self.length, own) - 1, generator)
        # The others of the context, without the target itself.
        return entries(self.entity, (other + (other >= own)).clamp_(max=self.entity.numel() - 1))

    def draw_unknown(self, index: FactIndex, target: Tensor, pattern: tuple[Tensor, Tensor, Tensor], num_negatives: int,
                     generator: Optional[torch.Generator], redraws: int) -> Tensor:
        r"""Draws similar entities that are no known answers of :obj:`pattern` (known entities, relations and sides,
        :obj:`(B,)` each). Known ones are drawn again :obj:`redraws` times, and then from all unknown entities.
        """
        entity = self.draw(target, num_negatives, generator)
        wrong = (self.size(target) == 0).unsqueeze(1) | index.is_known(entity, *pattern)

        def again(row: Any, number: int) -> Tensor:
            known, relation, tails = (value[row] for value in pattern)
            if redraws == 0:
                return draw_unknown(index, known, relation, tails, number, generator)
            return self.draw_unknown(index, target[row], (known, relation, tails), number, generator, redraws - 1)

        return redraw(entity, wrong, again)
