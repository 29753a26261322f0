r"""Processes that divide the entity rows among themselves come to what one process comes to."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.ops import use_backend
from tests.training.sharded import (
    LOSSES,
    NUM_NODES,
    RANKED,
    TRAINED,
    WORLDS,
    answers,
    cut,
    loss_of,
    make_trainer,
    trained,
)
from tests.training.test_data_parallel import ROOT, environment, free_port

Results = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('sharded')


@pytest.fixture(scope='module')
def results(folder: Path) -> Results:
    r"""What each process has come to, by the number of processes."""
    with use_backend('torch'):
        for name in TRAINED:
            cut(name, folder / '1' / 'cut' / name)
    answers('DistMult')  # compiles kernels once, which the processes then find
    ports = [str(free_port()) for _ in WORLDS]
    done = subprocess.run([sys.executable, '-m', 'tests.training.sharded', str(folder), *ports], cwd=ROOT,
                          env=environment(0, 1, 0), stderr=subprocess.PIPE, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return {world: [torch.load(folder / f'{world}-{rank}.pt', weights_only=False) for rank in range(world)]
            for world in WORLDS}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    r"""Values by name: rows of all processes one below the other, others as they are in each of them."""
    whole = {}
    for name in parts[0]:
        values = [part[name].to_dense() for part in parts]
        if name.endswith('node_emb.rows'):
            whole[name.replace('rows', 'weight')] = torch.cat(values)
        else:
            assert all(torch.equal(value, values[0]) for value in values), name  # otherwise they would drift apart
            whole[name] = values[0]
    return whole


@pytest.mark.parametrize('world', WORLDS)
@pytest.mark.parametrize('name', LOSSES)
def test_loss_and_gradients(results: Results, name: str, world: int) -> None:
    with use_backend('torch'):
        expected = loss_of(name)
    found = [result['losses'][name] for result in results[world]]
    for one in found:
        torch.testing.assert_close(one['loss'], expected['loss'], rtol=1e-10, atol=0.0)
        assert torch.equal(one['drawn'], expected['drawn'])
    grads = joined([one['grads'] for one in found])
    assert grads.keys() == expected['grads'].keys()
    for key, grad in expected['grads'].items():
        torch.testing.assert_close(grads[key], grad, rtol=1e-8, atol=1e-12)
        assert grad.abs().max() > 0


@pytest.mark.parametrize('world', WORLDS)
def test_row_sparse_gradients_name_the_same_rows(results: Results, world: int) -> None:
    with use_backend('torch'):
        expected = loss_of('DistMult, EMU', sparse=True)['grads']['node_emb.weight'].coalesce()
    parts = [result['sparse']['grads']['node_emb.rows'] for result in results[world]]
    # The last of four has no rows.
    assert all(part.is_sparse for part in parts)
    chunk = -(-NUM_NODES // world)
    rows = torch.cat([part.coalesce().indices()[0] + rank * chunk for rank, part in enumerate(parts)])
    assert torch.equal(rows, expected.indices()[0])
    torch.testing.assert_close(torch.cat([part.to_dense() for part in parts]), expected.to_dense())


@pytest.mark.parametrize('world', WORLDS)
@pytest.mark.parametrize('name', RANKED)
def test_ranks_and_answers(results: Results, name: str, world: int) -> None:
    expected = answers(name)
    assert 0.0 < expected['all']['mrr'] < expected['some']['mrr'] and 'NaN' in expected['error']
    assert len(expected['new heads']['tail']) > len(expected['tails']['tail']) == 12
    for result in results[world]:
        assert result['answers'][name] == expected


def assert_same_run(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found['best'] == expected['best'] and found['history'].keys() == expected['history'].keys()
    for key, values in expected['history'].items():
        assert found['history'][key] == pytest.approx(values, rel=1e-9, nan_ok=True), key
    assert found['weights'].keys() == expected['weights'].keys()
    for key, value in expected['weights'].items():
        torch.testing.assert_close(found['weights'][key], value, rtol=1e-7, atol=1e-10)


@pytest.fixture(scope='module')
def expected() -> dict[str, dict[str, Any]]:
    r"""What one process comes to."""
    with use_backend('torch'):
        return {name: trained(make_trainer(name)) for name in TRAINED}


@pytest.mark.parametrize('world', WORLDS)
@pytest.mark.parametrize('name', TRAINED)
def test_same_steps(results: Results, expected: dict[str, Any], name: str, world: int) -> None:
    assert len(expected[name]['history']['step']) == 4
    for result in results[world]:
        assert_same_run(result['trained'][name], expected[name])


@pytest.mark.parametrize('world', WORLDS)
@pytest.mark.parametrize('name', TRAINED)
def test_other_processes_continue(results: Results, folder: Path, expected: dict[str, Any], name: str,
                                  world: int) -> None:
    for result in results[world]:
        assert_same_run(result['resumed'][f'{name} from 1'], expected[name])
        if world == 4:
            assert_same_run(result['resumed'][f'{name} from 2'], expected[name])
    with use_backend('torch'):  # and one
        run = folder / str(world) / 'cut' / name
        assert [path.name for path in (run / 'tables').iterdir()]
        assert_same_run(trained(make_trainer(name, run)), expected[name])
    assert not (run / 'tables').exists()
