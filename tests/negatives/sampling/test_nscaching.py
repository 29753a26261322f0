from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.interaction import Dot
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import EMULoss
from pyg_emu.models import DistMult
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.sampling import NSCachingSampler
from pyg_emu.negatives.sampling.nscaching import _Caches, _gumbel_top_k
from pyg_emu.training.trainer import Trainer

NUM_NODES = 20


def make_data(num_facts: int = 30) -> KGData:
    generator = torch.Generator().manual_seed(0)
    return KGData(torch.randint(NUM_NODES, (2, num_facts), generator=generator),
                  torch.randint(3, (num_facts, ), generator=generator), NUM_NODES, 3)


def make_batch(data: KGData, side: Any = 'both', size: int = 100) -> Batch:
    return next(iter(TripletLoader(data, size, corrupt=side)))


class ByNumber(ScorerMixin):
    r"""Scores an entity by its number alone, in steps that no noise can bridge."""
    num_nodes, num_relations, interaction = NUM_NODES, 3, Dot()

    def _query(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return torch.ones(known.numel(), 1)

    def entity_table(self) -> Tensor:
        return 1000.0 * torch.arange(NUM_NODES).unsqueeze(1)


def test_negatives_come_from_the_cache_of_their_pattern() -> None:
    data = make_data()
    batch = make_batch(data)
    sampler = NSCachingSampler(cache_size=3)
    cached = sampler.cached(batch)
    index = sampler.sample(batch, 200, torch.Generator().manual_seed(0)).index
    assert [set(row) for row in index.tolist()] == [set(row) for row in cached.tolist()]
    patterns = [(known, relation, tails) for known, relation, tails in
                zip(batch.known_index.tolist(), batch.rel_type.tolist(), batch.corrupts_tail.tolist())]
    caches = dict(zip(patterns, cached.tolist()))
    assert all(caches[pattern] == row for pattern, row in zip(patterns, cached.tolist()))
    assert len({tuple(row) for row in caches.values()}) > 0.9 * len(caches) > 10
    assert sampler._caches is not None and sampler._caches.entity.nbytes <= 4 * 3 * (2 * 30 + 1)


def test_draws_from_a_cache_are_uniform() -> None:
    sampler, batch = NSCachingSampler(cache_size=4), make_batch(make_data(), 'tail')
    sampler.sample(batch, 1)
    assert sampler._caches is not None
    sampler._caches.entity.copy_(torch.tensor([3, 5, 7, 11]))
    counts = sampler.sample(batch, 1000, torch.Generator().manual_seed(0)).index.flatten().bincount()[[3, 5, 7, 11]]
    assert counts.sum() == 30_000
    assert float(((counts - 7500.0) ** 2 / 7500).sum()) < 16.3  # 3 degrees of freedom, once in a thousand


def test_pattern_without_training_fact_is_given_anything() -> None:
    data = make_data()
    batch = make_batch(data, 'tail')
    strange = (batch.head_index == batch.head_index[0]) & (batch.rel_type == batch.rel_type[0])
    data.edge_index, data.edge_type = torch.stack([batch.head_index, batch.tail_index])[:, ~strange], \
        batch.rel_type[~strange]
    for filtered in (False, True):
        sampler = NSCachingSampler(cache_size=1, filtered=filtered)
        sampler.update(batch, ByNumber())
        index = sampler.sample(batch, 500, torch.Generator().manual_seed(0)).index
        assert [len(set(row)) == NUM_NODES for row in index[strange].tolist()] == [True] * int(strange.sum())
        if not filtered:
            assert index[~strange].equal(sampler.cached(batch)[~strange].expand(-1, 500))


@pytest.mark.parametrize('side', ['tail', 'head', 'both'])
@pytest.mark.parametrize('filtered', [False, True])
def test_update_keeps_what_scores_high(side: str, filtered: bool) -> None:
    data = make_data()
    batch = make_batch(data, side)
    sampler = NSCachingSampler(cache_size=4, num_candidates=500, filtered=filtered)
    sampler.update(batch, ByNumber())
    facts = set(map(tuple, data.facts().tolist()))
    for row, (head, relation, tail) in enumerate(zip(*map(Tensor.tolist, (batch.head_index, batch.rel_type,
                                                                          batch.tail_index)))):
        is_tail = bool(batch.corrupts_tail[row])
        left = [x for x in range(NUM_NODES)
                if not filtered or ((head, relation, x) if is_tail else (x, relation, tail)) not in facts]
        assert sorted(sampler.cached(batch)[row].tolist()) == left[-4:]  # 500 draws of 20 leave none out


def test_update_replaces_a_part_at_a_time_and_leaves_others_alone() -> None:
    data = make_data()
    batch = make_batch(data, 'tail', 5)
    sampler = NSCachingSampler(cache_size=6, num_candidates=1)
    everything = make_batch(data, 'both', 100)
    before, all_before = sampler.cached(batch), sampler.cached(everything)
    sampler.update(batch, ByNumber())
    after, all_after = sampler.cached(batch), sampler.cached(everything)
    for old, new in zip(before.tolist(), after.tolist()):
        assert len(set(new) - set(old)) <= 1 and (len(set(old)) < 6 or min(new) >= min(old))
    touched = (all_before != all_after).any(dim=1)
    pattern = data.fact_index().pattern
    of_batch = pattern(batch.known_index, batch.rel_type, 'tail')
    assert bool(touched.any())
    assert torch.isin(pattern(everything.known_index, everything.rel_type, everything.side)[touched], of_batch).all()


def test_entities_are_cached_once() -> None:
    data = make_data()
    batch = make_batch(data)
    sampler = NSCachingSampler(cache_size=10, num_candidates=50)
    for _ in range(3):
        sampler.update(batch, DistMult(NUM_NODES, 3, 4))
    assert all(len(set(row)) == 10 for row in sampler.cached(batch).tolist())


def test_draw_without_replacement_follows_the_scores() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.double)
    kept = _gumbel_top_k(weight.log().expand(40_000, -1), 2, torch.Generator().manual_seed(0))
    # The first is kept with probability w / 10, the second in proportion to what is left.
    share = torch.zeros(4, 4, dtype=torch.double)
    for i in range(4):
        for j in range(4):
            share[i, j] = 0 if i == j else weight[i] / 10 * weight[j] / (10 - weight[i])
    found = (kept[:, 0] * 4 + kept[:, 1]).bincount(minlength=16).view(4, 4)
    assert found.diagonal().sum() == 0
    expected = 40_000 * share
    off = expected > 0
    assert float(((found - expected)[off] ** 2 / expected[off]).sum()) < 31.3  # 11 degrees, once in a thousand
    excluded = torch.tensor([[0.0, -torch.inf, 1.0]])
    assert sorted(_gumbel_top_k(excluded, 2, torch.Generator().manual_seed(0))[0].tolist()) == [0, 2]


def test_first_of_a_shared_row_is_written() -> None:
    caches = _Caches(None, torch.arange(4), torch.zeros(5, 2, dtype=torch.int32))  # type: ignore[arg-type]
    caches.write(torch.tensor([3, 1, 3, 1, 0]), torch.arange(1, 11).view(5, 2))
    assert caches.entity.tolist() == [[9, 10], [3, 4], [0, 0], [1, 2], [0, 0]]


@pytest.mark.parametrize('lazy_update, expected', [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 2, 4]), (2, [0, 3])])
def test_lazy_update(lazy_update: int, expected: list[int]) -> None:
    data = make_data()
    model = DistMult(NUM_NODES, 3, 4, margin=0.0)  # scores that leave much to chance
    sampler = NSCachingSampler(cache_size=5, lazy_update=lazy_update)
    loader, changed = TripletLoader(data, 8, shuffle=True), []
    for epoch in range(6):
        for batch in loader:
            before = sampler.cached(batch)
            sampler.update(batch, model)
            changed.append((epoch, not before.equal(sampler.cached(batch))))
    assert {epoch for epoch, change in changed if change} == set(expected)
    assert all(change for epoch, change in changed if epoch in expected)


def test_update_draws_from_the_stream_of_the_run() -> None:
    torch.manual_seed(0)
    model = DistMult(NUM_NODES, 3, 4, margin=0.0)

    def refreshed(seed: int) -> Tensor:
        batch, sampler = make_batch(make_data()), NSCachingSampler(cache_size=4)
        assert batch.generator is not None
        batch.generator.manual_seed(seed)
        sampler.update(batch, model)
        return sampler.cached(batch)

    state = torch.get_rng_state()
    first, other = refreshed(0), refreshed(1)
    assert first.equal(refreshed(0)) and not first.equal(other)
    assert torch.get_rng_state().equal(state), 'drew from the global random stream'


# State #######################################################################


def make_trainer(folder: Path, num_steps: int, **arguments: Any) -> Trainer:
    torch.manual_seed(0)
    data = make_data()
    sampler = NSCachingSampler(cache_size=4, num_candidates=6, **arguments)
    model = DistMult(NUM_NODES, 3, 8)
    loader = TripletLoader(data, 8, shuffle=True, seed=1, transform=EMUNegatives(5, sampler=sampler))
    return Trainer(model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.1), num_steps=num_steps,
                   checkpoint_every=3, run_dir=folder, progress=False)


@pytest.mark.parametrize('arguments', [{}, {'filtered': True, 'lazy_update': 1}])
def test_training_resumes_bit_for_bit(tmp_path: Path, arguments: dict[str, Any]) -> None:
    whole = make_trainer(tmp_path / 'whole', 20, **arguments)
    whole.fit()
    make_trainer(tmp_path / 'cut', 9, **arguments).fit()
    resumed = make_trainer(tmp_path / 'cut', 20, **arguments, seed=5)  # nothing may depend on how it began
    torch.manual_seed(99)
    resumed.fit(resume=True)
    for left, right in zip(whole.model.parameters(), resumed.model.parameters()):
        assert left.equal(right)
    states = [trainer.loader.transform.sampler.state_dict() for trainer in (whole, resumed)]
    assert states[0]['seen'] == states[1]['seen'] > 0 and states[0]['caches'].equal(states[1]['caches'])


def test_state_travels_without_code() -> None:
    data = make_data()
    batch = make_batch(data)
    sampler = NSCachingSampler(cache_size=4)
    sampler.update(batch, ByNumber())
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    other = NSCachingSampler(cache_size=4, seed=3)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict()['caches'].equal(sampler.state_dict()['caches'])  # before the graph is seen
    assert other.cached(batch).equal(sampler.cached(batch))
    other.load_state_dict(sampler.state_dict())
    before = sampler.cached(batch)
    other.update(batch, DistMult(NUM_NODES, 3, 4))
    assert sampler.cached(batch).equal(before) and not other.cached(batch).equal(before)


def test_state_of_something_else() -> None:
    batch = make_batch(make_data())
    sampler = NSCachingSampler(cache_size=4)
    sampler.sample(batch, 1)
    other = NSCachingSampler(cache_size=5)
    other.load_state_dict(sampler.state_dict())
    with pytest.raises(CheckpointError, match=r'holds caches of shape \(\d+, 4\), .*cache_size=5 need \(\d+, 5\)'):
        other.sample(batch, 1)
    with pytest.raises(CheckpointError, match="the sampler's state lacks seen"):
        other.load_state_dict({'caches': None})


def test_caches_stay_where_patterns_do() -> None:
    data = make_data()
    batch = make_batch(data)
    sampler = NSCachingSampler(cache_size=4)
    sampler.update(batch, ByNumber())
    before = sampler.cached(batch)
    data.drop_indices()
    assert sampler.cached(batch).equal(before)
    data.edge_index = torch.stack([batch.tail_index, batch.head_index])
    assert sampler._prepare(batch).entity.size(0) - 1 == len({(h, r) for h, r, _ in data.facts().tolist()}) + \
        len({(r, t) for _, r, t in data.facts().tolist()})


@pytest.mark.parametrize('arguments, message', [
    ({'cache_size': 0}, 'cache_size: expected an integer of at least 1, got 0'),
    ({'num_candidates': 2.0}, 'num_candidates: expected an integer of at least 1, got 2.0'),
    ({'lazy_update': -1}, 'lazy_update: expected an integer of at least 0, got -1'),
    ({'seed': 0.5}, r'seed: expected an integer in \[0, 2\^63\), got 0.5'),
])
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        NSCachingSampler(**arguments)


def test_batch_without_a_graph() -> None:
    batch = make_batch(make_data())
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source: NSCachingSampler'):
        NSCachingSampler().sample(batch, 1)


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    data = make_data().to('cuda')
    batch = make_batch(data)
    sampler = NSCachingSampler(cache_size=4, num_candidates=100, filtered=True)
    sampler.update(batch, DistMult(NUM_NODES, 3, 4).cuda())
    index = sampler.sample(batch, 50).index
    assert index.is_cuda and index.shape == (30, 50)
    assert not data.fact_index().is_known(index, batch.known_index, batch.rel_type, batch.side).any()


def test_warns_once_where_nobody_calls_update() -> None:
    batch, sampler = make_batch(make_data()), NSCachingSampler(cache_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(9):
            sampler.sample(batch, 3)
    with pytest.warns(UserWarning, match=r'10 batches .*update'):
        sampler.sample(batch, 3)
    learning = NSCachingSampler(cache_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(20):
            sampler.sample(batch, 3)
        for step in range(20):
            learning.sample(batch, 3)
            if step == 0:
                learning.update(batch, DistMult(NUM_NODES, 3, 4))
