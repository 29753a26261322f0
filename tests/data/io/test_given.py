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
from pyg_emu.data.io.files import to_folder
from pyg_emu.data.io.given import false_facts_of, given_facts, known_facts_of

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


@pytest.mark.parametrize('name', ['label', 'Label', ' LABEL '])
def test_every_spelling_of_the_label(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame(ROWS, columns=['head', 'relation', 'tail']).assign(**{name: [1, 0]})
    frame.to_csv(tmp_path / 'a.csv', index=False)
    frame.to_json(tmp_path / 'a.jsonl', orient='records', lines=True)
    for value in (frame, tmp_path / 'a.csv', tmp_path / 'a.jsonl'):
        found = given_facts('facts', value, DATA)
        assert found.truth is not None and found.truth.tolist() == [True, False]
    twice = frame.set_axis(['head', 'relation', 'tail', name], axis=1).assign(LABEL=1, label=0)
    twice.to_csv(tmp_path / 'a.csv', index=False)
    for value in (twice, tmp_path / 'a.csv'):
        with pytest.raises(DataError, match="'label'.*[23]"):
            given_facts('facts', value, DATA)


def test_facts_that_are_said_to_be_true_or_false(tmp_path: Path) -> None:
    rows = [('eve', 'likes', 'ann', 1), (*ROWS[0], 1), (*ROWS[1], 0)]
    frame = pd.DataFrame(rows, columns=['head', 'relation', 'tail', 'label'], index=[5, 6, 7])
    for name, options in (('bare.tsv', {'sep': '\t', 'header': False}), ('named.csv', {})):
        frame.to_csv(tmp_path / name, index=False, **options)
    frame.to_json(tmp_path / 'a.jsonl', orient='records', lines=True)
    for value, place in ((frame, 'row 7'), (tmp_path / 'bare.tsv', 'bare.tsv:3'), (tmp_path / 'named.csv', 'csv:4'),
                         (tmp_path / 'a.jsonl', 'jsonl: row 3')):
        # Facts that are left out do not shift the place.
        with pytest.warns(DataWarning, match="'eve'"), pytest.raises(DataError, match=f'{place}: .*known_facts'):
            known_facts_of(value, DATA)
    with pytest.raises(DataError, match='row 6: .*negatives'):
        false_facts_of(frame[1:], DATA)
    known, false = known_facts_of(frame[1:2], DATA), false_facts_of(frame[2:], DATA)
    assert known is not None and known.tolist() == IDS[:1] and false.tolist() == IDS[1:]
    assert known_facts_of(None, DATA) is None


def test_weights_are_no_labels(tmp_path: Path) -> None:
    weighted = KGData(*EDGES, entity_labels=DATA.entity_labels, relation_labels=DATA.relation_labels,
                      edge_weight=torch.tensor([1.0, 0.5]))
    path = to_folder(weighted, tmp_path) / 'train.txt'
    with pytest.raises(DataError, match=r"train\.txt:2: .*'0\.5'.*head, relation, tail, weight"):
        known_facts_of(path, DATA)
    # As the message says.
    path.write_text('head\trelation\ttail\tweight\n' + path.read_text())
    with pytest.warns(DataWarning, match="'weight'"):
        known = known_facts_of(path, DATA)
    assert known is not None and known.tolist() == DATA.facts('train').tolist()


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
