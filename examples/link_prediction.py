r"""Predicts links of a plain graph with EMU: PyG's GCN on RandomLinkSplit data. Takes half a minute on one core.

.. code-block:: console

    python examples/link_prediction.py
    python examples/link_prediction.py --epochs 20 --uniform   # shorter, without EMU

The graph says which characters of "Les Misérables" appear together, and how often: a link has a weight, which scales
its messages and its share of the loss. It comes with NetworkX, on which PyTorch depends.
"""
from __future__ import annotations

import argparse
from typing import Any

import networkx
import torch
from torch import Tensor
from torch_geometric.nn import GCNConv
from torch_geometric.transforms import RandomLinkSplit
from torch_geometric.utils import from_networkx
from tqdm import trange

from pyg_emu import CrossEntropyLoss, EMULoss, EMUNegatives, GNNEncoder, KGData, TripletLoader, evaluate, load_dataset


class Network(torch.nn.Module):
    r"""Two graph convolutions of learned features.

    Args:
        num_nodes (int): The number of nodes.
        channels (int): The width of all layers.
    """
    def __init__(self, num_nodes: int, channels: int) -> None:
        super().__init__()
        self.features = torch.nn.Embedding(num_nodes, channels)
        self.conv1, self.conv2 = GCNConv(channels, channels), GCNConv(channels, channels)

    def forward(self, graph: Any) -> Tensor:
        hidden = self.conv1(self.features.weight, graph.edge_index, graph.edge_weight).relu()
        return self.conv2(hidden, graph.edge_index, graph.edge_weight)


def parts(seed: int = 0) -> KGData:
    r"""Loads the graph, splits its links by RandomLinkSplit, and makes one relation of them."""
    graph = from_networkx(networkx.les_miserables_graph(), group_edge_attrs=None)
    graph.weight = graph.weight.float()
    torch.manual_seed(seed)
    split = RandomLinkSplit(num_val=0.1, num_test=0.1, is_undirected=True, add_negative_train_samples=False)
    return load_dataset(split(graph), weights='weight')


def main(epochs: int = 100, uniform: bool = False) -> Any:
    r"""Trains the model, prints the ranking of the test links, and returns its metrics.

    Args:
        epochs (int, optional): The number of epochs. (default: :obj:`100`)
        uniform (bool, optional): If set to :obj:`True`, trains without EMU. (default: :obj:`False`)
    """
    data = parts()
    model = GNNEncoder(Network(data.num_nodes, 32), data.num_nodes, encode=lambda network, graph: network(graph))
    negatives = EMUNegatives(num_negatives=32, mutation_rate=0.0 if uniform else 0.3)
    loader = TripletLoader(data, batch_size=500, shuffle=True, corrupt='both', transform=negatives)
    criterion = CrossEntropyLoss() if uniform else EMULoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in trange(epochs, desc='epochs'):
        for batch in loader:
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()
    # Links have no direction: a known link does not compete in reverse, either.
    metrics = evaluate(model, data, known_facts=data.facts('all')[:, [2, 1, 0]])
    print(metrics)
    return metrics


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Predict links of a plain graph with a GCN and EMU.')
    parser.add_argument('--epochs', type=int, default=100)
    parser.add_argument('--uniform', action='store_true', help='train without EMU')
    main(**vars(parser.parse_args()))
