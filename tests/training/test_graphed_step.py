r"""Tests of captured steps. Capture needs a GPU. The bookkeeping around the graphs is tested with a mock on the CPU."""
from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, TripletLoader
from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.data.batch import Batch
from pyg_emu.losses.nbfnet import NBFNetEMULoss
from pyg_emu.losses.one_vs_all import OneVsAllEMULoss
from pyg_emu.losses.regularizers import L3Regularizer
from pyg_emu.models import NBFNet, TransE
from pyg_emu.negatives.mutation import BernoulliMask, LinearSchedule
from pyg_emu.negatives.sampling import SharedNegativesSampler
from pyg_emu.training.graphed_step import GraphedStep, _copied


def make_loader(device: str = 'cpu', corrupt: Any = 'alternate', transform: Any = None) -> TripletLoader:
    generator = torch.Generator().manual_seed(0)
    data = KGData(torch.randint(12, (2, 56), generator=generator), torch.randint(3, (56, ), generator=generator),
                  num_nodes=12, num_relations=3).to(device)
    return TripletLoader(data, batch_size=16, shuffle=True, seed=1, corrupt=corrupt, transform=transform)


def make_model(device: str = 'cpu', sparse: bool = False) -> DistMult:
    torch.manual_seed(0)
    return DistMult(12, 3, 8, sparse=sparse).to(device)


def adagrad(model: DistMult, **kwargs: Any) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(model.parameters(), **{'lr': 0.1, **kwargs})


NEGATIVES = EMUNegatives(num_negatives=4)


def test_a_copy_knows_that_relations_were_not_given() -> None:
    ids = torch.arange(3)
    for batch in (Batch(ids, tail_index=ids, num_nodes=3), Batch(ids, ids, ids, num_nodes=3)):
        assert _copied(batch).lacks_relation is batch.lacks_relation


def train(device: str, capture: bool, num_steps: int = 20, corrupt: Any = 'alternate', inside: bool = True,
          adam: bool = False, model: Any = None, criterion: Any = None) -> tuple[list[Tensor], list[float], Any]:
    r"""Returns the weights, the losses, and the step counters of the optimizer and the loader."""
    model = make_model(device) if model is None else model
    optimizer = torch.optim.Adam(model.parameters(), capturable=True) if adam else adagrad(model)
    loader = make_loader(device, corrupt, None if inside else NEGATIVES)
    step = GraphedStep(model, criterion or EMULoss(), optimizer, NEGATIVES if inside else None, capture=capture,
                       max_grad_norm=5.0)
    losses = []
    for _, batch in zip(range(num_steps), loader.batches()):
        losses.append(step(batch).clone())
    counts = [float(state['step']) for state in optimizer.state.values()], loader.generator.get_state().tolist()
    return [value.detach() for value in model.parameters()], [float(loss) for loss in losses], counts


def test_steps_are_those_of_a_plain_loop() -> None:
    weights, losses, _ = train('cpu', capture=False)
    model, loader, criterion = make_model(), make_loader(transform=NEGATIVES), EMULoss()
    optimizer = adagrad(model)
    for expected, batch in zip(losses, loader.batches()):
        optimizer.zero_grad()
        loss = criterion(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        assert loss.item() == pytest.approx(expected)
    for value, other in zip(weights, model.parameters()):
        torch.testing.assert_close(value, other.detach())


@pytest.mark.parametrize('kwargs,message', [
    ({'model': {'sparse': True}}, '^model: .*sparse=False.*capture=False'),
    ({'optimizer': {'lr_decay': 0.1}}, r'^optimizer: .*lr_decay=0 .*Adagrad.*\b0\.1$'),
    ({'warmup': 0}, r'^warmup: .*\b1\b.*\b0\b'),
    ({'transform': EMUNegatives(4, LinearSchedule(0.1, 0.2, 5))}, '^mutation: .*BernoulliMask.*capture=False'),
])
def test_what_cannot_be_captured(kwargs: dict[str, Any], message: str) -> None:
    model = make_model(**kwargs.pop('model', {}))
    optimizer = adagrad(model, **kwargs.pop('optimizer', {}))
    with pytest.raises(ArgumentError, match=message):
        GraphedStep(model, EMULoss(), optimizer, **{'transform': NEGATIVES, **kwargs})


def test_optimizers_that_count_on_the_host_cannot_be_captured() -> None:
    model = make_model()
    for optimizer in (torch.optim.Adam(model.parameters()), torch.optim.Adamax(model.parameters())):
        with pytest.raises(ArgumentError, match=f'^optimizer: {type(optimizer).__name__} .*capturable=True'):
            GraphedStep(model, EMULoss(), optimizer)


def test_learning_rates_that_the_host_reads_cannot_be_captured() -> None:
    model, rate = make_model(), torch.tensor(0.1)
    for optimizer in (torch.optim.Adam(model.parameters(), rate, capturable=True), adagrad(model, lr=rate)):
        with pytest.raises(ArgumentError, match=f'^optimizer: .*lr of {type(optimizer).__name__} .*GPU.*Adam.*'
                                                'capturable=True.*cpu'):
            GraphedStep(model, EMULoss(), optimizer)


def test_layers_that_are_computed_again_cannot_be_captured() -> None:
    model = NBFNet(3, hidden_channels=4, num_layers=1, checkpointing=True)
    with pytest.raises(ArgumentError, match='^model: .*checkpointing=False.*capture=False'):
        GraphedStep(model, NBFNetEMULoss(), torch.optim.Adam(model.parameters(), capturable=True))


def test_rate_of_a_loss_with_a_mutation_of_its_own() -> None:
    model, mutation = make_model(), BernoulliMask(LinearSchedule(0.1, 0.2, 5))
    with pytest.raises(ArgumentError, match='^mutation: .*BernoulliMask'):
        GraphedStep(model, OneVsAllEMULoss(mutation=mutation), adagrad(model))


def test_a_model_on_the_cpu_is_refused() -> None:
    model = make_model()
    with pytest.raises(BackendError, match='^GraphedStep: .*CUDA.*cpu.*capture=False.*graph=False'):
        GraphedStep(model, EMULoss(), adagrad(model))


class Replayed:
    r"""Mock of a CUDA graph. Replay repeats the step on the captured batch as a graph does, but with new Python calls,
    which a graph does not make. The effects of the step during capture are reverted, because a graph only records it.
    """
    def __init__(self) -> None:
        self.registered: list[Any] = []
        self.step: Any = None

    def register_generator_state(self, generator: Any) -> None:
        self.registered.append(generator)

    def replay(self) -> None:
        self.step()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    made: list[Replayed] = []

    class Stream:
        def __init__(self, device: Any = None) -> None:
            pass

        def wait_stream(self, other: Any) -> None:
            pass

    def make() -> Replayed:
        made.append(Replayed())
        return made[-1]

    monkeypatch.setattr(torch.cuda, 'CUDAGraph', make)
    monkeypatch.setattr(torch.cuda, 'Stream', Stream)
    monkeypatch.setattr(torch.cuda, 'current_stream', Stream)
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: None)
    monkeypatch.setattr(GraphedStep, '_check', lambda self: None)
    return made


def test_kinds_of_batches_and_what_they_carry(stand_in: list[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    step = GraphedStep(model, EMULoss(), adagrad(model), warmup=2)
    seen: list[tuple[str, list[int], int]] = []
    recording: list[Replayed] = []

    def contents(batch: Any) -> tuple[str, list[int], int]:
        return batch.side, batch.head_index.tolist(), int(batch.neg_index.sum())

    def record(batch: Any) -> Tensor:
        if recording:
            recording[0].step = lambda: seen.append(contents(batch))
        else:
            seen.append(contents(batch))
        return torch.zeros(())

    @contextmanager
    def graph(captured: Replayed, pool: Any, stream: Any) -> Iterator[None]:
        recording.append(captured)
        yield
        recording.clear()

    monkeypatch.setattr(torch.cuda, 'graph', graph)
    monkeypatch.setattr(step, '_step', record)
    loader = make_loader(transform=NEGATIVES)
    expected = []
    for _, batch in zip(range(32), loader.batches()):  # Every fourth batch has 8 instead of 16 triples.
        expected.append(contents(batch))
        step(batch)
    # Each batch is used once, whether it runs directly, is captured or is copied to the input of a graph.
    assert seen == expected
    sides = {(side, len(heads)) for side, heads, _ in expected}
    assert step.num_graphs == len(stand_in) == len(sides) >= 3
    assert all(graph.registered == [loader.generator] for graph in stand_in)


def test_terms_that_a_graph_would_not_update(stand_in: list[Replayed]) -> None:
    model = make_model()

    class Noted(EMULoss):
        def forward(self, model: Any, batch: Any) -> Tensor:
            loss = super().forward(model, batch)
            self.terms['share'] = float(loss)
            return loss

    step = GraphedStep(model, Noted(), adagrad(model), NEGATIVES, warmup=1)
    batches = make_loader(corrupt='tail').batches()
    step(next(batches))
    with pytest.raises(ArgumentError, match=r"^terms\['share'\]: .*tensor.*capture=False"):
        step(next(batches))


def test_shared_negatives_are_copied_into_a_graph(stand_in: list[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    step = GraphedStep(model, EMULoss(), adagrad(model), warmup=1)
    seen: list[tuple[int, Any]] = []

    def note(batch: Any) -> None:
        seen.append((int(batch.neg_index.sum()), batch.shared_index))

    def record(batch: Any) -> Tensor:
        if len(stand_in) > len(captured):
            captured.append(batch)
            stand_in[-1].step = lambda: note(batch)
        else:
            note(batch)
        return torch.zeros(())

    captured: list[Any] = []
    monkeypatch.setattr(torch.cuda, 'graph', lambda graph, pool, stream: nullcontext())
    monkeypatch.setattr(step, '_step', record)
    loader = make_loader(transform=EMUNegatives(5, sampler=SharedNegativesSampler(6)), corrupt='tail')
    batches = [batch for _, batch in zip(range(6), loader.batches()) if batch.head_index.numel() == 16]
    for batch in batches:
        step(batch)
    assert [total for total, _ in seen] == [int(batch.neg_index.sum()) for batch in batches] and step.num_graphs == 1
    assert all(shared.shape == (16, 5) and shared.chunk_size == 6 for _, shared in seen)
    # The ids of the first batch that was captured stay its own.
    assert captured[0].shared_index.index is not batches[1].shared_index.index
    # Other chunks are another graph, even if there are as many.
    for batch in [batch for batch in make_loader(transform=EMUNegatives(5, sampler=SharedNegativesSampler(7)),
                                                 corrupt='tail') if batch.head_index.numel() == 16][:2]:
        batch.generator = loader.generator
        step(batch)
    assert step.num_graphs == 2


def test_settings_that_change_are_captured_anew(stand_in: list[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    pools, handles = [], iter(range(9))
    monkeypatch.setattr(torch.cuda, 'graph', lambda graph, pool, stream: nullcontext(pools.append(pool)))
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: next(handles))
    model = make_model()
    optimizer = adagrad(model)
    step = GraphedStep(model, EMULoss(), optimizer, NEGATIVES, warmup=1)
    monkeypatch.setattr(Replayed, 'replay', lambda self: None)
    batches = make_loader(corrupt='tail').batches()
    for _ in range(3):
        step(next(batches))
    assert len(stand_in) == 1
    # Steps without a counter in a graph: one direct step, one during capture, one replay.
    assert [float(state['step']) for state in optimizer.state.values()] == [3.0, 3.0]
    optimizer.param_groups[0]['lr'] = 0.05
    step(next(batches))
    step(next(batches))
    assert len(stand_in) == 2
    # PyTorch does not share the memory pool of deleted graphs.
    assert pools == [0, 1]


@pytest.mark.gpu
@pytest.mark.parametrize('corrupt', ['alternate', 'both'])
@pytest.mark.parametrize('inside,adam', [(True, False), (False, False), (True, True)])
def test_graphs_take_the_same_steps(corrupt: str, inside: bool, adam: bool) -> None:
    found, expected = (train('cuda', capture, 40, corrupt, inside, adam) for capture in (True, False))
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    assert found[2] == expected[2]
    for value, other in zip(found[0], expected[0]):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize('cls', [DistMult, TransE])
def test_graphs_of_losses_against_all_entities(cls: Any) -> None:
    criterion = OneVsAllEMULoss(mutation=BernoulliMask(0.5), regularizer=L3Regularizer(1e-3), block_size=5)
    found = []
    for capture in (True, False):
        torch.manual_seed(0)
        found.append(train('cuda', capture, 40, inside=False, model=cls(12, 3, 8).to('cuda'), criterion=criterion))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    for value, other in zip(found[0][0], found[1][0]):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_host_does_not_wait_for_a_replay() -> None:
    model = make_model('cuda')
    step = GraphedStep(model, EMULoss(), adagrad(model), NEGATIVES)
    batches = make_loader('cuda', 'tail').batches()
    batch = next(batches)
    for _ in range(5):
        step(batch)
    assert step.num_graphs == 1
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(5):
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode('default')
