r"""Folders, files and tables become graphs, and graphs become folders and tables, with the labels they had."""
from __future__ import annotations

import gzip
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
from pyg_emu.data.io.tables import from_dataframe, from_file, from_folder, to_dataframe, to_folder

TRAIN = 'b\tlikes\ta\nc\tknows\ta\n'
SPLITS = ('train', 'valid', 'test')
# Whatever a line of a tab-separated file can hold.
LABELS = st.text(st.characters(exclude_characters='\t\r\n\0', exclude_categories=['Cs']), min_size=1, max_size=8)
LABELS |= st.sampled_from(['NA', 'nan', '01', '1', '"', '""', "'", '#', ' ', ' x ', '\\', '\\n', '\ufeff', 'é'])
FACTS = st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=8)


def write(folder: Path, train: str = TRAIN, valid: str = 'a\tlikes\tc\n', test: str = 'a\tknows\tb\n') -> Path:
    folder.mkdir(exist_ok=True)
    for split, content in zip(SPLITS, (train, valid, test)):
        (folder / f'{split}.txt').write_text(content, encoding='utf-8')
    return folder


def labelled(data: KGData, split: str) -> list[tuple[str, str, str]]:
    entities, relations = data.entity_labels, data.relation_labels
    return [(entities[h], relations[r], entities[t]) for h, r, t in data.facts(split).tolist()]


def test_a_folder_becomes_a_graph(tmp_path: Path) -> None:
    data = from_folder(write(tmp_path))
    assert data.entity_labels == ['a', 'b', 'c'] and data.relation_labels == ['knows', 'likes']
    assert (data.num_nodes, data.num_relations) == (3, 2)
    assert data.edge_index.tolist() == [[1, 2], [0, 0]] and data.edge_type.tolist() == [1, 0]
    assert data.valid_edge_index.tolist() == [[0], [2]] and data.valid_edge_type.tolist() == [1]
    assert data.test_edge_index.tolist() == [[0], [1]] and data.test_edge_type.tolist() == [0]
    assert data.edge_index.dtype == data.edge_type.dtype == torch.int64 and data.edge_index.is_contiguous()


def test_ids_do_not_depend_on_the_order_of_lines_or_files(tmp_path: Path) -> None:
    first = from_folder(write(tmp_path / 'one'))
    lines = TRAIN.splitlines(keepends=True)
    second = from_folder(write(tmp_path / 'two', ''.join(reversed(lines)), 'a\tknows\tb\n', 'a\tlikes\tc\n'))
    assert (first.entity_labels, first.relation_labels) == (second.entity_labels, second.relation_labels)
    assert second.edge_index.tolist() == first.edge_index.flip(1).tolist()
    assert torch.equal(second.valid_edge_index, first.test_edge_index)


def test_options_reach_the_reader(tmp_path: Path) -> None:
    for name in ('train.txt', 'val.txt', 'test.txt'):
        (tmp_path / name).write_text('h;r;t\n% no fact\na;likes;b\n')
    with pytest.warns(DataWarning, match='training facts too'):
        data = from_folder(tmp_path, delimiter=';', header=True, comment='%')
    assert labelled(data, 'train') == labelled(data, 'valid') == [('a', 'likes', 'b')]


def test_empty_and_missing_splits(tmp_path: Path) -> None:
    write(tmp_path, valid='\n')
    with pytest.raises(DataError, match=r"valid\.txt: the split 'valid' has no facts"):
        from_folder(tmp_path)
    assert from_folder(tmp_path, require_splits=('test',)).num_facts('valid') == 0
    (tmp_path / 'valid.txt').unlink()
    with pytest.raises(DataError, match=r"no file for the split 'valid'.*require_splits=\('train', 'test'\)"):
        from_folder(tmp_path)
    data = from_folder(tmp_path, require_splits=('train', 'test'))
    assert [data.num_facts(split) for split in SPLITS] == [2, 0, 1]
    write(tmp_path, train='')
    with pytest.raises(DataError, match=r"train\.txt: the split 'train' has no facts"):
        from_folder(tmp_path, require_splits=())


def test_suspicious_facts_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match='1 of the 3 train facts are duplicates'):
        from_folder(write(tmp_path, TRAIN + 'b\tlikes\ta\n'))


def test_an_inference_graph_shares_relations(tmp_path: Path) -> None:
    data = from_folder(write(tmp_path / 'one'))
    with pytest.warns(DataWarning, match='1 of the 2 relations have no training fact'):
        other = from_folder(write(tmp_path / 'two', 'y\tlikes\tx\n', 'x\tlikes\ty\n', 'x\tlikes\tx\n'), vocabulary=data)
    assert other.relation_labels == data.relation_labels and other.num_relations == 2
    assert other.entity_labels == ['x', 'y'] and labelled(other, 'train') == [('y', 'likes', 'x')]
    write(tmp_path / 'two', 'y\tlikes\tx\n', 'x\tlikes\ty\nx\tlike\ty\n')
    with pytest.raises(DataError, match=r"valid\.txt:2: the relation 'like' is not one of the 2 .*nearest: 'likes'"):
        from_folder(tmp_path / 'two', vocabulary=data)
    with pytest.raises(DataError, match=r"column 'relation', row 7: the relation 'like' is not one"):
        columns = {'head': ['a', 'a'], 'relation': ['likes', 'like'], 'tail': ['b', 'b']}
        from_dataframe(pd.DataFrame(columns, index=[4, 7]), vocabulary=data)
    data.relation_labels = None
    with pytest.raises(ArgumentError, match='vocabulary must be a graph with relation labels'):
        from_folder(tmp_path / 'one', vocabulary=data)


def test_a_file_is_split(tmp_path: Path) -> None:
    path = tmp_path / 'facts.tsv.gz'
    facts = [(f'e{head}', 'r', f'e{tail}') for head in range(10) for tail in range(10)]
    path.write_bytes(gzip.compress('\n'.join(map('\t'.join, facts)).encode()))
    data = from_file(path)
    assert [data.num_facts(split) for split in SPLITS] == [80, 10, 10]
    assert sorted(fact for split in SPLITS for fact in labelled(data, split)) == sorted(facts)
    assert torch.equal(from_file(path, seed=0).edge_index, data.edge_index)
    assert from_file(path, (0.5, 0.2, 0.3), seed=3).num_facts('test') == 30
    (tmp_path / 'empty.txt').touch()
    with pytest.raises(DataError, match=r'empty\.txt: the file has no facts'):
        from_file(tmp_path / 'empty.txt')


# DataFrames ##################################################################

def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({'head': ['a', 'b', 'c'], 'relation': 'r', 'tail': ['b', 'c', 'a'], **columns})


def test_splits_that_are_not_read_are_named() -> None:
    given = table(split=['train', 'dev', 'test'])
    with pytest.warns(DataWarning, match="column 'split', which is not read.*pass split='split'"):
        from_dataframe(given)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message="the table has a column 'split'")
        from_dataframe(given, split='split')
        from_dataframe(table(split=['here', 'there', 'test']))


def test_a_table_is_split_or_says_how() -> None:
    square = pd.DataFrame([(f'{h}', 'r', f'{t}') for h in range(10) for t in range(10)], columns=['s', 'p', 'o'])
    data = from_dataframe(square, (0.5, 0.25, 0.25), seed=5, head='s', relation='p', tail='o')
    assert [data.num_facts(split) for split in SPLITS] == [50, 25, 25]
    assert data.report()['test_unseen_entities'] == data.report()['valid_unseen_entities'] == 0
    with pytest.warns(DataWarning, match='unseen|no training fact'):
        data = from_dataframe(table(part=['train', 'dev', 'test']), split='part')
    assert [labelled(data, split) for split in SPLITS] == [[('a', 'r', 'b')], [('b', 'r', 'c')], [('c', 'r', 'a')]]


@pytest.mark.parametrize('dtype', [object, 'str', 'string', 'category'])
def test_labels_of_any_text_dtype(dtype: Any) -> None:
    data = from_dataframe(table().astype(dtype), (1.0, 0.0, 0.0))
    assert data.entity_labels == ['a', 'b', 'c'] and all(type(label) is str for label in data.entity_labels)


def test_integers_become_labels() -> None:
    data = from_dataframe(table(head=[3, 1, 2], tail=[1, 2, 3]), (1.0, 0.0, 0.0))
    assert labelled(data, 'train') == [('3', 'r', '1'), ('1', 'r', '2'), ('2', 'r', '3')]


@pytest.mark.parametrize(('columns', 'said'), [
    ({'head': ['a', None, 'c']}, "column 'head', row 1: the label is missing"),
    ({'tail': ['a', 'b', '']}, "column 'tail', row 2: '' is not a label"),
    ({'tail': ['a', np.nan, 'b']}, "column 'tail', row 1: the label is missing"),
    ({'tail': ['a', 'b\0c', 'b']}, "column 'tail', row 1: 'b\\x00c' is not a label"),
    ({'tail': ['a', 'b', '\udfff']}, "column 'tail', row 2: '\\udfff' is not a label"),
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
    with pytest.raises(DataError, match="no column 'relation' .*'rel'.*pass head="):
        from_dataframe(table().rename(columns={'relation': 'rel'}))
    with pytest.raises(DataError, match='the table has no rows'):
        from_dataframe(table().iloc[:0])
    with pytest.raises(DataError, match="more than one column 'tail'"):
        from_dataframe(pd.concat([table(), table()[['tail']]], axis=1))
    with pytest.raises(DataError, match="column 'part', row 1: 'tset' is not a split"):
        from_dataframe(table(part=['train', 'tset', 'test']), split='part')
    with pytest.raises(DataError, match="column 'part' assigns no fact to 'train'"):
        from_dataframe(table(part='test'), split='part')
    with pytest.raises(ArgumentError, match='fractions and split exclude each other'):
        from_dataframe(table(part='train'), (1, 0, 0), split='part')
    with pytest.raises(ArgumentError, match='fractions must'):
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
    for back in (from_folder(to_folder(data, tmp_path_factory.mktemp('back'))),
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


@pytest.mark.parametrize('label', ['a\tb', 'a\nb', 'a\rb', 'a\0b', '', '\ud800'])
def test_unwritable_labels(tmp_path: Path, label: str) -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), entity_labels=['a', label], relation_labels=['r'])
    with pytest.raises(DataError, match='cannot be written|not valid Unicode'):
        to_folder(data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folders_and_ambiguous_labels(tmp_path: Path) -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]))
    (tmp_path / 'file').touch()
    with pytest.raises(DataError, match='file/folder: cannot be written'):
        to_folder(data, tmp_path / 'file' / 'folder')
    data.entity_labels = ['same', 'same']
    with pytest.raises(DataError, match="two entities have the label 'same'"):
        to_dataframe(data)
