r"""Weights of facts: where they come from, where they go, and what they mean."""
from __future__ import annotations

import copy
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import RandomLinkSplit

from pyg_emu import Batch, KGData, TripletLoader, load_dataset
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io import to_dataframe, to_folder

EDGES = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 1]])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 4.0])


def make(**options: Any) -> KGData:
    given = {'edge_weight': WEIGHTS, 'valid_edge_index': EDGES[:, :1], 'valid_edge_type': torch.tensor([1]), **options}
    return KGData(EDGES, torch.tensor([0, 1, 0, 0]), 3, 2, **given)


def test_weights_go_with_their_facts() -> None:
    data = make(valid_edge_weight=torch.tensor([3.0]))
    assert data.validate() and 'weights' in repr(data)
    assert data.weights().tolist() == [1.0, 2.0, 0.5, 4.0]  # type: ignore[union-attr]
    assert data.weights('all').tolist() == [1.0, 2.0, 0.5, 4.0, 3.0]  # type: ignore[union-attr]
    assert make().weights('valid').tolist() == [1.0]  # type: ignore[union-attr]
    inverse = data.with_inverse_relations()
    assert inverse.edge_weight.tolist() == [*WEIGHTS.tolist(), *WEIGHTS.tolist()]  # type: ignore[union-attr]
    assert inverse.weights().tolist() == WEIGHTS.tolist()  # type: ignore[union-attr]
    part = data.subgraph(torch.tensor([2, 0]))
    assert part.facts().tolist() == [[0, 0, 1]] and part.edge_weight.tolist() == [0.5]  # type: ignore[union-attr]
    assert part.valid_edge_weight.tolist() == []  # type: ignore[union-attr]
    assert data.edge_subgraph(torch.tensor([3, 1])).edge_weight.tolist() == [4.0, 2.0]  # type: ignore[union-attr]
    assert data.sort(False).edge_weight.tolist() == [0.5, 1.0, 4.0, 2.0]  # type: ignore[union-attr]
    # Copies of a fact are one, and their weights are added.
    merged = data.coalesce()
    assert merged.facts().tolist() == [[0, 0, 1], [1, 1, 2], [2, 0, 0]]
    assert merged.edge_weight.tolist() == [5.0, 2.0, 0.5]  # type: ignore[union-attr]
    assert copy.deepcopy(data).weights().tolist() == WEIGHTS.tolist()  # type: ignore[union-attr]
    assert KGData(EDGES, torch.tensor([0, 1, 0, 0])).weights('all') is None


def test_changed_weights_are_noticed() -> None:
    data = make()
    before = data.weights('all')
    data.edge_weight = WEIGHTS * 2
    assert before is not None and data.weights('all').tolist()[:4] == (WEIGHTS * 2).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize('change, told', [
    ({'edge_weight': torch.tensor([1.0, 0.0, 1.0, 1.0])}, r'^edge_weight, position 1: .* 0\.0$'),
    ({'edge_weight': torch.tensor([1.0, 2.0, float('nan'), 1.0])}, '^edge_weight, position 2: .*nan'),
    ({'edge_weight': torch.tensor([1.0, 2.0, 1.0, float('inf')])}, '^edge_weight, position 3: .*inf'),
    ({'edge_weight': torch.ones(3)}, r'^edge_weight: .*\(4,\).*\(3,\)'),
    ({'edge_weight': torch.ones(4, dtype=torch.int64)}, '^edge_weight: .*int64'),
    ({'edge_weight': [1.0]}, '^edge_weight: .*list'),
    ({'edge_weight': None, 'valid_edge_weight': torch.ones(1)}, '^edge_weight: .*valid_edge_weight'),
    ({'valid_edge_weight': torch.ones(2)}, r'^valid_edge_weight: .*\(1,\)'),
    ({'edge_wieght': torch.ones(4)}, 'did you mean edge_weight'), ({'edge_attr': torch.ones(4)}, 'edge_attr'),
])
def test_unusable_weights(change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        make(**change).validate()


def test_batches_hold_the_weights_of_their_triples() -> None:
    data = make()
    batch = next(iter(TripletLoader(data, 3)))
    assert batch.weight.tolist() == [1.0, 2.0, 0.5]  # type: ignore[union-attr]
    shuffled = next(iter(TripletLoader(data.with_inverse_relations(), 4, shuffle=True, seed=3)))
    by_fact = {(*fact, number): weight for number, (fact, weight) in enumerate(zip(map(tuple, data.facts().tolist()),
                                                                                  WEIGHTS.tolist()))}
    rows = torch.stack([shuffled.head_index, shuffled.rel_type, shuffled.tail_index], 1).tolist()
    assert sorted(zip(map(tuple, rows), shuffled.weight.tolist())) == sorted(  # type: ignore[union-attr]
        (key[:3], weight) for key, weight in by_fact.items())
    assert batch.part(slice(1, 3)).weight.tolist() == [2.0, 0.5]  # type: ignore[union-attr]
    assert batch.take(torch.tensor([2, 2])).weight.tolist() == [0.5, 0.5]  # type: ignore[union-attr]
    assert Batch(*EDGES.new_zeros(3, 2)).weight is None
    for wrong in (torch.ones(3), torch.tensor([1.0, -1.0]), torch.ones(2, dtype=torch.int64), 1.0):
        with pytest.raises(ArgumentError, match='^batch.weight'):
            Batch.of(Batch(*EDGES.new_zeros(3, 2), num_nodes=1, weight=wrong))  # type: ignore[arg-type]


FRAME = pd.DataFrame({'head': ['b', 'a', 'c', 'a'], 'relation': ['r'] * 4, 'tail': ['c', 'b', 'a', 'b'],
                      'confidence': [0.5, 1, 2, 4], 'split': ['train', 'train', 'train', 'valid']})


def weights_by_fact(data: KGData, split: str = 'train') -> dict[tuple[str, str], float]:
    labels = data.entity_labels or []
    return {(labels[head], labels[tail]): weight for (head, _, tail), weight in zip(
        data.facts(split).tolist(), data.weights(split).tolist())}  # type: ignore[arg-type, union-attr]


def test_column_of_a_table() -> None:
    data = load_dataset(FRAME, weights='confidence', split='split')
    assert weights_by_fact(data) == {('b', 'c'): 0.5, ('a', 'b'): 1.0, ('c', 'a'): 2.0}
    assert weights_by_fact(data, 'valid') == {('a', 'b'): 4.0}
    table = to_dataframe(data)
    assert weights_by_fact(load_dataset(table, weights='weight', split='split')) == weights_by_fact(data)
    many = pd.DataFrame({'head': [str(number // 9) for number in range(81)], 'relation': 'r',
                         'tail': [str(number % 9) for number in range(81)], 'w': np.arange(1, 82) / 8})
    split = load_dataset(many, weights=3, fractions=(0.8, 0.1, 0.1))
    assert split.num_facts('test') > 0 and split.weights('test') is not None
    for part in ('train', 'valid', 'test'):
        assert all(weight == (int(head) * 9 + int(tail) + 1) / 8 for (head, tail), weight in
                   weights_by_fact(split, part).items())
    with pytest.warns(DataWarning, match="'confidence'"):
        assert load_dataset(FRAME, split='split').edge_weight is None


@pytest.mark.parametrize('value', [0, -1.0, float('nan'), 'x', float('inf'), None])
def test_bad_weight_of_a_table(value: Any) -> None:
    frame = FRAME.assign(confidence=pd.Series([1, 2, value, 3], dtype=object)).set_axis([10, 20, 30, 40])
    with pytest.raises(DataError, match="'confidence', row 30: .*above 0"):
        load_dataset(frame, weights='confidence', split='split')
    with pytest.raises(DataError, match='weights'):
        load_dataset(FRAME, weights='tail', split='split')
    with pytest.raises(DataError, match="'w'.*weights"):
        load_dataset(FRAME, weights='w', split='split')


@pytest.mark.parametrize('text, options', [
    ('a\tr\tb\t0.5\nb\tr\tc\t1e1\nb\tr\tc\t2\n', {'weights': 3}),
    ('0.5\ta\tr\tb\n1e1\tb\tr\tc\n2\tb\tr\tc\n', {'weights': 0, 'head': 1, 'relation': 2, 'tail': 3}),
    ('head\trelation\ttail\tw\na\tr\tb\t0.5\nb\tr\tc\t1e1\nb\tr\tc\t2\n', {'weights': 'w'}),
    ('w\thead\trelation\ttail\n0.5\ta\tr\tb\n1e1\tb\tr\tc\n2\tb\tr\tc\n', {'weights': 0, 'header': True}),
])
@pytest.mark.filterwarnings('error:.*not read')
def test_column_of_a_file(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    path = tmp_path / 'facts.tsv'
    path.write_text(text)
    data = load_dataset(path, fractions=(1, 0, 0), **options)
    assert data.edge_weight.tolist() == [0.5, 10.0, 2.0]  # type: ignore[union-attr]
    assert data.facts().tolist() == [[0, 0, 1], [1, 0, 2], [1, 0, 2]]


def test_folder_with_weights(tmp_path: Path) -> None:
    data = load_dataset(FRAME, weights='confidence', split='split')
    folder = to_folder(data, tmp_path / 'graph')
    assert (folder / 'train.txt').read_text().splitlines()[0] == 'b\tr\tc\t0.5'
    again = load_dataset(folder, weights=3, require_splits=['train', 'valid'])
    assert weights_by_fact(again) == weights_by_fact(data) and weights_by_fact(again, 'valid') == {('a', 'b'): 4.0}


@pytest.mark.parametrize('text, told', [
    ('a\tr\tb\t1\nb\tr\tc\t0\n', ':2: .*above 0'), ('a\tr\tb\t1\nb\tr\tc\tx\n', ":2: .*'x'"),
    ('a\tr\tb\t1\nb\tr\tc\t\n', ':2: .*weight'),
    ('a\tr\tb\t1\nb\tr\tc\tnan\n', ":2: .*'nan'"), ('a\tr\tb\n', 'weights'),
])
def test_bad_weight_of_a_file_names_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / 'facts.tsv'
    path.write_text(text)
    with pytest.raises(DataError, match=f'facts.tsv.*{told}'):
        load_dataset(path, fractions=(1, 0, 0), weights=3)


def test_attribute_of_a_graph() -> None:
    plain = Data(edge_index=EDGES[:, :3], edge_weight=WEIGHTS[:3], num_nodes=3)
    with pytest.raises(DataError, match='edge_weight.*weights='):
        load_dataset(plain, fractions=(1, 0, 0))
    assert load_dataset(plain, fractions=(1, 0, 0), weights='edge_weight').weights().tolist() == [  # type: ignore
        1.0, 2.0, 0.5]
    masked = Data(edge_index=EDGES, edge_type=torch.zeros(4, dtype=torch.int64), strength=WEIGHTS.unsqueeze(1),
                  train_mask=torch.tensor([True, False, True, False]),
                  val_mask=torch.tensor([False, True, False, True]))
    data = load_dataset(masked, weights='strength')
    assert data.weights().tolist() == [1.0, 0.5] and data.weights('valid').tolist() == [2.0, 4.0]  # type: ignore
    parts = {'train': plain, 'test': Data(edge_index=EDGES[:, 3:], edge_weight=WEIGHTS[3:], num_nodes=3)}
    assert load_dataset(parts, weights='edge_weight').weights('test').tolist() == [4.0]  # type: ignore[union-attr]
    for value, told in ((WEIGHTS, r'\(3,\)'), (-WEIGHTS[:3], 'above 0'), (None, 'edge_weight')):
        with pytest.raises(DataError, match=told):
            load_dataset(Data(edge_index=EDGES[:, :3], edge_weight=value, num_nodes=3), fractions=(1, 0, 0),
                         weights='edge_weight')


def test_parts_of_random_link_split_and_features() -> None:
    torch.manual_seed(0)
    edges = torch.randint(8, (2, 30))
    graph = Data(x=torch.rand(8, 2), edge_index=edges, edge_weight=torch.rand(30) + 0.1, num_nodes=8)
    train, valid, test = RandomLinkSplit(num_val=0.1, num_test=0.1, add_negative_train_samples=False)(graph)
    data = load_dataset({'train': train, 'val': valid, 'test': test}, weights='edge_weight', keep=('x', ))
    given = {tuple(edge): weight for edge, weight in zip(edges.t().tolist(), graph.edge_weight.tolist())}
    assert data.num_relations == 1 and torch.equal(data.x, graph.x)
    assert all(weight == pytest.approx(given[head, tail]) for (head, _, tail), weight in zip(
        data.facts().tolist(), data.weights().tolist()) if edges.t().tolist().count([head, tail]) == 1)  # type: ignore
    assert data.weights('valid').tolist() == [1.0] * 3  # type: ignore[union-attr]
    for wrong in ('x', 3, [3]):
        with pytest.raises(ArgumentError, match='keep'):
            load_dataset(graph, fractions=(1, 0, 0), keep=wrong, weights='edge_weight')
    with pytest.raises(DataError, match=r'y: .* 8 '):
        load_dataset(graph, fractions=(1, 0, 0), keep=('x', 'y'), weights='edge_weight')


def test_types_of_edges() -> None:
    graph = HeteroData()
    graph['a'].num_nodes = graph['b'].num_nodes = 3
    graph['a', 'to', 'b'].edge_index, graph['a', 'to', 'b'].edge_weight = EDGES, WEIGHTS
    graph['b', 'of', 'a'].edge_index = EDGES[:, :2]
    data = load_dataset(graph, fractions=(1, 0, 0), weights='edge_weight')
    assert data.weights().tolist() == [*WEIGHTS.tolist(), 1.0, 1.0]  # type: ignore[union-attr]
    with pytest.raises(DataError, match='edge_weight.*weights='):
        load_dataset(graph, fractions=(1, 0, 0))
    with pytest.raises(DataError, match='no type of edges has time'):
        del graph['a', 'to', 'b'].edge_weight
        load_dataset(graph, fractions=(1, 0, 0), weights='time')
    graph['b', 'of', 'a'].edge_weight = torch.tensor([1.0, -1.0])
    with pytest.raises(DataError, match=r"'of'.*edge_weight, position 1: "):
        load_dataset(graph, fractions=(1, 0, 0), weights='edge_weight')


@pytest.mark.parametrize('name', ['facts.parquet', 'facts.jsonl', 'facts.db'])
def test_column_of_other_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith('.parquet'):
        pytest.importorskip('pyarrow')
        FRAME.to_parquet(path)
    elif name.endswith('.jsonl'):
        FRAME.to_json(path, orient='records', lines=True)
    else:
        pytest.importorskip('sqlalchemy')
        with closing(sqlite3.connect(path)) as database:
            FRAME.to_sql('facts', database, index=False)
    data = load_dataset(path, weights='confidence', split='split')
    assert weights_by_fact(data) == {('b', 'c'): 0.5, ('a', 'b'): 1.0, ('c', 'a'): 2.0}
    assert weights_by_fact(data, 'valid') == {('a', 'b'): 4.0}
    with pytest.raises(DataError, match='tail.* weights'):
        load_dataset(path, weights='tail', split='split')
