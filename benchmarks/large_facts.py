r"""100 million facts from files to indices: minutes and peak memory, as text, as Parquet, and from a fact store.

.. code-block:: bash

    python -m benchmarks.large_facts                          # 100 million generated facts; needs 8 GB of disk space
    python -m benchmarks.large_facts --facts 5000000 --entities 1000000 --out <folder>
    python -m benchmarks.large_facts --smoke --out <folder>

Each stage runs in a process of its own, whose peak resident memory counts, pages of mapped files included:

- text: :func:`~pyg_emu.load_dataset` of a folder of tab-separated files, with ids, checks and warnings; then the
  indices for filters and ranking (training facts, all facts) and the edges sorted by target.
- parquet: :func:`~pyg_emu.data.io.write_fact_store` of a folder of Parquet files with the same labels.
- store: :func:`~pyg_emu.load_dataset` of this store, and the same indices.

The time of an epoch's first batch includes its random order. Writes ``benchmarks/results/large_facts.json``.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import numpy as np

from benchmarks._memory import _resident
from benchmarks._record import RESULTS, ROOT, write_result

#: The largest peak memory of a stage, in GiB.
MEMORY_BUDGET = 16.0
_CHUNK = 1_000_000


def generate(folder: Path, num_facts: int, num_entities: int, num_relations: int, seed: int) -> None:
    r"""Writes :obj:`text` and :obj:`parquet`, two folders with the same train, valid and test files. The density of a
    label is proportional to the inverse square root of its rank. A thousandth of the facts each is valid and test.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv
    import pyarrow.parquet

    random = np.random.default_rng(seed)

    def labels(prefix: str, size: int, count: int) -> pa.Array:
        ids = pa.array((size * random.random(count)**2).astype(np.int64))
        return pc.binary_join_element_wise(prefix, ids.cast(pa.string()), '')

    def tables(count: int) -> Iterator[pa.Table]:
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            yield pa.table({'head': labels('Q', num_entities, size), 'relation': labels('P', num_relations, size),
                            'tail': labels('Q', num_entities, size)})

    held_out = max(1, num_facts // 1000)
    form = pyarrow.csv.WriteOptions(include_header=False, delimiter='\t', quoting_style='none')
    for kind in ('text', 'parquet'):
        (folder / kind).mkdir()
    for split, count in (('train', num_facts - 2 * held_out), ('valid', held_out), ('test', held_out)):
        found = tables(count)
        first = next(found)
        with (pyarrow.csv.CSVWriter(folder / 'text' / f'{split}.txt', first.schema, write_options=form) as text,
              pyarrow.parquet.ParquetWriter(folder / 'parquet' / f'{split}.parquet', first.schema) as parquet):
            for table in (first, *found):
                text.write_table(table)
                parquet.write_table(table)


def run_stage(stage: str, folder: Path) -> dict[str, Any]:
    r"""Runs a stage in this process, which should be new, and returns its seconds and its peak memory."""
    from pyg_emu import TripletLoader, load_dataset
    from pyg_emu.core.errors import DataWarning
    from pyg_emu.data.io import write_fact_store

    warnings.simplefilter('ignore', DataWarning)
    found: dict[str, Any] = {'stage': stage}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        found[f'{name}_s'] = time.perf_counter() - start
        found[f'{name}_peak_gib'] = _resident('VmHWM') / 2**30
        return result

    if stage == 'parquet':
        timed('write', lambda: write_fact_store(folder / 'parquet', folder / 'store'))
    else:
        data = timed('read', lambda: load_dataset(folder / stage))
        timed('filters', lambda: (data.fact_index('train'), data.fact_index('all')))
        timed('edges', lambda: data.edges_by('target'))
        timed('batch', lambda: next(TripletLoader(data, 1000, shuffle=True).batches()))
        found |= {'facts': data.num_facts('all'), 'entities': data.num_nodes, 'relations': data.num_relations}
    seconds = [value for key, value in found.items() if key.endswith('_s')]
    return {**found, 'minutes': sum(seconds) / 60, 'peak_gib': _resident('VmHWM') / 2**30}


def _in_new_process(stage: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, '-m', 'benchmarks.large_facts', '--stage', stage, '--folder', str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--facts', type=int, default=100_000_000)
    parser.add_argument('--entities', type=int, default=10_000_000)
    parser.add_argument('--relations', type=int, default=1_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--smoke', action='store_true', help='tiny sizes in this process, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    parser.add_argument('--stage', choices=['text', 'parquet', 'store'], help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.stage is not None:
        print(json.dumps(run_stage(arguments.stage, arguments.folder)))
        return
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.facts, arguments.entities, arguments.relations = 3000, 200, 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        generate(folder, arguments.facts, arguments.entities, arguments.relations, arguments.seed)
        print(f'generated in {time.perf_counter() - start:.0f} s', flush=True)
        sizes = {kind: sum(file.stat().st_size for file in (folder / kind).iterdir()) / 2**30
                 for kind in ('text', 'parquet')}
        metrics: dict[str, Any] = {'label': f'{arguments.facts:,} facts', 'budget_gib': MEMORY_BUDGET}
        for stage in ('text', 'parquet', 'store'):
            metrics[stage] = (run_stage if arguments.smoke else _in_new_process)(stage, folder)
            kept = metrics[stage]['peak_gib'] <= MEMORY_BUDGET
            print(f'{stage}: {metrics[stage]} ({"within" if kept else "BEYOND"} {MEMORY_BUDGET:g} GiB)', flush=True)
        sizes['store'] = sum(file.stat().st_size for file in (folder / 'store').iterdir()) / 2**30
        metrics['disk_gib'] = sizes
    print(write_result('large_facts', metrics, seed=arguments.seed, folder=arguments.out))


if __name__ == '__main__':
    main()
