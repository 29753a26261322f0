from __future__ import annotations

import inspect
import re
from typing import Any, Callable, Literal, Optional, Sequence, Union

import pytest
import torch

import pyg_emu.losses
import pyg_emu.models
import pyg_emu.training.schedules
from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments import registry
from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.registry import (
    SECTIONS,
    _load,
    build,
    canonical_name,
    check_section,
    conform,
    fused_by_default,
    graph_obstacle,
    nearest,
    reads_graph,
    sparse_obstacle,
    without_defaults,
)
from pyg_emu.losses import EMULoss, LinkPredictionLoss
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import LinearSchedule, Mixup
from pyg_emu.negatives.sampling import UniformSampler


def check(kind: str, value: Any) -> dict[str, Any]:
    return check_section(kind, value, (kind, ), Layer())


@pytest.mark.parametrize('kind, name', [(kind, name) for kind, section in SECTIONS.items() for name in section.classes])
def test_every_name_leads_somewhere(kind: str, name: str) -> None:
    section = SECTIONS[kind]
    made = _load(section, name)
    parameters = inspect.signature(made).parameters
    assert callable(made) and section.default in section.classes
    taken = [set(inspect.signature(_load(section, other)).parameters) for other in section.classes]
    assert section.given <= set().union(*taken)
    assert all(inner in SECTIONS for inner in section.nested.values())
    assert not section.named or 'name' not in parameters


@pytest.mark.parametrize('module, base, kind', [
    (pyg_emu.losses, LinkPredictionLoss, 'loss'),
    (pyg_emu.training.schedules, pyg_emu.training.schedules.Schedule, 'schedule'),
    (pyg_emu.models, ScorerMixin, 'model'),
])
def test_no_class_is_forgotten(module: Any, base: type, kind: str) -> None:
    # Reciprocal wraps a model and KGEScorer and the like are there to be derived from.
    abstract = {base, pyg_emu.training.schedules._TorchSchedule, pyg_emu.models.KGEScorer, pyg_emu.models.Reciprocal}
    found = {value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, base)} - abstract
    assert found <= {_load(SECTIONS[kind], name) for name in SECTIONS[kind].classes}


def test_section_is_completed_with_the_defaults_of_its_class() -> None:
    assert check('loss', 'EMU') == {'name': 'emu', 'alpha': 0.11, 'beta': 0.53, 'divide_by_negatives': True,
                                    'regularizer': None}
    assert check('optimizer', {'name': 'adam', 'lr': 1}) == {'name': 'adam', 'lr': 1.0}


def test_without_defaults() -> None:
    assert without_defaults('loss', check('loss', {'alpha': 0.11, 'beta': 0.1})) == {'name': 'emu', 'beta': 0.1}
    negatives = check('negatives', {'sampler': {'name': 'uniform', 'filtered': True}})
    assert without_defaults('negatives', negatives) == {'sampler': {'name': 'uniform', 'filtered': True}}


def test_build_makes_what_is_described() -> None:
    negatives = build('negatives', check('negatives', {
        'num_negatives': 5, 'mutation_rate': {'start': 0, 'end': 0.5, 'steps': 10}, 'sampler': {'filtered': True}}))
    assert isinstance(negatives, EMUNegatives) and negatives.num_negatives == 5
    assert isinstance(negatives.sampler, UniformSampler) and negatives.sampler.filtered
    assert negatives.mutation.rate == LinearSchedule(0.0, 0.5, 10)
    mixup = build('negatives', check('negatives', {'mutation': 'mixup'}))
    assert isinstance(mixup.mutation, Mixup)
    loss = build('loss', check('loss', {'alpha': 0.3, 'regularizer': {'name': 'lp', 'p': 2, 'weight': 1e-3}}))
    assert isinstance(loss, EMULoss) and loss.alpha == 0.3 and loss.regularizer.p == 2.0


@pytest.mark.parametrize('name', SECTIONS['model'].classes)
def test_build_models(name: str) -> None:
    value = check('model', {'name': name.upper(), 'hidden_channels': 6})
    model = build('model', value, num_nodes=4, num_relations=2)
    assert type(model).__name__ == name and model.num_relations == 2
    if not reads_graph('model', name):
        assert model(*torch.tensor([[0], [1], [2]])).shape == (1, )


@pytest.mark.parametrize('kind, value, message', [
    ('loss', {'name': 'emu', 'alpa': 1},
     r"unknown key 'loss\.alpa' of emu; did you mean 'loss\.alpha'\? Known: name, alpha"),
    ('loss', 'em', r"unknown loss 'em'; did you mean 'emu'\?"),
    ('loss', {'name': 3}, 'unknown loss 3'),
    ('loss', {'regularizer': {'name': 'l3'}}, r'loss\.regularizer\.weight is missing: l3 needs it'),
    ('loss', {'regularizer': {'nme': 'l3'}},
     r"unknown key 'loss\.regularizer\.nme' of l3; did you mean 'loss\.regularizer\.name'"),
    ('loss', {'alpha': '1'}, r"loss\.alpha: expected a number, got '1'"),
    ('loss', 7, 'loss: expected a section of settings, got 7'),
    ('model', {'hidden_channels': 2.5}, r'model\.hidden_channels: expected an integer, got 2\.5'),
    ('model', {'num_nodes': 3, 'hidden_channels': 2}, r"unknown key 'model\.num_nodes'"),
    ('negatives', {'name': 'emu_negatives'}, r"unknown key 'negatives\.name'"),
    ('negatives', {'shared': 1}, r'negatives\.shared: expected true or false, got 1'),
    ('negatives', {'mutation_rate': 'high'}, r'negatives\.mutation_rate: expected a number or a section of settings'),
])
def test_bad_sections(kind: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check(kind, value)


@pytest.mark.parametrize('kind, value, message', [
    ('negatives', {'mutation_rate': 1.5}, r'negatives: .*\[0, 1\].* got 1\.5'),
    ('negatives', {'mutation_rate': float('nan')}, r'negatives: .*\[0, 1\].* got nan'),
    ('negatives', {'num_negatives': 0}, 'negatives: num_negatives: expected an integer of at least 1, got 0'),
    ('negatives', {'mask': 'bernuli'}, "negatives: mask: expected one of 'bernoulli'"),
    ('loss', {'alpha': -1.0}, 'loss: alpha: .* got -1'),
    ('loss', {'beta': float('nan')}, 'loss: beta: .* got nan'),
    ('schedule', {'name': 'switch', 'at': 2.0}, 'schedule: at: '),
])
def test_values_that_a_class_refuses(kind: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(kind, check(kind, value))


def test_learning_rate_that_torch_refuses() -> None:
    with pytest.raises(RecipeError, match='optimizer: Invalid learning rate: -0.1'):
        build('optimizer', check('optimizer', {'lr': -0.1}), params=[torch.nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize('value, hint, expected', [
    (1, float, 1.0), (True, bool, True), (None, Optional[int], None), (3, Optional[int], 3),
    ('a', Literal['a', 'b'], 'a'), ((1, 2), Sequence[int], [1, 2]), (1, Union[float, Callable[[int], float]], 1.0),
    (2, Union[float, torch.Tensor], 2.0),
    ([0.9, 1], tuple[float, float], [0.9, 1.0]), ('all', Union[None, str, Sequence[str]], 'all'), (object, Any, object),
])
def test_conform(value: Any, hint: Any, expected: Any) -> None:
    found = conform(value, hint)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize('value, hint, message', [
    (True, int, 'an integer'), (1.0, int, 'an integer'), ('1', float, 'a number'), (0, bool, 'true or false'),
    (None, int, 'an integer'), ('x', Optional[int], 'an integer or null'), ('c', Literal['a', 'b'], "one of 'a', 'b'"),
    (3, Sequence[int], 'a list'), ('x', Union[float, Callable[[int], float]], 'a number'), (False, float, 'a number'),
])
def test_conform_refuses(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f'^{message}$'):
        conform(value, hint)


def test_names() -> None:
    assert canonical_name('model', 'dist-mult') == 'DistMult'
    assert canonical_name('loss', 'Cross Entropy') == 'cross_entropy'
    assert canonical_name('model', 'unknown') == 'unknown'
    assert nearest('xyz', ['alpha', 'beta']) == '; Known: alpha, beta'


def test_what_reads_a_graph() -> None:
    found = {kind: [name for name in SECTIONS[kind].classes if reads_graph(kind, name)] for kind in ('model', 'loss')}
    assert found == {'model': ['NBFNet'], 'loss': ['nbfnet_emu', 'nbfnet_bce']}
    assert reads_graph('model', {'name': 'nbf-net'}) and not reads_graph('model', 'unknown')
    assert not reads_graph('model', 7) and not reads_graph('model', {}) and not reads_graph('model', None)


@pytest.mark.parametrize('model, loss, sampler, message', [
    ('NBFNet', 'nbfnet_bce', 'uniform', None),
    ('NBFNet', 'nbfnet_emu', None, None),
    ('TransE', 'emu', 'nscaching', None),
    ('NBFNet', 'emu_bce', None, r'loss\.name: emu_bce .* which reads a graph; choose .* nbfnet_emu, nbfnet_bce$'),
    ('NBFNet', 'one_vs_all', None, r'loss\.name: one_vs_all does not go with NBFNet'),
    ('TransE', 'nbfnet_emu', None, r'loss\.name: nbfnet_emu .* TransE, which has a vector .* choose one of emu, cross'),
    ('NBFNet', 'nbfnet_emu', 'nscaching', r'negatives\.sampler: nscaching learns from entity vectors, and NBFNet has'),
])
def test_losses_and_samplers_that_suit_a_model(model: str, loss: str, sampler: Optional[str],
                                               message: Optional[str]) -> None:
    options: dict[str, Any] = {} if model == 'NBFNet' else {'hidden_channels': 4}
    obstacle = graph_obstacle(check('model', {'name': model, **options}), check('loss', loss),
                              check('negatives', {} if sampler is None else {'sampler': sampler}))
    assert obstacle is None if message is None else re.match(message, str(obstacle))


@pytest.mark.parametrize('optimizer, loss, message', [
    ({'name': 'adagrad', 'lr': 0.1, 'weight_decay': 0.0}, 'emu', None),
    ({'name': 'sgd', 'lr': 0.1}, 'one_vs_all', None),
    ({'name': 'sparse_adam'}, {'regularizer': {'name': 'n3', 'weight': 0.1}}, None),
    ({'name': 'adagrad'}, {'regularizer': {'name': 'l3', 'weight': 0.1}}, None),
    ('adam', 'emu', r'optimizer\.name: adam takes no row-sparse gradients.* choose one of adagrad, sgd, sparse_adam'),
    ({'name': 'adagrad', 'weight_decay': 0.1}, 'emu', r'optimizer\.weight_decay: .* expected 0, got 0\.1'),
    ({'name': 'sgd', 'momentum': 0.9}, 'emu', r'optimizer\.momentum: .* expected 0, got 0\.9'),
    ({'name': 'adagrad', 'fused': True}, 'emu', 'optimizer: PyTorch has no fused or foreach steps'),
    ('sparse_adam', {'regularizer': {'name': 'l3', 'weight': 0.1}}, r'loss\.regularizer: .* choose n3, or adagrad'),
    ('sparse_adam', 'one_vs_all_emu', r'loss\.name: one_vs_all_emu scores every entity'),
])
def test_sparse_gradients_do_not_suit_all(optimizer: Any, loss: Any, message: Optional[str]) -> None:
    obstacle = sparse_obstacle(check('optimizer', optimizer), check('loss', loss), {'name': 'constant'}, {})
    assert obstacle is None if message is None else re.match(message, str(obstacle))


@pytest.mark.parametrize('loss, negatives, message', [
    ('emu', {}, None),
    ({'regularizer': {'name': 'n3', 'weight': 0.1}}, {'mutation': {'name': 'mixup'}}, None),
    ({'regularizer': {'name': 'l3', 'weight': 0.1}}, {}, r'loss\.regularizer: the gradient of l3 is dense'),
    ('one_vs_all', {}, r'loss\.name: one_vs_all scores every entity'),
    ('emu', {'mutation': {'name': 'learned', 'width': 4}}, r'negatives\.mutation: the gradient of a learned mask'),
])
@pytest.mark.parametrize('optimizer, schedule, instead', [
    ('sparse_adam', {'name': 'linear'}, 'sparse_adam takes row-sparse ones alone; choose (n3, or )?adagrad$'),
    ('adagrad', {'name': 'switch'}, 'the Adam that schedule switch goes .* choose (n3, or )?another schedule$'),
])
def test_what_adam_of_rows_does_not_take(loss: Any, negatives: Any, message: Optional[str], optimizer: str,
                                         schedule: Any, instead: str) -> None:
    obstacle = sparse_obstacle(check('optimizer', optimizer), check('loss', loss), schedule,
                               check('negatives', negatives))
    assert obstacle is None if message is None else re.match(f'{message}.*{instead}', str(obstacle))


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

    registry._has_fused_step.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adagrad, 'step', refuse)
        assert fused_by_default({}, {'name': 'adagrad'}) == {}
        assert fused_by_default({}, {'name': 'adam'}, graph=True) == {'fused': True, 'capturable': True}
    registry._has_fused_step.cache_clear()
    assert fused_by_default({}, {'name': 'adagrad'}) == {'fused': True}
    # And asked of the device that the parameters are on: this one has no such steps in any version.
    assert fused_by_default({}, {'name': 'adagrad'}, device='meta') == {}


def test_adam_can_be_captured() -> None:
    model = {'name': 'DistMult'}
    assert fused_by_default(model, {'name': 'adam'}, graph=True) == {'fused': True, 'capturable': True}
    assert fused_by_default(model, {'name': 'adam', 'fused': False}, graph=True) == {'capturable': True}
    assert fused_by_default(model, {'name': 'adagrad'}, graph=True) == {'fused': True}
