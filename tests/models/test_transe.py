from __future__ import annotations

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.models import TransE


@pytest.mark.parametrize('p_norm, expected', [
    (1, [4 - 2.5, 4 - 5.5]),
    (2, [4 - 4.25**0.5, 4 - 25.25**0.5]),
])
def test_by_hand(p_norm: int, expected: list[float]) -> None:
    model = TransE(3, 1, 2, margin=4.0, p_norm=p_norm).double()
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[1.0, 2.0], [2.0, 3.0], [1.0, -4.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[0.5, -1.0]]))
    # (0, 0, 1): [1, 2] + [0.5, -1] - [2, 3] = [-0.5, -2]; (0, 0, 2): ... - [1, -4] = [0.5, 5].
    score = model(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([1, 2]))
    torch.testing.assert_close(score, torch.tensor(expected, dtype=torch.double))


def test_refuses_other_norms() -> None:
    with pytest.raises(ArgumentError, match=r'^p_norm: .*\b1\b.*\b2\b.*\b3\b'):
        TransE(3, 1, 2, p_norm=3)
