r"""Training steps with entity rows and optimiser state in memory-mapped files, under a memory limit of a quarter of
these tables, next to the same steps in memory.

.. code-block:: bash

    python -m benchmarks.mmap_tables --folder <folder>          # on a disk with 12 GiB of free space
    python -m benchmarks.mmap_tables --smoke --out <folder>

DistMult with EMU is trained with :class:`~pyg_emu.RowAdagrad` on a generated graph, whose entities have degrees that
follow a power law. Each contender runs in a process of its own, with its own negatives for each fact and with negatives
that chunks of facts share: in memory, mapped, and mapped under the limit. The limit is that of a control group of
Linux, which counts all memory of the process: Python, its libraries and the pages of the files, also those that wait to
be written. It needs the right to make control groups. Without it, the process limits its private memory alone
(RLIMIT_DATA), so that the tables are shown not to be there; the result names the kind of limit. All contenders start
from the same seeds, and the loss of their first steps is compared. Times are medians of the steps after the first ones.
Writes
a file for each contender to ``benchmarks/results/mmap_tables``.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import torch

from benchmarks._record import RESULTS, ROOT, write_result
from pyg_emu import (
    DistMult,
    EMULoss,
    EMUNegatives,
    KGData,
    RowAdagrad,
    SharedNegativesSampler,
    TripletLoader,
    evaluate,
    map_entities,
)
from pyg_emu.training.step import PlainStep
from pyg_emu.training.tables import write_tables

RELATIONS, BATCH, NEGATIVES, CHUNK, RANKED = 100, 1000, 256, 250, 10
#: Steps whose losses are compared. The first one compiles the kernels.
FIRST = 3
CONTENDERS = {'in memory': (False, False), 'mapped': (True, False), 'mapped, limited': (True, True)}
SAMPLING = ('own negatives', 'shared negatives')


def generate(nodes: int, facts: int) -> KGData:
    r"""A graph whose entities have a density proportional to the inverse square root of their rank. Ids are drawn at
    random, so that rows which are used often are not neighbours.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(nodes, generator=generator)

    def draw(count: int) -> torch.Tensor:
        return places[(nodes * torch.rand(2, count, generator=generator).square()).long()]

    edges, valid = draw(facts), draw(RANKED)
    relations = torch.randint(RELATIONS, (facts, ), generator=generator)
    return KGData(edges, relations, nodes, RELATIONS, valid_edge_index=valid,
                  valid_edge_type=torch.randint(RELATIONS, (RANKED, ), generator=generator))


def measure(nodes: int, facts: int, channels: int, sampling: str, mapped: bool, seconds: float, folder: Path
            ) -> dict[str, Any]:
    r"""Trains in this process.

    Args:
        nodes (int): The number of entities.
        facts (int): The number of training facts.
        channels (int): The number of components of a row.
        sampling (str): One of :data:`SAMPLING`.
        mapped (bool): Whether the tables are in files.
        seconds (float): How long steps are timed, at least three of them: with rows on the disk, one may take a minute.
        folder (Path): The folder of the files and of a checkpoint.
    """
    data = generate(nodes, facts)
    torch.manual_seed(0)
    start = time.perf_counter()
    if mapped:
        with torch.device('meta'):
            model = DistMult(nodes, RELATIONS, channels, sparse=True)
        map_entities(model, folder)
    else:
        model = DistMult(nodes, RELATIONS, channels, sparse=True)
    optimizer = RowAdagrad(model.parameters(), lr=0.1)
    found: dict[str, Any] = {'initial_s': time.perf_counter() - start}
    sampler = None if sampling == 'own negatives' else SharedNegativesSampler(CHUNK)
    loader = TripletLoader(data, min(BATCH, facts), shuffle=True, seed=0, drop_last=True,
                           transform=EMUNegatives(NEGATIVES, sampler=sampler, mutation_rate=0.3))
    step, batches = PlainStep(model, EMULoss(), optimizer), loader.batches()
    found['losses'] = [float(step(next(batches))) for _ in range(FIRST)]
    times: list[float] = []
    before = _counters()
    while len(times) < 3 or sum(times) < seconds:
        batch = next(batches)
        start = time.perf_counter()
        step(batch)
        times.append(time.perf_counter() - start)
    found |= {name: (value - before[name]) / len(times) for name, value in _counters().items()}
    found |= {'ms': 1000 * statistics.median(times), 'mean_ms': 1000 * statistics.fmean(times), 'steps': len(times)}
    start = time.perf_counter()
    found['mrr'] = evaluate(model, data, 'valid')['mrr']
    found['ranking_s'] = time.perf_counter() - start
    if mapped:
        start = time.perf_counter()
        write_tables({'model': model.state_dict(), 'optimizer': optimizer.state_dict()}, folder / 'tables', 0)
        found['checkpoint_s'] = time.perf_counter() - start
        shutil.rmtree(folder / 'tables')
    found['private_mib'] = _private() / 2**20
    return found


def _counters() -> dict[str, float]:
    r"""Pages that were waited for, and what was read from the disk and written to it, since the process began."""
    found = {'faults_a_step': float(resource.getrusage(resource.RUSAGE_SELF).ru_majflt)}
    try:
        lines = dict(line.split(': ') for line in Path('/proc/self/io').read_text().splitlines())
    except OSError:
        return found
    return {**found, 'read_mib_a_step': int(lines['read_bytes']) / 2**20,
            'written_mib_a_step': int(lines['write_bytes']) / 2**20}


def _private() -> int:
    r"""The bytes of private memory that the process holds."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('RssAnon:'):
            return int(line.split()[1]) * 1024
    return 0


class Group:
    r"""A control group of this process's own, in which another process can be limited.

    Args:
        path (Path): Its folder.
        limit (str): The file that sets the limit.
        peak (str): The file that holds the most memory that was used.
    """
    def __init__(self, path: Path, limit: str, peak: str) -> None:
        self.path, self.limit, self._peak = path, limit, peak

    def enter(self) -> None:
        r"""Moves this process into the group."""
        (self.path / 'cgroup.procs').write_text(str(os.getpid()))

    def peak(self) -> Optional[int]:
        r"""The most bytes that were charged to the group."""
        try:
            return int((self.path / self._peak).read_text())
        except (OSError, ValueError):
            return None


@contextmanager
def limited_group(limit: int) -> Iterator[Optional[Group]]:
    r"""Makes a control group below that of this process, and removes it; :obj:`None` where that is not allowed.

    Args:
        limit (int): The bytes of memory of its processes.
    """
    group = None
    for candidate in _candidates():
        try:
            candidate.path.mkdir()
            (candidate.path / candidate.limit).write_text(str(limit))
            group = candidate
            break
        except OSError:
            if candidate.path.is_dir():
                candidate.path.rmdir()
    try:
        yield group
    finally:
        if group is not None:
            for _ in range(50):  # until the last process is gone
                try:
                    group.path.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)


def _candidates() -> Iterator[Group]:
    try:
        lines = Path('/proc/self/cgroup').read_text().splitlines()
    except OSError:
        return
    root, name = Path('/sys/fs/cgroup'), f'pyg_emu-{os.getpid()}'
    for line in lines:
        _, controllers, place = line.split(':', 2)
        own = place.lstrip('/')
        if 'memory' in controllers.split(','):
            yield Group(root / 'memory' / own / name, 'memory.limit_in_bytes', 'memory.max_usage_in_bytes')
        elif not controllers:
            yield Group(root / own / name, 'memory.max', 'memory.peak')


def run(arguments: argparse.Namespace, sampling: str, contender: str) -> dict[str, Any]:
    r"""Measures a contender in a process of its own."""
    mapped, limited = CONTENDERS[contender]
    sizes = [str(arguments.nodes), str(arguments.facts), str(arguments.channels)]
    limit = table_bytes(arguments) // 4
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = [sys.executable, '-m', 'benchmarks.mmap_tables', '--child', *sizes, sampling, str(int(mapped)),
                   str(arguments.seconds), folder]
        if not limited:
            return _result(command)
        with limited_group(limit) as group:
            if group is None:
                return {**_result(command, partial(resource.setrlimit, resource.RLIMIT_DATA, (limit, limit))),
                        'limit': 'RLIMIT_DATA'}
            # Before Python starts, so that all of its memory counts.
            found = _result(command, group.enter)
            return {**found, 'limit': 'control group', 'peak_mib': (group.peak() or 0) / 2**20}


def _result(command: Sequence[str], begin: Optional[Callable[[], Any]] = None) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=begin)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table_bytes(arguments: argparse.Namespace) -> int:
    r"""The bytes of entity rows and of their optimiser state."""
    return 2 * 4 * int(arguments.nodes) * int(arguments.channels)


def check(rows: Sequence[dict[str, Any]]) -> None:
    r"""Compares what contenders have computed.

    Raises:
        AssertionError: If a loss of the first steps differs.
    """
    for sampling in SAMPLING:
        own = [row for row in rows if row['sampling'] == sampling]
        for row in own[1:]:
            assert row['losses'] == own[0]['losses'], (sampling, row['contender'], row['losses'], own[0]['losses'])


def child(values: Sequence[str]) -> None:
    r"""Measures in this process, and prints one line of JSON."""
    parser = argparse.ArgumentParser()
    for name, kind in (('nodes', int), ('facts', int), ('channels', int), ('sampling', str), ('mapped', int),
                       ('seconds', float), ('folder', Path)):
        parser.add_argument(name, type=kind)
    arguments = vars(parser.parse_args(values))
    print(json.dumps(measure(**{**arguments, 'mapped': bool(arguments['mapped'])})))


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures, prints and records."""
    values = list(sys.argv[1:] if argv is None else argv)
    if values[:1] == ['--child']:
        child(values[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nodes', type=int, default=3_000_000, help='entities (default: 3,000,000)')
    parser.add_argument('--facts', type=int, default=10_000_000, help='training facts (default: 10,000,000)')
    parser.add_argument('--channels', type=int, default=200, help='components of a row (default: 200)')
    parser.add_argument('--seconds', type=float, default=20.0, help='of steps of each contender (default: 20)')
    parser.add_argument('--folder', type=Path, default=Path('runs'), help='a folder on a disk, for the tables')
    parser.add_argument('--sampling', nargs='+', choices=SAMPLING, default=SAMPLING, help='(default: both)')
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=[*CONTENDERS], help='(default: all)')
    parser.add_argument('--smoke', action='store_true', help='tiny sizes, in this process, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    arguments = parser.parse_args(values)
    if arguments.smoke and arguments.out == RESULTS:
        parser.error('--smoke: expected --out, because smoke results are not recorded')
    if arguments.smoke:
        arguments.nodes, arguments.facts, arguments.channels, arguments.seconds = 50, 100, 4, 0.0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the control group is removed
    rows: list[dict[str, Any]] = []
    for sampling in arguments.sampling:
        for contender in arguments.contenders:
            if arguments.smoke:
                mapped, _ = CONTENDERS[contender]
                with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                    found = measure(arguments.nodes, arguments.facts, arguments.channels, sampling, mapped, 0.0,
                                    Path(folder))
            else:
                found = run(arguments, sampling, contender)
            rows.append({'sampling': sampling, 'contender': contender, **found})
            peak = f', {found["peak_mib"]:,.0f} MiB with pages at most' if 'peak_mib' in found else ''
            print(f'{sampling}, {contender}: {found["ms"]:.1f} ms, {found["faults_a_step"]:.0f} pages waited for a '
                  f'step; ranking {RANKED} facts {found["ranking_s"]:.1f} s; private memory '
                  f'{found["private_mib"]:,.0f} MiB{peak}', flush=True)
            check(rows)
            metrics = {'label': f'{sampling}, {contender}', 'nodes': arguments.nodes, 'facts': arguments.facts,
                       'channels': arguments.channels, 'table_mib': table_bytes(arguments) / 2**20,
                       'limit_mib': table_bytes(arguments) / 4 / 2**20, **rows[-1]}
            name = f'{sampling} {contender}'.replace(',', '').replace(' ', '-')
            print(write_result(f'mmap_tables/{name}', metrics, seed=0, folder=arguments.out), flush=True)


if __name__ == '__main__':
    main()
