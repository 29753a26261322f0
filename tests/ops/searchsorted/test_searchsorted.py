r"""Binary search: both backends, edge cases of 64 bits, threads, types, forked processes."""
from __future__ import annotations

import multiprocessing
import multiprocessing.connection

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.core.errors import BackendError
from pyg_emu.ops import last_backend
from pyg_emu.ops.searchsorted import searchsorted

LOW, HIGH = -2**63, 2**63 - 1


def _random(size: int, bound: int, seed: int) -> Tensor:
    return torch.randint(bound, (size, ), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('right', [False, True])
@pytest.mark.parametrize('size', [0, 1, 2, 3, 4, 5, 31, 32, 33, 1000])
def test_equals_the_reference(size: int, right: bool) -> None:
    # More values than a block, and not a multiple of one; many of them equal entries, which repeat.
    keys, values = _random(size, 2 * size + 1, 0).sort().values, _random(1301, 2 * size + 3, 1) - 1
    found = searchsorted(keys, values, right, backend='numba')
    assert last_backend('searchsorted') == 'numba'
    assert found.dtype == torch.int64 and torch.equal(found, torch.searchsorted(keys, values, right=right))
    assert torch.equal(found, searchsorted(keys, values, right, backend='torch'))
    assert last_backend('searchsorted') == 'torch'


@given(st.lists(st.integers(LOW, HIGH), max_size=40), st.lists(st.integers(LOW, HIGH), max_size=40), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_integers(entries: list[int], values: list[int], right: bool) -> None:
    keys = torch.tensor(sorted(entries), dtype=torch.int64)
    wanted = torch.tensor(values + entries + [LOW, HIGH], dtype=torch.int64)
    found = searchsorted(keys, wanted, right, backend='numba')
    assert torch.equal(found, torch.searchsorted(keys, wanted, right=right))


@pytest.mark.parametrize('shape', [(), (0, 3), (7, 5), (3, 1, 600)])
def test_shapes(shape: tuple[int, ...]) -> None:
    keys = torch.arange(0, 100, 3)
    values = torch.randint(100, shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(searchsorted(keys, values, backend='numba'), torch.searchsorted(keys, values))


def test_strided_operands() -> None:
    keys, values = torch.arange(0, 4000, 2)[::2], torch.arange(6000).view(60, 100).t()
    expected = torch.searchsorted(keys.contiguous(), values.contiguous())
    assert torch.equal(searchsorted(keys, values, backend='numba'), expected)


def test_threads_change_nothing() -> None:
    keys, values = _random(5000, 10**6, 0).sort().values, _random(20_000, 10**6, 1)
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            assert torch.equal(searchsorted(keys, values, backend='numba'), torch.searchsorted(keys, values))
    finally:
        torch.set_num_threads(before)


def test_many_values_take_the_kernel_and_few_do_not() -> None:
    keys = torch.arange(100)
    searchsorted(keys, keys, backend='torch')
    searchsorted(keys, torch.arange(4095))
    assert last_backend('searchsorted') == 'torch'
    searchsorted(keys, torch.arange(5000))
    assert last_backend('searchsorted') == 'numba'


@pytest.mark.parametrize('dtype', [torch.int32, torch.float32, torch.float64])
def test_other_types_are_left_to_pytorch(dtype: torch.dtype) -> None:
    keys, values = torch.arange(100).to(dtype), _random(5000, 100, 0).to(dtype)
    assert torch.equal(searchsorted(keys, values), torch.searchsorted(keys, values))
    assert last_backend('searchsorted') == 'torch'
    with pytest.raises(BackendError, match=str(dtype)):
        searchsorted(keys, values, backend='numba')


def test_inside_inference_mode() -> None:
    with torch.inference_mode():
        keys = torch.arange(100)
        assert torch.equal(searchsorted(keys, keys, right=True, backend='numba'), keys + 1)


def _search_in_child(ends: multiprocessing.connection.Connection) -> None:
    keys = torch.arange(0, 10_000, 2)
    ends.send(torch.equal(searchsorted(keys, torch.arange(8000)), torch.arange(1, 8001) // 2))


@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='no fork')
@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork.*:DeprecationWarning')
def test_after_a_fork() -> None:
    before = torch.get_num_threads()
    try:
        # Kernels on several threads have run, and these threads do not exist in the child.
        torch.set_num_threads(2)
        searchsorted(torch.arange(100), torch.arange(10_000))
        context = multiprocessing.get_context('fork')
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_search_in_child, args=(sender, ))
        child.start()
    finally:
        torch.set_num_threads(before)
    assert receiver.poll(60) and receiver.recv()
    child.join(60)
    assert child.exitcode == 0
