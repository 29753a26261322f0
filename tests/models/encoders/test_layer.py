from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import FastRGCNConv, RGCNConv

from pyg_emu import KGData
from pyg_emu.core.errors import ArgumentError
from pyg_emu.models.encoders import MessageGraph, RGCNLayer


@pytest.mark.parametrize('peer', [RGCNConv, FastRGCNConv])
@pytest.mark.parametrize('options', [
    {'num_bases': 3}, {'num_blocks': 2}, {}, {'num_bases': 2, 'root_weight': False, 'bias': False}], ids=str)
def test_values_and_gradients_are_those_of_pyg(peer: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    # With duplicates, loops, and nodes without a neighbour.
    edge_index, edge_type = torch.randint(20, (2, 200)), torch.randint(5, (200, ))
    theirs, ours = peer(8, 6, 5, **options).double(), RGCNLayer(8, 6, 5, **options).double()
    ours.load_state_dict(theirs.state_dict())
    graph = MessageGraph.build(edge_index, edge_type, 25, 5)
    x = torch.randn(25, 8, dtype=torch.double, requires_grad=True)
    expected, actual = theirs(x, edge_index, edge_type), ours(x, graph)
    torch.testing.assert_close(actual, expected)
    slope = torch.randn_like(expected)
    for left, right in zip(torch.autograd.grad(actual, [x, *ours.parameters()], slope),
                           torch.autograd.grad(expected, [x, *theirs.parameters()], slope)):
        assert right.abs().sum() > 0
        torch.testing.assert_close(left, right)


def test_initial_weights_are_those_of_pyg() -> None:
    torch.manual_seed(3)
    theirs = RGCNConv(8, 6, 5, num_bases=2)
    torch.manual_seed(3)
    ours = RGCNLayer(8, 6, 5, num_bases=2)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


def test_messages_pass_along_facts_and_their_inverses() -> None:
    data = KGData(torch.tensor([[0, 0, 1], [1, 2, 2]]), torch.tensor([0, 0, 1]), 3, 2)
    graph = MessageGraph.of(data)
    assert graph is MessageGraph.of(data), 'built once'
    # Facts first, then their inverses; entity 0 hears of 1 and 2 by the inverse of relation 0.
    assert graph.count.tolist() == [1, 1, 1, 2, 2, 1]
    assert graph.edges.by_target.relation.tolist() == [2, 2, 0, 3, 0, 1]
    inverse = MessageGraph.of(data.with_inverse_relations())
    assert inverse.count.tolist() == graph.count.tolist()
    data.edge_type = torch.tensor([0, 1, 1])
    assert MessageGraph.of(data).count.tolist() == [1, 2, 2, 1, 1, 1]  # fact 1 is of relation 1 now
    assert MessageGraph.of(data.to('cpu')).edges.by_target.ptr.device.type == 'cpu'


def test_samples_are_facts_drawn_once() -> None:
    data = KGData(torch.tensor([[0, 0, 1, 3], [1, 2, 2, 0]]), torch.tensor([0, 0, 1, 1]), 4, 2)
    facts = {tuple(row) for row in data.facts('train').tolist()}
    seen = set()
    for seed in range(20):
        graph = MessageGraph.sample(data, 2, torch.Generator().manual_seed(seed))
        order = graph.edges.by_target
        edges = {(s, r, t) for s, r, t in zip(order.source.tolist(), order.relation.tolist(), order.target.tolist())}
        forward = {edge for edge in edges if edge[1] < 2}
        assert len(forward) == 2 and forward <= facts
        assert edges - forward == {(t, r + 2, h) for h, r, t in forward}
        seen |= forward
    assert seen == facts


def test_wrong_operands_are_named() -> None:
    layer = RGCNLayer(8, 6, 5, num_bases=2)
    edge = torch.tensor([[0], [1]])
    graph = MessageGraph.build(edge, torch.tensor([0]), 3, 5)
    wide = MessageGraph.build(edge, torch.tensor([6]), 3, 7)
    for x, given, said in ((torch.ones(3, 8), KGData(edge, torch.tensor([0]), 3, 5), 'graph.*MessageGraph'),
                           (torch.ones(3, 6), graph, r'x: .*\(V, 8\).*\(3, 6\)'), (None, graph, 'x'),
                           (torch.ones(3, 8), wide, 'graph: .*5 edge types.* 7')):
        with pytest.raises(ArgumentError, match=said):
            layer(x, given)


def test_wrong_settings_are_named() -> None:
    for options, said in (({'num_bases': 2, 'num_blocks': 2}, 'num_blocks'), ({'num_blocks': 3}, '8'),
                          ({'num_bases': 0}, 'num_bases')):
        with pytest.raises(ArgumentError, match=said):
            RGCNLayer(8, 6, 5, **options)
