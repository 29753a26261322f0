r"""Tables become graphs, and graphs become tables, with the labels they had."""
from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.files import from_folder, to_folder
from pyg_emu.data.io.tables import from_dataframe, to_dataframe

SPLITS = ('train', 'valid', 'test')
# Whatever a line of a tab-separated file can hold.
LABELS = st.text(st.characters(exclude_characters='\t\r\n\0', exclude_categories=['Cs']), min_size=1, max_size=8)
LABELS |= st.sampled_from(['NA', 'nan', '01', '1', '"', '""', "'", '#', ' ', ' x ', '\\', '\\n', '\ufeff', 'é'])
FACTS = st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=8)


def labelled(data: KGData, split: str) -> list[tuple[str, str, str]]:
    entities, relations = data.entity_labels, data.relation_labels
    return [(entities[h], relations[r], entities[t]) for h, r, t in data.facts(split).tolist()]


# DataFrames ##################################################################

def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({'head': ['a', 'b', 'c'], 'relation': 'r', 'tail': ['b', 'c', 'a'], **columns})


def test_splits_that_are_not_read_are_named() -> None:
    given = table(split=['train', 'dev', 'test'])
    with pytest.warns(DataWarning, match="'split'.*split='split'"):
        from_dataframe(given)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message=".*'split'")
        from_dataframe(given, split='split')
    with pytest.warns(DataWarning, match="not read: 'split', 'weight'"):
        from_dataframe(table(split=['here', 'there', 'test'], weight=1.0))


@pytest.mark.parametrize('names', [('subject', 'predicate', 'object'), ('Source', 'Relation', 'TARGET'),
                                   ('h', 'r', 't'), ('from', 'edge_type', 'to'), ('head_id', 'rel', 'tail_id')])
def test_columns_are_found_by_name(names: tuple[str, str, str]) -> None:
    given = table().rename(columns=dict(zip(('head', 'relation', 'tail'), names)))
    for order in ([0, 1, 2], [2, 0, 1]):
        data = from_dataframe(given.iloc[:, order], (1, 0, 0))
        assert labelled(data, 'train') == [('a', 'r', 'b'), ('b', 'r', 'c'), ('c', 'r', 'a')]


def test_columns_are_chosen_by_name_or_position() -> None:
    given = pd.DataFrame([('b', 'a', 'r'), ('a', 'b', 's')])
    for columns in (given, given.rename(columns={0: 'x', 1: 'y', 2: 'z'})):
        data = from_dataframe(columns, (1, 0, 0), head=1, relation=2, tail=0)
        assert labelled(data, 'train') == [('a', 'r', 'b'), ('b', 's', 'a')]
    with pytest.raises(DataError, match=r'head=.*relation=.*tail='):
        from_dataframe(given)
    with pytest.raises(DataError, match="'nowhere'"):
        from_dataframe(table(), head='nowhere')
    with pytest.raises(ArgumentError, match=r'relation: .*1\.5'):
        from_dataframe(table(), relation=1.5)  # type: ignore[arg-type]


def test_a_table_is_split_or_says_how() -> None:
    square = pd.DataFrame([(f'{h}', 'r', f'{t}') for h in range(10) for t in range(10)], columns=['s', 'p', 'o'])
    data = from_dataframe(square, (0.5, 0.25, 0.25), seed=5, head='s', relation='p', tail='o')
    assert [data.num_facts(split) for split in SPLITS] == [50, 25, 25]
    assert data.report()['test_unseen_entities'] == data.report()['valid_unseen_entities'] == 0
    with pytest.warns(DataWarning, match='1 entity|2 entities'):
        data = from_dataframe(table(part=['train', 'dev', 'test']), split='part')
    assert [labelled(data, split) for split in SPLITS] == [[('a', 'r', 'b')], [('b', 'r', 'c')], [('c', 'r', 'a')]]


@pytest.mark.parametrize('dtype', [object, 'str', 'string', 'category'])
def test_labels_of_any_text_dtype(dtype: Any) -> None:
    data = from_dataframe(table().astype(dtype), (1.0, 0.0, 0.0))
    assert data.entity_labels == ['a', 'b', 'c'] and all(type(label) is str for label in data.entity_labels)


@pytest.mark.parametrize('dtype', ['int64', 'int32', 'uint8', 'uint64', 'Int64', 'Int8', object, 'category'])
def test_integers_become_labels(dtype: Any) -> None:
    given = table(head=pd.Series([10, 1, 2]).astype(dtype), tail=pd.Series([1, 2, 10]).astype(dtype),
                  relation=pd.Series([7, 5, 5]).astype(dtype))
    data = from_dataframe(given, (1.0, 0.0, 0.0))
    assert labelled(data, 'train') == [('10', '7', '1'), ('1', '5', '2'), ('2', '5', '10')]
    # An integer is a label, not a position among the sorted labels.
    labels = data.entity_labels
    assert labels is not None and [labels[data.entity_id(number)] for number in (1, 2, 10)] == ['1', '2', '10']
    assert data.relation_id(7) == data.relation_id(np.int32(7)) == 1
    assert data.has_integer_labels('entity') and data.has_integer_labels('relation')
    with pytest.raises(DataError, match="'0'.*3 entity labels.*tensor"):
        data.entity_id(0)


@pytest.mark.parametrize(('columns', 'said'), [
    ({'head': ['a', None, 'c']}, "column 'head', row 1: the label is missing"),
    ({'tail': ['a', 'b', '']}, "column 'tail', row 2: '' is not a label"),
    ({'tail': ['a', np.nan, 'b']}, "column 'tail', row 1: the label is missing"),
    ({'tail': ['a', 'b\0c', 'b']}, "column 'tail', row 1: 'b\\x00c' is not a label"),
    # As objects: with pyarrow, pandas makes strings of a list itself, and fails.
    ({'tail': pd.Series(['a', 'b', '\udfff'], dtype=object)}, "column 'tail', row 2: '\\udfff' is not a label"),
    ({'tail': ['a', 2, 'b']}, "column 'tail', row 1: 2 is not a label"),
    ({'relation': [0.5, 1.0, 2.0]}, "column 'relation', row 0: 0.5 is not a label"),
    ({'relation': ['r', pd.NA, 'r']}, "column 'relation', row 1: the label is missing"),
    ({'head': pd.array([1, None, 2], dtype='Int64')}, "column 'head', row 1: the label is missing"),
])
def test_bad_labels_are_located(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        from_dataframe(table(**columns))
    assert str(caught.value).startswith(said)


def test_bad_tables() -> None:
    with pytest.raises(DataError, match="as relation.*'what'.*relation="):
        from_dataframe(table().rename(columns={'relation': 'what'}))
    with pytest.raises(DataError, match='no rows'):
        from_dataframe(table().iloc[:0])
    with pytest.raises(DataError, match='2 columns .*tail'):
        from_dataframe(pd.concat([table(), table()[['tail']]], axis=1))
    with pytest.raises(DataError, match="'nowhere'"):
        from_dataframe(table(part='train'), split='nowhere')
    with pytest.raises(DataError, match="column 'part', row 1: 'tset'"):
        from_dataframe(table(part=['train', 'tset', 'test']), split='part')
    with pytest.raises(DataError, match="column 'part'.*'train'"):
        from_dataframe(table(part='test'), split='part')
    with pytest.raises(ArgumentError, match='fractions, split'):
        from_dataframe(table(part='train'), (1, 0, 0), split='part')
    with pytest.raises(ArgumentError, match=re.escape('(0.5, 0.5)')):
        from_dataframe(table(), (0.5, 0.5))


# And back ####################################################################

@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
@settings(max_examples=50)
@given(FACTS, FACTS, FACTS)
def test_labels_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, train: list, valid: list,
                                     test: list) -> None:
    rows = [(*fact, split) for split, facts in zip(SPLITS, (train, valid, test)) for fact in facts]
    data = from_dataframe(pd.DataFrame(rows, columns=['head', 'relation', 'tail', 'split']), split='split')
    assert [(*fact, split) for split in SPLITS for fact in labelled(data, split)] == rows
    for back in (from_folder(to_folder(data, tmp_path_factory.mktemp('back')), header=False),
                 from_dataframe(to_dataframe(data), split='split')):
        assert (back.entity_labels, back.relation_labels) == (data.entity_labels, data.relation_labels)
        assert all(torch.equal(back.facts(split), data.facts(split)) for split in SPLITS)


def test_ids_stand_in_for_labels(tmp_path: Path) -> None:
    data = KGData(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]))
    assert to_dataframe(data).values.tolist() == [['0', '0', '1', 'train'], ['1', '1', '2', 'train']]
    (tmp_path / 'test.txt').write_text('left\tfrom\tbefore\n')
    to_folder(data, tmp_path)
    # What is there afterwards is this graph, and no leftovers.
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [('train.txt', '0\t0\t1\n1\t1\t2\n')]
