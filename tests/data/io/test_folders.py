r"""Splits are found under their usual names, and other files with facts do not go unnoticed."""
from __future__ import annotations

import gzip
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io.folders import find_splits, named_files, warn_of_unread_facts
from pyg_emu.data.io.formats import TextFormat


def test_splits_are_found_under_their_usual_names(tmp_path: Path) -> None:
    for name in ('train.tsv.gz', 'dev.txt', 'test.csv', 'train.md', 'entities.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'train.txt').mkdir()
    found = find_splits(tmp_path, ('train', 'valid', 'test'))
    assert {split: path.name for split, path in found.items()} == {'train': 'train.tsv.gz', 'valid': 'dev.txt',
                                                                  'test': 'test.csv'}
    (tmp_path / 'valid.txt').touch()
    with pytest.raises(DataError, match=r"'valid' .*dev\.txt, valid\.txt"):
        find_splits(tmp_path, ())


def test_missing_splits_are_named(tmp_path: Path) -> None:
    every = ('train', 'valid', 'test')
    with pytest.raises(DataError, match='nowhere'):
        find_splits(tmp_path / 'nowhere', every)
    with pytest.raises(DataError, match=r"'train' and 'valid' and 'test' .*none"):
        find_splits(tmp_path, every)
    (tmp_path / 'train.txt').touch()
    with pytest.raises(DataError, match=r"'valid' and 'test' .*train\.txt.*require_splits=\('train',\)"):
        find_splits(tmp_path, every)
    assert list(find_splits(tmp_path, ())) == ['train']
    (tmp_path / 'test.txt').touch()
    with pytest.raises(DataError, match=r"'valid' .*valid\.txt .*require_splits=\('train', 'test'\)"):
        find_splits(tmp_path, every)
    (tmp_path / 'train.txt').unlink()
    with pytest.raises(DataError, match="'train'") as caught:
        find_splits(tmp_path, ())
    assert 'require_splits' not in str(caught.value)  # training facts cannot be done without
    for wrong in ('train', ['training'], False, [['train']]):
        with pytest.raises(ArgumentError, match='require_splits.*train'):
            find_splits(tmp_path, wrong)  # type: ignore[arg-type]


def test_unreadable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'iterdir', refuse)
    with pytest.raises(DataError, match=f'{tmp_path}.*Permission denied'):
        find_splits(tmp_path, ())


@pytest.mark.parametrize(('name', 'content'), [
    ('facts.txt', b'a\tr\tb\n'), ('facts.txt.gz', gzip.compress(b'a\tr\tb\n', mtime=0)), ('graph.csv', b'a,r,"b,c"\n'),
    ('support.tsv', b'\xef\xbb\xbf\r\na\tr\tb\r\nb\tr\tc'), ('facts', b'a\tr\tb'),
    ('table.csv', b',head,relation,tail\n0,a,r,b\n'), ('types.nt', b''), ('types.txt', b'<x:a> <x:r> <x:b> .\n'),
    ('types.tsv', b'<x:a>\t<x:r>\t<x:b> .\n'), ('more.jsonl', b'{"o": "a", "s": "b", "p": "r", "year": 1999}\n'),
    ('more.json', b'["a", "r", 3]\n'), ('more.txt', b'{"head": "a", "relation": "r", "tail": "b"}\n'),
    ('more.jsonl.gz', gzip.compress(b'["a", "r", "b"]\n', mtime=0)),
])
def test_unread_files_with_facts_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / 'train.txt').write_bytes(b'a\tr\tb\n')
    (tmp_path / name).write_bytes(content)
    read = [tmp_path / 'train.txt']
    with pytest.warns(DataWarning, match=f"{name}.*extra_files=.'{name}'"):
        warn_of_unread_facts(tmp_path, read, TextFormat())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_unread_facts(tmp_path, [*read, *named_files(tmp_path, [name])], TextFormat())


def test_unread_parquet_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('pyarrow')
    facts = pd.DataFrame({'year': [1999], 'source': ['a'], 'verb': ['r'], 'target': ['b']})
    facts.to_parquet(tmp_path / 'facts.parquet')
    facts[['source', 'year']].to_parquet(tmp_path / 'entities.parquet')
    facts.set_axis(['year', 'a', 'b', 'c'], axis=1).to_parquet(tmp_path / 'others.pq')
    with pytest.warns(DataWarning, match=r"extra_files=\['facts.parquet'\]"):
        warn_of_unread_facts(tmp_path, [], TextFormat())
    with pytest.warns(DataWarning, match=r"extra_files=\['others.pq'\]"):
        warn_of_unread_facts(tmp_path, [tmp_path / 'facts.parquet'], TextFormat(head='a', relation='b', tail='c'))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.warns(DataWarning, match='entities.parquet, facts.parquet, others.pq'):
        warn_of_unread_facts(tmp_path, [], TextFormat())


def test_other_files_are_no_facts(tmp_path: Path) -> None:
    for name, content in (('entities.txt', b'0\ta\n'), ('README.md', b'a\tb\tc\n'), ('empty.txt', b''),
                          ('.hidden.txt', b'a\tr\tb\n'), ('image.txt', b'\xff\xfe\0'), ('bad.txt.gz', b'a\tr\tb\n'),
                          ('wide.txt', b'a\tb\tc\td\n'), ('three.txt', b'a\tb\tc\na\tb\n'),
                          ('ids.json', b'{"a": 0, "b": 1}\n'), ('run.json', b'{\n "head": 1\n}\n'), ('no.jsonl', b''),
                          ('lists.jsonl', b'["a", ["r"], "b"]\n'), ('wide.jsonl', b'["a", "b", "c", "d"]\n'),
                          ('list.json', b'[["a", "r", "b"]]'), ('bad.parquet', b'PAR1\0'), ('none.parquet', b''),
                          ('kg.db', b'SQLite format 3\0')):
        (tmp_path / name).write_bytes(content)
    (tmp_path / 'folder.txt').mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_unread_facts(tmp_path, [], TextFormat())


def test_files_are_named_by_their_names(tmp_path: Path) -> None:
    (tmp_path / 'facts.txt').touch()
    assert named_files(tmp_path, ['facts.txt']) == [tmp_path / 'facts.txt']
    with pytest.raises(DataError, match="'fact.txt'.*facts.txt"):
        named_files(tmp_path, ['fact.txt'])
    for wrong in ('facts.txt', 3, [3]):
        with pytest.raises(ArgumentError, match='extra_files'):
            named_files(tmp_path, wrong)
