from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyg_emu.core.arguments import (
    boolean,
    file_path,
    ids_below,
    ids_in,
    instance,
    is_number,
    kind_of,
    non_negative,
    non_negative_integer,
    on_device,
    one_of,
    penalty,
    positive_integer,
    positive_integers,
    random_seed,
    same_length_ids,
    share,
    shown,
    tensors,
    without_effect,
)
from pyg_emu.core.errors import ArgumentError


@pytest.mark.parametrize('value', [1, 7, np.int64(3)])
def test_counts_are_integers_of_python(value: Any) -> None:
    assert positive_integer('n', value) == value and type(positive_integer('n', value)) is int


@pytest.mark.parametrize('values', [(1, 3), [1, np.int32(3)], np.array([1, 3]), torch.tensor([1, 3]), range(1, 4, 2)])
def test_several_counts(values: Any) -> None:
    found = positive_integers('n', values)
    assert found == [1, 3] and all(type(value) is int for value in found)


@pytest.mark.parametrize('values', [(), 3, '13', None, {1, 3}, (1, 0), (1, True), np.array([1.0]), np.array([[1]])])
def test_refuses_what_are_no_counts(values: Any) -> None:
    with pytest.raises(ArgumentError, match=r'^n: expected .*positive integers'):
        positive_integers('n', values)


@pytest.mark.parametrize('value', [0, -3, 1.5, 2.0, '4', None, True, torch.tensor(3)])
def test_refuses_what_is_no_count(value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf'^n: .*\b1\b.*{re.escape(repr(value))}'):
        positive_integer('n', value)


@pytest.mark.parametrize('value', [0, 7, np.int64(3)])
def test_integers_from_0_pass(value: Any) -> None:
    assert non_negative_integer('n', value) == value and type(non_negative_integer('n', value)) is int


@pytest.mark.parametrize('value', [-1, 1.5, 0.0, '4', None, True, np.arange(3), torch.tensor([0, 1]), 2**63])
def test_refuses_what_is_no_integer_from_0(value: Any) -> None:
    with pytest.raises(ArgumentError, match='^n: '):
        non_negative_integer('n', value)


@pytest.mark.parametrize('value', [0, 0.0, 0.5, 3, np.float32(0.25)])
def test_weights_pass_as_they_came(value: Any) -> None:
    assert non_negative('w', value) is value


@pytest.mark.parametrize('value', [-1, -1e-9, float('nan'), float('inf'), 'x', None, False, 1j, torch.tensor(0.5)])
def test_refuses_what_is_no_weight(value: Any) -> None:
    with pytest.raises(ArgumentError, match=f'^w: .*{re.escape(repr(value))}'):
        non_negative('w', value)


def test_penalties() -> None:
    assert penalty('p', None) is None and penalty('p', print) is print
    for value in (0.1, 'l3', int):
        with pytest.raises(ArgumentError, match=f'^p: .*{re.escape(repr(value))}'):
            penalty('p', value)


@pytest.mark.parametrize('value', [0, 0.3, 1, np.float32(0.5)])
def test_shares_pass_as_they_came(value: Any) -> None:
    assert share('s', value) is value


@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan'), 'x', None, True])
def test_refuses_what_is_no_share(value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf'^s: .*\[0, 1\].*{re.escape(repr(value))}'):
        share('s', value)


@pytest.mark.parametrize('ids', [torch.tensor([0, 4]), torch.tensor([[4], [0]], dtype=torch.int32),
                                 torch.empty(0, 2, dtype=torch.int64)])
def test_ids_pass_as_they_came(ids: torch.Tensor) -> None:
    assert ids_below('i', ids, 5) is ids
    assert ids_below('i', ids, None) is ids


@pytest.mark.parametrize(('ids', 'limit', 'message'), [
    (torch.tensor([0, 5, 9]), 5, r'^i: 5 .*\b1\b.*\[0, 5\).*rows of t'),
    (torch.tensor([[0, 1], [7, -1]]), 5, r'^i: 7 .*\(1, 0\).*\[0, 5\)'),
    (torch.tensor([3, -2]), 5, r'^i: -2 .*\b1\b.*\[0, 5\)'),
    (torch.tensor([10**12, -2]), None, r'^i: -2 .*\b1\b'),
])
def test_names_the_first_id_that_stands_for_nothing(ids: torch.Tensor, limit: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ids_below('i', ids, limit, 'rows of t')


def test_looks_at_ids_away_from_the_cpu_only_when_told_to_wait() -> None:
    ids = torch.tensor([0, 5]).to('meta')
    assert ids_below('i', ids, 5) is ids
    with pytest.raises(Exception, match='meta'):  # A meta tensor has no values.
        ids_below('i', ids, 5, wait=True)


def test_names_both_devices() -> None:
    there = torch.empty(2, device='meta')
    assert on_device('x', there, there.device) is there
    with pytest.raises(ArgumentError, match='^x: .*cpu.*table.*meta'):
        on_device('x', there, torch.device('cpu'), 'table')
    with pytest.raises(ArgumentError, match='^x: .*cpu.*meta'):
        on_device('x', there, torch.device('cpu'))


def test_tells_the_type_and_the_shape() -> None:
    assert kind_of(torch.empty(2, 3, dtype=torch.float64)) == 'torch.float64 of shape (2, 3)'


@pytest.mark.parametrize('value', [0, 2**63 - 1, np.int32(7)])
def test_seeds_become_plain_integers(value: Any) -> None:
    assert random_seed('seed', value) == value
    assert type(random_seed('seed', value)) is int


@pytest.mark.parametrize('value', [-1, 2**63, 1.0, '3', None, False])
def test_refuses_what_is_no_seed(value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf'^seed: .*\[0, 2\^63\).*{re.escape(repr(value))}'):
        random_seed('seed', value)


@pytest.mark.parametrize(('value', 'expected'), [
    (0, True), (-2.5, True), (float('nan'), True), (np.float32(1.0), True), (np.int64(3), True), (2**63 - 1, True),
    (Fraction(1, 3), True), (True, False), (np.bool_(True), False), (2**63, False), (-2**63, False), (10**400, False),
    (1j, False), ('1', False), (None, False), (Decimal(1), False), (torch.tensor(1.0), False), (np.ones(1), False),
])
def test_numbers(value: Any, expected: bool) -> None:
    assert is_number(value) is expected


def test_huge_counts_are_refused_by_their_size() -> None:
    assert positive_integer('n', 2**63 - 1) == 2**63 - 1
    with pytest.raises(ArgumentError, match=r'^n: .*2\^63.*\b33220\b'):
        positive_integer('n', 10**10_000)


@pytest.mark.parametrize('value', [True, False, np.bool_(True), np.bool_(False)])
def test_flags_become_plain_booleans(value: Any) -> None:
    assert boolean('flag', value) is bool(value)


@pytest.mark.parametrize('value', ['no', 'false', '', 0, 1, 1.0, None, [], np.int64(1), torch.tensor(True),
                                   np.array([True])])
def test_refuses_what_is_no_flag(value: Any) -> None:
    with pytest.raises(ArgumentError, match='^flag: .*True or False'):
        boolean('flag', value)


def test_choices() -> None:
    assert one_of('mode', 'max', ('max', 'min')) == 'max'
    for value in ('mx', '', None, 1, ['max'], {'max'}, np.array(['max', 'min']), torch.tensor([1, 2]), b'max'):
        with pytest.raises(ArgumentError, match="^mode: .*'max', 'min'.*" + re.escape(shown(value))):
            one_of('mode', value, ('max', 'min'))


@pytest.mark.parametrize(('value', 'text'), [
    ('x', "'x'"), (None, 'None'), (0.5, '0.5'), (b'x', "b'x'"), ((0.5, ), '(0.5,)'), ({'x': 1}, "{'x': 1}"),
    (1 + 2j, '(1+2j)'), (Fraction(1, 3), 'Fraction(1, 3)'), (torch.tensor(3), 'tensor(3)'),
    (torch.zeros(3), 'an object of type Tensor'), (np.zeros(3), 'an object of type ndarray'),
    (torch.nn.Linear, 'the class Linear'), (object(), 'an object of type object'),
])
def test_values_in_messages(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize('value', ['x' * 10_000, b'x' * 10_000, list(range(10_000)), {k: k for k in range(10_000)},
                                   10**5000, torch.zeros(100_000), ['x' * 10_000] * 10_000], ids=lambda value: 'long')
def test_messages_stay_short(value: Any) -> None:
    assert len(shown(value)) <= 200 and '\n' not in shown(value)


def test_columns_of_ids() -> None:
    head, tail = torch.tensor([0, 4]), torch.tensor([1, 2], dtype=torch.int32)
    same_length_ids(head=(head, 5), tail=(tail, 3))
    for given, facts in (
        ({'head': ([0, 4], 5)}, ['head', '[0, 4]', 'torch.tensor(head)']),
        ({'head': (head.float(), 5)}, ['head', 'int64', 'torch.float32']),
        ({'head': (head.bool(), 5)}, ['head', 'torch.bool']),
        ({'head': (head.to_sparse(), 5)}, ['head', 'sparse']),
        ({'head': (head, 5), 'tail': (tail[:1], 3)}, ['tail', 'head', '(2,)', '(1,)']),
        ({'head': (head, 5), 'tail': (tail.to('meta'), 3)}, ['tail', 'head', 'cpu', 'meta']),
        ({'head': (head, 4), 'tail': (tail, 3)}, ['head', '4', 'position 1', '[0, 4)']),
        ({'head': (head, 5), 'tail': (tail - 2, 3)}, ['tail', '-1', 'position 0', '[0, 3)']),
    ):
        with pytest.raises(ArgumentError) as caught:
            same_length_ids(**given)  # type: ignore[arg-type]
        assert str(caught.value).startswith(f'{facts[0]}: ')
        assert all(fact in str(caught.value) for fact in facts), caught.value


def test_ids_of_any_shape() -> None:
    for ids in (torch.tensor(2), torch.zeros(2, 3, dtype=torch.int32), torch.empty(0, dtype=torch.int64)):
        assert ids_in('index', ids, 3) is ids
    with pytest.raises(ArgumentError, match=r'^index: 3 at position \(1, 0\) .*\[0, 3\)'):
        ids_in('index', torch.tensor([[0, 1], [3, 9]]), 3)
    for value in (None, [1], torch.rand(2), torch.tensor(1).to(torch.uint8)):
        with pytest.raises(ArgumentError, match='^index: .*int64'):
            ids_in('index', value, 3)


def test_ids_are_not_looked_at_while_code_is_compiled() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, 'is_compiling', lambda: True)
        ids_below('i', torch.tensor([9]), 5)


def test_operands() -> None:
    tensors(x=torch.zeros(2), y=None, optional=('y', ))
    for name, value, fact in (('x', None, 'None'), ('x', [1.0], '[1.0]'), ('x', np.zeros(2), 'ndarray'),
                              ('x', torch.eye(2).to_sparse(), 'sparse'), ('y', 'no', "'no'")):
        with pytest.raises(ArgumentError, match=f'^{name}: .*{re.escape(fact)}'):
            tensors(**{'x': torch.zeros(2), 'y': None, name: value}, optional=('y', ))


def test_objects_of_a_class() -> None:
    layer = torch.nn.Linear(2, 2)
    assert instance('layer', layer, torch.nn.Module) is layer
    for value in (None, torch.nn.Linear, 'Linear'):
        with pytest.raises(ArgumentError, match='^layer: .*Module, such as Linear.*' + re.escape(shown(value))):
            instance('layer', value, torch.nn.Module, 'such as Linear(2, 2)')


@pytest.mark.parametrize('value', ['runs/x', Path('runs/x'), '.'])
def test_paths_pass_as_they_came(value: Any) -> None:
    assert file_path('path', value) is value


@pytest.mark.parametrize('value', ['', None, b'x', 5, 1.5, ['x'], Path])
def test_refuses_what_is_no_path(value: Any) -> None:
    with pytest.raises(ArgumentError, match='^path: .*' + re.escape(shown(value))):
        file_path('path', value)


def test_arguments_without_effect_are_refused() -> None:
    without_effect('facts', split=None, seed=None)
    with pytest.raises(ArgumentError, match='seed: .*None with facts.* 0;'):
        without_effect('facts', split=None, seed=0)
    for table in (np.arange(3), torch.arange(3), pd.DataFrame({'head': ['a']})):
        with pytest.raises(ArgumentError, match='known_facts: .*None with facts'):
            without_effect('facts', known_facts=table)


def test_arguments_that_equal_their_defaults_count_as_not_given() -> None:
    def draw(walks: int = 1000, seed: int = 0) -> None:
        pass

    without_effect("mode='khop'", draw, walks=1000, seed=0)
    with pytest.raises(ArgumentError, match="walks: .*1000 with mode='khop'.* 5;"):
        without_effect("mode='khop'", draw, walks=5, seed=0)
