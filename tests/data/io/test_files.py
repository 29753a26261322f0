r"""Folders and files become graphs, and graphs become folders, with the labels they had."""
from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io import textfiles
from pyg_emu.data.io.files import from_file, from_folder, to_folder
from pyg_emu.data.io.tables import from_dataframe, to_dataframe

TRAIN = 'b\tlikes\ta\nc\tknows\ta\n'
SPLITS = ('train', 'valid', 'test')

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
    with pytest.warns(DataWarning, match='1 of the 1'):
        data = from_folder(tmp_path, delimiter=';', header=True, comment='%')
    assert labelled(data, 'train') == labelled(data, 'valid') == [('a', 'likes', 'b')]


def test_empty_and_missing_splits(tmp_path: Path) -> None:
    write(tmp_path, valid='\n')
    with pytest.raises(DataError, match=r"valid\.txt: .*'valid'"):
        from_folder(tmp_path)
    assert from_folder(tmp_path, require_splits=('test',)).num_facts('valid') == 0
    (tmp_path / 'valid.txt').unlink()
    with pytest.raises(DataError, match=r"'valid'.*require_splits=\('train', 'test'\)"):
        from_folder(tmp_path)
    data = from_folder(tmp_path, require_splits=('train', 'test'))
    assert [data.num_facts(split) for split in SPLITS] == [2, 0, 1]
    write(tmp_path, train='')
    with pytest.raises(DataError, match=r"train\.txt: .*'train'"):
        from_folder(tmp_path, require_splits=())


def test_suspicious_facts_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match='1 of the 3 train facts'):
        from_folder(write(tmp_path, TRAIN + 'b\tlikes\ta\n'))


def test_an_inference_graph_shares_relations(tmp_path: Path) -> None:
    data = from_folder(write(tmp_path / 'one'))
    with pytest.warns(DataWarning, match='1 of the 2 relations'):
        other = from_folder(write(tmp_path / 'two', 'y\tlikes\tx\n', 'x\tlikes\ty\n', 'x\tlikes\tx\n'), vocabulary=data)
    assert other.relation_labels == data.relation_labels and other.num_relations == 2
    assert other.entity_labels == ['x', 'y'] and labelled(other, 'train') == [('y', 'likes', 'x')]
    write(tmp_path / 'two', 'y\tlikes\tx\n', 'x\tlikes\ty\nx\tlike\ty\n')
    with pytest.raises(DataError, match=r"valid\.txt:2: .*'like' .* 2 .*'likes'"):
        from_folder(tmp_path / 'two', vocabulary=data)
    with pytest.raises(DataError, match=r"column 'relation', row 7: .*'like'"):
        columns = {'head': ['a', 'a'], 'relation': ['likes', 'like'], 'tail': ['b', 'b']}
        from_dataframe(pd.DataFrame(columns, index=[4, 7]), vocabulary=data)
    data.relation_labels = None
    for wrong in (data, 'one', 3):
        with pytest.raises(ArgumentError, match='vocabulary: .*(relation_labels|str|int)'):
            from_folder(tmp_path / 'one', vocabulary=wrong)  # type: ignore[arg-type]


def test_lines_are_counted_over_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_folder(write(tmp_path / 'one'))
    monkeypatch.setattr(textfiles, 'BLOCK_BYTES', 8)
    monkeypatch.setattr(textfiles, 'CHUNK_BYTES', 8)
    train = 'y\tlikes\tx\n' * 5 + 'x\tlike\ty\n' * 2 + 'y\tlikes\tx\n' * 3
    write(tmp_path / 'two', train, 'x\tlikes\ty\n', 'x\tlikes\tx\n')
    with pytest.raises(DataError, match=r"train\.txt:6: .*'like' .* 2 .*'likes'"):
        from_folder(tmp_path / 'two', vocabulary=data)
    # A line that is no fact is the first thing to mend, also after an unknown relation.
    write(tmp_path / 'two', train + 'x\tlikes\n', 'x\tlikes\ty\n', 'x\tlikes\tx\n')
    with pytest.raises(DataError, match=r'train\.txt:11: 2 columns'):
        from_folder(tmp_path / 'two', vocabulary=data)
    with pytest.warns(DataWarning, match='duplicates'):
        found = from_folder(write(tmp_path / 'three', train, 'x\tlike\ty\n', 'x\tlikes\tx\n'))
    assert labelled(found, 'train') == [tuple(line.split('\t')) for line in train.splitlines()]


def test_labels_decide_which_row_is_whose(tmp_path: Path) -> None:
    data = from_folder(write(tmp_path / 'one'))
    # Read on its own, the second graph would number its entities and relations anew.
    second = write(tmp_path / 'two', 'c\tlikes\tb\n', 'b\tlikes\tc\n', 'b\tlikes\tb\n')
    with pytest.warns(DataWarning):
        other = from_folder(second, entities=data)
    assert (other.entity_labels, other.relation_labels) == (data.entity_labels, data.relation_labels)
    assert other.num_nodes == 3 and labelled(other, 'train') == [('c', 'likes', 'b')]
    # New entities come after the others, in their own order, and are named.
    write(tmp_path / 'two', 'c\tlikes\tbb\naa\tlikes\tc\n')
    with pytest.warns(DataWarning, match=r"2 of the 5 .* 3 .*'aa', 'bb'"):
        other = from_folder(second, entities=data)
    assert other.entity_labels == ['a', 'b', 'c', 'aa', 'bb'] and other.edge_index.tolist() == [[2, 3], [4, 2]]
    with pytest.raises(DataError, match=r"train\.txt:2: .*'like' "):
        from_folder(write(tmp_path / 'three', 'c\tlikes\tb\na\tlike\tb\n'), entities=data)
    frame = pd.DataFrame({'head': ['c'], 'relation': ['likes'], 'tail': ['b']})
    for found in (from_dataframe(frame, (1, 0, 0), entities=data),
                  from_file(second / 'test.txt', (1, 0, 0), entities=data)):
        assert (found.entity_labels, found.relation_labels) == (data.entity_labels, data.relation_labels)
    # A vocabulary may name other relations.
    wider = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), relation_labels=['likes', 'hates', 'knows'])
    assert from_dataframe(frame, (1, 0, 0), entities=data, vocabulary=wider).relation_labels == wider.relation_labels
    data.entity_labels = None
    for wrong in (data, ['a', 'b']):
        with pytest.raises(ArgumentError, match='entities: .*(entity_labels|list)'):
            from_folder(second, entities=wrong)  # type: ignore[arg-type]


def test_files_beside_the_splits(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / 'facts.txt').write_text('c\tlikes\td\nd\tlikes\tc\n')
    with pytest.warns(DataWarning, match=r'facts\.txt'):
        assert from_folder(tmp_path).num_facts('train') == 2
    data = from_folder(tmp_path, extra_files=['facts.txt'])
    assert data.num_facts('train') == 4 and data.entity_labels == ['a', 'b', 'c', 'd']


def test_headers_of_all_files_are_read(tmp_path: Path) -> None:
    write(tmp_path, 'tail\thead\trelation\na\tb\tlikes\n', 'head\ttail\trelation\nb\ta\tknows\n',
          'head\trelation\ttail\nb\tknows\tb\n')
    data = from_folder(tmp_path, header=True)
    assert [labelled(data, split) for split in SPLITS] == [[('b', 'likes', 'a')], [('b', 'knows', 'a')],
                                                          [('b', 'knows', 'b')]]


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
    with pytest.raises(DataError, match=r'empty\.txt'):
        from_file(tmp_path / 'empty.txt')


@pytest.mark.parametrize('label', ['a\tb', 'a\nb', 'a\rb', 'a\0b', '', '\ud800'])
def test_unwritable_labels(tmp_path: Path, label: str) -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), entity_labels=['a', label], relation_labels=['r'])
    with pytest.raises(DataError, match='label'):
        to_folder(data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folders_and_ambiguous_labels(tmp_path: Path) -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]))
    (tmp_path / 'file').touch()
    with pytest.raises(DataError, match='file/folder'):
        to_folder(data, tmp_path / 'file' / 'folder')
    data.entity_labels = ['same', 'same']
    with pytest.raises(DataError, match="'same'"):
        to_dataframe(data)
