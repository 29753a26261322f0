from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.training.stability import LossMeter, nonfinite_weights, scalars


def test_meter_averages_between_resets() -> None:
    meter = LossMeter(torch.device('cpu'))
    for loss in (1.0, 2.0, 6.0):
        meter.add(torch.tensor(loss))
    assert meter.read() == ({'loss': 3.0}, 3)
    meter.reset()
    meter.add(torch.tensor(5.0))
    assert meter.read() == ({'loss': 5.0}, 4)


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_meter_counts_the_steps_before_the_first_bad_loss(bad: float) -> None:
    meter = LossMeter(torch.device('cpu'))
    for loss in (1.0, 2.0, bad, 1.0, bad):
        meter.add(torch.tensor(loss))
    assert meter.read()[1] == 2


def test_meter_continues() -> None:
    first, second = LossMeter(torch.device('cpu')), LossMeter(torch.device('cpu'))
    first.add(torch.tensor(0.1), {'loss_penalty': torch.tensor(0.01)})
    first.add_norm(torch.tensor(3.0))
    second.load_state_dict(first.state_dict())
    for meter in (first, second):
        meter.add(torch.tensor(0.2), {'loss_penalty': torch.tensor(0.03)})
        meter.add_norm(torch.tensor(4.0))
    assert first.read()[0] == second.read()[0] == pytest.approx({'loss': 0.15, 'loss_penalty': 0.02, 'grad_norm': 3.5})
    old = LossMeter(torch.device('cpu'))
    old.load_state_dict({'sum': torch.tensor(0.1, dtype=torch.float64), 'count': 1})
    old.add(torch.tensor(0.2))
    assert old.read()[0] == pytest.approx({'loss': 0.15})


def test_terms_that_come_and_go() -> None:
    meter = LossMeter(torch.device('cpu'))
    meter.add(torch.tensor(1.0))
    meter.add(torch.tensor(2.0), {'a': torch.tensor(4.0)})
    meter.add(torch.tensor(3.0), {'b': torch.tensor(1.0, dtype=torch.float64)})
    meter.add(torch.tensor(6.0))
    assert meter.read() == ({'loss': 3.0, 'a': 1.0, 'b': 0.25}, 4)
    meter.reset()
    meter.add(torch.tensor(6.0), {'b': torch.tensor(1.0)})
    assert meter.read()[0] == {'loss': 6.0, 'a': 0.0, 'b': 1.0}


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_nonfinite_weights_are_named(bad: float) -> None:
    model = torch.nn.Linear(3, 2)
    assert nonfinite_weights(model) == []
    model.bias.data[1] = bad
    assert nonfinite_weights(model) == ['bias']


def test_terms_are_numbers_or_scalars() -> None:
    meter = LossMeter(torch.device('cpu'))
    loss = torch.tensor(2.0)
    meter.add(loss, scalars({'a': 1, 'b': np.float32(0.5), 'c': torch.tensor(3), 'loss': torch.tensor(9.0)}, loss))
    assert meter.read()[0] == {'loss': 2.0, 'a': 1.0, 'b': 0.5, 'c': 3.0}  # the loss is that which is minimised
    for bad in (torch.ones(1), 'x', None, True):
        with pytest.raises(ArgumentError, match=r"^terms\['a'\]: expected a number or a scalar tensor, got "):
            scalars({'a': bad}, loss)


def test_attributes_of_another_meaning_are_no_terms() -> None:
    assert scalars(['a', 'b'], torch.tensor(1.0)) == scalars(None, torch.tensor(1.0)) == {}
