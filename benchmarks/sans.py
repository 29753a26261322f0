r"""How long SANS takes before its first negatives and for each batch of them, beside uniform negatives, on FB15k-237.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.sans          # <folder>/FB15k-237
    python -m benchmarks.sans --smoke --out <folder>         # everything, tiny

Writes ``benchmarks/results/sans/{mode}.json``. The settings are those of the recipes (:data:`RECIPE`), known facts left
out: :obj:`khop` are exact neighbourhoods, :obj:`walk` are random walks of as many steps. What comes before the first
negatives is the index of known facts, the search for neighbourhoods and the first draw. A batch has 1,000 triples with
256 negatives each. Samplers take turns on the same batches, so that whatever the machine does besides hits all of them.
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
from benchmarks._record import RESULTS, write_result
from benchmarks.paper_runs import RECIPES
from pyg_emu import KGData, SANSSampler, TripletLoader, UniformSampler, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.experiments.build import build
from pyg_emu.experiments.recipe import load_recipe

#: Whose settings are measured.
RECIPE = RECIPES / 'tuned' / 'FB15k-237' / 'distmult-san.yaml'
MODES = ('walk', 'khop')


def make_sampler(mode: str) -> SANSSampler:
    r"""SANS as in the recipes, with walks or with hops."""
    settings = {**load_recipe(RECIPE).negatives['sampler'], 'mode': mode}
    sampler: SANSSampler = build('sampler', settings)
    return sampler


def seconds(function: Callable[[], Any]) -> float:
    r"""Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def prepare(mode: str, data: KGData, arguments: argparse.Namespace) -> tuple[dict[str, float], SANSSampler]:
    r"""Seconds until the first negatives of a fresh sampler, the median of some, and the most memory taken meanwhile;
    and the last one of the samplers.
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
    r"""Median milliseconds of a batch's negatives, by sampler."""
    stream = batches(data, arguments)
    for sampler in samplers.values():  # the first draw makes what later ones look into
        sampler.sample(next(stream), arguments.negatives)
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(arguments.batches):
        batch = next(stream)
        for name, sampler in samplers.items():
            times[name].append(1e3 * seconds(partial(sampler.sample, batch, arguments.negatives)))
    return {f'{name}_ms': statistics.median(values) for name, values in times.items()}


def batches(data: KGData, arguments: argparse.Namespace) -> Any:
    r"""Batches without end."""
    return TripletLoader(data, arguments.batch_size, shuffle=True, seed=arguments.seed).batches()


def kept_bytes(sampler: SANSSampler) -> int:
    r"""Bytes of what a sampler keeps between draws: neighbourhoods, and where in them known facts lie. The index of
    known facts is the data's own, and other samplers read it, too.
    """
    state = sampler._state
    assert state is not None, 'nothing has been drawn yet'
    held = [*state.near, *vars(state.places).values()]
    return sum(value.nbytes for value in held if isinstance(value, Tensor))


def measure(mode: str, data: KGData, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""All figures of one mode."""
    found, sampler = prepare(mode, data, arguments)
    uniform = {'uniform': UniformSampler(), 'uniform_filtered': UniformSampler(filtered=sampler.filtered)}
    times = draw({'sans': sampler, **uniform}, data, arguments)
    pairs = sampler.neighborhoods(next(batches(data, arguments))).ptr[-1]
    what = f'{sampler.walks:,} walks of {sampler.num_hops} steps' if mode == 'walk' else f'{sampler.num_hops} hops'
    return {'label': what, 'sampler': repr(sampler), 'triples': arguments.batch_size, 'negatives': arguments.negatives,
            **found, **times, 'kept_mib': kept_bytes(sampler) / 2**20, 'mean_neighbors': float(pairs) / data.num_nodes}


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Command line."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and Path(root) / 'FB15k-237', help='folder of train, valid and test.txt')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--repeats', type=int, default=3, help='preparations, of which the median is taken')
    parser.add_argument('--batches', type=int, default=100, help='batches, of which the median is taken')
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--negatives', type=int, default=256)
    parser.add_argument('--smoke', action='store_true', help='tiny sizes: shows that everything runs, and no more')
    parser.add_argument('--out', type=Path, default=RESULTS, help='where to write (default: benchmarks/results)')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke measures nothing worth keeping: give --out')
        arguments.repeats, arguments.batches, arguments.batch_size, arguments.negatives = 1, 2, 8, 4
    elif not arguments.data:
        parser.error('give --data, or set PYG_EMU_DATA to the folder that holds FB15k-237')
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Measures, prints and records."""
    arguments = parse(argv)
    torch.manual_seed(arguments.seed)
    # The oddities of the benchmarks are known, and their messages would hide the figures.
    warnings.simplefilter('ignore', DataWarning)
    tiny = generate(40, 3, 200)
    for mode in MODES:  # a library's first call is no part of a preparation
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
