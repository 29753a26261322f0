r"""The kernels, run by Triton's interpreter on the CPU, and on CUDA where there is a device."""
from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import BackendError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops import MaskPlan, MixPlan, Plan, emu_score, last_backend

pytest.importorskip('triton', reason='Triton is not installed, and its kernels cannot run: pip install triton')

CUDA = torch.cuda.is_available()
DEVICE = torch.device('cuda' if CUDA else 'cpu')
INTERACTIONS = [Dot(), L1(), L2(), ComplexModulus(), ModulusPhase(0.7, 1.3, 2.0)]
PLANS = ['none', 'per_negative', 'per_triple', 'soft', 'soft_per_triple', 'mix', 'pair']
# B, N, V, d: one slot; nothing a multiple of anything.
SHAPES = [(1, 1, 1, 2), (2, 6, 4, 10)]


@pytest.fixture(autouse=True)
def implementation(monkeypatch: pytest.MonkeyPatch) -> Any:
    r"""The module, with tiny tiles where kernels are interpreted, so that tiny operands have several of each kind."""
    module = importlib.import_module('pyg_emu.ops.emu_score.triton')
    if not CUDA:
        monkeypatch.setattr(module, '_SLOTS', {1: 4, 2: 4, 3: 4})
        monkeypatch.setattr(module, '_COMPONENTS', 4)
        monkeypatch.setattr(module, '_PIECE', 4)
    return module


def name_of(interaction: Interaction) -> str:
    return interaction.name


def operands(interaction: Interaction, size: int, num_nodes: int, width: int, seed: int = 0,
             dtype: torch.dtype = torch.float32, device: torch.device = DEVICE) -> tuple[Tensor, Tensor, Tensor]:
    r"""Random queries, positives and table; the same numbers, rounded, in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (size, interaction.query_width(width)), (size, width), (num_nodes, width)
    values = (torch.randn(shape, generator=generator).to(dtype).to(device) for shape in shapes)
    return tuple(value.requires_grad_() for value in values)  # type: ignore[return-value]


def make_index(size: int, num: int, num_nodes: int, seed: int = 0) -> Tensor:
    r"""Random ids, half of the slots the same entity."""
    index = torch.randint(num_nodes, (size, num), generator=torch.Generator().manual_seed(seed))
    index[:, num // 2:] = num_nodes // 2
    return index.to(DEVICE)


def make_plan(name: str, size: int, num: int, width: int, dtype: torch.dtype = torch.float32,
              masks: int = 4, num_nodes: int = 1) -> Plan | None:
    generator = torch.Generator().manual_seed(5)
    bank = torch.rand(masks, width, generator=generator).to(DEVICE)
    index = torch.randint(masks, (size, num), generator=generator).to(DEVICE)
    if name == 'none':
        return None
    if name in ('mix', 'pair'):
        weight = torch.rand(size, num, generator=generator).to(DEVICE, dtype).requires_grad_()
        partner = torch.randint(num_nodes, (size, num), generator=generator).to(DEVICE)
        return MixPlan(weight, partner if name == 'pair' else None)
    if name.endswith('per_triple'):
        index = torch.randint(masks, (size, ), generator=generator, dtype=torch.int32).to(DEVICE)
    return MaskPlan(bank.to(dtype).requires_grad_() if name.startswith('soft') else bank < 0.5, index)


def widened(plan: Plan | None) -> Plan | None:
    r"""The plan of the reference: the same numbers in double precision."""
    def wide(value: Tensor | None) -> Tensor | None:
        return value.detach().double().requires_grad_() if value is not None and value.is_floating_point() else value

    return None if plan is None else type(plan)(*map(wide, plan))


def results(args: tuple[Tensor, ...], index: Tensor, plan: Plan | None, **kwargs: Any) -> list[Tensor]:
    r"""Both scores and all gradients of a random function of them."""
    scores = [score for score in emu_score(*args, index, plan, **kwargs) if score is not None]
    generator = torch.Generator().manual_seed(1)
    loss = sum(((score.double() * torch.randn(score.shape, generator=generator).to(score)).sum() for score in scores),
               start=torch.zeros((), dtype=torch.float64, device=index.device))
    leaves = [*args, *(value for value in plan or () if value is not None and value.requires_grad)]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    if kwargs.get('sparse_grad'):
        assert grads[2].is_sparse and grads[2].is_coalesced()
        partner = plan.partner if isinstance(plan, MixPlan) else None
        read = index if partner is None else torch.cat([index, partner])
        assert grads[2].indices().flatten().tolist() == read.unique().tolist()
    return [value.detach().to_dense() for value in (*scores, *grads)]


def compare(interaction: Interaction, plan_name: str, shape: tuple[int, int, int, int], seed: int = 0,
            dtype: torch.dtype = torch.float32, tolerance: float = 2e-4, **kwargs: Any) -> None:
    r"""Values and gradients beside the reference in double precision."""
    size, num, num_nodes, width = shape
    args = operands(interaction, size, num_nodes, width, seed, dtype)
    index = make_index(size, num, num_nodes, seed)
    plan = make_plan(plan_name, size, num, width, dtype, num_nodes=num_nodes)
    reference = tuple(value.detach().double().requires_grad_() for value in args)
    expected = results(reference, index, widened(plan), interaction=interaction, backend='torch')
    found = results(args, index, plan, interaction=interaction, backend='triton', **kwargs)
    assert last_backend('emu_score') == 'triton'
    assert len(found) == len(expected)
    for value, other in zip(found, expected):
        assert value.dtype == dtype
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(value.double(), other, rtol=tolerance, atol=tolerance * max(scale, 1.0))


@pytest.mark.parametrize('plan_name', PLANS)
@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_against_reference(interaction: Interaction, plan_name: str) -> None:
    for seed, shape in enumerate(SHAPES):
        compare(interaction, plan_name, shape, seed)


def test_by_hand() -> None:
    query = torch.tensor([[1.0, 2.0]], device=DEVICE)
    positive = torch.tensor([[3.0, 4.0]], device=DEVICE)
    table = torch.tensor([[0.0, 0.0], [5.0, 6.0]], device=DEVICE)
    index = torch.tensor([[1, 0]], device=DEVICE)
    bank = torch.tensor([[True, False], [False, True]], device=DEVICE)
    # [5, 6] with its first component from the positive is [3, 6]; [0, 0] with its second is [0, 4].
    dot = emu_score(query, positive, table, index, MaskPlan(bank, torch.tensor([[0, 1]], device=DEVICE)),
                    backend='triton')
    assert dot.vanilla is not None and dot.mutated is not None
    assert dot.vanilla.tolist() == [[17.0, 0.0]]
    assert dot.mutated.tolist() == [[15.0, 8.0]]
    # A quarter of [5, 6] and three quarters of [3, 4] is [3.5, 4.5].
    weight = torch.tensor([[0.25]], device=DEVICE)
    mixed = emu_score(query, positive, table, index[:, :1], MixPlan(weight), vanilla=False, backend='triton')
    assert mixed.vanilla is None and mixed.mutated is not None
    assert mixed.mutated.tolist() == [[12.5]]


@pytest.mark.parametrize('plan_name', ['per_negative', 'soft_per_triple', 'pair'])
def test_row_sparse_gradient(plan_name: str) -> None:
    compare(Dot(), plan_name, (3, 7, 9, 6), sparse_grad=True)


@pytest.mark.parametrize('share', [0.0, 0.6, 1.0])
def test_pieces_of_frequent_entities(implementation: Any, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    # Whole numbers, so that the gradient of a row is exact, however its slots are cut.
    launched = []
    pieces = implementation.kernels.backward_pieces

    class Spy:
        def __getitem__(self, grid: Any) -> Any:
            launched.append(grid[0])
            return pieces[grid]

    monkeypatch.setattr(implementation.kernels, 'backward_pieces', Spy())
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(6, (5, 9), generator=generator)
    index[torch.rand(index.shape, generator=generator) < share] = 3
    query, table = torch.ones(5, 3, device=DEVICE), torch.zeros(6, 3, device=DEVICE, requires_grad=True)
    score = emu_score(query, query, table, index.to(DEVICE), backend='triton').vanilla
    assert score is not None
    upstream = torch.arange(45.0).square().view(5, 9)
    (grad, ) = torch.autograd.grad(score, table, upstream.to(DEVICE))
    expected = torch.zeros(6).index_add_(0, index.flatten(), upstream.flatten()).tolist()
    assert grad[:, 0].tolist() == grad[:, 2].tolist() == expected
    if not CUDA:
        assert launched == [45 // 4]


@pytest.mark.parametrize('num_nodes', [2**16 - 1, 2**16 + 1])
def test_both_widths_of_sort_keys(num_nodes: int) -> None:
    # Only the touched rows are computed, or interpreting a program for each of the others would take minutes.
    index = torch.tensor([[num_nodes - 1, 0, 40_000], [40_000, 32_768, num_nodes - 1]], device=DEVICE)
    query = torch.tensor([[1.0], [3.0]], device=DEVICE)
    table = torch.zeros(num_nodes, 1, device=DEVICE, requires_grad=True)
    score = emu_score(query, query, table, index, sparse_grad=True, backend='triton').vanilla
    assert score is not None
    (grad, ) = torch.autograd.grad(score.sum(), table)
    assert grad.indices().tolist() == [[0, 32_768, 40_000, num_nodes - 1]]
    assert grad.values().flatten().tolist() == [1.0, 3.0, 4.0, 4.0]


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    compare(L2(), 'per_triple', (2, 5, 4, 6), dtype=dtype, tolerance=tolerance)


def test_half_precision_sums_in_single() -> None:
    # In float16, 2048 + 1 is 2048: only a wider sum counts on.
    table = torch.ones(1, 2052, dtype=torch.float16, device=DEVICE)
    index = torch.zeros(1, 1, dtype=torch.int64, device=DEVICE)
    score = emu_score(table, table, table, index, backend='triton').vanilla
    assert score is not None and score.item() == 2052


@pytest.mark.parametrize('half', ['vanilla', 'mutated'])
@pytest.mark.parametrize('interaction', [L2(), ComplexModulus()], ids=name_of)
def test_gradient_of_one_score_alone(interaction: Interaction, half: str) -> None:
    args = operands(interaction, 2, 4, 6)
    index, plan = make_index(2, 3, 4), make_plan('per_triple', 2, 3, 6)
    found, expected = (getattr(emu_score(*args, index, plan, interaction=interaction, backend=backend), half)
                       for backend in ('triton', 'torch'))
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)
    grads = [torch.autograd.grad(score.square().sum(), args, allow_unused=True, materialize_grads=True)
             for score in (found, expected)]
    for value, other in zip(*grads):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_positive_among_negatives(interaction: Interaction) -> None:
    # Where query, positive and negative coincide, distances have no derivative: zero is taken, not NaN.
    table = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(DEVICE).requires_grad_()
    query = table.detach()[[0, 1]]
    if interaction.name == 'modulus_phase':
        query = torch.cat([query[:, :2], torch.ones(2, 2, device=DEVICE), 2.0 * query[:, 2:]], dim=1)
    args = (query.requires_grad_(), table.detach()[[0, 1]].requires_grad_(), table)
    index = torch.tensor([[0, 1, 2], [1, 1, 0]], device=DEVICE)
    plan = make_plan('per_triple', 2, 3, 4)
    found, expected = (results(args, index, plan, interaction=interaction, backend=backend)
                       for backend in ('triton', 'torch'))
    for value, other in zip(found, expected):
        assert value.isfinite().all()
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('plan_name', ['none', 'per_negative', 'soft', 'mix', 'pair'])
@pytest.mark.parametrize('size,num', [(0, 3), (2, 0)])
def test_nothing_to_score(size: int, num: int, plan_name: str) -> None:
    for sparse_grad in (False, True):
        args = operands(Dot(), size, 5, 4)
        index, plan = torch.empty(size, num, dtype=torch.int64, device=DEVICE), make_plan(plan_name, size, num, 4)
        for value in results(args, index, plan, backend='triton', sparse_grad=sparse_grad):
            assert value.numel() == 0 or (value == 0).all()


def test_bad_numbers_propagate() -> None:
    args = operands(ComplexModulus(), 2, 3, 4)
    args[2].data[1] = float('nan')
    bank = torch.zeros(1, 4, dtype=torch.bool, device=DEVICE)
    plan = MaskPlan(bank, torch.zeros(2, dtype=torch.int64, device=DEVICE))
    index = torch.tensor([[0, 1], [2, 0]], device=DEVICE)
    for score in emu_score(*args, index, plan, interaction=ComplexModulus(), backend='triton'):
        assert score is not None
        assert score.isnan().tolist() == [[False, True], [False, False]]


def test_no_batch_by_negatives_by_width_tensor() -> None:
    size, num, width = 4, 8, 64
    args = operands(Dot(), size, 5, width)
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        emu_score(*args, make_index(size, num, 5), make_plan('per_triple', size, num, width), backend='triton')
    assert saved and max(saved) < size * num * width / 4


COMPILE = r"""
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from pyg_emu.ops.emu_score import triton_kernels as kernels

TYPES = {'index': '*i64', 'partner': '*i64', 'mask_index': '*i64', 'order': '*i64', 'starts': '*i64', 'keys': '*i16',
         'num': 'i32', 'vanilla_norm': '*fp32', 'mutated_norm': '*fp32', 'partial': '*fp32', 'modulus_weight': 'fp32',
         'phase_weight': 'fp32', 'scale': 'fp32'}
for phi, plan, shared, dtype, parts, query_parts in (('dot', 'hard', True, '*bf16', 1, 1),
                                                     ('modulus', 'none', False, '*fp32', 2, 2),
                                                     ('modulus_phase', 'soft', False, '*fp32', 2, 3),
                                                     ('l2', 'mix', False, '*fp16', 1, 1),
                                                     ('modulus_phase', 'pair', False, '*fp32', 2, 3)):
    constants = {'PHI': phi, 'PLAN': plan, 'SHARED': shared, 'HAS_VANILLA': True, 'HAS_MUTATED': plan != 'none',
                 'HAS_NORM': phi in ('l2', 'modulus_phase'), 'MASKS': plan == 'soft', 'SIZE': 50, 'PARTS': parts,
                 'QUERY_PARTS': query_parts, 'PIECE': 16, 'BLOCK_S': 8, 'BLOCK_K': 32}
    for kernel in (kernels.forward, kernels.backward_batch, kernels.backward_pieces, kernels.backward_rows,
                   *([kernels.backward_weight] if plan in ('mix', 'pair') else [])):
        pointers = {**TYPES, 'bank': '*u8' if plan == 'hard' else dtype}
        types = {name: 'constexpr' if name in constants else pointers.get(name, dtype) for name in kernel.arg_names}
        values = {(i, ): constants[name] for i, name in enumerate(kernel.arg_names) if name in constants}
        binary = compile(ASTSource(kernel, types, values), target=GPUTarget('cuda', 90, 32))
        assert binary.asm['cubin']
        print(binary.metadata.name)
"""


def test_kernels_compile_for_hopper(tmp_path: Path) -> None:
    # The interpreter takes what the compiler refuses, such as a variable whose type changes in a loop. Compiling needs
    # no GPU.
    environment = {key: value for key, value in os.environ.items() if key != 'TRITON_INTERPRET'}
    environment['TRITON_CACHE_DIR'] = str(tmp_path)
    process = subprocess.run([sys.executable, '-c', COMPILE], env=environment, cwd=Path(__file__).parents[3],
                             capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    each = ['forward', 'backward_batch', 'backward_pieces', 'backward_rows']
    assert process.stdout.split() == 4 * each + ['backward_weight'] + each + ['backward_weight']


def test_double_precision_is_refused() -> None:
    with pytest.raises(BackendError, match='float16.*bfloat16.*float32.*torch.float64'):
        emu_score(*operands(Dot(), 1, 2, 2, dtype=torch.float64), make_index(1, 1, 2), backend='triton')


def test_cpu_tensors_are_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    args = operands(Dot(), 1, 2, 2, device=torch.device('cpu'))
    with pytest.raises(BackendError, match="'triton' .*CUDA.*cpu"):
        emu_score(*args, torch.zeros(1, 1, dtype=torch.int64), backend='triton')


@pytest.mark.gpu
@pytest.mark.parametrize('dtype,tolerance', [(torch.float32, 2e-4), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize('plan_name', PLANS)
@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_on_cuda(interaction: Interaction, plan_name: str, dtype: torch.dtype, tolerance: float) -> None:
    for seed, shape in enumerate([(1, 1, 1, 2), (13, 33, 4, 38), (50, 130, 700, 100), (7, 65, 70_000, 258)]):
        compare(interaction, plan_name, shape, seed, dtype, tolerance)


@pytest.mark.gpu
def test_chosen_on_cuda_and_same_bits_in_every_run() -> None:
    args = operands(Dot(), 200, 50, 100)
    index, plan = make_index(200, 256, 50), make_plan('soft', 200, 256, 100)
    runs = [results(args, index, plan) for _ in range(3)]
    assert last_backend('emu_score') == 'triton'
    assert all(torch.equal(value, other) for run in runs[1:] for value, other in zip(run, runs[0]))


@pytest.mark.gpu
def test_host_never_waits() -> None:
    args = operands(Dot(), 20, 500, 100)
    index, plan = make_index(20, 64, 500), make_plan('per_triple', 20, 64, 100)
    results(args, index, plan)  # Compiles.
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        scores = emu_score(*args, index, plan)
        torch.autograd.grad([score for score in scores if score is not None], args,
                            [torch.ones_like(score) for score in scores if score is not None])
    finally:
        torch.cuda.set_sync_debug_mode('default')
