r"""Parquet and JSON Lines: labels as they are, and the line or row that is wrong."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io.tablefiles import read_json_lines, read_parquet

NONE = (None, None, None)
LABELS = ['NA', 'null', '01', '1.0', 'True', ' a ', '2020-01-01', 'é\u2028', '#', 'a\tb', 'a\nb', '"']


def rows(facts: Any) -> list[tuple[str, str, str]]:
    return list(zip(*facts.columns))


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({'head': ['a', 'b'], 'relation': ['r', 'r'], 'tail': ['b', 'c'], **columns})


def test_labels_of_json_are_kept(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    lines = [json.dumps({'head': label, 'relation': 'r', 'tail': label}) for label in LABELS]
    path.write_text('\ufeff' + '\n\n'.join(lines).replace(', ', ',\t'), encoding='utf-8')
    facts = read_json_lines(path, NONE, None)
    assert rows(facts) == [(label, 'r', label) for label in LABELS]
    assert facts.place(1, 'head') == f"{path}:3: 'head'"
    path.write_text(json.dumps(['a', 7, 'b', 'train']) + '\n')
    facts = read_json_lines(path, (2, None, 0), 3)
    assert rows(facts) == [('b', '7', 'a')] and facts.split is not None and facts.split.tolist() == ['train']


def test_keys_in_any_order_and_keys_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    path.write_text('{"s": "a", "p": "r", "o": "b"}\n{"o": "a", "x": 1, "s": "b", "p": "r"}\n')
    with pytest.warns(DataWarning, match=f"{path} has columns that are not read: 'x'"):
        assert rows(read_json_lines(path, NONE, None)) == [('a', 'r', 'b'), ('b', 'r', 'a')]
    with pytest.warns(DataWarning):
        assert rows(read_json_lines(path, ('o', None, 0), None)) == [('b', 'r', 'a'), ('a', 'r', 'b')]


GOOD = '{"head": "a", "relation": "r", "tail": "b"}\n'


@pytest.mark.parametrize(('content', 'said'), [
    (GOOD + '{"head": "a", "relation": "r"}\n', ":2: .*'tail'.*'head', 'relation'"), (GOOD + '{"head": \n', ':2: '),
    (GOOD + '3\n', ':2: .* 3'), (GOOD + '["a", "r", "b"]\n', ':2: .*object'),
    ('["a", "r", "b"]\n["a", "r"]\n', ':2: .*3'),
    (GOOD + '\n{"head": "a", "relation": null, "tail": "b"}\n', ":3: 'relation': .*missing"),
    ('{"head": 1.5, "relation": "r", "tail": "b"}\n', ":1: 'head': 1.5"),
    ('{"head": true, "relation": "r", "tail": "b"}\n', ":1: 'head': True"),
    ('{"head": "", "relation": "r", "tail": "b"}\n', ":1: 'head': ''"),
    ('{"head": ["a"], "relation": "r", "tail": "b"}\n', ":1: 'head': "),
    ('{"head": "\\ud800", "relation": "r", "tail": "b"}\n', ":1: 'head': "),
    ('{"head": "a", "head": "b", "relation": "r", "tail": "b"}\n', ":1: .*'head' .*twice"),
    ('{"name": "a", "relation": "r", "tail": "b"}\n', ":1: .*head.*'name'"), ('', 'no facts'), ('\n \n', 'no facts'),
    ('["a", "b"]\n', ':1'), ('[]\n', ':1'), ('{}\n', ':1'), ('[' * 100_000, ':1: '),
])
def test_damaged_json(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / 'a.jsonl').write_text(content)
    with pytest.raises(DataError, match=f'{tmp_path}/a.jsonl.*{said}'):
        read_json_lines(tmp_path / 'a.jsonl', NONE, None)


def test_types_of_parquet(tmp_path: Path) -> None:
    pytest.importorskip('pyarrow')
    path = tmp_path / 'a.parquet'
    table(head=pd.Categorical(['NA', '01']), relation=[7, 8], note=[{'x': 1}, {'x': 2}]).to_parquet(path)
    with pytest.warns(DataWarning, match="'note'"):
        facts = read_parquet(path, NONE, None)
    assert rows(facts) == [('NA', '7', 'b'), ('01', '8', 'c')]
    assert facts.place(1, 'tail') == f"{path}: column 'tail', row 1"


@pytest.mark.parametrize(('columns', 'said'), [
    ({'tail': [1.5, 2.0]}, "'tail' .*double"), ({'tail': ['a', None]}, "'tail', row 1: .*missing"),
    ({'head': ['a', '']}, "'head', row 1: ''"), ({'relation': pd.array([1, None], dtype='Int64')}, "'relation', row 1"),
    ({'tail': [['a'], ['b']]}, "'tail' .*list"), ({'tail': pd.to_datetime(['2020-01-01'] * 2)}, "'tail' .*timestamp"),
])
def test_bad_values_of_parquet(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    pytest.importorskip('pyarrow')
    table(**columns).to_parquet(tmp_path / 'a.parquet')
    with pytest.raises(DataError, match=f'{tmp_path}/a.parquet: column {said}'):
        read_parquet(tmp_path / 'a.parquet', NONE, None)


def test_damaged_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip('pyarrow')
    path = tmp_path / 'a.parquet'
    table().to_parquet(path)
    content = path.read_bytes()
    middle = bytearray(content)
    middle[4:40] = b'\xff' * 36
    for damaged in (content[:-7], content[:20], b'PAR1', bytes(middle)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f'{path}: '):
            read_parquet(path, NONE, None)
    table().iloc[:0].to_parquet(path)
    with pytest.raises(DataError, match=f'{path} has no rows'):
        read_parquet(path, (0, 1, 2), None)
    twice = pyarrow.table([['a'], ['r'], ['b']], names=['x', 'y', 'x'])
    pytest.importorskip('pyarrow.parquet').write_table(twice, path)
    with pytest.raises(DataError, match=f"{path}: .*'x'"):
        read_parquet(path, (0, 1, 2), None)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match=r'a.parquet.*pip install pyarrow.*pyg_emu\[export\]'):
        read_parquet(tmp_path / 'a.parquet', NONE, None)
