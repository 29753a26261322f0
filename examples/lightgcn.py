r"""Recommends items with EMU: PyG's LightGCN on generated preferences. Takes less than a minute on one core.

.. code-block:: console

    python examples/lightgcn.py
    python examples/lightgcn.py --epochs 5 --uniform   # shorter, without EMU

Users and items are the entities of a graph with one relation. Items compete with items only, in training and in the
ranking, and items that the user has taken already do not compete.
"""
from __future__ import annotations

import argparse
from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.nn.models import LightGCN
from tqdm import trange

from pyg_emu import (
    CandidateSampler,
    CrossEntropyLoss,
    EMULoss,
    EMUNegatives,
    GNNEncoder,
    RelationCandidates,
    TripletLoader,
    evaluate,
    load_dataset,
)

USERS, ITEMS, TASTES, TAKEN = 200, 150, 8, 12


def preferences(seed: int = 0) -> Data:
    r"""Generates which items each user has taken: those that fit a mixture of a few tastes best, up to chance."""
    generator = torch.Generator().manual_seed(seed)
    user = torch.rand(USERS, TASTES, generator=generator).pow(4)
    item = torch.rand(ITEMS, TASTES, generator=generator).pow(4)
    fit = user @ item.t() / (user @ item.t()).std()
    taken = torch.multinomial((3 * fit).softmax(dim=1), TAKEN, generator=generator)
    heads = torch.arange(USERS).repeat_interleave(TAKEN)
    return Data(edge_index=torch.stack([heads, taken.flatten() + USERS]), num_nodes=USERS + ITEMS)


def main(epochs: int = 60, uniform: bool = False) -> Any:
    r"""Trains the model, prints the ranking of the test items, and returns its metrics.

    Args:
        epochs (int, optional): The number of epochs. (default: :obj:`60`)
        uniform (bool, optional): If set to :obj:`True`, trains without EMU. (default: :obj:`False`)
    """
    torch.manual_seed(0)
    # Messages pass from users to items and back.
    data = load_dataset(preferences(), fractions=(0.8, 0.1, 0.1)).with_inverse_relations()
    items = list(range(USERS, USERS + ITEMS))
    model = GNNEncoder(LightGCN(data.num_nodes, 32, num_layers=2), data.num_nodes,
                       encode=lambda gnn, graph: gnn.get_embedding(graph.edge_index))
    negatives = EMUNegatives(num_negatives=64, mutation_rate=0.0 if uniform else 0.3,
                             sampler=CandidateSampler(items, filtered=True))
    loader = TripletLoader(data, batch_size=500, shuffle=True, corrupt='tail', transform=negatives)
    criterion = CrossEntropyLoss() if uniform else EMULoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in trange(epochs, desc='epochs'):
        for batch in loader:
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()
    metrics = evaluate(model, data, sides=('tail', ), candidates=RelationCandidates(data, tails={0: items}))
    print(metrics)
    return metrics


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Train LightGCN with EMU on generated preferences.')
    parser.add_argument('--epochs', type=int, default=60)
    parser.add_argument('--uniform', action='store_true', help='train without EMU')
    main(**vars(parser.parse_args()))
