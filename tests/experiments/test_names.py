from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import pyg_emu.losses
import pyg_emu.models
import pyg_emu.negatives.adversarial
import pyg_emu.negatives.mutation
import pyg_emu.negatives.sampling
import pyg_emu.training
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.names import SECTIONS, canonical_name, class_names, find_class, name_of, nearest
from pyg_emu.losses import EMUBCELoss, EMULoss, LinkPredictionLoss, OneVsAllEMULoss
from pyg_emu.negatives.sampling import NSCachingSampler
from pyg_emu.training import RowAdagrad

#: The names that recipes have used so far. Recipes and run folders keep them.
NAMES = {
    'model': {'DistMult', 'ComplEx', 'TransE', 'RotatE', 'HAKE', 'NBFNet'},
    'sampler': {'uniform', 'sans', 'nscaching', 'popularity', 'typed', 'mcns', 'esns_like', 'cans_like',
                'shared_negatives', 'dans', 'kbgan'},
    'mutation': {'mixup', 'learned'},
    'rate': {'linear'},
    'loss': {'emu', 'cross_entropy', 'emu_bce', 'bce', 'self_adversarial', 'margin', 'one_vs_all_emu', 'one_vs_all',
             'nbfnet_emu', 'nbfnet_bce'},
    'regularizer': {'lp', 'l3', 'n3'},
    'optimizer': {'adagrad', 'adam', 'adamw', 'sgd', 'sparse_adam'},
    'schedule': {'constant', 'linear', 'cosine', 'switch'},
}


@pytest.mark.parametrize('kind', NAMES)
def test_names_of_today_stay(kind: str) -> None:
    assert NAMES[kind] <= set(class_names(kind)) and class_names(kind)[0] == SECTIONS[kind].default


@pytest.mark.parametrize('kind, name', [(kind, name) for kind in SECTIONS for name in class_names(kind)])
def test_every_name_leads_to_a_class_that_can_be_made(kind: str, name: str) -> None:
    made = find_class(kind, name)
    assert callable(made) and not inspect.isabstract(made)
    assert not SECTIONS[kind].named or 'name' not in inspect.signature(made).parameters


@pytest.mark.parametrize('module, kinds', [
    (pyg_emu.models, ['model']), (pyg_emu.losses, ['loss', 'regularizer']), (pyg_emu.negatives.sampling, ['sampler']),
    (pyg_emu.negatives.adversarial, ['sampler']),
    (pyg_emu.negatives.mutation, ['mutation', 'rate']), (pyg_emu.training, ['optimizer', 'schedule']),
])
def test_every_class_that_a_room_exports_has_a_name_or_says_that_it_has_none(module: Any, kinds: list[str]) -> None:
    named = {find_class(kind, name) for kind in kinds for name in class_names(kind)}
    others = {name for name in module.__all__ if inspect.isclass(getattr(module, name))
              and getattr(module, name) not in named and vars(getattr(module, name)).get('recipe_name', '') is not None}
    assert others <= {'CSVLogger', 'GraphedStep', 'Logger', 'MLflowLogger', 'MaskMutation', 'Mutation',
                      'MutationContext', 'RunInfo', 'Schedule', 'ScoredBatch', 'TensorBoardLogger', 'TrainResult',
                      'Trainer', 'TrainingInterrupted', 'WandbLogger'}, 'base classes, and what recipes do not name'


def test_rule_for_names() -> None:
    assert name_of(OneVsAllEMULoss, 'Loss') == 'one_vs_all_emu' and name_of(NSCachingSampler, 'Sampler') == 'nscaching'
    assert name_of(torch.optim.AdamW) == 'adamw' and name_of(EMULoss) == 'emuloss', 'no suffix was given'
    assert name_of(EMUBCELoss, 'Loss') == 'emu_bce' and name_of(RowAdagrad) == 'adagrad', 'their own'
    assert name_of(LinkPredictionLoss, 'Loss') is None and name_of(EMULoss, 'Sampler') is None
    assert name_of(type('ShinyNewLoss', (EMUBCELoss, ), {}), 'Loss') == 'shiny_new', 'not that of its base'


def test_spelling() -> None:
    assert canonical_name('model', 'dist-mult') == 'DistMult'
    assert canonical_name('loss', 'Cross Entropy') == 'cross_entropy'
    assert canonical_name('model', 'unknown') == 'unknown' and canonical_name('model', 'a.b:DistMult') == 'a.b:DistMult'
    assert nearest('xyz', ['alpha', 'beta']) == '; Known: alpha, beta'


@pytest.mark.parametrize('name', ['bernoulli', 'Bernoulli'])
def test_what_stands_elsewhere_in_a_recipe(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find_class('sampler', name, 'my.yaml:3: ')
    assert str(caught.value).startswith('my.yaml:3: ') and 'corrupt: bernoulli' in str(caught.value)


def test_path_of_a_class_of_the_package_or_of_pyg() -> None:
    assert find_class('loss', 'pyg_emu.losses:EMULoss') is EMULoss
    assert find_class('optimizer', 'torch.optim:SparseAdam') is torch.optim.SparseAdam
    assert find_class('model', 'torch_geometric.nn:TransE').__module__.startswith('torch_geometric')


@pytest.mark.parametrize('kind, path, facts', [
    ('model', 'no_such_module:A', ['no_such_module', 'working directory']),
    ('model', 'torch.no_such:A', ['torch.no_such']),
    ('model', 'not a path:A', ['not a path:A', 'package.module:Class']),
    ('model', 'torch:', ['torch:']),
    ('loss', 'pyg_emu.losses:EMULos', ['EMULos', "'EMULoss'", 'losses']),
    ('loss', 'torch.nn.functional:relu', ['relu', 'function']),
    ('loss', 'torch:float32', ['float32', 'dtype']),
    ('loss', 'torch.optim:Adam', ['model, batch']),
    ('loss', 'pyg_emu.models:DistMult', ['head_index', 'model, batch']),
    ('sampler', 'pyg_emu.losses:EMULoss', ['sample', 'Sampler']),
    ('mutation', 'torch.nn:Linear', ['plan']),
    ('mutation', 'pyg_emu.negatives.mutation:MaskMutation', ['abstract', 'bank']),
    ('rate', 'builtins:object', ['step']),
    ('model', 'builtins:dict', ['torch.nn']),
    ('model', 'torch.nn:Linear', ['query', 'entity_table']),
    ('optimizer', 'torch.nn:Linear', ['Optimizer']),
    ('optimizer', 'torch.optim:LBFGS', ['closure']),
    ('schedule', 'torch.optim.lr_scheduler:StepLR', ['Schedule']),
])
def test_bad_paths(kind: str, path: str, facts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        find_class(kind, path, 'my.yaml:3: ')
    message = str(caught.value)
    assert message.startswith('my.yaml:3: ') and all(fact in message for fact in facts) and '\n' not in message
