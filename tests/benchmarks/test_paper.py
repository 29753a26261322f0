from __future__ import annotations

from collections import Counter
from typing import Optional

import pytest

from benchmarks.paper import DATASETS, TABLES, Hyperparameters, Printed, Row, hyperparameters, rows


def row(source: str, dataset: str, model: str, method: str, channels: Optional[int] = None) -> Row:
    wanted = (source, dataset, model, method)
    found = [row for row in rows() if (row.source, row.dataset, row.model, row.method) == wanted
             and channels in (None, row.channels)]
    assert len(found) == 1
    return found[0]


def test_every_table_has_all_of_its_rows() -> None:
    count = Counter(row.source for row in rows())
    # Tables with a column for each dataset count their lines three times.
    assert count == {'Table 1': 12, 'Table 2': 3 * 8, 'Table 3': 3, 'Table 8': 3 * 16, 'Table 9': 3 * 2, 'Table 10': 8,
                     'Table 12': 7, 'Table 13': 16, 'Table 14': 8}
    assert [f'Table {number}' for number in TABLES] == list(count)
    assert {row.dataset for row in rows()} == set(DATASETS)


@pytest.mark.parametrize('place, mrr, hits', [
    (('Table 1', 'FB15k-237', 'DistMult', 'without_EMU', 1000), (0.327, None), (0.519, None)),
    (('Table 1', 'YAGO3-10', 'HAKE', 'EMU'), (0.499, None), (0.687, None)),
    (('Table 2', 'WN18RR', 'RotatE', 'uni_MIXUP'), (0.278, None), (0.428, None)),
    (('Table 3', 'FB15k-237', 'NBFNet', 'EMU'), (0.419, 0.002), (0.601, 0.002)),
    (('Table 8', 'FB15k-237', 'DistMult', 'uni_EMU'), (0.332, 0.001), (0.513, 0.001)),
    (('Table 8', 'FB15k-237', 'ComplEx', 'uni'), (0.306, 0.001), (0.486, 0.000)),
    (('Table 8', 'WN18RR', 'TransE', 'SAN'), (0.237, 0.001), (0.518, 0.002)),
    (('Table 8', 'YAGO3-10', 'TransE', 'uni'), (0.233, 0.001), (0.389, 0.005)),
    (('Table 8', 'YAGO3-10', 'RotatE', 'uni_EMU'), (0.391, 0.001), (0.609, 0.002)),
    (('Table 9', 'WN18RR', 'HAKE', 'uni_EMU'), (None, None), (0.526, 0.002)),
    (('Table 9', 'YAGO3-10', 'HAKE', 'uni'), (0.452, 0.005), (0.651, 0.004)),
    (('Table 10', 'FB15k-237', 'TransE', 'NSCaching_EMU'), (None, None), (0.467, 0.004)),
    (('Table 12', 'FB15k-237', 'DistMult', '0.11,0.914,0.1'), (0.314, None), (0.496, None)),
    (('Table 13', 'FB15k-237', 'TransE', 'without_mutation'), (0.308, None), (0.491, None)),
    (('Table 14', 'FB15k-237', 'DistMult', 'vanilla_LS'), (0.252, None), (0.410, None)),
], ids=lambda value: ' '.join(map(str, value)) if isinstance(value[0], str) else '')
def test_results_as_printed(place: tuple, mrr: tuple, hits: tuple) -> None:
    metrics = row(*place).metrics
    assert metrics['mrr'] == Printed(*mrr) and metrics['hits@10'] == Printed(*hits)


def test_hyperparameters_as_printed() -> None:
    assert hyperparameters('WN18RR', 'DistMult', emu=True) == Hyperparameters(5, 0.1, 0.0, 0.73, 0.94, 0.25)
    assert hyperparameters('FB15k-237', 'RotatE', emu=False) == Hyperparameters(5, 0.005, 1e-3)
    assert hyperparameters('YAGO3-10', 'ComplEx', emu=True) == Hyperparameters(6, 0.1, 0.0, 0.536, 0.804, 0.193)
    assert hyperparameters('FB15k-237', 'TransE', emu=False, nscaching=True) == Hyperparameters(11, 5e-4, 2e-2)
    assert hyperparameters('WN18RR', 'HAKE', emu=True) == Hyperparameters(
        7, 5e-5, 0.0, 0.1, 0.128, 0.964, channels=500, negatives=1024, batch_size=512, steps=80_000)
    with pytest.raises(KeyError, match='FB15k-237.*Table 11.*WN18RR'):
        hyperparameters('WN18RR', 'DistMult', emu=True, nscaching=True)
