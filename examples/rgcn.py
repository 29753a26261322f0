r"""Trains a graph encoder with EMU: R-GCN with a DistMult decoder on UMLS. Takes less than a minute on one core.

.. code-block:: console

    python examples/rgcn.py
    python examples/rgcn.py --epochs 2

The encoder runs once per step and returns a :class:`Decoder`, which is the input of the loss, of
:func:`~pyg_emu.evaluate` and of :func:`~pyg_emu.predict`. For your own encoder, write a similar decoder, or use
:class:`~pyg_emu.GNNEncoder` as in :obj:`link_prediction.py`.
"""
from __future__ import annotations

import argparse
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.nn import RGCNConv
from tqdm import trange

from pyg_emu import EMULoss, EMUNegatives, ScorerMixin, TripletLoader, evaluate, load_dataset
from pyg_emu.core.interaction import Dot


class Decoder(ScorerMixin):
    r"""DistMult on the entity embeddings of an encoder.

    Args:
        entities (torch.Tensor): The output of the encoder. shape: :obj:`(num_nodes, d)`.
        relations (torch.Tensor): The relation embeddings. shape: :obj:`(num_relations, d)`.
    """
    interaction = Dot()

    def __init__(self, entities: Tensor, relations: Tensor) -> None:
        self.entities, self.relations = entities, relations
        self.num_nodes, self.num_relations = entities.size(0), relations.size(0)

    def entity_table(self) -> Tensor:
        return self.entities

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return self.entities[known] * self.relations[rel_type]


class RGCN(torch.nn.Module):
    r"""Two layers of the R-GCN model from the `"Modeling Relational Data with Graph Convolutional Networks"
    <https://arxiv.org/abs/1703.06103>`_ paper on learned features.

    Args:
        num_nodes (int): The number of entities.
        num_relations (int): The number of relations, without inverse relations.
        hidden_channels (int): The embedding size.
    """
    def __init__(self, num_nodes: int, num_relations: int, hidden_channels: int) -> None:
        super().__init__()
        self.features = torch.nn.Parameter(torch.empty(num_nodes, hidden_channels))
        self.relations = torch.nn.Parameter(torch.empty(num_relations, hidden_channels))
        self.conv1 = RGCNConv(hidden_channels, hidden_channels, 2 * num_relations, num_bases=4)
        self.conv2 = RGCNConv(hidden_channels, hidden_channels, 2 * num_relations, num_bases=4)
        torch.nn.init.xavier_uniform_(self.features)
        torch.nn.init.xavier_uniform_(self.relations)

    def forward(self, graph: Any) -> Decoder:
        hidden = self.conv1(self.features, graph.edge_index, graph.edge_type).relu()
        return Decoder(self.conv2(hidden, graph.edge_index, graph.edge_type), self.relations)


def main(epochs: int = 30) -> Any:
    r"""Trains the model, prints the ranking of the test triples, and returns its metrics.

    Args:
        epochs (int, optional): The number of epochs. (default: :obj:`30`)
    """
    torch.manual_seed(0)
    data = load_dataset('UMLS')
    graph = data.with_inverse_relations()  # Messages pass along edges in both directions.
    model = RGCN(data.num_nodes, data.num_relations, 64)
    loader = TripletLoader(data, batch_size=1000, shuffle=True, transform=EMUNegatives(num_negatives=64))
    criterion = EMULoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in trange(epochs, desc='epochs'):
        for batch in loader:
            optimizer.zero_grad()
            criterion(model(graph), batch).backward()
            optimizer.step()
    with torch.no_grad():
        metrics = evaluate(model(graph), data)
    print(metrics)
    return metrics


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Train an R-GCN encoder with EMU on UMLS and rank the test triples.')
    parser.add_argument('--epochs', type=int, default=30)
    main(**vars(parser.parse_args()))
