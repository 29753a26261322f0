r"""Tables and queries of SQL databases to a :class:`~pyg_emu.KGData`, through SQLAlchemy."""
from __future__ import annotations

import difflib
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import pandas as pd

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.columns import Column
from pyg_emu.data.io.detection import head_of
from pyg_emu.data.io.frames import require
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS
from pyg_emu.data.io.tables import check_split_or_fractions, frame_facts, table_columns

_URL = re.compile(r'[A-Za-z][A-Za-z0-9+_.-]*://')
# Addresses of files, which are not read from elsewhere.
_REMOTE = re.compile(r'(https?|ftp|s3|gs|hdfs|file)://', re.IGNORECASE)
_SQLITE = re.compile(r'sqlite(?:\+\w+)?:///(?!file:|:memory:)([^?]+)(.*)')


def is_url(source: Any) -> bool:
    r"""Returns :obj:`True` for a text such as :obj:`"postgresql://host/database"`."""
    return isinstance(source, str) and _URL.match(source) is not None


def absolute_url(source: str) -> str:
    r"""Returns the URL of an SQLite database with its path made absolute, other URLs as they are."""
    match = _SQLITE.fullmatch(source)
    if match is None:
        return source
    return f'{source[:match.start(1)]}{Path(match[1]).expanduser().absolute()}{match[2]}'


def from_sql(
    source: Any,
    *,
    table: Optional[str] = None,
    query: Optional[str] = None,
    fractions: Optional[Sequence[float]] = None,
    seed: int = 0,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    split: Optional[Column] = None,
    weights: Optional[Column] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Makes a graph from a table, a view or a query of a database with a row for each fact.

    .. code-block:: python

        load_dataset('sqlite:///kg.db', table='facts')
        load_dataset('postgresql://localhost/kg', query='SELECT s, p, o FROM facts WHERE trust > 0.5', head='s',
                     relation='p', tail='o')

    The order of rows in a database is undefined: facts are sorted by their ids, so that the same rows always give the
    same split. Nothing is changed in the database.

    Args:
        source (str or os.PathLike or sqlalchemy.Engine or sqlalchemy.Connection): The URL of a database, the path of an
            SQLite database, or an object of SQLAlchemy. Give passwords by the means of the driver, such as
            :obj:`PGPASSWORD`: the recipe of a run contains the URL.
        table (str, optional): A table or a view, with a schema before a dot if it is not in the default one.
            (default: the only one there is)
        query (str, optional): A statement that returns rows, instead of :obj:`table`. (default: :obj:`None`)
        fractions (sequence of float, optional): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int, optional): The same seed gives the same split. (default: :obj:`0`)
        head (str or int, optional): Column of the heads: its name, or its position from 0.
            (default: the one called head, or a usual synonym such as subject, source or h, in any case)
        relation (str or int, optional): Column of the relations. (default: likewise)
        tail (str or int, optional): Column of the tails. (default: likewise)
        split (str or int, optional): Column that holds :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`, instead of
            :obj:`fractions`. (default: :obj:`None`)
        weights (str or int, optional): Column of the weights of facts, see
            :func:`~pyg_emu.data.io.tables.from_dataframe`. (default: :obj:`None`)
        vocabulary (KGData, optional): A graph whose relations this one shares. (default: :obj:`None`)
        entities (KGData, optional): A graph whose entities and relations keep their ids; see
            :func:`~pyg_emu.data.io.files.from_folder`. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is outside of its domain, or SQLAlchemy is not installed.
        DataError: If the database cannot be read, a table or column is missing, or a row is not a fact; names the
            database, the column and the row.
    """
    check_split_or_fractions(split, fractions)
    for name, value in (('table', table), ('query', query)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ArgumentError(f'{name}: expected a text, got {shown(value)}')
    if table is not None and query is not None:
        raise ArgumentError('table, query: give one of the two')
    collector = Collector(vocabulary, entities)
    with _connected(source) as (connection, what):
        names, fetch = _statement(connection, table, query, what)
        found = table_columns(names, (head, relation, tail), split, what, weights)
        # A column of this name is looked at even if nobody has asked for it, to say so.
        wanted = list(dict.fromkeys([*found.read, *(place for place, name in enumerate(names) if name == 'split')]))
        values = fetch(wanted)
    df = pd.DataFrame({number: pd.Series([row[number] for row in values], dtype=object)
                       for number in range(len(wanted))})
    df.columns = pd.Index([names[place] for place in wanted], dtype=object)
    facts = frame_facts(df, (0, 1, 2), None if found.split is None else 3, what,
                        lambda row, name: f'{what}: column {name!r}, row {row}',
                        [name for place, name in enumerate(names) if place not in wanted],
                        None if found.weights is None else len(found.labels))
    facts.add_to(collector, 'all')
    return collector.finish(DEFAULT_FRACTIONS if fractions is None and split is None else fractions, seed,
                            in_order=True)


@contextmanager
def _connected(source: Any) -> Iterator[tuple[Any, str]]:
    r"""A connection to a database, and what the database is called in messages.

    Raises:
        ArgumentError: If SQLAlchemy is not installed, or the source is nothing of the kind.
        DataError: If the database cannot be reached, or a statement fails.
    """
    require('sqlalchemy', 'reading a database', 'export the facts to a text file', extra='sql')
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    what = 'the database'
    try:
        if isinstance(source, sqlalchemy.Connection):
            yield source, _shown_url(source.engine.url)
            return
        url = source.url if isinstance(source, sqlalchemy.Engine) else _url(source)
        what = _shown_url(url)
        engine = source if isinstance(source, sqlalchemy.Engine) else sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                yield connection, what
        finally:
            if engine is not source:
                engine.dispose()
    except ModuleNotFoundError as error:
        raise ArgumentError(f'{what}: its driver, the module {error.name}, is not installed; install it, or name '
                            'another one in the URL, such as postgresql+psycopg://') from error
    except SQLAlchemyError as error:
        # The statement and a link to the documentation follow the first line.
        told = ' '.join(str(getattr(error, 'orig', None) or error).split('\n[SQL', 1)[0].split())
        raise DataError(f'{what}: {told}') from error


def _url(source: Any) -> Any:
    r"""The URL of a source, if it is one.

    Raises:
        ArgumentError: If it is none, or the URL is not understood.
        DataError: If an SQLite database does not exist, which SQLite would create.
    """
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError as UrlError

    if isinstance(source, str) and _REMOTE.match(source):
        raise ArgumentError(f'source: {source} is the address of a file; download it, and give its path')
    if isinstance(source, str) and is_url(source):
        try:
            url = sqlalchemy.make_url(source)
        except (UrlError, ValueError) as error:
            raise ArgumentError(f'source: not the URL of a database ({error}); expected one such as '
                                'postgresql://user@host/database') from error
        if url.password is not None:
            warn(f'{_shown_url(url)}: the URL contains a password, which the recipe of a run would contain, '
                 'too; use the means of the driver, such as PGPASSWORD or ~/.pgpass', DataWarning)
        if url.get_backend_name() != 'sqlite' or url.database in (None, '', ':memory:') or 'uri' in url.query:
            return url
        path = Path(str(url.database))
    elif isinstance(source, (str, os.PathLike)) and not isinstance(os.fspath(source), bytes) and os.fspath(source):
        path = Path(source).expanduser()
        url = sqlalchemy.URL.create('sqlite', database=str(path))
    else:
        raise ArgumentError(f'source: expected the URL of a database, the path of an SQLite database, or an object of '
                            f'SQLAlchemy, got {shown(source)}')
    if head_of(path).kind != 'sqlite':
        raise DataError(f'{path}: not an SQLite database')
    return url


def _shown_url(url: Any) -> str:
    if url.get_backend_name() == 'sqlite':
        return str(url.database or 'the SQLite database in memory')
    return str(url.render_as_string(hide_password=True))


def _statement(connection: Any, table: Optional[str], query: Optional[str], what: str
               ) -> tuple[list[str], Callable[[Sequence[int]], Sequence[Any]]]:
    r"""The names of the columns of a table or query, and a function that reads the rows of some of them."""
    import sqlalchemy

    if query is not None:
        # As it is: neither colons nor percent signs stand for parameters.
        rows = connection.execution_options(no_parameters=True).exec_driver_sql(query)
        if not rows.returns_rows:
            raise DataError(f'{what}: the query returns no rows; expected a SELECT statement')
        return list(rows.keys()), lambda wanted: rows.columns(*wanted).fetchall()
    inspector = sqlalchemy.inspect(connection)
    found = [*inspector.get_table_names(), *inspector.get_view_names()]
    if table is None:
        if len(found) != 1:
            raise DataError(f'{what} has {len(found)} tables and views{_listed(found)}; pass table= or query=')
        table = found[0]
    schema: Optional[str] = None
    name = table
    if table not in found:
        schema, _, name = table.rpartition('.')
        if not schema or not inspector.has_table(name, schema=schema):
            near = difflib.get_close_matches(table, found, n=1)
            hint = f' (nearest: {near[0]!r})' if near else ''
            raise DataError(f'{what}: there is no table {table!r}{hint}; it has {len(found)} tables and '
                            f'views{_listed(found)}')
    schema = schema or None
    columns: list[Any] = [sqlalchemy.column(column['name']) for column in inspector.get_columns(name, schema=schema)]
    source = sqlalchemy.table(name, schema=schema)
    return [column.name for column in columns], lambda wanted: connection.execute(
        sqlalchemy.select(*(columns[place] for place in wanted)).select_from(source)).fetchall()


def _listed(names: Sequence[str]) -> str:
    return f' ({", ".join(names[:10])}{", ..." if len(names) > 10 else ""})' if names else ''
