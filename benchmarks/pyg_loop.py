r"""The README's loop over PyG's own ``model.loader``, with the loss of this package and with the loss of PyG's layers.

.. code-block:: bash

    python -m benchmarks.pyg_loop                            # UMLS: 4 layers, 2 losses, 3 seeds
    python -m benchmarks.pyg_loop --smoke --out <folder>     # everything, tiny

Writes ``benchmarks/results/pyg_loop/{layer}-{loss}_seed{seed}.json``: the filtered MRR of the test facts, for heads,
for tails and for both. All losses train each layer for the same number of epochs on the same batches, with the
optimizer of :data:`OPTIMIZERS` that has the better result on the validation facts.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import torch
from torch_geometric.data import Data
from torch_geometric.nn import kge

from benchmarks._record import RESULTS, write_result
from pyg_emu import EMULoss, EMUNegatives, KGData, evaluate, load_dataset

LAYERS: dict[str, Any] = {'DistMult': kge.DistMult, 'ComplEx': kge.ComplEx, 'TransE': kge.TransE, 'RotatE': kge.RotatE}
LOSSES = {'pyg': "PyG's own loss", 'emu': 'EMULoss, in the same loop'}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    'Adagrad 0.1': lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
    'Adam 0.01': lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def train(model: Any, data: KGData, loss: str, optimizer: torch.optim.Optimizer, epochs: int) -> float:
    r"""Runs the README's loop, or the same loop with PyG's loss, and returns its seconds."""
    criterion = EMULoss(alpha=0.11, beta=0.53)
    negatives = EMUNegatives(num_negatives=64, mutation_rate=0.3)
    heads, relations, tails = data.facts('train').t()
    start = time.perf_counter()
    for _ in range(epochs):
        for h, r, t in model.loader(heads, relations, tails, batch_size=500, shuffle=True):
            optimizer.zero_grad()
            if loss == 'pyg':
                model.loss(h, r, t).backward()
            else:
                batch = negatives(Data(head_index=h, rel_type=r, tail_index=t, num_nodes=data.num_nodes))
                criterion(model, batch).backward()
            optimizer.step()
    return time.perf_counter() - start


def mrr(model: Any, data: KGData, split: str) -> dict[str, float]:
    r"""The filtered MRR for heads, for tails and for both."""
    found = evaluate(model, data, split=split)  # type: ignore[arg-type]
    return {'both': found['mrr'], 'heads': found['head.mrr'], 'tails': found['tail.mrr']}


def measure(layer: str, loss: str, data: KGData, seed: int, epochs: int, dim: int) -> dict[str, Any]:
    r"""Trains with each optimiser, and ranks the test facts by the model that ranks the validation facts better."""
    best: Optional[tuple[float, dict[str, Any]]] = None
    for name, make in OPTIMIZERS.items():
        torch.manual_seed(seed)
        model = LAYERS[layer](data.num_nodes, data.num_relations, dim)
        seconds = train(model, data, loss, make(model.parameters()), epochs)
        valid = mrr(model, data, 'valid')['both']
        if best is None or valid > best[0]:
            best = valid, {'label': f'{layer}, {LOSSES[loss]}', 'optimizer': name, 'valid_mrr': valid,
                           'test': mrr(model, data, 'test'), 'seconds': seconds, 'epochs': epochs, 'dim': dim}
    assert best is not None
    return best[1]


def main(arguments: Optional[Sequence[str]] = None) -> None:
    r"""Command line."""
    parser = argparse.ArgumentParser(description="EMU in PyG's own loop, beside PyG's own loss.")
    parser.add_argument('--epochs', type=int, default=60)
    parser.add_argument('--dim', type=int, default=100)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--layers', nargs='+', choices=LAYERS, default=[*LAYERS])
    parser.add_argument('--out', type=Path, default=RESULTS, help='where to write (default: %(default)s)')
    parser.add_argument('--smoke', action='store_true', help='one epoch of Nations; needs --out')
    options = parser.parse_args(arguments)
    if options.smoke:
        if options.out == RESULTS:
            parser.error('--smoke needs --out: its figures mean nothing')
        options.epochs, options.dim, options.seeds = 1, 4, [0]
    data = load_dataset('Nations' if options.smoke else 'UMLS')
    for seed in options.seeds:
        for layer in options.layers:
            for loss in LOSSES:
                metrics = measure(layer, loss, data, seed, options.epochs, options.dim)
                write_result(f'pyg_loop/{layer.lower()}-{loss}_seed{seed}', metrics, seed=seed, folder=options.out)
                print(f'seed {seed}, {metrics["label"]}: {metrics["test"]}', flush=True)


if __name__ == '__main__':
    main()
