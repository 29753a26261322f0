from __future__ import annotations

from typing import Optional

import pytest
import torch

from pyg_emu.data.graph import KGData
from pyg_emu.experiments.report.metrics import relation_facts
from pyg_emu.experiments.report.summary import best_value, duration


@pytest.mark.parametrize('seconds, text', [(59.94, '59.9 s'), (60.0, '1.0 min'), (3570.0, '59.5 min'),
                                           (5400.0, '1.5 h')])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize('name, values, best', [
    ('mrr', [0.1, None, 0.3], 0.3), ('tail.mr', [4.0, 2.0, None], 2.0), ('count', [4.0, 2.0], None),
    ('mrr', [0.3, 0.3], None), ('mrr', [None, 0.3], None)])
def test_the_best_of_several_runs(name: str, values: list[Optional[float]], best: Optional[float]) -> None:
    assert best_value(values, name) == best


def test_kinds_and_numbers_of_facts_of_relations() -> None:
    # One head with three tails, one tail with two heads, and no fact.
    data = KGData(torch.tensor([[0, 0, 0, 1, 2], [1, 2, 3, 0, 0]]), torch.tensor([0, 0, 0, 1, 1]), 4, 3)
    assert relation_facts(data) == {0: ('1-N', 3), 1: ('N-1', 2), 2: ('', 0)}
