r"""Tests of search spaces: their syntax, their errors with file and line, and the recipes of their trials."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.names import class_names
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.tuning.space import Parameter, SearchSpace, default_space, load_space, packaged_spaces


def recipe(**settings: Any) -> Recipe:
    return load_recipe({'dataset': 'given', **settings})


def bound(base: Recipe, **space: Any) -> SearchSpace:
    return load_space({key.replace('__', '.'): value for key, value in space.items()}).bound(base)


class FixedTrial:
    r"""Samples the minimum or the first choice and records the arguments."""
    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def suggest_float(self, key: str, low: float, high: float, **options: Any) -> float:
        self.asked[key] = (float, low, high, options)
        return low

    def suggest_int(self, key: str, low: int, high: int, **options: Any) -> int:
        self.asked[key] = (int, low, high, options)
        return low

    def suggest_categorical(self, key: str, choices: Any) -> Any:
        self.asked[key] = choices
        return choices[0]


def test_kinds_of_parameters() -> None:
    base = recipe(model={'hidden_channels': 100}, optimizer={'name': 'adagrad', 'lr': 0.1})
    space = bound(base, loss__alpha={'low': 0.01, 'high': 1, 'log': True},
                  loss__beta={'low': 0, 'high': 1, 'step': 0.25},
                  model__hidden_channels={'low': 50, 'high': 200, 'step': 50}, optimizer__lr={'factor': 5},
                  negatives__num_negatives={'factor': 2}, negatives__mask={'choices': ['bernoulli', 'exact']})
    trial = FixedTrial()
    values = {parameter.key: parameter.suggest(trial) for parameter in space.parameters}
    assert trial.asked == {
        'loss.alpha': (float, 0.01, 1.0, {'step': None, 'log': True}),
        'loss.beta': (float, 0.0, 1.0, {'step': 0.25, 'log': False}),
        'model.hidden_channels': (int, 50, 200, {'step': 50, 'log': False}),
        'optimizer.lr': (float, 0.02, 0.5, {'step': None, 'log': True}),
        'negatives.num_negatives': (int, 128, 512, {'step': 1, 'log': True}),
        'negatives.mask': ('bernoulli', 'exact'),
    }
    found = space.recipe(base, values)
    assert (found.loss['alpha'], found.model['hidden_channels'], found.optimizer['lr']) == (0.01, 50, 0.02)
    assert [str(parameter) for parameter in space.parameters][:3] == [
        'loss.alpha: 0.01 to 1, logarithmic', 'loss.beta: 0 to 1, in steps of 0.25',
        'model.hidden_channels: 50 to 200, in steps of 50']
    assert load_space(space.to_dict()).bound(base).to_dict() == space.to_dict()


def test_drawn_numbers_are_short_and_stay_in_range() -> None:
    parameter = Parameter('loss.alpha', low=0.123456, high=0.98765432)
    assert parameter.value(0.55555555) == 0.5556
    assert parameter.value(0.123456) == 0.1235 and parameter.value(0.98765432) == 0.98765432
    assert parameter.holds(0.5) and not parameter.holds(0.1) and not parameter.holds(None)
    stepped = Parameter('model.hidden_channels', low=50, high=200, step=50, integer=True)
    assert stepped.holds(150) and not stepped.holds(120) and not stepped.holds(50.5)
    choices = Parameter('negatives.shared', choices=(True, 2))
    assert choices.holds(True) and choices.holds(2) and choices.holds(2.0) and not choices.holds(1)


def test_fixed_settings_go_into_every_trial() -> None:
    base = recipe(loss={'name': 'emu', 'alpha': 0.3, 'regularizer': {'name': 'n3', 'weight': 0.01}})
    space = bound(base, loss__name='cross_entropy', loss__regularizer__name='l3', negatives__mutation_rate=0.0,
                  loss__regularizer__weight={'low': 1e-8, 'high': 1e-4, 'log': True})
    found = space.recipe(base, {'loss.regularizer.weight': 1e-5})
    assert found.loss == {'name': 'cross_entropy', 'regularizer': {'name': 'l3', 'weight': 1e-5},
                          'label_smoothing': 0.0, 'confidence_penalty': 0.0, 'mutate': False}
    assert found.negatives['mutation_rate'] == 0.0


def test_decided_settings_are_not_searched() -> None:
    space = load_space('emu').without(['loss.beta', 'loss.regularizer'])
    assert [p.key for p in space.parameters] == ['loss.alpha', 'negatives.mutation_rate', 'optimizer.lr']
    assert space.fixed == {'loss.name': 'emu'}


def test_search_starts_where_the_recipe_is() -> None:
    base = recipe(loss={'name': 'emu', 'alpha': 0.11, 'beta': 2.0})
    space = load_space('emu').bound(base)
    assert space.start(base) == {'loss.alpha': 0.11, 'negatives.mutation_rate': 0.3, 'optimizer.lr': 0.1}


def test_search_starts_at_a_choice_that_the_recipe_reads_as_another_type() -> None:
    base = recipe(loss={'name': 'emu', 'alpha': 1})
    assert type(base.loss['alpha']) is float
    assert bound(base, loss__alpha={'choices': [0.5, 1]}).start(base) == {'loss.alpha': 1}


# Packaged spaces #############################################################


def base_for(name: str) -> Recipe:
    if name.startswith('nbfnet'):
        return recipe(model='NBFNet', loss=name.replace('-', '_'))
    return recipe()


@pytest.mark.parametrize('name', sorted(packaged_spaces()))
def test_packaged_space_fits(name: str) -> None:
    base = base_for(name)
    space = load_space(name).bound(base)
    assert space.description and 'optimizer.lr' in [p.key for p in space.parameters]
    for end in (0, -1):
        space.recipe(base, {p.key: p.ends[end] for p in space.parameters})


@pytest.mark.parametrize('loss', class_names('loss'))
def test_every_loss_has_a_default_space(loss: str) -> None:
    base = recipe(model='NBFNet', loss=loss) if loss.startswith('nbfnet') else recipe(loss=loss)
    space = default_space(base)
    assert space.fixed['loss.name'] == loss
    space.bound(base)


def test_default_space_follows_the_recipe() -> None:
    assert default_space(recipe(negatives={'mutation_rate': 0.0})).origin.endswith('uls.yaml')
    n3 = {'name': 'n3', 'weight': 0.01}
    assert default_space(recipe(loss={'name': 'emu', 'regularizer': n3})).origin.endswith('emu-n3.yaml')
    assert default_space(recipe(loss={'name': 'cross_entropy', 'regularizer': n3})).origin.endswith('uniform-n3.yaml')
    smoothing = recipe(negatives={'mutation_rate': 0.0}, loss={'name': 'emu', 'regularizer': n3})
    assert default_space(smoothing).origin.endswith('uls-n3.yaml')
    for setting in ('label_smoothing', 'confidence_penalty'):
        space = default_space(recipe(loss={'name': 'cross_entropy', setting: 0.1}))
        assert f'loss.{setting}' in {parameter.key for parameter in space.parameters}


def test_default_space_changes_no_setting_of_the_recipe() -> None:
    margin = recipe(loss={'name': 'margin', 'regularizer': {'name': 'n3', 'weight': 0.01}})
    space = default_space(margin).bound(margin)
    assert {parameter.key for parameter in space.parameters} == {'loss.margin', 'optimizer.lr'}
    assert space.recipe(margin, {}).loss == margin.loss
    both = recipe(loss={'name': 'cross_entropy', 'label_smoothing': 0.1, 'confidence_penalty': 0.2})
    values = {'loss.regularizer.weight': 1e-6}
    assert default_space(both).recipe(both, values).loss['confidence_penalty'] == 0.2
    # A space that is named does what it says.
    assert load_space('margin').recipe(margin, values).loss['regularizer']['name'] == 'l3'


# Invalid input: one sentence with the line ###################################


@pytest.mark.parametrize('text, message', [
    ('loss.alph: {low: 0, high: 1}', "^{f}:2: .*'loss.alph'.*'loss.alpha'"),
    ('los.alpha: {low: 0, high: 1}', "^{f}:2: .*'los'.*'loss'"),
    ('loss.alpha: {lo: 0, high: 1}', "^{f}:2: loss.alpha: .*'lo'.*'low'"),
    ('loss.alpha: {low: -1, high: 1}', '^{f}:2: loss: alpha: .*0.*-1'),
    ('negatives.mutation_rate: {low: 0, high: 1.5}', '^{f}:2: negatives: mutation_rate: '),
    ('loss.regularizer.weight: {low: -1, high: 1}', '^{f}:2: regularizer: weight: '),
    ('optimizer.lr: {low: -1, high: 1}', '^{f}:2: optimizer.lr: .*0.*-1'),
    ('optimizer.weight_decay: {low: -1, high: 1}', '^{f}:2: optimizer: '),
    ('model.hidden_channels: {low: 0, high: 9}', '^{f}:2: model: hidden_channels: '),
    ('model.hidden_channels: {low: 8, high: 16.5}', '^{f}:2: model.hidden_channels: .*integer.*16.5'),
    ('negatives.mask: {choices: [bernoulli, exakt]}', '^{f}:2: negatives: mask: .*exakt'),
    ('negatives.shared: {low: 0, high: 1}', '^{f}:2: negatives.shared: .*true.*false'),
    ('loss.alpha: {low: 0, high: 1, log: true}', '^{f}:2: loss.alpha.low: .*log: true.*0'),
    ('loss.alpha: {low: 1, high: 0}', r'^{f}:2: loss.alpha.high: .*low.*\b1\b.*\b0\b'),
    ('loss.alpha: {low: x, high: 0}', "^{f}:2: loss.alpha.low: .*'x'"),
    ('loss.alpha: {low: 0, high: .inf}', '^{f}:2: loss.alpha.high: .*inf'),
    ('loss.alpha: {low: 0, high: 1, step: 0.3}', r'^{f}:2: loss.alpha.step: .*\b0\b.*\b1\b.*0\.3'),
    ('loss.alpha: {low: 1, high: 2, log: true, step: 1}', '^{f}:2: loss.alpha.step: .*log'),
    ('loss.alpha: {low: 1, high: 2, log: 7}', '^{f}:2: loss.alpha.log: .*true.*false.*7'),
    ('loss.alpha: {low: 1}', '^{f}:2: loss.alpha: .*low and high.*choices.*factor.*low$'),
    ('loss.alpha: {factor: 2, high: 1}', '^{f}:2: loss.alpha: .*low and high.*choices.*factor'),
    ('loss.alpha: {factor: 2, log: true}', '^{f}:2: loss.alpha.log: .*low and high.*factor'),
    ('loss.alpha: {factor: 1}', r'^{f}:2: loss.alpha.factor: .*\b1\b.*\b1$'),
    ('max_grad_norm: {factor: 2}', '^{f}:2: max_grad_norm.factor: .*None'),
    ('negatives.mask: {choices: []}', r'^{f}:2: negatives.mask.choices: .*\[\]'),
    ('negatives.mask: {choices: [{a: 1}]}', "^{f}:2: negatives.mask.choices: .*{'a': 1}"),
    ('negatives.mask: [bernoulli, exact]', "^{f}:2: negatives.mask: .*{choices: .*'bernoulli', 'exact'"),
    ('validation.max_triples: 5', '^{f}:2: validation.max_triples: '),
    ('seed: {low: 0, high: 9}', '^{f}:2: seed: '),
    ('loss.name: {choices: [emu, margin]}', "'loss.beta'.*margin"),
    ('loss.alpha: {low: 0', '^{f}:'),
], ids=lambda value: value if ':' in value else None)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'f.yaml'
    path.write_text(f'loss.beta: {{low: 0, high: 1}}\n{text}\n')
    with pytest.raises(RecipeError, match=message.replace('{f}', re.escape(str(path)))):
        load_space(path).bound(recipe())


def test_refused_without_a_file() -> None:
    with pytest.raises(RecipeError, match="^space: 'emu-n4' .*'emu-n3'"):
        load_space('emu-n4')
    with pytest.raises(RecipeError, match='^the search space: .*loss.alpha: {low: '):
        load_space({'loss.alpha': 0.1}).bound(recipe())
