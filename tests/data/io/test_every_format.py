r"""The same small graph in every format and layout is the same graph; what an option does not apply to says so."""
from __future__ import annotations

import gzip
import json
import re
import sqlite3
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import numpy as np
import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io import detection, factfiles, layouts
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.data.io.files import from_file, from_folder, options_that_apply
from pyg_emu.data.io.tables import from_dataframe

SPLITS = ('train', 'valid', 'test')
FRACTIONS = (0.6, 0.2, 0.2)
#: In the order of their ids, with labels that are IRIs, in the order of which "10" comes before "2".
FACTS = sorted((f'http://kg.org/e{head}', f'http://kg.org/r#{relation}', f'http://kg.org/e{tail}')
               for head in range(11) for relation, step in enumerate((1, 3)) for tail in ((head + step) % 11, )
               if (head, relation) != (10, 1))
SPLIT = ['test' if number % 7 == 3 else 'valid' if number % 5 == 4 else 'train' for number in range(len(FACTS))]
FRAME = pd.DataFrame(FACTS, columns=['head', 'relation', 'tail']).assign(split=SPLIT)
ENTITIES, RELATIONS = (sorted({fact[column] for fact in FACTS for column in columns}) for columns in ((0, 2), (1, )))

Rows = list[tuple[str, str, str]]


def rows_of(split: Optional[str]) -> Rows:
    return [fact for fact, name in zip(FACTS, SPLIT) if split in (None, name)]


def text(rows: Rows, delimiter: str = '\t') -> bytes:
    return ''.join(delimiter.join(row) + '\n' for row in rows).encode()


def json_lines(rows: Rows) -> bytes:
    return ''.join(json.dumps({'tail': tail, 'head': head, 'relation': relation}) + '\n'
                   for head, relation, tail in rows).encode()


def arrays(rows: Rows) -> bytes:
    return ''.join(json.dumps(row) + '\n' for row in rows).encode()


def rdf(format: str) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        ox = pytest.importorskip('pyoxigraph')
        kind = getattr(ox.RdfFormat, format)
        quads = [ox.Triple(*map(ox.NamedNode, row)) for row in rows]
        return ox.serialize(quads, format=kind, prefixes={'kg': 'http://kg.org/'})

    return write


def parquet(rows: Rows) -> bytes:
    pytest.importorskip('pyarrow')
    return pd.DataFrame(rows, columns=['s', 'p', 'o']).to_parquet()


def packed(write: Callable[[Rows], bytes]) -> Callable[[Rows], bytes]:
    return lambda rows: gzip.compress(write(rows), mtime=0)


#: The end of a name, and the content.
FILES: dict[str, Callable[[Rows], bytes]] = {
    '.tsv': text, '.txt.gz': packed(text), '.csv': lambda rows: text(rows, ','),
    '.nt': rdf('N_TRIPLES'), '.nt.gz': packed(rdf('N_TRIPLES')), '.nq': rdf('N_QUADS'), '.ttl': rdf('TURTLE'),
    '.ttl.gz': packed(rdf('TURTLE')), '.trig': rdf('TRIG'), '.rdf': rdf('RDF_XML'), '.parquet': parquet,
    '.jsonl': json_lines, '.ndjson.gz': packed(json_lines), '.json': arrays,
    # The first line decides where the name says little.
    '.txt': rdf('N_TRIPLES'), '': json_lines, '.dump': rdf('TURTLE'),
}


def same(found: KGData, expected: KGData) -> None:
    assert found.entity_labels == expected.entity_labels and found.relation_labels == expected.relation_labels
    for split in SPLITS:
        assert torch.equal(found.facts(split), expected.facts(split)), split
    assert found.num_nodes == expected.num_nodes and found.num_relations == expected.num_relations


@pytest.mark.parametrize('suffix', FILES)
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'graph{suffix}'
    path.write_bytes(FILES[suffix](FACTS))
    same(load_dataset(path, fractions=FRACTIONS, seed=3), from_dataframe(FRAME.drop(columns='split'), FRACTIONS, 3))


@pytest.mark.parametrize('suffix', [suffix for suffix in FILES if detection.plain_suffix(f'x{suffix}') in
                                    detection.SUFFIXES])
def test_folders(tmp_path: Path, suffix: str) -> None:
    for split in SPLITS:
        (tmp_path / f'{split}{suffix}').write_bytes(FILES[suffix](rows_of(split)))
    same(load_dataset(str(tmp_path)), from_dataframe(FRAME, split='split'))


@pytest.mark.parametrize('suffix', ['.parquet', '.jsonl', '.csv'])
def test_columns_of_splits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'graph{suffix}'
    table = FRAME.assign(weight=1.0)[['weight', 'split', 'tail', 'relation', 'head']]
    table = table.rename(columns={'head': 'from_here', 'tail': 'what'})
    if suffix == '.parquet':
        pytest.importorskip('pyarrow')
        table.to_parquet(path)
    elif suffix == '.csv':
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient='records', lines=True)
    expected = from_dataframe(FRAME, split='split')
    # Columns of text have no names where a header is not announced.
    header: dict[str, Any] = {'header': True} if suffix == '.csv' else {}
    with pytest.warns(DataWarning, match="not read: '?weight"):
        same(load_dataset(path, head='from_here', tail='what', split='split'), expected)
    with pytest.warns(DataWarning, match='weight'):
        same(load_dataset(path, head=4, relation=3, tail=2, split=1, **header), expected)
    if not header:
        with pytest.warns(DataWarning, match="'split'.*split='split'"):
            load_dataset(path, head=4, relation=3, tail=2, fractions=FRACTIONS)
    with pytest.raises(DataError, match=rf'{re.escape(str(path))}.* tail.*\'what\''):
        load_dataset(path, head='from_here')
    with pytest.raises(ArgumentError, match='fractions, split'):
        load_dataset(path, head=4, relation=3, tail=2, split='split', fractions=FRACTIONS)
    with pytest.raises(DataError, match="'tail'"):
        load_dataset(path, head=4, tail='tail', **header)


# Layouts of other libraries ##################################################

def _ids(rows: Rows) -> list[tuple[int, int, int]]:
    return [(ENTITIES.index(head), RELATIONS.index(relation), ENTITIES.index(tail)) for head, relation, tail in rows]


def counted(lines: list[str]) -> str:
    return f'{len(lines)}\n' + ''.join(f'{line}\n' for line in lines)


def write_openke(folder: Path, order: tuple[int, int, int] = (0, 2, 1)) -> None:
    folder.mkdir(exist_ok=True)
    for name, labels in (('entity', ENTITIES), ('relation', RELATIONS)):
        # Ids need not be in order.
        lines = [f'{label}\t{number}' for number, label in enumerate(labels)]
        (folder / f'{name}2id.txt').write_text(counted(lines[::-1]))
    for split in SPLITS:
        lines = [' '.join(str(fact[column]) for column in order) for fact in _ids(rows_of(split))]
        (folder / f'{split}2id.txt').write_text(counted(lines))


def write_ogb(folder: Path) -> None:
    (folder / 'split' / 'time').mkdir(parents=True)
    (folder / 'mapping').mkdir()
    for split in SPLITS:
        columns = dict(zip(('head', 'relation', 'tail'), np.array(_ids(rows_of(split))).T.copy()))
        if split != 'train':
            columns['head_neg'] = np.zeros((len(columns['head']), 3), dtype=np.int64)
        torch.save(columns, folder / 'split' / 'time' / f'{split}.pt')
    for name, header, labels in (('nodeidx2entityid', ['node idx', 'entity id'], ENTITIES),
                                 ('reltype2relid', ['reltype', 'rel id'], RELATIONS)):
        pd.DataFrame(enumerate(labels), columns=header).to_csv(folder / 'mapping' / f'{name}.csv.gz', index=False)


def write_pykeen(folder: Path) -> None:
    for split, name in zip(SPLITS, ('training', 'validation', 'testing')):
        (folder / name).mkdir(parents=True)
        pd.DataFrame(_ids(rows_of(split)), columns=['head', 'relation', 'tail']).to_csv(
            folder / name / 'numeric_triples.tsv.gz', sep='\t', index=False)
        for kind, labels in (('entity', ENTITIES), ('relation', RELATIONS)):
            pd.DataFrame(enumerate(labels), columns=['id', 'label']).to_csv(
                folder / name / f'{kind}_to_id.tsv.gz', sep='\t', index=False)


def write_red_gnn(folder: Path) -> None:
    folder.mkdir()
    train = rows_of('train')
    for name, rows in (('facts', train[:9]), ('train', train[9:]), ('valid', rows_of('valid')),
                       ('test', rows_of('test'))):
        (folder / f'{name}.txt').write_bytes(text(rows, ' ' if name == 'facts' else '\t'))
    for name, labels in (('entities', ENTITIES), ('relations', RELATIONS)):
        (folder / f'{name}.txt').write_text(''.join(f'{label}\n' for label in labels))


LAYOUTS: dict[str, Callable[[Path], None]] = {
    'openke': write_openke, 'openke hrt': lambda folder: write_openke(folder, (0, 1, 2)), 'ogb': write_ogb,
    'pykeen': write_pykeen, 'red-gnn': write_red_gnn}


@pytest.mark.filterwarnings('ignore:.*head_neg')
@pytest.mark.parametrize('name', LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    folder = tmp_path / 'graph'
    LAYOUTS[name](folder)
    expected = from_dataframe(FRAME, split='split')
    same(load_dataset(folder), expected)
    same(load_dataset(folder, format=name.split()[0]), expected)
    # Ids of another graph come before those of the folder.
    other = from_dataframe(FRAME[::-1].assign(head='http://kg.org/~', relation=FRAME['relation']), split='split')
    shared = load_dataset(folder, entities=other)
    assert shared.entity_labels[:len(other.entity_labels)] == other.entity_labels
    assert {tuple(fact) for fact in shared.facts('test').tolist()} == {
        (shared.entity_id(head), shared.relation_id(relation), shared.entity_id(tail))
        for head, relation, tail in rows_of('test')}
    small = KGData(torch.empty(2, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 0, 1,
                   relation_labels=[RELATIONS[0]])
    with pytest.raises(DataError, match=re.escape(f"'{RELATIONS[1]}' is not one of the 1")):
        load_dataset(folder, vocabulary=small)
    with pytest.raises(ArgumentError, match='literals'):
        load_dataset(folder, literals='keep')
    with pytest.raises(ArgumentError, match='part: '):
        load_dataset(folder, part='train')


def test_inductive_data(tmp_path: Path) -> None:
    # Train on one graph, infer on another one with the same relations.
    inference = [(f'x{head}', relation, f'x{tail}') for head, relation, tail in rows_of('valid')]
    splits = {'train': inference, 'valid': inference[:1], 'test': inference[1:]}
    for number, files in enumerate(layouts._INDUCTIVE):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in {*files['train'].values()} - {*files['inference'].values()}:
            (folder / name).write_bytes(text(rows_of('train'), ' '))
        for split, name in files['inference'].items():
            (folder / name).write_bytes(text(splits[split]))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DataWarning)
            train = load_dataset(folder, require_splits=['train'])
            other = load_dataset(folder, part='inference', vocabulary=train)
        assert train.num_facts('train') == len(rows_of('train')) and other.relation_labels == RELATIONS
        assert [other.num_facts(split) for split in SPLITS] == [len(inference), 1, len(inference) - 1]
        assert not {*train.entity_labels} & {*other.entity_labels}
        if 'test' not in files['train']:
            with pytest.raises(DataError, match="'test'.*require_splits=.*part='inference'.*format='splits'"):
                load_dataset(folder)
    with pytest.raises(ArgumentError, match="part: .*'inference'"):
        load_dataset(folder, part='other')


def test_red_gnn_files_can_be_named(tmp_path: Path) -> None:
    write_red_gnn(tmp_path / 'graph')
    (tmp_path / 'graph' / 'facts.txt').write_bytes(text(rows_of('train')[:9]))
    same(load_dataset(tmp_path / 'graph', extra_files=['facts.txt']),
         from_dataframe(pd.concat([FRAME[FRAME['split'] == split].iloc[rows]
                                   for split, rows in (('train', slice(9, None)), ('train', slice(9)),
                                                       ('valid', slice(None)), ('test', slice(None)))]),
                        split='split'))
    (tmp_path / 'graph' / 'test.txt').write_text('# none\nx y z\n')
    with pytest.raises(DataError, match=r"test\.txt:2: 'x' is not in entities\.txt"):
        load_dataset(tmp_path / 'graph', comment='#')


def test_entities_without_facts(tmp_path: Path) -> None:
    write_red_gnn(tmp_path / 'graph')
    with (tmp_path / 'graph' / 'entities.txt').open('a') as file:
        file.write('nobody\n')
    data = load_dataset(tmp_path / 'graph')
    assert data.entity_labels == [*ENTITIES, 'nobody'] and data.num_nodes == len(ENTITIES) + 1
    with pytest.warns(DataWarning, match=f'1 of {len(ENTITIES) + 1} entities are in no fact'):
        found = load_dataset(tmp_path / 'graph', entities=from_dataframe(FRAME, split='split'))
    assert found.num_nodes == len(ENTITIES)


def test_formats_decide_among_files(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f'{split}.nt').write_bytes(FILES['.nt'](rows_of(split)))
        (tmp_path / f'{split}.jsonl').write_bytes(json_lines(rows_of('valid')))
    with pytest.raises(DataError, match="'train' .*train.jsonl, train.nt"):
        load_dataset(tmp_path)
    expected = from_dataframe(FRAME, split='split')
    same(load_dataset(tmp_path, format='ntriples'), expected)
    # Text comes before what else is there.
    for split in SPLITS:
        (tmp_path / f'{split}.tsv').write_bytes(text(rows_of(split)))
        (tmp_path / f'{split}.nt').write_bytes(b'<x:a> <x:b> <x:c> .\n')
    with pytest.warns(DataWarning, match="train.tsv is read .*'train', and train.jsonl, train.nt not.*format="):
        same(load_dataset(tmp_path), expected)


def test_openke_orders(tmp_path: Path) -> None:
    folder = tmp_path / 'graph'
    write_openke(folder)
    expected = from_dataframe(FRAME, split='split')
    same(load_dataset(folder, head=0, relation=2, tail=1), expected)
    same(load_dataset(folder, head=0), expected)
    with pytest.raises(DataError, match='relation=1.*head, tail, relation'):
        load_dataset(folder, head=0, relation=1, tail=2)
    with pytest.raises(ArgumentError, match="head: .*'subject'"):
        load_dataset(folder, head='subject')
    (folder / 'entity2id.txt').write_text('2\na 0\nb 1\n')
    for split in SPLITS:
        (folder / f'{split}2id.txt').write_text('1\n1 0 1\n')
    with pytest.warns(DataWarning, match='head=0, relation=1, tail=2'):
        assert load_dataset(folder).facts().tolist() == [[1, 1, 0]]
    assert load_dataset(folder, relation=1).facts().tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(('name', 'content', 'said'), [
    ('train2id.txt', '', 'train2id.txt: .*empty'), ('train2id.txt', '3\n0 1 0\n', 'train2id.txt:1: .* 3 .* 1'),
    ('train2id.txt', '0 1 0\n', "train2id.txt:1: .*'0 1 0'"), ('train2id.txt', '1\n0 1\n', 'train2id.txt:2: '),
    ('train2id.txt', '1\n0 1 99\n', 'train2id.txt:2: .* 99'), ('train2id.txt', '1\n0 -1 0\n', 'train2id.txt:2: '),
    ('train2id.txt', f'1\n0 1 {10**30}\n', 'train2id.txt:2: '),
    ('entity2id.txt', '2\na 0\nb x\n', "entity2id.txt:3: .*'b x'"), ('entity2id.txt', '2\na 0\nb 2\n', 'entity2id.txt'),
    ('relation2id.txt', '2\nr 0\nr 1\n', "relation2id.txt: .*'r'"), ('relation2id.txt', '1\n\xff 0\n', None),
])
def test_damaged_files_of_openke(tmp_path: Path, name: str, content: str, said: Optional[str]) -> None:
    write_openke(tmp_path)
    (tmp_path / name).write_bytes(content.encode('latin-1'))
    with pytest.raises(DataError, match=said or f'{name}:2: byte 0xff'):
        load_dataset(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name if name != 'train2id.txt' else 'train'):
        load_dataset(tmp_path)


def test_damaged_files_of_ogb(tmp_path: Path) -> None:
    write_ogb(tmp_path)
    part = tmp_path / 'split' / 'time' / 'train.pt'
    content = torch.load(part, weights_only=False)
    for change, said in (({'head': None}, 'head .*NoneType'), ({'tail': content['tail'][:-1]}, r'\d+, \d+'),
                         ({'relation': content['relation'] + 5}, 'fact 0: the relation is'),
                         ({'head': content['head'] * 1.5}, 'float64')):
        torch.save({**content, **change}, part)
        with pytest.raises(DataError, match=f'train.pt.*{said}'):
            load_dataset(tmp_path)
    torch.save({**content, 'head': Path('x')}, part)  # nothing else is unpickled
    with pytest.raises(DataError, match=r'train\.pt.*arrays'):
        load_dataset(tmp_path)
    torch.save({'edge': content['head']}, part)
    with pytest.raises(DataError, match=r'train\.pt.*edge.*Data of PyG'):
        load_dataset(tmp_path)
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match=r'train\.pt'):
        load_dataset(tmp_path)
    torch.save(content, part)
    (tmp_path / 'mapping' / 'reltype2relid.csv.gz').write_bytes(gzip.compress(b'a,b\n0,x\n0,y\n'))
    with pytest.raises(DataError, match=r'reltype2relid\.csv\.gz'):
        load_dataset(tmp_path)
    (tmp_path / 'mapping' / 'reltype2relid.csv.gz').unlink()
    with pytest.raises(DataError, match='reltype2relid'):
        load_dataset(tmp_path)


def test_typed_nodes_of_ogb(tmp_path: Path) -> None:
    (tmp_path / 'split' / 'random').mkdir(parents=True)
    (tmp_path / 'mapping').mkdir()
    for kind, names in (('drug', ['d0', 'd1']), ('protein', ['p0', 'd1', 'p2'])):
        pd.DataFrame(enumerate(names), columns=['ent idx', 'ent name']).to_csv(
            tmp_path / 'mapping' / f'{kind}_entidx2name.csv.gz', index=False)
    pd.DataFrame([(0, 'binds')], columns=['rel idx', 'rel name']).to_csv(
        tmp_path / 'mapping' / 'relidx2relname.csv.gz', index=False)
    for split in SPLITS:
        torch.save({'head': torch.tensor([1, 0]), 'tail': np.array([2, 1]), 'relation': np.array([0, 0]),
                    'head_type': ['drug', 'protein'], 'tail_type': ['protein', 'drug']},
                   tmp_path / 'split' / 'random' / f'{split}.pt')
    with pytest.warns(DataWarning):
        data = load_dataset(tmp_path)
    assert data.entity_labels == ['drug:d0', 'drug:d1', 'protein:p0', 'protein:d1', 'protein:p2']
    assert data.facts().tolist() == [[1, 0, 4], [2, 0, 1]]
    part = tmp_path / 'split' / 'random' / 'test.pt'
    torch.save({**torch.load(part, weights_only=False), 'head': torch.tensor([1, 3])}, part)
    with pytest.raises(DataError, match="head 1 is 3, .* 3 nodes of type 'protein'"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(('name', 'content', 'said'), [
    ('numeric_triples', 'head\trelation\ttail\n0\tx\t1\n', "numeric_triples.tsv.gz:2: .*'relation'.*'x'"),
    ('numeric_triples', 'head\trelation\ttail\n0\t0\t99\n', 'numeric_triples.tsv.gz:2: the tail is 99'),
    ('numeric_triples', 'a\tb\n0\t0\n', "numeric_triples.tsv.gz: .*'a'"),
    ('entity_to_id', 'id\tlabel\n1\ta\n', 'entity_to_id.tsv.gz'), ('entity_to_id', 'x\n', 'entity_to_id.tsv.gz'),
    ('relation_to_id', 'id\tlabel\n0\tr\n1\ts\n', 'validation.*training|training.*train'),
])
def test_damaged_files_of_pykeen(tmp_path: Path, name: str, content: str, said: str) -> None:
    write_pykeen(tmp_path)
    (tmp_path / 'training' / f'{name}.tsv.gz').write_bytes(gzip.compress(content.encode()))
    with pytest.raises(DataError, match=said if name != 'relation_to_id' else 'unlike'):
        load_dataset(tmp_path)
    (tmp_path / 'training' / f'{name}.tsv.gz').write_bytes(b'x')
    with pytest.raises(DataError, match=f'{name}.tsv.gz: .*gzip'):
        load_dataset(tmp_path)


def test_missing_splits_of_layouts(tmp_path: Path) -> None:
    write_openke(tmp_path / 'graph')
    (tmp_path / 'graph' / 'valid2id.txt').unlink()
    with pytest.raises(DataError, match=r"OpenKE.*'valid'.*require_splits=\('train', 'test'\)"):
        load_dataset(tmp_path / 'graph')
    assert load_dataset(tmp_path / 'graph', require_splits=['test']).num_facts('valid') == 0
    with pytest.raises(DataError, match="PyKEEN.*format='pykeen'.*train2id"):
        load_dataset(tmp_path / 'graph', format='pykeen')
    with pytest.raises(ArgumentError, match="format: .*'openke'.*'other'"):
        load_dataset(tmp_path / 'graph', format='other')


# Which format ################################################################

@pytest.mark.parametrize(('name', 'content', 'options', 'said'), [
    ('a.csv', b'<x:a> <x:r> <x:b> .\n', {}, "N-Triples.*'ntriples'"),
    ('a.txt', b'<x:a> <x:r> <x:b> .\n', {'format': 'turtle', 'delimiter': ' '}, 'delimiter: .*Turtle'),
    ('a.nt', b'<x:a> <x:r> <x:b> <x:g> .\n', {}, 'N-Quads.*N-Triples.*nt'),
    ('a.nt', b'@prefix x: <x:> .\n', {}, 'Turtle.*N-Triples'),
    ('a.nt', b'{"head": "a"}\n', {}, 'JSON.*N-Triples'), ('a.txt', b'{"head": "a"}\n', {'format': 'parquet'}, 'JSON'),
    ('a.parquet', b'a\tr\tb\n', {}, 'a.parquet: .*PAR1'), ('a.parquet', b'PAR1\0', {}, 'a.parquet'),
    ('a.txt', b'PAR1\0', {}, 'a.txt: .*Parquet'), ('a.txt', b'SQLite format 3\0', {'format': 'text'}, 'SQLite'),
    ('a.jsonl', b'[\n{"head": "a"}]', {}, 'array'),
    ('a.jsonl', b'[["a", "r", "b"], ["b", "r", "c"], ["c", "r", "d"]]\n', {}, 'JSON array'),
    ('a.json', b'[ ["a", "r", "b"],\n ["b", "r", "c"]]\n', {}, 'JSON array'),
    ('a.txt', b'3\n0 1 0\n', {}, 'OpenKE.*folder'),
    ('a.txt', b'PK\x03\x04', {}, 'ZIP'), ('a.ttl', b'\x1f\x8b\x08', {}, 'gzip.*.gz'),
    ('a.parquet.gz', gzip.compress(b'PAR1\0', mtime=0), {}, 'without .gz'),
    ('a.txt', b'a\tr\tb\n', {'format': 'rdf'}, "'rdf'"),
    ('a.txt', b'a\tr\tb\n', {'format': 3}, '3'), ('a.nt', b'', {'split': 3}, 'split: '),
    ('a.txt', b'a\tr\tb\n', {'split': 3}, '3'), ('a.txt', b'', {'split': 3}, 'a.txt'),
    ('a.txt', b'a\tr\tb\ttrain\na\tr\tb\tx\n', {'split': 3}, "a.txt:2: 'x'"),
    ('a.tsv', b'a\tr\tb\n', {'prefixes': True}, 'prefixes: '), ('a.jsonl', b'{}', {'header': True}, 'header: '),
    ('a.txt', b'a\tr\tb\n', {'literals': 'drop'}, "literals: .*'drop'"),
    ('a.txt', b'a\tr\tb\n', {'graphs': 'x'}, "graphs: .*'x'"),
    ('a.txt', b'a\tr\tb\n', {'prefixes': 3}, 'prefixes: '),
])
def test_contradictions_are_named(tmp_path: Path, name: str, content: bytes, options: dict[str, Any],
                                  said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ArgumentError, DataError), match=said):
        from_file(tmp_path / name, **options)


def test_splits_of_text(tmp_path: Path) -> None:
    path = tmp_path / 'a.tsv'
    path.write_text('\n'.join('\t'.join((split, *fact, 'x')) for split, fact in zip(SPLIT, FACTS)))
    expected = from_dataframe(FRAME, split='split')
    with pytest.warns(DataWarning, match='not read: 4'):
        same(load_dataset(path, head=1, relation=2, tail=3, split=0), expected)
    path.write_text('part\thead\ttail\trelation\n' +
                    '\n'.join('\t'.join((split, head, tail, name)) for split, (head, name, tail) in zip(SPLIT, FACTS)))
    for options in ({'split': 'part'}, {'split': 0, 'header': True},
                    {'split': 'part', 'head': 1, 'relation': 3, 'tail': 2}):
        with warnings.catch_warnings():
            warnings.filterwarnings('error', message='.*(not read|first line)')
            same(load_dataset(path, **options), expected)
    with pytest.warns(DataWarning, match='first line.*part'):
        same(load_dataset(path, split=0), expected)


def test_splits_of_an_empty_file(tmp_path: Path) -> None:
    for content in ('', 'part\thead\ttail\trelation\n'):
        (tmp_path / 'a.tsv').write_text(content)
        with pytest.raises(DataError, match='a.tsv.*no facts'):
            load_dataset(tmp_path / 'a.tsv', split=0, header=True)


@pytest.mark.parametrize('header', ['head,relation,tail,w\n', 'h,r,t,weight\n', ''])
def test_weights_of_text_by_position(tmp_path: Path, header: str) -> None:
    (tmp_path / 'a.csv').write_text(header + 'a,in,b,0.5\nb,in,c,0.75\n')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DataWarning)
        data = load_dataset(tmp_path / 'a.csv', weights=3, fractions=(1, 0, 0))
    assert data.weights().tolist() == [0.5, 0.75] and data.entity_labels == ['a', 'b', 'c']


def test_what_fits_text_is_text(tmp_path: Path) -> None:
    for content, options in ((b'<x:a>\t<x:r>\t<x:b>\n', {}), (b'@prefix\tr\tb\n', {}), (b'[[\tr\tb\n', {}),
                             (b'PAR1\tr\tb\n', {}), (b'{"a"\t: "b"\t}\n', {}),
                             (b'<x:a> <x:r> <x:b> .\n', {'delimiter': ' ', 'head': 0})):
        (tmp_path / 'a.txt').write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DataWarning)
            assert load_dataset(tmp_path / 'a.txt', fractions=(1, 0, 0), **options).num_facts() == 1


def test_statements_with_tabs_are_statements(tmp_path: Path) -> None:
    content = ''.join(f'<x:e{row}>\t<x:r>\t<x:e{row + 1}> .\n' for row in range(3))
    for name in ('a.txt', 'a', 'a.nt'):
        (tmp_path / name).write_text(content)
        data = load_dataset(tmp_path / name, fractions=(1, 0, 0))
        assert data.entity_labels == ['x:e0', 'x:e1', 'x:e2', 'x:e3'] and data.relation_labels == ['x:r']
    (tmp_path / 'a.tsv').write_text(content)
    with pytest.raises(DataError, match="a.tsv.*N-Triples.*format='ntriples'"):
        load_dataset(tmp_path / 'a.tsv')
    assert load_dataset(tmp_path / 'a.tsv', fractions=(1, 0, 0), format='ntriples').num_nodes == 4
    data = load_dataset(tmp_path / 'a.tsv', fractions=(1, 0, 0), format='text')
    assert {'<x:e0>', '<x:e1> .'} < {*data.entity_labels}


def test_unread_rdf_is_named(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f'{split}.txt').write_text('a\tr\tb\n')
    (tmp_path / 'types.nt').touch()
    with pytest.warns(DataWarning, match='types.nt'):
        from_folder(tmp_path)


def test_options_are_known_by_format(tmp_path: Path) -> None:
    for name, content in (('a.nt', b''), ('a.tsv', b'a\tr\tb\n'), ('a.jsonl', b'{}')):
        (tmp_path / name).write_bytes(content)
    assert {'literals', 'head', 'fractions'} <= options_that_apply(tmp_path / 'a.nt')
    assert 'delimiter' not in options_that_apply(tmp_path / 'a.nt')
    assert 'split' in options_that_apply(tmp_path / 'a.jsonl') and 'split' not in options_that_apply(tmp_path / 'a.nt')
    (tmp_path / 'train.tsv').write_bytes(b'a\tr\tb\n')
    found = options_that_apply(tmp_path)
    assert 'delimiter' in found and 'literals' not in found and 'fractions' not in found
    write_openke(tmp_path / 'openke')
    assert options_that_apply(tmp_path / 'openke') == {'format', 'vocabulary', 'entities', 'require_splits', 'head',
                                                       'relation', 'tail'}
    assert {option for name in detection.FORMATS for option in factfiles.options_of(name)} == {
        *factfiles.FactFiles.__dataclass_fields__}


def connections(path: Path) -> Iterator[Any]:
    sqlalchemy = pytest.importorskip('sqlalchemy')
    yield path
    yield f'sqlite:///{path}'
    engine = sqlalchemy.create_engine(f'sqlite:///{path}')
    yield engine
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_databases(tmp_path: Path) -> None:
    path = tmp_path / 'graph.db'
    with sqlite3.connect(path) as database:
        # In another order, which a database need not keep either.
        FRAME[::-1].to_sql('facts', database, index=False)
    database.close()
    for source in connections(path):
        same(load_dataset(source, split='split'), from_dataframe(FRAME, split='split'))
    same(load_dataset(path, table='facts', fractions=FRACTIONS, seed=3, head='head', relation=1, tail=2),
         from_dataframe(FRAME.drop(columns='split'), FRACTIONS, 3))
