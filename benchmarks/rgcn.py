r"""Two layers of R-GCN, forward and backward, next to PyG's RGCNConv and FastRGCNConv.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.rgcn   # <folder>/FB15k-237, or generated data of its size
    python -m benchmarks.rgcn --smoke --out <folder>

The graphs are all training facts with their inverses, and a sample of 30,000 of these edges. Contenders share their
weights and take turns in one process; the values and gradients of all are compared before. FastRGCNConv holds a weight
matrix for each edge and does not fit into memory on the full graph. Times are medians of the turns after the first.
Writes ``benchmarks/results/speed/rgcn.json``.
"""
from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import torch
from torch import Tensor
from torch_geometric.nn import FastRGCNConv, RGCNConv

from benchmarks._record import RESULTS, write_result
from benchmarks.relational import NUM_FACTS, NUM_NODES, NUM_RELATIONS
from pyg_emu import KGData, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.models.encoders import MessageGraph, RGCNLayer

CHANNELS, BASES, BLOCKS, LAYERS, SAMPLED_EDGES = 100, 4, 4, 2, 30_000
#: The minimum speedup over RGCNConv on the full graph, and over FastRGCNConv on the sample, both with bases.
TARGETS = {('full graph', 'RGCNConv'): 15.0, ('sample', 'FastRGCNConv'): 10.0}
PEERS: dict[str, Any] = {'RGCNConv': RGCNConv, 'FastRGCNConv': FastRGCNConv}


def load(smoke: bool) -> KGData:
    r"""The training facts of FB15k-237, or generated ones of its size, with inverse relations."""
    root = os.environ.get('PYG_EMU_DATA')
    if not smoke and root is not None and (Path(root) / 'FB15k-237').is_dir():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DataWarning)
            return load_dataset(Path(root) / 'FB15k-237').with_inverse_relations()
    nodes, facts, relations = (30, 200, 3) if smoke else (NUM_NODES, NUM_FACTS, NUM_RELATIONS)
    generator = torch.Generator().manual_seed(0)
    ends = (nodes * torch.rand(2, facts, generator=generator).square()).long()
    relation = (relations * torch.rand(facts, generator=generator).square()).long()
    return KGData(ends, relation, nodes, relations).with_inverse_relations()


def contenders(graph: MessageGraph, edge_index: Tensor, edge_type: Tensor, x: Tensor, num_relations: int,
               names: Sequence[str], options: dict[str, Any]) -> dict[str, Callable[[], list[Tensor]]]:
    r"""Functions that compute the output of all layers and the gradients of input and weights, by name."""
    torch.manual_seed(0)
    ours = [RGCNLayer(x.size(1), x.size(1), num_relations, **options) for _ in range(LAYERS)]
    found: dict[str, Callable[[], list[Tensor]]] = {'ours': _step(ours, lambda layer, h: layer(h, graph), x)}
    for name in names:
        layers = [PEERS[name](x.size(1), x.size(1), num_relations, **options) for _ in range(LAYERS)]
        for layer, own in zip(layers, ours):
            layer.load_state_dict(own.state_dict())
        found[name] = _step(layers, lambda layer, h: layer(h, edge_index, edge_type), x)
    return found


def _step(layers: Sequence[torch.nn.Module], call: Callable[[torch.nn.Module, Tensor], Tensor],
          x: Tensor) -> Callable[[], list[Tensor]]:
    parameters = [value for layer in layers for value in layer.parameters()]

    def step() -> list[Tensor]:
        inputs = x.clone().requires_grad_()
        h = inputs
        for number, layer in enumerate(layers):
            h = call(layer, h if number == 0 else h.relu())
        return [h.detach(), *torch.autograd.grad(h.square().mean(), [inputs, *parameters])]

    return step


def compare(name: str, found: dict[str, Callable[[], list[Tensor]]], turns: int) -> list[dict[str, Any]]:
    r"""Checks that all contenders compute the same, and times them in turns.

    Raises:
        AssertionError: If a value or a gradient differs.
    """
    expected = found['ours']()
    for contender, step in found.items():
        for left, right in zip(step(), expected):
            scale = float(right.abs().max())
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4 * scale)
        print(f'{name}, {contender}: the same values and gradients', flush=True)
    seconds: dict[str, list[float]] = {contender: [] for contender in found}
    for _ in range(turns):
        for contender, step in found.items():
            start = time.perf_counter()
            step()
            seconds[contender].append(time.perf_counter() - start)
    return [{'graph': name, 'contender': contender, 'ms': 1000 * statistics.median(times),
             'least_ms': 1000 * min(times)} for contender, times in seconds.items()]


def ratios_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    r"""The speedups over each peer, and the targets that there are."""
    ours = {row['graph']: row['ms'] for row in rows if row['contender'] == 'ours'}
    found: dict[str, Any] = {}
    for row in rows:
        if row['contender'] != 'ours':
            value = row['ms'] / ours[row['graph']]
            entry: dict[str, Any] = {'value': value}
            target = TARGETS.get((row['graph'], row['contender']))
            if target is not None:
                entry |= {'target': target, 'kept': value >= target}
            found[f'{row["contender"]} over ours, {row["graph"]}'] = entry
    return found


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--turns', type=int, default=5, help='turns of each contender (default: 5)')
    parser.add_argument('--smoke', action='store_true', help='tiny sizes, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    arguments = parser.parse_args(argv)
    if arguments.smoke and arguments.out == RESULTS:
        parser.error('--smoke: expected --out, because smoke results are not recorded')
    data = load(arguments.smoke)
    channels, sampled = (8, 50) if arguments.smoke else (CHANNELS, SAMPLED_EDGES)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(data.num_nodes, channels, generator=generator)
    assert data.edge_type is not None
    kept = torch.randperm(data.edge_type.numel(), generator=generator)[:sampled]
    edges, types = data.edge_index[:, kept].contiguous(), data.edge_type[kept]
    full = (MessageGraph.of(data), data.edge_index, data.edge_type)
    sample = (MessageGraph.build(edges, types, data.num_nodes or 0, data.num_edge_types), edges, types)
    rows: list[dict[str, Any]] = []
    for name, (graph, edge_index, edge_type), peers, options in (
            ('full graph', full, ['RGCNConv'], {'num_bases': BASES}),
            ('sample', sample, ['RGCNConv', 'FastRGCNConv'], {'num_bases': BASES}),
            ('full graph, blocks', full, ['RGCNConv'], {'num_blocks': BLOCKS}),
            ('sample, blocks', sample, ['RGCNConv', 'FastRGCNConv'], {'num_blocks': BLOCKS})):
        steps = contenders(graph, edge_index, edge_type, x, data.num_edge_types, peers, options)
        rows += compare(name, steps, 1 if arguments.smoke else arguments.turns)
        for row in rows[-len(steps):]:
            print(f'{row["graph"]}, {row["contender"]}: {row["ms"]:.1f} ms', flush=True)
    ratios = ratios_of(rows)
    for name, entry in ratios.items():
        said = ''
        if 'target' in entry:
            said = f' (at least {entry["target"]:g}: {"kept" if entry["kept"] else "MISSED"})'
        print(f'{name}: {entry["value"]:.1f}{said}')
    print(write_result('speed/rgcn', {
        'label': f'{LAYERS} layers, {BASES} bases or {BLOCKS} blocks, d = {channels}',
        'edges': int(data.edge_type.numel()), 'sampled_edges': int(kept.numel()), 'rows': rows,
        'ratios': ratios}, seed=0, folder=arguments.out))


if __name__ == '__main__':
    main()
