from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import kge

from pyg_emu.core.errors import ArgumentError
from pyg_emu.models import HAKE, ComplEx, DistMult, Reciprocal, TransE


def test_heads_are_tails_of_the_inverse_relation() -> None:
    inner = DistMult(2, 2, 2)
    with torch.no_grad():
        inner.node_emb.weight.copy_(torch.tensor([[1.0, 2.0], [2.0, 5.0]]))
        inner.rel_emb.weight.copy_(torch.tensor([[3.0, -1.0], [10.0, 1.0]]))
    model = Reciprocal(inner)
    assert model.num_relations == 1
    known, relation = torch.tensor([1]), torch.tensor([0])
    # (?, 0, 1) is (1, 1, ?): [2, 5] * [10, 1] = [20, 5] against [1, 2] and [2, 5].
    assert model.score_all(model.query(known, relation, 'head')).tolist() == [[30.0, 65.0]]
    assert model.score_all(model.query(known, relation, 'tail')).tolist() == [[-4.0, -13.0]]


@pytest.mark.parametrize('cls', [ComplEx, HAKE, TransE])
def test_is_scored_as_the_wrapped_model(cls: Any) -> None:
    inner = cls(4, 6, 2, sparse=True)
    model = Reciprocal(inner)
    for name in ('interaction', 'offset', 'sparse', 'complex_rows', 'num_nodes'):
        assert getattr(model, name) == getattr(inner, name)
    head, relation, tail = torch.tensor([[0, 3], [2, 0], [1, 2]])
    assert model(head, relation, tail).equal(inner(head, relation, tail))


def test_resets_the_wrapped_model() -> None:
    model = Reciprocal(DistMult(3, 2, 2))
    before = model.entity_table().clone()
    model.reset_parameters()
    assert not torch.equal(before, model.entity_table())
    drawn = []
    for reset in (model.reset_parameters, model.model.reset_parameters):
        reset(generator=torch.Generator().manual_seed(7))
        drawn.append(model.entity_table().clone())
    assert torch.equal(*drawn)


def test_refuses() -> None:
    with pytest.raises(ArgumentError, match='^model: .*num_relations=3'):
        Reciprocal(DistMult(4, 3, 2))
    with pytest.raises(ArgumentError, match='^model: .*Scorer.*RotatE'):
        Reciprocal(kge.RotatE(4, 4, 2))
