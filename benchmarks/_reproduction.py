r"""Recorded results of the paper's rows next to the paper's values, as data frames, Markdown and files."""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import pandas as pd

from benchmarks._record import read_results, spread
from benchmarks.paper import Printed, Row
from benchmarks.papers import file_stem, paper_of
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.sections import replaced_settings

_CAPTIONS = {'mrr': 'MRR', 'hits@1': 'Hits@1', 'hits@3': 'Hits@3', 'hits@10': 'Hits@10',
             'ndcg@5': 'NDCG@5'}
#: Figure 5 prints no values, so its rows use these metrics.
_METRICS = ('mrr', 'hits@10')


@dataclass(frozen=True)
class Entry:
    r"""A row of the paper in one reading.

    Args:
        row (Row): The row.
        reading (str): The reading, see :mod:`benchmarks.paper_runs`.
        path (Path, optional): The recipe, or :obj:`None` if this reading has no recipe for the row.
        pretraining (Path, optional): The recipe of the training whose weights the row starts from.
            (default: :obj:`None`, initial weights)
    """
    row: Row
    reading: str
    path: Optional[Path]
    pretraining: Optional[Path] = None

    @property
    def folder(self) -> str:
        r"""The folder of the results below that of all results."""
        reading = '' if len(paper_of(self.row.source).readings) == 1 else f'{self.reading}/'
        return f'{paper_of(self.row.source).group}/{reading}{self.row.dataset}'

    @property
    def title(self) -> str:
        r"""The title in progress bars."""
        return f'{self.row.dataset}, {self.row.model}, {method_name(self.row)}'

    def result(self, steps: Optional[int], seed: int) -> str:
        r"""Returns the name of the result of one run. The default of :obj:`steps` is that of the recipe."""
        assert self.path is not None
        length = '' if steps is None else f'-steps{steps}'
        return f'{self.folder}/{self.path.stem}{length}-seed{seed}'


def entries(source: str, reading: str) -> list[Entry]:
    r"""Returns the rows of a table, such as :obj:`"Table 8"`, or of :obj:`"Figure 5"`."""
    paper = paper_of(source)
    return [Entry(row, reading, paper.recipe_path(reading, row), paper.pretraining(reading, row))
            for row in paper.rows() if row.source == source]


@functools.cache
def recipe_of(path: Path) -> Recipe:
    r"""Loads the recipe in a file and caches it."""
    return load_recipe(path)


def recorded(entry: Entry, folder: Path, steps: Optional[int] = None) -> list[dict[str, Any]]:
    r"""Returns the results of a row, one per seed, that match its current recipe.

    Args:
        entry (Entry): The row.
        folder (Path): The folder of the results.
        steps (int, optional): Only runs of this length. (default: :obj:`None`, the longest recorded length)
    """
    found = recorded_by_length(entry, folder)
    return found.get(max(found, default=0) if steps is None else steps, [])


def recorded_by_length(entry: Entry, folder: Path) -> dict[int, list[dict[str, Any]]]:
    r"""Returns the results of a row that match its current recipe by their number of steps, one per seed each."""
    if entry.path is None:
        return {}
    found: dict[int, list[dict[str, Any]]] = {}
    name = re.compile(rf'{re.escape(entry.path.stem)}(-steps\d+)?-seed\d+')
    for result in read_results(f'{entry.folder}/{entry.path.stem}*-seed*', folder):
        if name.fullmatch(Path(result['name']).name) and is_of(recipe_of(entry.path), result):
            found.setdefault(result['metrics']['recipe']['num_steps'], []).append(result)
    return found


def is_of(recipe: Recipe, result: dict[str, Any]) -> bool:
    r"""Returns :obj:`True` if a result was obtained with the settings of the recipe, except for seed and steps."""
    made = {**result['metrics']['recipe']}
    made |= {'seed': recipe.seed, 'num_steps': recipe.num_steps, 'dataset': recipe.dataset}
    # Older results name settings without an effect, which recipes no longer take.
    gone = replaced_settings('negatives', made['negatives'])
    made['negatives'] = {key: value for key, value in made['negatives'].items() if key not in gone}
    return load_recipe(made, trained=True).hash() == recipe.hash()


def frame(found: Sequence[Entry], folder: Path, steps: Optional[int] = None) -> pd.DataFrame:
    r"""Returns one line per row with the paper's values, the measured values and the differences of the means. Missing
    values are NaN. The column :obj:`state` is the state of the row.
    """
    lines = []
    for entry in found:
        results = recorded(entry, folder, steps)
        line: dict[str, Any] = {'dataset': entry.row.dataset, 'model': entry.row.model,
                                'method': entry.row.method, 'label': method_name(entry.row),
                                'negatives': entry.row.negatives, 'run': entry.path.stem if entry.path else None}
        for metric in entry.row.metrics or _METRICS:
            printed = entry.row.metrics.get(metric, Printed())
            mean, std = spread(result['metrics']['test'][metric] for result in results) if results else (None, None)
            difference = None if mean is None or printed.mean is None else mean - printed.mean
            line |= {f'{metric} paper': printed.mean, f'{metric} paper std': printed.std, f'{metric} ours': mean,
                     f'{metric} ours std': std if len(results) > 1 else None, f'{metric} difference': difference}
        line |= {'seeds': len(results),
                 'steps': results[0]['metrics']['recipe']['num_steps'] if results else None,
                 'state': 'run' if results else 'no recipe' if entry.path is None else 'not run'}
        lines.append(line)
    return pd.DataFrame(lines).astype({'steps': 'Int64', 'negatives': 'Int64'})


def markdown(table: pd.DataFrame, source: str, reading: str) -> str:
    r"""Formats the frame as Markdown with a caption."""
    metrics = [column.removesuffix(' paper') for column in table.columns if column.endswith(' paper')]
    header = ['dataset', 'model', 'method']
    for metric in metrics:
        header += [f'{_CAPTIONS[metric]} paper', 'ours', 'difference']
    header += ['steps', 'seeds']
    lines = [header, [*['---'] * 3, *['---:'] * (len(header) - 3)]]
    for line in table.to_dict('records'):
        cells = [line['dataset'], line['model'], line['label']]
        for metric in metrics:
            ours = _cell(line[f'{metric} ours'], line[f'{metric} ours std'])
            cells += [_cell(line[f'{metric} paper'], line[f'{metric} paper std']),
                      ours if line['state'] == 'run' else line['state'],
                      _cell(line[f'{metric} difference'], sign='+')]
        ran = line['state'] == 'run'
        lines.append([*cells, f'{line["steps"]:,}' if ran else '-', str(line['seeds']) if ran else '-'])
    text = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    title = f'{source}, reading: {reading}' if len(paper_of(source).readings) > 1 else source
    return (f'# {title}\n\n{text}\n\nTest split, filtered, both sides; mean ± standard deviation '
            'over seeds. A dash marks a value that the paper does not print or that its available text lacks.\n')


def write_table(source: str, reading: str, folder: Path, steps: Optional[int] = None) -> list[Path]:
    r"""Writes a complete table as CSV and as Markdown below :obj:`folder`."""
    table = frame(entries(source, reading), folder, steps)
    paper = paper_of(source)
    stem = folder / paper.group / (file_stem(source) + (f'-{reading}' if len(paper.readings) > 1 else ''))
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {'.csv': table.to_csv(index=False, float_format='%.6g'), '.md': markdown(table, source, reading)}
    paths = []
    for suffix, text in texts.items():
        path = stem.with_name(stem.name + suffix)
        partial = path.with_name(f'.{path.name}')
        partial.write_text(text, encoding='utf-8')
        partial.replace(path)
        paths.append(path)
    return paths


def method_name(row: Row) -> str:
    r"""Returns the method, with its sizes if the row has any."""
    name = row.method.replace('_', ' ')
    if row.source == 'Table 12':
        name = '(alpha, n_P/d, beta) = ({}, {}, {})'.format(*row.method.split(','))
    sizes = [f'{key} = {value}' for key, value in (('d', row.channels), ('n', row.negatives)) if value is not None]
    return ', '.join([name, *sizes])


def _cell(mean: Any, std: Any = None, sign: str = '') -> str:
    if pd.isna(mean):
        return '-'
    return f'{round(mean, 3) + 0.0:{sign}.3f}' + ('' if pd.isna(std) else f' ± {std:.3f}')
