r"""Negatives of the type of the positive, where types are inferred from the relations that entities have."""
from __future__ import annotations

import math
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import positive_integer, random_seed
from pyg_emu.data.batch import Batch
from pyg_emu.data.candidates import ends_of_relations
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.sampling.pools import Pools, PoolSampler
from pyg_emu.negatives.sampling.typed import pools_of_types

# Similarities of entities and types that are held at a time: what bounds the memory of the clustering.
_BLOCK = 2**24


class CANSLikeSampler(PoolSampler):
    r"""Entities of the inferred type of the predicted one, drawn uniformly, with replacement, after an idea of the
    `"CAKE: A Scalable Commonsense-Aware Framework for Multi-View Knowledge Graph Completion"
    <https://arxiv.org/abs/2202.13785>`_ paper (its commonsense-aware negative sampling, CANS): negatives that fit the
    concepts expected by common sense are of high quality. It is not a reimplementation of CAKE.

    CAKE reads the concepts of entities from a file, derives which concepts go with a relation, and treats relations of
    kinds 1-1 to N-N differently. Here, no file is needed: the domains and ranges of relations define types. The profile
    of an entity is a binary vector of :math:`2R` components, one for each end of each relation. A component is one if a
    training fact has the entity at this end. Spherical :math:`k`-means (of cosine similarity, at most
    :obj:`num_rounds` rounds, from :obj:`num_types` distinct profiles drawn at random) divides the entities into types.
    All relations are treated alike, and negatives are not weighted.

    If there is no entity to draw (the predicted entity has no training fact, no other entity has its type, or with
    :obj:`filtered`, all of them are known answers), draws are uniform over all entities (with :obj:`filtered`, over all
    unknown ones). All draws are exact, without rejection rounds.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, sampler=CANSLikeSampler(filtered=True))

    Args:
        num_types (int, optional): The maximum number of types. There are at most as many as distinct profiles.
            (default: :obj:`None`, :math:`\sqrt{V}` rounded)
        num_rounds (int, optional): Rounds of :math:`k`-means. (default: :obj:`20`)
        uniform (float, optional): The probability that a candidate is drawn uniformly from all entities instead (with
            :obj:`filtered`, from all unknown ones). With zero, a model does not learn to reject entities that do not
            fit, and ranks poorly among all. (default: :obj:`0.5`)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`True`)
        split (str, optional): The split whose facts are known. Types are always those of the training facts.
            (default: :obj:`"train"`)
        seed (int, optional): Seed of the first types. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if the batch has no :obj:`source`.
    """
    recipe_name: ClassVar[Optional[str]] = 'cans_like'

    def __init__(
        self,
        num_types: Optional[int] = None,
        num_rounds: int = 20,
        uniform: float = 0.5,
        filtered: bool = True,
        split: str = 'train',
        seed: int = 0,
    ) -> None:
        super().__init__(uniform, filtered, split)
        self.num_types: Any = None if num_types is None else positive_integer('num_types', num_types)
        self.num_rounds = positive_integer('num_rounds', num_rounds)
        self.seed = random_seed('seed', seed)

    def types(self, batch: Batch) -> Tensor:
        r"""The inferred type of each entity, or -1 for an entity without a training fact, in the graph that a batch
        came from. shape: :obj:`(V,)`.
        """
        pools = self._prepare(batch).pools
        assert pools.of_entity is not None
        return torch.where(pools.of_entity == pools.empty, -1, pools.of_entity)

    def _build(self, train: FactIndex, largest_sum: int) -> Pools:
        num_types = self.num_types or max(round(math.sqrt(train.num_nodes)), 1)
        types = infer_types(train, num_types, self.num_rounds, self.seed)
        return pools_of_types(types, max(int(types.max()) + 1, 1) if types.numel() > 0 else 1, train)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(num_types={self.num_types}, num_rounds={self.num_rounds}, '
                f'uniform={self.uniform}, filtered={self.filtered}, split={self.split!r})')


def infer_types(train: FactIndex, num_types: int, num_rounds: int, seed: int) -> Tensor:
    r"""Divides entities by the ends of relations at which they occur, see :class:`CANSLikeSampler`. It works on the
    CPU, whose sums do not depend on the order in which threads finish.

    Args:
        train (FactIndex): The training facts.
        num_types (int): Number of types, at most.
        num_rounds (int): Rounds of :math:`k`-means.
        seed (int): Seed of the first types.

    Returns:
        The type of each entity, or -1 for one without facts. shape: :obj:`(num_nodes,)`, int64.
    """
    generator = torch.Generator().manual_seed(seed)
    num_ends = 2 * train.num_relations
    end, entity, _ = (value.cpu() for value in ends_of_relations(train))
    entity, order = entity.sort(stable=True)
    end = end[order]
    types = torch.full((train.num_nodes, ), -1)
    found, row, size = torch.unique_consecutive(entity, return_inverse=True, return_counts=True)
    if found.numel() == 0:
        return types.to(train.device)
    # A random number for each end: equal profiles have equal sums, and others do not, but for a chance of 2^-62.
    numbers = torch.randint(2**62, (num_ends, ), generator=generator)
    _, profile = torch.unique(torch.zeros_like(found).index_add_(0, row, numbers[end]), return_inverse=True)
    first = torch.full((int(profile.max()) + 1, ), found.numel()).scatter_reduce(0, profile,
                                                                                torch.arange(found.numel()), 'amin')
    first = first[torch.randperm(first.numel(), generator=generator)[:num_types]]
    length = size.double().rsqrt()[row]

    def centers(group: Tensor, num_groups: int) -> Tensor:
        counted = group[row] >= 0
        place = group[row][counted] * num_ends + end[counted]
        sums = torch.bincount(place, length[counted], minlength=num_groups * num_ends).view(num_groups, num_ends)
        return F.normalize(sums, dim=1)

    start = torch.cat([size.new_zeros(1), size.cumsum(0)])
    group = torch.full_like(found, -1)
    group[first] = torch.arange(first.numel())
    center = centers(group, first.numel())
    for _ in range(num_rounds):
        # The length of a profile does not change which type is nearest.
        table, parts = center.t().contiguous(), []
        for part in torch.arange(found.numel()).split(max(_BLOCK // first.numel(), 1)):
            low, high = int(start[part[0]]), int(start[part[-1] + 1])
            parts.append(F.embedding_bag(end[low:high], table, start[part] - low, mode='sum').argmax(1))
        nearest = torch.cat(parts)
        if torch.equal(nearest, group):
            break
        group = nearest
        center = centers(group, first.numel())
    types[found] = group
    return types.to(train.device)
