r"""Databases: which table or query is read, and errors that name them; on SQLite and, where it is, PostgreSQL."""
from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Iterator

import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io.datasets import absolute_source, load_dataset
from pyg_emu.data.io.sql import from_sql, is_url
from pyg_emu.data.io.tables import from_dataframe

sqlalchemy = pytest.importorskip('sqlalchemy')

FACTS = pd.DataFrame([(f'e{head}', f'r{relation}', f'e{(head + relation) % 7}') for head in range(7)
                      for relation in range(1, 4)], columns=['head', 'relation', 'tail'])
ALL = {'fractions': (1, 0, 0)}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / 'kg.sqlite'
    connection = sqlite3.connect(path)
    FACTS.sample(frac=1, random_state=0).to_sql('facts', connection, index=False)
    connection.execute('CREATE TABLE "odd names" ("to" TEXT, "weight" REAL, "from" INTEGER, "edge" TEXT, "split" TEXT)')
    connection.execute("INSERT INTO 'odd names' VALUES ('b', 0.5, 7, 'r:x', 'train'), ('c', 1, 8, '100%', 'test')")
    connection.execute('CREATE VIEW strong AS SELECT * FROM "odd names" WHERE weight > 0.7')
    connection.commit()
    connection.close()
    return path


def labelled(data: Any, split: str = 'train') -> list[tuple[str, str, str]]:
    return [(data.entity_labels[head], data.relation_labels[relation], data.entity_labels[tail])
            for head, relation, tail in data.facts(split).tolist()]


def test_tables_views_and_queries(database: Path) -> None:
    expected = from_dataframe(FACTS, (0.6, 0.2, 0.2), 1)
    for options in ({'table': 'facts'}, {'table': 'main.facts'}, {'query': 'SELECT tail, relation, head FROM facts;'},
                    {'query': 'WITH f AS (SELECT * FROM facts) SELECT tail t, relation r, head h FROM f ORDER BY t'},
                    {'query': 'SELECT 1, * FROM facts', 'head': 1, 'relation': 2, 'tail': 3}):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DataWarning)
            found = load_dataset(f'sqlite:///{database}', fractions=(0.6, 0.2, 0.2), seed=1, **options)
        assert found.entity_labels == expected.entity_labels
        assert all(torch.equal(found.facts(split), expected.facts(split)) for split in ('train', 'valid', 'test'))
    with pytest.warns(DataWarning, match="not read: 'weight'"):
        data = load_dataset(database, table='odd names', split='split')
    assert labelled(data) == [('7', 'r:x', 'b')] and labelled(data, 'test') == [('8', '100%', 'c')]
    with pytest.warns(DataWarning, match="'split'.*split='split'"):
        assert labelled(load_dataset(database, table='strong', **ALL)) == [('8', '100%', 'c')]
    # Neither is a parameter.
    query = 'SELECT "from", "edge", "to" FROM "odd names" WHERE "edge" LIKE \'r:x%\' OR "edge" = \':x\''
    assert labelled(load_dataset(database, query=query, **ALL)) == [('7', 'r:x', 'b')]


def test_shared_ids(database: Path) -> None:
    data = load_dataset(database, table='facts', **ALL)
    with pytest.warns(DataWarning, match="'x'"):
        other = load_dataset(database, query="SELECT 'x' h, 'r2' r, 'e3' t", entities=data, **ALL)
    assert other.entity_labels == [*data.entity_labels, 'x'] and other.facts().tolist() == [[7, 1, 3]]
    with pytest.raises(DataError, match=f"{database}: column 'r', row 0: .*'r9'"):
        load_dataset(database, query="SELECT 'x' h, 'r9' r, 'e3' t", vocabulary=data, **ALL)


@pytest.mark.parametrize(('options', 'said'), [
    ({}, r'3 tables .*facts, odd names, strong.*table='), ({'table': 'fact'}, "'fact'.*'facts'"),
    ({'table': 'other.facts'}, "'other.facts'"), ({'query': 'SELECT * FROM nowhere'}, 'nowhere'),
    ({'query': 'SELEKT 1'}, 'SELEKT'), ({'query': 'DELETE FROM facts'}, 'no rows'),
    ({'query': 'SELECT head, relation FROM facts'}, 'tail.*head'), ({'table': 'facts', 'head': 'x'}, "'x'.*'head'"),
    ({'query': 'SELECT * FROM facts WHERE 0'}, 'no rows'), ({'table': 'facts', 'split': 'part'}, "'part'"),
    ({'query': "SELECT 'a' h, NULL r, 'b' t"}, "'r', row 0: .*missing"),
    ({'query': "SELECT 1.5 h, 'r' r, 't' t"}, '1.5'),
    ({'query': "SELECT x'00ff' h, 'r' r, 't' t"}, "'h', row 0"),
    ({'query': "SELECT 'a' h, 'b' h, 'r' r, 't' t", 'head': 'h'}, "2 columns .*'h'"),
])
def test_what_is_wrong_is_named(database: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f'(?s){database}.*{said}'):
        load_dataset(database, **options)
    # Nothing has changed.
    assert load_dataset(database, table='facts').num_facts('all') == len(FACTS)


def test_bad_sources(database: Path, tmp_path: Path) -> None:
    for options, said in (({'table': 'facts', 'query': 'SELECT 1'}, 'table, query'), ({'table': ''}, "table: .*''"),
                          ({'query': 3}, 'query: .*3'), ({'table': 'facts', 'split': 's', **ALL}, 'fractions, split')):
        with pytest.raises(ArgumentError, match=said):
            from_sql(database, **options)
    with pytest.raises(ArgumentError, match="a database has no option 'delimiter'.*query"):
        load_dataset(database, delimiter=',')
    with pytest.raises(ArgumentError, match="a file has no option 'table'"):
        load_dataset(__file__, table='facts')
    # SQLite would make a new database.
    with pytest.raises(DataError, match='missing.db: no such file'):
        load_dataset(f'sqlite:///{tmp_path}/missing.db', table='facts')
    assert not (tmp_path / 'missing.db').exists()
    (tmp_path / 'text.db').write_text('a\tr\tb\n')
    with pytest.raises(DataError, match=r'text\.db: not an SQLite'):
        load_dataset(f'sqlite:///{tmp_path}/text.db', table='facts')
    (tmp_path / 'cut.db').write_bytes(database.read_bytes()[:5000])
    with pytest.raises(DataError, match=r'cut\.db: '):
        load_dataset(tmp_path / 'cut.db', table='facts')
    for url in ('nosuch://host/db', 'postgresql://host:port/db', 'sqlite+nosuch://'):
        with pytest.raises((ArgumentError, DataError), match='nosuch|port'):
            load_dataset(url, table='facts')
    for source in ('https://example.org/facts.nt', 's3://bucket/facts.parquet'):
        with pytest.raises(ArgumentError, match=f'{source}.*download'):
            load_dataset(source)
    for source in (3, None, b'x', ''):
        with pytest.raises(ArgumentError, match='source: '):
            from_sql(source)


def test_passwords_are_not_told() -> None:
    pytest.importorskip('psycopg')
    url = 'postgresql+psycopg://me:secret@127.0.0.1:1/kg'
    with pytest.warns(DataWarning, match=r'me:\*\*\*.*PGPASSWORD') as caught, pytest.raises(
            DataError, match=r'me:\*\*\*@127') as error:
        load_dataset(url, table='facts')
    assert 'secret' not in f'{error.value}{[str(warning.message) for warning in caught]}'


def test_missing_packages(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'psycopg2', None)  # as if it were not installed
    with pytest.raises(ArgumentError, match='postgresql.*://host/kg.*psycopg2'):
        load_dataset('postgresql+psycopg2://host/kg', table='facts')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match=r'pip install sqlalchemy.*pyg_emu\[sql\]'):
        load_dataset(database, table='facts')


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_source('sqlite:///kg.db') == f'sqlite:///{tmp_path}/kg.db'
    assert absolute_source('sqlite+pysqlite:///kg.db?timeout=3') == f'sqlite+pysqlite:///{tmp_path}/kg.db?timeout=3'
    for url in (f'sqlite:///{tmp_path}/kg.db', 'sqlite://', 'sqlite:///:memory:', 'postgresql://host/kg.db'):
        assert absolute_source(url) == url and is_url(url)
    assert not any(map(is_url, ('facts.tsv', './a://b', '/a/b', Path('a'), 3, 'UMLS')))


# PostgreSQL ##################################################################

def _programs() -> dict[str, str]:
    r"""The programs of PostgreSQL, on the path or where Debian puts them."""
    folders = sorted(glob.glob('/usr/lib/postgresql/*/bin'), reverse=True)
    found = {}
    for name in ('initdb', 'postgres'):
        at = shutil.which(name) or next((f'{folder}/{name}' for folder in folders
                                         if os.path.exists(f'{folder}/{name}')), None)
        if at is None:
            pytest.skip(f'PostgreSQL is not installed: there is no {name}')
        found[name] = at
    return found


@pytest.fixture
def postgres() -> Iterator[str]:
    r"""The URL of an empty PostgreSQL, which ends with the test."""
    pytest.importorskip('psycopg')
    programs = _programs()
    folder = tempfile.mkdtemp(prefix='pg-')
    # PostgreSQL does not run as root.
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        shutil.chown(folder, 'nobody')
        user = {'user': 'nobody', 'group': 'nogroup', 'extra_groups': []}
    quiet: dict[str, Any] = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE, 'cwd': folder, **user}
    server = None
    try:
        try:
            subprocess.run([programs['initdb'], '--no-sync', '-A', 'trust', '-U', 'kg', '-D', f'{folder}/data'],
                           check=True, **quiet)
        except (OSError, KeyError, LookupError, subprocess.CalledProcessError) as error:
            pytest.skip(f'PostgreSQL cannot be started here: {getattr(error, "stderr", None) or error}')
        settings = ['-c', 'listen_addresses=', '-c', 'fsync=off', '-c', 'shared_buffers=1MB']
        server = subprocess.Popen([programs['postgres'], '-D', f'{folder}/data', '-k', folder, *settings],
                                  **{**quiet, 'stderr': subprocess.DEVNULL})
        url = f'postgresql+psycopg://kg@/postgres?host={folder}'
        engine = sqlalchemy.create_engine(url)
        for _ in range(300):
            try:
                engine.connect().close()
                break
            except sqlalchemy.exc.OperationalError:
                assert server.poll() is None, 'PostgreSQL has ended'
                time.sleep(0.1)
        engine.dispose()
        yield url
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # without waiting for connections
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_postgresql(postgres: str) -> None:
    expected = from_dataframe(FACTS, (0.6, 0.2, 0.2), 1)
    engine = sqlalchemy.create_engine(postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE SCHEMA graphs')
        connection.exec_driver_sql('CREATE TABLE graphs.facts (subject TEXT, predicate VARCHAR(9), object TEXT, '
                                   'id UUID)')
        for row in FACTS.sample(frac=1, random_state=1).itertuples(index=False):
            connection.exec_driver_sql('INSERT INTO graphs.facts VALUES (%s, %s, %s, gen_random_uuid())', tuple(row))
    for source, options in ((postgres, {'table': 'graphs.facts'}), (engine, {'query': 'SELECT * FROM graphs.facts'}),
                            (postgres, {'query': "SELECT * FROM graphs.facts WHERE subject LIKE 'e%'"})):
        with pytest.warns(DataWarning, match="not read: 'id'"):
            found = load_dataset(source, fractions=(0.6, 0.2, 0.2), seed=1, **options)
        assert found.entity_labels == expected.entity_labels and found.relation_labels == expected.relation_labels
        assert all(torch.equal(found.facts(split), expected.facts(split)) for split in ('train', 'valid', 'test'))
    with pytest.raises(DataError, match="postgresql.*'id', row 0: UUID"):
        load_dataset(engine, query='SELECT * FROM graphs.facts', head='id')
    with pytest.raises(DataError, match='postgresql.*nowhere'):
        load_dataset(postgres, query='SELECT * FROM nowhere')
    with pytest.raises(DataError, match='postgresql.* 0 tables'):
        load_dataset(postgres)
    engine.dispose()
