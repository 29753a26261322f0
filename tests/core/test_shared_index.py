from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.shared_index import SharedIndex, expanded


def test_expand_by_hand() -> None:
    index = torch.tensor([[4, 5], [6, 7]])
    # Three rows use the first set and two the second; without the first row of the chunk, two and three.
    assert SharedIndex(index, 3, 5).expand().tolist() == [[4, 5], [4, 5], [4, 5], [6, 7], [6, 7]]
    part = SharedIndex(index, 3, 5, skipped=1)
    assert part.expand().tolist() == [[4, 5], [4, 5], [6, 7], [6, 7], [6, 7]]
    assert part.shape == (5, 2) and part.per_row(torch.tensor([True, False])).tolist() == [True] * 2 + [False] * 3
    assert expanded(part).equal(part.expand()) and expanded(index) is index


@pytest.mark.parametrize('chunk_size', [1, 2, 3, 5, 6, 7, 2**62])
@pytest.mark.parametrize('size', [0, 1, 6, 7])
def test_parts_read_the_same_ids(size: int, chunk_size: int) -> None:
    index = torch.arange(-(-size // chunk_size)).unsqueeze(1).expand(-1, 2)
    whole = SharedIndex(index, chunk_size, size)
    whole.check('whole')
    assert whole.shape == (size, 2)
    for start in range(size + 1):
        for stop in range(start, size + 1):
            part = whole.rows(slice(start, stop))
            part.check('part')
            assert part.expand().equal(whole.expand()[start:stop])
            inner = part.rows(slice(1, None))  # of a part whose first chunk is not whole
            inner.check('inner')
            assert inner.expand().equal(whole.expand()[start:stop][1:])


@pytest.mark.parametrize('change, facts', [
    ({'index': [[0]]}, ['x.index', 'int64', '[[0]]']),
    ({'index': torch.zeros(2, 3)}, ['x.index', 'int64', 'torch.float32']),
    ({'index': torch.zeros(2, dtype=torch.int64)}, ['x.index', '(2,)']),
    ({'index': torch.zeros(3, 3, dtype=torch.int64)}, ['x.index', 'expected 2', 'size=4', 'chunk_size=2', 'got 3']),
    ({'size': 5}, ['x.index', 'expected 3', 'got 2']),
    ({'skipped': 1}, ['x.index', 'expected 3', 'skipped=1']),
    ({'chunk_size': 0}, ['x.chunk_size', 'got 0']),
    ({'size': -1}, ['x.size', 'got -1']),
    ({'size': 4.0}, ['x.size', '4.0']),
    ({'skipped': 2}, ['x.skipped', '[0, 2)', 'got 2']),
    ({'skipped': True}, ['x.skipped', 'True']),
])
def test_fields_that_do_not_fit(change: dict[str, Any], facts: list[str]) -> None:
    shared = SharedIndex(torch.zeros(2, 3, dtype=torch.int64), 2, 4)
    shared.check('x')
    with pytest.raises(ArgumentError) as error:
        shared._replace(**change).check('x')
    assert all(fact in str(error.value) for fact in facts), str(error.value)
