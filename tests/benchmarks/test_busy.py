r"""The benchmark of steps beside busy processes, tiny; and its verdicts."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import busy
from benchmarks._record import read_result
from benchmarks.render_readme import TABLES, render


def test_all_conditions_are_measured_and_recorded(tmp_path: Path) -> None:
    busy.main(['--smoke', '--out', str(tmp_path)])
    for name in ('ours', 'eager'):
        metrics = read_result(f'busy/umls-{name}', tmp_path)['metrics']
        assert {'quiet', 'busy_1', 'busy_2', 'busy_4'} <= metrics['ms'].keys()
        assert all(value > 0 for value in metrics['ms'].values())
        assert metrics['ratios']['busy_2'] == pytest.approx(metrics['ms']['busy_2'] / metrics['ms']['quiet'])
    assert 'umls, ours' in render(TABLES['busy'], tmp_path)


def test_verdicts_worked_out_by_hand() -> None:
    entry = busy.summary({'quiet': 2.0, 'busy_1': 6.0, 'busy_2': 10.5, 'busy_4': 40.0})
    assert entry['ratios'] == {'busy_1': 3.0, 'busy_2': 5.25, 'busy_4': 20.0}
    assert entry['met'] == {'busy_1': True, 'busy_2': False}


def test_busy_processes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, '-c', 'import time; time.sleep(60)']))
        return started[-1]

    monkeypatch.setattr(busy.subprocess, 'Popen', start)
    with pytest.raises(KeyboardInterrupt), busy.busy(2):
        raise KeyboardInterrupt
    assert len(started) == 2 and all(process.poll() is not None for process in started)
