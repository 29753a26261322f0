r"""Random bits: known outputs, both backends, shapes, the stream, uniformity."""
from __future__ import annotations

import pytest
import torch

from pyg_emu.ops import last_backend
from pyg_emu.ops.random_words import numba, random_words
from pyg_emu.ops.random_words import torch as reference

BACKENDS = ('torch', 'numba')


@pytest.mark.parametrize('module', [reference, numba])
def test_known_outputs_of_splitmix64(module: object) -> None:
    words = torch.empty(5, dtype=torch.int64)
    module.fill(words, 1234567)  # type: ignore[attr-defined]
    assert [word % 2**64 for word in words.tolist()] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]


@pytest.mark.parametrize('size', [(), (0, 3), (1, ), (7, 5), (3, 257), (100_003, )])
def test_backends_agree(size: tuple[int, ...]) -> None:
    for seed in range(3):
        found = []
        for backend in BACKENDS:
            generator = torch.Generator().manual_seed(seed)
            found.append(random_words(size, generator, backend=backend))
            assert last_backend('random_words') == backend
            # The next words are others.
            again = random_words(size, generator, backend=backend)
            assert again.numel() == 0 or not torch.equal(again, found[-1])
        assert found[0].shape == size and found[0].dtype == torch.int64 and torch.equal(*found)


def test_global_stream_continues() -> None:
    torch.manual_seed(3)
    first = random_words((4, ))
    second = random_words((4, ))
    torch.manual_seed(3)
    assert torch.equal(random_words((4, )), first) and torch.equal(random_words((4, )), second)


def test_threads_change_no_bit() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            found.append(random_words((10_001, ), torch.Generator().manual_seed(0), backend='numba'))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_every_bit_is_fair_and_independent_of_its_neighbours() -> None:
    words = random_words((100_000, ), torch.Generator().manual_seed(1))
    bits = torch.stack([(words >> place) & 1 for place in range(64)], 1).double() - 0.5
    # Five standard deviations of a mean of 100,000 fair bits.
    limit = 5 * 0.5 / 100_000**0.5
    assert bits.mean(0).abs().max() < limit
    # Of products of two bits, one word apart and within a word.
    assert (4 * bits[1:].T @ bits[:-1] / len(bits)).abs().max() < 4 * limit
    assert ((4 * bits.T @ bits / len(bits)) - torch.eye(64)).abs().max() < 4 * limit


def test_beside_triton_kernels() -> None:
    pytest.importorskip('triton')
    if torch.cuda.is_available():
        assert random_words((3, 4), torch.Generator('cuda'), 'cuda', backend='triton').is_cuda
        return
    found = [random_words((3, 4), torch.Generator().manual_seed(0), backend=name) for name in ('triton', 'torch')]
    assert torch.equal(*found)
