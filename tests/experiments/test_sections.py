from __future__ import annotations

import sys
from typing import Any

import pytest

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.names import SECTIONS, class_names, find_class
from pyg_emu.experiments.sections import check_section, kept_settings, parameters, reads_graph, without_defaults
from pyg_emu.models import DistMult


def check(kind: str, value: Any) -> dict[str, Any]:
    return check_section(kind, value, (kind, ), Layer())


def test_section_is_completed_with_the_defaults_of_its_class() -> None:
    assert check('loss', 'EMU') == {'name': 'emu', 'alpha': 0.11, 'beta': 0.53, 'divide_by_negatives': True,
                                    'regularizer': None, 'mutate_vectors': False}
    assert check('optimizer', {'name': 'adam', 'lr': 1}) == {'name': 'adam', 'lr': 1.0}


def test_without_defaults() -> None:
    assert without_defaults('loss', check('loss', {'alpha': 0.11, 'beta': 0.1})) == {'name': 'emu', 'beta': 0.1}
    negatives = check('negatives', {'sampler': {'name': 'uniform', 'filtered': True}})
    assert without_defaults('negatives', negatives) == {'sampler': {'name': 'uniform', 'filtered': True}}


def test_the_only_schedule_of_a_rate_needs_no_name() -> None:
    rate = {'start': 0.0, 'end': 0.5, 'steps': 10}
    for given in (rate, {'name': 'linear', **rate}):
        assert check('negatives', {'mutation_rate': given})['mutation_rate'] == rate
        assert check('negatives', {'mutation': {'name': 'exact', 'rate': given}})['mutation']['rate'] == rate


@pytest.mark.parametrize('kind, value, facts', [
    ('loss', {'name': 'emu', 'alpa': 1}, ['loss.alpa', 'emu', "'loss.alpha'", 'beta']),
    ('loss', 'em', ["'em'", "'emu'", 'package.module:Class']),
    ('loss', {'name': 3}, ['loss 3']),
    ('loss', {'name': 'x' * 5000}, ["'xxx"]),
    ('loss', {'regularizer': {'name': 'l3'}}, ['loss.regularizer.weight', 'l3']),
    ('loss', {'regularizer': {'nme': 'l3'}}, ['loss.regularizer.nme', "'loss.regularizer.name'"]),
    ('loss', {'alpha': '1'}, ['loss.alpha', 'number', "'1'"]),
    ('loss', 7, ['loss', '7']),
    ('model', {'hidden_channels': 2.5}, ['model.hidden_channels', 'integer', '2.5']),
    ('model', {'num_nodes': 3, 'hidden_channels': 2}, ['model.num_nodes']),
    ('negatives', {'name': 'emu_negatives'}, ['negatives.name']),
    ('negatives', {'shared': 1}, ['negatives.shared', 'true or false', '1']),
    ('negatives', {'mutation_rate': 'high'}, ['negatives.mutation_rate', 'number', "'high'"]),
    ('negatives', {'num_negatives': 10**5000}, ['negatives.num_negatives', '2^63']),
    ('optimizer', {'name': 'adam', 'betas': [0.9]}, ['optimizer.betas', 'list of 2', '[0.9]']),
    ('optimizer', 'lbfgs', ["'lbfgs'"]),
])
def test_bad_sections(kind: str, value: Any, facts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        check(kind, value)
    assert all(fact in str(caught.value) for fact in facts) and len(str(caught.value)) < 1000


def test_what_reads_a_graph() -> None:
    found = {kind: [name for name in class_names(kind) if reads_graph(kind, name)] for kind in ('model', 'loss')}
    assert found == {'model': ['NBFNet'], 'loss': ['nbfnet_bce', 'nbfnet_emu']}
    assert reads_graph('model', {'name': 'nbf-net'}) and not reads_graph('model', 'unknown')
    assert not reads_graph('model', 7) and not reads_graph('model', {}) and not reads_graph('model', None)


class Passing(DistMult):
    def __init__(self, *args: Any, temperature: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature


class Hinted:
    def __init__(self, data: KGData, lr: float, name: str = 'x') -> None:  # type: ignore # noqa: F821
        ...


def test_arguments_that_a_constructor_passes_on() -> None:
    found = parameters(SECTIONS['model'], Passing)
    own = parameters(SECTIONS['model'], find_class('model', 'DistMult'))
    assert found == {**own, 'temperature': (float, 2.0)}


def test_annotations_that_cannot_be_evaluated_cost_no_other() -> None:
    found = parameters(SECTIONS['loss'], Hinted)
    assert list(found) == ['data', 'lr'] and found['data'][0] is Any and found['lr'][0] is float


def test_settings_that_stay_are_those_that_the_new_class_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_settings('model', 'TransE', '') == ['hidden_channels', 'sparse']
    assert kept_settings('model', 'NBFNet', '') == ['hidden_channels']
    assert kept_settings('loss', 'margin', '') == ['regularizer'] and kept_settings('loss', 'nbfnet_emu', '') == []
    assert kept_settings('optimizer', 'adam', '') == [] and kept_settings('dataset', 'UMLS', '') == []
    plain = type('Plain', (DistMult, ), {'__init__': _plain})
    monkeypatch.setattr(sys.modules[__name__], 'Plain', plain, raising=False)
    assert kept_settings('model', f'{__name__}:Plain', '') == []


def _plain(self: Any, num_nodes: int, num_relations: int) -> None:
    ...
