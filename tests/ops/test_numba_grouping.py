r"""Slots by entity: sorted, stable, cut into pieces, and the same whichever way is taken."""
from __future__ import annotations

import numpy as np
import pytest

from pyg_emu.ops import numba_grouping as grouping
from pyg_emu.ops.numba_runtime import parallel_section


@pytest.mark.parametrize('small', [0, 1 << 16], ids=['parallel', 'serial'])
@pytest.mark.parametrize(('size', 'num_ids'), [(1, 1), (5, 3), (127, 40), (129, 5000), (3000, 100_000), (3000, 2**23)])
def test_groups_are_those_of_a_stable_sort(size: int, num_ids: int, small: int,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, '_SMALL', small)
    ids = np.random.default_rng(0).integers(num_ids, size=size)
    with parallel_section():
        groups = grouping.group(ids, num_ids)
        expected = np.argsort(ids, kind='stable')
        assert (groups.order & np.uint64(2**32 - 1)).tolist() == expected.tolist()
        assert (groups.order >> np.uint64(32)).tolist() == ids[expected].tolist()
    assert groups.num_groups == np.unique(ids).size
    begins = np.flatnonzero(np.diff(ids[expected], prepend=-1))
    assert groups.first.tolist() == [int((begins < piece * groups.piece).sum()) for piece in range(groups.first.size)]
