r"""Filtered ranking of the FB15k-237 test triples, heads and tails: this package and PyKEEN's evaluator.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.evaluation                        # <folder>/FB15k-237
    python -m benchmarks.evaluation --data <folder> --pykeen-triples 2000        # PyKEEN's time is extrapolated

Writes ``benchmarks/results/evaluation_{model}.json``. Budgets on two cores: 4 s for DistMult, 40 s for TransE and
RotatE, and a speedup of at least 15 over PyKEEN's evaluator for DistMult on the same embeddings. The time of this
package includes building the filter indices. The time of PyKEEN is that of its best batch size, chosen on a small
sample. Absolute times depend on the machine and its load, so quote the ratio.
"""
from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Callable

import torch
from torch import Tensor

from benchmarks._record import write_result
from pyg_emu import ComplEx, DistMult, KGData, RotatE, TransE, evaluate, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.evaluation.metrics import Metrics

MODELS = {'distmult': DistMult, 'complex': ComplEx, 'transe': TransE, 'rotate': RotatE}
BUDGET_S = {'distmult': 4.0, 'complex': 8.0, 'transe': 40.0, 'rotate': 40.0}
SPEEDUP = 15.0
PYKEEN_NAMES = {'mrr': 'inverse_harmonic_mean_rank', 'hits@1': 'hits_at_1', 'hits@3': 'hits_at_3',
                'hits@10': 'hits_at_10', 'amri': 'adjusted_arithmetic_mean_rank_index'}
# Both implementations round float32 scores in different orders, so near ties may be ordered differently.
TOLERANCE = 1e-4


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    r"""Returns the wall-clock time and the CPU time of a call in seconds, and its result."""
    start, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - cpu, result


def rank(model: torch.nn.Module, data: KGData, repeats: int) -> tuple[dict[str, Any], Metrics]:
    r"""Returns the times and the metrics of this package's evaluation on all test triples."""
    first, _, _ = timed(lambda: evaluate(model, data, max_triples=8))

    def run() -> Metrics:
        data.drop_indices()
        return evaluate(model, data)

    runs = [timed(run) for _ in range(repeats)]
    return {
        'seconds': statistics.median(run[0] for run in runs),
        # The CPU time of all threads of this process does not depend on the load of the machine.
        'cpu_seconds': statistics.median(run[1] for run in runs),
        'first_call_seconds': first,
        'repeats': repeats,
    }, runs[-1][2]


def pykeen_distmult(model: DistMult, data: KGData) -> Any:
    r"""Returns PyKEEN's DistMult with the embeddings of the given model."""
    from pykeen.models import DistMult as PyKEENDistMult
    from pykeen.triples import CoreTriplesFactory

    factory = CoreTriplesFactory(data.facts('train').contiguous(), data.num_nodes, data.num_relations)
    theirs: Any = PyKEENDistMult(triples_factory=factory, embedding_dim=model.node_emb.weight.size(1))
    with torch.no_grad():
        theirs.entity_representations[0]._embeddings.weight.copy_(model.node_emb.weight)
        theirs.relation_representations[0]._embeddings.weight.copy_(model.rel_emb.weight)
    return theirs.eval()


def rank_with_pykeen(model: Any, data: KGData, facts: Tensor, batch_sizes: list[int]) -> tuple[dict[str, Any], Any]:
    r"""Returns the time and the results of PyKEEN's evaluation of :obj:`facts`, with the same filter."""
    from pykeen.evaluation import RankBasedEvaluator

    known = [data.facts(split).contiguous() for split in ('train', 'valid', 'test')]

    def run(part: Tensor, batch_size: int) -> Any:
        return RankBasedEvaluator(filtered=True).evaluate(model, part, batch_size=batch_size, use_tqdm=False,
                                                          additional_filter_triples=known)

    trial = facts[:2 * max(batch_sizes)]
    run(trial, batch_sizes[0])
    trials = {size: timed(partial(run, trial, size))[0] for size in batch_sizes}
    best = min(trials, key=trials.__getitem__)
    seconds, cpu, results = timed(lambda: run(facts, best))
    return {'measured_seconds': seconds, 'measured_cpu_seconds': cpu, 'triples': len(facts), 'batch_size': best,
            'trial_seconds': trials, 'trial_triples': len(trial)}, results


def compare(model: DistMult, data: KGData, metrics: Metrics, ours: dict[str, Any],
            arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Returns PyKEEN's time for all test triples, and the differences of the metrics on the triples that it ranked."""
    facts = data.facts('test')
    count = min(arguments.pykeen_triples or len(facts), len(facts))
    chosen = torch.randperm(len(facts), generator=torch.Generator().manual_seed(arguments.seed))[:count]
    theirs, results = rank_with_pykeen(pykeen_distmult(model, data), data, facts[chosen].contiguous(),
                                       arguments.batch_sizes)
    theirs['scaled'] = count < len(facts)
    # PyKEEN's filter compares every query with every triple, so its time is linear in the number of queries.
    theirs['seconds'] = theirs['measured_seconds'] * len(facts) / count
    same = Metrics({side: ranks.select(chosen) for side, ranks in metrics.ranks.items()})
    differences = {f'{side}.{name}': abs(same[f'{side}.{name}'] - results.get_metric(f'{side}.realistic.{theirs_name}'))
                   for side in ('both', 'tail', 'head') for name, theirs_name in PYKEEN_NAMES.items()}
    return {'pykeen': theirs, 'speedup': theirs['seconds'] / ours['seconds'],
            'largest_difference': max(differences.values())}


def main() -> int:
    r"""Runs the benchmark. Returns exit code 1 if the metrics differ."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and Path(root) / 'FB15k-237', help='folder of train, valid and test.txt')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=['distmult', 'transe', 'rotate'])
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--repeats', type=int, default=3, help='number of runs of this package, reduced by the median')
    parser.add_argument('--max-triples', type=int, help='rank only this number of test triples and record no result')
    parser.add_argument('--pykeen-triples', type=int, help='rank only this number with PyKEEN and extrapolate the time')
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[32, 128, 512], help='batch sizes for PyKEEN')
    parser.add_argument('--no-pykeen', action='store_true')
    parser.add_argument('--no-record', action='store_true', help='record no result')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error('--data: expected the folder of FB15k-237; use --data or PYG_EMU_DATA')

    # Warnings about the benchmark datasets are known and would clutter the output.
    warnings.simplefilter('ignore', DataWarning)
    data = load_dataset(str(arguments.data))
    if arguments.max_triples is not None:
        head, relation, tail = data.facts('test')[:arguments.max_triples].t()
        data.test_edge_index, data.test_edge_type = torch.stack([head, tail]), relation.clone()
    agree = True
    for name in arguments.models:
        torch.manual_seed(arguments.seed)
        model = MODELS[name](data.num_nodes, data.num_relations, arguments.channels)
        ours, metrics = rank(model, data, arguments.repeats)
        result = {'label': f'{MODELS[name].__name__}, {data.num_facts("test"):,} facts',
                  'triples': data.num_facts('test'), 'channels': arguments.channels,
                  'budget_seconds': BUDGET_S[name], **ours}
        print(f'{result["label"]}: {ours["seconds"]:.2f} s (processor {ours["cpu_seconds"]:.2f} s), '
              f'budget {BUDGET_S[name]:g} s')
        if isinstance(model, DistMult) and not arguments.no_pykeen:
            result |= compare(model, data, metrics, ours, arguments)
            theirs = result['pykeen']
            scaled = f', scaled from {theirs["triples"]:,} facts in {theirs["measured_seconds"]:.1f} s'
            print(f'PyKEEN, batch size {theirs["batch_size"]}: {theirs["seconds"]:.1f} s'
                  f'{scaled if theirs["scaled"] else ""}; ratio {result["speedup"]:.1f} (target: {SPEEDUP:g}); '
                  f'largest difference of a metric {result["largest_difference"]:.1e}')
            agree = result['largest_difference'] <= TOLERANCE
        if not arguments.no_record and arguments.max_triples is None:
            print(write_result(f'evaluation_{name}', result, seed=arguments.seed))
    if not agree:
        print(f'metrics: expected a difference of at most {TOLERANCE:g}, got more', file=sys.stderr)
    return int(not agree)


if __name__ == '__main__':
    sys.exit(main())
