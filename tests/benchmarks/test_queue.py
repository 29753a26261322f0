r"""The queue of pending measurements: parsing, order, outcomes, interruption."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import queue
from benchmarks._record import ROOT

HEAD = '# Pending\n\n## Part\n\n| what | command | expected | needs |\n| --- | --- | --- | --- |\n'


def table(folder: Path, *rows: str) -> Path:
    path = folder / 'PENDING.md'
    path.write_text(HEAD + ''.join(f'| {row} |\n' for row in rows))
    return path


def call(folder: Path, *flags: str) -> int:
    return queue.main(['--pending', str(folder / 'PENDING.md'), '--folder', str(folder / 'queue'), *flags])


def cores() -> list[str]:
    return [str(core) for core in sorted(os.sched_getaffinity(0))]


def test_the_table_of_the_repository_is_valid() -> None:
    jobs = queue.parse(queue.PENDING.read_text())
    assert len(jobs) > 50
    for job in jobs:
        for command in job.commands:
            words = command.split()
            assert words[:2] == ['python', '-m'] or words[0] == 'benchmarks/gpu_suite.sh', command
            if words[:2] == ['python', '-m'] and words[2].startswith('benchmarks.'):
                assert (ROOT / f'{words[2].replace(".", "/")}.py').is_file(), command


def test_reads_commands_and_needs() -> None:
    text = HEAD + '| a | `one --x \\| y`, then `two` | 1 h | |\n| b | `three` | 2 h | above |\n\n| other | text |\n'
    with pytest.raises(ValueError, match='line 10.*4 columns.*2'):
        queue.parse(text)
    first, second = queue.parse(text.rsplit('\n\n', 1)[0])
    assert first.commands == ('one --x | y', 'two') and first.needs == '' and first.above is None
    assert first.title == 'Part: a' and first.line == 7
    assert second.above == first.key != second.key


@pytest.mark.parametrize('row, facts', [
    ('a | no command | 1 h | ', ['line 7', 'no command']),
    ('a | `x` | 1 h | cake', ['line 7', 'cake', 'gpu', 'alone', 'above']),
    ('a | `x` | 1 h | above', ['line 7', 'first']),
    ('a | `x` | 1 h', ['line 7', '4', '3']),
])
def test_wrong_lines_are_named(tmp_path: Path, row: str, facts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path, row)
    with pytest.raises(SystemExit):
        call(tmp_path)
    message = capsys.readouterr().err
    assert all(fact in message for fact in ['PENDING.md', *facts])


def test_two_lines_with_the_same_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path, 'a | `x` | 1 h | ', 'b | `x` | 1 h | ')
    with pytest.raises(SystemExit):
        call(tmp_path)
    assert 'lines 7 and 8' in capsys.readouterr().err


def test_runs_in_order_records_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / 'log'
    table(tmp_path, f'a | `echo a >> {log}`, then `echo b >> {log}` | |', f'c | `echo c >> {log}; exit 3` | |',
          f'd | `echo d >> {log}` | | above', f'e | `echo e $OMP_NUM_THREADS >> {log}` | |')
    assert call(tmp_path, '--cores', cores()[0]) == 1
    assert log.read_text().split('\n') == ['a', 'b', 'c', 'e 1', '']
    output = capsys.readouterr()
    assert '2 finished, 2 failed, 0 left' in output.out
    assert 'exit code 3' in output.err + output.out and 'Part: d' in output.err + output.out

    # What is finished is not run again; what failed is, and then the line below it.
    table(tmp_path, f'a | `echo a >> {log}`, then `echo b >> {log}` | |', f'c | `echo C >> {log}` | |',
          f'd | `echo d >> {log}` | | above', f'e | `echo e $OMP_NUM_THREADS >> {log}` | |')
    log.unlink()
    assert call(tmp_path) == 0
    assert log.read_text().split('\n') == ['C', 'd', '']
    assert call(tmp_path) == 0
    assert 'nothing to do' in capsys.readouterr().out

    assert call(tmp_path, '--list') == 0
    assert capsys.readouterr().out.count('done') == 4
    assert call(tmp_path, '--prune') == 0
    assert (tmp_path / 'PENDING.md').read_text() == HEAD


def test_a_core_each(tmp_path: Path) -> None:
    program = 'import os, time; print(*os.sched_getaffinity(0)); time.sleep(0.5)'
    table(tmp_path, *(f'{name} | `python -c "{program}  # {name}"` | |' for name in 'abc'),
          f'alone | `python -c "{program}  # alone"` | | alone',
          f'cores | `python -c "{program}; print(os.environ[\'OMP_NUM_THREADS\'])"` | | cores')
    assert call(tmp_path) == 0
    output = {path.name.split('-')[1]: path.read_text().split('\n') for path in (tmp_path / 'queue').glob('*.log')}
    used = {name: lines[2] for name, lines in output.items()}
    assert used['cores'].split() == cores() and output['cores'][3] == str(len(cores()))
    assert used['a'] == cores()[0] and used['alone'] == cores()[0]
    if len(cores()) > 1:
        assert used['b'] == cores()[1]


@pytest.mark.parametrize('need', queue.ALONE)
def test_timed_jobs_run_alone(tmp_path: Path, need: str) -> None:
    if len(cores()) < 2:
        pytest.skip('needs two cores')
    marks = tmp_path / 'marks'
    script = tmp_path / 'job.py'
    script.write_text('import sys, time\nstart = time.monotonic()\ntime.sleep(0.4)\n'
                      f'open({str(marks)!r}, "a").write(f"{{sys.argv[1]}} {{start}} {{time.monotonic()}}\\n")\n')
    table(tmp_path, *(f'{name} | `python {script} {name}` | | {needs}'
                      for name, needs in zip('abc', ('', need, ''))))
    assert call(tmp_path) == 0
    spans = {name: (float(start), float(end)) for name, start, end in map(str.split, marks.read_text().splitlines())}
    assert spans['a'][1] <= spans['b'][0] and spans['b'][1] <= spans['c'][0]


def test_an_interrupted_queue_interrupts_its_jobs(tmp_path: Path) -> None:
    script = tmp_path / 'job.py'
    script.write_text('import sys, time\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n'
                      'try:\n    (folder / "begun").touch()\n    time.sleep(60)\nexcept KeyboardInterrupt:\n'
                      '    (folder / "saved").touch()\n    sys.exit(130)\n')
    table(tmp_path, f'a | `python {script} {tmp_path}` | |', 'b | `true` | | above')
    # As a shell starts it in the background: SIGINT is ignored.
    process = subprocess.Popen([sys.executable, '-m', 'benchmarks.queue', '--pending', str(tmp_path / 'PENDING.md'),
                                '--folder', str(tmp_path / 'queue')], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    end = time.monotonic() + 60
    while not (tmp_path / 'begun').exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and '0 finished, 0 failed, 2 left' in output
    assert (tmp_path / 'saved').exists()
    assert queue.Record(tmp_path / 'queue').rows == {}


def test_time_is_limited(tmp_path: Path) -> None:
    table(tmp_path, 'a | `sleep 60` | |')
    start = time.monotonic()
    assert call(tmp_path, '--budget', '1s') == 130
    assert time.monotonic() - start < 30


def test_jobs_that_need_a_gpu(tmp_path: Path) -> None:
    jobs = queue.parse(table(tmp_path, 'a | `x` | | gpu', 'b | `y` | | above', 'c | `z` | |').read_text())
    record = queue.Record(tmp_path)
    assert [job.what for job in queue.choose(jobs, record)[0]] == ['c']
    assert [job.what for job in queue.choose(jobs, record, has_gpu=True)[0]] == ['a', 'b', 'c']
    assert [job.what for job in queue.choose(jobs, record, only='Part: c')[0]] == ['c']


def test_jobs_share_neither_the_gpu_nor_a_core(tmp_path: Path) -> None:
    log = tmp_path / 'log'
    shared = f'grep Cpus_allowed_list /proc/self/status >> {log}; sleep 0.5; echo end >> {log}'
    jobs = queue.parse(table(tmp_path, f'a | `{shared}` | | gpu', f'b | `: b; {shared}` | | gpu').read_text())
    # The numbers of the cores do not matter, as no job is bound to one.
    assert queue.Queue(jobs, [0, 1], queue.Record(tmp_path)).run()
    with open('/proc/self/status') as file:
        own = next(line.strip() for line in file if line.startswith('Cpus_allowed_list'))
    assert log.read_text().splitlines() == 2 * [own, 'end']


def test_cores_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path, 'a | `x` | |')
    with pytest.raises(SystemExit):
        call(tmp_path, '--cores', '9999')
    assert '9999' in capsys.readouterr().err
