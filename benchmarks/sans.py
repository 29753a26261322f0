r"""The time that SANS needs before its first negatives and for each batch, next to uniform negatives, on FB15k-237.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.sans          # <folder>/FB15k-237
    python -m benchmarks.sans --smoke --out <folder>         # everything, tiny

Writes ``benchmarks/results/sans/{mode}.json``. The settings are those of the recipes (:data:`RECIPE`), with known
triples excluded: :obj:`khop` uses exact neighbourhoods, :obj:`walk` uses random walks of the same length. The time
before the first negatives includes the index of known triples, the neighbourhoods and the first draw. A batch has 1,000
triples with 256 negatives each. The samplers alternate on the same batches, so that other load affects all of them.
"""
from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

import torch
from torch import Tensor

from benchmarks._contenders import generate
from benchmarks._memory import peak_rise
from benchmarks._recipes import RECIPES
from benchmarks._record import RESULTS, write_result
from pyg_emu import KGData, SANSSampler, TripletLoader, UniformSampler, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.experiments.build import build
from pyg_emu.experiments.recipe import load_recipe

#: The recipe with the settings of SANS.
RECIPE = RECIPES / 'tuned' / 'FB15k-237' / 'distmult-san.yaml'
MODES = ('walk', 'khop')


def make_sampler(mode: str) -> SANSSampler:
    r"""Returns the sampler of the recipes, with random walks or with exact neighbourhoods."""
    settings = {**load_recipe(RECIPE).negatives['sampler'], 'mode': mode}
    sampler: SANSSampler = build('sampler', settings)
    return sampler


def seconds(function: Callable[[], Any]) -> float:
    r"""Returns the running time of a call in seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def prepare(mode: str, data: KGData, arguments: argparse.Namespace) -> tuple[dict[str, float], SANSSampler]:
    r"""Returns the median time to the first negatives of a new sampler with the peak memory, and the last sampler.
    """
    batch = next(batches(data, arguments))
    times, peaks = [], []
    for _ in range(arguments.repeats):
        data.drop_indices()
        sampler = make_sampler(mode)

        def first(sampler: SANSSampler = sampler) -> None:
            times.append(seconds(partial(sampler.sample, batch, arguments.negatives)))

        peaks.append(peak_rise(first))
    return {'prepare_s': statistics.median(times), 'slowest_prepare_s': max(times), 'peak_mib': max(peaks) / 2**20,
            'repeats': arguments.repeats}, sampler


def draw(samplers: Mapping[str, Any], data: KGData, arguments: argparse.Namespace) -> dict[str, float]:
    r"""Returns the median time in milliseconds of the negatives of a batch, by sampler."""
    stream = batches(data, arguments)
    for sampler in samplers.values():  # The first draw builds the indices.
        sampler.sample(next(stream), arguments.negatives)
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(arguments.batches):
        batch = next(stream)
        for name, sampler in samplers.items():
            times[name].append(1e3 * seconds(partial(sampler.sample, batch, arguments.negatives)))
    return {f'{name}_ms': statistics.median(values) for name, values in times.items()}


def batches(data: KGData, arguments: argparse.Namespace) -> Any:
    r"""Yields batches endlessly."""
    return TripletLoader(data, arguments.batch_size, shuffle=True, seed=arguments.seed).batches()


def kept_bytes(sampler: SANSSampler) -> int:
    r"""Returns the memory in bytes that a sampler keeps between draws: the neighbourhoods and the positions of known
    triples in them. The index of known triples belongs to the data and is shared with other samplers.
    """
    state = sampler._state
    assert state is not None, 'expected a sampler that has drawn negatives'
    held = [*state.near, *vars(state.places).values()]
    return sum(value.nbytes for value in held if isinstance(value, Tensor))


def measure(mode: str, data: KGData, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Returns all metrics of one mode."""
    found, sampler = prepare(mode, data, arguments)
    uniform = {'uniform': UniformSampler(), 'uniform_filtered': UniformSampler(filtered=sampler.filtered)}
    times = draw({'sans': sampler, **uniform}, data, arguments)
    pairs = sampler.neighborhoods(next(batches(data, arguments))).ptr[-1]
    what = f'{sampler.walks:,} walks of {sampler.num_hops} steps' if mode == 'walk' else f'{sampler.num_hops} hops'
    return {'label': what, 'sampler': repr(sampler), 'triples': arguments.batch_size, 'negatives': arguments.negatives,
            **found, **times, 'kept_mib': kept_bytes(sampler) / 2**20, 'mean_neighbors': float(pairs) / data.num_nodes}


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Parses the command line."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and Path(root) / 'FB15k-237', help='folder of train, valid and test.txt')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--repeats', type=int, default=3, help='number of preparations, reduced by the median')
    parser.add_argument('--batches', type=int, default=100, help='number of batches, reduced by the median')
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--negatives', type=int, default=256)
    parser.add_argument('--smoke', action='store_true', help='run everything with tiny sizes, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.repeats, arguments.batches, arguments.batch_size, arguments.negatives = 1, 2, 8, 4
    elif not arguments.data:
        parser.error('--data: expected the folder of FB15k-237; use --data or PYG_EMU_DATA')
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures all modes, prints and records the results."""
    arguments = parse(argv)
    torch.manual_seed(arguments.seed)
    # Warnings about the benchmark datasets are known and would clutter the output.
    warnings.simplefilter('ignore', DataWarning)
    tiny = generate(40, 3, 200)
    for mode in MODES:  # The first call of a library is not part of the preparation.
        make_sampler(mode).sample(next(TripletLoader(tiny, 8).batches()), 4)
    data = tiny if arguments.smoke else load_dataset(str(arguments.data))
    for mode in arguments.modes:
        result = measure(mode, data, arguments)
        print(f'{result["label"]}: {result["prepare_s"]:.2f} s to the first negatives, then {result["sans_ms"]:.2f} ms '
              f'a batch (uniform: {result["uniform_ms"]:.2f}, filtered {result["uniform_filtered_ms"]:.2f}), '
              f'{result["kept_mib"]:.1f} MiB kept, {result["peak_mib"]:.1f} at the peak', flush=True)
        print(write_result(f'sans/{mode}', result, seed=arguments.seed, folder=arguments.out))


if __name__ == '__main__':
    main()
