r"""A training step whose entity rows are divided among 1, 2 and 4 processes: its time, and what it exchanges.

.. code-block:: bash

    python -m benchmarks.shards                          # a generated graph of a million entities, d = 100
    python -m benchmarks.shards --smoke --out <folder>

The processes share the cores of this machine, each with an equal part of the threads, and exchange through Gloo on the
loopback device, as ``torchrun -m pyg_emu train --shard entities`` does. Steps are DistMult with EMU, row-sparse
gradients and RowAdagrad, with three numbers of negatives, from which :mod:`benchmarks._cost_model` takes the cost of a
negative and the cost that does not depend on them, both from a process with one thread. A single process composes its
loss of scores, as several have to, so that all of them do the same work. Latency and bandwidth are those of a sum of
one number and of 4 MiB. Writes ``benchmarks/results/shards/<processes>.json`` and ``one-thread.json``.
"""
from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import torch
import torch.distributed as dist

from benchmarks._contenders import LEARNING_RATE
from benchmarks._record import RESULTS, ROOT, write_result
from benchmarks.large_graphs import generate, training_step
from pyg_emu import DistMult, RowAdagrad, process_group, shard_entities

WORLDS = (1, 2, 4)
_LARGE = 2**20  # float32


class Exchanges:
    r"""Counts what a process exchanges: calls, bytes that it sends where messages go round a ring, and seconds."""
    def __init__(self) -> None:
        self.calls, self.sent, self.seconds = 0, 0.0, 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        r"""Counts the exchanges inside of the block."""
        all_reduce, all_gather = dist.all_reduce, dist.all_gather

        def reduce(value: torch.Tensor, *rest: Any, **options: Any) -> Any:
            world = dist.get_world_size()
            return self._timed(lambda: all_reduce(value, *rest, **options), 2 * (world - 1) / world * value.nbytes)

        def gather(parts: Any, value: torch.Tensor, *rest: Any, **options: Any) -> Any:
            return self._timed(lambda: all_gather(parts, value, *rest, **options), (len(parts) - 1) * value.nbytes)

        dist.all_reduce, dist.all_gather = reduce, gather  # type: ignore[assignment]
        try:
            yield
        finally:
            dist.all_reduce, dist.all_gather = all_reduce, all_gather

    def _timed(self, work: Callable[[], Any], sent: float) -> Any:
        start = time.perf_counter()
        result = work()
        self.seconds += time.perf_counter() - start
        self.calls, self.sent = self.calls + 1, self.sent + sent
        return result


def work(arguments: argparse.Namespace) -> Optional[dict[str, Any]]:
    r"""Measures in each process of a group; the first one returns what it measured."""
    with process_group('cpu') as place:
        torch.set_num_threads(arguments.threads)
        data = generate(arguments.entities, arguments.facts, arguments.relations, 1, arguments.seed)
        torch.manual_seed(arguments.seed)
        with torch.device('meta'):
            model = DistMult(arguments.entities, arguments.relations, arguments.channels, sparse=True)
        model = shard_entities(model)
        optimizer = RowAdagrad(model.parameters(), lr=LEARNING_RATE)
        rows = []
        # The most negatives first: rows and state that are touched for the first time take longer.
        for number in sorted(arguments.negatives, reverse=True):
            sizes = argparse.Namespace(**{**vars(arguments), 'negatives': number})
            step = training_step(model, data, optimizer, False, sizes, fused=False)
            for _ in range(arguments.warmup):
                step()
            exchanges, times = Exchanges(), []
            with exchanges.counted():
                for _ in range(arguments.steps):
                    start = time.perf_counter()
                    step()
                    times.append(time.perf_counter() - start)
            rows.append({'negatives': number, 'ms': 1e3 * statistics.median(times),
                         'exchange_ms': 1e3 * exchanges.seconds / arguments.steps,
                         'calls': exchanges.calls // arguments.steps, 'sent': exchanges.sent / arguments.steps})
        rows.reverse()
        found = {'label': f'{place.world} process{"es" if place.world > 1 else ""}', 'processes': place.world,
                 'threads': arguments.threads, 'cores': arguments.cores, 'entities': arguments.entities,
                 'channels': arguments.channels, 'batch_size': arguments.batch_size, 'rows': rows,
                 **{f'n{row["negatives"]}': row for row in rows}, **_network(place.world)}
        return found if place.rank == 0 else None


def _network(world: int) -> dict[str, float]:
    r"""The milliseconds of an exchange of one number, and the bytes that a process sends in a millisecond."""
    if world == 1:
        return {'latency_ms': 0.0, 'bytes_per_ms': 0.0}

    def median_ms(value: torch.Tensor) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            dist.all_reduce(value)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    latency, large = median_ms(torch.zeros(1)), torch.zeros(_LARGE)
    sent = 2 * (world - 1) / world * large.nbytes
    return {'latency_ms': latency, 'bytes_per_ms': sent / max(median_ms(large) - latency, 1e-6)}


def _start(world: int, argv: Sequence[str], cores: int) -> dict[str, Any]:
    r"""Runs a group of processes and returns what the first one measured."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'benchmarks.shards', *argv, '--cores', str(cores), '--worker',
                   str(Path(folder) / 'found.json')]
        environment = {**os.environ, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
                       'WORLD_SIZE': str(world), 'OMP_NUM_THREADS': str(max(1, cores // world))}
        processes = []
        for rank in map(str, range(world)):
            processes.append(subprocess.Popen(command, cwd=ROOT, env={**environment, 'RANK': rank, 'LOCAL_RANK': rank}))
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError(f'a process of {world} ended with {codes}')
        found: dict[str, Any] = json.loads((Path(folder) / 'found.json').read_text())
        return found


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures, prints and records."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--worlds', nargs='+', type=int, default=list(WORLDS), help='numbers of processes')
    parser.add_argument('--entities', type=int, default=1_000_000)
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--negatives', nargs='+', type=int, default=[128, 256, 512])
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--smoke', action='store_true', help='tiny sizes, one process in this one, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    parser.add_argument('--cores', type=int, default=len(os.sched_getaffinity(0)), help=argparse.SUPPRESS)
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if len(set(arguments.negatives)) < 2:
        parser.error(f'--negatives: expected at least two different numbers, got {arguments.negatives}')
    arguments.facts, arguments.relations, arguments.chunk_size, arguments.warmup = arguments.entities, 822, 250, 10
    if arguments.smoke:
        if arguments.out == RESULTS and arguments.worker is None:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.entities, arguments.facts, arguments.relations, arguments.channels = 60, 200, 5, 4
        arguments.batch_size, arguments.negatives, arguments.steps, arguments.warmup = 8, [4, 8], 2, 1
    arguments.threads = max(1, arguments.cores // int(os.environ.get('WORLD_SIZE', '1')))
    if arguments.worker is not None:
        found = work(arguments)
        if found is not None:
            arguments.worker.write_text(json.dumps(found))
        return
    for name, world, cores in (('one-thread', 1, 1), *((str(world), world, arguments.cores)
                                                       for world in arguments.worlds)):
        alone = work(arguments) if arguments.smoke and world == 1 else None
        found = _start(world, argv, cores) if alone is None else alone
        print(found, flush=True)
        print(write_result(f'shards/{name}', found, seed=arguments.seed, folder=arguments.out))


if __name__ == '__main__':
    main()
