from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from benchmarks import _cost_model, shards
from benchmarks._record import read_result, write_result


def test_exchanges_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, 'all_reduce', lambda value: 'sum')
    monkeypatch.setattr(dist, 'all_gather', lambda parts, value: 'parts')
    monkeypatch.setattr(dist, 'get_world_size', lambda: 4)
    exchanges, value = shards.Exchanges(), torch.zeros(10)
    with exchanges.counted():
        assert dist.all_reduce(value) == 'sum'
        assert dist.all_gather([value] * 4, value) == 'parts'
    assert dist.all_reduce(value) == 'sum'
    # 3/4 of 40 bytes there and back, and 40 bytes to each of the three others.
    assert (exchanges.calls, exchanges.sent) == (2, 60 + 120)


def result(processes: int, threads: int, times: tuple[float, float], **network: float) -> dict[str, object]:
    rows = [{'negatives': number, 'ms': ms, 'exchange_ms': 1.0, 'calls': 5, 'sent': 2e6}
            for number, ms in zip((64, 256), times)]
    return {'processes': processes, 'threads': threads, 'cores': 2, 'channels': 100, 'batch_size': 1000, 'rows': rows,
            'latency_ms': 0.0, 'bytes_per_ms': 0.0, **network}


def test_the_model_worked_out_by_hand(tmp_path: Path) -> None:
    alone, both = result(1, 1, (28.0, 52.0)), result(1, 2, (20.0, 30.0))
    # 24 ms for 192,000 more negatives: 125 ns each. 28 - 8 ms are left.
    repeated, each = _cost_model.constants(alone)
    assert (repeated, each) == (pytest.approx(20.0), pytest.approx(125e-6))
    assert _cost_model.predicted_ms(alone, alone, alone['rows'][1]) == pytest.approx(52.0)
    # Two threads halve what is computed, and not the traffic of the memory that they share.
    assert _cost_model.predicted_ms(alone, both, both['rows'][1]) == pytest.approx(10 + 32.0)
    # Four processes on two cores: 4 x 20 / 2 + 32, and five exchanges of 0.1 ms, and 2 MB at 1 MB a ms.
    four = result(4, 1, (50.0, 60.0), latency_ms=0.1, bytes_per_ms=1e6)
    assert _cost_model.predicted_ms(alone, four, four['rows'][1]) == pytest.approx(72 + 0.5 + 2.0)
    assert _cost_model.sent_bytes(1000, 256, 100, 2) == 4 * (400_000 + 256_000)
    for number, found in enumerate((alone, both, four)):
        write_result(f'shards/{number}', found, folder=tmp_path)
    text, results = _cost_model.checked(tmp_path)
    assert len(results) == 3 and 'c1 = 125 ns' in text and '| 4 | 1 | 256 | 60.0 | 74.5 | 1.24 | 2.00 |' in text
    assert _cost_model.checked(tmp_path / 'none') == ('', [])


def test_constants_are_never_negative() -> None:
    # A negative costs more where there are many: a line through both would begin below zero.
    repeated, each = _cost_model.constants(result(1, 1, (10.0, 50.0)))
    assert repeated == 0.0 and 10.0 / 64_000 < each < 50.0 / 256_000


def test_steps_on_gpus_add_up() -> None:
    for machine in _cost_model.MACHINES:
        step = _cost_model.gpu_step(machine, *_cost_model.STEP)
        assert step['step'] == pytest.approx(sum(step[key] for key in ('rows', 'repeated', 'latency', 'network')))
    # 87 million rows of 200 numbers and as many of their state, on 8 GPUs.
    held = _cost_model.gpu_gigabytes(_cost_model.MACHINES[0], *_cost_model.WIKIKG90M[::2], 200)
    assert held['rows'] == pytest.approx(17.4, abs=0.1) and held['facts'] == pytest.approx(12.1, abs=0.1)


def test_smoke(tmp_path: Path) -> None:
    shards.main(['--smoke', '--out', str(tmp_path), '--worlds', '1'])
    assert read_result('shards/one-thread', tmp_path)['metrics']['processes'] == 1
    found = read_result('shards/1', tmp_path)['metrics']
    assert [row['negatives'] for row in found['rows']] == [4, 8] and all(row['ms'] > 0 for row in found['rows'])
    assert all(row['calls'] == row['sent'] == 0 for row in found['rows'])
    for wrong in (['--smoke'], ['--negatives', '64', '64']):
        with pytest.raises(SystemExit):
            shards.main(wrong)
