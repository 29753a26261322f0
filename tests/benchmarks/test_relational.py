from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import relational
from benchmarks._record import read_result, write_result
from pyg_emu.ops.relational import relational_conv


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relational, 'NUM_NODES', 30)
    monkeypatch.setattr(relational, 'NUM_FACTS', 200)
    monkeypatch.setattr(relational, 'NUM_RELATIONS', 5)
    # Chunks with fewer edges than the hubs.
    monkeypatch.setattr(relational, 'CHUNK_BYTES', 4 * 32 * 7)


@pytest.mark.parametrize('reduce', ['sum', 'mean', 'max', 'min', 'square'])
def test_gather_is_what_the_operator_computes(reduce: str) -> None:
    pytest.importorskip('torch_scatter')
    edges, generator = relational.graph(0), torch.Generator().manual_seed(1)
    x, relation = torch.randn(30, 1, 32, generator=generator), torch.randn(1, 10, 32, generator=generator)
    found = relational.gather(x, relation.transpose(0, 1).contiguous(), edges, reduce)
    aggregate = 'mean' if reduce == 'square' else reduce
    if reduce == 'square':
        x, relation = x.square(), relation.square()
    expected = relational_conv(x, relation, edges, aggregate=aggregate, backend='torch')  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_ratios_and_targets_worked_out_by_hand() -> None:
    seconds = {'sum': 1.0, 'pna': 1.25, 'mean': 1.0, 'max': 1.5, 'min': 1.5, 'gather_sum': 8.0, 'gather_four': 3.0,
               'sum_backward': 2.0, 'pna_backward': 6.0}
    ratios = relational.summary({name: {'seconds': value} for name, value in seconds.items()}, 'seconds')
    assert ratios == {'sum_speedup': 8.0, 'pna_speedup': 2.4, 'pna_speedup_over_own_passes': 4.0,
                      'pna_to_sum_forward': 1.25, 'pna_to_sum_forward_backward': 3.0}
    assert relational.reached(ratios) == {'sum_speedup': True, 'pna_speedup': False, 'pna_to_sum_forward': True,
                                          'pna_to_sum_forward_backward': False}


@pytest.mark.parametrize('name', ['sum', 'pna_backward', 'gather_four'])
def test_case_is_measured(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith('gather'):
        pytest.importorskip('torch_scatter')
    monkeypatch.setattr(sys, 'argv', ['relational', '--case', name, '--features', '32', '--repeats', '1'])
    relational.main()
    measured = json.loads(capsys.readouterr().out)
    assert measured['seconds'] > 0 and measured['cpu_seconds'] >= 0 and measured['peak_mib'] >= 0


def test_all_of_it_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    def measured(name: str, features: int, repeats: int, seed: int) -> dict[str, float]:
        return {'seconds': 2.0 if name.startswith('pna') else 1.0, 'cpu_seconds': 1.0, 'peak_mib': 3.0}

    monkeypatch.setattr(relational, 'measure_apart', measured)
    monkeypatch.setattr(relational, 'write_result', partial(write_result, folder=tmp_path))
    monkeypatch.setattr(sys, 'argv', ['relational', '--repeats', '1'])
    relational.main()
    for features in (512, 2048):
        metrics = read_result(f'relational/features-{features:04d}', tmp_path)['metrics']
        assert set(relational.CASES) < set(metrics)
        assert metrics['pna']['peak_mib'] == 3.0
        assert metrics['met'] == {'sum_speedup': False, 'pna_speedup': False, 'pna_to_sum_forward': False,
                                  'pna_to_sum_forward_backward': True}
    assert 'missed' in capsys.readouterr().out
