r"""Runs the measurements of PENDING.md unattended: one per core, each with one thread, in the order of the file.

.. code-block:: console

    python -m benchmarks.queue --list                  # the jobs, and what became of them
    python -m benchmarks.queue                         # all that this machine can run
    python -m benchmarks.queue --only DeMix --cores 0 1 --budget 2h
    python -m benchmarks.queue --prune                 # removes the lines of finished jobs from PENDING.md

A job is a line of a table with the columns ``what``, ``command``, ``expected`` and ``needs``. Its commands, between
backticks, run one after another. It needs nothing, or one of

=========  ====================================================================================================
``gpu``    a CUDA device; left out where there is none. It may use all cores; one such job runs at a time
``alone``  a machine that does nothing else, since it is timed: nothing runs beside it, and it gets one core
``cores``  the same, with all cores of the queue and as many threads
``above``  the results of the line above: it waits until that job is finished, and does not run if that one failed
=========  ====================================================================================================

Interrupt the queue at any time: running jobs are interrupted as by Ctrl-C and save what they have. The next call
continues them, skips what is finished and tries again what failed. Benchmarks record their results themselves; the
queue records commands, exit codes and times in ``runs/queue/jobs.csv``, with the output of each job beside it.
"""
from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Iterator, Optional, Sequence

from tqdm import tqdm

from benchmarks._record import ROOT, git_commit
from pyg_emu.core.files import FolderLock, atomic_write
from pyg_emu.experiments.cli.options import duration

#: The table of jobs.
PENDING = ROOT / 'benchmarks' / 'PENDING.md'
#: Where the queue keeps what it ran.
FOLDER = ROOT / 'runs' / 'queue'
COLUMNS = ('what', 'command', 'expected', 'needs')
NEEDS = ('', 'gpu', 'alone', 'cores', 'above')
#: The needs of jobs that nothing runs beside.
ALONE = ('alone', 'cores')
#: The seconds that an interrupted job has to save its state.
_PATIENCE = 120.0
_INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    r"""A line of PENDING.md.

    Args:
        section (str): The heading above the table.
        what (str): What is measured.
        commands (tuple of str): The commands.
        expected (str): The expected result and time.
        needs (str): One of :data:`NEEDS`.
        line (int): The number of the line, starting at one.
        above (str, optional): The key of the job in the line above, if this one needs it.
    """
    section: str
    what: str
    commands: tuple[str, ...]
    expected: str
    needs: str
    line: int
    above: Optional[str] = None

    @property
    def key(self) -> str:
        r"""The identity of the job: a changed command is another job."""
        return hashlib.sha256('\n'.join(self.commands).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        r"""The section and what is measured."""
        return f'{self.section}: {self.what}'


def parse(text: str, name: str = 'PENDING.md') -> list[Job]:
    r"""Reads the jobs of all tables.

    Raises:
        ValueError: If a line of a table has other columns, no command, or an unknown need; names file and line.
    """
    jobs: list[Job] = []
    section, in_table = '', False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith('#'):
            section = line.lstrip('#').strip()
        if not line.startswith('|'):
            in_table = False
            continue
        cells = [cell.strip().replace(r'\|', '|') for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        where = f'{name}, line {number}'
        if len(cells) != len(COLUMNS):
            raise ValueError(f'{where}: expected {len(COLUMNS)} columns ({", ".join(COLUMNS)}), got {len(cells)}')
        if not in_table:
            if tuple(cells) != COLUMNS:
                raise ValueError(f'{where}: expected the columns {", ".join(COLUMNS)}, got {", ".join(cells)}')
            in_table, above = True, None
            continue
        if set(''.join(cells)) <= set('-: '):
            continue
        what, command, expected, needs = cells
        commands = tuple(re.findall(r'`([^`]+)`', command))
        if not commands:
            raise ValueError(f'{where}: expected a command between backticks, got {command!r}')
        if needs not in NEEDS:
            raise ValueError(f'{where}: needs: expected nothing or one of {", ".join(NEEDS[1:])}, got {needs!r}')
        if needs == 'above' and above is None:
            raise ValueError(f'{where}: needs the line above, but is the first one of its table')
        jobs.append(Job(section, what, commands, expected, needs, number, above if needs == 'above' else None))
        above = jobs[-1].key
    keys: dict[str, Job] = {}
    for job in jobs:
        if job.key in keys:
            raise ValueError(f'{name}, lines {keys[job.key].line} and {job.line}: the same commands')
        keys[job.key] = job
    return jobs


class Record:
    r"""What the queue ran: the last outcome of each job, in a file that is replaced atomically.

    Args:
        folder (Path): The folder of the file and of the outputs.
    """
    FIELDS = ('key', 'what', 'exit_code', 'seconds', 'ended', 'commit', 'commands')

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / 'jobs.csv'
        self.rows: dict[str, dict[str, str]] = {}
        if self.path.exists():
            with self.path.open(encoding='utf-8', newline='') as file:
                self.rows = {row['key']: row for row in csv.DictReader(file)}

    def exit_code(self, key: str) -> Optional[int]:
        r"""Returns the exit code of a job, or :obj:`None` if it has never ended by itself."""
        return int(self.rows[key]['exit_code']) if key in self.rows else None

    def log(self, job: Job) -> Path:
        r"""Returns the file with the output of a job."""
        slug = re.sub(r'[^a-z0-9]+', '-', job.title.lower()).strip('-')[:60]
        return self.folder / f'{slug}-{job.key}.log'

    def add(self, job: Job, exit_code: int, seconds: float) -> None:
        r"""Writes the outcome of a job."""
        self.rows[job.key] = {
            'key': job.key, 'what': job.title, 'exit_code': str(exit_code), 'seconds': f'{seconds:.0f}',
            'ended': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'commit': str(git_commit()),
            'commands': json.dumps(job.commands)}
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, self.FIELDS)
        writer.writeheader()
        writer.writerows(self.rows.values())
        atomic_write(self.path, lambda file: file.write(text.getvalue().encode()))


class Running:
    r"""A job that runs on one or more cores, in a process group of its own.

    Args:
        job (Job): The job.
        cores (sequence of int): The cores.
        log (Path): The file that its output is appended to.
    """
    def __init__(self, job: Job, cores: Sequence[int], log: Path) -> None:
        self.job, self.cores = job, frozenset(cores)
        self.start = time.monotonic()
        self._file: IO[bytes] = log.open('ab')
        # The shell stops at the first command that fails. "python" is the interpreter of the queue.
        folder = str(Path(sys.executable).parent)
        environment = {**os.environ, 'PATH': f'{folder}{os.pathsep}{os.environ.get("PATH", "")}',
                       **dict.fromkeys(('OMP_NUM_THREADS', 'NUMBA_NUM_THREADS'), str(len(self.cores)))}
        start, place = f'{datetime.now(timezone.utc):%F %T}', ', '.join(map(str, cores))
        self._file.write(f'\n== {start} core {place}: {" && ".join(job.commands)}\n'.encode())
        self._file.flush()
        self.process = subprocess.Popen(
            ['bash', '-ec', '\n'.join(job.commands)], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=self._prepare)

    def _prepare(self) -> None:
        # A queue started in the background ignores SIGINT, which its jobs would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # What runs on a GPU compiles kernels on all cores.
        if hasattr(os, 'sched_setaffinity') and self.job.needs != 'gpu':
            os.sched_setaffinity(0, self.cores)

    @property
    def seconds(self) -> float:
        r"""The seconds since the start."""
        return time.monotonic() - self.start

    def poll(self) -> Optional[int]:
        r"""Returns the exit code, or :obj:`None` while the job runs."""
        code = self.process.poll()
        if code is not None:
            self._file.close()
        return code

    def stop(self) -> Optional[int]:
        r"""Interrupts the job, as Ctrl-C does, and waits until it has saved its state. Returns the exit code if the job
        ended by itself before.
        """
        if (code := self.poll()) is not None:
            return code
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sent)
                self.process.wait(_PATIENCE if sent == signal.SIGINT else 10.0)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._file.close()
        return None


class Queue:
    r"""Starts jobs on free cores until all have ended or the time is over.

    Args:
        jobs (list of Job): The jobs, in order.
        cores (list of int): The cores, one job each.
        record (Record): The outcomes of earlier calls, and where those of this one are written.
    """
    def __init__(self, jobs: Sequence[Job], cores: Sequence[int], record: Record) -> None:
        self.waiting = list(jobs)
        self.cores = list(cores)
        self.record = record
        self.running: list[Running] = []
        #: The jobs that failed in this call, and those that need the results of a failed one.
        self.failed: list[Job] = []

    def run(self, budget: Optional[float] = None) -> bool:
        r"""Runs the jobs. Returns whether all have ended: :obj:`False` if the time was over or Ctrl-C was pressed."""
        start = time.monotonic()
        bar = tqdm(total=len(self.waiting), unit='job', desc='queue')
        try:
            while self.waiting or self.running:
                self._collect(bar)
                self._start(bar)
                if budget is not None and time.monotonic() - start > budget:
                    return False
                time.sleep(0.2)
            return True
        except KeyboardInterrupt:
            return False
        finally:
            # A second interrupt does not keep jobs from being stopped.
            previous = [signal.signal(kind, signal.SIG_IGN) for kind in (signal.SIGINT, signal.SIGTERM)]
            for running in self.running:
                bar.write(f'interrupting {running.job.title}')
                if (code := running.stop()) is not None:
                    self._ended(running, code, bar)
            for kind, handler in zip((signal.SIGINT, signal.SIGTERM), previous):
                signal.signal(kind, handler)
            bar.close()

    def _collect(self, bar: tqdm[Any]) -> None:
        for running in list(self.running):
            if (code := running.poll()) is not None:
                self.running.remove(running)
                self._ended(running, code, bar)

    def _ended(self, running: Running, code: int, bar: tqdm[Any]) -> None:
        job = running.job
        self.record.add(job, code, running.seconds)
        bar.update()
        if code == 0:
            bar.write(f'{_time(running.seconds)}  {job.title}')
            return
        self.failed.append(job)
        bar.write(f'{_time(running.seconds)}  {job.title}: FAILED with exit code {code}, see {self.record.log(job)}: '
                  f'{_last_line(self.record.log(job))}')

    def _start(self, bar: tqdm[Any]) -> None:
        for job in self._ready(bar):
            free = [core for core in self.cores if not any(core in running.cores for running in self.running)]
            is_alone = job.needs in ALONE or any(running.job.needs in ALONE for running in self.running)
            if not free or (is_alone and self.running):
                break
            if job.needs == 'gpu' and any(running.job.needs == 'gpu' for running in self.running):
                continue
            self.waiting.remove(job)
            self.running.append(Running(job, free if job.needs == 'cores' else free[:1], self.record.log(job)))
            bar.set_postfix_str('; '.join(running.job.what for running in self.running)[:80])

    def _ready(self, bar: tqdm[Any]) -> Iterator[Job]:
        r"""Yields the jobs that could start, in order. Removes those that need a job which failed."""
        for job in list(self.waiting):
            if job.above is not None and self.record.exit_code(job.above) != 0:
                if any(other.key == job.above for other in self.failed):
                    self.waiting.remove(job)
                    self.failed.append(job)
                    bar.update()
                    bar.write(f'{job.title}: not run, since the line above failed')
                    continue
                if any(other.key == job.above for other in [*self.waiting, *(r.job for r in self.running)]):
                    continue
            yield job


def choose(jobs: Sequence[Job], record: Record, only: Optional[str] = None,
           has_gpu: bool = False) -> tuple[list[Job], list[Job]]:
    r"""Returns the jobs to run, and those left out because they need a GPU or a line above that is not chosen."""
    chosen: list[Job] = []
    left_out: list[Job] = []
    for job in jobs:
        if only is not None and not re.search(only, job.title):
            continue
        if record.exit_code(job.key) == 0:
            continue
        can_follow = job.above is None or record.exit_code(job.above) == 0 or any(job.above == j.key for j in chosen)
        (chosen if can_follow and (has_gpu or job.needs != 'gpu') else left_out).append(job)
    return chosen, left_out


def prune(text: str, record: Record) -> str:
    r"""Returns PENDING.md without the lines of finished jobs. A line that needs such a line needs nothing any more."""
    jobs = {job.line: job for job in parse(text)}
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        job = jobs.get(number)
        if job is not None and record.exit_code(job.key) == 0:
            continue
        if job is not None and job.above is not None and record.exit_code(job.above) == 0:
            line = re.sub(r'\| above \|$', '| |', line.rstrip()) + '\n'
        lines.append(line)
    return ''.join(lines)


def list_jobs(jobs: Sequence[Job], record: Record) -> None:
    r"""Prints the jobs with their state."""
    for job in jobs:
        code = record.exit_code(job.key)
        state = 'to do' if code is None else 'done' if code == 0 else f'failed ({code})'
        print(f'{state:<11} {job.needs:<6} {job.title} -- {job.expected}')


def main(argv: Optional[Sequence[str]] = None) -> int:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.queue', description=__doc__.splitlines()[0])
    parser.add_argument('--only', metavar='REGEX', help='only jobs whose section or title matches')
    parser.add_argument('--cores', type=int, nargs='+', metavar='CORE', help='the cores to use (default: all)')
    parser.add_argument('--budget', type=duration, metavar='TIME', help='stop after this time, such as 90m or 2h')
    parser.add_argument('--list', action='store_true', help='print the jobs and their state')
    parser.add_argument('--prune', action='store_true', help='remove the lines of finished jobs from the table')
    parser.add_argument('--pending', type=Path, default=PENDING, help='the table (default: benchmarks/PENDING.md)')
    parser.add_argument('--folder', type=Path, default=FOLDER, help='where outcomes are kept (default: runs/queue)')
    arguments = parser.parse_args(argv)
    try:
        text = arguments.pending.read_text(encoding='utf-8')
        jobs = parse(text, arguments.pending.name)
    except (OSError, ValueError) as error:
        parser.error(f'--pending: {error}')
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else list(range(os.cpu_count() or 1))
    cores = usable if arguments.cores is None else arguments.cores
    if len(set(cores)) != len(cores) or not set(cores) <= set(usable):
        parser.error(f'--cores: expected different ones of {", ".join(map(str, usable))}, got '
                     f'{", ".join(map(str, cores))}')
    record = Record(arguments.folder)
    if arguments.list:
        list_jobs(jobs, record)
        return 0
    if arguments.prune:
        kept = prune(text, record)
        atomic_write(arguments.pending, lambda file: file.write(kept.encode()))
        print(f'removed {len(text.splitlines()) - len(kept.splitlines())} lines from {arguments.pending.name}')
        return 0
    return run_queue(jobs, cores, record, arguments.only, arguments.budget)


def run_queue(jobs: Sequence[Job], cores: Sequence[int], record: Record, only: Optional[str],
              budget: Optional[float]) -> int:
    r"""Runs the jobs that this machine can run. Returns the exit code."""
    import torch

    chosen, left_out = choose(jobs, record, only, torch.cuda.is_available())
    if left_out:
        print(f'left out: {len(left_out)} jobs that need a GPU, or a line above that is not among the jobs')
    if not chosen:
        print('nothing to do')
        return 0
    record.folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(record.folder)
    lock.acquire()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        queue = Queue(chosen, cores, record)
        is_complete = queue.run(budget)
    finally:
        signal.signal(signal.SIGTERM, previous)
        lock.release()
    print(f'{len(chosen) - len(queue.waiting) - len(queue.running) - len(queue.failed)} finished, '
          f'{len(queue.failed)} failed, {len(queue.waiting) + len(queue.running)} left')
    return 1 if queue.failed else 0 if is_complete else _INTERRUPTED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _time(seconds: float) -> str:
    return f'{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}'


def _last_line(log: Path) -> str:
    lines = re.split(r'[\r\n]+', log.read_text(encoding='utf-8', errors='replace').strip())
    return lines[-1]


if __name__ == '__main__':
    sys.exit(main())
