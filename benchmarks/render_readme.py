r"""Writes the tables of the READMEs from the files under ``benchmarks/results``.

A table is the text between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``. :obj:`NAME` is one of
:data:`TABLES`, or one of :data:`~benchmarks._texts.TEXTS` for blocks with more than a table.

.. code-block:: console

    python -m benchmarks.render_readme           # rewrite outdated tables
    python -m benchmarks.render_readme --check   # report outdated files and fail
"""
from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Union

from benchmarks import accuracy
from benchmarks._markdown import by_setting, listed
from benchmarks._record import RESULTS, ROOT, lookup, read_results, spread
from benchmarks._texts import TEXTS
from pyg_emu.experiments.recipe import load_recipe

#: The files with tables.
FILES = tuple(ROOT / name for name in ('README.md', 'benchmarks/README.md', 'docs/reproduction.md',
                                       'docs/reproduction-demix.md', 'docs/reproduction-dans.md', 'docs/negatives.md',
                                       'docs/reliability.md', 'docs/large-graphs.md', 'docs/performance.md'))
#: The text in place of a table without recorded results.
EMPTY = '_Not recorded yet._'
#: The maximum number of commands to list.
_MAX_COMMANDS = 3

_BLOCK = re.compile(r'(<!-- results:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- /results:(?P=name) -->)', re.DOTALL)
_PROGRAM = re.compile(r'python -m \S+|\S+|')


@dataclass(frozen=True)
class Table:
    r"""The results of a table. Results that differ only in their seed share a row.

    Args:
        pattern (str): A glob over the names of results.
        columns (dict[str, str]): The caption of each column and the key of its value in the metrics, with dots for
            nested keys.
        caption (str, optional): The caption of the first column, which holds the metric :obj:`label`, or else the name
            of the result.
        by_recipe (bool, optional): Whether the first column is the caption of the recorded recipe instead, so that it
            does not depend on the version that wrote the result. (default: :obj:`False`)
    """
    pattern: str
    columns: dict[str, str]
    caption: str = 'setting'
    by_recipe: bool = False

    def label(self, name: str, metrics: dict[str, Any]) -> str:
        r"""Returns the caption of a row."""
        if self.by_recipe:
            return accuracy.label(load_recipe(metrics['recipe'], trained=True))
        found: str = metrics.get('label', name)
        return found


_MODELS = {'DistMult': 'distmult', 'ComplEx': 'complex', 'TransE': 'transe', 'RotatE': 'rotate'}


def _ratios(what: str, models: Iterable[str] = tuple(_MODELS)) -> dict[str, str]:
    return {name: f'ratios.{_MODELS[name]}.{what}.value' for name in models}


def _each(key: str, methods: Iterable[str]) -> dict[str, str]:
    return {method: f'{method}.{key}' for method in methods}


_RANKING = {'MRR': 'test.mrr', 'Hits@1': 'test.hits@1', 'Hits@3': 'test.hits@3', 'Hits@10': 'test.hits@10'}
_HITS_50 = 'Hits@10 (50 negatives)'

#: All tables by the name in their marker.
TABLES = {
    'demo': Table('demo/umls-*', {**_RANKING, 'seconds': 'seconds'}, 'UMLS, DistMult'),
    'fb15k237': Table('fb15k237/*', {**_RANKING, 'seconds': 'seconds'}, 'FB15k-237'),
    'overhead': Table('speed/steps', _ratios('emu over vanilla, mask per triple'), 'our EMU step / our vanilla step'),
    'overhead-negative': Table('speed/steps', _ratios('emu over vanilla, mask per negative'),
                               'the same, one mask per negative'),
    'eager': Table('speed/steps', _ratios('eager emu over emu, mask per triple'), 'eager EMU step / our EMU step'),
    'peer': Table('speed/steps', _ratios('pykeen vanilla over emu, mask per triple', ['DistMult']),
                  "PyKEEN's vanilla step / our EMU step"),
    'fused': Table('speed/steps', _ratios('composed emu over emu, mask per triple'),
                   'composed EMU step / our EMU step'),
    'bounds-products': Table('speed/steps', _ratios('emu over six matrix products'),
                             'our EMU step / six matrix products'),
    'bounds-bag': Table('speed/steps', _ratios('emu over one embedding_bag'), 'our EMU step / one `embedding_bag`'),
    'sparse': Table('speed/steps', _ratios('sparse vanilla over vanilla', ['TransE']),
                    'vanilla step of sparse products / our vanilla step'),
    'speed-demix': Table('speed/demix*', {
        f'{name} (target: at most 1.6)': f'ratios.demix over self-adversarial, refresh included, {model}.value'
        for model, name in (('transe', 'TransE'), ('rotate', 'RotatE'), ('distmult', 'DistMult'),
                            ('complex', 'ComplEx'))}, 'step with DeMix / self-adversarial step'),
    'shared': Table('speed/shared', {
        f'{name}, {count:,} negatives': f'ratios.{key}.own over shared, {count} negatives.value'
        for name, key in list(_MODELS.items())[:2] for count in (256, 1024)}, 'own negatives / shared negatives'),
    'rgcn': Table('speed/rgcn', {
        'full graph, RGCNConv (target: 15)': 'ratios.RGCNConv over ours, full graph.value',
        'sample, RGCNConv': 'ratios.RGCNConv over ours, sample.value',
        'sample, FastRGCNConv (target: 10)': 'ratios.FastRGCNConv over ours, sample.value',
        'blocks, full graph, RGCNConv': 'ratios.RGCNConv over ours, full graph, blocks.value',
        'blocks, sample, FastRGCNConv': 'ratios.FastRGCNConv over ours, sample, blocks.value'}, 'time of PyG / ours'),
    'relational': Table('relational/*', {
        'sum: speedup over a gather (target: 8)': 'ratios.seconds.sum_speedup',
        'PNA: speedup over four gathers (target: 3)': 'ratios.seconds.pna_speedup',
        'PNA: speedup over our own four passes': 'ratios.seconds.pna_speedup_over_own_passes',
        'PNA / sum (target: at most 1.3)': 'ratios.seconds.pna_to_sum_forward',
        'PNA / sum with gradients (target: at most 2.5)': 'ratios.seconds.pna_to_sum_forward_backward',
    }, 'message passing'),
    'relational-cost': Table('relational/*', {
        f'{name}, {unit}': f'{case}.{key}' for name, case in (
            ('gather', 'gather_sum'), ('sum', 'sum'), ('PNA', 'pna'), ('sum with gradients', 'sum_backward'),
            ('PNA with gradients', 'pna_backward')) for unit, key in (('s', 'seconds'), ('MiB', 'peak_mib'))}, 'cost'),
    'busy': Table('busy/*', {
        'quiet, ms a step': 'ms.quiet', 'beside 1 busy process': 'ms.busy_1', '2': 'ms.busy_2', '4': 'ms.busy_4',
        'one core': 'ms.one_core', 'quota of one core': 'ms.quota',
        '1 / quiet (target: at most 3)': 'ratios.busy_1', '2 / quiet (target: at most 5)': 'ratios.busy_2',
    }, 'busy machine'),
    'evaluation': Table('evaluation*', {'seconds': 'seconds', 'speedup over PyKEEN': 'speedup'}, 'ranking'),
    'figure-3': Table('reproduction/figure-3-*', _each('mean', ['uniform', 'SANS', 'EMU']), 'cosine to the positive'),
    'figure-4': Table('reproduction/figure-4-*', {
        f'{name}, {method}': f'{method}.{key}' for name, key in (('isotropy', 'isotropy'), ('mean angle', 'angle_mean'))
        for method in ('uniform', 'EMU')}, 'around a true tail'),
    'figure-6': Table('reproduction/figure-6-*', _each('mean', ['uniform, uniform', 'EMU, EMU', 'uniform, EMU']),
                      'cosine of two negatives'),
    'nbfnet': Table('nbfnet/*', {**_RANKING, _HITS_50: f'test.{_HITS_50.lower()}',
                                 'published': f'{_HITS_50.lower()}.published',
                                 'target': f'{_HITS_50.lower()}.target'}, 'NBFNet'),
    'nbfnet-fb15k237': Table('nbfnet_fb15k237/*', {
        'MRR': 'test.mrr', 'Hits@10': 'test.hits@10', 'steps': 'steps', 's per step': 'seconds_per_step',
        'epochs': 'epochs', 'threads': 'threads.numba'}, 'FB15k-237, NBFNet'),
    'sans': Table('sans/*', {
        'time to first negatives, s': 'prepare_s', 'per batch, ms': 'sans_ms', 'uniform, ms': 'uniform_ms',
        'uniform, filtered, ms': 'uniform_filtered_ms', 'stored, MiB': 'kept_mib', 'peak, MiB': 'peak_mib',
        'mean neighbourhood': 'mean_neighbors'}, 'SANS'),
    'pyg-loop': Table('pyg_loop/*', {'heads, MRR': 'test.heads', 'tails': 'test.tails', 'both': 'test.both'},
                      "UMLS, PyG's layers, 60 epochs"),
    'robustness': Table('robustness/*', {
        'cases': 'cases', 'share of a full run': 'share', 'failures': 'failed', 'seconds': 'seconds'}, 'robustness'),
    'demix-rates': Table('demix-rates/*', {'validation MRR': 'valid_mrr', 'at step': 'best_step'}, 'FB15k-237',
                         by_recipe=True),
    'demix-estimation': Table('demix/estimation-*', {
        'held-out facts': 'held_out', 'recall': 'recall', 'false alarms': 'false_alarms', 'precision': 'precision',
        '(h, r): recall': 'tail.recall', '(r, t): recall': 'head.recall'}, 'marginal pseudo-negatives'),
    'large-graphs': Table('large_graphs/*', {
        'facts': 'facts', 'own negatives, ms a step': 'adagrad_own_ms', 'shared negatives': 'adagrad_shared_ms',
        'own, RowAdam': 'adam_own_ms', 'shared, RowAdam': 'adam_shared_ms', 'index of known facts, s': 'index_s',
        'ranking 5,000 facts, s': 'ranking_s', 'training, GiB': 'training_peak_gib'}, 'entities'),
    'mmap-tables': Table('mmap_tables/*', {
        'step, ms': 'ms', 'private memory, MiB': 'private_mib', 'with pages, MiB': 'peak_mib',
        'tables, MiB': 'table_mib', 'a quarter of them, MiB': 'limit_mib', 'ranking 10 facts, s': 'ranking_s'},
        'negatives, tables'),
    'large-facts': Table('large_facts', {
        **{f'{name}, {what}': f'{stage}.{key}' for stage, name in (
            ('text', 'text to indices'), ('parquet', 'Parquet to store'), ('store', 'store to indices'))
           for key, what in (('minutes', 'min'), ('peak_gib', 'GiB'))},
        'opening a store, s': 'store.read_s'}, 'generated'),
    'data': Table('data', {'FB15k-237, s': 'fb15k237.total_s', '5 million facts, s': 'generated.total_s'}, 'from text'),
}


def render(table: Table, folder: Union[str, Path] = RESULTS) -> str:
    r"""Formats a table as Markdown with its commands, or returns :data:`EMPTY` if there are no results."""
    results = read_results(table.pattern, folder)
    if not results:
        return f'{EMPTY}\n'
    groups = [(table.label(name, group[0]['metrics']), group) for name, group in by_setting(results)]
    labels = [label for label, _ in groups]
    rows = [
        # Results of one label come from several machines.
        [label if labels.count(label) == 1 else f'{label}, {group[0]["machine"]["cpu"]}',
         *(_cell(group, key) for key in table.columns.values())]
        for label, group in groups
    ]
    header = [table.caption, *table.columns]
    lines = [header, ['---', *['---:'] * len(table.columns)], *rows]
    text = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'{text}\n\n{_origin(results)}\n'


def render_text(name: str, folder: Union[str, Path] = RESULTS) -> str:
    r"""Formats a text block with its commands, or returns :data:`EMPTY` if it is empty."""
    text, results = TEXTS[name](Path(folder))
    return '\n\n'.join([text or EMPTY, *([_origin(results)] if results else [])]) + '\n'


def render_file(path: Path, folder: Union[str, Path] = RESULTS) -> str:
    r"""Returns the text of a file with all tables rewritten.

    Raises:
        KeyError: If a marker is neither a table nor a text block.
    """
    def block(match: re.Match[str]) -> str:
        name = match['name']
        return match[1] + (render_text(name, folder) if name in TEXTS else render(TABLES[name], folder)) + match[4]

    return _BLOCK.sub(block, path.read_text(encoding='utf-8'))


def main() -> int:
    r"""Runs the command line. With :obj:`--check`, returns exit code 1 if a file is outdated."""
    parser = argparse.ArgumentParser(description='Write the tables of the READMEs from benchmarks/results.')
    parser.add_argument('--check', action='store_true', help='write nothing and fail if a table is outdated')
    arguments = parser.parse_args()
    stale = [path for path in FILES if path.read_text(encoding='utf-8') != render_file(path)]
    for path in stale:
        print(f'{path.relative_to(ROOT)}: {"outdated" if arguments.check else "rewritten"}')
        if not arguments.check:
            path.write_text(render_file(path), encoding='utf-8')
    return int(arguments.check and bool(stale))


def _cell(group: list[dict[str, Any]], key: str) -> str:
    values = [value for value in (lookup(result['metrics'], key) for result in group) if value is not None]
    if not values:
        return '-'
    if len(set(values)) == 1 and isinstance(values[0], int):  # A count.
        return f'{values[0]:,}'
    mean, deviation = spread(values)
    digits = 3 if abs(mean) < 10 else 1
    text = f'{mean:.{digits}f}'
    # Values that were not measured, such as published ones, are equal for all seeds.
    return f'{text} ± {deviation:.{digits}f}' if len(set(values)) > 1 else text


def _origin(results: list[dict[str, Any]]) -> str:
    def distinct(values: list[Any]) -> list[Any]:
        return list(dict.fromkeys(values))

    seeds = distinct([result['seed'] for result in results if result['seed'] is not None])
    equal = len({len(group) for _, group in by_setting(results)}) == 1
    parts = [f'{"" if equal else "up to "}{len(seeds)} seeds: mean ± standard deviation'] if len(seeds) > 1 else []
    machines: dict[str, set[int]] = {}
    for machine in (result['machine'] for result in results):
        machines.setdefault(machine['gpu'] or machine['cpu'], set()).add(machine['cores'])
    parts += [' and '.join(f'{name}, {" or ".join(map(str, sorted(cores)))} core{"" if cores == {1} else "s"}'
                           for name, cores in machines.items())]
    commits = distinct([(result['commit']['hash'] or 'unknown')[:8] for result in results])
    commands = distinct([result['command'] for result in results])
    programs = distinct([_PROGRAM.match(command)[0] for command in commands])  # type: ignore[index]
    if len(commands) > _MAX_COMMANDS:
        made = f'{listed([f"`{program}`" for program in programs])} with options that each file names'
    else:
        made = ', '.join(f'`{command}`' for command in commands)
    return f'{"; ".join(parts)}; commit {", ".join(commits)}. Made by {made}.'


if __name__ == '__main__':
    sys.exit(main())
