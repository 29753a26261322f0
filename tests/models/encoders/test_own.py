from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch_geometric.nn import GCN
from torch_geometric.nn.models import LightGCN

from pyg_emu import EMULoss, EMUNegatives, GNNEncoder, KGData, L3Regularizer, TripletLoader, evaluate, predict
from pyg_emu.core.errors import ArgumentError


def make(num_relations: int = 1) -> KGData:
    generator = torch.Generator().manual_seed(0)
    types = torch.randint(num_relations, (30, ), generator=generator)
    edges = torch.randint(8, (2, 30), generator=generator)
    return KGData(edges, types, 8, num_relations, test_edge_index=edges[:, :3], test_edge_type=types[:3],
                  x=torch.rand(8, 3, generator=generator))


def lightgcn() -> GNNEncoder:
    torch.manual_seed(0)
    return GNNEncoder(LightGCN(8, 4, 2), 8, encode=lambda gnn, graph: gnn.get_embedding(graph.edge_index))


def test_scores_are_products_of_encoded_vectors() -> None:
    data, model = make(), lightgcn().eval()
    rows = model.encoder.get_embedding(data.edge_index)
    scorer = model.for_graph(data)
    known, relation = torch.tensor([0, 5]), torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(scorer.score_all(scorer.query(known, relation, 'head')), rows[known] @ rows.t())
    torch.testing.assert_close(model(data, known, relation, torch.tensor([3, 3])), (rows[known] * rows[3]).sum(1))
    assert evaluate(model, data)['mrr'] == evaluate(scorer, data)['mrr'] and len(predict(model, data, heads=1,
                                                                                         relations=0, k=2)) == 2


def test_relations_have_vectors() -> None:
    data = make(3)
    model = GNNEncoder(GCN(3, 4, 2), 8, 3, hidden_channels=4)
    rows = model.encoder(data.x, data.edge_index)
    known, relation = torch.tensor([0, 5]), torch.tensor([2, 1])
    scorer = model.for_graph(data)
    expected = (rows[known] * model.relations[relation]) @ rows.t()  # type: ignore[index]
    torch.testing.assert_close(scorer.score_all(scorer.query(known, relation, 'tail')), expected)
    with pytest.raises(ArgumentError, match='hidden_channels: .* 3 '):
        GNNEncoder(GCN(3, 4, 2), 8, 3)
    with pytest.raises(ArgumentError, match=r'encode: .*\(8, 5\).*\(8, 4\)'):
        GNNEncoder(GCN(3, 4, 2), 8, 3, hidden_channels=5).for_graph(data)
    with pytest.raises(ArgumentError, match=r'^encode: .*\(8, 5\).*\(8, 4\)'):
        GNNEncoder(GCN(3, 4, 2), 8, hidden_channels=5).for_graph(make(1))


def test_step_encodes_once_and_gradients_reach_the_network() -> None:
    data, calls = make(), []

    def encode(gnn: Any, graph: KGData) -> torch.Tensor:
        calls.append(graph is data)
        found: torch.Tensor = gnn(graph.x, graph.edge_index)
        return found

    torch.manual_seed(0)
    model = GNNEncoder(GCN(3, 4, 2), 8, encode=encode)
    loader = TripletLoader(data, 10, transform=EMUNegatives(4))
    criterion = EMULoss()
    for number, batch in enumerate(loader, start=1):
        assert model.for_batch(batch) is model.for_batch(batch) and len(calls) == number
        criterion(model, batch).backward()
        assert len(calls) == number and all(calls)
    assert all(value.grad is not None for value in model.parameters())
    assert all(float(layer.lin.weight.grad.abs().sum()) > 0 for layer in model.encoder.convs)
    assert copy.deepcopy(model).for_graph(data) is not None
    criterion = EMULoss(regularizer=L3Regularizer(1e-3))
    assert criterion(lightgcn(), batch).requires_grad


def test_wrong_use() -> None:
    with pytest.raises(ArgumentError, match='^encoder: '):
        GNNEncoder(3, 8)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='^encode: '):
        GNNEncoder(GCN(3, 4, 2), 8, encode=3)  # type: ignore[arg-type]
    model, data = GNNEncoder(GCN(3, 4, 2), 8), make()
    with pytest.raises(ArgumentError, match='model: GNNEncoder .*for_graph'):
        model.entity_table()
    with pytest.raises(ArgumentError, match='num_nodes=9.* 8 '):
        GNNEncoder(GCN(3, 4, 2), 9).for_graph(data)
    del data.x
    with pytest.raises(ArgumentError, match='encode: .*keep='):
        model.for_graph(data)
