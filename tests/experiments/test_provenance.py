r"""The description of a run's data recognises it, however it is held."""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import torch

from pyg_emu.data import index
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io import open_fact_store, write_fact_store
from pyg_emu.experiments.provenance import TrainedOn


def test_fingerprints_are_those_of_sorted_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(size, (90, ), generator=generator) for size in (5, 3, 5)])  # with duplicates
    data = KGData(facts[::2, :70], facts[1, :70], 5, 3, test_edge_index=facts[::2, 70:], test_edge_type=facts[1, 70:])
    whole = TrainedOn.of(data)
    monkeypatch.setattr(index, '_CHUNK', 7)
    mapped = open_fact_store(write_fact_store(data, tmp_path / 'store'))
    for found in (whole, TrainedOn.of(data), TrainedOn.of(mapped)):
        assert found.facts is not None
        for split in (*SPLITS, 'all'):
            rows = np.array(sorted(data.facts(split).tolist()), dtype='<i8').reshape(-1, 3)  # type: ignore[arg-type]
            expected = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
            assert found.facts[split] == {'number': len(rows), 'fingerprint': expected}


def test_other_weights_are_other_facts() -> None:
    edges, types = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 1, 0])
    weight = torch.tensor([1.0, 2.0, 0.5])

    def graph(order: list[int], weight: Optional[torch.Tensor]) -> KGData:
        return KGData(edges[:, order], types[order], 3, 2, edge_weight=weight)

    known = TrainedOn.of(graph([0, 1, 2], weight))
    assert known.changed_splits(graph([2, 0, 1], weight[[2, 0, 1]])) == []  # in another order
    for other in (weight[[2, 0, 1]], weight * 2, None):
        assert known.changed_splits(graph([0, 1, 2], other))[0].startswith('train')
