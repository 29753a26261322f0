from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pyg_loop
from benchmarks._record import read_result
from benchmarks.render_readme import TABLES, render
from pyg_emu.ops import use_backend


def test_smoke(tmp_path: Path) -> None:
    with use_backend('torch'):
        pyg_loop.main(['--smoke', '--out', str(tmp_path), '--layers', 'DistMult', 'RotatE'])
    for layer in ('distmult', 'rotate'):
        for loss in pyg_loop.LOSSES:
            metrics = read_result(f'pyg_loop/{layer}-{loss}_seed0', tmp_path)['metrics']
            assert 0 < metrics['test']['heads'] < 1 and metrics['optimizer'] in pyg_loop.OPTIMIZERS
            both = (metrics['test']['heads'] + metrics['test']['tails']) / 2
            assert metrics['test']['both'] == pytest.approx(both)
    table = render(TABLES['pyg-loop'], tmp_path)
    assert "DistMult, PyG's own loss" in table and 'RotatE, EMULoss' in table


def test_smoke_writes_nothing_into_the_results() -> None:
    with pytest.raises(SystemExit):
        pyg_loop.main(['--smoke'])
