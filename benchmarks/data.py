r"""Loading time of datasets, from text files to indices, and the cost of negatives.

.. code-block:: bash

    python -m benchmarks.data                                # 5 million generated triples
    PYG_EMU_DATA=<folder> python -m benchmarks.data          # and <folder>/FB15k-237

Writes ``benchmarks/results/data.json``. Budgets: FB15k-237 in under 3 s, 5 million triples in under 60 s.
"""
from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pandas as pd
import torch

from benchmarks._record import write_result
from pyg_emu import TripletLoader, UniformSampler, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.data.graph import KGData

FB15K237_BUDGET_S = 3.0
LARGE_BUDGET_S = 60.0


def seconds(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    r"""Returns the running time of a call in seconds, and its result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def generate(folder: Path, num_facts: int, num_entities: int, num_relations: int, seed: int) -> None:
    r"""Writes train, valid and test files of distinct triples with a skewed distribution as in real data: the density
    of a label is proportional to the inverse square root of its rank.
    """
    random = np.random.default_rng(seed)

    def draw(size: int, count: int) -> np.ndarray:
        return (size * random.random(count) ** 2).astype(np.int64)

    facts = pd.DataFrame({'head': draw(num_entities, int(num_facts * 1.1)),
                          'relation': draw(num_relations, int(num_facts * 1.1)),
                          'tail': draw(num_entities, int(num_facts * 1.1))}).drop_duplicates()[:num_facts]
    facts = pd.DataFrame({'head': '/m/' + facts['head'].astype(str), 'relation': '/r/' + facts['relation'].astype(str),
                          'tail': '/m/' + facts['tail'].astype(str)})
    held_out = num_facts // 100
    parts = {'valid': facts[:held_out], 'test': facts[held_out:2 * held_out], 'train': facts[2 * held_out:]}
    for name, part in parts.items():
        part.to_csv(folder / f'{name}.txt', sep='\t', header=False, index=False)


def build_indices(data: KGData) -> None:
    r"""Builds all indices for filtering, ranking and message passing."""
    for split in ('train', 'all'):
        index = data.fact_index(split)
        _ = index.max_known
    for key in ('target', 'source', 'relation'):
        data.edges_by(key)


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    r"""Returns median times over several loads of a folder, and the cost of a batch."""
    runs = []
    for _ in range(repeats):
        start = time.process_time()
        read, data = seconds(load_dataset, folder)
        indices, _ = seconds(build_indices, data)
        # The CPU time of all threads of this process does not depend on the load of the machine.
        runs.append((read, indices, read + indices, time.process_time() - start))
    read, indices, total, cpu = (statistics.median(column) for column in zip(*runs))
    return {'facts': data.num_facts('all'), 'entities': data.num_nodes, 'relations': data.num_relations,
            'read_s': read, 'indices_s': indices, 'total_s': total, 'total_cpu_s': cpu, 'repeats': repeats,
            **measure_batches(data)}


def measure_batches(data: KGData, num_batches: int = 100) -> dict[str, float]:
    r"""Returns the time in milliseconds of a batch of 1000 triples, and of 256 negatives per triple."""
    loader = TripletLoader(data, batch_size=1000, shuffle=True, corrupt='both')
    samplers = {'uniform_ms': UniformSampler(), 'filtered_ms': UniformSampler(filtered=True)}
    times: dict[str, list[float]] = {'batch_ms': [], **{name: [] for name in samplers}}
    stream = loader.batches()
    for sampler in samplers.values():  # The first draw builds the indices.
        sampler.sample(next(stream), 256)
    for _ in range(num_batches):
        elapsed, batch = seconds(next, stream)
        times['batch_ms'].append(1e3 * elapsed)
        for name, sampler in samplers.items():
            elapsed, _ = seconds(sampler.sample, batch, 256)
            times[name].append(1e3 * elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--facts', type=int, default=5_000_000, help='number of generated triples')
    parser.add_argument('--entities', type=int, default=1_000_000, help='number of entities in the generated data')
    parser.add_argument('--relations', type=int, default=1_000, help='number of relations in the generated data')
    parser.add_argument('--repeats', type=int, default=3, help='number of loads of FB15k-237, reduced by the median')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)

    # Warnings about the benchmark datasets are known and would clutter the output.
    warnings.simplefilter('ignore', DataWarning)
    metrics: dict[str, Any] = {'budget_s': {'fb15k237': FB15K237_BUDGET_S, 'generated': LARGE_BUDGET_S}}
    root = os.environ.get('PYG_EMU_DATA')
    if root and (Path(root) / 'FB15k-237').is_dir():
        metrics['fb15k237'] = measure(Path(root) / 'FB15k-237', arguments.repeats)
        print('FB15k-237', metrics['fb15k237'])
    else:
        print('PYG_EMU_DATA: no folder FB15k-237 found, so this part is skipped')
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), arguments.facts, arguments.entities, arguments.relations, arguments.seed)
        metrics['generated'] = measure(Path(folder), repeats=1)
    metrics['generated']['peak_gib'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print('generated', metrics['generated'])
    print(write_result('data', metrics, seed=arguments.seed))


if __name__ == '__main__':
    main()
