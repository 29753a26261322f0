from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_emu import losses
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.evaluation.analysis import candidate_vectors
from pyg_emu.experiments.build import build
from pyg_emu.losses import DeMixLoss, EMULoss, LinkPredictionLoss, NBFNetEMULoss
from pyg_emu.models import ComplEx, DistMult, NBFNet, TransE
from pyg_emu.negatives import DeMixNegatives, EMUNegatives
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.mutation import BernoulliMask, DeMixMutation, LearnedMask, Mixup
from pyg_emu.negatives.sampling import (
    BaseSampler,
    NSCachingSampler,
    SANSSampler,
    SharedNegativesSampler,
    UniformSampler,
)
from pyg_emu.ops import SharedIndex, emu_score, use_backend
from pyg_emu.training.trainer import Trainer

NUM_NODES, NUM_RELATIONS, WIDTH = 15, 2, 6
LOSSES = [kind for kind in map(vars(losses).get, losses.__all__)
          if isinstance(kind, type) and issubclass(kind, LinkPredictionLoss) and not kind.reads_graph
          and kind is not LinkPredictionLoss]


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(0)
    return KGData(torch.randint(NUM_NODES, (2, 50), generator=generator),
                  torch.randint(NUM_RELATIONS, (50, ), generator=generator), NUM_NODES, NUM_RELATIONS)


def make_batch(transform: Any = None, size: int = 10, corrupt: Any = 'both') -> Batch:
    return next(iter(TripletLoader(make_data(), size, shuffle=True, corrupt=corrupt, transform=transform)))


def alone(batch: Batch) -> Batch:
    r"""The same batch, with a copy of the ids for each row."""
    out = Batch.of(batch.clone())
    out.neg_index = batch.neg_index
    assert out.shared_index is None and batch.shared_index is not None
    return out


def test_one_set_for_each_chunk() -> None:
    found = SharedNegativesSampler(4).sample(make_batch(), 6, torch.Generator().manual_seed(3))
    assert isinstance(found.index, SharedIndex) and found.mask is None and found.vectors is None
    assert found.index[1:] == (4, 10, 0)
    expected = torch.randint(NUM_NODES, (3, 6), generator=torch.Generator().manual_seed(3))
    assert found.index.index.equal(expected)
    assert found.index.expand().equal(expected[[0, 0, 0, 0, 1, 1, 1, 1, 2, 2]])
    # A chunk that is larger than the batch is the batch.
    assert SharedNegativesSampler(250).sample(make_batch(), 6).index.index.shape == (1, 6)  # type: ignore[union-attr]


class OwnTarget(BaseSampler):
    r"""Draws the target of the triple it is asked about, and remembers the triples."""
    def __init__(self, mask: bool = False) -> None:
        self.mask = mask
        self.asked: list[Batch] = []

    def _sample(self, batch: Batch, num_negatives: int, generator: Any) -> Negatives:
        self.asked.append(batch)
        index = batch.target_index.unsqueeze(1).expand(-1, num_negatives)
        return Negatives(index, index % 2 == 0 if self.mask else None)


@pytest.mark.parametrize('corrupt', ['tail', 'head', 'both'])
def test_ids_of_another_sampler_are_drawn_for_triples_of_the_chunk(corrupt: Any) -> None:
    batch, inner = make_batch(corrupt=corrupt), OwnTarget()
    index = SharedNegativesSampler(4, inner).sample(batch, 200, torch.Generator().manual_seed(0)).index
    assert isinstance(index, SharedIndex) and index.index.shape == (3, 200)
    for place, rows in enumerate((slice(0, 4), slice(4, 8), slice(8, 10))):
        # All rows of the chunk have been asked about, and no others.
        assert set(index.index[place].tolist()) == set(batch.target_index[rows].tolist())
    asked, = inner.asked
    assert asked.head_index.numel() == 600 and asked.source is batch.source and asked.neg_index is None
    facts = {(*row, ) for row in torch.stack([batch.head_index, batch.rel_type, batch.tail_index,
                                              batch.corrupts_tail], dim=1).tolist()}
    assert {(*row, ) for row in torch.stack([asked.head_index, asked.rel_type, asked.tail_index,
                                             asked.corrupts_tail], dim=1).tolist()} == facts


def test_mask_of_another_sampler_counts_for_the_chunk() -> None:
    batch = make_batch()
    for filtered in (False, True):
        found = SharedNegativesSampler(4, OwnTarget(mask=True), filtered).sample(batch, 20)
        index = found.index.expand()  # type: ignore[union-attr]
        known = batch.source.fact_index('train').is_known(  # type: ignore[union-attr]
            index, batch.known_index, batch.rel_type, batch.side)
        assert known.any() and not known.all()
        assert found.mask is not None and found.mask.equal((index % 2 == 0) & ~(known & filtered))


def test_filtered_hides_facts_row_by_row_and_counts_rows_without_a_negative() -> None:
    # (0, 0, x) is known for every x; (1, 0, x) for none.
    every = torch.arange(5)
    data = KGData(torch.stack([torch.zeros(5, dtype=torch.int64), every]), torch.zeros(5, dtype=torch.int64), 5, 1)
    batch = Batch(torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.int64), torch.tensor([2, 2, 3]), 'tail',
                  num_nodes=5, source=data)
    sampler = SharedNegativesSampler(2, filtered=True)
    for calls in (1, 2):
        found = sampler.sample(batch, 4)
        assert found.mask is not None and found.mask.tolist() == [[False] * 4, [True] * 4, [False] * 4]
        assert sampler.num_exhausted == 2 * calls
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source.*SharedNegativesSampler'):
        sampler.sample(batch, 4)
    assert SharedNegativesSampler(2).sample(batch, 4).mask is None


@pytest.mark.parametrize('found, facts', [
    (Negatives(torch.zeros(2, 1, dtype=torch.int64)), ['(2, 1)', '(20, 1)']),
    (Negatives(torch.zeros(20, 1, dtype=torch.int64), vectors=torch.zeros(20, 1, 4)), ['vectors', '(20, 1)']),
    (torch.zeros(20, 1), ['Tensor', '(20, 1)']),
])
def test_what_another_sampler_returns_is_checked(found: Any, facts: list[str]) -> None:
    class Odd:
        def sample(self, batch: Batch, num_negatives: int, generator: Any = None) -> Any:
            return found

    with pytest.raises(ArgumentError, match='^sampler: .*Odd') as error:
        SharedNegativesSampler(5, Odd()).sample(make_batch(), 10)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize('options, name', [
    ({'chunk_size': 0}, 'chunk_size'), ({'chunk_size': 2.0}, 'chunk_size'), ({'sampler': UniformSampler}, 'sampler'),
    ({'sampler': 'uniform'}, 'sampler'), ({'filtered': 'no'}, 'filtered'), ({'split': 'dev'}, 'split'),
])
def test_arguments_are_checked(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=f'^{name}: '):
        SharedNegativesSampler(**options)


# Everything that reads negatives #############################################


@pytest.mark.parametrize('mutation', [None, BernoulliMask(0.5), BernoulliMask(0.5, shared=False), Mixup(),
                                      LearnedMask(WIDTH)], ids=str)
@pytest.mark.parametrize('kind', LOSSES, ids=lambda kind: kind.__name__)
def test_losses_are_those_of_each_rows_own_negatives(kind: type, mutation: Any) -> None:
    for model_class in (DistMult, ComplEx, TransE):
        for options in ({}, {'filtered': True}, {'sampler': SANSSampler(1, walks=5)}):
            torch.manual_seed(0)
            channels = WIDTH // 2 if model_class is ComplEx else WIDTH
            model = model_class(NUM_NODES, NUM_RELATIONS, channels).double()
            plain = {'mutation_rate': 0.0} if mutation is None else {'mutation': mutation}
            negatives = EMUNegatives(7, sampler=SharedNegativesSampler(4, **options), **plain)
            batch = make_batch(negatives)
            found = []
            for one in (batch, alone(batch)):
                one.generator = torch.Generator().manual_seed(1)
                learned = [*mutation.double().parameters()] if isinstance(mutation, torch.nn.Module) else []
                loss = kind()(model, one)
                leaves = [*model.parameters(), *learned]
                found.append([loss, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
                assert one.scored is not None and one.scored.hardest.shape == (10, 7)
            for value, other in zip(*found):
                torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-12)


def test_demix_partners_come_from_the_set_of_the_row() -> None:
    mutation = DeMixMutation(warmup=0, mu=1)
    batch = make_batch(DeMixNegatives(7, SharedNegativesSampler(4, filtered=True)))
    torch.manual_seed(0)
    model, found = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH).double(), []
    batch.mutation = mutation
    for one in (batch, alone(batch)):
        one.generator = torch.Generator().manual_seed(1)
        mutation.update(one, model)
        loss = DeMixLoss()(model, one)
        found.append([loss, *torch.autograd.grad(loss, [*model.parameters()])])
    for value, other in zip(*found):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-12)


def test_row_sparse_gradients() -> None:
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH, sparse=sparse)
        EMULoss()(model, make_batch(EMUNegatives(7, 0.5, sampler=SharedNegativesSampler(4)))).backward()
        assert model.node_emb.weight.grad is not None and model.node_emb.weight.grad.is_sparse == sparse
        found.append(model.node_emb.weight.grad.to_dense())
    torch.testing.assert_close(*found)


def test_graph_models_and_analysis_read_ids_row_by_row() -> None:
    data = make_data().with_inverse_relations()
    negatives = EMUNegatives(5, 0.5, sampler=SharedNegativesSampler(4, filtered=True))
    batch = next(iter(TripletLoader(data, 10, corrupt='both', transform=negatives)))
    torch.manual_seed(0)
    model, criterion = NBFNet(NUM_RELATIONS, 4, 2).double(), NBFNetEMULoss()
    scores = []
    for one in (batch, alone(batch)):
        one.source, one.generator = data, torch.Generator().manual_seed(1)
        scores.append(criterion(model, one))
    torch.testing.assert_close(*scores)
    batch = make_batch(EMUNegatives(5, 0.5, sampler=SharedNegativesSampler(4)))
    shallow = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH)
    vectors = candidate_vectors(shallow, batch)
    assert vectors.vanilla.equal(shallow.candidates(batch.neg_index)) and vectors.mutated is not None


def test_mutations_see_the_ids_of_each_row() -> None:
    seen = []

    class Seeing(BernoulliMask):
        def plan(self, context: Any) -> Any:
            seen.append((context.index, context.num_negatives))
            return super().plan(context)

    batch = make_batch(EMUNegatives(5, sampler=SharedNegativesSampler(4), mutation=Seeing(0.5)))
    EMULoss()(DistMult(NUM_NODES, NUM_RELATIONS, WIDTH), batch)
    assert seen[0][0].equal(batch.neg_index) and seen[0][1] == 5


def test_parts_of_a_batch_are_scored_as_the_whole() -> None:
    model = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH).double()
    batch = make_batch(EMUNegatives(5, 0.5, sampler=SharedNegativesSampler(4, filtered=True)))
    state = batch.generator.get_state()  # type: ignore[union-attr]
    whole = EMULoss().score(model, batch)
    for start, stop in ((0, 3), (3, 7), (7, 10), (5, 6)):
        batch.generator.set_state(state)  # type: ignore[union-attr]
        part = EMULoss().score(model, batch.part(slice(start, stop)))
        for value, other in zip(part[:4], whole[:4]):
            torch.testing.assert_close(value, other[start:stop])  # type: ignore[index]


# A loop by hand, Trainer, recipes ############################################


def test_loop_by_hand_over_plain_data() -> None:
    # Without a side, each chunk predicts heads and tails.
    data = make_data()
    torch.manual_seed(0)
    model, criterion = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH), EMULoss()
    transform = EMUNegatives(8, sampler=SharedNegativesSampler(20))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    plain = Data(head_index=data.edge_index[0], rel_type=data.edge_type, tail_index=data.edge_index[1],
                 num_nodes=NUM_NODES)
    found = []
    for _ in range(20):
        batch = transform(plain)
        assert 0 < int(batch.corrupts_tail[:20].sum()) < 20 and batch.neg_index.shape == (50, 8)
        optimizer.zero_grad()
        loss = criterion(model, batch)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert sum(found[-5:]) < 0.9 * sum(found[:5])


def make_trainer(run_dir: Path | None, num_steps: int) -> Trainer:
    torch.manual_seed(0)
    model = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH)
    sampler = SharedNegativesSampler(8, NSCachingSampler(4, 3), filtered=True)
    loader = TripletLoader(make_data(), 20, shuffle=True, transform=EMUNegatives(5, 0.4, sampler=sampler))
    return Trainer(model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.1), num_steps=num_steps,
                   run_dir=run_dir, progress=False, restore_best=False, checkpoint_every=3)


def test_resumed_run_is_the_whole_run_with_the_caches_within(tmp_path: Path) -> None:
    def learned(trainer: Trainer) -> list[Tensor]:
        trainer.fit()
        inner = trainer.loader.transform.sampler.sampler
        return [*(value.detach() for value in trainer.model.parameters()), inner.state_dict()['caches']]

    whole = learned(make_trainer(None, 9))
    fresh = NSCachingSampler(4, 3)
    fresh.sample(make_batch(), 1)
    assert not whole[-1].equal(fresh.state_dict()['caches'])  # it went on learning
    make_trainer(tmp_path / 'run', 6).fit()
    for value, other in zip(learned(make_trainer(tmp_path / 'run', 9)), whole, strict=True):
        assert value.equal(other)


def test_recipe_names_it_and_what_it_draws_from() -> None:
    sampler = build('sampler', {'name': 'shared_negatives', 'chunk_size': 3, 'filtered': True,
                                'sampler': {'name': 'sans', 'num_hops': 2}})
    assert isinstance(sampler, SharedNegativesSampler) and isinstance(sampler.sampler, SANSSampler)
    assert (sampler.chunk_size, sampler.filtered, sampler.sampler.num_hops) == (3, True, 2)
    assert re.search(r'chunk_size=3, sampler=SANSSampler\(.*filtered=True', repr(sampler))


def test_products_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyg_emu.losses import base
    seen = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[3])
        return emu_score(*args, **kwargs)

    monkeypatch.setattr(base, 'emu_score', watched)
    EMULoss()(DistMult(NUM_NODES, NUM_RELATIONS, WIDTH),
              make_batch(EMUNegatives(5, sampler=SharedNegativesSampler(4))))
    assert isinstance(seen[0], SharedIndex)
