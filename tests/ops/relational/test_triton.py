r"""Tests of the Triton kernels, with Triton's interpreter on the CPU and on CUDA if a device is available."""
from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import BackendError
from pyg_emu.data.index import EdgeOrder
from pyg_emu.ops import last_backend
from pyg_emu.ops.relational import AGGREGATES, MESSAGES, BoundaryRows, EdgeOrders, relational_conv

pytest.importorskip('triton', reason='Triton is not installed: pip install triton')

CUDA = torch.cuda.is_available()
DEVICE = torch.device('cuda' if CUDA else 'cpu')


@pytest.fixture(autouse=True)
def implementation(monkeypatch: pytest.MonkeyPatch) -> Any:
    r"""Returns the module, with small tiles for the interpreter, so that small graphs have several tiles."""
    module = importlib.import_module('pyg_emu.ops.relational.triton')
    if not CUDA:
        monkeypatch.setattr(module, '_EDGES', 2)
        monkeypatch.setattr(module, '_LANES', 8)
        monkeypatch.setattr(module, '_PIECE', 4)
    return module


def build(edge_index: Tensor, edge_type: Tensor, num_nodes: int, num_relations: int) -> EdgeOrders:
    orders = (EdgeOrder.build(edge_index, edge_type, key, num_nodes, num_relations)  # type: ignore[arg-type]
              for key in ('target', 'source', 'relation'))
    return EdgeOrders(*(order.to(DEVICE) for order in orders))


def random_graph(num_nodes: int, num_edges: int, num_relations: int) -> EdgeOrders:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=generator)
    return build(edge_index, torch.randint(num_relations, (num_edges, ), generator=generator), num_nodes, num_relations)


def hub_graph(num_edges: int = 17) -> EdgeOrders:
    r"""Node 3 is the target of two thirds of the edges and the source of the others. Node 0 is isolated, and most edges
    have relation 1.
    """
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.randint(1, 5, (2, num_edges), generator=generator)
    edge_index[1, :2 * num_edges // 3] = 3
    edge_index[0, 2 * num_edges // 3:] = 3
    edge_type = torch.ones(num_edges, dtype=torch.int64)
    edge_type[:num_edges // 6] = 2
    return build(edge_index, edge_type, 5, 3)


NOTHING = torch.empty(0, dtype=torch.int64)
GRAPHS = {
    'no edge': lambda: build(torch.stack([NOTHING, NOTHING]), NOTHING, 2, 2),
    'one edge': lambda: build(torch.tensor([[1], [2]]), torch.tensor([0]), 4, 2),
    'self-loops': lambda: build(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1, 1]), 1, 2),
    'parallel edges': lambda: build(torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1]]), torch.tensor([0, 0, 1, 1]), 3, 2),
}


def operands(edges: EdgeOrders, size: int, width: int, shared: bool = False, boundary: Optional[str] = 'rows',
             weighted: bool = True, kept: Optional[float] = 0.7, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    r"""Returns random operands with the same values, up to rounding, in every dtype. :obj:`kept` is the fraction of
    unmasked edges.
    """
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE).requires_grad_()

    num_nodes, num_edges = edges.by_target.ptr.numel() - 1, edges.by_target.source.numel()
    num_relations = edges.by_relation.ptr.numel() - 1
    found = {'x': normal(num_nodes, size, width),
             'relation': normal(num_relations, width) if shared else normal(size, num_relations, width),
             'boundary': {None: None, 'rows': normal(size, width), 'dense': normal(num_nodes, size, width)}[boundary],
             'edge_weight': normal(num_edges) if weighted else None}
    mask = None if kept is None else (torch.rand(num_edges, generator=generator) < kept).to(DEVICE)
    return {**found, 'edge_mask': mask, 'rows': boundary == 'rows'}


def results(edges: EdgeOrders, tensors: dict[str, Any], **kwargs: Any) -> list[Tensor]:
    r"""Returns the output and the gradients of a fixed function of the output."""
    x, boundary = tensors['x'], tensors['boundary']
    given = boundary
    if tensors['rows']:
        node = torch.arange(boundary.size(0), device=DEVICE) % x.size(0)
        given = BoundaryRows(node, boundary, -0.25)
    out = relational_conv(x, tensors['relation'], edges, boundary=given, edge_weight=tensors['edge_weight'],
                          edge_mask=tensors['edge_mask'], **kwargs)
    upstream = torch.linspace(-1, 2, out.numel(), device=DEVICE, dtype=torch.float64).cos().view_as(out)
    leaves = [value for value in tensors.values() if isinstance(value, Tensor) and value.requires_grad]
    return [out, *torch.autograd.grad(out, leaves, upstream.to(out.dtype), allow_unused=True, materialize_grads=True)]


def compare(edges: EdgeOrders, tensors: dict[str, Any], tolerance: float = 2e-4, **kwargs: Any) -> None:
    r"""Compares values and gradients with the reference in double precision."""
    wide = {key: value.detach().double().requires_grad_()
            if isinstance(value, Tensor) and value.is_floating_point() else value for key, value in tensors.items()}
    expected = results(edges, wide, backend='torch', **kwargs)
    found = results(edges, tensors, backend='triton', **kwargs)
    assert last_backend('relational') == 'triton' and len(found) == len(expected)
    for value, other in zip(found, expected):
        assert value.dtype == tensors['x'].dtype
        scale = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(value.double(), other, rtol=tolerance, atol=tolerance * max(scale, 1.0))


@pytest.mark.parametrize('aggregate', AGGREGATES)
@pytest.mark.parametrize('message', MESSAGES)
def test_agrees_with_reference(message: str, aggregate: str) -> None:
    # Twelve lanes (one and a half blocks) and keys with several pieces and edges before and after them.
    edges = hub_graph()
    compare(edges, operands(edges, 2, 6), message=message, aggregate=aggregate)


@pytest.mark.parametrize('graph', GRAPHS)
@pytest.mark.parametrize('aggregate', ['mean', 'pna'])
def test_awkward_graphs(aggregate: str, graph: str) -> None:
    edges = GRAPHS[graph]()
    compare(edges, operands(edges, 1, 3, boundary=None, weighted=False, kept=None), aggregate=aggregate)


@pytest.mark.parametrize('aggregate', ['sum', 'max', 'pna'])
def test_dense_boundary_and_shared_relations(aggregate: str) -> None:
    edges = hub_graph()
    compare(edges, operands(edges, 2, 5, shared=True, boundary='dense', kept=None), aggregate=aggregate)


@pytest.mark.parametrize('boundary', [None, 'rows'])
def test_mask_that_removes_everything(boundary: Optional[str]) -> None:
    edges = hub_graph(9)
    for aggregate in ('mean', 'min', 'pna'):
        tensors = operands(edges, 1, 2, boundary=boundary, kept=0.0)
        assert not tensors['edge_mask'].any()
        compare(edges, tensors, aggregate=aggregate)


@pytest.mark.parametrize('size,width', [(1, 1), (3, 1), (0, 4)])
def test_odd_shapes(size: int, width: int) -> None:
    edges = GRAPHS['one edge']()
    compare(edges, operands(edges, size, width, kept=None), aggregate='pna')


def test_by_hand() -> None:
    # 0 -r0-> 2, 1 -r1-> 2: messages 2 * 10 = 20 and 3 * 100 = 300 at node 2.
    edges = build(torch.tensor([[0, 1], [2, 2]]), torch.tensor([0, 1]), 3, 2)
    x = torch.tensor([2.0, 3.0, 5.0], device=DEVICE).view(3, 1, 1)
    relation = torch.tensor([[10.0], [100.0]], device=DEVICE)
    out = relational_conv(x, relation, edges, backend='triton')
    assert out.flatten().tolist() == [0.0, 0.0, 320.0]
    boundary = BoundaryRows(torch.tensor([2], device=DEVICE), torch.tensor([[-20.0]], device=DEVICE))
    out = relational_conv(x, relation, edges, aggregate='pna', boundary=boundary, backend='triton')
    assert out[2, 0, :3, 0].tolist() == pytest.approx([100.0, 300.0, -20.0])
    out = relational_conv(x, relation, edges, aggregate='pna', backend='triton')
    assert out[2, 0, :, 0].tolist() == pytest.approx([160.0, 300.0, 20.0, 140.0])
    assert out[0, 0, :, 0].tolist() == pytest.approx([0.0, 0.0, 0.0, 1e-3])


def test_hubs_and_frequent_relations_are_cut(implementation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Integers, so that sums are exact for any division of the edges.
    launched = []

    class Spy:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Any:
            launched.append(grid[0])
            return self.kernel[grid]

    for name in ('gather_pieces', 'spread_pieces'):
        monkeypatch.setattr(implementation.kernels, name, Spy(getattr(implementation.kernels, name)))
    edges = build(torch.tensor([[0] * 22, [1] * 21 + [2]]), torch.tensor([1] * 21 + [0]), 3, 2)
    x = torch.tensor([3.0, 0.0, 0.0], device=DEVICE).view(3, 1, 1).requires_grad_()
    relation = torch.tensor([[5.0], [7.0]], device=DEVICE).requires_grad_()
    weight = torch.arange(22.0, device=DEVICE)
    out = relational_conv(x, relation, edges, edge_weight=weight, backend='triton')
    assert out.flatten().tolist() == [0.0, 210 * 21.0, 21 * 15.0]
    grads = torch.autograd.grad(out.sum(), (x, relation))
    assert grads[0].flatten().tolist() == [210 * 7.0 + 21 * 5.0, 0.0, 0.0]
    assert grads[1].flatten().tolist() == [21 * 3.0, 210 * 3.0]
    if not CUDA:
        # 22 edges are about eight per node, so pieces have eight edges.
        assert launched == [2, 2, 2]


@pytest.mark.parametrize('narrow', [2**15, 0])
def test_first_of_equals_gets_the_gradient(implementation: Any, monkeypatch: pytest.MonkeyPatch, narrow: int) -> None:
    # Edges 1 and 2 send the same message to node 2, and so does the last edge, which follows a piece of four. Edge 1
    # comes first. At node 3, the boundary condition equals the only message. Positions are int16 or int32.
    monkeypatch.setattr(implementation, '_NARROW', narrow)
    edges = build(torch.tensor([[0, 1, 1, 0, 0, 0, 1, 0], [2] * 7 + [3]]), torch.zeros(8, dtype=torch.int64), 4, 1)
    x = torch.tensor([0.0, 4.0, 0.0, 0.0], device=DEVICE).view(4, 1, 1)
    for aggregate, sign in (('max', 1.0), ('min', -1.0)):
        weight = torch.ones(8, device=DEVICE, requires_grad=True)
        boundary = torch.tensor([0.0, 0.0, -9.0, 0.0], device=DEVICE).view(4, 1, 1).mul(sign).requires_grad_()
        out = relational_conv(sign * x, torch.ones(1, 1, device=DEVICE), edges, aggregate=aggregate,  # type: ignore
                              boundary=boundary, edge_weight=weight, backend='triton')
        out.sum().backward()
        assert weight.grad is not None and boundary.grad is not None
        assert weight.grad.tolist() == [0.0, sign * 4.0] + [0.0] * 6
        assert boundary.grad.flatten().tolist() == [1.0, 1.0, 0.0, 1.0]


def test_bad_numbers_and_infinity() -> None:
    edges = build(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]), 4, 2)
    x = torch.ones(4, 1, 2, device=DEVICE)
    x[1, 0, 1] = float('nan')
    for aggregate in AGGREGATES:
        out = relational_conv(x, torch.ones(2, 2, device=DEVICE), edges, aggregate=aggregate,  # type: ignore[arg-type]
                              backend='triton')
        assert out[2].view(-1, 2).isnan().all(0).tolist() == [False, True]
        assert not out[2].view(-1, 2)[:, 0].isnan().any() and not out[1].isnan().any()
    # The longest walk of at most two edges from node 0. Node 3 is not reachable.
    start = BoundaryRows(torch.tensor([0], device=DEVICE), torch.zeros(1, 1, device=DEVICE), float('-inf'))
    x = start.dense(4)
    for _ in range(2):
        x = relational_conv(x, torch.tensor([[1.0], [5.0]], device=DEVICE), edges, message='sum', aggregate='max',
                            boundary=start, backend='triton')
    assert x.flatten().tolist() == [0.0, 1.0, 6.0, float('-inf')]


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    edges = hub_graph(9)
    for aggregate in ('sum', 'pna'):
        compare(edges, operands(edges, 1, 3, dtype=dtype), tolerance, aggregate=aggregate)


def test_half_precision_sums_in_single(implementation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # In float16, 2048 + 1 is 2048, so the sum is only correct in a wider type.
    monkeypatch.setattr(implementation, '_EDGES', 64)
    monkeypatch.setattr(implementation, '_PIECE', 1024)
    edges = build(torch.tensor([[0] * 2052, [1] * 2052]), torch.zeros(2052, dtype=torch.int64), 2, 1)
    x = torch.ones(2, 1, 1, dtype=torch.float16, device=DEVICE, requires_grad=True)
    out = relational_conv(x, torch.ones(1, 1, dtype=torch.float16, device=DEVICE), edges, backend='triton')
    assert out.flatten().tolist() == [0.0, 2052.0]
    assert torch.autograd.grad(out.sum(), x)[0].flatten().tolist() == [2052.0, 0.0]


def test_without_gradient_nothing_is_kept() -> None:
    edges, saved = hub_graph(), []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    tensors = operands(edges, 1, 2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.no_grad():
            relational_conv(tensors['x'], tensors['relation'], edges, aggregate='pna', backend='triton')
        assert not saved
        relational_conv(tensors['x'], tensors['relation'], edges, aggregate='pna', backend='triton')
    # No tensor has a row for each of the 17 edges. The largest is the output, four times the features of five nodes.
    assert max(saved) == 4 * 5 * 2


def test_backends_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = GRAPHS['one edge']()
    with pytest.raises(BackendError, match='triton.*float16.*bfloat16.*float32.*float64'):
        relational_conv(torch.zeros(4, 1, 2, dtype=torch.float64, device=DEVICE),
                        torch.zeros(2, 2, dtype=torch.float64, device=DEVICE), edges, backend='triton')
    if not CUDA:
        monkeypatch.delenv('TRITON_INTERPRET', raising=False)
        with pytest.raises(BackendError, match='^relational: .*triton.*CUDA.*TRITON_INTERPRET=1.*cpu'):
            relational_conv(torch.zeros(4, 1, 2), torch.zeros(2, 2), edges, backend='triton')


COMPILE = r"""
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from pyg_emu.ops.relational import triton_kernels as kernels

TYPES = {'ptr': '*i64', 'source': '*i64', 'target': '*i64', 'rel_type': '*i64', 'key_of': '*i64', 'edge_id': '*i64',
         'node': '*i64', 'mask': '*u8', 'local': '*i32', 'partial': '*fp32', 'partial_at': '*i32',
         'partial_count': '*i32', 'positions': '*i16', 'counts': '*i32', 'fill': 'fp32', 'epsilon': 'fp32',
         'floor': 'fp32', 'num_lanes': 'i32', 'num_edges': 'i32', 'batch_stride': 'i32', 'key_stride': 'i32',
         'row_stride': 'i32'}
for message, aggregate, boundary, dtype, to in (('product', 'pna', 'rows', '*bf16', 'x'),
                                                ('rotate', 'max', 'dense', '*fp32', 'relation'),
                                                ('sum', 'mean', 'none', '*fp16', 'x')):
    wanted = {'pna': (1, 1, 1, 1), 'max': (0, 0, 1, 0), 'mean': (1, 0, 0, 0)}[aggregate]
    constants = {'MESSAGE': message, 'AGGREGATE': aggregate, 'BOUNDARY': boundary, 'TO': to, 'KEEP': True,
                 'MASKED': True, 'WEIGHTED': message != 'product', 'WIDTH': 6, 'PIECE': 256, 'BLOCK_E': 8,
                 'BLOCK_F': 128, **dict(zip(('SUM', 'SQUARE', 'HIGH', 'LOW'), wanted))}
    for kernel in (kernels.gather_pieces, kernels.gather_nodes, kernels.pna_slopes, kernels.spread_pieces,
                   kernels.spread_keys, kernels.spread_weights):
        types = {name: 'constexpr' if name in constants else TYPES.get(name, dtype) for name in kernel.arg_names}
        values = {(i, ): constants[name] for i, name in enumerate(kernel.arg_names) if name in constants}
        binary = compile(ASTSource(kernel, types, values), target=GPUTarget('cuda', 90, 32))
        assert binary.asm['cubin']
        print(binary.metadata.name)
"""


def test_kernels_compile_for_hopper(tmp_path: Path) -> None:
    # The interpreter accepts code that the compiler rejects, such as a variable whose type changes in a loop. Compiling
    # needs no GPU.
    environment = {key: value for key, value in os.environ.items() if key != 'TRITON_INTERPRET'}
    environment['TRITON_CACHE_DIR'] = str(tmp_path)
    process = subprocess.run([sys.executable, '-c', COMPILE], env=environment, cwd=Path(__file__).parents[3],
                             capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == 3 * ['gather_pieces', 'gather_nodes', 'pna_slopes', 'spread_pieces', 'spread_keys',
                                          'spread_weights']


@pytest.mark.gpu
@pytest.mark.parametrize('dtype,tolerance', [(torch.float32, 5e-4), (torch.bfloat16, 4e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize('aggregate', AGGREGATES)
@pytest.mark.parametrize('message', MESSAGES)
def test_on_cuda(message: str, aggregate: str, dtype: torch.dtype, tolerance: float) -> None:
    # In half precision, rounding may change which edge an extremum comes from, so only values are compared.
    edges = random_graph(200, 9000, 7)
    tensors = operands(edges, 5, 34, dtype=dtype)
    if dtype == torch.float32:
        compare(edges, tensors, tolerance, message=message, aggregate=aggregate)
        compare(hub_graph(9000), operands(hub_graph(9000), 3, 30), tolerance, message=message, aggregate=aggregate)
        return
    wide = {key: value.detach().double().requires_grad_()
            if isinstance(value, Tensor) and value.is_floating_point() else value for key, value in tensors.items()}
    found, expected = (results(edges, values, message=message, aggregate=aggregate, backend=backend)[0]
                       for values, backend in ((tensors, 'triton'), (wide, 'torch')))
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.gpu
def test_chosen_on_cuda_and_same_bits_in_every_run() -> None:
    edges = random_graph(500, 50_000, 11)
    tensors = operands(edges, 4, 32)
    runs = [results(edges, tensors, aggregate='pna') for _ in range(3)]
    assert last_backend('relational') == 'triton'
    assert all(torch.equal(value, other) for run in runs[1:] for value, other in zip(run, runs[0]))


@pytest.mark.gpu
def test_host_never_waits() -> None:
    edges = random_graph(100, 5000, 5)
    tensors = operands(edges, 2, 16)
    node = torch.arange(2, device=DEVICE)

    def step() -> None:
        boundary = BoundaryRows(node, tensors['boundary'])
        out = relational_conv(tensors['x'], tensors['relation'], edges, aggregate='pna', boundary=boundary,
                              edge_weight=tensors['edge_weight'], edge_mask=tensors['edge_mask'])
        torch.autograd.grad(out, [tensors['x'], tensors['relation'], tensors['boundary'], tensors['edge_weight']],
                            torch.ones_like(out))

    step()  # Compiles the kernels and determines the maximum degree.
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
