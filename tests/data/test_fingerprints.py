r"""Fingerprints tell facts apart, and are computed once."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.data import fingerprints
from pyg_emu.data.fingerprints import entities_fingerprint, facts_entry, facts_fingerprint
from pyg_emu.data.graph import KGData


def graph(*facts: tuple[int, int, int], **options: Any) -> KGData:
    head, relation, tail = torch.tensor(facts).t()
    return KGData(torch.stack([head, tail]), relation, 4, 2, **options)


def test_facts_in_any_order() -> None:
    one, other = graph((0, 0, 1), (2, 1, 3)), graph((2, 1, 3), (0, 0, 1))
    assert facts_entry(one, 'train') == facts_entry(other, 'train')
    for changed in (graph((0, 0, 1), (3, 1, 2)), graph((0, 0, 1), (2, 0, 3)), graph((0, 0, 1))):
        assert facts_fingerprint(changed, 'train') != facts_fingerprint(one, 'train')
    assert facts_fingerprint(one, 'valid') != facts_fingerprint(one, 'train') == facts_fingerprint(one, 'all')


def test_entities_by_their_labels() -> None:
    found = [entities_fingerprint(graph((0, 0, 1), entity_labels=labels)) for labels in (
        ['a', 'b', 'c', 'd'], ['b', 'a', 'c', 'd'], None)]
    assert len({*found}) == 3


def test_facts_are_sorted_once_until_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fingerprints, '_fingerprint', lambda data, split: asked.append(split) or str(len(asked)))
    data = graph((0, 0, 1), (2, 1, 3))
    assert [facts_fingerprint(data, 'train') for _ in range(3)] == ['1', '1', '1']
    data.edge_type[0] = 1
    assert facts_fingerprint(data, 'train') == '2' and asked == ['train', 'train']
