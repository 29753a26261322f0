from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.runs import open_run

SMALL = ['--dim', '4', '--negatives', '3', '--batch-size', '40', '--steps', '6', '--evaluate-every', '6', '--quiet',
         '--device', 'cpu']
QUIET = ['--quiet', '--device', 'cpu']


@pytest.fixture
def run(tmp_path: Path, graph_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--data', 'graph', '--run-dir', 'run', *SMALL]) == 0
    with open('graph/train.txt', 'a') as file:
        file.write('d0\tr0\te1\n')
    capsys.readouterr()
    return 'run'


def test_extend_and_continue(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['train', '--extend', run, '--data', 'graph', '--set', 'metric=macro.mrr', *QUIET]) == 0
    out = capsys.readouterr().out
    assert 'entities: 12 of ' in out and ', 1 new' in out and 'validation macro.mrr ' in out
    assert open_run('runs/run-extended')[1].entity_labels[-1] == 'd0'
    command = ['train', '--extend', run, '--data', 'graph', '--set', 'metric=macro.mrr', '--steps', '9', *QUIET]
    assert main(command) == 0 and open_run('runs/run-extended')[2].num_steps == 9
    assert main(['evaluate', 'runs/run-extended', '--quiet']) == 0
    assert main(['train', '--run-dir', 'runs/run-extended', '--steps', '10', *QUIET]) == 0


def test_vectors(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    pd.DataFrame({'label': [f'e{number}' for number in range(12)], **{str(place): 0.5 for place in range(4)}}).to_csv(
        'rows.txt', sep=' ', index=False, header=False)
    Path('v.vec').write_text('12 4\n' + Path('rows.txt').read_text())
    command = ['train', '--data', 'graph', '--run-dir', 'warm', '--vectors', 'v.vec', *SMALL, '--lr', '1e-30']
    assert main(command) == 0
    assert '1 of 13 have no given vector' in capsys.readouterr().err
    model, data, _ = open_run('warm')
    assert model.node_emb.weight[data.entity_id('e5')].tolist() == [0.5] * 4


@pytest.mark.parametrize('flags, told', [
    (['--extend', 'run'], '--data'), (['--extend', 'gone', '--data', 'graph'], 'gone'),
    (['--extend', 'run', '--data', 'graph', '--recipe', 'distmult-umls-emu'], '--recipe'),
    (['--extend', 'run', '--data', 'graph', '--shard', 'entities'], '--shard'),
    (['--data', 'graph', '--optimizer-state', 'new'], '--optimizer-state'),
    (['--data', 'graph', '--vectors', 'gone.vec', '--steps', '2'], 'gone.vec'),
])
def test_wrong_flags(run: str, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['train', *flags, *QUIET]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count('error:') == 1
