from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import large_facts
from benchmarks._record import read_result
from benchmarks.render_readme import TABLES, render


def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip('pyarrow')
    large_facts.main(['--smoke', '--out', str(tmp_path)])
    metrics = read_result('large_facts', tmp_path)['metrics']
    for stage in ('text', 'store'):
        found = metrics[stage]
        assert (found['facts'], found['relations']) == (3000, 5) and 100 < found['entities'] <= 200
        assert 0 < found['read_s'] and 0 < found['peak_gib'] < large_facts.MEMORY_BUDGET
        assert found['minutes'] == pytest.approx(sum(found[f'{part}_s'] for part in (
            'read', 'filters', 'edges', 'batch')) / 60)
    assert metrics['text']['entities'] == metrics['store']['entities'] and metrics['parquet']['write_s'] > 0
    assert all(0 < size < 0.01 for size in metrics['disk_gib'].values())
    assert '| 3,000 facts |' in render(TABLES['large-facts'], tmp_path)
    with pytest.raises(SystemExit):
        large_facts.main(['--smoke'])
