r"""The papers whose rows are reproduced: their printed values, and the recipe of each row in each reading."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence

from benchmarks import dans_paper, dans_runs, demix_paper, demix_runs, paper, paper_runs
from benchmarks.paper import Row


@dataclass(frozen=True)
class Paper:
    r"""A paper.

    Args:
        rows (callable): Returns the rows of its tables and figures. The :obj:`source` of a row of any paper but EMU
            begins with the name of the paper.
        recipe_path (callable): Returns the recipe file of a row in a reading, or :obj:`None`.
        readings (sequence of str): The readings; the last one is the default.
        datasets (sequence of str): The datasets.
        tables (sequence of int): The numbers of its result tables.
        group (str): The subfolder of the results.
        figures (sequence of int, optional): The numbers of its figures that are reproduced. (default: :obj:`()`)
        pretraining (callable, optional): Returns the recipe file of the training whose weights a row in a reading
            starts from, or :obj:`None`. Rows with the same one share it. (default: none)
    """
    rows: Callable[[], Sequence[Row]]
    recipe_path: Callable[[str, Row], Optional[Path]]
    readings: Sequence[str]
    datasets: Sequence[str]
    tables: Sequence[int]
    group: str
    figures: Sequence[int] = ()
    pretraining: Callable[[str, Row], Optional[Path]] = lambda reading, row: None


def _emu_rows() -> Sequence[Row]:
    return (*paper.rows(), *paper_runs.figure_5_rows())


PAPERS = {
    'EMU': Paper(_emu_rows, paper_runs.recipe_path, paper_runs.READINGS, paper.DATASETS, paper.TABLES, 'reproduction',
                 figures=range(2, 7)),
    'DeMix': Paper(demix_paper.rows, demix_runs.recipe_path, demix_runs.READINGS, demix_paper.DATASETS,
                   demix_paper.TABLES, 'demix', demix_paper.FIGURES),
    'DANS': Paper(dans_paper.rows, dans_runs.recipe_path, dans_runs.READINGS, dans_paper.DATASETS, dans_paper.TABLES,
                  'dans', dans_paper.FIGURES, dans_runs.pretraining),
}


def paper_of(source: str) -> Paper:
    r"""Returns the paper of a source, such as :obj:`"Table 8"` (EMU) or :obj:`"DeMix Table 2"`."""
    return PAPERS.get(source.partition(' ')[0], PAPERS['EMU'])


def file_stem(source: str) -> str:
    r"""Returns the name of a table in files, such as :obj:`"table-2"`."""
    first, _, rest = source.partition(' ')
    return (rest if first in PAPERS else source).lower().replace(' ', '-')
