from __future__ import annotations

import torch

from pyg_emu.models import ComplEx


def test_by_hand() -> None:
    model = ComplEx(2, 1, 2)
    with torch.no_grad():  # Rows are [re, re, im, im].
        model.node_emb.weight.copy_(torch.tensor([[1.0, 0.0, 2.0, -1.0], [1.0, 2.0, 1.0, -2.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[2.0, 3.0, -1.0, 0.0]]))
    # h = (1 + 2i, -i), r = (2 - i, 3), h * r = (4 + 3i, -3i).
    # t = (1 + i, 2 - 2i): Re((4 + 3i) (1 - i)) + Re(-3i (2 + 2i)) = 7 + 6.
    # Head query: t * r = (3 + i, 6 - 6i): Re((3 + i) (1 - 2i)) + Re((6 - 6i) i) = 5 + 6.
    score = model(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([1, 0]))
    assert score.tolist() == [13.0, 11.0]
