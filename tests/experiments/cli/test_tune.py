r"""The command that tunes, on a small generated graph."""
from __future__ import annotations

import argparse
import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Callable

import pandas as pd
import pytest

from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.cli.options import duration
from pyg_emu.experiments.layers import read_layer
from pyg_emu.training.trainer import Trainer

pytest.importorskip('optuna')

BASE = """\
description: A small recipe.
dataset: graph
model: {hidden_channels: 4}
negatives: {num_negatives: 3}
batch_size: 40
num_steps: 6
evaluate_every: 3
"""


@pytest.fixture
def work(tmp_path: Path, graph_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    r"""The working directory, with a graph in the folder :obj:`graph` and the recipe :obj:`base.yaml`."""
    (tmp_path / 'base.yaml').write_text(BASE)
    (tmp_path / 'space.yaml').write_text('loss.beta: {low: 0.05, high: 1.0}\noptimizer.lr: {factor: 5}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tune(work: Path) -> Callable[..., int]:
    return lambda *arguments: main(['tune', '--data', 'graph', '--study', 'study', '--quiet', '--device', 'cpu',
                                    *arguments])


def test_tune_then_train(tune: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['--recipe', 'base.yaml', '--search', 'space.yaml', '--steps', '4']
    assert tune(*arguments, '--trials', '2') == 0
    shown = capsys.readouterr()
    assert shown.err == '' and shown.out.startswith('study: study\n  loss.beta: 0.05 to 1\n')
    assert '2 trials: 2 complete' in shown.out and shown.out.endswith('best recipe: study/best.yaml\n')
    # The same command with more trials goes on.
    assert tune(*arguments, '--trials', '3') == 0
    assert '3 trials: 3 complete' in capsys.readouterr().out
    frame = pd.read_csv('study/trials.csv')
    assert frame['trial'].tolist() == [1, 2, 3] and frame['steps'].tolist() == [4, 4, 4]
    assert main(['train', '--recipe', 'study/best.yaml', '--run-dir', 'run', '--quiet', '--device', 'cpu']) == 0
    assert json.loads(Path('run/metrics.json').read_text())['valid']['mrr'] == frame['mrr'].max()


def test_progress_and_run_folder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['train', '--recipe', 'base.yaml', '--run-dir', 'run', '--quiet', '--device', 'cpu']) == 0
    capsys.readouterr()
    assert main(['tune', '--run-dir', 'run', '--study', 'study', '--trials', '2', '--set', 'loss.beta=0.2', '--set',
                 'loss.alpha=0.3', '--search', 'uls', '--device', 'cpu', '--metric', 'hits@1', '--timeout', '1h']) == 0
    shown = capsys.readouterr()
    assert 'tune:' in shown.err and '2/2' in shown.err
    lines = [line for line in shown.out.splitlines() if line.startswith('trial ')]
    assert len(lines) == 3 and lines[0].startswith('trial 1 of 2: hits@1 0.') and 'optimizer.lr 0.1' in lines[0]
    # What is set is not searched.
    best = read_layer(Path('study/best.yaml')).values
    assert best['loss']['beta'] == 0.2 and best['loss']['alpha'] == 0.3 and best['negatives']['mutation_rate'] == 0.0
    assert list(pd.read_csv('study/trials.csv').columns)[-2:] == ['optimizer.lr', 'loss.regularizer.weight']


def test_interrupted(tune: Callable[..., int], monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:
    step = Trainer._step

    def interrupting(self: Trainer, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    arguments = ['--recipe', 'base.yaml', '--search', 'space.yaml', '--trials', '1']
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, '_step', interrupting)
        assert tune(*arguments) == 130
    assert re.search('SIGINT: .*trial 1 of 1', capsys.readouterr().err)
    assert tune(*arguments) == 0 and '1 trial: 1 complete' in capsys.readouterr().out
    assert pd.read_csv('study/trials.csv')['loss.beta'].tolist() == [0.53]  # the recipe's own, as before


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['tune', '--search', 'list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'uls                 Unbounded label smoothing alone' in '\n'.join(lines) and len(lines) >= 6


@pytest.mark.parametrize('arguments, message', [
    (['--search', 'ul'], "'ul'"),
    (['--search', 'bad.yaml'], "bad.yaml:1: .*'loss.alph' .*'loss.alpha'"),
    (['--search', 'wide.yaml'], 'wide.yaml:1: negatives: mutation_rate: '),
    (['--set', 'loss.alph=1'], "--set loss.alph=1: .*'loss.alph' .*'loss.alpha'"),
    (['--set', 'loss=emu', '--search', 'beta.yaml'], 'beta.yaml: '),
    (['--steps', '0'], '--steps 0: num_steps: .* 1.* 0$'),
    (['--trials', '0'], 'trials: .* 1.* 0$'),
    (['--metric', 'mr'], 'metric: '),
    (['--run-dir', 'run'], '--recipe, --run-dir: '),
    (['--study', 'base.yaml/study'], 'base.yaml/study'),
    (['--device', 'no-such'], "device: 'no-such' "),
])
def test_refused(tune: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str],
                 message: str) -> None:
    Path('bad.yaml').write_text('loss.alph: {low: 0, high: 1}\n')
    Path('wide.yaml').write_text('negatives.mutation_rate: {low: 0, high: 2}\n')
    Path('beta.yaml').write_text('loss.beta: {low: 0, high: 1}\n')
    assert tune('--recipe', 'base.yaml', *arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith('pyg-emu: error: ') and error.count('\n') == 1
    assert not Path('study').exists()


@pytest.mark.parametrize('arguments, message', [
    (['--study', 'study'], '--recipe, --run-dir or --dataset'),
    (['--recipe', 'base.yaml'], '--study'),
    (['--run-dir', 'missing', '--study', 'study'], 'missing[:;] .*recipe.yaml'),
])
def test_what_is_missing(work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(['tune', *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['tune', '--help'])
    assert 'pyg-emu tune --recipe distmult-umls-emu --study runs/tune/umls' in capsys.readouterr().out


def test_durations() -> None:
    assert [duration(text) for text in ('90', '90s', '30m', '1.5h', '1h30m', '1d')] == [
        90.0, 90.0, 1800.0, 5400.0, 5400.0, 86400.0]
    for text in ('', 'h', '2 h', '-1h', '0s', 'two'):
        with pytest.raises(argparse.ArgumentTypeError, match=f'90s.*{re.escape(repr(text))}'):
            duration(text)
