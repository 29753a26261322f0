from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.given import given_facts

EDGES = torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 1])
DATA = KGData(*EDGES, entity_labels=['ann', 'bob', 'cat'], relation_labels=['knows', 'likes'])
BARE = KGData(*EDGES, 3, 2)
ROWS = [('bob', 'likes', 'ann'), ('cat', 'knows', 'cat')]
IDS = [[1, 1, 0], [2, 0, 2]]


def test_every_source(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=['subject', 'predicate', 'object'])
    for name, content in (('a.tsv', 'bob\tlikes\tann\ncat\tknows\tcat\n'), ('b.csv', 'bob,likes,ann\ncat,knows,cat\n'),
                          ('c.csv', 'tail,head,relation,label\nann,bob,likes,1\ncat,cat,knows,0\n'),
                          ('d.txt', 'bob\tlikes\tann\t1\ncat\tknows\tcat\t-1\n'),
                          ('e.csv', ',head,relation,tail,label\n0,bob,likes,ann,1\n1,cat,knows,cat,0\n')):
        (tmp_path / name).write_text(content)
        found = given_facts('facts', tmp_path / name, DATA)
        assert found.facts.tolist() == IDS and found.facts.dtype == torch.int64
        assert (found.truth is None) == (name in ('a.tsv', 'b.csv'))
        assert found.truth is None or found.truth.tolist() == [True, False]
    for truth in ([True, False], [1, 0], [1, -1], [1.0, 0.0], ['true', 'No'], np.array([True, False])):
        found = given_facts('facts', frame.assign(label=truth), DATA)
        assert found.facts.tolist() == IDS and found.truth is not None and found.truth.tolist() == [True, False]
    assert given_facts('facts', torch.tensor(IDS, dtype=torch.int32), DATA).facts.tolist() == IDS
    numbers = pd.DataFrame(IDS, columns=['head', 'relation', 'tail'])
    assert given_facts('facts', numbers, BARE).facts.tolist() == IDS
    assert given_facts('facts', frame[:0], DATA).facts.shape == (0, 3)


def test_first_lines(tmp_path: Path) -> None:
    path = tmp_path / 'facts.tsv'
    # The names of columns need no option, which callers could not give, and no warning.
    path.write_text('object\tsubject\tpredicate\nann\tbob\tlikes\ncat\tcat\tknows\n')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert given_facts('facts', path, DATA).facts.tolist() == IDS
        # A first line of labels of the graph is a fact.
        data = KGData(*EDGES, entity_labels=['source', 'target', 'cat'], relation_labels=['link', 'likes'])
        path.write_text('source\tlink\ttarget\ncat\tlikes\tcat\n')
        assert given_facts('facts', path, data).facts.shape == (2, 3)
    path.write_text('head\trelation\ttail\ttrust\nbob\tlikes\tann\t0.5\n')
    with pytest.warns(DataWarning, match="not read: 'trust'"):
        assert given_facts('facts', path, DATA).facts.tolist() == IDS[:1]
    path.write_text('subject\tpredicate\tobject\nann\tknow\tbob\n')
    with pytest.raises(DataError, match="facts.tsv:2: .*'know'"):
        given_facts('facts', path, DATA)


def test_tables_of_pandas_and_columns_beside_the_facts(tmp_path: Path) -> None:
    for content in (',head,relation,tail\n0,bob,likes,ann\n1,cat,knows,cat\n',
                    'head,relation,tail,w\nbob,likes,ann,0.5\ncat,knows,cat,0.7\n'):
        (tmp_path / 'a.csv').write_text(content)
        with pytest.warns(DataWarning, match='not read'):
            found = given_facts('facts', tmp_path / 'a.csv', DATA)
        assert found.facts.tolist() == IDS and found.truth is None


def test_files_in_other_formats(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=['subject', 'predicate', 'object'])
    for truth in (None, [True, False]):
        table = frame if truth is None else frame.assign(label=truth)
        pytest.importorskip('pyarrow')
        table.to_parquet(tmp_path / 'a.parquet')
        table.to_json(tmp_path / 'a.jsonl', orient='records', lines=True)
        for name in ('a.parquet', 'a.jsonl'):
            found = given_facts('facts', tmp_path / name, DATA)
            assert found.facts.tolist() == IDS and (found.truth is None) == (truth is None)
            assert found.truth is None or found.truth.tolist() == truth
    with (tmp_path / 'a.jsonl').open('a') as file:
        file.write('{"subject": "eve", "predicate": "likes", "object": "ann", "label": 1}\n')
    with pytest.raises(DataError, match=f"{tmp_path}/a.jsonl: row 3: .*'eve'"):
        given_facts('facts', tmp_path / 'a.jsonl', DATA)
    pytest.importorskip('pyoxigraph')
    data = KGData(*EDGES, entity_labels=['x:ann', 'x:bob', 'x:cat'], relation_labels=['x:knows', 'x:likes'])
    (tmp_path / 'a.nt').write_text('<x:bob> <x:likes> <x:ann> .\n<x:eve> <x:likes> <x:ann> .\n')
    with pytest.raises(DataError, match=r"a\.nt:2: .*'x:eve'"):
        given_facts('facts', tmp_path / 'a.nt', data)
    with pytest.warns(DataWarning):
        assert given_facts('facts', tmp_path / 'a.nt', data, 'leave out').facts.tolist() == IDS[:1]


def test_facts_of_others_are_left_out_on_request() -> None:
    frame = pd.DataFrame([('eve', 'likes', 'ann'), *ROWS, ('ann', 'sees', 'ann')], columns=['head', 'relation', 'tail'])
    with pytest.warns(DataWarning, match="facts: 2 of 4 .*head 'eve'.*row 0"):
        assert given_facts('facts', frame, DATA, 'leave out').facts.tolist() == IDS


@pytest.mark.parametrize('value, error, facts', [
    (torch.zeros(3, dtype=torch.int64), ArgumentError, ['(F, 3)', '(3,)']),
    (torch.zeros(2, 3), ArgumentError, ['float32']),
    (torch.tensor([[0, 2, 0]]), ArgumentError, ['2', 'relations']),
    (torch.tensor([[0, 0, 0], [3, 0, 0]]), ArgumentError, ['3', 'entities', 'position 1']),
    (pd.DataFrame({'head': ['ann'], 'tail': ['bob']}), DataError, ['relation']),
    (pd.DataFrame([('ann', 'know', 'bob')], columns=['head', 'relation', 'tail'], index=[7]), DataError,
     ['row 7', "'know'", "'knows'"]),
    (pd.DataFrame([('ann', 'knows', 'bob', 2)], columns=['head', 'relation', 'tail', 'label']), DataError,
     ['row 0', '2']),
    (pd.DataFrame([('ann', None, 'bob')], columns=['head', 'relation', 'tail']), DataError, ['row 0', 'missing']),
    ('missing.tsv', DataError, ['missing.tsv']),
    ('', ArgumentError, ["''"]),
    ([[0, 0, 0]], ArgumentError, ['[0, 0, 0]']),
])
def test_bad_sources(value: Any, error: type[Exception], facts: list[str]) -> None:
    with pytest.raises(error) as caught:
        given_facts('these', value, DATA)
    assert all(fact in str(caught.value) for fact in facts), caught.value


@pytest.mark.parametrize('content, told', [
    ('ann\tknows\tbob\nann\tknows\teve\n', ":2: .*'eve'"), ('ann\tknows\tbob\t1\nann\tknows\tcat\tx\n', ":2: .*'x'"),
    ('ann\tknows\n', ':1: '),
])
def test_bad_lines(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / 'facts.tsv').write_text(content)
    with pytest.raises(DataError, match=f'facts.tsv{told}'):
        given_facts('these', str(tmp_path / 'facts.tsv'), DATA)
