from __future__ import annotations

from typing import Any, Optional

import pytest

from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.rules import dense_obstacle, graph_obstacle, sparse_obstacle
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
