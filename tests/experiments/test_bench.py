from __future__ import annotations

import json

import pytest

from pyg_emu.core.errors import ArgumentError
from pyg_emu.experiments import bench as module
from pyg_emu.experiments.bench import BenchResult, Timing, bench
from pyg_emu.experiments.cli.main import main

SMALL = {'batch_size': 16, 'num_negatives': 4, 'hidden_channels': 8, 'seconds': 0.0, 'progress': False,
         'sizes': (30, 3, 100), 'device': 'cpu'}


def test_every_kind_of_step_is_timed() -> None:
    result = bench(**SMALL)  # type: ignore[arg-type]
    assert [timing.step for timing in result.timings] == [
        'uniform negatives, fused', 'EMU, fused', 'EMU, plain PyTorch']
    assert all(timing.steps >= 3 and 0 < timing.least_ms <= timing.ms for timing in result.timings)
    assert result.ratio == pytest.approx(result.timings[2].ms / result.timings[1].ms)
    assert result.machine['backend'] == 'numba' and result.machine['usable cores'] >= 1
    assert result.settings['entities'] == 30


def test_a_result_prints_as_a_table_and_as_json() -> None:
    result = BenchResult([Timing('EMU, fused', 12.34, 11.0, 40)], 18.24, {'backend': 'numba'}, {'model': 'DistMult'})
    assert all(part in str(result) for part in ('numba', 'DistMult', '12.3 ms', '40 steps', '18.2'))
    assert json.loads(json.dumps(result.to_dict()))['timings'][0]['ms'] == 12.34


def test_the_command_prints_what_was_measured(monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, 'SIZES', (30, 3, 100))
    monkeypatch.setattr(module.bench, '__kwdefaults__', {**module.bench.__kwdefaults__, 'sizes': (30, 3, 100)})
    flags = ['--batch-size', '16', '--negatives', '4', '--dim', '8', '--seconds', '0', '--device', 'cpu', '--quiet']
    assert main(['bench', *flags]) == 0
    assert 'plain PyTorch / fused' in capsys.readouterr().out
    assert main(['bench', '--json', *flags]) == 0
    assert json.loads(capsys.readouterr().out)['settings']['batch size'] == 16
    assert main(['bench', '--model', 'Dist', *flags]) == 2
    assert 'DistMult' in capsys.readouterr().err


@pytest.mark.parametrize(('changed', 'said'), [
    ({'model': 'NBFNet'}, 'model'), ({'batch_size': 0}, 'batch_size'), ({'seconds': -1.0}, 'seconds'),
    ({'seconds': float('inf')}, 'seconds'), ({'seed': -1}, 'seed'), ({'sizes': (30, 0, 100)}, 'sizes[1]')])
def test_wrong_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        bench(**{**SMALL, **changed})  # type: ignore[arg-type]
    assert said in str(caught.value)
