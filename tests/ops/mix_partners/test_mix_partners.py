r"""Partners of negatives: a case by hand, both backends, what a partner may be."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_emu.ops import last_backend
from pyg_emu.ops.mix_partners import PartnerPools, mix_partners

BACKENDS = ('torch', 'numba')


def word(share: float, low: int = 0) -> int:
    r"""Random bits whose upper half is this share of all values."""
    return ((int(share * 2**32) - 2**31) << 32) + low


@pytest.mark.parametrize('backend', BACKENDS)
def test_by_hand(backend: str) -> None:
    index = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]])
    pooled = torch.tensor([[True, False, False, False], [False, True, False, False], [True, False, False, False]])
    kept = torch.tensor([[True, True, False, True], [True, True, False, False], [True, True, True, True]])
    words = torch.tensor([[word(0.5), word(0.99), word(0.5), word(0.0)], [word(0.0), word(0.99), 0, 0],
                          [word(0.0), word(0.34), word(0.34), word(0.99)]])
    weight = torch.tensor([[0.6, 0.7, 0.8, 0.9], [0.6, 0.7, 0.8, 0.9], [0.6, 0.7, 0.8, 0.9]])
    # The second triple leaves out the first of its pool; that of the third is empty.
    pools = PartnerPools(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 3, 5]), torch.tensor([3, 1, 0]),
                         torch.tensor([-1, 0, -1]))
    plan = mix_partners(index, pooled, kept, words, weight, pools, backend)
    assert last_backend('mix_partners') == backend
    assert plan.partner is not None and plan.label is not None
    assert plan.partner.tolist() == [[2, 13, 12, 11], [20, 5, 22, 23], [31, 32, 31, 32]]
    assert plan.slot is not None and plan.slot.tolist() == [[-1, 3, 2, 1], [0, -1, 2, 3], [1, 2, 1, 2]]
    assert torch.equal(plan.weight, torch.tensor([[0.6, 0.7, 1.0, 0.9], [1.0, 0.7, 1.0, 1.0], [0.6, 0.7, 0.8, 0.9]]))
    assert torch.allclose(plan.label, torch.tensor([[0.4, 0, 0, 0], [0, 0.3, 0, 0], [0, 0, 0, 0]]))
    # Operands stay as they were.
    assert weight[0, 2].item() == pytest.approx(0.8) and words[0, 3].item() == word(0.0)


def operands(seed: int, rows: int, columns: int, dtype: torch.dtype,
             masked: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, columns)
    index = torch.randint(1000, 2000, shape, generator=generator)
    words = torch.empty(shape, dtype=torch.int64).random_(-2**63, None, generator=generator)
    kept = torch.rand(shape, generator=generator) < 0.7 if masked else None
    pooled = torch.rand(shape, generator=generator) < torch.rand(rows, 1, generator=generator)
    return index, pooled if kept is None else pooled & kept, kept, words, torch.rand(shape, dtype=dtype,
                                                                                    generator=generator)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('rows, columns', [(0, 3), (1, 1), (7, 1), (5, 2), (33, 17), (4, 300)])
def test_backends_agree(rows: int, columns: int, masked: bool, dtype: torch.dtype) -> None:
    for seed in range(3):
        given = operands(seed, rows, columns, dtype, masked)
        size = torch.arange(rows) % 4
        first = size.cumsum(0) - size
        # Some pools leave one of their entities out, which is then not counted.
        left_out = torch.where(torch.arange(rows) % 3 == 0, (torch.arange(rows) % 2).clamp(max=size - 1), -1)
        for pools in (PartnerPools(torch.arange(int(size.sum())), first, size),
                      PartnerPools(torch.arange(int(size.sum())), first, size - (left_out >= 0).long(), left_out)):
            ours, reference = (mix_partners(*given, pools, backend) for backend in ('numba', 'torch'))
            assert all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(ours, reference))


@pytest.mark.parametrize('backend', BACKENDS)
def test_partners_are_uniform_and_never_the_negative_itself(backend: str) -> None:
    index = torch.arange(4).expand(20_000, 4)
    _, _, _, words, weight = operands(0, 20_000, 4, torch.float32, False)
    none = torch.empty(0, dtype=torch.int64)
    zero = torch.zeros(20_000, dtype=torch.int64)
    pooled = torch.zeros(20_000, 4, dtype=torch.bool)
    partner = mix_partners(index, pooled, None, words, weight, PartnerPools(none, zero, zero), backend).partner
    assert partner is not None
    share = torch.stack([(partner == value).double().mean(0) for value in range(4)])
    expected = (1 - torch.eye(4, dtype=torch.float64)) / 3
    assert torch.allclose(share, expected, atol=0.02) and torch.equal(share.diag(), torch.zeros(4).double())


def test_half_precision_is_computed_by_the_reference() -> None:
    given = operands(0, 3, 4, torch.bfloat16, False)
    pools = PartnerPools(torch.arange(3), torch.arange(3), torch.ones(3, dtype=torch.int64))
    assert mix_partners(*given, pools).weight.dtype == torch.bfloat16 and last_backend('mix_partners') == 'torch'
