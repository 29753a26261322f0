r"""How the lines of a text file become facts: delimiter, header, comments, and which column holds what."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from pyg_emu.core.errors import ArgumentError, DataWarning
from pyg_emu.data.io.columns import COLUMNS, Column, Columns, chosen_columns, named_columns
from pyg_emu.data.io.textfiles import Syntax, check_comment, check_delimiter

EXTENSIONS = ('.txt', '.tsv', '.csv')
# The only names of one letter that an unannounced header is recognised by: toy facts have such labels.
_SHORT_HEADERS = ({'h', 'r', 't'}, {'s', 'p', 'o'})


@dataclass(frozen=True)
class TextFormat:
    r"""How lines become facts. Labels are kept as written: nothing is stripped, and :obj:`"NA"` is a label.

    Args:
        delimiter (str, optional): The character between columns. (default: a comma in :obj:`.csv`, else a tab)
        header (bool, optional): Whether the first line names the columns. Then columns are found by name: head,
            relation, tail, and the usual synonyms such as subject, predicate, object, or source and target.
            (default: :obj:`None`, whether it holds such names that do not occur as labels below)
        comment (str, optional): Lines that begin with this are not read. (default: :obj:`None`, no such lines)
        head (str or int, optional): The column of the heads: its name in the header, or its position from 0.
            (default: by name, or else 0)
        relation (str or int, optional): The column of the relations. (default: by name, or else 1)
        tail (str or int, optional): The column of the tails. (default: by name, or else 2)

    Raises:
        ArgumentError: If an argument is outside of its domain.
    """
    delimiter: Optional[str] = None
    header: Optional[bool] = None
    comment: Optional[str] = None
    head: Optional[Column] = None
    relation: Optional[Column] = None
    tail: Optional[Column] = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            check_delimiter(self.delimiter)
        if self.header is not None and not isinstance(self.header, bool):
            raise ArgumentError(f'header: expected True or False, got {self.header!r}')
        if self.comment is not None:
            check_comment(self.comment)
        for role, column in zip(COLUMNS, self.chosen):
            if column is not None and (isinstance(column, bool) or not isinstance(column, (str, int)) or
                                       (isinstance(column, int) and column < 0)):
                raise ArgumentError(f'{role}: expected the name of a column or its position from 0, got {column!r}')

    @property
    def chosen(self) -> tuple[Optional[Column], ...]:
        r"""The arguments :obj:`head`, :obj:`relation` and :obj:`tail`."""
        return self.head, self.relation, self.tail

    def syntax_of(self, path: Path) -> Syntax:
        r"""The records and fields of a file, by the extension of its name."""
        csv = path.name.lower().removesuffix('.gz').endswith('.csv')
        return Syntax(self.delimiter or (',' if csv else '\t'), csv, self.comment)

    def may_be_header(self, first: Sequence[str]) -> bool:
        r"""Whether a first line may name the columns although :obj:`header` does not say so."""
        if self.header is not None or self.announces_header:
            return False
        names = [name.strip().casefold() for name in first]
        return named_columns(names) is not None and (min(map(len, names)) > 1 or set(names) in _SHORT_HEADERS)

    @property
    def announces_header(self) -> bool:
        r"""Whether the first line names the columns, as the caller says: by :obj:`header`, or by names of columns."""
        return bool(self.header) or (self.header is None and any(isinstance(column, str) for column in self.chosen))

    def columns_of(self, first: Sequence[str], has_header: bool, place: str) -> Optional[Columns]:
        r"""The columns of a file, or :obj:`None` if it has more or fewer than three and nothing says which to read.

        Args:
            first (sequence of str): The fields of its first line.
            has_header (bool): Whether these are names.
            place (str): The file and the line, for messages.

        Raises:
            DataError: If the columns that were asked for are not there, or their names are not known.
        """
        asked = [column is not None for column in self.chosen]
        if not has_header and any(isinstance(column, str) for column in self.chosen):
            raise ArgumentError('head, relation, tail: names of columns need a header, but header=False; pass '
                                'positions from 0')
        if len(first) < len(COLUMNS) or (len(first) > len(COLUMNS) and not has_header and not any(asked)):
            return None
        by_position = all(isinstance(column, int) for column in self.chosen)
        names = [name.strip() for name in first] if has_header and not by_position else None
        columns = chosen_columns(self.chosen, names, len(first), place)
        unread = [repr(first[place]) if has_header else str(place) for place in range(len(first))
                  if place not in columns.places]
        if unread and not all(asked):
            warnings.warn(f'{place}: columns that are not read: {", ".join(unread)}', DataWarning, stacklevel=2)
        return columns
