r"""DeMix in training: a warm-up is plain training, runs resume bit for bit, loops and recipes."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_emu import DeMixLoss, DeMixNegatives, EMUNegatives, KGData, Trainer, TripletLoader, as_scorer, evaluate
from pyg_emu.core.errors import ArgumentError
from pyg_emu.losses import SelfAdversarialLoss
from pyg_emu.models import NBFNet, TransE
from pyg_emu.negatives.mutation import DeMixMutation
from pyg_emu.negatives.sampling import NSCachingSampler, SANSSampler, UniformSampler
from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint
from pyg_emu.training.graphed_step import check_rate

NODES, KINDS = 12, 2


@pytest.fixture(autouse=True)
def _torch() -> Any:
    with use_backend('torch'):
        yield


def graph() -> KGData:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(high, (70, ), generator=generator) for high in (NODES, KINDS, NODES)], 1)
    facts = facts.unique(dim=0)[:60].t()
    return KGData(facts[[0, 2]], facts[1], NODES, KINDS)


def trainer(transform: Any, steps: int, run_dir: Any = None, criterion: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = TransE(NODES, KINDS, 4, margin=2.0)
    loader = TripletLoader(graph(), 20, shuffle=True, corrupt='both', transform=transform)
    return Trainer(model, DeMixLoss() if criterion is None else criterion, loader,
                   torch.optim.Adam(model.parameters(), lr=0.05), num_steps=steps, run_dir=run_dir, progress=False,
                   evaluate_every=4, **options)


def weights(one: Trainer) -> list[torch.Tensor]:
    return [value.detach().clone() for value in one.model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right))


@pytest.mark.parametrize('criterion', [DeMixLoss(), DeMixLoss(None), SelfAdversarialLoss(mutate=True)], ids=repr)
def test_a_warm_up_over_the_whole_run_is_the_plain_sampler(criterion: Any) -> None:
    runs = []
    for transform in (EMUNegatives(5, mutation_rate=0.0), DeMixNegatives(5, warmup=4), DeMixNegatives(5, warmup=3)):
        run = trainer(transform, 12, criterion=criterion)  # four epochs of three steps
        run.fit()
        runs.append((weights(run), run.loader.generator.get_state()))
    plain, warm, mixed = runs
    assert same(plain[0], warm[0]) and torch.equal(plain[1], warm[1])
    assert not same(plain[0], mixed[0])


class Stop(Exception):
    pass


class Stopping:
    r"""Calls a function a number of times, and then stops the run."""
    def __init__(self, function: Any, left: int) -> None:
        self.function, self.left = function, left

    def __call__(self, *args: Any) -> None:
        if self.left == 0:
            raise Stop
        self.left -= 1
        self.function(*args)


@pytest.mark.parametrize('sampler', [UniformSampler(filtered=True), SANSSampler(walks=5), NSCachingSampler(4, 4)],
                         ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize('refresh_every', [None, 4])
def test_resumes_bit_for_bit(sampler: Any, refresh_every: Any, tmp_path: Path) -> None:
    def transform() -> DeMixNegatives:
        new = type(sampler)(*((4, 4) if isinstance(sampler, NSCachingSampler) else ()))
        return DeMixNegatives(5, new, delta=1.0, warmup=1, refresh_every=refresh_every)

    whole = trainer(transform(), 14, tmp_path / 'whole')
    whole.fit()

    # Stopped in the first of five epochs, which is the warm-up, and in the third one.
    for stop in (1, 8):
        folder = tmp_path / f'stopped-{stop}'
        first = trainer(transform(), 14, folder, checkpoint_every=1)
        first.loader.transform.mutation.update = Stopping(first.loader.transform.mutation.update, stop)
        with pytest.raises(Stop):
            first.fit()
        assert load_checkpoint(folder / 'last.pt')['step'] == stop
        again = trainer(transform(), 14, folder, checkpoint_every=1)
        assert again.fit().steps == 14
        assert same(weights(whole), weights(again))
        ours, theirs = (load_checkpoint(path / 'last.pt')['parts']['transform.mutation']
                        for path in (tmp_path / 'whole', folder))
        assert ours['seen'] == theirs['seen'] == 264 and torch.equal(ours['scores']['mean'], theirs['scores']['mean'])
        assert torch.equal(ours['scores']['near'], theirs['scores']['near'])


def test_a_loop_of_ones_own_is_the_trainer() -> None:
    run = trainer(DeMixNegatives(5, warmup=1), 12)
    run.fit()
    torch.manual_seed(0)
    model, negatives, criterion = TransE(NODES, KINDS, 4, margin=2.0), DeMixNegatives(5, warmup=1), DeMixLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    loader = TripletLoader(graph(), 20, shuffle=True, corrupt='both', transform=negatives)
    for _ in range(4):
        for batch in loader:
            negatives.mutation.update(batch, as_scorer(model))
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()
    assert same(weights(run), [value.detach() for value in model.parameters()])


def test_learns() -> None:
    run = trainer(DeMixNegatives(8, delta=0.1, warmup=5), 120)
    before = evaluate(run.model, graph(), split='train')['mrr']
    run.fit()
    assert evaluate(run.model, graph(), split='train')['mrr'] > 2 * before


def test_graphs_of_cuda_refuse_what_learns() -> None:
    with pytest.raises(ArgumentError, match='DeMixMutation'):
        check_rate(DeMixMutation())
    check_rate(NSCachingSampler())  # its update() runs outside of the graph


def test_models_without_vectors() -> None:
    data = graph().with_inverse_relations()
    model = NBFNet(KINDS, 4, 1)
    loader = TripletLoader(data, 20, transform=DeMixNegatives(4))
    with pytest.raises(ArgumentError):
        Trainer(model, DeMixLoss(), loader, torch.optim.Adam(model.parameters()), num_steps=1, progress=False).fit()
