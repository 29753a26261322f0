r"""Filtered ranking of FB15k-237's test facts, heads and tails: ours, and PyKEEN's evaluator on the same embeddings.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.evaluation                        # <folder>/FB15k-237
    python -m benchmarks.evaluation --data <folder> --pykeen-triples 2000        # PyKEEN's time scaled up, and said so

Writes ``benchmarks/results/evaluation_{model}.json``. Budgets: DistMult in 4 s, TransE and RotatE in 40 s, on two
cores; PyKEEN's evaluator takes at least 15 times as long for DistMult. Ours is timed with the indices of the filter to
be built anew; what is timed of PyKEEN is its best batch size, found by a trial on few facts. Times are of this process
and this run: the ratio is what to quote.
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
# Both round float32 scores, in different orders, so that near ties may fall either way.
TOLERANCE = 1e-4


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    r"""Seconds and processor seconds that a call takes, and what it returns."""
    start, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - cpu, result


def rank(model: torch.nn.Module, data: KGData, repeats: int) -> tuple[dict[str, Any], Metrics]:
    r"""Times of our own evaluation of all test facts, and its metrics."""
    first, _, _ = timed(lambda: evaluate(model, data, max_triples=8))

    def run() -> Metrics:
        data.drop_indices()
        return evaluate(model, data)

    runs = [timed(run) for _ in range(repeats)]
    return {
        'seconds': statistics.median(run[0] for run in runs),
        # Processor time tells a busy machine from slow code: it counts all threads, and this process alone.
        'cpu_seconds': statistics.median(run[1] for run in runs),
        'first_call_seconds': first,
        'repeats': repeats,
    }, runs[-1][2]


def pykeen_distmult(model: DistMult, data: KGData) -> Any:
    r"""PyKEEN's DistMult with the embeddings of ours."""
    from pykeen.models import DistMult as PyKEENDistMult
    from pykeen.triples import CoreTriplesFactory

    factory = CoreTriplesFactory(data.facts('train').contiguous(), data.num_nodes, data.num_relations)
    theirs: Any = PyKEENDistMult(triples_factory=factory, embedding_dim=model.node_emb.weight.size(1))
    with torch.no_grad():
        theirs.entity_representations[0]._embeddings.weight.copy_(model.node_emb.weight)
        theirs.relation_representations[0]._embeddings.weight.copy_(model.rel_emb.weight)
    return theirs.eval()


def rank_with_pykeen(model: Any, data: KGData, facts: Tensor, batch_sizes: list[int]) -> tuple[dict[str, Any], Any]:
    r"""Time of PyKEEN's evaluation of :obj:`facts`, filtered like ours, and its results."""
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
    r"""PyKEEN's time for all test facts beside ours, and how far the metrics of the facts it was given are apart."""
    facts = data.facts('test')
    count = min(arguments.pykeen_triples or len(facts), len(facts))
    chosen = torch.randperm(len(facts), generator=torch.Generator().manual_seed(arguments.seed))[:count]
    theirs, results = rank_with_pykeen(pykeen_distmult(model, data), data, facts[chosen].contiguous(),
                                       arguments.batch_sizes)
    theirs['scaled'] = count < len(facts)
    # Its filter compares every question with every fact: the time grows with the number of questions alone.
    theirs['seconds'] = theirs['measured_seconds'] * len(facts) / count
    same = Metrics({side: ranks.select(chosen) for side, ranks in metrics.ranks.items()})
    differences = {f'{side}.{name}': abs(same[f'{side}.{name}'] - results.get_metric(f'{side}.realistic.{theirs_name}'))
                   for side in ('both', 'tail', 'head') for name, theirs_name in PYKEEN_NAMES.items()}
    return {'pykeen': theirs, 'speedup': theirs['seconds'] / ours['seconds'],
            'largest_difference': max(differences.values())}


def main() -> int:
    r"""Measures, prints, records; the exit code is 1 if the metrics disagree."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and Path(root) / 'FB15k-237', help='folder of train, valid and test.txt')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=['distmult', 'transe', 'rotate'])
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--repeats', type=int, default=3, help='runs of ours, of which the median is taken')
    parser.add_argument('--max-triples', type=int, help='rank only that many test facts: a trial, not recorded')
    parser.add_argument('--pykeen-triples', type=int, help='give PyKEEN only that many, and scale its time')
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[32, 128, 512], help='those to try with PyKEEN')
    parser.add_argument('--no-pykeen', action='store_true')
    parser.add_argument('--no-record', action='store_true', help='write no result')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error('give --data, or set PYG_EMU_DATA to the folder that holds FB15k-237')

    # The oddities of the benchmarks are known, and their messages would hide the figures.
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
                  f'{scaled if theirs["scaled"] else ""}; ratio {result["speedup"]:.1f} (asked: {SPEEDUP:g}); '
                  f'largest difference of a metric {result["largest_difference"]:.1e}')
            agree = result['largest_difference'] <= TOLERANCE
        if not arguments.no_record and arguments.max_triples is None:
            print(write_result(f'evaluation_{name}', result, seed=arguments.seed))
    if not agree:
        print(f'the metrics differ by more than {TOLERANCE:g}', file=sys.stderr)
    return int(not agree)


if __name__ == '__main__':
    sys.exit(main())
