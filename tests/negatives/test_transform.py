from __future__ import annotations

import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import kge
from torch_geometric.transforms import Compose

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.negatives import EMUNegatives, parts_of
from pyg_emu.negatives.contract import Negatives
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
from tests.negatives.mutation.contexts import context


def make_batch(**arguments: Any) -> Batch:
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


def test_filtered_sampler_draws_no_facts() -> None:
    out = EMUNegatives(40, sampler=UniformSampler(filtered=True))(make_batch(corrupt='both'))
    known = out.source.fact_index().is_known(out.neg_index, out.known_index, out.rel_type, out.side)
    assert out.neg_index.shape == (10, 40) and out.neg_mask is None and not known.any()


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
    assert mutation.plan(context(torch.zeros(10, 6), 4, 6)).index.shape == (10, 4)


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
        plans = [some.mutation.plan(context(torch.ones(10, 6), 4, 6, torch.Generator().manual_seed(0), 3))
                 for some in (batch, out)]
        torch.testing.assert_close(*(getattr(plan, 'bank', getattr(plan, 'weight', None)) for plan in plans))


def test_takes_any_mutation() -> None:
    mixup = Mixup()
    assert EMUNegatives(4, mutation=mixup)(make_batch()).mutation is mixup


@pytest.mark.parametrize('side, known, target', [
    ('tail', [0, 1], [2, 3]),
    ('head', [2, 3], [0, 1]),
    (torch.tensor([True, False]), [0, 3], [2, 1]),
])
def test_plain_data(side: Any, known: list[int], target: list[int]) -> None:
    data = make_plain(num_nodes=4, weight=torch.ones(2), side=side)
    out = Compose([EMUNegatives(3)])(data)
    assert out.known_index.tolist() == known and out.target_index.tolist() == target
    assert out.neg_index.shape == (2, 3) and out.neg_index.max() < 4
    assert out.step == 0 and out.generator is None and out.weight is data.weight


@pytest.mark.parametrize('through', [lambda transform: transform, lambda transform: Compose([transform])])
def test_both_ends_are_corrupted_without_a_side(through: Any) -> None:
    transform = through(EMUNegatives(3))
    heads = torch.arange(51)
    plain = Data(head_index=heads, rel_type=heads * 0, tail_index=heads + 51, num_nodes=102)
    torch.manual_seed(0)
    sides = torch.stack([transform(plain).corrupts_tail for _ in range(40)])
    assert set(sides.sum(1).tolist()) == {25, 26}  # a half, and chance decides about the odd row
    assert (sides.sum(0) > 0).all() and (sides.sum(0) < 40).all()
    torch.manual_seed(0)
    assert torch.equal(transform(plain).corrupts_tail, sides[0])


def test_both_ends_are_corrupted_in_worker_processes() -> None:
    facts = torch.arange(64)
    transform = EMUNegatives(3)

    def collate(rows: list[int]) -> Batch:
        ids = torch.tensor(rows)
        return transform(Data(head_index=ids, rel_type=ids * 0, tail_index=ids, num_nodes=64))

    torch.manual_seed(0)
    batches = list(DataLoader(facts.tolist(), batch_size=16, collate_fn=collate, num_workers=2))
    assert [int(batch.corrupts_tail.sum()) for batch in batches] == [8] * 4
    assert all(batch.mutation is not None for batch in batches)
    assert len({tuple(batch.corrupts_tail.tolist()) for batch in batches}) > 1


def test_both_ends_are_corrupted_over_the_loader_of_pyg() -> None:
    facts = torch.randint(50, (3, 128), generator=torch.Generator().manual_seed(0))
    model = kge.DistMult(50, 50, 4)
    for head, relation, tail in model.loader(*facts, batch_size=32, shuffle=True):
        batch = EMUNegatives(3)(Data(head_index=head, rel_type=relation, tail_index=tail, num_nodes=50))
        assert int(batch.corrupts_tail.sum()) == 16


def test_counts_batches_without_a_step() -> None:
    transform = EMUNegatives(3, LinearSchedule(0.0, 0.6, 100))
    steps = [transform(make_plain(num_nodes=4)).step for _ in range(3)]
    assert steps == [0, 1, 2]
    assert transform(make_plain(num_nodes=4, step=70)).step == 70
    again = EMUNegatives(3)
    again.load_state_dict(transform.state_dict())
    assert again(make_plain(num_nodes=4)).step == 3
    assert transform(make_batch()).step == 0  # the loader's own count


def test_refuses_what_a_sampler_returns() -> None:
    class Odd:
        def __init__(self, negatives: Any) -> None:
            self.negatives = negatives

        def sample(self, batch: Batch, num_negatives: int, generator: Any = None) -> Any:
            return self.negatives

    ids, vectors = torch.zeros(10, 4, dtype=torch.int64), torch.zeros(10, 2, 8)
    for negatives, name in ((ids, 'sampler'), (Negatives(ids.float()), 'neg_index'), (Negatives(ids[:9]), 'neg_index'),
                            (Negatives(ids, torch.ones(10, 3, dtype=torch.bool)), 'neg_mask'),
                            (Negatives(ids, None, vectors[:, 0]), 'neg_vectors'),
                            (Negatives(ids, torch.ones(10, 4, dtype=torch.bool), vectors), 'neg_mask')):
        with pytest.raises(ArgumentError, match=name):
            EMUNegatives(4, sampler=Odd(negatives))(make_batch())
    out = EMUNegatives(4, sampler=Odd(Negatives(ids, torch.ones(10, 6, dtype=torch.bool), vectors)))(make_batch())
    assert out.num_negatives == 6 and out.neg_vectors is vectors


def test_parts_of_a_loader() -> None:
    transform = EMUNegatives(3)
    parts = parts_of(SimpleNamespace(transform=transform))
    assert parts == {'transform': transform, 'transform.sampler': transform.sampler,
                     'transform.mutation': transform.mutation}
    parts = parts_of(SimpleNamespace(transform=Compose([lambda batch: batch, transform])))
    assert parts['transform.1.sampler'] is transform.sampler and parts['transform.1'] is transform
    assert parts_of(SimpleNamespace(transform=None)) == {} == parts_of(object())


def test_plain_data_follows_the_global_seed() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(EMUNegatives(20)(make_plain(num_nodes=100)).neg_index)
    assert torch.equal(*drawn)


@pytest.mark.parametrize('arguments, message', [
    ({'num_negatives': 0}, 'num_negatives: .* got 0'),
    ({'num_negatives': 1.5}, 'num_negatives: .*got 1.5'),
    ({'num_negatives': '4'}, "num_negatives: .*got '4'"),
    ({'mutation_rate': 1.2}, '^mutation_rate: .*got 1.2'),
    ({'mutation_rate': float('nan')}, '^mutation_rate: .*got nan'),
    ({'sampler': UniformSampler}, '^sampler: .* got the class UniformSampler'),
    ({'sampler': 5}, '^sampler: .*got 5'),
    ({'mask': 'random'}, "mask: .* 'bernoulli', 'exact', 'block', 'importance', got 'random'"),
    ({'mask': 'importance', 'shared': False}, 'shared'),
    ({'mutation': 0.3}, 'mutation: .*got 0.3'),
    ({'mutation': Mixup}, '^mutation: .* got the class Mixup'),
])
def test_refuses_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        EMUNegatives(**arguments)


def test_refuses_data() -> None:
    with pytest.raises(ArgumentError, match='head_index'):
        EMUNegatives(3)(make_batch().source)
    with pytest.raises(ArgumentError, match='num_nodes'):
        EMUNegatives(3)(make_plain())


def test_repr() -> None:
    assert str(EMUNegatives(3)).startswith('EMUNegatives(num_negatives=3, sampler=')


@pytest.mark.parametrize('setting', [
    {'mutation_rate': 0.61}, {'mutation_rate': 0.0}, {'mutation_rate': LinearSchedule(0.1, 0.5, 9)}, {'mask': 'exact'},
    {'mask': 'importance'}, {'shared': False}, {'tied': True},
], ids=str)
def test_refuses_settings_that_a_mutation_takes_the_place_of(setting: dict[str, Any]) -> None:
    (name, value), = setting.items()
    EMUNegatives(4, **setting)
    with pytest.raises(ArgumentError, match=f'^{name}: .*Mixup'):
        EMUNegatives(4, mutation=Mixup(), **setting)
    # What says the same as the defaults asks for nothing that is not done.
    EMUNegatives(4, 0.3, 'bernoulli', True, False, mutation=Mixup())
    with pytest.raises(ArgumentError, match='^mask: '):
        EMUNegatives(4, mask='random', mutation=Mixup())


def test_refuses_what_has_a_method_sample_of_another_kind() -> None:
    class Own:
        def sample(self, batch: Batch, number: int, stream: Any) -> Negatives:
            return Negatives(torch.zeros(batch.head_index.numel(), number, dtype=torch.int64))

    for value in (pd.DataFrame({'x': [1]}), pd.Series([1]), torch.distributions.Normal(0.0, 1.0), random.Random(0)):
        with pytest.raises(ArgumentError, match=f'^sampler: .*sample\\(batch, num_negatives, .*{type(value).__name__}'):
            EMUNegatives(4, sampler=value)  # type: ignore[arg-type]
    assert EMUNegatives(4, sampler=Own())(make_batch()).neg_index.shape == (10, 4)


class _Learning(UniformSampler):
    def update(self, batch: Batch, scorer: Any) -> None:
        pass


@pytest.mark.parametrize('options, name', [({'mutation': LearnedMask(6)}, 'mutation'),
                                           ({'sampler': _Learning()}, 'sampler')])
def test_parts_that_learn_stay_in_the_process_that_trains(options: dict[str, Any], name: str) -> None:
    transform = EMUNegatives(3, **options)

    def collate(rows: list[int]) -> Batch:
        ids = torch.tensor(rows)
        return transform(Data(head_index=ids, rel_type=ids * 0, tail_index=ids, num_nodes=64))

    assert len(list(DataLoader(range(8), batch_size=4, collate_fn=collate))) == 2  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=f'{name}: .*num_workers=0'):
        next(iter(DataLoader(range(8), batch_size=4, collate_fn=collate, num_workers=1)))  # type: ignore[arg-type]


def test_incomplete_state_is_named() -> None:
    with pytest.raises(CheckpointError, match='num_calls'):
        EMUNegatives(3).load_state_dict({})


def test_errors_inside_of_a_rate_are_its_own() -> None:
    def broken(step: int) -> float:
        return 0.1 + None  # type: ignore[operator, no-any-return]

    batch = EMUNegatives(3, mutation_rate=broken)(make_batch())
    with pytest.raises(TypeError, match='unsupported operand'):
        batch.mutation.plan(context(torch.ones(10, 6), 4, 6, torch.Generator(), 3))
    batch = EMUNegatives(3, mutation_rate=lambda: 0.1)(make_batch())  # type: ignore[arg-type, misc]
    with pytest.raises(ArgumentError, match='^rate: '):
        batch.mutation.plan(context(torch.ones(10, 6), 4, 6, torch.Generator(), 3))


def test_heterogeneous_batches_say_what_to_do() -> None:
    with pytest.raises(ArgumentError, match=r'HeteroData; load_dataset\(hetero, .*TripletLoader'):
        EMUNegatives(num_negatives=4)(HeteroData())
    with pytest.raises(ArgumentError, match='type list$'):
        EMUNegatives(num_negatives=4)([])
