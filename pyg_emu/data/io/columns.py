r"""Which column holds heads, relations and tails: by name, by position, or by the usual order."""
from __future__ import annotations

import re
from numbers import Integral
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Union

from pyg_emu.core.errors import ArgumentError, DataError

#: The columns of a fact, in the usual order.
COLUMNS = ('head', 'relation', 'tail')
#: A column: its name, or its position from 0.
Column = Union[str, int]

# Names are compared in lower case without punctuation, and without what _DECORATION removes.
_NAMES = {
    'head': ('head', 'h', 'subject', 'subj', 'sub', 's', 'source', 'src', 'from', 'start', 'lhs', 'left', 'x', 'node1',
             'entity1', 'ent1', 'e1', 'arg1'),
    'relation': ('relation', 'rel', 'r', 'relationship', 'predicate', 'pred', 'p', 'property', 'prop', 'edge',
                 'edgetype', 'type', 'link', 'verb'),
    'tail': ('tail', 't', 'object', 'obj', 'o', 'target', 'tgt', 'trg', 'destination', 'dest', 'dst', 'to', 'end',
             'rhs', 'right', 'y', 'node2', 'entity2', 'ent2', 'e2', 'arg2'),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_DECORATION = re.compile('(entity|node|vertex)?(id|label|name|type|uri|iri|index|idx)?$')


class Columns(NamedTuple):
    r"""Where a table's facts stand.

    Args:
        head (int): Position of the heads, from 0.
        relation (int): Position of the relations.
        tail (int): Position of the tails.
        width (int): Number of columns of the table.
        more (tuple of int, optional): Positions of further columns that are read. (default: :obj:`()`)
    """
    head: int
    relation: int
    tail: int
    width: int
    more: tuple[int, ...] = ()

    @property
    def places(self) -> tuple[int, int, int]:
        r"""The positions of heads, relations and tails."""
        return self.head, self.relation, self.tail

    @property
    def read(self) -> tuple[int, ...]:
        r"""The positions of all columns that are read."""
        return *self.places, *self.more


def role_of(name: Any) -> Optional[str]:
    r""":obj:`"head"`, :obj:`"relation"` or :obj:`"tail"` for the usual names of such a column, or :obj:`None`."""
    if not isinstance(name, str):
        return None
    plain = re.sub(r'[\W_]', '', name.casefold())
    return _ROLES.get(plain) or _ROLES.get(_DECORATION.sub('', plain))


def named_columns(names: Sequence[Any]) -> Optional[Columns]:
    r"""The columns by their usual names, or :obj:`None` unless exactly one column is named for each role."""
    roles = [role_of(name) for name in names]
    if any(roles.count(role) != 1 for role in COLUMNS):
        # 'head', 'relation' and 'tail' themselves decide where other names, such as 'type', stand for a role, too.
        roles = [str(name).casefold() if str(name).casefold() in COLUMNS else None for name in names]
    if any(roles.count(role) != 1 for role in COLUMNS):
        return None
    head, relation, tail = (roles.index(role) for role in COLUMNS)
    return Columns(head, relation, tail, len(names))


def chosen_columns(chosen: Sequence[Optional[Column]], names: Optional[Sequence[Any]], width: int,
                   place: str) -> Columns:
    r"""The columns that a caller asked for, the others by name, or by the usual order where no column has a name.

    Args:
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`: a name, a position, or
            :obj:`None`.
        names (sequence, optional): The names of the table's columns, or :obj:`None` where they have none.
        width (int): Number of columns of the table.
        place (str): The table, for messages.

    Raises:
        ArgumentError: If an argument is neither a name nor a position.
        DataError: If there is no such column, if no column has the name of a role, or if one column is to serve twice.
    """
    known = None if names is None else named_columns(names)
    found: list[int] = []
    for number, (role, column) in enumerate(zip(COLUMNS, chosen)):
        if column is not None:
            found.append(column_position(role, column, names, width, place))
        elif known is not None:
            found.append(known.places[number])
        elif names is None:
            found.append(number)
        else:
            found.append(_only(role, names, place))
    _check_distinct(found, width, place)
    return Columns(found[0], found[1], found[2], width)


def further_columns(more: Mapping[str, Column], facts: Columns, names: Optional[Sequence[Any]],
                    place: str) -> Columns:
    r"""Adds the columns that a caller asked for beside those of the facts.

    Args:
        more (dict): The arguments by their names, such as :obj:`{"weights": 3}`: a name, or a position from 0.
        facts (Columns): Where the facts stand.
        names (sequence, optional): The names of the table's columns, or :obj:`None` where they have none.
        place (str): The table, for messages.

    Raises:
        ArgumentError: If an argument is neither a name nor a position.
        DataError: If there is no such column, or one column is to serve twice.
    """
    taken = dict(zip(facts.places, COLUMNS))
    for role, column in more.items():
        position = column_position(role, column, names, facts.width, place)
        if position in taken:
            name = position if names is None else names[position]
            raise DataError(f'{place}: column {name!r} would serve as {taken[position]} and as {role}; pass {role}= '
                            'with a column of its own')
        taken[position] = role
    return facts._replace(more=tuple(taken)[len(COLUMNS):])


def column_position(role: str, column: Any, names: Optional[Sequence[Any]], width: int, place: str) -> int:
    r"""The position of the column that a caller asked for.

    Args:
        role (str): The argument, for messages.
        column (Any): Its value: a name, or a position from 0.
        names (sequence, optional): The names of the table's columns, or :obj:`None` where they have none.
        width (int): Number of columns of the table.
        place (str): The table, for messages.

    Raises:
        ArgumentError: If the value is neither a name nor a position.
        DataError: If there is no such column, or there are several of that name.
    """
    if isinstance(column, bool) or not isinstance(column, (str, Integral)):
        raise ArgumentError(f'{role}: expected the name of a column or its position from 0, got {column!r}')
    if names is not None and column in list(names):
        if list(names).count(column) > 1:
            raise DataError(f'{place} has {list(names).count(column)} columns named {column!r}; expected one')
        return list(names).index(column)
    if isinstance(column, Integral) and 0 <= int(column) < width:
        return int(column)
    if names is None:
        need = '; a file without a header has no names, give positions' if isinstance(column, str) else ''
        raise DataError(f'{place}: there is no column {column!r} for {role}=; its columns have the positions 0 to '
                        f'{width - 1}{need}')
    raise DataError(f'{place}: there is no column {column!r} for {role}=; its columns are {list(names)!r}')


def _only(role: str, names: Sequence[Any], place: str) -> int:
    places = [number for number, name in enumerate(names) if role_of(name) == role]
    if len(places) != 1:
        what = 'no column is' if not places else f'{len(places)} columns are'
        raise DataError(f'{place}: {what} named as {role} in the header, {list(names)!r}; pass head=, relation= and '
                        'tail= with the names or positions of its columns')
    return places[0]


def _check_distinct(found: Sequence[int], width: int, place: str) -> None:
    for number, role in enumerate(COLUMNS):
        if found[number] in found[:number]:
            other = COLUMNS[found.index(found[number])]
            raise DataError(f'{place}: column {found[number]} would serve as {other} and as {role}; pass head=, '
                            'relation= and tail= with three different columns')
        if found[number] >= width:
            raise DataError(f'{place}: there is no column {found[number]} for the {role}; it has {width} columns')
