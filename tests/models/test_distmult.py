from __future__ import annotations

import torch

from pyg_emu.models import DistMult


def test_by_hand() -> None:
    model = DistMult(2, 1, 2)
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[1.0, 2.0], [2.0, 5.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[3.0, -1.0]]))
    # (0, 0, 1): 1 * 3 * 2 - 2 * 1 * 5 = -4; (0, 0, 0): 1 * 3 * 1 - 2 * 1 * 2 = -1.
    score = model(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([1, 0]))
    assert score.tolist() == [-4.0, -1.0]
