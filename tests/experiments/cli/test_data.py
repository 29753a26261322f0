r"""The report of a dataset on the command line, and its refusals in one line."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyg_emu.experiments.cli.main import main


def write(folder: Path) -> Path:
    folder.mkdir()
    (folder / 'train.txt').write_text('Paris\tin\tFrance\nParis \tin\tItaly\nParis\tin\tFrance\n')
    (folder / 'facts.txt').write_text('a\tr\tb\n')
    return folder


def test_a_folder_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / 'graph')
    assert main(['data', str(folder)]) == 0
    out = capsys.readouterr()
    assert out.out.startswith('4 entities, 1 relations') and 'facts.txt' not in out.err
    assert 'warning: 1 of the 3 train' in out.out and "'Paris '" in out.out and 'facts.txt' in out.out
    assert main(['data', str(folder), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['train_duplicates'] == 1 and report['near_duplicate_entity_labels'] == 2
    assert len(report['warnings']) == 3


def test_options_reach_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'facts.csv'
    path.write_text('tail;relation;head\nb;r;a\na;r;b\n')
    settings = ['--set', 'dataset.header=true', '--set', 'dataset.delimiter=";"', '--json']
    assert main(['data', str(path), *settings, '--set', 'dataset.fractions=[1, 0, 0]']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['train_facts'] == 2 and report['train_reversed_pairs'] == 1 and report['warnings'] == []
    assert main(['data', str(write(tmp_path / 'graph')), '--set', 'dataset.extra_files=[facts.txt]', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['train_facts'] == 4


@pytest.mark.parametrize(('arguments', 'said'), [
    (['nowhere-at-all'], "'nowhere-at-all'"), (['graph', '--set', 'steps=3'], '--set steps'),
    (['graph', '--set', 'dataset.header=maybe'], "'maybe'"), (['graph', '--set', 'dataset.header=5'], ' 5'),
    (['graph', '--set', "dataset.header='false'"], "'false'"), (['graph', '--set', 'dataset.delimiter=5'], ' 5'),
    (['graph', '--set', 'dataset.require_splits=[test]'], 'test.txt'), (['graph', '--set', 'dataset=UMLS'], 'dataset'),
    (['graph', '--set', 'dataset.seed=-1'], 'seed'), (['graph/train.txt', '--set', 'dataset.seed=-1'], '-1'),
])
def test_refusals_are_one_line(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / 'graph')
    monkeypatch.chdir(tmp_path)
    assert main(['data', *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1 and error.startswith('pyg-emu: error: ')
