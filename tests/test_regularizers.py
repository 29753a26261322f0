from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import kge

from pyg_emu.adapters import as_scorer
from pyg_emu.errors import ArgumentError
from pyg_emu.models import DistMult, RotatE
from pyg_emu.regularizers import L3Regularizer, LpRegularizer


def test_by_hand() -> None:
    model = DistMult(2, 1, 2)
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[-1.0, 2.0]]))
    penalty = L3Regularizer(0.5)(model)
    assert float(penalty.detach()) == 0.5 * (1 + 8 + 27 + 1 + 8)
    penalty.backward()
    assert model.node_emb.weight.grad.tolist() == [[1.5, -6.0], [0.0, 13.5]]
    assert model.rel_emb.weight.grad.tolist() == [[-1.5, 6.0]]


@pytest.mark.parametrize('p', [1.0, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize('make', [DistMult, RotatE, kge.ComplEx])
def test_against_the_formula(p: float, make: Any) -> None:
    torch.manual_seed(0)
    model = make(5, 3, 4).double()
    scorer, weights = as_scorer(model), list(model.parameters())
    expected = 0.1 * sum(weight.abs().pow(p).sum() for weight in weights)
    actual = LpRegularizer(p, 0.1)(scorer)
    torch.testing.assert_close(actual, expected)
    for left, right in zip(torch.autograd.grad(actual, weights), torch.autograd.grad(expected, weights)):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize('p', [2.0, 2.5, 3.0])
def test_gradcheck(p: float) -> None:
    torch.manual_seed(0)
    model = DistMult(3, 2, 2).double()

    def penalty(*weights: torch.Tensor) -> torch.Tensor:
        class Tables:
            def embedding_weights(self) -> Any:
                return iter(weights)
        return LpRegularizer(p, 2.0)(Tables())  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(penalty, tuple(model.embedding_weights()))


def test_refuses() -> None:
    for p in (0.5, float('nan'), float('inf')):
        with pytest.raises(ArgumentError, match='p: '):
            LpRegularizer(p, 0.1)
    for weight in (-1.0, float('nan')):
        with pytest.raises(ArgumentError, match='weight: '):
            L3Regularizer(weight)
    assert str(L3Regularizer(1e-5)) == 'L3Regularizer(weight=1e-05)'
