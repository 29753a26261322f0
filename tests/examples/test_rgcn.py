from __future__ import annotations

import pytest
import torch

from examples import rgcn
from pyg_emu import EMULoss, EMUNegatives, KGData, L3Regularizer, TripletLoader, evaluate
from pyg_emu.core.errors import ArgumentError


def make_graph() -> KGData:
    generator = torch.Generator().manual_seed(0)
    edges, types = torch.randint(9, (2, 40), generator=generator), torch.randint(2, (40, ), generator=generator)
    return KGData(edges, types, 9, 2).with_inverse_relations()


def test_gradient_reaches_the_encoder_and_loss_falls() -> None:
    torch.manual_seed(0)
    graph = make_graph()
    model = rgcn.RGCN(9, 2, 16)
    loader = TripletLoader(graph, batch_size=40, transform=EMUNegatives(num_negatives=8))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses, before = [], evaluate(model(graph), graph, split='train')['mrr']
    for _ in range(60):
        for batch in loader:
            optimizer.zero_grad()
            loss = EMULoss()(model(graph), batch)
            loss.backward()
            assert all(value.grad is not None for value in model.parameters())
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5])
    assert evaluate(model(graph), graph, split='train')['mrr'] > before + 0.1


def test_says_what_a_regularizer_needs() -> None:
    graph = make_graph()
    batch = next(iter(TripletLoader(graph, 40, transform=EMUNegatives(8))))
    with pytest.raises(ArgumentError, match=r'^model: Decoder .*embedding_weights\(\)'):
        EMULoss(regularizer=L3Regularizer(1e-3))(rgcn.RGCN(9, 2, 16)(graph), batch)
