r"""Trains a PyG model with EMU on UMLS and ranks the test triples. Takes about a minute on two cores.

.. code-block:: console

    python examples/quickstart.py
    python examples/quickstart.py --epochs 5 --uniform   # shorter, without EMU
"""
from __future__ import annotations

import argparse
from typing import Any

import torch
from torch_geometric.nn import DistMult  # PyG's own model, unmodified.
from tqdm import trange

from pyg_emu import CrossEntropyLoss, EMULoss, EMUNegatives, TripletLoader, evaluate, load_dataset


def main(epochs: int = 50, uniform: bool = False) -> Any:
    r"""Trains the model, prints the ranking of the test triples, and returns its metrics.

    Args:
        epochs (int, optional): The number of epochs. (default: :obj:`50`)
        uniform (bool, optional): If set to :obj:`True`, trains without EMU, on uniform negatives.
            (default: :obj:`False`)
    """
    torch.manual_seed(0)
    data = load_dataset('UMLS')  # A KGData with triples, splits and labels. A folder or a DataFrame works, too.
    model = DistMult(data.num_nodes, data.num_relations, 100)

    # Mutation replaces 30 % of the components of each negative by those of the positive (equation 6 of the paper).
    negatives = EMUNegatives(num_negatives=64, mutation_rate=0.0 if uniform else 0.3)
    loader = TripletLoader(data, batch_size=500, shuffle=True, transform=negatives)
    # The loss weights the unmutated negatives by alpha and labels the mutated ones beta (equations 12 and 21).
    criterion = CrossEntropyLoss() if uniform else EMULoss(alpha=0.11, beta=0.53)

    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for _ in trange(epochs, desc='epochs'):
        for batch in loader:
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()

    metrics = evaluate(model, data, split='test')  # Filtered ranking of heads and tails.
    print(metrics)
    return metrics


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Train DistMult with EMU on UMLS and rank the test triples.')
    parser.add_argument('--epochs', type=int, default=50)
    parser.add_argument('--uniform', action='store_true', help='train without EMU')
    main(**vars(parser.parse_args()))
