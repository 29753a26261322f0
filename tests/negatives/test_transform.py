from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from pyg_emu.core.contract import Negatives
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import (
    BernoulliMask,
    BlockMask,
    ExactMask,
    ImportanceMask,
    LearnedMask,
    LinearSchedule,
    Mixup,
)
from pyg_emu.negatives.sampling import UniformSampler


def make_batch(**arguments: Any) -> KGData:
    generator = torch.Generator().manual_seed(0)
    data = KGData(torch.randint(9, (2, 30), generator=generator), torch.randint(2, (30, ), generator=generator), 9, 2)
    return next(iter(TripletLoader(data, 10, **arguments)))


def make_plain(**extra: Any) -> Data:
    head_index, rel_type, tail_index = torch.tensor([[0, 1], [0, 1], [2, 3]])
    return Data(head_index=head_index, rel_type=rel_type, tail_index=tail_index, **extra)


class Recorder:
    r"""A sampler that remembers what it was asked for, and masks out every second slot."""
    def sample(self, batch: Any, num_negatives: int, generator: Any = None) -> Negatives:
        self.asked = (num_negatives, generator)
        index = torch.zeros(batch.head_index.numel(), num_negatives, dtype=torch.int64)
        return Negatives(index, torch.arange(num_negatives).expand_as(index) % 2 == 0)

    def update(self, batch: Any, scorer: Any) -> None:
        pass


def test_draws_negatives_from_the_runs_stream() -> None:
    batch = make_batch(seed=3)
    out = EMUNegatives(num_negatives=5)(batch)
    assert out.neg_index.shape == (10, 5) and out.neg_mask is None
    expected = torch.randint(9, (10, 5), generator=torch.Generator().manual_seed(3))
    assert torch.equal(out.neg_index, expected)
    assert out.generator is batch.generator and out.source is batch.source
    assert isinstance(out.mutation, BernoulliMask) and out.mutation.shared and out.mutation.rate == 0.3


def test_input_stays_as_it_is() -> None:
    batch, plain = make_batch(), make_plain(num_nodes=4)
    for data in (batch, plain):
        keys = data.keys()
        out = EMUNegatives(4)(data)
        assert out is not data and data.keys() == keys and 'neg_index' not in data
        assert out.head_index is data.head_index
    assert batch.mutation is None


def test_takes_any_sampler() -> None:
    batch, sampler = make_batch(), Recorder()
    out = EMUNegatives(4, sampler=sampler)(batch)
    assert sampler.asked == (4, batch.generator)
    assert out.neg_mask.tolist() == [[True, False, True, False]] * 10


def test_filtered_sampler_masks() -> None:
    out = EMUNegatives(4, sampler=UniformSampler(filtered=True))(make_batch())
    assert out.neg_index.shape == (10, 4)


@pytest.mark.parametrize('mask, cls', [('bernoulli', BernoulliMask), ('exact', ExactMask), ('block', BlockMask),
                                       ('importance', ImportanceMask)])
@pytest.mark.parametrize('shared', [True, False])
def test_mask_kinds(mask: str, cls: type, shared: bool) -> None:
    if mask == 'importance' and not shared:
        return  # refused, see below
    for tied in (True, False):
        mutation = EMUNegatives(4, mutation_rate=0.6, mask=mask, tied=tied, shared=shared)(make_batch()).mutation
        assert type(mutation) is cls
        assert (mutation.rate, mutation.shared, mutation.tied) == (0.6, shared, tied)


def test_one_mask_per_negative() -> None:
    mutation = EMUNegatives(4, shared=False)(make_batch()).mutation
    assert mutation.plan(torch.zeros(10, 6), 4, 6).index.shape == (10, 4)


def test_rate_zero_mutates_nothing() -> None:
    assert EMUNegatives(4, mutation_rate=0.0)(make_batch()).mutation is None
    schedule = LinearSchedule(0.0, 1.0, 10)
    assert EMUNegatives(4, mutation_rate=schedule)(make_batch()).mutation.rate is schedule


@pytest.mark.parametrize('options', [
    {'mask': 'bernoulli'}, {'mask': 'exact'}, {'mask': 'block'}, {'mask': 'importance'},
    {'mutation_rate': LinearSchedule(0.6, 0.1, 9)}, {'mutation': Mixup()}, {'mutation': LearnedMask(6)},
], ids=str)
def test_batch_of_another_process_keeps_its_mutation(options: dict[str, Any], tmp_path: Path) -> None:
    batch = EMUNegatives(4, **options)(make_batch())
    torch.save(batch, tmp_path / 'batch.pt')
    for out in (pickle.loads(pickle.dumps(batch)), torch.load(tmp_path / 'batch.pt', weights_only=True)):
        assert out.source is None and type(out.mutation) is type(batch.mutation)
        plans = [some.mutation.plan(torch.ones(10, 6), 4, 6, torch.Generator().manual_seed(0), 3)
                 for some in (batch, out)]
        torch.testing.assert_close(*(getattr(plan, 'bank', getattr(plan, 'weight', None)) for plan in plans))


def test_takes_any_mutation() -> None:
    mixup = Mixup()
    assert EMUNegatives(4, mutation=mixup)(make_batch()).mutation is mixup


@pytest.mark.parametrize('side, known, target', [
    (None, [0, 1], [2, 3]),
    ('head', [2, 3], [0, 1]),
    (torch.tensor([True, False]), [0, 3], [2, 1]),
])
def test_plain_data(side: Any, known: list[int], target: list[int]) -> None:
    data = make_plain(num_nodes=4, weight=torch.ones(2), **({} if side is None else {'side': side}))
    out = Compose([EMUNegatives(3)])(data)
    assert out.known_index.tolist() == known and out.target_index.tolist() == target
    assert out.neg_index.shape == (2, 3) and out.neg_index.max() < 4
    assert out.step == 0 and out.generator is None and out.weight is data.weight


def test_plain_data_follows_the_global_seed() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(EMUNegatives(20)(make_plain(num_nodes=100)).neg_index)
    assert torch.equal(*drawn)


@pytest.mark.parametrize('arguments, message', [
    ({'num_negatives': 0}, 'num_negatives: expected an integer of at least 1, got 0'),
    ({'num_negatives': 1.5}, 'num_negatives: .*got 1.5'),
    ({'num_negatives': '4'}, "num_negatives: .*got '4'"),
    ({'mutation_rate': 1.2}, '^mutation_rate: .*got 1.2'),
    ({'mutation_rate': float('nan')}, '^mutation_rate: .*got nan'),
    ({'sampler': UniformSampler}, '^sampler: expected an object .*, got <class'),
    ({'sampler': 5}, '^sampler: .*got 5'),
    ({'mask': 'random'}, "mask: expected one of 'bernoulli', 'exact', 'block', 'importance', got 'random'"),
    ({'mask': 'importance', 'shared': False}, 'shared'),
    ({'mutation': 0.3}, 'mutation: .*got 0.3'),
    ({'mutation': Mixup}, '^mutation: expected an object .*, got <class'),
])
def test_refuses_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        EMUNegatives(**arguments)


def test_refuses_data() -> None:
    with pytest.raises(ArgumentError, match='TripletLoader makes them, but head_index is missing'):
        EMUNegatives(3)(make_batch().source)
    with pytest.raises(ArgumentError, match='num_nodes is missing'):
        EMUNegatives(3)(make_plain())
    with pytest.raises(ArgumentError, match="data.side: .*got 'both'"):
        EMUNegatives(3)(make_plain(num_nodes=4, side='both'))
    with pytest.raises(ArgumentError, match=r'data.side: .* shape \(2,\), got one of torch.int64 and shape \(2,\)'):
        EMUNegatives(3)(make_plain(num_nodes=4, side=torch.tensor([0, 1])))
    with pytest.raises(ArgumentError, match=r'data.side: .* shape \(2,\), got one of torch.bool and shape \(1,\)'):
        EMUNegatives(3)(make_plain(num_nodes=4, side=torch.tensor([True])))
    with pytest.raises(ArgumentError, match=r'data.rel_type: 1 at position .* \[0, 1\), .* that num_relations gives'):
        EMUNegatives(3)(make_plain(num_nodes=4, num_relations=1))
    plain = make_plain(num_nodes=4)
    plain.tail_index = plain.tail_index.tolist()
    with pytest.raises(ArgumentError, match=r'data.tail_index: expected a tensor .* got list; use torch.tensor'):
        EMUNegatives(3)(plain)


def test_repr() -> None:
    assert str(EMUNegatives(3)).startswith('EMUNegatives(num_negatives=3, sampler=')


@pytest.mark.parametrize('name, ids, message', [
    ('head_index', [0, 4], r'data\.head_index: 4 at position 1 is not in \[0, 4\), .* num_nodes gives'),
    ('tail_index', [-1, 2], r'data\.tail_index: -1 at position 0 is not in \[0, 4\)'),
    ('rel_type', [0, -2], r'data\.rel_type: -2 at position 1 is not an id'),
    ('rel_type', [0.0, 1.0], r'data\.rel_type: expected int64, got torch\.float32; use rel_type\.long\(\)'),
    ('tail_index', [1, 2, 3], r'data\.tail_index: expected shape \(B,\), .*got \(3,\)'),
    ('head_index', [[0, 1]], r'data\.head_index: expected shape \(B,\), .*got \(1, 2\)'),
])
def test_refuses_ids_of_a_batch_made_by_hand(name: str, ids: Any, message: str) -> None:
    data = make_plain(num_nodes=4)
    data[name] = torch.tensor(ids)
    with pytest.raises(ArgumentError, match=message):
        EMUNegatives(3)(data)
