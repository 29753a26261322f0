from __future__ import annotations

import copy
import io
from typing import Any, Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.transforms import BaseTransform

from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader


def make_data(num_facts: int = 10) -> KGData:
    ids = torch.arange(num_facts)
    return KGData(torch.stack([ids, (ids + 1) % (num_facts + 1)]), ids % 3, num_nodes=num_facts + 1, num_relations=3,
                  valid_edge_index=torch.tensor([[0], [0]]), valid_edge_type=torch.tensor([0]))


class DrawNumbers(BaseTransform):
    r"""Stands for a transform that draws negatives."""

    def forward(self, batch: Batch) -> Batch:
        batch.neg_index = torch.randint(batch.num_nodes, (batch.head_index.numel(), 2), generator=batch.generator)
        return batch


def rows(batch: Batch) -> list[tuple[int, int, int]]:
    return list(zip(batch.head_index.tolist(), batch.rel_type.tolist(), batch.tail_index.tolist()))


def trace(batch: Batch) -> tuple[Any, ...]:
    side = batch.side.tolist() if isinstance(batch.side, Tensor) else batch.side
    return rows(batch), side, batch.step, None if batch.neg_index is None else batch.neg_index.tolist()


def test_batches_in_order() -> None:
    data = make_data(5)
    loader = TripletLoader(data, batch_size=2)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [rows(batch) for batch in batches] == [[(0, 0, 1), (1, 1, 2)], [(2, 2, 3), (3, 0, 4)], [(4, 1, 5)]]
    assert [batch.step for batch in batches] == [0, 1, 2]
    assert all(batch.source is data and batch.generator is loader.generator for batch in batches)
    assert all((batch.num_nodes, batch.num_relations) == (6, 3) for batch in batches)
    assert repr(loader) == "TripletLoader(num_facts=5, batch_size=2, corrupt='alternate')"


def test_batches_are_pyg_data() -> None:
    batch = next(iter(TripletLoader(make_data(5), batch_size=2)))
    assert isinstance(batch, Batch) and 'source' not in batch.keys() and 'generator' not in batch.keys()


@given(st.integers(1, 30), st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_epoch_visits_every_fact_once(num_facts: int, batch_size: int, shuffle: bool, drop_last: bool,
                                            seed: int) -> None:
    batch_size = min(batch_size, num_facts)
    loader = TripletLoader(make_data(num_facts), batch_size, shuffle, drop_last=drop_last, seed=seed)
    for _ in range(2):
        sizes = []
        seen: list[tuple[int, int, int]] = []
        for batch in loader:
            sizes.append(batch.head_index.numel())
            seen += rows(batch)
        expected = num_facts // batch_size * batch_size if drop_last else num_facts
        assert len(sizes) == len(loader) and set(sizes[:-1]) <= {batch_size}
        assert len(seen) == len(set(seen)) == expected


def test_each_epoch_has_an_order_of_its_own() -> None:
    def epochs(seed: int) -> list[list[int]]:
        loader = TripletLoader(make_data(50), 50, shuffle=True, seed=seed)
        return [next(iter(loader)).head_index.tolist() for _ in range(3)]

    first = epochs(0)
    assert first == epochs(0)
    assert len({tuple(order) for order in first + epochs(1)}) == 6


def test_order_does_not_depend_on_what_is_drawn() -> None:
    plain = TripletLoader(make_data(), 3, shuffle=True)
    drawing = TripletLoader(make_data(), 3, shuffle=True, transform=DrawNumbers())
    for _ in range(2):
        assert [rows(batch) for batch in plain] == [rows(batch) for batch in drawing]


def test_alternating_sides_go_on_across_epochs() -> None:
    loader = TripletLoader(make_data(5), batch_size=2)
    assert [batch.side for _ in range(2) for batch in loader] == ['tail', 'head', 'tail', 'head', 'tail', 'head']


@pytest.mark.parametrize('corrupt', ['alternate', 'both'])
@pytest.mark.parametrize('num_facts', [2, 3, 4, 5, 6, 7, 8])
def test_two_epochs_corrupt_both_ends_of_every_fact(corrupt: Any, num_facts: int) -> None:
    loader = TripletLoader(make_data(num_facts), batch_size=2, corrupt=corrupt)
    seen = set()
    for _ in range(2):
        for batch in loader:
            tail = torch.as_tensor(batch.side == 'tail' if isinstance(batch.side, str) else batch.side)
            seen |= set(zip(rows(batch), tail.expand(batch.rel_type.numel()).tolist()))
    assert len(seen) == 2 * num_facts


@pytest.mark.parametrize('corrupt', ['tail', 'head'])
def test_fixed_side(corrupt: Any) -> None:
    assert {batch.side for batch in TripletLoader(make_data(), 3, corrupt=corrupt)} == {corrupt}


@pytest.mark.parametrize('num_facts', [8, 12])  # an even and an odd number of batches
def test_both_sides_within_a_batch(num_facts: int) -> None:
    loader = TripletLoader(make_data(num_facts), batch_size=4, corrupt='both')
    tails: list[list[bool]] = []
    for _ in range(2):
        sides = [batch.side for batch in loader]
        assert all(isinstance(side, Tensor) and side.dtype == torch.bool and int(side.sum()) == 2 for side in sides)
        tails.append(torch.cat(sides).tolist())  # type: ignore[arg-type]
    # Unshuffled, a fact has its tail corrupted in one epoch and its head in the next.
    assert all(first != second for first, second in zip(*tails))


def test_bernoulli_sides() -> None:
    # Relation 0: one head with three tails, tph = 3 and hpt = 1: the head is corrupted in 3/4 of the cases. Relation 1:
    # four heads with one tail, tph = 1 and hpt = 4: in 1/5. Relation 2 occurs in validation alone: in a half.
    facts = [(0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0), (4, 1, 0)]
    head, relation, tail = torch.tensor(facts).unbind(1)
    ones = torch.ones(4000, dtype=torch.int64)
    data = KGData(torch.stack([head, tail]), relation, 5, 3, valid_edge_index=torch.stack([ones, ones]),
                  valid_edge_type=torch.arange(4000) % 3)
    for split, expected in (('train', {0: 0.75, 1: 0.2}), ('valid', {0: 0.75, 1: 0.2, 2: 0.5})):
        loader, tails, types = TripletLoader(data, 100, True, corrupt='bernoulli', split=split), [], []
        for _ in range(500 if split == 'train' else 1):
            for batch in loader:
                assert isinstance(batch.side, Tensor) and batch.side.dtype == torch.bool
                tails.append(batch.side)
                types.append(batch.rel_type)
        heads, kind = ~torch.cat(tails), torch.cat(types)
        for relation_id, share in expected.items():
            drawn = heads[kind == relation_id].double()
            deviation = (share * (1 - share) / drawn.numel())**0.5
            assert abs(float(drawn.mean()) - share) < 3.5 * deviation < 0.06


def test_transform_sees_every_batch() -> None:
    loader = TripletLoader(make_data(), 4, transform=DrawNumbers())
    shapes = [batch.neg_index.shape for batch in loader if batch.neg_index is not None]
    assert shapes == [(4, 2), (4, 2), (2, 2)]


def test_splits_and_inverse_relations() -> None:
    data = make_data(4)
    assert [rows(batch) for batch in TripletLoader(data, split='valid')] == [[(0, 0, 0)]]
    assert len(rows(next(iter(TripletLoader(data, split='all'))))) == 5
    batch = next(iter(TripletLoader(data.with_inverse_relations())))
    assert rows(batch) == rows(next(iter(TripletLoader(data))))
    with pytest.raises(DataError, match="^split: .*'test'"):
        TripletLoader(data, split='test')


def test_facts_may_change_between_epochs() -> None:
    data = make_data(3)
    loader = TripletLoader(data, 2)
    list(loader)
    data.edge_type = torch.tensor([2, 2, 2])
    assert [relation for batch in loader for _, relation, _ in rows(batch)] == [2, 2, 2]


def test_breaking_off_starts_a_new_epoch() -> None:
    loader = TripletLoader(make_data(), 4, shuffle=True)
    first = rows(next(iter(loader)))
    assert loader.epoch == 0
    second = [rows(batch) for batch in loader]
    assert loader.epoch == 2 and len(second) == 3 and second[0] != first


def test_endless_batches() -> None:
    by_epoch = TripletLoader(make_data(), 4, shuffle=True, transform=DrawNumbers())
    expected = [trace(batch) for _ in range(3) for batch in by_epoch]
    endless = TripletLoader(make_data(), 4, shuffle=True, transform=DrawNumbers()).batches()
    assert [trace(next(endless)) for _ in range(9)] == expected


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@given(st.integers(1, 25), st.integers(1, 6), st.booleans(),
       st.sampled_from(['alternate', 'both', 'bernoulli']), st.integers(0, 12))
def test_resuming_anywhere_changes_nothing(num_facts: int, batch_size: int, shuffle: bool, corrupt: Any,
                                           stop: int) -> None:
    def make(data: KGData) -> TripletLoader:
        return TripletLoader(data, batch_size, shuffle, DrawNumbers(), corrupt, seed=3)

    loader = make(make_data(num_facts))
    batches = loader.batches()
    for _ in range(stop):
        next(batches)
    state = through_file(loader.state_dict())
    expected = [trace(next(batches)) for _ in range(8)]

    resumed = make(make_data(num_facts))
    resumed.load_state_dict(state)
    rest = resumed.batches()
    assert [trace(next(rest)) for _ in range(8)] == expected

    # The same with a loop over epochs: the first one is the rest of the epoch that was interrupted.
    resumed = make(make_data(num_facts))
    resumed.load_state_dict(state)
    assert resumed.epoch == stop // len(resumed)
    traces: list[Any] = []
    while len(traces) < 8:
        traces += [trace(batch) for batch in resumed]
    assert traces[:8] == expected


def test_state_is_not_changed_by_going_on() -> None:
    loader = TripletLoader(make_data(), 4, transform=DrawNumbers())
    state = loader.state_dict()
    before = copy.deepcopy(state)
    list(loader)
    assert state['generator'].equal(before['generator']) and state['step'] == 0


def break_generator(state: dict[str, Any]) -> None:
    state['generator'] = state['generator'][:16]


@pytest.mark.parametrize('change, message', [
    (lambda state: state.pop('position'), '^state: .* position$'),
    (lambda state: state.update(batch_size=9), '^state: .*batch_size=4.*batch_size=9'),
    (lambda state: state.update(num_facts=11), 'num_facts=10.*num_facts=11'),
    (lambda state: state.update(seed=1), 'seed=0.*seed=1'),
    (lambda state: state.update(generator=None), '^state: .*cpu'),
    (break_generator, '^state: .*cpu'),
])
def test_foreign_state(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    loader = TripletLoader(make_data(), 4)
    state = loader.state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        loader.load_state_dict(state)


@pytest.mark.parametrize('arguments, message', [
    ({'batch_size': 0}, '^batch_size: .* 0$'),
    ({'batch_size': -3}, '^batch_size: .* -3$'),
    ({'batch_size': 2.5}, '^batch_size: .* 2.5$'),
    ({'batch_size': True}, '^batch_size: .* True$'),
    ({'corrupt': 'tails'}, "^corrupt: .*'alternate'.* 'tails'$"),
    ({'split': 'dev'}, "split: .*'train'.*'dev'"),
    ({'seed': -1}, '^seed: .* -1$'),
    ({'seed': 'x'}, "^seed: .* 'x'$"),
    ({'transform': 3}, '^transform: .* int$'),
    ({'batch_size': 11, 'drop_last': True}, '^drop_last: .*batch_size=11 .* 10;'),
])
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        TripletLoader(make_data(10), **arguments)


def test_integers_of_numpy_reach_no_checkpoint() -> None:
    loader = TripletLoader(make_data(10), np.int64(4), seed=np.int32(3))  # type: ignore[arg-type]
    file = io.BytesIO()
    torch.save(loader.state_dict(), file)
    file.seek(0)
    TripletLoader(make_data(10), 4, seed=3).load_state_dict(torch.load(file, weights_only=True))


def test_bad_data() -> None:
    with pytest.raises(DataError, match=r'edge_index\[1\], column 0: .*tail.* 7$'):
        TripletLoader(KGData(torch.tensor([[0], [7]]), torch.tensor([0]), num_nodes=3))
    with pytest.raises(ArgumentError, match='^data: .*KGData.* Tensor;'):
        TripletLoader(torch.zeros(3, 3))  # type: ignore[arg-type]


@pytest.mark.gpu
def test_batches_stay_on_the_gpu() -> None:
    loader = TripletLoader(make_data().cuda(), 4, shuffle=True, corrupt='both')
    state = loader.state_dict()
    batch = next(iter(loader))
    assert batch.head_index.is_cuda and batch.side.is_cuda and loader.generator.device.type == 'cuda'  # type: ignore
    with pytest.raises(CheckpointError, match='^state: .*cpu'):
        TripletLoader(make_data(), 4, shuffle=True, corrupt='both').load_state_dict(state)


@pytest.mark.parametrize('state', [None, 5, 'x', [1], torch.zeros(2)], ids=str)
def test_state_that_is_none(state: Any) -> None:
    with pytest.raises(ArgumentError, match='^state: .*dictionary'):
        TripletLoader(make_data(), 4).load_state_dict(state)


@pytest.mark.parametrize('key', ['step', 'epoch', 'position', 'batch_size', 'seed', 'split'])
@pytest.mark.parametrize('value', [None, -1, 'x', 1.5, True, torch.tensor([1, 2]), np.arange(3)], ids=str)
def test_damaged_state(key: str, value: Any) -> None:
    loader = TripletLoader(make_data(), 4)
    with pytest.raises(CheckpointError, match=f'^state: .*{key}'):
        loader.load_state_dict({**loader.state_dict(), key: value})
