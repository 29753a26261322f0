r"""Held-out facts that MPNE finds, against a count by hand."""
from __future__ import annotations

import pytest
import torch

from benchmarks.demix_estimation import estimate
from pyg_emu import DistMult, KGData
from pyg_emu.negatives.mutation import DeMixMutation


def test_counts_agree_with_a_loop() -> None:
    torch.manual_seed(0)
    num_nodes, num_relations = 9, 2
    facts = torch.unique(torch.stack([torch.randint(high, (40, )) for high in (num_nodes, num_relations, num_nodes)],
                                     dim=1), dim=0)
    facts = facts[torch.randperm(len(facts))]
    train, rest = facts[:18], facts[18:]
    data = KGData(train[:, [0, 2]].t(), train[:, 1], num_nodes, num_relations, valid_edge_index=rest[:5, [0, 2]].t(),
                  valid_edge_type=rest[:5, 1], test_edge_index=rest[5:, [0, 2]].t(), test_edge_type=rest[5:, 1])
    model = DistMult(num_nodes, num_relations, 4)
    found = estimate(model, data, DeMixMutation(delta=0.0, mu=1), block=3)
    table, relations = model.entity_table().detach(), list(model.embedding_weights())[1].detach()
    hits = alarms = held_out = 0
    known, seen = set(map(tuple, facts.tolist())), set(map(tuple, train.tolist()))
    for head, relation in {(h, r) for h, r, _ in rest.tolist()}:
        scores = (table[head] * relations[relation]) @ table.t()
        own = [scores[t] for h, r, t in seen if (h, r) == (head, relation)]
        if not own:
            continue
        low, mean = torch.stack(own).min(), torch.stack(own).mean()
        for tail in range(num_nodes):
            if (head, relation, tail) in seen:
                continue
            marginal, fact = bool(low <= scores[tail] <= mean), (head, relation, tail) in known
            held_out, hits, alarms = held_out + fact, hits + (marginal and fact), alarms + (marginal and not fact)
    counts = [found['tail'][key] for key in ('held_out', 'found', 'false_alarms')]
    assert counts == [held_out, hits, alarms]
    assert held_out > 0 and alarms > 0
    assert found['tail']['recall'] == pytest.approx(hits / held_out)
    assert found['both']['held_out'] == found['tail']['held_out'] + found['head']['held_out']
