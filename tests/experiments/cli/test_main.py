r"""The commands, on a small generated graph; each is called as a function, some as a process."""
from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable

import pandas as pd
import pytest
import torch

from pyg_emu import load_dataset
from pyg_emu.core.errors import ArgumentError, DataWarning
from pyg_emu.data.labels import unknown_label
from pyg_emu.experiments.cli.advice import in_flags
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.layers import read_layer
from pyg_emu.experiments.runs import open_run
from pyg_emu.training.checkpoint import load_checkpoint
from pyg_emu.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
SMALL = ['--dim', '4', '--negatives', '3', '--batch-size', '40', '--steps', '6', '--evaluate-every', '3', '--quiet',
         '--device', 'cpu']


@pytest.fixture
def work(tmp_path: Path, graph_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    r"""The working directory, with a graph in the folder :obj:`graph`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(work: Path) -> Callable[..., int]:
    return lambda *arguments: main(['train', '--data', 'graph', '--run-dir', 'run', *SMALL, *arguments])


# What a user does ############################################################


def test_train_evaluate_predict(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert train('--model', 'complex', '--lr', '0.2', '--set', 'negatives.mask=exact') == 0
    shown = capsys.readouterr()
    assert 'run folder: run' in shown.out and 'best validation MRR' in shown.out and 'hits@10' in shown.out
    assert shown.err == ''
    recipe = read_layer(Path('run/recipe.yaml')).values
    assert recipe['model']['name'] == 'ComplEx' and recipe['optimizer']['lr'] == 0.2
    assert recipe['negatives']['mask'] == 'exact' and recipe['num_steps'] == 6

    assert main(['evaluate', '--run', 'run', '--quiet', '--json']) == 0
    metrics = json.loads(capsys.readouterr().out)
    recorded = json.loads(Path('run/metrics.json').read_text())
    assert metrics == recorded['test']
    assert main(['evaluate', 'run', '--split', 'valid', '--quiet', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['mrr'] == recorded['valid']['mrr']
    assert main(['evaluate', 'run', '--quiet', '--tie', 'pessimistic', '--max-triples', '4']) == 0
    assert 'triples: 4' in (table := capsys.readouterr().out) and 'pessimistic' in table

    assert main(['predict', '--run', 'run', '--head', 'e1', 'e2', '--relation', 'r0', '-k', '3', '--csv']) == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert frame['head'].tolist() == ['e1'] * 3 + ['e2'] * 3 and frame['rank'].tolist() == [1, 2, 3] * 2
    assert main(['predict', 'run', '--tail', 'e1', '--relation', 'r0', '--exclude-known']) == 0
    assert 'e1' in (table := capsys.readouterr().out) and 'train' not in table


@pytest.mark.parametrize('model', ['distmult', 'NBFNet'])
def test_relations_between_two_entities_are_ranked(train: Callable[..., int], capsys: pytest.CaptureFixture[str],
                                                   model: str) -> None:
    assert train('--model', model, *(['--set', 'model.num_layers=2'] if model == 'NBFNet' else [])) == 0
    capsys.readouterr()
    assert main(['predict', 'run', '--head', 'e1', '--tail', 'e2', 'e3', '--csv', '--quiet']) == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert frame['tail'].tolist() == ['e2'] * 3 + ['e3'] * 3 and set(frame['relation']) == {'r0', 'r1', 'r2'}
    assert frame['head'].eq('e1').all() and frame['rank'].tolist() == [1, 2, 3] * 2
    # Each score is that of the same fact as an answer to another question.
    for _, row in frame.iterrows():
        assert main(['predict', 'run', '--head', 'e1', '--relation', row['relation'], '-k', '12', '--csv']) == 0
        tails = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index('tail')
        assert tails.loc[row['tail'], 'score'] == pytest.approx(row['score'], rel=1e-4, abs=1e-5)
    # With the graph of the training alone, as known facts decide what NBFNet's paths run over.
    assert main(['predict', 'run', '--head', 'e1', '--tail', 'e2', '-k', '1']) == 0
    assert capsys.readouterr().out.count('\n') == 2


def test_report_of_the_data_at_the_start_of_a_run(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loud = [flag for flag in SMALL if flag != '--quiet']
    assert main(['train', '--data', 'graph', '--run-dir', 'run', *loud]) == 0
    shown = capsys.readouterr().err
    assert load_dataset('graph').report().summary() in shown and '12 entities, 3 relations' in shown
    assert main(['train', '--data', 'graph', '--run-dir', 'again', *SMALL]) == 0
    assert capsys.readouterr().err == ''


def test_complete_run_is_announced(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loud = [flag for flag in SMALL if flag != '--quiet']
    for told in (False, True):
        assert main(['train', '--data', 'graph', '--run-dir', 'run', *loud]) == 0
        line = 'run: complete after 6 steps; nothing to train (--fresh or resume=False starts over)\n'
        assert (line in capsys.readouterr().err) == told


def test_run_on_other_data_is_named(train: Callable[..., int], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    (work / 'other').mkdir()
    for split in ('train', 'valid', 'test'):
        (work / 'other' / f'{split}.txt').write_text((work / 'graph' / f'{split}.txt').read_text().replace('r', 'x'))
    assert train('--data', 'other') == 2
    told = capsys.readouterr().err
    assert "run contains a run on other data (its relation 0 is 'x" in told
    assert 'choose another run folder, or start over with --fresh' in told
    assert train('--data', 'other', '--fresh') == 0


def test_nbfnet_from_training_to_its_paths(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / 'other').mkdir()
    for split in ('train', 'valid', 'test'):  # other names, and a relation less, so that it would be numbered otherwise
        lines = (work / 'graph' / f'{split}.txt').read_text().replace('e', 'x').splitlines(keepends=True)
        (work / 'other' / f'{split}.txt').write_text(''.join(line for line in lines if '\tr0\t' not in line))
    assert main(['train', '--data', 'graph', '--inference', 'other', '--model', 'nbfnet', '--run-dir', 'run', *SMALL,
                 '--set', 'model.num_layers=2']) == 0
    assert 'graph: training facts of other' in capsys.readouterr().out
    recorded = json.loads(Path('run/metrics.json').read_text())

    assert main(['evaluate', 'run', '--quiet', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == recorded['test']
    assert main(['evaluate', 'run', '--quiet', '--json', '--data', 'other']) == 0
    assert json.loads(capsys.readouterr().out) == recorded['test']
    assert main(['evaluate', 'run', '--quiet', '--json', '--split', 'valid']) == 0
    valid = json.loads(capsys.readouterr().out)
    assert valid['mrr'] == recorded['valid']['mrr'] and valid['info']['graph'] == 'training facts of graph'
    assert main(['evaluate', 'run', '--quiet', '--json', '--data', 'graph']) == 0
    assert json.loads(capsys.readouterr().out)['info']['filtered by'] == 'all', 'the graph that was trained on'

    assert main(['predict', 'run', '--head', 'x1', '--relation', 'r2', '-k', '3', '--csv']) == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert frame['head'].tolist() == ['x1'] * 3 and frame['rank'].tolist() == [1, 2, 3]
    assert main(['predict', 'run', '--data', 'graph', '--tail', 'e1', '--relation', 'r0', '-k', '1', '--csv']) == 0
    assert ',r0,e1,' in capsys.readouterr().out

    fact = ['--head', 'e1', '--relation', 'r0', '--tail', 'e2']
    assert main(['explain', '--run', 'run', '--data', 'graph', *fact, '-k', '3', '--out', 'paths.png']) == 0
    first, *paths = capsys.readouterr().out.splitlines()
    assert first.startswith('(e1, r0, e2) scores ') and 1 <= len(paths) <= 3
    assert all(path.split(maxsplit=1)[1].startswith('e1 -[') and path.endswith(']-> e2') for path in paths)
    assert Path('paths.png').read_bytes().startswith(b'\x89PNG')
    assert main(['explain', 'run', '--data', 'graph', *fact, '--side', 'head', '--csv']) == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(frame) == ['weight', 'length', 'path'] and frame['weight'].is_monotonic_decreasing
    assert frame['path'].str.startswith('e2 -[').all() and (frame['length'] <= 2).all()


@pytest.mark.parametrize('arguments, message', [
    (['--head', 'e1', '--relation', 'r0', '--tail', 'e99'], "graph: .*entity 'e99'"),
    (['--head', 'e1', '--relation', 'r9', '--tail', 'e2'], "graph: .*relation 'r9'"),
    (['--head', 'e1', '--relation', 'r0', '--tail', 'e2', '-k', '0'], '-k 0: .* 1'),
    (['--head', 'e1', '--relation', 'r0', '--tail', 'e2', '--out', 'paths.xyz'], r'--out paths\.xyz: '),
    (['--head', 'e1', '--relation', 'r0', '--tail', 'e2', '--out', 'no/paths.png'], r'--out no/paths\.png: '),
])
def test_explain_refuses(train: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str],
                         message: str) -> None:
    train('--model', 'NBFNet', '--set', 'model.num_layers=1', '--steps', '1')
    capsys.readouterr()
    assert main(['explain', 'run', *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count('\n') == 1


def test_no_paths(train: Callable[..., int], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(work / 'graph' / 'train.txt', 'a') as file:
        file.write('f1\tr0\tf2\n')
    train('--model', 'NBFNet', '--set', 'model.num_layers=1', '--steps', '1')
    assert main(['explain', 'run', '--head', 'e1', '--relation', 'r0', '--tail', 'f1']) == 0
    assert ' 1 edge ' in capsys.readouterr().out


def test_explain_needs_a_model_that_reads_a_graph(train: Callable[..., int],
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    train()
    capsys.readouterr()
    assert main(['explain', 'run', '--head', 'e1', '--relation', 'r0', '--tail', 'e2']) == 2
    error = capsys.readouterr().err
    assert 'DistMult' in error and 'NBFNet' in error


def test_run_is_found_from_another_folder(train: Callable[..., int], work: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    train()
    (work / 'elsewhere').mkdir()
    monkeypatch.chdir(work / 'elsewhere')
    assert main(['evaluate', '../run', '--quiet']) == 0
    # Moved data is found again with a flag.
    (work / 'graph').rename(work / 'moved')
    assert main(['evaluate', '../run', '--quiet']) == 2
    assert 'graph' in capsys.readouterr().err
    assert main(['evaluate', '../run', '--quiet', '--data', '../moved']) == 0


def test_labels_that_look_like_numbers(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ('train', 'valid', 'test'):
        path = work / 'graph' / f'{split}.txt'
        path.write_text(path.read_text().replace('e', '').replace('r', ''))
    assert main(['train', '--data', 'graph', '--run-dir', 'run', *SMALL]) == 0
    assert main(['predict', 'run', '--head', '1', '--relation', '0', '-k', '2', '--csv']) == 0
    assert capsys.readouterr().out.count('\n1,0,') == 2


def test_interruption_outside_of_a_run(train: Callable[..., int], monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(self: Trainer, resume: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, 'fit', interrupted)
    assert train() == 130
    assert capsys.readouterr().err.splitlines()[-1] == 'pyg-emu: interrupted'


def test_same_command_continues(train: Callable[..., int], monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    step, calls = Trainer._step, []

    def interrupting(self: Trainer, batch: Any) -> None:
        calls.append(batch.step)
        step(self, batch)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, '_step', interrupting)
    assert train() == 130
    assert re.search('SIGINT: .*step 4 of 6.*run/last.pt', capsys.readouterr().err)
    # Without settings as well: they stand in the folder.
    assert main(['train', '--run-dir', 'run', '--quiet', '--device', 'cpu']) == 0
    assert calls == [0, 1, 2, 3, 4, 5]
    cut = load_checkpoint('run/last.pt')['model']
    assert train('--fresh') == 0 and len(calls) == 12
    assert all(torch.equal(value, cut[name]) for name, value in load_checkpoint('run/last.pt')['model'].items())


def test_recipe_and_default_folder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / 'mine.yaml').write_text('base: distmult-umls-emu\nloss: {beta: 0.2}\n')
    assert main(['train', '--recipe', 'mine.yaml', '--data', 'graph', '--seed', '3', '--rate', '0.5', '--l3', '1e-4',
                 '--patience', '2', '--schedule', 'cosine', *SMALL]) == 0
    recipe = read_layer(Path('runs/mine-seed3/recipe.yaml')).values
    assert recipe['loss'] == {'name': 'emu', 'alpha': 0.11, 'beta': 0.2, 'divide_by_negatives': True,
                              'regularizer': {'name': 'l3', 'weight': 1e-4}, 'mutate_vectors': False}
    assert recipe['negatives']['mutation_rate'] == 0.5 and recipe['schedule']['name'] == 'cosine'
    assert main(['train', '--data', 'graph', *SMALL]) == 0
    assert Path('runs/distmult-graph-emu-seed0/last.pt').exists()


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['recipes', 'list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith('distmult-fb15k237-emu  ') for line in lines) and len(lines) >= 10
    assert main(['recipes', 'show', 'distmult-umls-emu']) == 0
    assert 'base: distmult-umls-uniform' in capsys.readouterr().out
    assert main(['recipes', 'show', 'distmult-umls-emu', '--resolved']) == 0
    assert 'divide_by_negatives: true' in capsys.readouterr().out


# Bad input: one line, code 2 #################################################


@pytest.mark.parametrize('arguments, message', [
    ([], '--dataset, --recipe, or --run-dir'),
    (['--data', 'missing'], "dataset 'missing'"),
    (['--data', './missing'], 'missing: '),
    (['--recipe', 'distmult-uml-emu'], "'distmult-uml-emu'.*'distmult-umls-emu'"),
    (['--data', 'graph', '--model', 'distmul'], "--model distmul: .*'distmul'.*'DistMult'"),
    (['--data', 'graph', '--dim', 'x'], "--dim x: model.hidden_channels: .* 'x'$"),
    (['--data', 'graph', '--dim', '0'], 'model: hidden_channels: .* 1.* 0$'),
    (['--data', 'graph', '--lr', '-1'], '--lr -1: optimizer.lr: .* 0.* -1.0$'),
    (['--data', 'graph', '--lr', '.inf'], '--lr .inf: optimizer.lr: .* 0.* inf$'),
    (['--data', 'graph', '--rate', '1.5'], '--rate 1.5: negatives: mutation_rate: '),
    (['--data', 'graph', '--rate', '.nan'], r'\[0, 1\]'),
    (['--data', 'graph', '--alpha', '-0.1'], '--alpha -0.1: loss: alpha: '),
    (['--data', 'graph', '--beta', '.nan'], '--beta .nan: loss: beta: '),
    (['--data', 'graph', '--negatives', '0'], 'num_negatives: .* 1.* 0$'),
    (['--data', 'graph', '--steps', '0'], '--steps 0: num_steps: .* 1.* 0$'),
    (['--data', 'graph', '--seed', '-1'], '--seed -1: seed: .* -1$'),
    (['--data', 'graph', '--loss', 'bce', '--alpha', '1'], "--alpha 1: .*'loss.alpha' .*bce"),
    (['--data', 'graph', '--set', 'negatives.mutation_rat=1'], "'negatives.mutation_rat'.*'negatives.mutation_rate'"),
    (['--data', 'graph', '--model', 'NBFNet', '--loss', 'emu'],
     '--loss emu: loss.name: emu .*NBFNet.* nbfnet_bce, nbfnet_emu'),
    (['--data', 'graph', '--model', 'NBFNet', '--l3', '0.1'], "--l3 0.1: .*'loss.regularizer' .*nbfnet_emu"),
    (['--data', 'graph', '--loss', 'nbfnet_bce'], '--loss nbfnet_bce: loss.name: nbfnet_bce .*DistMult'),
    (['--data', 'graph', '--inference', 'graph'], 'inference: DistMult '),
    (['--data', 'graph', '--model', 'NBFNet', '--inference', 'gone'], "dataset 'gone'"),
    (['--data', 'graph', '--set', 'seed'], 'KEY=VALUE'),
    (['--data', 'graph', '--run-dir', 'graph/train.txt/run'], 'graph/train.txt/run'),
    (['--data', 'graph', '--device', 'no-such'], "device: 'no-such' "),
    (['--data', 'graph/train.txt', '--set', 'dataset={source: graph, oops: 1}'], 'oops'),
])
def test_train_refuses(work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(['train', '--steps', '2', *arguments, '--quiet']) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith('pyg-emu: error: ') and error.count('\n') == 1


@pytest.mark.parametrize('break_data, message', [
    (lambda folder: (folder / 'valid.txt').unlink(), 'valid'),
    (lambda folder: (folder / 'train.txt').write_text(''), 'train.txt'),
    (lambda folder: (folder / 'train.txt').write_text('a\tb\tc\na\tb\n'), 'train.txt:2'),
    (lambda folder: (folder / 'train.txt').write_bytes(b'a\tb\tc\na\tb\t\xff\n'), 'train.txt:2'),
])
def test_bad_data(train: Callable[..., int], work: Path, capsys: pytest.CaptureFixture[str],
                  break_data: Callable[[Path], Any], message: str) -> None:
    break_data(work / 'graph')
    assert train() == 2
    error = capsys.readouterr().err
    assert message in error and error.splitlines()[-1].startswith('pyg-emu: error: ') and 'Traceback' not in error


def test_training_without_test_facts_says_so(train: Callable[..., int], work: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    (work / 'graph' / 'test.txt').unlink()
    assert train('--set', 'dataset.require_splits=[train, valid]') == 0
    assert 'no test facts' in capsys.readouterr().out


def test_train_without_validation_facts(train: Callable[..., int], work: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    (work / 'graph' / 'valid.txt').unlink()
    assert train('--set', 'dataset.require_splits=[train, test]') == 0
    shown = capsys.readouterr().out
    assert re.search('validation facts.*step 6', shown) and 'hits@10' in shown


def test_warnings_take_one_line(train: Callable[..., int], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = work / 'graph' / 'train.txt'
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + '\n')
    assert train() == 0
    lines = capsys.readouterr().err.splitlines()
    assert any('duplicate' in line for line in lines)
    assert all(line.startswith('pyg-emu: warning: ') for line in lines)


def test_run_with_other_settings(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    train()
    assert train('--lr', '0.7') == 2
    assert re.search(r'run .*\boptimizer\.lr: 0\.7.* 0\.1\b', capsys.readouterr().err)


@pytest.mark.parametrize('spoil, message', [
    (lambda run: os.truncate(run / 'best.pt', 200), 'best.pt .*damaged'),
    (lambda run: torch.save({'weight': torch.ones(1)}, run / 'best.pt'), "best.pt .*'weight'"),
    (lambda run: (run / 'recipe.yaml').unlink(), 'run; .*recipe.yaml'),
    (lambda run: (run / 'recipe.yaml').write_text('datset: x\n'), "run/recipe.yaml:1: .*'datset'"),
])
def test_spoilt_run(train: Callable[..., int], capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any],
                    message: str) -> None:
    train()
    spoil(Path('run'))
    for command in (['evaluate', 'run', '--quiet'], ['predict', 'run', '--head', 'e1', '--relation', 'r0']):
        capsys.readouterr()
        assert main(command) == 2
        error = capsys.readouterr().err
        assert re.search(message, error) and error.count('\n') == 1


@pytest.mark.parametrize('name', ['metrics.json', 'trained_on.json', 'run.json', 'versions.json', 'history.csv'])
@pytest.mark.parametrize('content', ['', '{', '[1, 2]', '5', 'null', '{"steps": "x", "best_step": [], "files": 3}',
                                     '\x00\x01', 'truncated'])
def test_damaged_text_files_of_a_run(train: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str,
                                     content: str) -> None:
    train()
    path = Path('run') / name
    before = path.read_bytes()
    path.write_bytes(before[:len(before) // 2] if content == 'truncated' else content.encode())
    for command in (['evaluate', 'run', '--quiet'], ['predict', 'run', '--head', 'e1', '--relation', 'r0'],
                    ['diff', 'run', 'run'],
                    ['train', '--run-dir', 'run', '--steps', '9', '--quiet', '--device', 'cpu']):
        capsys.readouterr()
        code = main(command)
        error = capsys.readouterr().err
        assert code in (0, 2) and 'Traceback' not in error
        if code == 2:
            assert name in error.splitlines()[-1] and error.splitlines()[-1].startswith('pyg-emu: error: ')


@pytest.mark.parametrize('taken, place', [('best.pt', 'last.pt'), ('last.pt', 'best.pt')])
def test_checkpoint_in_the_place_of_the_other_one(train: Callable[..., int], capsys: pytest.CaptureFixture[str],
                                                  taken: str, place: str) -> None:
    train()
    Path('run', place).write_bytes(Path('run', taken).read_bytes())
    which = ['--checkpoint', 'last'] if place == 'last.pt' else []
    for command in (['evaluate', 'run', '--quiet', *which],
                    ['train', '--run-dir', 'run', '--steps', '9', '--quiet', '--device', 'cpu']):
        capsys.readouterr()
        assert main(command) == 2
        error = capsys.readouterr().err
        assert place in error and error.startswith('pyg-emu: error: ') and error.count('\n') == 1


def test_long_labels_make_short_messages(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    train()
    capsys.readouterr()
    assert main(['predict', 'run', '--head', 'x' * 100_000, '--relation', 'r0']) == 2
    error = capsys.readouterr().err
    assert 'xxx' in error and len(error) < 1000 and error.count('\n') == 1
    assert main(['predict', 'run', '--data', 'x' * 300, '--head', 'e1', '--relation', 'r0']) == 2
    assert main(['evaluate', 'x' * 300]) == 2 and main(['data', 'x' * 300]) == 2
    error = capsys.readouterr().err
    assert error.count('xxx') >= 3 and error.count('\n') == 3 and len(error) < 3000


@pytest.mark.parametrize('arguments, message', [
    (['--head', 'e99', '--relation', 'r0'], "graph: --head: .*entity 'e99'"),
    (['--head', 'e1', '--relation', 'r9'], "graph: --relation: .*relation 'r9'"),
    (['--head', 'e1', '--tail', 'e99'], "graph: --tail: .*entity 'e99'"),
    (['--head', 'e1', '--tail', 'e2', '--relation', 'r0'], 'got --head, --relation, --tail'),
    (['--relation', 'r0'], 'got --relation'),
    (['--head', 'e1'], 'got --head'),
    ([], 'got none'),
    (['--head', 'e1', '--relation', 'r0', '-k', '0'], 'k: .* 1.* 0$'),
])
def test_predict_refuses(train: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str],
                         message: str) -> None:
    train()
    capsys.readouterr()
    assert main(['predict', '--run', 'run', *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count('\n') == 1


def test_run_folder_given_twice_or_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['evaluate']) == 2
    assert main(['evaluate', 'run', '--run', 'run']) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(error.startswith('pyg-emu: error: ') and '--run DIR' in error for error in errors)


@pytest.mark.parametrize('arguments, message', [
    ([], 'pyg-emu: error: .*COMMAND'),
    (['tran'], "pyg-emu: error: .*COMMAND: .*'tran'"),
    (['train', '--stepz', '3'], r'pyg-emu train: error: .*--stepz.*--steps\b'),
    (['train', '--stepz=3'], r'pyg-emu train: error: .*--stepz.*--steps\b'),
    (['train', '--xyz', '3'], 'pyg-emu train: error: .*--xyz .*pyg-emu train --help'),
    (['train', 'umls'], 'pyg-emu train: error: .* umls .*pyg-emu train --help'),
    (['train', '--steps'], 'pyg-emu train: error: .*--steps: '),
    (['evaluate', 'run', '--split', 'x'], "pyg-emu evaluate: error: .*--split: .*'x'"),
    (['recipes', 'show', 'x', '--jsn'], 'pyg-emu recipes show: error: .*--jsn'),
])
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and re.match(message, error) and error.count('\n') == 1


# As a process ################################################################


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-m', 'pyg_emu', *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize('command', ['train', 'evaluate', 'predict', 'explain', 'recipes'])
def test_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, '--help'])
    assert stopped.value.code == 0 and f'usage: pyg-emu {command}' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [['--help'], ['train', '--help'], ['evaluate', '--help'], ['predict', '--help'],
                                       ['explain', '--help'], ['tune', '--help'], ['data', '--help'],
                                       ['diff', '--help']])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = ('import sys\nfrom pyg_emu.experiments.cli.main import main\n'
              f'try: main({arguments})\nexcept SystemExit: pass\n'
              'print({"torch", "pandas", "numba"} & set(sys.modules))')
    result = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.endswith('set()\n'), result.stderr


def test_process_exits_with_the_code() -> None:
    result = call('train', '--recipe', 'no-such-recipe')
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr.startswith('pyg-emu: error: ') and 'no-such-recipe' in result.stderr
    assert call('--version').stdout.startswith('pyg-emu ')


def test_reader_that_has_seen_enough() -> None:
    process = subprocess.Popen([sys.executable, '-u', '-m', 'pyg_emu', 'recipes', 'list'], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b'' and process.wait() == 0


# Data of a run ###############################################################


@pytest.fixture
def facts_file(work: Path) -> Path:
    r"""All facts of the graph in one file."""
    lines = [line for split in ('train', 'valid', 'test')
             for line in (work / 'graph' / f'{split}.txt').read_text().splitlines(keepends=True)]
    (work / 'facts.tsv').write_text(''.join(dict.fromkeys(lines)))
    return work / 'facts.tsv'


def test_data_that_moved_is_split_as_it_was(facts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['train', '--data', 'facts.tsv', '--set', 'dataset.seed=3', '--run-dir', 'run', *SMALL]) == 0
    facts_file.rename('moved.tsv')
    capsys.readouterr()
    assert main(['evaluate', 'run', '--quiet', '--json', '--data', 'moved.tsv']) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads(Path('run/metrics.json').read_text())['test'] and shown.err == ''
    # The same facts, split otherwise: most of the test facts were trained on.
    assert main(['evaluate', 'run', '--quiet', '--data', 'moved.tsv', '--set', 'dataset.seed=4']) == 2
    error = capsys.readouterr().err
    assert 'train (' in error and 'test (' in error and 'recipe.yaml' in error and error.count('\n') == 1
    # A run is not continued with them either, but it is with the same split.
    longer = ['train', '--run-dir', 'run', '--data', 'moved.tsv', '--quiet', '--steps', '8']
    assert main([*longer, '--set', 'dataset.seed=4']) == 2
    error = capsys.readouterr().err
    assert 'train (' in error and 'test (' in error and error.count('\n') == 1
    assert main(longer) == 0
    recorded = read_layer(Path('run/recipe.yaml')).values['dataset']
    assert recorded == {'source': str(Path('moved.tsv').resolve()), 'seed': 3}


def test_run_whose_data_has_moved_is_continued(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0 and train('--run-dir', 'whole', '--steps', '12') == 0
    # Twice: the new place is as good as the first one.
    for place, steps in (('first', 8), ('second', 10)):
        Path('graph').rename(place)
        assert main(['train', '--run-dir', 'run', '--data', place, '--steps', str(steps), '--quiet']) == 0
        assert open_run('run')[2].dataset == str(Path(place).resolve())
        assert main(['evaluate', 'run', '--quiet']) == 0
        Path(place).rename('graph')
    Path('graph').rename('second')
    assert main(['train', '--run-dir', 'run', '--steps', '12', '--quiet']) == 0
    one, other = (load_checkpoint(f'{run}/last.pt')['model'] for run in ('run', 'whole'))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    # Without fingerprints, nothing tells that the facts are the same.
    known = json.loads(Path('run/trained_on.json').read_text())
    Path('run/trained_on.json').write_text(json.dumps({**known, 'facts': None}))
    capsys.readouterr()
    Path('second').rename('third')
    assert main(['train', '--run-dir', 'run', '--data', 'third', '--steps', '13', '--quiet']) == 2
    assert 'dataset: ' in capsys.readouterr().err


def test_checkpoint_of_a_run_on_other_data_is_refused(train: Callable[..., int],
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree('graph', 'other')
    assert train() == 0 and train('--run-dir', 'another', '--data', 'other') == 0
    shutil.copy('another/last.pt', 'run/last.pt')
    capsys.readouterr()
    assert train('--steps', '8') == 2 and 'last.pt' in capsys.readouterr().err


def test_run_that_did_not_record_its_first_place(train: Callable[..., int]) -> None:
    assert train() == 0
    known = json.loads(Path('run/trained_on.json').read_text())
    assert known.pop('source') == str(Path('graph').resolve())
    Path('run/trained_on.json').write_text(json.dumps(known))
    Path('graph').rename('moved')
    for steps in ('8', '9'):
        assert main(['train', '--run-dir', 'run', '--data', 'moved', '--steps', steps, '--quiet']) == 0


def test_facts_that_change_under_a_run(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    lines = Path('graph/train.txt').read_text().splitlines()
    turned = ['\t'.join(reversed(line.split('\t'))) for line in lines]
    Path('graph/train.txt').write_text('\n'.join(reversed(lines)) + '\n')
    assert main(['train', '--run-dir', 'run', '--steps', '8', '--quiet']) == 0, 'only the order of lines is another'
    Path('graph/train.txt').write_text('\n'.join(turned) + '\n')
    capsys.readouterr()
    assert main(['train', '--run-dir', 'run', '--steps', '9', '--quiet']) == 2
    error = capsys.readouterr().err
    assert re.search(rf'train \({len(lines)} .* {len(lines)}\)', error) and 'valid (' not in error
    assert main(['evaluate', 'run', '--quiet', '--json']) == 2
    error = capsys.readouterr().err
    assert '--other-facts' in error and 'train (' in error
    assert main(['evaluate', 'run', '--quiet', '--json', '--other-facts']) == 0
    error = capsys.readouterr().err
    assert 'warning' in error and 'train (' in error


def test_all_facts_of_a_file_are_known_in_prediction(facts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['train', '--data', 'graph', '--model', 'NBFNet', '--run-dir', 'run', *SMALL, '--set',
                 'model.num_layers=2']) == 0
    Path('some').mkdir()
    facts_file.rename('some/train.txt')
    Path('some/copy.tsv').write_text(Path('some/train.txt').read_text())
    model, data, _ = open_run('run', data='some/copy.tsv', whole=True)
    assert data.num_facts('valid') == data.num_facts('test') == 0
    assert data.num_facts('train') == len(Path('some/copy.tsv').read_text().splitlines())
    capsys.readouterr()
    shown = []
    for source in ('some/copy.tsv', 'some'):  # a folder with train.txt alone is enough
        assert main(['predict', 'run', '--data', source, '--head', 'e1', '--relation', 'r0', '--csv', '-k', '3']) == 0
        shown.append(capsys.readouterr().out)
        assert main(['explain', 'run', '--data', source, '--head', 'e1', '--relation', 'r0', '--tail', 'e2']) == 0
        shown.append(capsys.readouterr().out)
    assert shown[:2] == shown[2:] and 'scores' in shown[1]


def test_advice_about_a_missing_split_works(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    Path('graph/valid.txt').unlink()
    capsys.readouterr()
    assert main(['evaluate', 'run', '--quiet']) == 2
    error = capsys.readouterr().err
    advice = re.search(r'--require-splits \S+', error)
    assert advice is not None and 'require_splits' not in error
    assert main(['evaluate', 'run', '--quiet', '--json', *advice[0].split(), '--other-facts']) == 0
    assert main(['train', '--data', 'graph', '--run-dir', 'other', *SMALL]) == 2
    advice = re.search(r'--require-splits \S+', capsys.readouterr().err)
    assert advice is not None
    assert main(['train', '--data', 'graph', '--run-dir', 'other', *SMALL, *advice[0].split()]) == 0
    assert main(['train', '--data', 'graph', '--run-dir', 'third', *SMALL,
                 '--set', "dataset.require_splits=('train',)"]) == 2
    assert '[train]' in capsys.readouterr().err
    assert main(['train', '--data', 'graph', '--run-dir', 'third', *SMALL, '--set',
                 'dataset.require_splits=[train]']) == 0


def test_advice_about_other_relations_works(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert train('--model', 'NBFNet', '--set', 'model.num_layers=1') == 0
    text = Path('graph/train.txt').read_text()
    Path('graph2').mkdir()
    for split in ('train', 'valid', 'test'):
        lines = Path(f'graph/{split}.txt').read_text().splitlines(keepends=True)
        Path(f'graph2/{split}.txt').write_text(''.join(line for line in lines if '\tr0\t' not in line))
    assert '\tr0\t' in text
    with pytest.raises(ArgumentError) as caught:
        open_run('run', data=load_dataset('graph2'))
    assert "'r0'" in str(caught.value) and "'r1'" in str(caught.value)
    with pytest.raises(ArgumentError, match='other facts'):
        open_run('run', data='graph2')
    data = open_run('run', data='graph2', other_facts=True)[1]
    assert data.relation_labels[0] == 'r0', 'its path instead of the data'


def test_facts_about_some_entities_are_ranked_with_their_own_vectors(train: Callable[..., int],
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    facts = [line.split('\t') for line in Path('graph/test.txt').read_text().splitlines()]
    few = [fact for fact in facts if 'e0' not in (fact[0], fact[2])][:4]
    Path('few.tsv').write_text(''.join('\t'.join(fact) + '\n' for fact in few))
    model, data, _ = open_run('run', data='few.tsv', whole=True)
    trained = load_dataset('graph')
    assert data.entity_labels == trained.entity_labels and data.num_facts('train') == len(few)
    rows = [[trained.entity_id(head), trained.relation_id(relation), trained.entity_id(tail)]
            for head, relation, tail in few]
    assert sorted(data.facts('train').tolist()) == sorted(rows)
    # The advice of the error, followed.
    with pytest.raises(ArgumentError) as caught:
        open_run('run', data=load_dataset('few.tsv', fractions=(1.0, 0.0, 0.0), vocabulary=trained))
    assert 'entities=' in str(caught.value)
    other = load_dataset('few.tsv', fractions=(1.0, 0.0, 0.0), entities=trained)
    assert open_run('run', data=other, other_facts=True)[1] is not None
    Path('few.tsv').write_text('e1\tr0\tnobody\n')
    capsys.readouterr()
    assert main(['predict', 'run', '--data', 'few.tsv', '--head', 'e1', '--relation', 'r0']) == 2
    *warned, error = capsys.readouterr().err.splitlines()
    assert "'nobody'" in error and all('warning' in line for line in warned)


# The unforeseen ##############################################################


@pytest.mark.parametrize('arguments, facts', [
    (['--set', 'seed=!!int x'], ['--set seed=!!int x', "'x'"]),
    (['--set', 'seed=2024-13-45'], ['seed', '2024-13-45']),
    (['--set', 'description=2024-13-45', '--set', 'seed=' + '9' * 5000], ['--set seed=999', '4300 digits']),
    (['--set', 'seed=' + '9' * 30], ['seed', '2^63']),
    (['--seed', '-1'], ['seed', '-1']),
    (['--set', 'dataset.seed=-1'], ['dataset.seed', '-1']),
    (['--set', 'seed=' + '[' * 2000], ['50 levels']),
    (['--set', 'evaluation=&a {ks: *a}'], ['*name']),
    (['--set', 'dataset.delimiter=5'], ['dataset.delimiter', 'text', '5']),
    (['--set', 'dataset.header=maybe'], ['dataset.header', 'true or false', "'maybe'"]),
    (['--set', 'dataset.header=5'], ['dataset.header', 'true or false']),
    (['--set', "dataset.header='false'"], ['dataset.header', 'true or false']),
    (['--set', 'dataset.fractions=[1]'], []),
    (['--set', 'dataset.heder=true'], ["'dataset.heder'", "'dataset.header'"]),
    (['--dim', '1' + '0' * 30], ['model.hidden_channels', '2^63']),
    (['--dim', str(2**61)], ['model', 'DistMult']),
    (['--dim', str(10**9), '--model', 'DistMult'], ['model', 'hidden_channels=1000000000', 'GiB']),
    (['--seed', str(2**70)], ['seed', '2^63']),
    (['--set', 'optimizer={name: adam, betas: [0.9]}'], ['optimizer.betas', 'list of 2']),
    (['--set', 'optimizer={name: adam, fused: true, foreach: true}'], ['optimizer', 'fused', 'foreach']),
    (['--device', 'meta'], ["'meta'"]),
    (['--run-dir', 'x' * 300], ['xxx']),
    (['--recipe', 'x' * 5000], ['xxx']),
    (['--recipe', 'x' * 300 + '.yaml'], ['xxx']),
    (['--dataset', 'x' * 5000], ['xxx']),
    (['--model', 'x' * 5000], ['xxx']),
    (['--lr', 'nan'], ['optimizer.lr', 'nan']),
])
def test_one_sentence(work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], facts: list[str]) -> None:
    assert main(['train', '--data', 'graph', '--quiet', '--steps', '2', '--run-dir', 'run', *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('pyg-emu: error: ') and error.count('\n') == 1 and all(fact in error for fact in facts)
    assert len(error) < 1000 and not Path('run').exists()


def test_unforeseen_error_is_one_line_and_a_file(work: Path, capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(work))
    for error, code in ((ZeroDivisionError('of what\nnobody knew'), 1), (MemoryError(), 2),
                        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 2),
                        (OSError(28, 'No space left on device'), 2)):
        def fail(*arguments: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr('pyg_emu.experiments.cli.recipes.packaged_recipes', fail)
        assert main(['recipes', 'list']) == code
        shown = capsys.readouterr().err
        assert shown.count('\n') == 1 and 'Traceback' not in shown
        logs = list(work.glob('*.log'))
        assert len(logs) == 1
        if code == 1:
            assert str(logs[0]) in shown and 'ZeroDivisionError' in shown
            assert 'Traceback' in logs[0].read_text() and 'nobody knew' in logs[0].read_text()


@pytest.mark.parametrize('message, expected', [
    ("give require_splits=('train', 'test').", 'give --require-splits train,test.'),
    ('pass header=True', 'pass --set dataset.header=true'),
    ("pass delimiter=','", 'pass --set "dataset.delimiter=,"'),
    ('fractions=(0.8, 0.1, 0.1)', '--set "dataset.fractions=[0.8, 0.1, 0.1]"'),
    ('or resume=False', 'or --fresh'),
    ("pass optimizer_state='new' to", 'pass --optimizer-state new to'), ("device='cpu'", '--device cpu'),
    ('give graph=False, or sparse=True', 'give --set graph=false, or --set model.sparse=true'),
    ('pass head=0, relation=1 to', 'pass --set dataset.head=0, --set dataset.relation=1 to'),
    ('pass head=, and tail= with', 'pass --set dataset.head=, and --set dataset.tail= with'),
    ('pass table= or query=', 'pass --table or --query'), ('--table=', '--table='),
    ('num_relations=5, --set dataset.header=true', 'num_relations=5, --set dataset.header=true'),
    ('projection: expected None', '--map: expected None'), ('the projection: of it', 'the projection: of it'),
])
def test_advice_in_flags(message: str, expected: str) -> None:
    assert in_flags(message) == expected


def test_advice_about_tensors_is_left_out() -> None:
    message = str(unknown_label('entity', '12', ['a', 'b']))
    assert message.startswith(in_flags(message)) and 'tensor' in message and 'tensor' not in in_flags(message)


# Files of others #############################################################


def test_recipe_in_the_run_folder_is_kept(work: Path, train: Callable[..., int],
                                          capsys: pytest.CaptureFixture[str]) -> None:
    (work / 'run').mkdir()
    text = '# mine\ndataset: graph\nnum_steps: 3\n'
    (work / 'run' / 'recipe.yaml').write_text(text)
    command = ['train', '--recipe', 'run/recipe.yaml', '--run-dir', 'run', *SMALL]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert 'recipe.yaml' in error and '--overwrite' in error
    assert (work / 'run' / 'recipe.yaml').read_text() == text and os.listdir('run') == ['recipe.yaml']
    assert main([*command, '--overwrite']) == 0


def test_comments_in_the_recipe_of_a_run_are_kept(work: Path, train: Callable[..., int]) -> None:
    assert train() == 0
    path = work / 'run' / 'recipe.yaml'
    path.write_text('# worked well\n' + path.read_text())
    assert main(['train', '--run-dir', 'run', '--quiet', '--device', 'cpu']) == 0
    assert path.read_text().startswith('# worked well\n')


def test_run_whose_checkpoint_is_gone_is_kept(work: Path, train: Callable[..., int],
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    Path('run/last.pt').unlink()
    before = {path.name: path.read_bytes() for path in Path('run').iterdir()}
    assert main(['train', '--run-dir', 'run', '--steps', '1', '--quiet', '--device', 'cpu']) == 2
    error = capsys.readouterr().err
    assert 'last.pt' in error and 'best.pt' in error and 'history.csv' in error and '--fresh' in error
    assert {path.name: path.read_bytes() for path in Path('run').iterdir()} == before
    assert train('--fresh') == 0


def test_run_that_starts_over(train: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    again = ['train', '--run-dir', 'run', '--fresh', '--quiet', '--device', 'cpu']
    assert main(again) == 2 and '--run-dir' in capsys.readouterr().err  # there is no run yet
    assert train('--set', 'model.name=complex') == 0
    Path('run/last.pt').write_bytes(b'damaged')
    assert main([*again[:3], *again[4:], '--overwrite']) == 2 and 'last.pt' in capsys.readouterr().err
    assert main([*again, '--seed', '3', '--set', 'dataset.header=false']) == 0
    recipe = open_run('run')[2]
    assert (recipe.model['name'], recipe.seed, recipe.num_steps) == ('ComplEx', 3, 6)
    assert recipe.dataset == {'source': str(Path('graph').resolve()), 'header': False}
    # With data of its own, it is another run.
    assert train('--fresh') == 0 and open_run('run')[2].model['name'] == 'DistMult'


def test_warnings_are_in_the_language_of_the_command_line(capsys: pytest.CaptureFixture[str],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> dict[str, str]:
        warnings.warn('openke.txt: pass head=0, relation=1, tail=2 to read it', DataWarning)
        return {'a': 'b'}

    monkeypatch.setattr('pyg_emu.experiments.cli.recipes.packaged_recipes', warn)
    assert main(['recipes', 'list']) == 0
    warning = capsys.readouterr().err
    assert 'openke.txt' in warning and '--set dataset.head=0' in warning and 'pass head=0' not in warning


@pytest.mark.parametrize('valid', [True, False])
def test_run_whose_time_is_up_says_so(train: Callable[..., int], capsys: pytest.CaptureFixture[str],
                                      valid: bool) -> None:
    if not valid:
        Path('graph/valid.txt').unlink()
    assert train('--steps', '100000', '--set', 'max_seconds=1e-6', '--require-splits', 'train,test') == 0
    assert re.search(r'step 1 of 100000.* 1 .*max_seconds.*1e-06', capsys.readouterr().out)


@pytest.mark.parametrize('command', [['train', '--data', 'graph', *SMALL], ['evaluate', '--quiet']])
def test_empty_run_folder(work: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, '--run-dir' if command[0] == 'train' else '--run', '']) == 2
    assert re.search("run_dir: .* ''", capsys.readouterr().err)
    assert os.listdir() == ['graph']


def test_missing_best_weights_are_named(work: Path, train: Callable[..., int],
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    Path('run/best.pt').unlink()
    assert main(['evaluate', '--run', 'run', '--quiet', '--json']) == 0
    error = capsys.readouterr().err
    assert 'best.pt' in error and 'last.pt' in error and 'step 6' in error


@pytest.mark.parametrize('argument', ['\u2028', '\x85--x', 'a\nb', '\x1b[2J'])
def test_a_message_stays_in_one_line(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['data', 'show', argument])
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and shown.rstrip('\n').isprintable()
