from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import RandomLinkSplit, ToUndirected

from pyg_emu import DistMult, RelationCandidates, load_dataset, predict
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io import from_hetero

ALL = (1.0, 0.0, 0.0)


def papers(**sizes: Any) -> HeteroData:
    data = HeteroData()
    for name, size in {'author': 3, 'paper': 2, **sizes}.items():
        data[name].num_nodes = size
    data['author', 'writes', 'paper'].edge_index = torch.tensor([[0, 1, 2], [0, 1, 1]])
    data['paper', 'cites', 'paper'].edge_index = torch.tensor([[0], [1]])
    return data


def labelled(data: Any) -> set[tuple[str, str, str]]:
    return {(data.entity_labels[h], data.relation_labels[r], data.entity_labels[t])
            for h, r, t in data.facts('train').tolist()}


FACTS = {('author/0', 'writes', 'paper/0'), ('author/1', 'writes', 'paper/1'), ('author/2', 'writes', 'paper/1'),
         ('paper/0', 'cites', 'paper/1')}


def test_types_of_edges_are_relations_and_types_of_nodes_are_kept() -> None:
    data = load_dataset(papers(), fractions=ALL)
    assert labelled(data) == FACTS and data.num_nodes == 5 and data.relation_labels == ['writes', 'cites']
    assert data.node_type.tolist() == [0, 0, 0, 1, 1]
    sets = RelationCandidates.of_types(data)
    assert sets.allowed(torch.tensor([0, 1]), 'head').tolist() == [[True] * 3 + [False] * 2, [False] * 3 + [True] * 2]
    frame = predict(DistMult(5, 2, 4), data, heads='author/0', relations='writes', candidates=sets)
    assert set(frame['tail']) == {'paper/0', 'paper/1'}


def test_edges_in_reverse_are_left_out() -> None:
    both = ToUndirected(merge=False)(papers())
    assert ('paper', 'rev_writes', 'author') in both.edge_types and ('paper', 'rev_cites', 'paper') in both.edge_types
    assert labelled(from_hetero(both, ALL)) == FACTS
    both['paper', 'rev_writes', 'author'].edge_index = torch.tensor([[0, 1, 1], [0, 1, 0]])
    with pytest.raises(DataError, match='rev_writes.*rename'):
        from_hetero(both, ALL)
    # Without its counterpart, it is a relation like any other.
    alone = HeteroData()
    alone['a'].num_nodes = 2
    alone['a', 'rev_likes', 'a'].edge_index = torch.tensor([[0], [1]])
    assert labelled(from_hetero(alone, ALL)) == {('a/0', 'rev_likes', 'a/1')}


def test_equal_names_are_told_apart() -> None:
    data = papers()
    data['author', 'cites', 'author'].edge_index = torch.tensor([[0], [1]])
    assert from_hetero(data, ALL).relation_labels == ['writes', 'paper__cites__paper', 'author__cites__author']


def test_facts_are_split() -> None:
    data = HeteroData()
    data['a'].num_nodes = 20
    head = torch.arange(20).repeat(5)
    data['a', 'to', 'a'].edge_index = torch.stack([head, (head + torch.arange(100) // 20) % 20])
    found = from_hetero(data, (0.8, 0.1, 0.1), seed=1)
    assert (found.num_facts('train'), found.num_facts('valid'), found.num_facts('test')) == (80, 10, 10)
    with pytest.raises(ArgumentError, match='fractions='):
        from_hetero(data)


def many_papers() -> HeteroData:
    data = papers(author=30, paper=20)
    author = torch.arange(30).repeat_interleave(4)
    data['author', 'writes', 'paper'].edge_index = torch.stack([author, (author * 7 + torch.arange(120) * 3) % 20])
    data['paper', 'cites', 'paper'].edge_index = torch.stack([torch.arange(20), (torch.arange(20) + 1) % 20])
    return data


@pytest.mark.parametrize('options', [{}, {'add_negative_train_samples': False}, {'split_labels': True},
                                     {'disjoint_train_ratio': 0.4}, {'neg_sampling_ratio': 0.0}])
@pytest.mark.parametrize('reverse', [False, True])
def test_held_out_edges_of_random_link_split(options: Any, reverse: bool) -> None:
    graph, kind = many_papers(), ('author', 'writes', 'paper')
    every = from_hetero(graph, ALL)
    graph = ToUndirected(merge=False)(graph) if reverse else graph
    rest = {'rev_edge_types': ('paper', 'rev_writes', 'author')} if reverse else {}
    torch.manual_seed(0)
    parts = RandomLinkSplit(num_val=0.1, num_test=0.2, edge_types=kind, **rest, **options)(graph)
    data = load_dataset(dict(zip(('train', 'val', 'test'), parts)))
    assert (data.num_facts('valid'), data.num_facts('test')) == (12, 24)
    assert data.node_type.tolist() == [0] * 30 + [1] * 20
    assert data.entity_labels == every.entity_labels and data.relation_labels == ['writes', 'cites']
    # Each fact of the graph is in one split, also the citations, which were not split; negatives are in none.
    assert sorted(data.facts('all').tolist()) == sorted(every.facts('train').tolist())
    assert set(data.facts('test')[:, 1].tolist() + data.facts('valid')[:, 1].tolist()) == {0}
    found = load_dataset(parts)  # as RandomLinkSplit returns them
    assert all(found.facts(split).equal(data.facts(split)) for split in ('train', 'valid', 'test'))


def test_graphs_by_split() -> None:
    held_out = papers()
    held_out['author', 'writes', 'paper'].edge_index = torch.tensor([[2], [0]])
    held_out['paper', 'cites', 'paper'].edge_index = torch.empty(2, 0, dtype=torch.int64)
    for data, value in ((held_out, 3.0), (whole := papers(), 2.0)):
        data['author', 'writes', 'paper'].edge_weight = torch.full((data['author', 'paper'].num_edges, ), value)
    data = load_dataset({'train': whole, 'test': held_out}, weights='edge_weight')
    assert labelled(data) == FACTS and data.facts('test').tolist() == [[2, 0, 3]]
    assert data.weights().tolist() == [2.0, 2.0, 2.0, 1.0] and data.weights('test').tolist() == [3.0]
    with pytest.raises(ArgumentError, match='fractions'):
        load_dataset({'train': whole, 'test': held_out}, fractions=ALL, weights='edge_weight')


def test_weights_of_held_out_edges() -> None:
    graph = many_papers()
    graph['author', 'writes', 'paper'].edge_weight = torch.full((120, ), 2.0)
    parts = RandomLinkSplit(num_val=0.1, num_test=0.2, edge_types=('author', 'writes', 'paper'))(graph)
    data = load_dataset(parts, weights='edge_weight')
    assert data.weights().tolist() == [2.0] * 84 + [1.0] * 20 and set(data.weights('test').tolist()) == {1.0}


def test_parts_that_do_not_fit() -> None:
    other = papers(author=4)
    with pytest.raises(DataError, match="3 of type 'author' in train and 4 in test"):
        load_dataset({'train': papers(), 'test': other})
    del other['paper', 'cites', 'paper']
    with pytest.raises(DataError, match='types of edges'):
        load_dataset({'train': papers(), 'test': other})
    train, val, test = RandomLinkSplit(edge_types=('author', 'writes', 'paper'))(many_papers())
    with pytest.raises(DataError, match='writes.*edge_label'):  # one part alone is no split
        load_dataset(train, fractions=ALL)
    test['paper', 'cites', 'paper'].edge_index = torch.tensor([[0], [1]])
    with pytest.raises(DataError, match='cites.*differ'):
        load_dataset((train, val, test))


def test_what_is_not_read_is_named() -> None:
    data = papers()
    data['author'].x = torch.ones(3, 4)
    with pytest.warns(DataWarning, match=r'author\.x'):
        assert labelled(from_hetero(data, ALL)) == FACTS
    data['author', 'writes', 'paper'].edge_attr = torch.ones(3)
    with pytest.warns(DataWarning), pytest.raises(DataError, match='writes.*edge_attr'):
        from_hetero(data, ALL)


def test_one_part_of_random_link_split() -> None:
    part = RandomLinkSplit(edge_types=[('author', 'writes', 'paper')])(many_papers())[0]
    for fractions in (None, ALL):
        with pytest.raises(DataError, match='a part of RandomLinkSplit.*; pass all three parts'):
            from_hetero(part, fractions)


def test_relations_are_called_by_their_edges() -> None:
    data, model = load_dataset(papers(), fractions=ALL), DistMult(5, 2, 4)
    for relations in (('author', 'writes', 'paper'), [('author', 'writes', 'paper')]):
        with pytest.raises(ValueError, match=r"relations: .*\('author', 'writes', 'paper'\) is called 'writes'$"):
            predict(model, data, heads='author/0', relations=relations)
    with pytest.raises(DataError, match='called'):
        RelationCandidates(data, tails={('paper', 'cites', 'paper'): 'paper/0'})
    with pytest.raises(DataError) as caught:
        predict(model, data, heads='author/0', relations=('author', 'reads', 'paper'))
    assert 'called' not in str(caught.value)
    both = papers()
    both['author', 'cites', 'paper'].edge_index = torch.tensor([[0], [1]])
    data = load_dataset(both, fractions=ALL)
    with pytest.raises(DataError, match="is called 'author__cites__paper'$"):
        predict(DistMult(5, 3, 4), data, heads='author/0', relations=('author', 'cites', 'paper'))


def test_broken_graphs_are_named() -> None:
    for size, said in ((1, r'writes.*column 1: node 1 .*paper.* 1 nodes'), (None, "'paper' is not known")):
        broken = papers()
        del broken['paper']
        broken['author', 'writes', 'paper'].edge_index = torch.tensor([[0, 1, 2], [0, 1, 1]])
        if size is not None:
            broken['paper'].num_nodes = size
        with pytest.raises(DataError, match=said):
            from_hetero(broken, ALL)
    empty = HeteroData()
    empty['a'].num_nodes = 2
    with pytest.raises(DataError, match='at least one'):
        from_hetero(empty, ALL)
    data = papers()
    data['author', 'writes', 'paper'].edge_index = torch.ones(2, 3)
    with pytest.raises(DataError, match=r'writes.*\(2, E\), got torch.float32'):
        from_hetero(data, ALL)
