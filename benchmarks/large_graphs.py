r"""Training and ranking on generated graphs of Wikidata5M's shape, and how both grow with the number of entities.

.. code-block:: bash

    python -m benchmarks.large_graphs                      # 1e5 to 5e6 entities, d = 100; needs 12 GiB of memory
    python -m benchmarks.large_graphs --channels 200 --sizes 4594485 --optimizers adagrad
    python -m benchmarks.large_graphs --smoke --out <folder>

A graph has 822 relations and 4.49 facts for each entity, as Wikidata5M (4,594,485 entities, 20,614,279 facts), of which
5,000 each are valid and test. Degrees follow power laws: the density of the entity of rank :math:`k` is proportional to
:math:`k^{-1/2}` among heads and to :math:`k^{-1}` among tails, so that one entity is the tail of 6 % of all facts.

DistMult trains with EMU, row-sparse gradients and a row optimiser: each triple with negatives of its own, and with
:class:`~pyg_emu.SharedNegativesSampler`. Each size runs in a process of its own, whose peak resident memory counts.
Ranking is filtered, heads and tails; its time does not include the index of known facts, which has a column of its own.
Writes ``benchmarks/results/large_graphs/d<channels>-<entities>.json`` and, as soon as several sizes are recorded,
``d<channels>-exponent.json``: the slopes of all values against the number of entities on logarithmic scales.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

import numpy as np
import torch

from benchmarks._contenders import ALPHA, BETA, LEARNING_RATE, RATE, Step
from benchmarks._memory import _resident
from benchmarks._record import RESULTS, ROOT, read_results, write_result
from benchmarks.speed import take_turns
from pyg_emu import (
    DistMult,
    EMULoss,
    EMUNegatives,
    KGData,
    RowAdagrad,
    RowAdam,
    SharedNegativesSampler,
    TripletLoader,
    evaluate,
)

#: Wikidata5M.
ENTITIES, RELATIONS, FACTS = 4_594_485, 822, 20_614_279
HELD_OUT = 5_000
SIZES = (100_000, 300_000, 1_000_000, ENTITIES, 5_000_000)
#: The exponents of the densities of entities and relations in their rank.
HEAD_POWER, TAIL_POWER, RELATION_POWER = 0.5, 1.0, 1.0
#: The largest exponents: a step may not grow with the graph faster than its cache misses do, all else at most linearly.
STEP_BUDGET, LINEAR_BUDGET = 0.6, 1.1
OPTIMIZERS: dict[str, Any] = {'adagrad': RowAdagrad, 'adam': RowAdam}


def power_law(size: int, count: int, power: float, random: np.random.Generator) -> np.ndarray:
    r"""Draws ranks from 0 on, with a density proportional to :math:`(k + 1)^{-\mathrm{power}}`. shape: (count,)."""
    share = random.random(count)
    if power == 1.0:
        rank = float(size)**share
    else:
        rank = ((size**(1.0 - power) - 1.0) * share + 1.0)**(1.0 / (1.0 - power))
    return np.minimum(rank.astype(np.int64) - 1, size - 1)


def generate(num_entities: int, num_facts: int, num_relations: int = RELATIONS, held_out: int = HELD_OUT,
             seed: int = 0) -> KGData:
    r"""A graph of Wikidata5M's shape. Ids do not tell the rank of an entity, and frequent heads are not frequent tails.

    Args:
        num_entities (int): The number of entities.
        num_facts (int): The number of training facts.
        num_relations (int): The number of relations.
        held_out (int): The number of validation facts, and of test facts.
        seed (int): The seed.
    """
    random = np.random.default_rng(seed)
    count = num_facts + 2 * held_out
    ends = np.empty((2, count), dtype=np.int64)
    for row, power in enumerate((HEAD_POWER, TAIL_POWER)):
        ends[row] = random.permutation(num_entities)[power_law(num_entities, count, power, random)]
    relation = torch.from_numpy(power_law(num_relations, count, RELATION_POWER, random))
    edges = torch.from_numpy(ends)
    parts: dict[str, Any] = {}
    for number, split in enumerate(('valid', 'test')):
        own = slice(num_facts + number * held_out, num_facts + (number + 1) * held_out)
        parts |= {f'{split}_edge_index': edges[:, own].contiguous(), f'{split}_edge_type': relation[own].clone()}
    return KGData(edges[:, :num_facts].contiguous(), relation[:num_facts].clone(), num_entities, num_relations, **parts)


def training_step(model: torch.nn.Module, data: KGData, optimizer: torch.optim.Optimizer, shared: bool,
                  arguments: argparse.Namespace, fused: bool = True) -> Step:
    r"""A function that performs one step with everything in it: facts, negatives, masks, loss, gradients, update.
    Without :obj:`fused`, the loss is composed of scores, as it is where processes divide the entities.
    """
    sampler = SharedNegativesSampler(arguments.chunk_size) if shared else None
    transform = EMUNegatives(arguments.negatives, RATE, sampler=sampler)
    criterion = EMULoss(ALPHA, BETA)
    criterion.fused = fused
    batches = TripletLoader(data, arguments.batch_size, shuffle=True, transform=transform, drop_last=True,
                            seed=arguments.seed).batches()

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        criterion(model, batch).backward()
        optimizer.step()

    return step


def measure(num_entities: int, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Trains and ranks on a graph in this process, which should be new."""
    def timed(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    data = generate(num_entities, round(num_entities * FACTS / ENTITIES), arguments.relations, arguments.held_out,
                    arguments.seed)
    index_s = timed(lambda: (data.fact_index('train'), data.fact_index('all')))
    torch.manual_seed(arguments.seed)
    model = DistMult(num_entities, arguments.relations, arguments.channels, sparse=True)
    found: dict[str, Any] = {'label': f'{num_entities:,}, d = {arguments.channels}', 'entities': num_entities,
                             'facts': data.num_facts('train'), 'channels': arguments.channels,
                             'batch_size': arguments.batch_size, 'negatives': arguments.negatives, 'index_s': index_s,
                             'table_gib': model.node_emb.weight.nbytes / 2**30}
    for name in arguments.optimizers:
        optimizer = OPTIMIZERS[name](model.parameters(), lr=LEARNING_RATE)
        steps = {kind: training_step(model, data, optimizer, kind == 'shared', arguments) for kind in ('own', 'shared')}
        # One optimiser at a time, so that the tables of the other do not count.
        times = take_turns(steps, arguments.rounds, arguments.turn_seconds)
        found |= {f'{name}_{kind}_ms': 1e3 * statistics.median(times[kind]) for kind in steps}
        found.setdefault('training_peak_gib', _resident('VmHWM') / 2**30)
        del optimizer, steps
    evaluate(model, data, split='test', max_triples=2)
    found['ranking_s'] = timed(lambda: evaluate(model, data, split='test'))
    found |= {'ranked': data.num_facts('test'), 'peak_gib': _resident('VmHWM') / 2**30}
    return found


def exponents_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    r"""The slopes of times and memory against the number of entities on logarithmic scales, and those of them that are
    beyond their budget.
    """
    size = np.log([row['entities'] for row in rows])
    keys = [key for key in rows[0] if key.endswith(('_ms', '_s', '_gib'))]
    found = {key: float(np.polyfit(size, np.log([row[key] for row in rows]), 1)[0]) for key in keys}
    beyond = [key for key, value in found.items() if value > (STEP_BUDGET if key.endswith('_ms') else LINEAR_BUDGET)]
    return {'label': f'exponent, d = {rows[0]["channels"]}', **found, 'beyond': beyond}


def _in_new_process(size: int, argv: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, '-m', 'benchmarks.large_graphs', *argv, '--size', str(size)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def parse(argv: Sequence[str]) -> argparse.Namespace:
    r"""Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', type=int, default=list(SIZES), help='numbers of entities')
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--optimizers', nargs='+', choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--negatives', type=int, default=256)
    parser.add_argument('--chunk-size', type=int, default=250, help='number of triples that share negatives')
    parser.add_argument('--rounds', type=int, default=5, help='number of turns of each kind of step')
    parser.add_argument('--turn-seconds', type=float, default=1.0, help='minimum duration of a turn')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--smoke', action='store_true', help='tiny sizes in this process, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    parser.add_argument('--size', type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.relations, arguments.held_out = RELATIONS, HELD_OUT
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.sizes, arguments.relations, arguments.held_out = [60, 120], 5, 6
        arguments.channels, arguments.batch_size, arguments.negatives, arguments.chunk_size = 4, 8, 4, 3
        arguments.rounds, arguments.turn_seconds = 1, 1e-6
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures, prints and records."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    if arguments.size is not None:
        print(json.dumps(measure(arguments.size, arguments)))
        return
    for size in arguments.sizes:
        row = measure(size, arguments) if arguments.smoke else _in_new_process(size, argv)
        print(row, flush=True)
        print(write_result(f'large_graphs/d{arguments.channels}-{size:09d}', row, seed=arguments.seed,
                           folder=arguments.out))
    rows = [result['metrics'] for result in read_results(f'large_graphs/d{arguments.channels}-[0-9]*', arguments.out)]
    if len(rows) > 1:
        exponents = exponents_of(rows)
        print(exponents)
        print(write_result(f'large_graphs/d{arguments.channels}-exponent', exponents, seed=arguments.seed,
                           folder=arguments.out))


if __name__ == '__main__':
    main()
