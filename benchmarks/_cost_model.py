r"""The cost model of docs/performance.md: what a step with divided entities takes, and what it needs on GPUs.

A step of :math:`B` triples with :math:`N` negatives each and :math:`W` processes takes

.. math::
    T(W) = \frac{W c_0}{\min(W t, C)} + \frac{c_1 B N}{M} + m \lambda_W + \frac{s}{\beta_W}

with :math:`c_0` core milliseconds of work that every process repeats (triples, ids, masks, loss), :math:`c_1` for a
negative (its row read twice, its gradient and its update: memory traffic, which the cores of a machine share),
:math:`t` threads of a process, :math:`C` cores, :math:`M` memories: machines or GPUs, one where the model is checked,
:math:`m` exchanges of latency :math:`\lambda_W`, and :math:`s` bytes that a process sends at :math:`\beta_W`.
:math:`c_0` and :math:`c_1` come from one process and one thread with several numbers of negatives, as the least squares
of relative errors without negative constants; :math:`m`, :math:`s`, :math:`\lambda_W` and :math:`\beta_W` from the run
with :math:`W` processes. Its step time is not used, and is what the model is checked against.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import numpy as np
from scipy.optimize import nnls

from benchmarks._record import read_results

Results = list[dict[str, Any]]


@dataclass(frozen=True)
class Machine:
    r"""GPUs that the model is applied to. Rates are those of data sheets, and shares of them that are assumed.

    Args:
        name (str): The machine.
        gpus (int): The number of GPUs.
        memory_bytes (float): The memory of a GPU.
        memory_rate (float): Bytes in a second between a GPU and its memory.
        memory_share (float): The assumed share of this rate for rows at random places.
        network_rate (float): Bytes in a second that a GPU sends to others.
        network_share (float): The assumed share of this rate.
        latency (float): The assumed seconds of an exchange.
    """
    name: str
    gpus: int
    memory_bytes: float = 141e9
    memory_rate: float = 4.8e12
    memory_share: float = 0.5
    network_rate: float = 450e9
    network_share: float = 0.5
    latency: float = 2e-5


#: One machine with NVLink, and eight of them with InfiniBand NDR, 400 Gbit/s for each GPU.
MACHINES = (Machine('8 H200, NVLink', 8), Machine('64 H200, InfiniBand', 64, network_rate=50e9, latency=5e-5))
#: WikiKG90M of OGB-LSC: entities, relations, training facts.
WIKIKG90M = (87_143_637, 1_315, 504_220_369)
#: The step that the model is applied to: triples, negatives, components.
STEP = (4096, 1024, 200)
#: Bytes of memory traffic for a component of a negative: its row is read forward and backward, its gradient is written
#: and read, weight and state are read and written.
ROW_BYTES = 32
#: Bytes of memory traffic for a negative that every process repeats: its id is drawn and sorted out, vanilla and
#: mutated scores pass through the loss and back.
SCORE_BYTES = 80
#: Exchanges in a step: rows of known entities and positives, scores, and gradients of queries and positives.
CALLS = 4


def constants(alone: Mapping[str, Any]) -> tuple[float, float]:
    r"""Core milliseconds of the repeated work, and of a negative, from the result of one process with one thread."""
    # Each equation is divided by the measured time, and negatives are counted in thousands of triples times negatives,
    # so that the solver sees numbers of about one.
    shares = np.array([(1.0, alone['batch_size'] * row['negatives'] / 1e3) for row in alone['rows']])
    (repeated, each), _ = nnls(shares / np.array([[row['ms']] for row in alone['rows']]), np.ones(len(alone['rows'])))
    return float(repeated), float(each) / 1e3


def predicted_ms(alone: Mapping[str, Any], found: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    r"""The time of a step by the model."""
    repeated, each = constants(alone)
    world = found['processes']
    cores = min(world * found['threads'], found['cores'])
    time = world * repeated / cores + each * found['batch_size'] * row['negatives']
    if world > 1:
        time += row['calls'] * found['latency_ms'] + row['sent'] / found['bytes_per_ms']
    return float(time)


def sent_bytes(batch: int, negatives: int, channels: int, world: int) -> float:
    r"""The bytes that a process sends in a step of DistMult with EMU. Rows of known entities and positives, and the
    gradients of queries and positives, are sums; scores, vanilla and mutated ones, are gathered.
    """
    return 4.0 * (2 * (world - 1) / world * 4 * batch * channels + (world - 1) / world * 2 * batch * negatives)


def gpu_step(machine: Machine, batch: int, negatives: int, channels: int) -> dict[str, float]:
    r"""The parts of a step on GPUs, in milliseconds."""
    memory, network = machine.memory_rate * machine.memory_share, machine.network_rate * machine.network_share
    slots = batch * negatives
    found = {'rows': slots / machine.gpus * channels * ROW_BYTES / memory, 'repeated': slots * SCORE_BYTES / memory,
             'latency': CALLS * machine.latency,
             'network': sent_bytes(batch, negatives, channels, machine.gpus) / network}
    return {**{key: 1e3 * value for key, value in found.items()}, 'step': 1e3 * sum(found.values())}


def gpu_gigabytes(machine: Machine, nodes: int, facts: int, channels: int) -> dict[str, float]:
    r"""What a GPU holds: its rows and their Adagrad state, all facts, and the index of known ones. At this size, the
    index holds a number for each pattern. Its size is that for facts whose patterns all differ.
    """
    return {'rows': 8.0 * nodes / machine.gpus * channels / 1e9, 'facts': 24.0 * facts / 1e9,
            'index': 32.0 * facts / 1e9}


def checked(folder: Path) -> tuple[str, Results]:
    r"""Returns the table of predicted and measured steps."""
    results = sorted(read_results('shards/*', folder), key=lambda result: (result['metrics']['processes'],
                                                                           result['metrics']['cores']))
    alone = next((result['metrics'] for result in results
                  if (result['metrics']['processes'], result['metrics']['threads']) == (1, 1)), None)
    if alone is None:
        return '', []
    repeated, each = constants(alone)
    lines = [['processes', 'threads of each', 'negatives', 'measured, ms', 'model, ms', 'model / measured', 'sent, MB',
              'by formula, MB', 'exchanges', 'waiting for them, ms'], ['---:'] * 10]
    ratios = []
    for found in (result['metrics'] for result in results):
        for row in found['rows']:
            model = predicted_ms(alone, found, row)
            ratios.append(model / row['ms'])
            formula = sent_bytes(found['batch_size'], row['negatives'], found['channels'], found['processes'])
            lines.append([str(found['processes']), str(found['threads']), str(row['negatives']), f'{row["ms"]:.1f}',
                          f'{model:.1f}', f'{model / row["ms"]:.2f}', f'{row["sent"] / 1e6:.2f}',
                          f'{formula / 1e6:.2f}', str(row['calls']), f'{row["exchange_ms"]:.1f}'])
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    network = '; '.join(f'with {found["processes"]} processes, latency {found["latency_ms"]:.2f} ms and '
                        f'{found["bytes_per_ms"] / 1e6:.2f} GB/s' for found in (result['metrics'] for result in results)
                        if found['processes'] > 1)
    return (f'Constants: c0 = {repeated:.1f} core ms for what every process repeats, c1 = {1e6 * each:.0f} ns for '
            f'a negative of {alone["channels"]} components{"; " + network if network else ""}.\n\n{table}\n\n'
            f'Predicted times are {min(ratios):.2f} to {max(ratios):.2f} times the measured ones.'), results


def on_gpus(folder: Path) -> tuple[str, Results]:
    r"""Returns the table of the model on GPUs, once its check is recorded."""
    if not read_results('shards/*', folder):
        return '', []
    nodes, relations, facts = WIKIKG90M
    batch, negatives, channels = STEP
    lines = [['', *(machine.name for machine in MACHINES)], ['---', *['---:'] * len(MACHINES)]]
    steps = [gpu_step(machine, batch, negatives, channels) for machine in MACHINES]
    for key, caption in (('rows', 'rows of negatives, ms'), ('repeated', 'what every GPU repeats, ms'),
                         ('latency', 'latency, ms'), ('network', 'bytes sent, ms'), ('step', 'step, ms')):
        lines.append([caption, *(f'{step[key]:.2f}' for step in steps)])
    lines.append(['an epoch, hours', *(f'{facts / batch * step["step"] / 3.6e6:.2f}' for step in steps)])
    held = [gpu_gigabytes(machine, nodes, facts, channels) for machine in MACHINES]
    for key, caption in (('rows', 'rows and Adagrad state, GB a GPU'), ('facts', 'facts, int64, GB a GPU'),
                         ('index', 'index of known facts, at most, GB a GPU')):
        lines.append([caption, *(f'{part[key]:.1f}' for part in held)])
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return (f'WikiKG90M: {nodes:,} entities, {relations:,} relations, {facts:,} facts. Steps of {batch:,} triples with '
            f'{negatives:,} negatives and d = {channels}, not measured:\n\n{table}'), []


TEXTS = {'cost-model': checked, 'cost-model-gpus': on_gpus}
