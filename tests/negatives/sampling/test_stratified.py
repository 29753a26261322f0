r"""Negatives that are spread evenly over the entities."""
from __future__ import annotations

import pytest
import torch

from pyg_emu import Batch, KGData, StratifiedSampler
from pyg_emu.core.sharded_table import even_bounds

NUM_NODES = 10


def make_batch(filtered: bool = False) -> Batch:
    r"""The known answers of (0, 0, ?) are all entities but 3, 5, 8 and 9, and those of (1, 0, ?) are all entities."""
    tails = [0, 1, 2, 4, 6, 7, *range(NUM_NODES)]
    heads = [0] * 6 + [1] * NUM_NODES
    data = KGData(torch.tensor([heads, tails]), torch.zeros(16, dtype=torch.int64), NUM_NODES, 1)
    index = torch.tensor([0, 1] if filtered else [0] * 4000)
    return Batch(index, torch.zeros_like(index), torch.zeros_like(index), 'tail', num_nodes=NUM_NODES, source=data)


def test_each_slot_has_its_part() -> None:
    index = StratifiedSampler().sample(make_batch(), 4, torch.Generator().manual_seed(0)).index
    # Parts of 2.5 entities: 0, 1 and half of 2; the other half of 2, 3 and 4; and so on.
    expected = torch.zeros(4, NUM_NODES)
    for slot, part in enumerate([{0: 0.4, 1: 0.4, 2: 0.2}, {2: 0.2, 3: 0.4, 4: 0.4}, {5: 0.4, 6: 0.4, 7: 0.2},
                                 {7: 0.2, 8: 0.4, 9: 0.4}]):
        expected[slot, list(part)] = torch.tensor([*part.values()])
    found = torch.stack([column.bincount(minlength=NUM_NODES) / len(index) for column in index.T])
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.03)
    torch.testing.assert_close(found.mean(0), torch.full((NUM_NODES, ), 0.1), rtol=0.0, atol=0.01)


@pytest.mark.parametrize('world', [2, 3, 4, 7])
def test_processes_have_equal_shares(world: int) -> None:
    batch = make_batch()
    batch.num_nodes = 1000
    index = StratifiedSampler().sample(batch, 64, torch.Generator().manual_seed(0)).index
    owner = torch.bucketize(index, torch.tensor(even_bounds(1000, world)[1:]), right=True)
    shares = torch.stack([(owner == process).sum(1) for process in range(world)])
    assert (shares - 64 / world).abs().max() <= 2


def test_known_facts_are_left_out() -> None:
    sampler = StratifiedSampler(filtered=True)
    found = sampler.sample(make_batch(filtered=True), 4, torch.Generator().manual_seed(0))
    assert found.index[0].tolist() == [3, 5, 8, 9]
    assert found.mask.tolist() == [[True] * 4, [False] * 4] and sampler.num_exhausted == 1
