from __future__ import annotations

import torch

from pyg_emu.models import RotatE


def test_by_hand() -> None:
    model = RotatE(2, 1, 2, margin=2.0).double()
    with torch.no_grad():  # Rows are [re, re, im, im].
        model.node_emb.weight.copy_(torch.tensor([[1.0, 3.0, 2.0, 0.0], [1.0, 0.0, 5.0, -4.0]]))
        # The initial bound is (2 + 2) / 2 = 2, so 2 is half a turn and 1 is a quarter turn.
        model.rel_emb.weight.copy_(torch.tensor([[1.0, 2.0]]))
    # h = (1 + 2i, 3) is rotated to (-2 + i, -3), and t = (1 + 5i, -4i): |-3 - 4i| + |-3 + 4i| = 10.
    # t is rotated to (-5 + i, 4i): |-6 - i| + |-3 + 4i| = sqrt(37) + 5.
    score = model(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([1, 0]))
    torch.testing.assert_close(score, torch.tensor([2.0 - 10.0, 2.0 - 37.0**0.5 - 5.0], dtype=torch.double))
