r"""Output that cannot be written: full disks, closed pipes, terminals without the letters of a label. As processes."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.experiments.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
#: Labels in other scripts, with a character beyond the basic plane.
LABELS = ('北京', 'Ελλάδα', '𝔊raph', 'e0')


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A trained run whose labels are not ASCII."""
    root = tmp_path_factory.mktemp('streams')
    (root / 'graph').mkdir()
    facts = [(head, 'ist in', tail) for head in LABELS for tail in LABELS if head != tail]
    for split, rows in (('train', facts), ('valid', facts[:2]), ('test', facts[2:4])):
        (root / 'graph' / f'{split}.txt').write_text(''.join('\t'.join(row) + '\n' for row in rows), encoding='utf-8')
    assert main(['train', '--data', str(root / 'graph'), '--run-dir', str(root / 'run'), '--dim', '4', '--negatives',
                 '3', '--steps', '2', '--quiet', '--device', 'cpu']) == 0
    return root / 'run'


def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore', **options.pop('env', {})}
    return subprocess.Popen([sys.executable, '-m', 'pyg_emu', *map(str, arguments)], env=environment, text=True,
                            stderr=subprocess.PIPE, **options)


full_disk = pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')


@full_disk
@pytest.mark.parametrize('unbuffered', ['', '1'])
@pytest.mark.parametrize('command', [['predict', '--head', 'e0', '--relation', 'ist in'], ['recipes', 'list'],
                                     ['--help'], ['predict', '--help']], ids=' '.join)
def test_full_disk(run: Path, command: list[str], unbuffered: str) -> None:
    given = [*command, '--run', run] if '--head' in command else command
    with open('/dev/full', 'w') as full:
        process = start(*given, stdout=full, env={'PYTHONUNBUFFERED': unbuffered})
        error = process.communicate()[1]
    assert process.returncode == 2
    assert error.startswith('pyg-emu: error: ') and 'No space left on device' in error and error.count('\n') == 1


def test_ascii_output_shows_every_label(run: Path) -> None:
    for flags in ([], ['--csv']):
        process = start('predict', '--run', run, '--head', LABELS[0], '--relation', 'ist in', '-k', '9', *flags,
                        stdout=subprocess.PIPE, env={'PYTHONIOENCODING': 'ascii', 'LC_ALL': 'C'})
        output, error = process.communicate()
        assert process.returncode == 0 and error == '' and output.isascii()
        for label in LABELS:
            assert label.encode('ascii', 'backslashreplace').decode() in output
    process = start('predict', '--run', run, '--head', 'Ελλας', '--relation', 'ist in', stdout=subprocess.PIPE,
                    env={'PYTHONIOENCODING': 'ascii'})
    error = process.communicate()[1]
    assert process.returncode == 2 and error.count('\n') == 1
    assert 'Ελλας'.encode('ascii', 'backslashreplace').decode() in error


@pytest.mark.parametrize('unbuffered', ['', '1'])
@pytest.mark.parametrize('command', [['predict', '--relation', 'ist in', '--csv', '--head'], ['recipes', 'list'],
                                     ['--help']], ids=' '.join)
def test_reader_that_has_seen_enough(run: Path, command: list[str], unbuffered: str) -> None:
    # More than a pipe holds, so that the command still writes when the reader has gone.
    given = [*command, *LABELS * 1000, '--run', run] if '--head' in command else command
    process = start(*given, stdout=subprocess.PIPE, env={'PYTHONUNBUFFERED': unbuffered})
    assert process.stdout is not None and process.stderr is not None
    if '--head' in command:
        assert process.stdout.readline() == 'head,relation,tail,rank,score,known\n'
    process.stdout.close()
    assert process.stderr.read() == '' and process.wait() == 0


def test_closed_output(run: Path) -> None:
    result = subprocess.run([f'"{sys.executable}" -m pyg_emu recipes list >&-'], shell=True, capture_output=True,
                            text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert (result.returncode, result.stderr) == (0, '')
