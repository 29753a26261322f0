from __future__ import annotations

from typing import Any, Optional

import pytest

from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.rules import (
    dense_obstacle,
    graph_obstacle,
    idle_settings,
    mutation_obstacle,
    sparse_obstacle,
)
from pyg_emu.experiments.sections import check_section


def check(kind: str, value: Any) -> dict[str, Any]:
    return check_section(kind, value, (kind, ), Layer())


def says(obstacle: Optional[str], facts: Optional[list[str]]) -> bool:
    return obstacle is None if facts is None else obstacle is not None and all(fact in obstacle for fact in facts)


@pytest.mark.parametrize('model, loss, sampler, facts', [
    ('NBFNet', 'nbfnet_bce', 'uniform', None),
    ('NBFNet', 'nbfnet_emu', None, None),
    ('TransE', 'emu', 'nscaching', None),
    ('NBFNet', 'emu_bce', None, ['loss.name: emu_bce', 'reads a graph', 'nbfnet_bce, nbfnet_emu']),
    ('NBFNet', 'one_vs_all', None, ['loss.name: one_vs_all', 'NBFNet']),
    ('TransE', 'nbfnet_emu', None, ['loss.name: nbfnet_emu', 'TransE', 'vector', 'cross_entropy']),
    ('NBFNet', 'nbfnet_emu', 'nscaching', ['negatives.sampler: nscaching', 'NBFNet']),
    ('NBFNet', 'nbfnet_emu', 'mcns', ['negatives.sampler: mcns', 'NBFNet']),
    ('NBFNet', 'nbfnet_emu', 'typed', None),
    ('NBFNet', 'nbfnet_emu', {'name': 'shared_negatives', 'sampler': 'sans'}, None),
    ('TransE', 'emu', {'name': 'shared_negatives', 'sampler': 'nscaching'}, None),
    ('NBFNet', 'nbfnet_emu', {'name': 'shared_negatives', 'sampler': 'nscaching'},
     ['negatives.sampler.sampler: nscaching', 'NBFNet']),
])
def test_losses_and_samplers_that_suit_a_model(model: str, loss: str, sampler: Any,
                                               facts: Optional[list[str]]) -> None:
    options: dict[str, Any] = {} if model == 'NBFNet' else {'hidden_channels': 4}
    obstacle = graph_obstacle(check('model', {'name': model, **options}), check('loss', loss),
                              check('negatives', {} if sampler is None else {'sampler': sampler}))
    assert says(obstacle, facts)


@pytest.mark.parametrize('optimizer, loss, facts', [
    ({'name': 'adagrad', 'lr': 0.1, 'weight_decay': 0.0}, 'emu', None),
    ({'name': 'sgd', 'lr': 0.1}, 'one_vs_all', None),
    ({'name': 'sparse_adam'}, {'regularizer': {'name': 'n3', 'weight': 0.1}}, None),
    ({'name': 'adagrad'}, {'regularizer': {'name': 'l3', 'weight': 0.1}}, None),
    ('torch.optim:SparseAdam', 'emu', None),
    ('adam', 'emu', ['optimizer.name: adam', 'model.sparse', 'adagrad, sparse_adam, sgd']),
    ({'name': 'adam', 'weight_decay': 0.1}, 'emu', ['optimizer.name: adam']),
    ({'name': 'adagrad', 'weight_decay': 0.1}, 'emu', ['optimizer.weight_decay', '0.1']),
    ({'name': 'sgd', 'momentum': 0.9}, 'emu', ['optimizer.momentum', '0.9']),
    ({'name': 'adagrad', 'fused': True}, 'emu', ['optimizer: ', 'fused']),
    ('sparse_adam', {'regularizer': {'name': 'l3', 'weight': 0.1}}, ['loss.regularizer', 'l3', 'n3', 'adagrad']),
    ('torch.optim:SparseAdam', {'regularizer': {'name': 'l3', 'weight': 0.1}}, ['loss.regularizer', 'SparseAdam']),
    ('sparse_adam', 'one_vs_all_emu', ['loss.name', 'one_vs_all_emu']),
])
def test_sparse_gradients_do_not_suit_all(optimizer: Any, loss: Any, facts: Optional[list[str]]) -> None:
    obstacle = sparse_obstacle(check('optimizer', optimizer), check('loss', loss), {'name': 'constant'}, {})
    assert says(obstacle, facts)


@pytest.mark.parametrize('loss, negatives, facts', [
    ('emu', {}, None),
    ({'regularizer': {'name': 'n3', 'weight': 0.1}}, {'mutation': {'name': 'mixup'}}, None),
    ({'regularizer': {'name': 'l3', 'weight': 0.1}}, {}, ['loss.regularizer', 'l3', 'n3']),
    ('one_vs_all', {}, ['loss.name', 'one_vs_all']),
    ('emu', {'mutation': {'name': 'learned', 'width': 4}}, ['negatives.mutation', 'learned']),
])
@pytest.mark.parametrize('optimizer, schedule, remedy', [
    ('sparse_adam', {'name': 'linear'}, ['sparse_adam', 'adagrad']),
    ('adagrad', {'name': 'switch'}, ['switch', 'another schedule']),
])
def test_what_adam_of_rows_does_not_take(loss: Any, negatives: Any, facts: Optional[list[str]], optimizer: str,
                                         schedule: Any, remedy: list[str]) -> None:
    obstacle = sparse_obstacle(check('optimizer', optimizer), check('loss', loss), schedule,
                               check('negatives', negatives))
    assert says(obstacle, None if facts is None else [*facts, *remedy])


def test_dense_gradients_do_not_suit_adam_of_rows() -> None:
    model = check('model', {'hidden_channels': 2})
    for name in ('sparse_adam', 'torch.optim:SparseAdam'):
        assert says(dense_obstacle(model, check('optimizer', name)), ['optimizer.name', name, 'DistMult', 'adam'])
    assert says(dense_obstacle(model, check('optimizer', 'adam')), None)


@pytest.mark.parametrize('loss, mutation, facts', [
    ('emu', 'mixup', None),
    ({'name': 'cross_entropy', 'mutate': True}, 'mixup', None),
    ('one_vs_all_emu', {'name': 'bernoulli', 'rate': 0.3}, None),
    ({'name': 'one_vs_all_emu', 'mutation': {'name': 'bernoulli', 'rate': 0.5}}, None, None),
    ('cross_entropy', 'mixup', ['loss.mutate', 'mixup', 'true']),
    ('one_vs_all', 'mixup', ['negatives.mutation', 'one_vs_all', 'mixup']),
    ('one_vs_all', 'demix', ['demix', 'labels', 'one_vs_all']),
    ('one_vs_all_emu', 'demix', ['demix', 'labels', 'one_vs_all_emu']),
    ({'name': 'one_vs_all_emu', 'mutation': {'name': 'bernoulli', 'rate': 0.5}}, 'mixup',
     ['negatives.mutation', 'loss.mutation', 'bernoulli', 'mixup']),
])
def test_losses_that_suit_a_mutation(loss: Any, mutation: Any, facts: Optional[list[str]]) -> None:
    negatives = {} if mutation is None else {'mutation': mutation}
    assert says(mutation_obstacle(check('loss', loss), check('negatives', negatives)), facts)


@pytest.mark.parametrize('model, loss, negatives, keys', [
    ('TransE', 'emu', {'mutation_rate': 0.6, 'mask': 'exact'}, []),
    ('TransE', 'cross_entropy', {'num_negatives': 64, 'sampler': 'sans'}, []),
    ('TransE', 'cross_entropy', {'mutation_rate': 0.0, 'mask': 'exact'}, []),
    ('TransE', 'cross_entropy', {'mutation_rate': 0.3}, []),  # the default
    ('TransE', 'cross_entropy', {'mutation_rate': 0.6, 'tied': True}, ['mutation_rate', 'tied']),
    ('TransE', {'name': 'bce', 'mutate': True}, {'mutation_rate': 0.6}, []),
    ('NBFNet', 'nbfnet_bce', {'mutation_rate': 0.94, 'mask': 'exact', 'shared': False}, []),  # the model's defaults
    ('NBFNet', 'nbfnet_bce', {'mutation_rate': 0.5}, ['mutation_rate']),
    ('TransE', 'one_vs_all', {'num_negatives': 1}, []),
    ('TransE', 'one_vs_all', {'num_negatives': 64, 'sampler': 'sans', 'mask': 'block'},
     ['num_negatives', 'sampler', 'mask']),
    ('TransE', 'one_vs_all_emu', {'sampler': 'sans', 'mutation_rate': 0.6}, ['sampler']),
    ('TransE', {'name': 'one_vs_all_emu', 'mutation': {'name': 'bernoulli', 'rate': 0.5}},
     {'mutation_rate': 0.6}, ['mutation_rate']),
])
def test_settings_of_negatives_without_an_effect(model: str, loss: Any, negatives: dict[str, Any],
                                                 keys: list[str]) -> None:
    options: dict[str, Any] = {} if model == 'NBFNet' else {'hidden_channels': 4}
    checked = check('loss', loss)
    told = idle_settings(check('model', {'name': model, **options}), checked, check('negatives', negatives))
    assert [line.partition(':')[0] for line in told] == [f'negatives.{key}' for key in keys]
    assert all(checked['name'] in line or 'loss.mutation' in line for line in told)
    given = [value['name'] if isinstance(value, dict) else value for value in negatives.values()]
    assert all(any(f': {value} ' in line for value in given) for line in told)
