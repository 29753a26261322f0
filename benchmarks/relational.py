r"""Relational message passing on a graph of the size of FB15k-237: time and peak memory of the fused operator, of a
gather with ``torch_scatter.segment_csr`` in chunks of edges, and of four passes instead of one.

.. code-block:: bash

    python -m benchmarks.relational                        # 512 and 2048 features, all cases, in separate processes
    python -m benchmarks.relational --features 512 --repeats 3

Writes ``benchmarks/results/relational/features-{number}.json`` with times, peak memory, the ratios with targets, and
whether each target is met. Times are the minimum over the repeats, because other load only increases a time. The CPU
time counts all threads of the case. The peak memory excludes the operands.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any, Callable

import torch
from torch import Tensor

from benchmarks._memory import peak_rise
from benchmarks._record import ROOT, write_result
from pyg_emu.data.graph import KGData
from pyg_emu.ops.relational import EdgeOrders, relational_conv

NUM_NODES, NUM_FACTS, NUM_RELATIONS = 14_541, 272_115, 237
#: The number of features per query. The batch size is the number of features divided by it.
WIDTH = 32
#: The maximum size of the gathered messages in bytes.
CHUNK_BYTES = 256 * 2**20
#: The targets: minimum speedups,
AT_LEAST = {'sum_speedup': 8.0, 'pna_speedup': 3.0}
#: and the maximum cost of PNA relative to a sum.
AT_MOST = {'pna_to_sum_forward': 1.3, 'pna_to_sum_forward_backward': 2.5}
CASES = ('sum', 'pna', 'mean', 'max', 'min', 'gather_sum', 'gather_four', 'sum_backward', 'pna_backward')


def graph(seed: int) -> EdgeOrders:
    r"""Generates triples with a skewed distribution: the density of an entity is proportional to the inverse square
    root of its rank.
    """
    generator = torch.Generator().manual_seed(seed)
    ends = (NUM_NODES * torch.rand(2, NUM_FACTS, generator=generator).square()).long()
    relation = (NUM_RELATIONS * torch.rand(NUM_FACTS, generator=generator).square()).long()
    return EdgeOrders.of(KGData(ends, relation, NUM_NODES, NUM_RELATIONS).with_inverse_relations())


def gather(x: Tensor, relation: Tensor, edges: EdgeOrders, reduce: str) -> Tensor:
    r"""Passes messages without a fused operator: a chunk of nodes at a time, reduced by ``segment_csr``."""
    from torch_scatter import segment_csr

    order = edges.by_target
    out = x.new_empty(x.shape)
    per_chunk = max(1, CHUNK_BYTES // (4 * x[0].numel()))
    # Divides nodes into chunks by their edges. A hub with more edges than a chunk is a chunk of its own.
    cuts = torch.searchsorted(order.ptr, torch.arange(0, order.source.numel() + per_chunk, per_chunk))
    cuts = torch.unique_consecutive(torch.cat([cuts.clamp(max=NUM_NODES), torch.tensor([NUM_NODES])])).tolist()
    for first, last in zip(cuts, cuts[1:]):
        low, high = int(order.ptr[first]), int(order.ptr[last])
        messages = x[order.source[low:high]] * relation[order.relation[low:high]]
        if reduce == 'square':
            messages = messages.square_()
        out[first:last] = segment_csr(messages, order.ptr[first:last + 1] - low,
                                      reduce='mean' if reduce == 'square' else reduce)
    return out


def case(name: str, edges: EdgeOrders, features: int) -> Callable[[], Any]:
    r"""Returns a function that runs one case once."""
    size = features // WIDTH
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(NUM_NODES, size, WIDTH, generator=generator)
    relation = torch.randn(size, 2 * NUM_RELATIONS, WIDTH, generator=generator)
    if name.startswith('gather'):
        vectors = relation.transpose(0, 1).contiguous()
        passes = ['sum'] if name == 'gather_sum' else ['mean', 'max', 'min', 'square']
        return lambda: [gather(x, vectors, edges, reduce) for reduce in passes]
    aggregate: Any = name.removesuffix('_backward')
    if not name.endswith('_backward'):
        return lambda: relational_conv(x, relation, edges, aggregate=aggregate, backend='numba')
    x.requires_grad_()
    relation.requires_grad_()
    shape = (NUM_NODES, size, 4, WIDTH) if aggregate == 'pna' else x.shape
    gradient = torch.randn(shape, generator=generator)

    def forward_and_backward() -> None:
        out = relational_conv(x, relation, edges, aggregate=aggregate, backend='numba')
        torch.autograd.grad(out, (x, relation), gradient)

    return forward_and_backward


def measure(name: str, features: int, repeats: int, seed: int) -> dict[str, float]:
    r"""Returns the minimum time of a case and the increase of the peak resident memory."""
    run = case(name, graph(seed), features)
    # Operands and loaded code do not count, so kernels are compiled on a tiny graph first.
    warm = EdgeOrders.of(KGData(torch.tensor([[0], [1]]), torch.tensor([0]), 2, 1).with_inverse_relations())
    if name.startswith('gather'):
        import torch_scatter  # noqa: F401
    else:
        x, relation = torch.ones(2, 2, WIDTH, requires_grad=True), torch.ones(2, 2, WIDTH)
        aggregate: Any = name.removesuffix('_backward')
        relational_conv(x, relation, warm, aggregate=aggregate).sum().backward()
    peak = peak_rise(run)
    wall, processor = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return {'seconds': min(wall), 'cpu_seconds': min(processor), 'peak_mib': peak / 2**20}


def measure_apart(name: str, features: int, repeats: int, seed: int) -> dict[str, float]:
    r"""Runs :func:`measure` in a separate process, so that the peak memory is that of the case."""
    command = [sys.executable, '-m', 'benchmarks.relational', '--case', name, '--features', str(features), '--repeats',
               str(repeats), '--seed', str(seed)]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def summary(cases: dict[str, dict[str, float]], clock: str) -> dict[str, float]:
    r"""Returns the ratios that have targets."""
    seconds = {name: values[clock] for name, values in cases.items()}
    own_passes = 2 * seconds['mean'] + seconds['max'] + seconds['min']
    return {
        'sum_speedup': seconds['gather_sum'] / seconds['sum'],
        'pna_speedup': seconds['gather_four'] / seconds['pna'],
        'pna_speedup_over_own_passes': own_passes / seconds['pna'],
        'pna_to_sum_forward': seconds['pna'] / seconds['sum'],
        'pna_to_sum_forward_backward': seconds['pna_backward'] / seconds['sum_backward'],
    }


def reached(ratios: dict[str, float]) -> dict[str, bool]:
    r"""Returns whether each ratio meets its target."""
    return {**{name: ratios[name] >= target for name, target in AT_LEAST.items()},
            **{name: ratios[name] <= target for name, target in AT_MOST.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--features', type=int, nargs='+', default=[512, 2048], help='features of a node, all queries')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--case', choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(arguments.case, arguments.features[0], arguments.repeats, arguments.seed)))
        return
    for features in arguments.features:
        cases = {}
        for name in CASES:
            cases[name] = measure_apart(name, features, arguments.repeats, arguments.seed)
            figures = '  '.join(f'{key} {value:9.3f}' for key, value in cases[name].items())
            print(f'{features:5d} {name:14s} {figures}', flush=True)
        ratios = {clock: summary(cases, clock) for clock in ('seconds', 'cpu_seconds')}
        met = reached(ratios['seconds'])
        for name, ratio in ratios['seconds'].items():
            asked = AT_LEAST.get(name, AT_MOST.get(name))
            verdict = '' if asked is None else f'  target {asked:4.1f}: {"met" if met[name] else "missed"}'
            print(f'{features:5d} {name:27s} {ratio:7.2f}{verdict}', flush=True)
        write_result(f'relational/features-{features:04d}', {
            'label': f'{features} features', 'nodes': NUM_NODES, 'edges': 2 * NUM_FACTS, 'relations': 2 * NUM_RELATIONS,
            'width': WIDTH, 'threads': torch.get_num_threads(), 'repeats': arguments.repeats, **cases, 'ratios': ratios,
            'at_least': AT_LEAST, 'at_most': AT_MOST, 'met': met}, seed=arguments.seed)


if __name__ == '__main__':
    main()
