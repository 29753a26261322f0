r"""The README's loop over PyG's own ``model.loader``: it trains both ends, and does not fall below PyG's own loss."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import kge

from pyg_emu import EMULoss, EMUNegatives, KGData, evaluate, load_dataset
from pyg_emu.ops import use_backend


def trained(layer: Any, data: KGData, emu: bool, epochs: int = 12) -> dict[str, float]:
    torch.manual_seed(0)
    model = layer(data.num_nodes, data.num_relations, 32)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    criterion, negatives = EMULoss(), EMUNegatives(num_negatives=16, mutation_rate=0.3)
    for _ in range(epochs):
        for h, r, t in model.loader(*data.facts('train').t(), batch_size=250, shuffle=True):
            batch = Data(head_index=h, rel_type=r, tail_index=t, num_nodes=data.num_nodes)
            optimizer.zero_grad()
            (criterion(model, negatives(batch)) if emu else model.loss(h, r, t)).backward()
            optimizer.step()
    found = evaluate(model, data, split='valid')
    return {side: found[f'{side}.mrr'] for side in ('head', 'tail')}


@pytest.mark.parametrize('layer', [kge.DistMult, kge.ComplEx, kge.TransE, kge.RotatE],
                         ids=lambda layer: layer.__name__)
def test_both_ends_gain(layer: Any) -> None:
    data = load_dataset('UMLS')
    with use_backend('torch'):
        own, emu = (trained(layer, data, emu) for emu in (False, True))
    for side in ('head', 'tail'):
        assert emu[side] > own[side], f'{side}: {emu}, {own}'
