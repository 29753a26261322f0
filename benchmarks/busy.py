r"""Training steps with other busy processes, on one core, and with a CPU quota: this package and eager PyTorch.

.. code-block:: bash

    python -m benchmarks.busy                               # steps on UMLS and FB15k-237
    python -m benchmarks.busy --before path/to/old/tree     # also the code of another checkout, alternately
    python -m benchmarks.busy --smoke --out <folder>        # everything, tiny

Each contender runs in a separate process, which waits while others are measured. A busy process is a loop that never
sleeps. "One core" is a CPU affinity. "Quota" is a control group with two or more visible cores and the CPU time of one,
as in a container; it is omitted if no group can be created. Writes ``benchmarks/results/busy/{case}-{contender}.json``
with milliseconds per step, averaged over all turns without the first second, and the ratios to the quiet step. Run it
on an otherwise idle machine, because other load invalidates the results of ``quiet``.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Entities, relations, facts, batch size, negatives, channels.
CASES = {'umls': (135, 46, 5216, 500, 64, 100), 'fb15k237': (14541, 237, 272115, 1000, 256, 100)}
SMOKE_CASES = {'umls': (20, 3, 200, 8, 4, 4)}
CONTENDERS = {'ours': 'emu_triple', 'eager': 'eager_emu_triple'}
#: The number of busy processes, and the maximum slowdown of a step for each number.
BUSY = (0, 1, 2, 4)
AT_MOST = {'busy_1': 3.0, 'busy_2': 5.0}
#: Seconds before a turn is timed: threads adapt to other processes within 0.1, and to their absence within 0.6.
SETTLE = 1.0
_CGROUPS = (Path('/sys/fs/cgroup/cpu'), Path('/sys/fs/cgroup'))
_PERIOD = 100_000


class Worker:
    r"""A contender in a separate process.

    Args:
        case (tuple of int): The sizes.
        contender (str): One of :data:`benchmarks._contenders.CONTENDERS`.
        tree (Path): The checkout whose code runs.
        group (Path, optional): The control group to run in.
        one_core (bool): Whether to run on one core.
    """
    def __init__(self, case: tuple[int, ...], contender: str, tree: Path, group: Path | None = None,
                 one_core: bool = False) -> None:
        def enter() -> None:
            if group is not None:
                (group / 'cgroup.procs').write_text(str(os.getpid()))
            if one_core:
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

        # Without the folder of this file in the path, whose queue.py would hide Python's own.
        command = [sys.executable, '-P', __file__, '--worker', json.dumps([contender, *case])]
        self.process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tree,
            env={**os.environ, 'PYTHONPATH': str(tree)}, preexec_fn=enter if group is not None or one_core else None)

    def run(self, seconds: float) -> tuple[float, int]:
        r"""Takes steps for at least :obj:`seconds`, at least one, and returns their time and number."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f'{seconds}\n')
        self.process.stdin.flush()
        spent, steps = self.process.stdout.readline().split()
        return float(spent), int(steps)

    def end(self) -> None:
        r"""Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(contender: str, sizes: list[int]) -> None:
    r"""Takes steps as :class:`Worker` asks for them."""
    from benchmarks import _contenders as contenders

    entities, relations, facts, batch_size, negatives, channels = sizes
    setting = contenders.Setting('distmult', contenders.generate(entities, relations, facts), batch_size, negatives,
                                 channels)
    step = contenders.CONTENDERS[contender](setting)
    step()
    step()
    for line in sys.stdin:
        start, steps = time.perf_counter(), 0
        while steps == 0 or time.perf_counter() - start < float(line):
            step()
            steps += 1
        print(time.perf_counter() - start, steps, flush=True)


@contextmanager
def busy(number: int) -> Iterator[None]:
    r"""Runs processes that never sleep."""
    processes = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(number)]
    try:
        time.sleep(0.3 if number else 0.0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def quota_of_one_core() -> Iterator[Path | None]:
    r"""Makes a control group with the time of one core; :obj:`None` where that is not possible."""
    for root in _CGROUPS:
        group = root / f'pyg_emu-busy-{os.getpid()}'
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / 'cpu.max').exists():
                (group / 'cpu.max').write_text(f'{_PERIOD} {_PERIOD}')
            else:
                (group / 'cpu.cfs_period_us').write_text(str(_PERIOD))
                (group / 'cpu.cfs_quota_us').write_text(str(_PERIOD))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None


def measure(case: tuple[int, ...], trees: dict[str, tuple[str, Path]], rounds: int,
            seconds: float) -> dict[str, dict[str, float]]:
    r"""Milliseconds a step of each contender under each condition.

    Args:
        case (tuple of int): The sizes.
        trees (dict): The name in :data:`benchmarks._contenders.CONTENDERS` and the checkout of each contender.
        rounds (int): Turns under each condition.
        seconds (float): The length of a turn.
    """
    spent: dict[str, dict[str, list[tuple[float, int]]]] = {name: {} for name in trees}

    def turns(workers: dict[str, Worker], condition: str) -> None:
        for name, worker in workers.items():
            worker.run(min(seconds, SETTLE))
            spent[name].setdefault(condition, []).append(worker.run(seconds))

    def together(conditions: dict[str, int], **options: Any) -> None:
        workers = {name: Worker(case, *tree, **options) for name, tree in trees.items()}
        try:
            for worker in workers.values():  # They start side by side.
                worker.run(0.0)
            for _ in range(rounds):
                for condition, number in conditions.items():
                    with busy(number):
                        turns(workers, condition)
        finally:
            for worker in workers.values():
                worker.end()

    together({'quiet' if number == 0 else f'busy_{number}': number for number in BUSY})
    if hasattr(os, 'sched_setaffinity'):
        together({'one_core': 0}, one_core=True)
    with quota_of_one_core() as group:
        if group is not None:
            together({'quota': 0}, group=group)
    return {name: {condition: 1e3 * sum(time for time, _ in own) / sum(steps for _, steps in own)
                   for condition, own in found.items()} for name, found in spent.items()}


def summary(found: dict[str, float]) -> dict[str, Any]:
    r"""Milliseconds, their ratios to the quiet step, and whether the slowdowns that are asked for are kept."""
    ratios = {name: value / found['quiet'] for name, value in found.items() if name != 'quiet'}
    return {'ms': found, 'ratios': ratios, 'at_most': AT_MOST,
            'met': {name: ratios[name] <= bound for name, bound in AT_MOST.items()}}


def main(argv: list[str] | None = None) -> None:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--rounds', type=int, default=3, help='turns under each condition')
    parser.add_argument('--seconds', type=float, default=2.0, help='length of a turn')
    parser.add_argument('--before', type=Path, metavar='DIR', help='another checkout to compare with')
    parser.add_argument('--smoke', action='store_true', help='tiny sizes, a moment each')
    parser.add_argument('--out', type=Path, help='folder of the results')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker is not None:
        contender, *sizes = json.loads(arguments.worker)
        serve(contender, sizes)
        return
    from benchmarks._record import RESULTS, ROOT, write_result

    trees = {name: (contender, ROOT) for name, contender in CONTENDERS.items()}
    if arguments.before is not None:
        trees['before'] = CONTENDERS['ours'], arguments.before.resolve()
    rounds, seconds = (1, 0.05) if arguments.smoke else (arguments.rounds, arguments.seconds)
    load = os.getloadavg()[0]
    for case, sizes in (SMOKE_CASES if arguments.smoke else {name: CASES[name] for name in arguments.cases}).items():
        for name, found in measure(sizes, trees, rounds, seconds).items():
            entry = summary(found)
            print(f'{case} {name}:', *(f'{key} {value:.2f} ms' for key, value in found.items()), flush=True)
            write_result(f'busy/{case}-{name}', {'label': f'{case}, {name}', 'sizes': sizes, 'load_before': load,
                                                 **entry}, folder=arguments.out or RESULTS)


if __name__ == '__main__':
    main()
