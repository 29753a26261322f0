r"""Every sampler that :mod:`pyg_emu.negatives.sampling` and :mod:`pyg_emu.negatives.adversarial` export is tested by
existing."""
from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.shared_index import SharedIndex, expanded
from pyg_emu.data import index as index_module
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import EMULoss
from pyg_emu.models import DistMult
from pyg_emu.negatives import EMUNegatives, adversarial, sampling
from pyg_emu.negatives.contract import Negatives, Sampler
from pyg_emu.ops import use_backend
from pyg_emu.training.trainer import Trainer

SAMPLERS = [getattr(room, name) for room in (sampling, adversarial) for name in room.__all__]
SAMPLERS = [sampler for sampler in SAMPLERS if inspect.isclass(sampler) and sampler is not sampling.BaseSampler]
SIDES = ['tail', 'head', 'both']
NUM_NODES, NUM_RELATIONS = 12, 2


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.randint(NUM_NODES - 1, (2, 60), generator=generator)  # the last entity has no fact
    edge_type = torch.randint(NUM_RELATIONS, (60,), generator=generator)
    # (0, 0, x) is known for every x, the pattern has no negative left; (0, 1, x) for all but one.
    every = torch.arange(NUM_NODES)
    full = torch.stack([torch.zeros_like(every), every])
    return KGData(torch.cat([edge_index, full, full[:, 1:]], dim=1),
                  torch.cat([edge_type, torch.zeros_like(every), torch.ones_like(every[1:])]), NUM_NODES, NUM_RELATIONS)


def make_batch(data: KGData, side: str, seed: int = 0) -> Batch:
    return next(iter(TripletLoader(data, 100, shuffle=True, corrupt=side, seed=seed)))  # type: ignore[arg-type]


#: Settings with which a sampler takes any number of negatives, and how many of these are vectors.
SETTINGS: dict[type, dict[str, Any]] = {adversarial.DANSSampler: {'pathways': 'entity', 'from_entity': 1}}
VECTORS = {adversarial.DANSSampler: 1}


def make_sampler(cls: type, data: KGData, **arguments: Any) -> Any:
    r"""Samplers that learn from the whole graph take it as an argument called :obj:`data`. Those with a generator get a
    model.
    """
    parameters = inspect.signature(cls).parameters
    if arguments.get('filtered') is False and 'filtered' not in parameters:
        del arguments['filtered']  # it is never filtered
    if any(key not in parameters for key in arguments):
        pytest.skip(f'{cls.__name__} has no {", ".join(arguments)}')
    sampler = cls(**({'data': data} if 'data' in parameters else {}), **SETTINGS.get(cls, {}), **arguments)
    if cls.__name__ in adversarial.__all__:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sampler.begin(DistMult(data.num_nodes or 0, data.num_relations, 2))
    return sampler


def plain(state: Any) -> Any:
    r"""A state as values that :obj:`==` compares."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, Tensor) else state


def known_facts(data: KGData, batch: Batch, index: Tensor) -> Tensor:
    r"""Which candidates make a fact, by comparison with every one of them. shape: :obj:`(B, N)`."""
    tails = batch.corrupts_tail.unsqueeze(1)
    head = torch.where(tails, batch.head_index.unsqueeze(1), index)
    tail = torch.where(tails, index, batch.tail_index.unsqueeze(1))
    candidates = torch.stack([head, batch.rel_type.unsqueeze(1).expand_as(head), tail], dim=-1)
    return (candidates.unsqueeze(2) == data.facts('train')).all(dim=-1).any(dim=-1)


def test_discovery_finds_samplers() -> None:
    assert sampling.UniformSampler in SAMPLERS and sampling.BaseSampler not in SAMPLERS


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('num_negatives', [1, 7, np.int64(2)])
@pytest.mark.parametrize('cls', SAMPLERS)
def test_shape_dtype_and_range(cls: type, num_negatives: int, side: str) -> None:
    data = make_data()
    batch = make_batch(data, side)
    sampler = make_sampler(cls, data)
    assert isinstance(sampler, Sampler)
    negatives = sampler.sample(batch, num_negatives, torch.Generator().manual_seed(0))
    assert isinstance(negatives, Negatives)
    index, made = expanded(negatives.index), VECTORS.get(cls, 0)
    assert index.shape == negatives.index.shape == (batch.head_index.numel(), num_negatives - made)
    assert index.dtype == torch.int64
    assert bool(((index >= 0) & (index < NUM_NODES)).all())
    assert (None if negatives.vectors is None else negatives.vectors.size(1)) == (made or None)
    if negatives.mask is not None:
        assert negatives.mask.shape == index.shape and negatives.mask.dtype == torch.bool
    assert cls.__name__ in repr(sampler)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('cls', SAMPLERS)
def test_filtered_draws_are_never_known(cls: type, side: str) -> None:
    data = make_data()
    batch = make_batch(data, side)
    negatives = make_sampler(cls, data, filtered=True).sample(batch, 50, torch.Generator().manual_seed(0))
    known = known_facts(data, batch, expanded(negatives.index))
    mask = torch.ones_like(known) if negatives.mask is None else negatives.mask
    assert not bool((known & mask).any())
    if isinstance(negatives.index, SharedIndex):
        assert mask.equal(~known)  # What others of the chunk may use is masked out, and nothing else.
        return
    # Only a pattern that has no negative is masked out, and it is so as a whole.
    every = torch.arange(NUM_NODES).expand(batch.head_index.numel(), -1)
    exhausted = known_facts(data, batch, every).all(dim=1)
    assert mask.equal(~exhausted.unsqueeze(1).expand_as(mask))
    assert bool(exhausted.any()) == (side != 'head')


@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('cls', SAMPLERS)
def test_same_seed_same_draws(cls: type, filtered: bool) -> None:
    def draw(seed: int) -> list[Any]:
        data = make_data()
        batch, generator = make_batch(data, 'both'), torch.Generator().manual_seed(seed)
        arguments = {'filtered': True} if filtered else {}
        sampler = make_sampler(cls, data, **arguments)
        found = [sampler.sample(batch, 9, generator) for _ in range(3)]
        return [(expanded(one.index).tolist(), plain(one.vectors)) for one in found]

    state = torch.get_rng_state()
    first, again, other = draw(0), draw(0), draw(1)
    assert first == again
    assert first != other and first[0] != first[1]
    assert torch.get_rng_state().equal(state), 'drew from the global random stream'


@pytest.mark.parametrize('cls', SAMPLERS)
def test_stream_of_the_batch_is_the_default(cls: type) -> None:
    data = make_data()
    batch = make_batch(data, 'tail')
    assert batch.generator is not None
    batch.generator.manual_seed(5)
    default = make_sampler(cls, data).sample(batch, 9)
    explicit = make_sampler(cls, data).sample(batch, 9, torch.Generator().manual_seed(5))
    assert expanded(default.index).equal(expanded(explicit.index)) and plain(default.vectors) == plain(explicit.vectors)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('cls', SAMPLERS)
def test_empty_batch(cls: type, filtered: bool, side: str) -> None:
    data = make_data()
    batch = make_batch(data, side)
    for key in ('head_index', 'rel_type', 'tail_index'):
        batch[key] = batch[key][:0]
    if isinstance(batch.side, Tensor):
        batch.side = batch.side[:0]
    sampler = make_sampler(cls, data, **({'filtered': True} if filtered else {}))
    assert sampler.sample(batch, 5, torch.Generator()).index.shape == (0, 5 - VECTORS.get(cls, 0))


@pytest.mark.parametrize('num_negatives', [0, -1, 2.0, True])
@pytest.mark.parametrize('cls', SAMPLERS)
def test_number_of_negatives_is_checked(cls: type, num_negatives: Any) -> None:
    data = make_data()
    with pytest.raises(ArgumentError, match='^num_negatives: expected an integer of at least 1, got'):
        make_sampler(cls, data).sample(make_batch(data, 'tail'), num_negatives)


@pytest.mark.parametrize('cls', SAMPLERS)
def test_batch_is_left_alone(cls: type) -> None:
    data = make_data()
    batch = make_batch(data, 'both')
    before = {key: value.clone() for key, value in batch if isinstance(value, Tensor)}
    facts = data.facts('train').clone()
    make_sampler(cls, data).sample(batch, 5, torch.Generator())
    assert set(before) == {key for key, value in batch if isinstance(value, Tensor)}
    assert all(batch[key].equal(value) for key, value in before.items()) and data.facts('train').equal(facts)


#: Facts, and the number of entities: a relation with one fact beside others, isolated entities, one fact, a loop alone.
AWKWARD = {
    'relation with one fact': ([(0, 0, 1), (1, 0, 2), (2, 0, 3), (0, 0, 3), (3, 1, 2)], 5),
    'isolated entities': ([(0, 0, 1), (0, 0, 2)], 50),
    'one fact': ([(0, 0, 1)], 2),
    'single entity': ([(0, 0, 0), (0, 1, 0)], 1),
    'everything known': ([(head, 0, tail) for head in range(3) for tail in range(3)], 3),
}


@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('name', AWKWARD)
@pytest.mark.parametrize('cls', SAMPLERS)
def test_awkward_graphs(cls: type, name: str, filtered: bool) -> None:
    facts, num_nodes = AWKWARD[name]
    head, relation, tail = torch.tensor(facts).unbind(1)
    data = KGData(torch.stack([head, tail]), relation, num_nodes, 3)
    # Each fact for both ends, and triples that are no facts: of a relation without facts, and of an isolated entity.
    last = torch.tensor([num_nodes - 1])
    rows = torch.cat([torch.tensor(facts), torch.stack([last, last * 0 + 2, last * 0], 1), torch.stack(
        [last, last * 0, last], 1)]).repeat(2, 1)
    side = torch.arange(len(rows)) < len(rows) // 2
    batch = Batch(*rows.unbind(1), side, num_nodes=num_nodes, num_relations=3, source=data)
    sampler = make_sampler(cls, data, filtered=filtered)
    for _ in range(2):
        with use_backend('torch'):
            negatives = sampler.sample(batch, 40, torch.Generator().manual_seed(0))
            sampler.update(batch, DistMult(num_nodes, 3, 2))
        index = expanded(negatives.index)
        assert index.shape == (len(rows), 40 - VECTORS.get(cls, 0))
        assert 0 <= int(index.min()) and int(index.max()) < num_nodes
    if filtered:
        known = known_facts(data, batch, index)
        mask = torch.ones_like(known) if negatives.mask is None else negatives.mask
        if isinstance(negatives.index, SharedIndex):
            assert mask.equal(~known)
            return
        every = torch.arange(num_nodes).expand(len(rows), -1)
        assert mask.equal(~known_facts(data, batch, every).all(dim=1, keepdim=True).expand_as(mask))
        assert not bool((known & mask).any())
    else:
        assert negatives.mask is None


@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('cls', SAMPLERS)
def test_ends_of_mixed_batches_are_those_of_the_rows(cls: type, filtered: bool) -> None:
    # What is drawn for one end is the same in distribution, whether the batch is of one end or of both.
    data = make_data()
    rows = data.facts('train')[:8]
    tails = torch.arange(8) % 2 == 0

    def shares(side: Any) -> Tensor:
        batch = Batch(*rows.unbind(1), side, num_nodes=NUM_NODES, num_relations=NUM_RELATIONS, source=data)
        arguments: dict[str, Any] = {'filtered': filtered}
        if cls is sampling.NSCachingSampler:
            arguments |= {'cache_size': 2, 'seed': 3}
        if cls is adversarial.KBGANSampler:  # picks of one call come from the same candidates
            arguments['num_candidates'] = 1000
        sampler = make_sampler(cls, data, **arguments)
        index = torch.cat([expanded(sampler.sample(batch, 1000, torch.Generator().manual_seed(seed)).index)
                           for seed in range(3)], dim=1)
        return torch.nn.functional.one_hot(index, NUM_NODES).double().mean(1)

    # 3,000 draws: a standard deviation of at most 0.009 each.
    expected = torch.where(tails.unsqueeze(1), shares('tail'), shares('head'))
    assert float((shares(tails) - expected).abs().max()) < 0.06


@pytest.mark.parametrize('cls', SAMPLERS)
def test_training_resumes_bit_for_bit(cls: type, tmp_path: Path) -> None:
    def train(folder: str, num_steps: int) -> tuple[Tensor, Any]:
        torch.manual_seed(0)
        data, model = make_data(), DistMult(NUM_NODES, NUM_RELATIONS, 4)
        sampler = make_sampler(cls, data, filtered=True)
        loader = TripletLoader(data, 20, shuffle=True, transform=EMUNegatives(4, sampler=sampler), corrupt='bernoulli')
        with use_backend('torch'):
            Trainer(model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.3), num_steps=num_steps,
                    run_dir=tmp_path / folder, progress=False).fit()
        state = sampler.state_dict() if hasattr(sampler, 'state_dict') else {}
        return model.node_emb.weight.detach(), state

    weight, state = train('whole', 10)
    train('cut', 6)
    resumed, other = train('cut', 10)
    assert weight.equal(resumed) and plain(state) == plain(other)


@pytest.mark.parametrize('cls', SAMPLERS)
@pytest.mark.parametrize('filtered', [False, True])
def test_draws_do_not_depend_on_how_keys_are_packed(cls: type, filtered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for largest in (2**63 - 1, 0):  # as in a graph whose keys would not fit into 64 bits
        monkeypatch.setattr(index_module, '_LARGEST_KEY', largest)
        data = make_data()
        assert (data.fact_index('train')._numbers is None) == (largest > 0)
        sampler = make_sampler(cls, data, filtered=filtered)
        generator = torch.Generator().manual_seed(0)
        for seed in range(3):
            batch = make_batch(data, 'both', seed)
            drawn.append([expanded(value) if isinstance(value, SharedIndex) else value
                          for value in sampler.sample(batch, 5, generator)])
    half = len(drawn) // 2
    for ours, others in zip(drawn[:half], drawn[half:]):
        for value, other in zip(ours, others):
            assert (value is None) == (other is None) and (value is None or torch.equal(value, other))
