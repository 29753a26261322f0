from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments import build as module
from pyg_emu.experiments.build import build, fused_by_default
from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.names import class_names
from pyg_emu.experiments.sections import check_section, reads_graph
from pyg_emu.losses import EMULoss
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import ExactMask, LinearSchedule, Mixup
from pyg_emu.negatives.sampling import UniformSampler


def check(kind: str, value: Any) -> dict[str, Any]:
    return check_section(kind, value, (kind, ), Layer())


def test_build_makes_what_is_described() -> None:
    rate = {'start': 0, 'end': 0.5, 'steps': 10}
    negatives = build('negatives', check('negatives', {
        'num_negatives': 5, 'mutation_rate': rate, 'sampler': {'filtered': True}}))
    assert isinstance(negatives, EMUNegatives) and negatives.num_negatives == 5
    assert isinstance(negatives.sampler, UniformSampler) and negatives.sampler.filtered
    assert negatives.mutation.rate == LinearSchedule(0.0, 0.5, 10)
    mixup = build('negatives', check('negatives', {'mutation': 'mixup'}))
    assert isinstance(mixup.mutation, Mixup)
    exact = build('negatives', check('negatives', {'mutation': {'name': 'exact', 'rate': rate}}))
    assert isinstance(exact.mutation, ExactMask) and exact.mutation.rate == LinearSchedule(0.0, 0.5, 10)
    loss = build('loss', check('loss', {'alpha': 0.3, 'regularizer': {'name': 'lp', 'p': 2, 'weight': 1e-3}}))
    assert isinstance(loss, EMULoss) and loss.alpha == 0.3 and loss.regularizer.p == 2.0


@pytest.mark.parametrize('name', class_names('model'))
def test_build_models(name: str) -> None:
    value = check('model', {'name': name.upper(), 'hidden_channels': 6})
    model = build('model', value, num_nodes=4, num_relations=2)
    assert type(model).__name__ == name and model.num_relations == 2
    if not (reads_graph('model', name) or hasattr(model, 'for_graph')):
        assert model(*torch.tensor([[0], [1], [2]])).shape == (1, )


@pytest.mark.parametrize('kind, value, facts', [
    ('negatives', {'mutation_rate': 1.5}, ['[0, 1]', '1.5']),
    ('negatives', {'mutation_rate': float('nan')}, ['[0, 1]', 'nan']),
    ('negatives', {'num_negatives': 0}, ['num_negatives', '0']),
    ('negatives', {'mask': 'bernuli'}, ['mask', "'bernoulli'", "'bernuli'"]),
    ('loss', {'alpha': -1.0}, ['alpha', '-1']),
    ('loss', {'beta': float('nan')}, ['beta', 'nan']),
    ('schedule', {'name': 'switch', 'at': 2.0}, ['at', '2.0']),
    ('model', {'hidden_channels': 2**60}, ['DistMult']),
])
def test_values_that_a_class_refuses(kind: str, value: Any, facts: list[str]) -> None:
    given = {'num_nodes': 2**10, 'num_relations': 1} if kind == 'model' else {}
    with pytest.raises(RecipeError) as caught:
        build(kind, check(kind, value), **given)
    message = str(caught.value)
    assert message.startswith(f'{kind}: ') and all(fact in message for fact in facts) and '\n' not in message


@pytest.mark.parametrize('value, facts', [
    ({'lr': -0.1}, ['-0.1']),
    ({'name': 'adam', 'fused': True, 'foreach': True}, ['fused', 'foreach']),
])
def test_settings_that_torch_refuses(value: Any, facts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        build('optimizer', check('optimizer', value), params=[torch.nn.Parameter(torch.ones(1))])
    assert all(fact in str(caught.value) for fact in ['optimizer', *facts])


@pytest.mark.parametrize('model, optimizer, expected', [
    ({}, {'name': 'adagrad'}, {'fused': True}),
    ({'sparse': False}, {'name': 'adam', 'lr': 0.1}, {'fused': True}),
    ({'sparse': True}, {'name': 'adagrad'}, {}),
    ({}, {'name': 'sparse_adam'}, {}),
    ({}, {'name': 'adagrad', 'fused': False}, {}),
    ({}, {'name': 'adagrad', 'foreach': True}, {}),
])
def test_the_fastest_step_is_chosen_where_it_is_left_open(model: Any, optimizer: Any, expected: Any) -> None:
    assert fused_by_default(model, optimizer) == expected
    options = {**expected, **check('optimizer', optimizer)}
    assert build('optimizer', options, params=[torch.nn.Parameter(torch.ones(1))])


def test_no_fused_step_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # As PyTorch 2.11 on a GPU, which says so when the first step is taken.
    def refuse(self: Any) -> None:
        raise RuntimeError('`fused=True` requires all the params to be floating point Tensors of supported devices')

    module._has_fused_step.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adagrad, 'step', refuse)
        assert fused_by_default({}, {'name': 'adagrad'}) == {}
        assert fused_by_default({}, {'name': 'adam'}, graph=True) == {'fused': True, 'capturable': True}
    module._has_fused_step.cache_clear()
    assert fused_by_default({}, {'name': 'adagrad'}) == {'fused': True}
    # And asked of the device that the parameters are on: this one has no such steps in any version.
    assert fused_by_default({}, {'name': 'adagrad'}, device='meta') == {}


def test_adam_can_be_captured() -> None:
    model = {'name': 'DistMult'}
    assert fused_by_default(model, {'name': 'adam'}, graph=True) == {'fused': True, 'capturable': True}
    assert fused_by_default(model, {'name': 'adam', 'fused': False}, graph=True) == {'capturable': True}
    assert fused_by_default(model, {'name': 'adagrad'}, graph=True) == {'fused': True}
