from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyg_emu.arguments import non_negative, positive_integer, share
from pyg_emu.errors import ArgumentError


@pytest.mark.parametrize('value', [1, 7, np.int64(3)])
def test_counts_pass_as_they_came(value: Any) -> None:
    assert positive_integer('n', value) is value


@pytest.mark.parametrize('value', [0, -3, 1.5, 2.0, '4', None, True, torch.tensor(3)])
def test_refuses_what_is_no_count(value: Any) -> None:
    with pytest.raises(ArgumentError, match='^n: expected an integer of at least 1, got '):
        positive_integer('n', value)


@pytest.mark.parametrize('value', [0, 0.0, 0.5, 3, np.float32(0.25)])
def test_weights_pass_as_they_came(value: Any) -> None:
    assert non_negative('w', value) is value


@pytest.mark.parametrize('value', [-1, -1e-9, float('nan'), float('inf'), 'x', None, False, 1j, torch.tensor(0.5)])
def test_refuses_what_is_no_weight(value: Any) -> None:
    with pytest.raises(ArgumentError, match='^w: expected a finite number >= 0, got '):
        non_negative('w', value)


@pytest.mark.parametrize('value', [0, 0.3, 1, np.float32(0.5)])
def test_shares_pass_as_they_came(value: Any) -> None:
    assert share('s', value) is value


@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan'), 'x', None, True])
def test_refuses_what_is_no_share(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r'^s: expected a number in \[0, 1\], got '):
        share('s', value)
