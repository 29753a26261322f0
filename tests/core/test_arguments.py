from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from pyg_emu.core.arguments import (
    ids_below,
    kind_of,
    non_negative,
    non_negative_integer,
    on_device,
    penalty,
    positive_integer,
    random_seed,
    share,
)
from pyg_emu.core.errors import ArgumentError


@pytest.mark.parametrize('value', [1, 7, np.int64(3)])
def test_counts_pass_as_they_came(value: Any) -> None:
    assert positive_integer('n', value) is value


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
