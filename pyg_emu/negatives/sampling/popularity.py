r"""Negatives by how often entities occur."""
from __future__ import annotations

import torch

from pyg_emu.core.arguments import boolean, non_negative
from pyg_emu.data.candidates import ends_of_relations
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.sampling.pools import Pools, PoolSampler, integer_weights


class PopularitySampler(PoolSampler):
    r"""Entities drawn by popularity, with replacement:

    .. math::
        p(x) \propto \deg(x)^{p}

    with the power :math:`p = 0.75` of the `"Distributed Representations of Words and Phrases and their
    Compositionality" <https://arxiv.org/abs/1310.4546>`_ paper. The degree of an entity is the number of distinct
    training facts with it as head plus the number of those with it as tail. An entity without a training fact is not
    drawn, whatever the power.

    With :obj:`per_relation`, the degree counts the facts of the triple's relation with the entity at the end that is
    predicted. Only entities seen at that end are drawn then, by their frequency, and :obj:`power=0` draws them
    uniformly, as :class:`TypedSampler` does.

    If there is no entity to draw (the relation has no training facts, no entity but the predicted one occurs at that
    end, or with :obj:`filtered`, all of them are known answers), draws are uniform over all entities (with
    :obj:`filtered`, over all unknown ones). All draws are exact, without rejection rounds.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, sampler=PopularitySampler(per_relation=True, filtered=True))

    Args:
        power (float, optional): The power :math:`p`. (default: :obj:`0.75`)
        per_relation (bool, optional): Whether degrees are counted for each relation and end. (default: :obj:`False`)
        uniform (float, optional): The probability that a candidate is drawn uniformly from all entities instead (with
            :obj:`filtered`, from all unknown ones). With :obj:`per_relation` and zero, a model does not learn to reject
            entities that do not fit, and ranks poorly among all. (default: :obj:`0.0`)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`False`)
        split (str, optional): The split whose facts are known. Degrees are always those of the training facts.
            (default: :obj:`"train"`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if the batch has no :obj:`source`.
    """
    def __init__(
        self,
        power: float = 0.75,
        per_relation: bool = False,
        uniform: float = 0.0,
        filtered: bool = False,
        split: str = 'train',
    ) -> None:
        super().__init__(uniform, filtered, split)
        self.power = float(non_negative('power', power))
        self.per_relation = boolean('per_relation', per_relation)

    def _build(self, train: FactIndex, largest_sum: int) -> Pools:
        if self.per_relation:
            pool, entity, degree = ends_of_relations(train)
            num_pools, of_entity = 2 * train.num_relations, None
        else:
            degree = torch.bincount(train.keys % max(train.num_nodes, 1), minlength=train.num_nodes)
            entity = degree.nonzero().squeeze(1)
            pool, degree = torch.zeros_like(entity), degree[entity]
            num_pools, of_entity = 1, torch.zeros(train.num_nodes, dtype=torch.int64, device=train.device)
        weight = integer_weights(self.power * degree.double().log(), pool, num_pools, largest_sum)
        return Pools(pool, entity, num_pools, train.num_nodes, train.num_relations, weight, of_entity)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(power={self.power}, per_relation={self.per_relation}, '
                f'uniform={self.uniform}, filtered={self.filtered}, split={self.split!r})')
