r"""Two processes take the steps of one, on the CPU, where everyone has Gloo."""
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pyg_emu.core.distributed import any_process, current, launched, local_device, on_first, process_group
from pyg_emu.core.errors import ArgumentError
from pyg_emu.experiments.cli.main import main
from pyg_emu.ops import use_backend
from tests.training.parallel import RUNS, make_data, make_trainer, train

ROOT = Path(__file__).resolve().parents[2]


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    r"""What :obj:`torchrun` sets. The loopback device is where Gloo finds it on any machine."""
    return {**os.environ, 'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(world),
            'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1'}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    r"""What each of two processes has come to."""
    folder, port = tmp_path_factory.mktemp('parallel'), free_port()
    processes = [subprocess.Popen([sys.executable, '-m', 'tests.training.parallel', str(folder)], cwd=ROOT,
                                  env=environment(rank, 2, port), stderr=subprocess.PIPE, text=True)
                 for rank in range(2)]
    try:
        told = [process.communicate(timeout=250)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(told)
    return [torch.load(folder / f'{rank}.pt', weights_only=False) for rank in range(2)]


@pytest.mark.parametrize('name', RUNS)
def test_same_steps_as_one_process(results: list[dict[str, Any]], name: str) -> None:
    with use_backend('torch'):
        expected = train(name)
    assert len(expected['loss']) == 12 and len(set(expected['loss'])) == 12
    for result in results:
        assert result['world'] == 2
        found = result['runs'][name]
        assert found['loss'] == pytest.approx(expected['loss'], rel=1e-9)
        assert found['valid'] == [pytest.approx(row, rel=1e-12) for row in expected['valid']]
        for value, other in zip(found['weights'], expected['weights'], strict=True):
            torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-9)
    # Not only alike: otherwise they would drift apart.
    pairs = zip(*(result['runs'][name]['weights'] for result in results), strict=True)
    assert all(torch.equal(value, other) for value, other in pairs)


def test_stops_and_goes_on_together(results: list[dict[str, Any]]) -> None:
    first, second = (result['interrupted'] for result in results)
    assert first['message'].startswith('another process: stopped after step 7 of 12; saved')
    assert second['message'].startswith('SIGTERM: stopped after step 7 of 12; saved')
    for found in (first, second):
        assert found['steps'] == 12 and len(found['loss']) == 12
        assert found['loss'] == found['expected'] and found['best'][0] == found['best'][1]
        assert all(map(torch.equal, found['weights'], found['whole']))


def test_one_writes(results: list[dict[str, Any]]) -> None:
    assert results[0]['writes'] > 20
    assert results[1]['writes'] == 0


@pytest.mark.parametrize('number, facts', [*enumerate([
    r'DivergenceError: .*loss.* NaN .*step 4\b',
    r'ArgumentError: .*random numbers .*step 4\b',
    r'DivergenceError: .*\(entity 0, relation 0, \?\) .*NaN',
    r'CheckpointError: .*run folder',
    r'ArgumentError: batch: ',
    r'ArgumentError: graph: ',
])])
def test_what_one_raises_all_raise(results: list[dict[str, Any]], number: int, facts: str) -> None:
    for result in results:
        assert re.match(facts, result['errors'][number]), result['errors'][number]


# The command line ############################################################


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--master_addr', '127.0.0.1',
               '--master_port', str(free_port()), '-m', 'pyg_emu', *arguments, '--device', 'cpu']
    return subprocess.run(command, cwd=cwd, env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
                          capture_output=True, text=True, timeout=250)


def test_command_line(tmp_path: Path) -> None:
    data = make_data()
    (tmp_path / 'graph').mkdir()
    for split in ('train', 'valid', 'test'):
        facts = data.facts('train' if split == 'train' else 'test').tolist()
        lines = (f'e{head}\tr{relation}\te{tail}\n' for head, relation, tail in facts)
        (tmp_path / 'graph' / f'{split}.txt').write_text(''.join(lines))
    arguments = ['train', '--data', str(tmp_path / 'graph'), '--dim', '4', '--negatives', '3', '--batch-size', '5',
                 '--steps', '6', '--evaluate-every', '2']
    two = torchrun(*arguments, '--run-dir', 'two', cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count('run folder: two') == two.stdout.count('best validation MRR') == 1
    assert two.stderr.count('6/6') == 1
    assert main([*arguments, '--run-dir', str(tmp_path / 'one'), '--quiet', '--device', 'cpu']) == 0
    losses = [pd.read_csv(tmp_path / name / 'history.csv')['loss'].tolist() for name in ('one', 'two')]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)

    ranked = torchrun('evaluate', 'two', '--json', '--quiet', cwd=tmp_path)
    assert ranked.returncode == 0, ranked.stderr
    assert json.loads(ranked.stdout) == json.loads((tmp_path / 'two' / 'metrics.json').read_text())['test']


# A single process ############################################################


def test_alone() -> None:
    with process_group('cpu') as place:
        assert (place.rank, place.world, place.device) == (0, 1, torch.device('cpu'))
    assert current() == (0, 1) and launched() == 1
    assert on_first(lambda: 7) == 7 and any_process(True) and not any_process(False)


def test_processes_that_have_not_joined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ArgumentError, match=r'torchrun .*\b2\b.* `with .*process_group\(\)'):
        make_trainer('mixup', run_dir=tmp_path / 'run').fit()
    assert not (tmp_path / 'run').exists()


def test_environment_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', 'two')
    with pytest.raises(ArgumentError, match="WORLD_SIZE: .*'two'"):
        launched()


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch, 'empty', lambda *args, **kwargs: None)  # each of the two could hold values
    assert local_device('cuda:1') == torch.device('cuda:1')  # alone
    monkeypatch.setenv('WORLD_SIZE', '8')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert local_device() == local_device('cuda') == torch.device('cuda:1')
    assert local_device('cpu') == torch.device('cpu')
    assert local_device('cuda:1') == torch.device('cuda:1')  # its own
    with pytest.raises(ArgumentError, match="device: .*8 processes.* got 'cuda:0'"):
        local_device('cuda:0')
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(ArgumentError, match='device: .*rank 2, .*2 GPUs.*--nproc_per_node'):
        local_device()
