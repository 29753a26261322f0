from __future__ import annotations

import math

import torch

from pyg_emu.core.complex_rows import conjugate, multiply, unit


def rows(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values.real, values.imag], dim=-1)


def test_agrees_with_complex_numbers() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 5, 3, dtype=torch.complex128)
    torch.testing.assert_close(multiply(rows(left), rows(right)), rows(left * right))
    torch.testing.assert_close(conjugate(rows(left)), rows(left.conj().resolve_conj()))
    torch.testing.assert_close(unit(torch.tensor([0.0, math.pi / 2])), torch.tensor([1.0, 0.0, 0.0, 1.0]))
