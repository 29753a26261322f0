r"""Processes that divide the entity rows among themselves come to what one process comes to."""
from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import CheckpointError
from pyg_emu.experiments.cli.main import main
from pyg_emu.models.sharded import _sharded, shard_entities, sharded_tables
from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint, load_weights, model_fingerprint, save_checkpoint
from tests.training.sharded import (
    LOSSES,
    NUM_NODES,
    RANKED,
    RESUMED,
    TRAINED,
    WORLDS,
    answers,
    cut,
    loss_of,
    make_data,
    make_trainer,
    trained,
)
from tests.training.test_data_parallel import ROOT, environment

Results = dict[int, list[dict[str, Any]]]

# One worker of xdist, so that the processes are started once.
pytestmark = pytest.mark.xdist_group('sharded')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('sharded')


@pytest.fixture(scope='module')
def results(folder: Path) -> Results:
    r"""What each process has come to, by the number of processes."""
    with use_backend('torch'):
        for name in RESUMED:
            cut(name, folder / '1' / 'cut' / name)
    answers('DistMult')  # compiles kernels once, which the processes then find
    write_graph(folder / 'commands' / 'graph')
    done = subprocess.run([sys.executable, '-m', 'tests.training.sharded', str(folder)], cwd=ROOT,
                          env=environment(0, 1, 0), stderr=subprocess.PIPE, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return {world: [torch.load(folder / str(world) / f'{rank}.pt', weights_only=False) for rank in range(world)]
            for world in WORLDS}


def write_graph(folder: Path) -> None:
    data = make_data()
    folder.mkdir(parents=True)
    for split in ('train', 'valid', 'test'):
        facts = data.facts(split).tolist()
        # All entities and relations occur in the training facts.
        more = [[entity, entity % 3, 0] for entity in range(NUM_NODES)] if split == 'train' else []
        lines = (f'e{head}\tr{relation}\te{tail}\n' for head, relation, tail in facts + more)
        (folder / f'{split}.txt').write_text(''.join(lines))


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
def test_rows_of_negatives_do_not_travel(results: Results, world: int) -> None:
    batch, negatives, width = 11, 6, 8
    for result in results[world]:
        *rows, scores, gradients = result['exchanged']
        # Known entities, once for both sides since DistMult's queries are the same, and positives.
        assert rows == 2 * [batch * width] and gradients == 2 * batch * width
        # Vanilla and mutated ones, of the process that has most of the negatives.
        assert 2 * batch * negatives / world <= scores < 2 * batch * negatives


@pytest.mark.parametrize('number, facts', [*enumerate([
    'ArgumentError: model: .*DistMult', 'ArgumentError: model: .*RGCN', r'ArgumentError: model: .*num_nodes=',
    'ArgumentError: plan.partner: ', "ArgumentError: entity table: .* 9 rows .*'mean'",
    r'RuntimeError: (?s:.*)node_emb.weight: .*\(4, 8\).*\(9, 8\)', r'ProcessError: .*rel_emb.weight.* step 3\b',
    r'ArgumentError: index: 9 .*\[0, 9\)'])])
def test_errors(results: Results, number: int, facts: str) -> None:
    for world in WORLDS:
        for result in results[world]:
            assert re.match(facts, result['errors'][number]), result['errors'][number]


@pytest.mark.parametrize('make', [*RANKED.values()])
def test_one_process_holds_everything(make: Any) -> None:
    torch.manual_seed(0)
    expected = make()
    torch.manual_seed(0)
    with torch.device('meta'):
        model = make()
    assert shard_entities(model) is model
    for key, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert [*sharded_tables(model)] == []


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
@pytest.mark.parametrize('name', RESUMED)
def test_other_processes_continue(results: Results, folder: Path, expected: dict[str, Any], name: str,
                                  world: int) -> None:
    for result in results[world]:
        assert_same_run(result['resumed'][f'{name} from 1'], expected[name])
        if world == 4:
            assert_same_run(result['resumed'][f'{name} from 2'], expected[name])
    run = folder / str(world) / 'cut' / name
    best = load_checkpoint(run / 'best.pt')
    first, second = expected[name]['history']['valid_mrr'][:2]
    assert best['step'] == (6 if second > first else 3)
    assert {path.name.split('-')[1] for path in (run / 'tables').iterdir()} == {'6', str(best['step'])}
    with use_backend('torch'):  # and one process
        assert_same_run(trained(make_trainer(name, run)), expected[name])
    # What no checkpoint refers to is gone.
    left = [path.name.split('-')[1] for path in (run / 'tables').iterdir()] if (run / 'tables').exists() else []
    assert left == ([str(expected[name]['best'])] if expected[name]['best'] <= 6 else [])


def test_one_process_opens_what_several_have_saved(results: Results, folder: Path) -> None:
    run = folder / '4' / 'from 2' / RESUMED[0]
    model = make_trainer(RESUMED[0]).model
    step = load_weights(run / 'last.pt', model)
    weights = results[4][0]['resumed'][f'{RESUMED[0]} from 2']['weights']
    assert step == 12 and all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('damage, fact', [(lambda file: file.write_bytes(file.read_bytes()[:-1] + b'?'), 'digest'),
                                          (lambda file: file.unlink(), 'No such file')])
def test_damaged_tables(results: Results, folder: Path, tmp_path: Path, damage: Any, fact: str) -> None:
    run = shutil.copytree(folder / '2' / 'from 1' / RESUMED[0], tmp_path / 'run')
    name = load_checkpoint(run / 'last.pt')['tables']['folder']
    for file in (run / 'tables' / name).iterdir():
        kept = file.read_bytes()
        damage(file)
        with pytest.raises(CheckpointError, match=f'(?s){re.escape(str(file))}.*{fact}'):
            load_weights(run / 'last.pt', make_trainer(RESUMED[0]).model)
        file.write_bytes(kept)


def test_metadata_that_would_run_code(results: Results, folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / '2' / 'from 1' / RESUMED[0], tmp_path / 'run')
    state = load_checkpoint(run / 'last.pt')
    file = run / 'tables' / state['tables']['folder'] / '.metadata'
    file.write_bytes(pickle.dumps(Path.unlink))
    state['tables']['files']['.metadata'] = hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest()
    save_checkpoint(run / 'last.pt', state, fingerprint=model_fingerprint(make_trainer(RESUMED[0]).model))
    with pytest.raises(CheckpointError, match=r'tables.* no metadata'):
        load_weights(run / 'last.pt', make_trainer(RESUMED[0]).model)


# Commands ####################################################################


def test_commands(results: Results, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (torch.load(folder / 'commands' / f'commands-{rank}.pt', weights_only=False) for rank in range(2))
    for name in ('train', 'evaluate', 'predict'):
        assert first[name][0] == second[name][0] == 0, (first[name], second[name])
        assert first[name][1] and not second[name][1]
    code, _, told = first['nothing to divide']
    assert code == 2 and 'NBFNet' in told and 'shard' in told
    # One process opens the same run.
    run = str(folder / 'commands' / 'commands')
    capsys.readouterr()
    with use_backend('torch'):
        assert main(['evaluate', run, '--json', '--quiet', '--device', 'cpu']) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(first['evaluate'][1])
        assert main(['predict', run, '--head', 'e1', '--relation', 'r1', '-k', '4', '--csv', '--device', 'cpu']) == 0
    found, wanted = (pd.read_csv(io.StringIO(text)) for text in (first['predict'][1], capsys.readouterr().out))
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-5)
    assert len(found) == 4
    record = json.loads((Path(run) / 'run.json').read_text())
    assert (record['processes'], record['shard']) == (2, 'entities') and 'tables' in record['files']


def test_a_killed_process_ends_the_job(results: Results, folder: Path, expected: dict[str, Any]) -> None:
    assert torch.load(folder / 'codes.pt') == [1, -signal.SIGKILL]
    assert torch.load(folder / 'seconds.pt') < 60
    message = (folder / 'commands' / 'error-0.txt').read_text()
    assert re.match(r'ProcessError: process 0 of 2 .*last checkpoint', message)
    run = folder / 'commands' / 'killed'
    assert load_checkpoint(run / 'last.pt')['step'] == 6
    with use_backend('torch'):
        assert_same_run(trained(make_trainer('RowAdam', run)), expected['RowAdam'])


def test_frozen_rows_stay_frozen() -> None:
    for frozen in (True, False):
        with torch.device('meta'):
            table = torch.nn.Embedding(5, 3).requires_grad_(not frozen)
        assert _sharded(table, 0, 2).rows.requires_grad is not frozen
