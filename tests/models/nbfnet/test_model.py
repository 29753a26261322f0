r"""NBFNet against brute force over walks, and what its options promise."""
from __future__ import annotations

from typing import Any, Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.models.nbfnet import model as module
from pyg_emu.models.nbfnet.layer import degree_scale
from pyg_emu.models.nbfnet.model import NBFNet
from pyg_emu.ops.relational import BoundaryRows, EdgeOrders

FACTS = torch.tensor([[0, 0, 1], [0, 1, 2], [1, 0, 2], [1, 1, 3], [2, 1, 3], [3, 0, 0], [2, 0, 2]])
TEST_FACTS = torch.tensor([[0, 0, 3], [3, 1, 2]])


def toy_graph() -> KGData:
    r"""Five entities, the last of them isolated; two relations; a self-loop."""
    return KGData(edge_index=FACTS[:, [0, 2]].t().contiguous(), edge_type=FACTS[:, 1].contiguous(), num_nodes=5,
                  num_relations=2, test_edge_index=TEST_FACTS[:, [0, 2]].t().contiguous(),
                  test_edge_type=TEST_FACTS[:, 1].contiguous()).with_inverse_relations()


def walks(data: KGData, start: int, length: int) -> list[list[tuple[int, int]]]:
    r"""All walks of a length, each a list of (relation, node reached)."""
    edges = [(int(u), int(r), int(v)) for u, v, r in zip(*data.edge_index, data.edge_type)]  # type: ignore[misc]
    found: list[list[tuple[int, int]]] = [[]]
    for _ in range(length):
        found = [[*walk, (r, v)] for walk in found for u, r, v in edges if u == (walk[-1][1] if walk else start)]
    return found


def brute_force(data: KGData, tables: list[Tensor], query: Tensor, start: int,
                compose: Callable[[Tensor, Tensor], Tensor], reduce: Callable[[list[Tensor]], Tensor],
                zero: float) -> Tensor:
    r"""What all walks from :obj:`start` with at most as many edges as there are tables amount to, at every node. The
    last edge of a walk is composed by the last layer.
    """
    values: list[list[Tensor]] = [[] for _ in range(5)]
    for length in range(len(tables) + 1):
        for walk in walks(data, start, length):
            value = query
            for table, (relation, _) in zip(tables[len(tables) - length:], walk):
                value = compose(value, table[relation])
            values[walk[-1][1] if walk else start].append(value)
    return torch.stack([reduce(each) if each else torch.full_like(query, zero) for each in values])


def test_sum_of_products_is_brute_force_over_walks() -> None:
    data, width, start = toy_graph(), 3, 1
    torch.manual_seed(0)
    model = NBFNet(2, width, 3, aggregate='sum', shortcut=False, layer_norm=False, dependent=False, act=None).double()
    for layer in model.layers:
        # [input, aggregate] -> aggregate
        layer.linear.weight.data.copy_(torch.cat([torch.zeros(width, width), torch.eye(width)], dim=1))
        layer.linear.bias.data.zero_()
    tables = [layer.relation.weight.detach() for layer in model.layers]
    for relation, side in ((0, 'tail'), (1, 'head')):
        encoding = model.encode(data, torch.tensor([start]), torch.tensor([relation]), side)  # type: ignore[arg-type]
        query = model.query.weight[relation if side == 'tail' else relation + 2].detach()
        expected = brute_force(data, tables, query, start, torch.mul, lambda each: torch.stack(each).sum(0), 0.0)
        torch.testing.assert_close(encoding.hidden[0].detach(), expected)
    assert len(walks(data, start, 3)) > 20


@pytest.mark.parametrize('aggregate,zero', [('max', float('-inf')), ('min', float('inf'))])
def test_extremum_of_sums_is_brute_force_over_walks(aggregate: Any, zero: float) -> None:
    data, start = toy_graph(), 0
    torch.manual_seed(1)
    model = NBFNet(2, 2, 3, message='sum', aggregate=aggregate, dependent=False).double()
    query = torch.randn(1, 2, dtype=torch.float64)
    boundary, edges = BoundaryRows(torch.tensor([start]), query, zero), EdgeOrders.of(data)
    x = boundary.dense(5)
    for layer in model.layers:
        x = layer.propagate(x, query, boundary, edges)
    tables = [layer.relation.weight.detach() for layer in model.layers]
    expected = brute_force(data, tables, query[0], start, torch.add,
                           lambda each: getattr(torch.stack(each), f'a{aggregate}')(0), zero)
    torch.testing.assert_close(x[:, 0].detach(), expected)
    assert x[4].eq(zero).all() and x[:4].isfinite().all()


@pytest.mark.parametrize('options', [
    {},
    {'aggregate': 'sum', 'dependent': False},
    {'aggregate': 'mean', 'message': 'rotate', 'layer_norm': False},
    {'aggregate': 'max', 'message': 'sum', 'shortcut': False, 'num_mlp_layers': 3},
    {'out_channels': 6, 'num_layers': 3, 'concat_hidden': True, 'num_mlp_layers': 1},
])
def test_routes_agree(options: dict[str, Any]) -> None:
    data = toy_graph()
    torch.manual_seed(0)
    model = NBFNet(2, **{'hidden_channels': 8, 'num_layers': 2, **options}).eval()
    known, relation = torch.tensor([0, 3, 2]), torch.tensor([0, 1, 1])
    tails = model.score(data, known, relation)
    assert tails.shape == (3, 5)
    torch.testing.assert_close(model.as_ranker(data, batch_size=2)(known, relation, 'tail'), tails.detach())
    heads = model.score(data, known, relation, side='head')
    mixed = model.score(data, known, relation, side=torch.tensor([True, False, True]))
    torch.testing.assert_close(mixed, torch.stack([tails[0], heads[1], tails[2]]))
    candidates = torch.tensor([[4, 1], [0, 0], [2, 3]])
    torch.testing.assert_close(model.score(data, known, relation, candidates), tails.gather(1, candidates))
    torch.testing.assert_close(model(data, known, relation, candidates[:, 0]), tails.gather(1, candidates)[:, 0])


@pytest.mark.parametrize('dependent', [True, False])
def test_reset_draws_what_a_new_model_draws(dependent: bool) -> None:
    torch.manual_seed(3)
    model = NBFNet(2, 4, 2, dependent=dependent)
    new = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(7.0)
    torch.manual_seed(3)
    model.reset_parameters()
    assert all(torch.equal(value, new[key]) for key, value in model.state_dict().items())


def test_evaluates_through_ranker() -> None:
    data = toy_graph()
    model = NBFNet(2, 8, 2)
    metrics = evaluate(model.as_ranker(data), data, split='test')
    assert 0.2 <= metrics['mrr'] <= 1.0
    assert model.training
    other = KGData(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]), 9, 2).with_inverse_relations()
    assert model.as_ranker(other)(torch.tensor([0]), torch.tensor([1]), 'head').shape == (1, 9)


def test_training_mask() -> None:
    data = toy_graph()
    columns = torch.stack([data.edge_index[0], data.edge_type, data.edge_index[1]])
    edges = [tuple(edge) for edge in columns.t().tolist()]

    def hidden(model: NBFNet, *arguments: Any) -> set[tuple[int, ...]]:
        mask = model.training_mask(data, *arguments)
        return {edge for edge, stays in zip(edges, mask.tolist()) if not stays}

    narrow, wide = NBFNet(2, 4, 1, remove_one_hop=False), NBFNet(2, 4, 1)
    # (1, 0, 2) for its tail and (2, 1, 3) for its head; the second candidates are negatives.
    known, relation, tail_side = torch.tensor([1, 3]), torch.tensor([0, 1]), torch.tensor([True, False])
    arguments = (known, relation, torch.tensor([[2, 3], [2, 0]]), tail_side)
    facts = {(1, 0, 2), (2, 2, 1), (2, 1, 3), (3, 3, 2)}
    assert hidden(narrow, *arguments) == facts
    assert hidden(wide, *arguments) == facts | {(1, 1, 3), (3, 3, 1), (3, 0, 0), (0, 2, 3)}
    # What is masked leaves no trace: the scores are those of the graph without it.
    mask = narrow.training_mask(data, *arguments)
    rest = KGData(data.edge_index[:, mask], data.edge_type[mask], 5, 2, has_inverse_relations=True)
    for model in (narrow, NBFNet(2, 4, 2, aggregate='sum')):
        torch.testing.assert_close(model.score(data, *arguments[:2], edge_mask=mask), model.score(rest, *arguments[:2]))


@pytest.mark.parametrize('aggregate', ['pna', 'sum'])
@pytest.mark.parametrize(('dtype', 'bf16'), [(torch.float64, False), (torch.float64, True), (torch.bfloat16, False),
                                             (torch.bfloat16, True), (torch.float16, False)])
def test_parameters_of_other_types(dtype: torch.dtype, bf16: bool, aggregate: Any) -> None:
    data, known, relation = toy_graph(), torch.tensor([0, 3]), torch.tensor([0, 1])
    torch.manual_seed(0)
    single = NBFNet(2, 8, 2, aggregate=aggregate)
    model = NBFNet(2, 8, 2, aggregate=aggregate, bf16=bf16)
    model.load_state_dict(single.state_dict())
    model = model.to(dtype)
    scores = model.score(data, known, relation)
    # Double precision stays double under autocast.
    limit = 1e-6 if dtype == torch.float64 else 5e-3
    torch.testing.assert_close(scores.double(), single.score(data, known, relation).double(), rtol=limit, atol=limit)
    if dtype == torch.float64:
        assert scores.dtype == dtype
        exact = single.double().score(data, known, relation)
        torch.testing.assert_close(scores, exact, rtol=1e-14, atol=1e-14)
    scores.sum().backward()
    assert all(value.grad is None or value.grad.dtype == dtype for value in model.parameters())


def test_degrees_are_as_precise_as_the_model() -> None:
    edges = EdgeOrders.of(toy_graph())
    logarithm = (edges.by_target.ptr.diff() + 1).double().log()
    assert torch.equal(degree_scale(edges, dtype=torch.float64), logarithm / logarithm.mean())
    assert degree_scale(edges).dtype == degree_scale(edges, dtype=torch.bfloat16).dtype == torch.float32


def test_checkpointing_and_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    data, known, relation = toy_graph(), torch.tensor([0, 3]), torch.tensor([0, 1])
    torch.manual_seed(0)
    model = NBFNet(2, 16, 3)
    kept = torch.autograd.grad(model.score(data, known, relation).sum(), model.parameters(), allow_unused=True)
    model.checkpointing = True
    calls = []
    monkeypatch.setattr(module, 'checkpoint', lambda *args, **options: calls.append(1) or checkpoint(*args, **options))
    with torch.no_grad():
        torch.testing.assert_close(model.score(data, known, relation), model.eval().score(data, known, relation))
    assert not calls
    scores = model.train().score(data, known, relation)
    assert len(calls) == 3
    again = torch.autograd.grad(scores.sum(), model.parameters(), allow_unused=True)
    for one, other in zip(kept, again):
        torch.testing.assert_close(one, other)
    model.bf16 = True
    rough = model.score(data, known, relation)
    assert rough.dtype == torch.float32 and not torch.equal(rough, scores)
    torch.testing.assert_close(rough, scores, rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_edge_weights_of_one_change_nothing_and_have_a_gradient() -> None:
    data = toy_graph()
    model = NBFNet(2, 8, 2)
    question = (torch.tensor([0]), torch.tensor([0]))
    weights = [torch.ones(data.edge_index.size(1), requires_grad=True) for _ in model.layers]
    scores = model.score(data, *question, edge_weights=weights)
    torch.testing.assert_close(scores, model.score(data, *question))
    scores[0, 3].backward()
    # In the first layer, only messages from the known entity are other than zero.
    first, last = (weight.grad for weight in weights)
    assert first is not None and last is not None
    assert first[data.edge_index[0] != 0].eq(0).all() and first[data.edge_index[0] == 0].ne(0).any()
    assert last.ne(0).any()


def test_bad_arguments_are_named() -> None:
    data = toy_graph()
    for options, name in [({'message': 'times'}, 'message'), ({'aggregate': 'median'}, 'aggregate'),
                          ({'hidden_channels': 0}, 'hidden_channels'), ({'num_mlp_layers': 0}, 'num_mlp_layers'),
                          ({'num_layers': 0}, 'num_layers'),
                          ({'message': 'rotate', 'hidden_channels': 3}, 'hidden_channels')]:
        with pytest.raises(ArgumentError, match=f'^{name}: '):
            NBFNet(2, **options)
    model = NBFNet(2, 4, 1)
    question = (torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ArgumentError, match='with_inverse_relations'):
        model.score(KGData(data.edge_index[:, :7], data.edge_type[:7], 5, 2), *question)
    with pytest.raises(ArgumentError, match='^graph: .* 2 .* 3$'):
        model.as_ranker(KGData(data.edge_index[:, :7], data.edge_type[:7], 5, 3).with_inverse_relations())
    with pytest.raises(ArgumentError, match='^side: '):
        model.score(data, *question, side='middle')  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='^batch_size: '):
        model.as_ranker(data, batch_size=0)
    with pytest.raises(ArgumentError, match='^graph: .* Data;'):
        model.score(Data(edge_index=data.edge_index, edge_type=data.edge_type, num_nodes=5), *question)


@pytest.mark.parametrize('change, message', [
    ({'known': torch.tensor([-1])}, r'known: -1 at position 0 is not in \[0, 5\), the entities'),
    ({'known': torch.tensor([0.0])}, 'known: expected a tensor of int64 ids, got torch.float32'),
    ({'known': 0}, 'known: expected .*tensor.*, got 0'),
    ({'known': torch.tensor([[0]])}, r'known: expected shape \(\*,\), got \(1, 1\)'),
    # Past the last relation, an inverse one would answer.
    ({'rel_type': torch.tensor([2])}, r'rel_type: 2 at position 0 is not in \[0, 2\), the relations'),
    ({'rel_type': torch.tensor([0, 1])}, r'rel_type: expected shape \(1,\), got \(2,\)'),
    # The last entity would answer for -1.
    ({'candidates': torch.tensor([[4, -1]])}, r'candidates: -1 at position \(0, 1\) is not in \[0, 5\), the entities'),
    ({'candidates': torch.tensor([4])}, r'candidates: expected shape \(1, \*\), got \(1,\)'),
    ({'side': torch.tensor([1])}, r'side: expected torch.bool of shape \(1,\), .* got torch.int64 of shape \(1,\)'),
    ({'edge_mask': torch.ones(3, dtype=torch.bool)}, r'edge_mask: .*\(14,\).*\(3,\)'),
    ({'edge_mask': torch.ones(14)}, r'edge_mask: .*torch.bool.*torch.float32'),
    ({'edge_weights': [torch.ones(14)] * 3}, 'edge_weights: expected a tensor for each of 2 layers, got 3'),
])
def test_bad_questions_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {'known': torch.tensor([0]), 'rel_type': torch.tensor([1]), **change}
    with pytest.raises(ArgumentError, match=f'^{message}'):
        NBFNet(2, 4, 2).score(toy_graph(), **arguments)


def star(num_nodes: int) -> KGData:
    r"""One edge from 0 to 1; nothing tells the other entities apart, each of which is the tail of a test fact."""
    others = torch.arange(2, num_nodes)
    return KGData(torch.tensor([[0], [1]]), torch.tensor([0]), num_nodes, 1,
                  test_edge_index=torch.stack([torch.zeros_like(others), others]),
                  test_edge_type=torch.zeros_like(others)).with_inverse_relations()


@pytest.mark.parametrize('num_nodes', [5, 10, 37, 131])
def test_entities_that_nothing_tells_apart_tie(num_nodes: int) -> None:
    data = star(num_nodes)
    torch.manual_seed(0)
    model = NBFNet(1)
    for batch_size in (1, 3, 128):
        ranks = evaluate(model.as_ranker(data, batch_size), data, sides=('tail',)).ranks['tail']
        # Filtered, each competes with 0 and 1 alone; unfiltered, with the others too.
        assert len(ranks.realistic.unique()) == 1
        ranks = evaluate(model.as_ranker(data, batch_size), data, sides=('tail',), filter_splits=None).ranks['tail']
        assert ranks.equal.tolist() == [num_nodes - 3] * (num_nodes - 2)


def mirrored(seed: int, shuffle: bool) -> tuple[KGData, int]:
    r"""A random graph about entity 0 with an automorphism that exchanges entities :math:`v` and :math:`v + n`."""
    generator = torch.Generator().manual_seed(seed)
    half = int(torch.randint(2, 30, (1,), generator=generator))
    num_edges = int(torch.randint(1, 6 * half, (1,), generator=generator))
    edges = torch.randint(half + 1, (2, num_edges), generator=generator)
    relation = torch.randint(2, (num_edges,), generator=generator).repeat(2)
    edges = torch.cat([edges, torch.where(edges == 0, edges, edges + half)], dim=1)
    order = torch.randperm(2 * num_edges, generator=generator) if shuffle else torch.arange(2 * num_edges)
    return KGData(edges[:, order], relation[order], 2 * half + 1, 2).with_inverse_relations(), half


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('options', [
    {},
    {'aggregate': 'sum', 'concat_hidden': True, 'dependent': False},
    {'aggregate': 'mean', 'message': 'rotate'},
    {'aggregate': 'max', 'message': 'sum'},
])
def test_mirror_images_score_equally_in_any_batch(options: dict[str, Any], shuffle: bool) -> None:
    r"""Neither the order of edges nor the number of queries decides about the last bits."""
    known, relation = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 1, 0, 1, 1])
    for seed in range(8):
        data, half = mirrored(seed, shuffle)
        torch.manual_seed(seed)
        model = NBFNet(2, **{'hidden_channels': 16, 'num_layers': 3, **options})
        scores = model.score(data, known, relation).detach()
        assert torch.equal(scores[:, 1:half + 1], scores[:, half + 1:]), f'seed {seed}'
        assert torch.equal(scores[0], scores[2]) and scores[0].unique().numel() > 1
        for batch_size in (1, 2, 3):
            ranker = model.as_ranker(data, batch_size)
            assert torch.equal(ranker(known, relation, 'tail'), scores), f'seed {seed}, batch size {batch_size}'


def test_wrong_features_are_named() -> None:
    model = NBFNet(2, 32, 2)
    for hidden, query, name in (((1, 2, 5), (1, 32), 'hidden'), ((1, 2, 33), (1, 32), 'hidden'),
                                ((2, 32), (1, 32), 'hidden'), ((1, 2, 32), (1, 5), 'query'),
                                ((2, 2, 32), (1, 32), 'query')):
        with pytest.raises(ArgumentError, match=f'^{name}: '):
            model.score_features(torch.ones(hidden), torch.ones(query))


def test_training_mask_of_no_queries_and_wrong_ones() -> None:
    data, empty = toy_graph(), torch.empty(0, dtype=torch.int64)
    for remove_one_hop in (True, False):
        model = NBFNet(2, 4, 1, remove_one_hop=remove_one_hop)
        mask = model.training_mask(data, empty, empty, empty.view(0, 3))
        assert mask.tolist() == [True] * data.edge_index.size(1)
        known, relation, candidates = torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([[1, 2], [3, 4]])
        for arguments, name in (((known, relation, candidates[0]), 'candidates'),
                                ((known + 99, relation, candidates), 'known'),
                                ((known.int(), relation, candidates), 'known'),
                                ((known, relation[:1], candidates), 'rel_type'),
                                ((known, relation, candidates[:1]), 'candidates')):
            with pytest.raises(ArgumentError, match=f'^{name}: '):
                model.training_mask(data, *arguments)


def test_reset_reaches_the_activation() -> None:
    model = NBFNet(2, 4, 2, act='prelu')
    before = [value.clone() for name, value in model.named_parameters() if 'act' in name]
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(7.0)
    model.reset_parameters()
    assert len(before) == 2
    assert all(map(torch.equal, before, [value for name, value in model.named_parameters() if 'act' in name]))
    assert not any(bool((value == 7.0).any()) for value in model.parameters())
