from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import rgcn
from benchmarks._record import read_result


def test_ratios_and_targets_worked_out_by_hand() -> None:
    rows = [{'graph': graph, 'contender': name, 'ms': ms} for graph, name, ms in (
        ('full graph', 'ours', 10.0), ('full graph', 'RGCNConv', 160.0), ('sample', 'ours', 2.0),
        ('sample', 'FastRGCNConv', 18.0), ('sample', 'RGCNConv', 8.0))]
    found = {name: (entry['value'], entry.get('kept')) for name, entry in rgcn.ratios_of(rows).items()}
    assert found == {'RGCNConv over ours, full graph': (16.0, True), 'FastRGCNConv over ours, sample': (9.0, False),
                     'RGCNConv over ours, sample': (4.0, None)}


def test_contenders_that_differ_are_not_timed() -> None:
    with pytest.raises(AssertionError):
        rgcn.compare('graph', {'ours': lambda: [torch.ones(1)], 'RGCNConv': lambda: [torch.zeros(1)]}, 1)


def test_smoke(tmp_path: Path) -> None:
    rgcn.main(['--smoke', '--out', str(tmp_path)])
    metrics = read_result('speed/rgcn', tmp_path)['metrics']
    assert {(row['graph'], row['contender']) for row in metrics['rows']} >= {
        ('full graph', 'RGCNConv'), ('sample', 'FastRGCNConv'), ('full graph, blocks', 'ours')}
    assert all(row['ms'] > 0 for row in metrics['rows']) and len(metrics['ratios']) == 6
    with pytest.raises(SystemExit):
        rgcn.main(['--smoke'])
