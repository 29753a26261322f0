r"""Tests of the CPU backend against the reference: values, gradients, unusual graphs, masks, threads and memory."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.data.index import EdgeOrder
from pyg_emu.ops import last_backend
from pyg_emu.ops.relational import AGGREGATES, MESSAGES, BoundaryRows, EdgeOrders, message_count, relational_conv

ROOT = Path(__file__).resolve().parents[3]


def build(edge_index: Tensor, edge_type: Tensor, num_nodes: int, num_relations: int) -> EdgeOrders:
    return EdgeOrders(*(EdgeOrder.build(edge_index, edge_type, key, num_nodes, num_relations)
                        for key in ('target', 'source', 'relation')))


def random_graph(num_nodes: int, num_edges: int, num_relations: int, seed: int = 0) -> EdgeOrders:
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=generator)
    return build(edge_index, torch.randint(num_relations, (num_edges, ), generator=generator), num_nodes, num_relations)


def hub_graph(num_edges: int) -> EdgeOrders:
    r"""Node 3 is the target of two thirds of the edges and the source of the others. Nodes 0, 1 and 11 are isolated."""
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.randint(2, 11, (2, num_edges), generator=generator)
    edge_index[1, :2 * num_edges // 3] = 3
    edge_index[0, 2 * num_edges // 3:] = 3
    return build(edge_index, torch.randint(3, (num_edges, ), generator=generator), 12, 3)


GRAPHS = {
    'random': random_graph(7, 40, 3),
    'one edge': build(torch.tensor([[1], [2]]), torch.tensor([0]), 4, 2),
    'no edge': build(torch.empty(2, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 3, 2),
    'one node, self-loops': build(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1, 1]), 1, 2),
    'parallel edges': build(torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1]]), torch.tensor([0, 0, 1, 1]), 3, 2),
    # Large enough to be divided into pieces. The hub spans several.
    'hub': hub_graph(13_000),
}
# Each pair takes many seconds to compile, so not all are tested: all statistics with products, and all messages with
# sums, means and some of the other statistics.
COMPILED = [
    *(('product', aggregate) for aggregate in AGGREGATES),
    *(('sum', aggregate) for aggregate in ('sum', 'mean', 'max', 'min')),
    *(('rotate', aggregate) for aggregate in ('sum', 'mean', 'pna')),
]


def operands(edges: EdgeOrders, size: int, width: int, shared: bool, boundary: Optional[str], weighted: bool,
             masked: bool) -> dict[str, Optional[Tensor]]:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    num_nodes, num_edges = edges.by_target.ptr.numel() - 1, edges.by_target.source.numel()
    num_relations = edges.by_relation.ptr.numel() - 1
    return {
        'x': normal(num_nodes, size, width),
        'relation': normal(num_relations, width) if shared else normal(size, num_relations, width),
        'boundary': {None: None, 'rows': normal(size, width), 'dense': normal(num_nodes, size, width)}[boundary],
        'edge_weight': normal(num_edges) if weighted else None,
        'edge_mask': torch.rand(num_edges, generator=generator) < 0.7 if masked else None,
    }


def convolve(edges: EdgeOrders, tensors: dict[str, Optional[Tensor]], rows: bool, **kwargs: object) -> Tensor:
    boundary = tensors['boundary']
    assert tensors['x'] is not None and tensors['relation'] is not None
    if rows and boundary is not None:
        index = torch.arange(boundary.size(0)) % tensors['x'].size(0)
        return relational_conv(tensors['x'], tensors['relation'], edges, boundary=BoundaryRows(index, boundary, -0.25),
                               edge_weight=tensors['edge_weight'], edge_mask=tensors['edge_mask'], **kwargs)
    return relational_conv(tensors['x'], tensors['relation'], edges, boundary=boundary,
                           edge_weight=tensors['edge_weight'], edge_mask=tensors['edge_mask'], **kwargs)


def assert_agree(edges: EdgeOrders, tensors: dict[str, Optional[Tensor]], rows: bool, message: str,
                 aggregate: str) -> None:
    results = []
    for backend in ('torch', 'numba'):
        out = convolve(edges, tensors, rows, message=message, aggregate=aggregate, backend=backend)
        leaves = [value for value in tensors.values() if value is not None and value.requires_grad]
        gradient = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).cos().view_as(out)
        results.append((out, *torch.autograd.grad(out, leaves, gradient, allow_unused=True, materialize_grads=True)))
        assert last_backend('relational') == backend
    for value, expected in zip(results[1], results[0]):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def test_every_message_and_statistic_is_compared() -> None:
    assert {message for message, _ in COMPILED} == set(MESSAGES)
    assert {aggregate for _, aggregate in COMPILED} == set(AGGREGATES)


@pytest.mark.parametrize('graph', GRAPHS)
@pytest.mark.parametrize('message,aggregate', COMPILED)
def test_agrees_with_reference(message: str, aggregate: str, graph: str) -> None:
    # 2 x 34 features: more than one block of lanes, and not a multiple of its size.
    edges = GRAPHS[graph]
    assert_agree(edges, operands(edges, 2, 34, False, None, False, False), False, message, aggregate)
    assert_agree(edges, operands(edges, 2, 34, True, 'rows', True, True), True, message, aggregate)


@pytest.mark.parametrize('size,width', [(1, 1), (3, 1), (1, 33), (5, 7), (2, 32), (1, 64), (4, 16), (1, 130)])
@pytest.mark.parametrize('aggregate', ['sum', 'pna'])
def test_agrees_with_reference_on_odd_widths(aggregate: str, size: int, width: int) -> None:
    edges = GRAPHS['random']
    assert_agree(edges, operands(edges, size, width, False, 'rows', False, True), True, 'product', aggregate)
    if width % 2 == 0:
        assert_agree(edges, operands(edges, size, width, False, 'rows', False, True), True, 'rotate', aggregate)


@pytest.mark.parametrize('aggregate', AGGREGATES)
def test_agrees_with_reference_on_dense_boundary(aggregate: str) -> None:
    for graph in ('random', 'hub'):
        edges = GRAPHS[graph]
        assert_agree(edges, operands(edges, 2, 5, True, 'dense', True, True), False, 'product', aggregate)


@pytest.mark.parametrize('message,aggregate', COMPILED)
def test_gradients_numerically(message: str, aggregate: str) -> None:
    edges = GRAPHS['random']
    tensors = operands(edges, 2, 2, False, 'rows', True, True)
    names = ['x', 'relation', 'boundary', 'edge_weight']

    def function(*leaves: Tensor) -> Tensor:
        return convolve(edges, {**tensors, **dict(zip(names, leaves))}, True, message=message, aggregate=aggregate,
                        backend='numba')

    assert torch.autograd.gradcheck(function, [tensors[name] for name in names])


def test_by_hand() -> None:
    # 0 -r0-> 2, 1 -r1-> 2: messages 2 * 10 = 20 and 3 * 100 = 300 at node 2.
    edges = build(torch.tensor([[0, 1], [2, 2]]), torch.tensor([0, 1]), 3, 2)
    x = torch.tensor([2.0, 3.0, 5.0]).view(3, 1, 1)
    relation = torch.tensor([[10.0], [100.0]])
    for backend in ('torch', 'numba'):
        out = relational_conv(x, relation, edges, backend=backend)
        assert out.flatten().tolist() == [0.0, 0.0, 320.0]
        out = relational_conv(x, relation, edges, message='sum', aggregate='max', backend=backend)
        assert out.flatten().tolist() == [0.0, 0.0, 103.0]
        out = relational_conv(x, relation, edges, aggregate='pna', backend=backend)
        assert out[2, 0, :, 0].tolist() == [160.0, 300.0, 20.0, 140.0]
        assert out[0, 0, :, 0].tolist() == pytest.approx([0.0, 0.0, 0.0, 1e-3])
        # The boundary condition is a third message.
        boundary = BoundaryRows(torch.tensor([2]), torch.tensor([[-20.0]]))
        out = relational_conv(x, relation, edges, aggregate='pna', boundary=boundary, backend=backend)
        assert out[2, 0, :3, 0].tolist() == pytest.approx([100.0, 300.0, -20.0])
        # Rotation by i and by -1: (1 + 2i) i = -2 + i, and (3 + 4i) (-1) = -3 - 4i.
        out = relational_conv(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]], [[0.0, 0.0]]]),
                              torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), edges, message='rotate', backend=backend)
        assert out[2, 0].tolist() == [-5.0, -3.0]


def test_mask_is_the_graph_without_the_edges() -> None:
    generator = torch.Generator().manual_seed(4)
    edge_index = torch.randint(9, (2, 60), generator=generator)
    edge_type = torch.randint(4, (60, ), generator=generator)
    mask = torch.rand(60, generator=generator) < 0.5
    whole, rest = build(edge_index, edge_type, 9, 4), build(edge_index[:, mask], edge_type[mask], 9, 4)
    x, relation = torch.randn(9, 2, 5, generator=generator), torch.randn(2, 4, 5, generator=generator)
    for aggregate in AGGREGATES:
        for backend in ('torch', 'numba'):
            masked = relational_conv(x, relation, whole, aggregate=aggregate, edge_mask=mask, backend=backend)  # type: ignore
            expected = relational_conv(x, relation, rest, aggregate=aggregate, backend=backend)  # type: ignore[arg-type]
            torch.testing.assert_close(masked, expected)
    assert message_count(whole.by_target, mask).tolist() == torch.bincount(edge_index[1, mask], minlength=9).tolist()


def test_first_of_equals_gets_the_gradient() -> None:
    # Edges 1 and 2 send the same message to node 2, and edge 1 comes first. At node 3, the boundary condition equals
    # the only message.
    edges = build(torch.tensor([[0, 1, 1, 0], [2, 2, 2, 3]]), torch.zeros(4, dtype=torch.int64), 4, 1)
    x = torch.tensor([0.0, 4.0, 0.0, 0.0]).view(4, 1, 1)
    for aggregate, sign in (('max', 1.0), ('min', -1.0)):
        weight = torch.ones(4, requires_grad=True)
        boundary = torch.tensor([0.0, 0.0, -9.0, 0.0]).view(4, 1, 1).mul(sign).requires_grad_()
        out = relational_conv(sign * x, torch.ones(1, 1), edges, aggregate=aggregate, boundary=boundary,  # type: ignore
                              edge_weight=weight, backend='numba')
        out.sum().backward()
        assert weight.grad is not None and boundary.grad is not None
        assert weight.grad.tolist() == [0.0, sign * 4.0, 0.0, 0.0]
        assert boundary.grad.flatten().tolist() == [1.0, 1.0, 0.0, 1.0]


def test_extremum_far_down_a_hub() -> None:
    # Node 0 has more than 2^16 edges. The second to last message is the largest, the one before it the smallest.
    num_edges = 2**15 + 10
    edges = build(torch.tensor([[1], [0]]).expand(2, num_edges), torch.zeros(num_edges, dtype=torch.int64), 2, 1)
    for aggregate, place, extremum in (('max', num_edges - 2, 9.0), ('min', num_edges - 3, -9.0)):
        weight = torch.ones(num_edges)
        weight[place] = extremum
        weight.requires_grad_()
        out = relational_conv(torch.ones(2, 1, 1), torch.ones(1, 1), edges, aggregate=aggregate,  # type: ignore[arg-type]
                              edge_weight=weight, backend='numba')
        out[0].sum().backward()
        assert out[0].item() == extremum and weight.grad is not None
        assert weight.grad.nonzero().tolist() == [[place]] and weight.grad[place] == 1


def test_nan_comes_through() -> None:
    edges = GRAPHS['random']
    x = torch.ones(7, 1, 3)
    x[int(edges.by_target.source[0]), 0, 1] = float('nan')
    node = int(edges.by_target.target[0])
    for aggregate in AGGREGATES:
        out = relational_conv(x, torch.ones(3, 3), edges, aggregate=aggregate, backend='numba')  # type: ignore[arg-type]
        assert out[node].view(-1, 3)[:, 1].isnan().all()
        assert not out[node].view(-1, 3)[:, 0].isnan().any()


def test_infinity_is_the_zero_of_max() -> None:
    # Longest walk of at most two edges from node 0 along 0 -> 1 -> 2 with weights 1 and 5. Node 3 is not reachable.
    edges = build(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]), 4, 2)
    relation, start = torch.tensor([[1.0], [5.0]]), BoundaryRows(torch.tensor([0]), torch.zeros(1, 1), float('-inf'))
    for backend in ('torch', 'numba'):
        x = start.dense(4)
        for _ in range(2):
            x = relational_conv(x, relation, edges, message='sum', aggregate='max', boundary=start, backend=backend)
        assert x.flatten().tolist() == [0.0, 1.0, 6.0, float('-inf')]


_THREADS = """
import sys, torch
sys.path.insert(0, {root!r})
torch.set_num_threads({threads})
from tests.ops.relational.test_relational import convolve, hub_graph, operands
from pyg_emu.ops.relational import AGGREGATES
edges, outputs = hub_graph(20_000), []
tensors = {{k: None if v is None else v if v.dtype == torch.bool else v.detach().float().requires_grad_()
           for k, v in operands(edges, 3, 32, False, 'rows', True, True).items()}}
for aggregate in AGGREGATES:
    out = convolve(edges, tensors, True, aggregate=aggregate, backend='numba')
    leaves = [v for v in tensors.values() if v is not None and v.requires_grad]
    outputs += [out, *torch.autograd.grad(out.sin().sum(), leaves)]
torch.save([o.detach() for o in outputs], sys.argv[1])
"""


def test_threads_change_no_bit(tmp_path: Path) -> None:
    results = []
    for threads in (1, 3):
        path = tmp_path / f'{threads}.pt'
        environment = {**os.environ, 'NUMBA_NUM_THREADS': str(threads), 'OMP_NUM_THREADS': str(threads)}
        subprocess.run([sys.executable, '-c', _THREADS.format(root=str(ROOT), threads=threads), str(path)], check=True,
                       env=environment, cwd=ROOT)
        results.append(torch.load(path, weights_only=True))
    assert len(results[0]) == 25
    assert all(torch.equal(one, other) for one, other in zip(*results))


_MEMORY = """
import sys, torch
sys.path.insert(0, {root!r})
from benchmarks._memory import peak_rise
from tests.ops.relational.test_relational import COMPILED, random_graph
from pyg_emu.ops.relational import BoundaryRows, relational_conv
torch.set_default_dtype(torch.float64)  # The dtype of the other tests, whose compiled kernels are reused.

NODES, EDGES, SIZE, WIDTH = 60, 40_000, 4, 64

def run(edges, backend):
    num_edges = edges.by_target.edge_id.numel()
    for message, aggregate in COMPILED:
        if aggregate in ('sum', 'max', 'pna'):
            leaves = [torch.randn(NODES, SIZE, WIDTH), torch.randn(SIZE, 3, WIDTH), torch.randn(SIZE, WIDTH),
                      torch.ones(num_edges)]
            for leaf in leaves:
                leaf.requires_grad_()
            out = relational_conv(*leaves[:2], edges, message=message, aggregate=aggregate, backend=backend,
                                  boundary=BoundaryRows(torch.arange(SIZE), leaves[2]), edge_weight=leaves[3],
                                  edge_mask=torch.ones(num_edges, dtype=torch.bool))
            torch.autograd.grad(out.sum(), leaves)

edges = random_graph(NODES, EDGES, 3)
for backend in ('numba', 'torch'):
    run(random_graph(NODES, 9000, 3), backend)  # Compiles the kernels.
    print(peak_rise(lambda: run(edges, backend)) / (EDGES * SIZE * WIDTH * 8))
"""


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='measuring peak memory requires Linux')
def test_no_tensor_has_a_row_of_features_per_edge() -> None:
    done = subprocess.run([sys.executable, '-c', _MEMORY.format(root=str(ROOT))], check=True, cwd=ROOT,
                          env={**os.environ, 'OMP_NUM_THREADS': '1', 'NUMBA_NUM_THREADS': '1'}, text=True,
                          stdout=subprocess.PIPE)
    # In units of the features of all edges. The reference needs several of them.
    ours, reference = map(float, done.stdout.split())
    assert reference > 1.0  # Otherwise the measurement is wrong.
    assert ours < 0.25, done.stdout


def test_bad_arguments_are_named() -> None:
    edges = GRAPHS['random']
    x, relation = torch.zeros(7, 2, 3), torch.zeros(3, 3)
    cases = [
        ({'message': 'times'}, 'message'),
        ({'aggregate': 'median'}, 'aggregate'),
        ({'x': torch.zeros(7, 3)}, 'x'),
        ({'x': torch.zeros(8, 2, 3)}, 'edges.by_target'),
        ({'message': 'rotate'}, 'x'),
        ({'relation': torch.zeros(2, 3)}, 'relation'),
        ({'relation': relation.double()}, 'relation'),
        ({'boundary': torch.zeros(7, 2, 4)}, 'boundary'),
        ({'boundary': BoundaryRows(torch.tensor([0, 7]), torch.zeros(2, 3))}, 'boundary.node'),
        ({'boundary': BoundaryRows(torch.tensor([0]), torch.zeros(2, 3))}, 'boundary.node'),
        ({'boundary': BoundaryRows(torch.tensor([0, 1]), torch.zeros(2, 4))}, 'boundary.value'),
        ({'edge_weight': torch.zeros(39)}, 'edge_weight'),
        ({'edge_mask': torch.zeros(40)}, 'edge_mask'),
    ]
    for change, name in cases:
        arguments = {'x': x, 'relation': relation, 'edges': edges, **change}
        with pytest.raises(ArgumentError, match=f'^{name}: '):
            relational_conv(**arguments)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match='relational'):
        relational_conv(x.half(), relation.half(), edges, backend='numba')
