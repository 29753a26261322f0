from __future__ import annotations

import functools
import math
from typing import Any, Callable

import pytest
import torch

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.optimizers import RowAdagrad
from pyg_emu.training.schedules import Constant, CosineDecay, LinearDecay, Schedule, SwitchOptimizer


def make_optimizer(lr: float = 0.1) -> torch.optim.Optimizer:
    torch.manual_seed(0)
    return torch.optim.Adagrad([torch.nn.Parameter(torch.randn(5))], lr=lr)


def advance(schedule: Schedule, steps: int) -> list[float]:
    r"""Performs steps on a quadratic function and returns the learning rate of each."""
    rates = []
    for _ in range(steps):
        optimizer = schedule.optimizer
        optimizer.zero_grad()
        weight = optimizer.param_groups[0]['params'][0]
        weight.square().sum().backward()
        rates.append(float(optimizer.param_groups[0]['lr']))
        optimizer.step()
        schedule.step()
    return rates


def test_constant() -> None:
    schedule = Constant()
    schedule.start(make_optimizer(), 4)
    assert advance(schedule, 4) == [0.1] * 4


def test_linear_decay() -> None:
    schedule = LinearDecay()
    schedule.start(make_optimizer(), 4)
    assert advance(schedule, 4) == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert schedule.optimizer.param_groups[0]['lr'] == pytest.approx(0.0, abs=1e-12)


def test_cosine_decay() -> None:
    schedule = CosineDecay(end_factor=0.2)
    schedule.start(make_optimizer(), 4)
    expected = [0.02 + 0.08 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert advance(schedule, 4) == pytest.approx(expected)


def test_switch_optimizer_half_way() -> None:
    schedule = SwitchOptimizer()
    first = make_optimizer()
    schedule.start(first, 6)
    assert advance(schedule, 3) == [0.1] * 3
    assert isinstance(schedule.optimizer, torch.optim.Adam)
    assert schedule.optimizer.param_groups[0]['params'][0] is first.param_groups[0]['params'][0]
    assert advance(schedule, 3) == pytest.approx([0.01] * 3)


def test_groups_with_rates_of_their_own() -> None:
    def make() -> torch.optim.Optimizer:
        return torch.optim.SGD([{'params': [torch.nn.Parameter(torch.ones(1))], 'lr': lr} for lr in (0.1, 0.4)])

    schedule = SwitchOptimizer()
    schedule.start(make(), 2)
    schedule.step()
    assert [group['lr'] for group in schedule.optimizer.param_groups] == pytest.approx([0.01, 0.04])
    # A cosine ends at one rate for all.
    CosineDecay().start(make(), 2)
    with pytest.raises(ArgumentError, match=r'^end_factor: .*\[0\.1, 0\.4\]'):
        CosineDecay(end_factor=0.5).start(make(), 2)


def switched(optimizer: torch.optim.Optimizer, **options: Any) -> list[dict[str, Any]]:
    schedule = SwitchOptimizer(**options)
    schedule.start(optimizer, 2)
    schedule.step()
    return schedule.optimizer.param_groups


def weights(**options: Any) -> list[dict[str, Any]]:
    return [{'params': [torch.nn.Parameter(torch.ones(2, 2))], **options}]


def test_switch_optimizer_keeps_what_is_shared() -> None:
    both = [*weights(weight_decay=0.5), *weights(maximize=True)]
    found = switched(torch.optim.Adagrad(both, lr=0.1))
    assert [(group['weight_decay'], group['maximize']) for group in found] == [(0.5, False), (0, True)]
    found = switched(torch.optim.AdamW(weights()))
    assert (found[0]['weight_decay'], found[0]['decoupled_weight_decay']) == (0.01, True)
    assert switched(RowAdagrad(weights(), maximize=True), sparse=True)[0]['maximize'] is True
    # One that is made elsewhere is left to its maker.
    assert switched(torch.optim.SGD(weights(), lr=0.1, weight_decay=0.5, maximize=True),
                    make=lambda groups: torch.optim.Adam(groups, betas=(0.5, 0.6)))[0]['weight_decay'] == 0


class Own(torch.optim.Adagrad):
    r"""Nobody gives its options."""
    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1, eps=1e-7)


@pytest.mark.parametrize('make', [
    lambda: torch.optim.Adagrad(weights(), fused=True),
    lambda: torch.optim.Adagrad(weights(), foreach=True, differentiable=True),
    lambda: torch.optim.Adagrad(weights(), lr_decay=0.1, initial_accumulator_value=0.2),
    lambda: torch.optim.SGD(weights(), lr=0.1, momentum=0.9, nesterov=True),
    lambda: torch.optim.Adam(weights(), lr=torch.tensor(0.1), foreach=False, betas=[0.9, 0.999]),  # type: ignore
    lambda: torch.optim.RMSprop(weights(), eps=1e-8),
    lambda: RowAdagrad(weights()),
    lambda: Own(weights()),
])
def test_switch_optimizer_takes_options_of_the_first_alone(make: Callable[[], torch.optim.Optimizer]) -> None:
    assert isinstance(switched(make())[0]['lr'], float)


@pytest.mark.parametrize(('make', 'sparse', 'fact'), [
    (lambda: torch.optim.Adam(weights(), betas=(0.5, 0.6)), False, r'betas=\(0\.5, 0\.6\) of Adam;'),
    (lambda: torch.optim.Adam(weights(), amsgrad=True), False, 'amsgrad=True'),
    (lambda: torch.optim.Adagrad([*weights(), *weights(eps=1e-5)]), False, 'eps=1e-05 of Adagrad'),
    (lambda: RowAdagrad(weights(), eps=1e-5), True, 'RowAdam.* eps=1e-05 of RowAdagrad'),
    (lambda: RowAdagrad(weights(), weight_decay=0.5), True, r'RowAdam.* weight_decay=0\.5 of RowAdagrad'),
])
def test_switch_optimizer_loses_no_option(make: Callable[[], torch.optim.Optimizer], sparse: bool, fact: str) -> None:
    with pytest.raises(ArgumentError, match=f'^optimizer: SwitchOptimizer.*{fact}'):
        SwitchOptimizer(sparse=sparse).start(make(), 2)


def test_switch_optimizer_checks_what_is_made() -> None:
    with pytest.raises(ArgumentError, match='^make: .*optimizer.* 3'):
        switched(make_optimizer(), make=lambda groups: 3)
    with pytest.raises(ArgumentError, match='^sparse: .*make.* True'):
        SwitchOptimizer(make=torch.optim.Adam, sparse=True)


@pytest.mark.parametrize(('first', 'second', 'fact'), [
    ({}, {'make': torch.optim.SGD}, '^make: .* Adam.* SGD;'),
    ({'make': torch.optim.SGD}, {}, '^make: .* SGD.* Adam;'),
    ({'make': functools.partial(torch.optim.SGD, momentum=0.9)}, {'make': torch.optim.SGD}, '^make: .*momentum=0.9'),
    ({}, {'sparse': True}, '^make: .* Adam.* RowAdam;'),
])
def test_refuses_another_second_optimizer(first: dict[str, Any], second: dict[str, Any], fact: str) -> None:
    begun, resumed = SwitchOptimizer(**first), SwitchOptimizer(**second)
    for schedule in (begun, resumed):
        schedule.start(make_optimizer(), 4)
    with pytest.raises(CheckpointError, match=fact):
        resumed.load_state_dict(begun.state_dict())
    begun.load_state_dict(begun.state_dict())


def test_switch_optimizer_continues_older_states() -> None:
    schedule = SwitchOptimizer()
    schedule.start(make_optimizer(), 10)
    schedule.load_state_dict({'completed': 2, 'switch_step': 3})
    assert advance(schedule, 2) == pytest.approx([0.1, 0.01])


def test_switch_optimizer_for_sparse_gradients() -> None:
    table = torch.nn.Embedding(4, 2, sparse=True)
    schedule = SwitchOptimizer(sparse=True)
    schedule.start(torch.optim.Adagrad(table.parameters(), lr=0.1), 2)
    for _ in range(2):
        schedule.optimizer.zero_grad()
        table(torch.tensor([1, 1])).sum().backward()
        schedule.optimizer.step()
        schedule.step()
    assert isinstance(schedule.optimizer, torch.optim.SparseAdam)


@pytest.mark.parametrize('stop', [1, 3, 5])
@pytest.mark.parametrize('make', [Constant, LinearDecay, CosineDecay, SwitchOptimizer])
def test_continues_bit_for_bit(make: type[Schedule], stop: int) -> None:
    whole = make()
    whole.start(make_optimizer(), 6)
    advance(whole, 6)

    first = make()
    first.start(make_optimizer(), 6)
    advance(first, stop)
    saved, moments = first.state_dict(), first.optimizer.state_dict()
    weight = first.optimizer.param_groups[0]['params'][0].detach().clone()

    second = make()
    optimizer = make_optimizer()
    optimizer.param_groups[0]['params'][0].data.copy_(weight)
    second.start(optimizer, 6)
    second.load_state_dict(saved)
    second.optimizer.load_state_dict(moments)
    advance(second, 6 - stop)
    assert torch.equal(second.optimizer.param_groups[0]['params'][0], whole.optimizer.param_groups[0]['params'][0])
    assert second.optimizer.param_groups[0]['lr'] == whole.optimizer.param_groups[0]['lr']


@pytest.mark.parametrize('tensor', [False, True])
@pytest.mark.parametrize('make', [LinearDecay, CosineDecay])
def test_begins_anew_at_the_initial_rate(make: type[Schedule], tensor: bool) -> None:
    rate = torch.tensor(0.1) if tensor else 0.1
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.randn(5))], lr=rate, foreach=False)
    found = []
    for _ in range(2):
        schedule = make()
        schedule.start(optimizer, 4)
        found.append(advance(schedule, 4))
    assert found[0] == found[1] and found[0][0] == pytest.approx(0.1)
    assert not tensor or optimizer.param_groups[0]['lr'] is rate


@pytest.mark.parametrize('make', [LinearDecay, CosineDecay, SwitchOptimizer])
def test_refuses_another_length(make: type[Schedule]) -> None:
    first, second = make(), make()
    first.start(make_optimizer(), 4)
    second.start(make_optimizer(), 8)
    with pytest.raises(CheckpointError, match=rf'^num_steps: .*\b4\b.*{make.__name__}\(.*\b8\b'):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize('make', [
    lambda: SwitchOptimizer(at=0.0),
    lambda: SwitchOptimizer(at=1.0),
    lambda: SwitchOptimizer(factor=-0.1),
    lambda: SwitchOptimizer(factor=math.nan),
    lambda: LinearDecay(end_factor=1.5),
    lambda: CosineDecay(end_factor=math.nan),
])
def test_arguments_outside_of_their_domain(make) -> None:
    with pytest.raises(ArgumentError, match=r'^(at: .*\(0, 1\)|factor: |end_factor: .*\[0, 1\])'):
        make()
