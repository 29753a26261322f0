r"""Trains a layer of PyG with EMU on UMLS and ranks the test facts. About a minute on two cores.

.. code-block:: console

    python examples/quickstart.py
    python examples/quickstart.py --epochs 5 --uniform   # shorter; without EMU
"""
from __future__ import annotations

import argparse
from typing import Any

import torch
from torch_geometric.nn import DistMult  # PyG's own layer, unmodified
from tqdm import trange

from pyg_emu import CrossEntropyLoss, EMULoss, EMUNegatives, TripletLoader, evaluate, load_dataset


def main(epochs: int = 50, uniform: bool = False) -> Any:
    r"""Trains, prints the ranking of the test facts, and returns its metrics.

    Args:
        epochs (int, optional): How often to see each training fact. (default: :obj:`50`)
        uniform (bool, optional): Train without EMU, on uniform negatives alone. (default: :obj:`False`)
    """
    torch.manual_seed(0)
    data = load_dataset('UMLS')  # a KGData: facts, splits and labels; or a folder, or a DataFrame
    model = DistMult(data.num_nodes, data.num_relations, 100)

    # Mutation takes 30 % of the components of each negative from the true answer (equation 6 of the paper) ...
    negatives = EMUNegatives(num_negatives=64, mutation_rate=0.0 if uniform else 0.3)
    loader = TripletLoader(data, batch_size=500, shuffle=True, transform=negatives)
    # ... and the loss weighs the unmutated negatives by alpha and labels the mutated ones beta (equations 12 and 21).
    criterion = CrossEntropyLoss() if uniform else EMULoss(alpha=0.11, beta=0.53)

    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for _ in trange(epochs, desc='epochs'):
        for batch in loader:
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()

    metrics = evaluate(model, data, split='test')  # filtered, heads and tails
    print(metrics)
    return metrics


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Train DistMult with EMU on UMLS and rank the test facts.')
    parser.add_argument('--epochs', type=int, default=50)
    parser.add_argument('--uniform', action='store_true', help='train without EMU')
    main(**vars(parser.parse_args()))
