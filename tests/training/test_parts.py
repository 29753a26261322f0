from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest
import torch
from torch import Tensor
from torch_geometric.transforms import Compose

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import CrossEntropyLoss, EMULoss, OneVsAllEMULoss, ScoredBatch
from pyg_emu.models import DistMult
from pyg_emu.negatives import EMUNegatives, parts_of
from pyg_emu.negatives.contract import LearningPart, Negatives, shared_parameters
from pyg_emu.negatives.mutation import BernoulliMask, LearnedMask
from pyg_emu.negatives.sampling import BaseSampler, NSCachingSampler
from pyg_emu.ops import use_backend
from pyg_emu.training.graphed_step import check_run
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.schedules import Constant
from pyg_emu.training.trainer import Trainer

WIDTH = 6


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


class Generator(torch.nn.Module, BaseSampler):
    r"""Makes one vector for each triple, ascends the loss with an optimiser of its own, and counts what it observes."""
    def __init__(self) -> None:
        super().__init__()
        self.vector = torch.nn.Parameter(torch.full((WIDTH, ), 0.1))
        self.register_buffer('observed', torch.zeros(()))
        self.log: list[str] = []

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        self.log.append('sample')
        size = batch.head_index.numel()
        return Negatives(torch.randint(12, (size, num_negatives), generator=generator),
                         vectors=self.vector.expand(size, 1, WIDTH))

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1, maximize=True)

    def begin(self, scorer: Any) -> None:
        assert scorer.num_nodes == 12
        self.log.append('begin')

    def update(self, batch: Batch, scorer: Any) -> None:
        assert scorer.num_nodes == 12
        self.log.append('update')

    def observe(self, batch: Batch, scored: ScoredBatch) -> None:
        assert scored.hardest.size(1) == batch.num_negatives and not scored.positive.requires_grad
        self.log.append('observe')
        self.observed += scored.hardest[:, -1].mean()


def make_trainer(transform: Any, num_steps: int = 6, criterion: Any = None, learned: Any = (),
                 **kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    data = KGData(torch.randint(12, (2, 60), generator=generator), torch.randint(3, (60, ), generator=generator), 12, 3)
    model = DistMult(12, 3, WIDTH)
    loader = TripletLoader(data, 20, shuffle=True, transform=transform)
    optimizer = torch.optim.Adagrad([*model.parameters(), *learned], lr=0.1)
    return Trainer(model, criterion or EMULoss(), loader, optimizer, num_steps=num_steps, progress=False, **kwargs)


@pytest.mark.parametrize('place', [lambda transform: transform, lambda transform: Compose([transform])])
def test_a_part_of_the_users_own_is_called_once_a_step(place: Callable[[Any], Any]) -> None:
    part = Generator()
    make_trainer(place(EMUNegatives(4, sampler=part)), num_steps=3).fit()
    assert part.log == ['begin', *['sample', 'update', 'observe'] * 3]
    assert (part.vector != 0.1).all()  # moved by its own optimiser, through the gradient of the loss


def test_a_part_ascends_what_the_model_descends() -> None:
    found = {}
    for maximize in (True, False):
        part = Generator()
        part.make_optimizer = lambda: torch.optim.SGD(  # type: ignore[method-assign]
            part.parameters(), lr=0.1, maximize=maximize)  # noqa: B023
        make_trainer(EMUNegatives(4, sampler=part), num_steps=1).fit()
        found[maximize] = part.vector.detach() - 0.1
    torch.testing.assert_close(found[True], -found[False])
    assert found[True].abs().max() > 0


def test_gradients_of_a_part_are_clipped() -> None:
    part = Generator()
    make_trainer(EMUNegatives(4, sampler=part), num_steps=1, max_grad_norm=1e-6).fit()
    assert part.vector.grad is not None and 0 < part.vector.grad.norm() <= 1e-6


def test_history_holds_the_terms_of_parts() -> None:
    class Telling(Generator):
        def observe(self, batch: Batch, scored: Any) -> None:
            super().observe(batch, scored)
            # As the loss of this step is summed, it holds what was observed in it.
            self.terms = {'loss': torch.tensor(self.log.count('observe')).double(), 'spread': torch.tensor(0.5)}

    class Mute(Telling):
        terms = None  # type: ignore[assignment]  # before the first step, or for good

        def observe(self, batch: Batch, scored: Any) -> None:
            pass

    history = make_trainer(EMUNegatives(4, sampler=Telling()), num_steps=4, evaluate_every=2).fit().history
    assert history['transform.sampler.loss'].tolist() == [1.5, 3.5]
    assert history['transform.sampler.spread'].tolist() == [0.5, 0.5]
    assert 'loss' in history and not [name for name in history.columns if name.startswith('criterion.')]
    plain = make_trainer(EMUNegatives(4, sampler=Mute()), num_steps=1).fit().history
    assert not [name for name in plain.columns if name.startswith('transform')]


def test_resumed_parts_continue_bit_for_bit(tmp_path: Path) -> None:
    def run(folder: str, num_steps: int) -> tuple[Trainer, Generator]:
        part = Generator()
        trainer = make_trainer(EMUNegatives(4, sampler=part), num_steps, run_dir=tmp_path / folder)
        trainer.fit()
        return trainer, part

    whole, own = run('whole', 8)
    run('cut', 5)
    resumed, other = run('cut', 8)
    assert torch.equal(whole.model.node_emb.weight, resumed.model.node_emb.weight)
    assert torch.equal(own.vector, other.vector) and torch.equal(own.observed, other.observed)
    assert other.log == ['begin', *['sample', 'update', 'observe'] * 3]  # the three steps that were left


def test_parameters_without_an_optimiser_are_named() -> None:
    with pytest.raises(ArgumentError, match='LearnedMask .*transform.mutation'):
        make_trainer(EMUNegatives(4, mutation=LearnedMask(WIDTH))).fit()
    with pytest.raises(ArgumentError, match='OneVsAllEMULoss .*criterion'):
        make_trainer(None, criterion=OneVsAllEMULoss(mutation=LearnedMask(WIDTH))).fit()
    mask = LearnedMask(WIDTH)
    make_trainer(EMUNegatives(4, mutation=mask), learned=mask.parameters()).fit()
    assert mask.logits.grad is not None
    make_trainer(EMUNegatives(4, mutation=LearnedMask(WIDTH).requires_grad_(False))).fit()


def test_a_part_that_observes_needs_scores() -> None:
    def criterion(model: Any, batch: Batch) -> Tensor:
        return model(batch.head_index, batch.rel_type, batch.tail_index).sum()

    with pytest.raises(ArgumentError, match='criterion: Generator'):
        make_trainer(EMUNegatives(4, sampler=Generator()), criterion=criterion).fit()


def test_what_make_optimizer_returns() -> None:
    part = Generator()
    part.make_optimizer = lambda: 5  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ArgumentError, match='transform.sampler: make_optimizer.* int'):
        make_trainer(EMUNegatives(4, sampler=part)).fit()


def test_bases_in_the_wrong_order() -> None:
    with pytest.raises(ArgumentError, match='Wrong: .*torch.nn.Module'):
        class Wrong(LearningPart, torch.nn.Module):
            pass


def test_refused_where_steps_are_captured_or_divided() -> None:
    trainer = make_trainer(EMUNegatives(4, sampler=Generator()))
    parts = LearningParts(trainer.loader, trainer.model, trainer.criterion)
    with pytest.raises(ArgumentError, match='graph: Generator'):
        check_run(parts, Constant(), trainer.optimizer)
    with pytest.raises(ArgumentError, match='Generator'):
        parts.check_processes()
    trainer = make_trainer(EMUNegatives(4, sampler=NSCachingSampler()), criterion=CrossEntropyLoss())
    parts = LearningParts(trainer.loader, trainer.model, trainer.criterion)
    check_run(parts, Constant(), trainer.optimizer)
    parts.check_processes()


class _Own(BernoulliMask):
    r"""Counts its updates, and has a state."""
    def __init__(self) -> None:
        super().__init__(0.5)
        self.count = 0

    def update(self, batch: Batch, scorer: Any) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {'count': self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state['count']


def test_the_mutation_of_a_loss_is_a_part(tmp_path: Path) -> None:
    counts = []
    for num_steps in (3, 5):
        mutation = _Own()
        make_trainer(None, num_steps, OneVsAllEMULoss(mutation=mutation), run_dir=tmp_path).fit()
        counts.append(mutation.count)
    assert counts == [3, 5]


def test_a_module_within_a_loss_is_saved_once() -> None:
    mask = LearnedMask(WIDTH)
    trainer = make_trainer(None, criterion=OneVsAllEMULoss(mutation=mask), learned=mask.parameters())
    parts = LearningParts(trainer.loader, trainer.model, trainer.criterion)
    assert [id(value) for value in parts.parameters()] == [id(mask.logits)]
    assert 'criterion.mutation' in parts.named and [*parts.states()] == ['criterion']


def test_parameters_of_parts_with_an_optimiser_of_their_own_are_left_to_it() -> None:
    class Own(LearnedMask):
        def make_optimizer(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    for mask, shared in ((LearnedMask(WIDTH), True), (Own(WIDTH), False)):
        parts = parts_of(make_trainer(None).loader, OneVsAllEMULoss(mutation=mask))
        assert [*parts] == ['criterion', 'criterion.mutation']
        assert [value is mask.logits for value in shared_parameters(parts.values())] == [True] * shared
