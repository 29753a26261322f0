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


def test_a_query_that_depends_on_the_side_is_computed_for_both() -> None:
    class Sided(DistMult):
        def _query(self, known: torch.Tensor, rel_type: torch.Tensor, side: str) -> torch.Tensor:  # type: ignore[override]
            query = super()._query(known, rel_type, 'tail')
            return query if side == 'tail' else -query

    assert DistMult.symmetric and not Sided.symmetric
    model, known = Sided(4, 2, 3), torch.tensor([0, 1, 2])
    rel_type, side = torch.tensor([0, 1, 0]), torch.tensor([True, False, True])
    expected = DistMult.query(model, known, rel_type, 'tail') * torch.tensor([[1.0], [-1.0], [1.0]])
    torch.testing.assert_close(model.query(known, rel_type, side), expected)
