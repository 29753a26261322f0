r"""What a page is made of: sections of tables, figures, tiles and sentences. They hold text, never HTML."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional, Sequence, Union

#: What stands in the place of a missing value.
MISSING = '–'
#: Letters of a label that are shown.
_SHOWN = 160


@dataclass(frozen=True)
class Cell:
    r"""A cell of a table.

    Args:
        text (str): What is shown.
        sort (str or float, optional): What the cell is sorted by; :obj:`None` is sorted last.
        bar (float, optional): The length of a bar behind the text, between 0 and 1.
        mark (str, optional): :obj:`"strong"` for the cell that matters most in its row. (default: :obj:`""`)
        items (tuple of str, optional): Texts that are shown one by one instead of :obj:`text`. (default: none)
    """
    text: str
    sort: Union[None, str, float] = None
    bar: Optional[float] = None
    mark: str = ''
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    r"""A column of a table.

    Args:
        title (str): The heading.
        numeric (bool, optional): Whether it holds numbers, which are aligned on the right. (default: :obj:`False`)
        explained (str, optional): What is shown while the pointer rests on the heading. (default: :obj:`""`)
    """
    title: str
    numeric: bool = False
    explained: str = ''


@dataclass(frozen=True)
class Table:
    r"""A table whose rows can be sorted by each column.

    Args:
        columns (list of Column): The columns.
        rows (list of list of Cell): The rows, in the order in which they are first shown.
        caption (str, optional): What the table shows. (default: :obj:`""`)
        search (bool, optional): Whether there is a field that filters the rows. (default: :obj:`False`)
    """
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ''
    search: bool = False
    kind: str = field(default='table', init=False)


@dataclass(frozen=True)
class Figure:
    r"""A figure.

    Args:
        content (str): Data and layout for plotly.js, as JSON.
        caption (str, optional): What the figure shows. (default: :obj:`""`)
        height (int, optional): The height in pixels. (default: :obj:`320`)
        course (bool, optional): Whether its x axis can be exchanged between steps and seconds. (default: :obj:`False`)
    """
    content: str
    caption: str = ''
    height: int = 320
    course: bool = False
    kind: str = field(default='figure', init=False)


@dataclass(frozen=True)
class Tiles:
    r"""Numbers that are read first.

    Args:
        tiles (list of tuple): The name of each number, its text, and a remark.
    """
    tiles: Sequence[tuple[str, str, str]]
    kind: str = field(default='tiles', init=False)


@dataclass(frozen=True)
class Text:
    r"""A sentence.

    Args:
        text (str): The sentence.
        note (bool, optional): Whether it tells of something missing or unusual. (default: :obj:`False`)
    """
    text: str
    note: bool = False
    kind: str = field(default='text', init=False)


@dataclass(frozen=True)
class Choice:
    r"""The choice between steps and seconds for all figures of the course of training."""
    kind: str = field(default='choice', init=False)


@dataclass(frozen=True)
class Grid:
    r"""Blocks next to each other where the page is wide enough.

    Args:
        blocks (list): The blocks.
    """
    blocks: Sequence[Any]
    kind: str = field(default='grid', init=False)


@dataclass(frozen=True)
class Section:
    r"""A section of a page.

    Args:
        name (str): Identifies the section in links.
        title (str): The heading.
        blocks (list, optional): Its content.
        absent (str, optional): Why there is none. (default: :obj:`None`)
    """
    name: str
    title: str
    blocks: Sequence[Any] = ()
    absent: Optional[str] = None


@dataclass(frozen=True)
class Page:
    r"""A page.

    Args:
        title (str): The heading.
        subtitle (str): The line below.
        sections (list of Section): The sections.
    """
    title: str
    subtitle: str
    sections: Sequence[Section]


def short(value: Any) -> str:
    r"""A label or another value as text of bounded length."""
    text = str(value)
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN - 1]}…'


def number(value: Any) -> Optional[float]:
    r"""A finite number, or :obj:`None` for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def label(value: Any, mark: str = '') -> Cell:
    r"""A cell of text, which is sorted as text."""
    return Cell(short(value), str(value).lower(), mark=mark)


def count(value: Any) -> Cell:
    r"""A cell of an integer."""
    found = number(value)
    return Cell(MISSING) if found is None else Cell(f'{found:,.0f}', found)


def rank(value: Any, mark: str = '') -> Cell:
    r"""A cell of a rank, which ties may make a fraction."""
    found = number(value)
    if found is None:
        return Cell(MISSING)
    return Cell(f'{found:,.0f}' if found.is_integer() else f'{found:,.1f}', found, mark=mark)


def metric(value: Any, name: str = '', bar: bool = False, mark: str = '') -> Cell:
    r"""A cell of a metric, with as many digits as its kind needs.

    Args:
        value (float): The value.
        name (str, optional): The metric, such as :obj:`"mr"`. (default: :obj:`""`, one between 0 and 1)
        bar (bool, optional): Whether to draw a bar, from 0 to 1. (default: :obj:`False`)
        mark (str, optional): See :class:`Cell`. (default: :obj:`""`)
    """
    found = number(value)
    if found is None:
        return Cell(MISSING)
    return Cell(metric_text(found, name), found, min(max(found, 0.0), 1.0) if bar else None, mark)


def metric_text(value: Optional[float], name: str = '') -> str:
    r"""The text of a metric, see :func:`metric`."""
    if value is None:
        return MISSING
    kind = name.rpartition('.')[2]
    return f'{value:,.0f}' if kind == 'count' else f'{value:,.1f}' if kind == 'mr' else f'{value:.4f}'


def metric_title(name: str) -> str:
    r"""The name of a metric for people: :obj:`"MRR"`, :obj:`"Hits@10"`, :obj:`"mean rank"`."""
    known = {'mrr': 'MRR', 'mr': 'mean rank', 'amri': 'AMRI', 'count': 'ranks'}
    return known.get(name, name.replace('hits@', 'Hits@').replace('ndcg@', 'nDCG@'))
