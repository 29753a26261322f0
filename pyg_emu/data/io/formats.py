r"""How the lines of a text file become facts: delimiter, header, comments, and which column holds what."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Mapping, Optional, Sequence

from pyg_emu.core.errors import ArgumentError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.io.columns import COLUMNS, Column, Columns, chosen_columns, further_columns, named_columns
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
        more (dict, optional): Further columns that are read, by what they are for, such as :obj:`{"weights": 3}`: names
            in the header, or positions from 0. (default: :obj:`{}`)

    Raises:
        ArgumentError: If an argument is outside of its domain.
    """
    delimiter: Optional[str] = None
    header: Optional[bool] = None
    comment: Optional[str] = None
    head: Optional[Column] = None
    relation: Optional[Column] = None
    tail: Optional[Column] = None
    more: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            check_delimiter(self.delimiter)
        if self.header is not None and not isinstance(self.header, bool):
            raise ArgumentError(f'header: expected True or False, got {self.header!r}')
        if self.comment is not None:
            check_comment(self.comment)
        for role, column in self._asked.items():
            if (isinstance(column, bool) or not isinstance(column, (str, Integral))
                    or (isinstance(column, Integral) and int(column) < 0)):
                raise ArgumentError(f'{role}: expected the name of a column or its position from 0, got {column!r}')
        for role in COLUMNS:  # a position may be an integer of NumPy
            column = getattr(self, role)
            object.__setattr__(self, role, int(column) if isinstance(column, Integral) else column)

    @property
    def chosen(self) -> tuple[Optional[Column], ...]:
        r"""The arguments :obj:`head`, :obj:`relation` and :obj:`tail`."""
        return self.head, self.relation, self.tail

    @property
    def _asked(self) -> dict[str, Column]:
        r"""All columns that the caller names, by what they are for."""
        facts = {role: column for role, column in zip(COLUMNS, self.chosen) if column is not None}
        return {**facts, **self.more}

    def syntax_of(self, path: Path) -> Syntax:
        r"""The records and fields of a file, by the extension of its name."""
        csv = path.name.lower().removesuffix('.gz').endswith('.csv')
        return Syntax(self.delimiter or (',' if csv else '\t'), csv, self.comment)

    def may_be_header(self, first: Sequence[str]) -> bool:
        r"""Whether a first line may name the columns although :obj:`header` does not say so."""
        if self.header is not None or self.announces_header:
            return False
        names = [name.strip().casefold() for name in first]
        # Where the caller says which columns are read, others may have names like theirs.
        read = [names[place] for place in self.chosen if isinstance(place, int) and place < len(names)]
        words, columns = names, named_columns(names)
        if columns is None and len(read) == len(COLUMNS):
            words, columns = read, named_columns(read)
        if columns is None:
            return False
        roles = {words[place] for place in columns.places}
        if roles == {*COLUMNS}:
            return True
        # A weight beside the words speaks for a fact.
        return (min(map(len, roles)) > 1 or roles in _SHORT_HEADERS) and not any(map(_is_number, names))

    @property
    def announces_header(self) -> bool:
        r"""Whether the first line names the columns, as the caller says: by :obj:`header`, or by names of columns."""
        return bool(self.header) or (self.header is None and self._named is not None)

    @property
    def _named(self) -> Optional[str]:
        r"""An argument that is the name of a column, or :obj:`None` if there is none."""
        return next((role for role, column in self._asked.items() if isinstance(column, str)), None)

    def columns_of(self, first: Sequence[str], has_header: bool, place: str) -> Optional[Columns]:
        r"""The columns of a file, or :obj:`None` if it has more or fewer than three and nothing says which to read.

        Args:
            first (sequence of str): The fields of its first line.
            has_header (bool): Whether these are names.
            place (str): The file and the line, for messages.

        Raises:
            DataError: If the columns that were asked for are not there, or their names are not known.
        """
        if not has_header and self._named is not None:
            raise ArgumentError(f'{self._named}: the name of a column, {self._asked[self._named]!r}, needs a header, '
                                'but header=False; pass its position from 0')
        if len(first) < len(COLUMNS) or (len(first) > len(COLUMNS) and not has_header and not self._asked):
            return None
        all_chosen = None not in self.chosen
        by_position = all_chosen and self._named is None
        names = [name.strip() for name in first] if has_header and not by_position else None
        columns = further_columns(self.more, chosen_columns(self.chosen, names, len(first), place), names, place)
        unread = [repr(first[place]) if has_header else str(place) for place in range(len(first))
                  if place not in columns.read]
        if unread and (self.more or not all_chosen):
            warn(f'{place}: columns that are not read: {", ".join(unread)}', DataWarning)
        return columns


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
