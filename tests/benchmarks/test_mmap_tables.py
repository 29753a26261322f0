from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import mmap_tables
from benchmarks._record import read_results
from benchmarks.render_readme import TABLES, render


def test_tables_and_their_limit() -> None:
    # Rows and sums of squares in float32.
    assert mmap_tables.table_bytes(argparse.Namespace(nodes=1000, channels=200)) == 1_600_000


def test_contenders_that_differ_are_not_recorded() -> None:
    rows = [{'sampling': 'own negatives', 'contender': name, 'losses': losses}
            for name, losses in (('in memory', [1.0, 0.5]), ('mapped', [1.0, 0.25]))]
    with pytest.raises(AssertionError, match='mapped'):
        mmap_tables.check(rows)


def test_smoke(tmp_path: Path) -> None:
    mmap_tables.main(['--smoke', '--out', str(tmp_path), '--folder', str(tmp_path / 'tables')])
    rows = [result['metrics'] for result in read_results('mmap_tables/*', tmp_path)]
    assert {(row['sampling'], row['contender']) for row in rows} == {
        (sampling, contender) for sampling in mmap_tables.SAMPLING for contender in mmap_tables.CONTENDERS}
    assert all(row['ms'] > 0 and row['mrr'] > 0 for row in rows)
    assert len({row['mrr'] for row in rows if row['sampling'] == 'own negatives'}) == 1
    assert 'shared negatives, mapped' in render(TABLES['mmap-tables'], tmp_path)
    assert [*(tmp_path / 'tables').iterdir()] == []
    with pytest.raises(SystemExit):
        mmap_tables.main(['--smoke'])
