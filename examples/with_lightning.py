r"""The quickstart with Lightning's trainer instead of a loop. Requires the package lightning. Takes about a minute.

.. code-block:: console

    python examples/with_lightning.py
    python examples/with_lightning.py --epochs 5
"""
from __future__ import annotations

import argparse
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from torch_geometric.nn import DistMult  # PyG's own model, unmodified.

from pyg_emu import EMULoss, EMUNegatives, TripletLoader, evaluate, load_dataset
from pyg_emu.training.lightning import LinkPredictionModule


def main(epochs: int = 50, **options: Any) -> dict[str, float]:
    r"""Trains the model and returns the metrics of the test triples.

    Args:
        epochs (int, optional): The number of epochs. (default: :obj:`50`)
        **options (optional): Further arguments of Lightning's trainer.
    """
    seed_everything(0, verbose=False)
    data = load_dataset('UMLS')
    model = DistMult(data.num_nodes, data.num_relations, 100)
    loader = TripletLoader(data, batch_size=500, shuffle=True,
                           transform=EMUNegatives(num_negatives=64, mutation_rate=0.3))
    module = LinkPredictionModule(model, EMULoss(alpha=0.11, beta=0.53), loader,
                                  torch.optim.Adagrad(model.parameters(), lr=0.1),
                                  validate=lambda model: evaluate(model, data, split='valid'),
                                  test=lambda model: evaluate(model, data, split='test'))
    # Validation ranks facts, which takes longer than an epoch on a graph as small as UMLS.
    trainer = Trainer(max_epochs=epochs, check_val_every_n_epoch=5, num_sanity_val_steps=0, log_every_n_steps=10,
                      callbacks=[EarlyStopping('valid_mrr', mode='max', patience=5)], **options)
    trainer.fit(module)
    metrics, = trainer.test(module)
    return dict(metrics)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description="Train DistMult with EMU on UMLS by Lightning's trainer.")
    parser.add_argument('--epochs', type=int, default=50)
    main(**vars(parser.parse_args()))
