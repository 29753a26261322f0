r"""Entries of a vector equal those of advanced indexing."""
from __future__ import annotations

import pytest
import torch

from pyg_emu.core.entries import entries


@pytest.mark.parametrize('shape', [(), (0, ), (5, ), (2, 0, 3), (4, 7)])
@pytest.mark.parametrize('dtype', [torch.int32, torch.int64, torch.float64, torch.bool])
def test_equals_indexing(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.arange(11).to(dtype)
    index = torch.randint(11, shape, generator=torch.Generator().manual_seed(0))
    found = entries(values, index)
    assert found.dtype == dtype and torch.equal(found, values[index])


def test_index_may_be_strided() -> None:
    index = torch.arange(12).view(3, 4).t()
    assert torch.equal(entries(torch.arange(12) * 2, index), index * 2)
