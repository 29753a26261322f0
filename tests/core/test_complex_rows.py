from __future__ import annotations

import math

import torch

from pyg_emu.core.complex_rows import conjugate, modulus, multiply, unit


def rows(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values.real, values.imag], dim=-1)


def test_agrees_with_complex_numbers() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 5, 3, dtype=torch.complex128)
    torch.testing.assert_close(multiply(rows(left), rows(right)), rows(left * right))
    torch.testing.assert_close(conjugate(rows(left)), rows(left.conj().resolve_conj()))
    torch.testing.assert_close(unit(torch.tensor([0.0, math.pi / 2])), torch.tensor([1.0, 0.0, 0.0, 1.0]))


def test_moduli_and_their_gradient_at_zero() -> None:
    torch.manual_seed(0)
    values = torch.randn(5, 3, dtype=torch.complex128)
    values[0, 1], values[1, 2] = 0, 2j
    given = rows(values).requires_grad_()
    torch.testing.assert_close(modulus(given), values.abs())
    modulus(given).sum().backward()
    torch.testing.assert_close(given.grad, rows(values / values.abs().clamp_min(1e-300)))
    assert torch.autograd.gradcheck(modulus, torch.randn(4, 6, dtype=torch.float64, requires_grad=True))
