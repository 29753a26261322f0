from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pyg_emu.negatives.adversarial.optimizers import load_optimizer, make_adam, step_if


def make(sparse: bool = False, lr: float = 0.1) -> tuple[torch.nn.Embedding, torch.optim.Optimizer]:
    torch.manual_seed(0)
    table = torch.nn.Embedding(5, 3, sparse=sparse)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=lr) if sparse else make_adam(table.parameters(), lr)
    return table, optimizer


def take(table: torch.nn.Embedding, optimizer: torch.optim.Optimizer, usable: bool, factor: float = 1.0) -> None:
    optimizer.zero_grad()
    (factor * table(torch.tensor([1, 1, 4])).square().sum()).backward()
    step_if(optimizer, torch.tensor(usable))


def state_of(table: torch.nn.Embedding, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()['state']
    return {'weight': table.weight.detach().clone(), **copy.deepcopy(state.get(0, {}))}


@pytest.mark.parametrize('sparse', [False, True])
def test_a_step_or_none(sparse: bool) -> None:
    table, optimizer = make(sparse)
    twin, plain = make(sparse)
    for usable in (True, True, False, True):
        before = state_of(table, optimizer)
        take(table, optimizer, usable, 1.0 if usable else float('nan'))
        after = state_of(table, optimizer)
        assert before.keys() <= after.keys()
        if usable:
            take(twin, plain, True)
            assert not after['weight'].equal(before['weight'])
        else:
            assert all(torch.equal(torch.as_tensor(after[name]), torch.as_tensor(value))
                       for name, value in before.items())
    # As if there had been no step between, counts included.
    expected = state_of(twin, plain)
    for name, value in state_of(table, optimizer).items():
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected[name]))
    assert int(expected['step']) == 3


def test_real_numbers_on_known_devices_are_fused() -> None:
    assert make()[1].param_groups[0]['fused'] is True
    other = make_adam([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))], 0.1)
    assert not other.param_groups[0]['fused']


@pytest.mark.parametrize('sparse', [False, True])
def test_a_state_brings_neither_rate_nor_implementation(sparse: bool) -> None:
    table, _ = make(sparse)
    old = (torch.optim.SparseAdam if sparse else torch.optim.Adam)(table.parameters(), lr=0.5)
    take(table, old, True)
    own, optimizer = make(sparse)
    load_optimizer(optimizer, old.state_dict())
    assert optimizer.param_groups[0]['lr'] == 0.1 and optimizer.param_groups[0].get('fused') == (None if sparse
                                                                                                  else True)
    assert int(state_of(own, optimizer)['step']) == 1
    take(own, optimizer, True)
    assert int(state_of(own, optimizer)['step']) == 2
    with pytest.raises(ValueError):
        load_optimizer(optimizer, {**old.state_dict(), 'param_groups': []})
