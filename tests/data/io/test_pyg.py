r"""The shapes of PyG's own datasets, made by PyG's own code from tiny raw files, and other graphs of PyG."""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.datasets import FB15k_237, RelLinkPredDataset, WordNet18RR
from torch_geometric.transforms import RandomLinkSplit

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.pyg import from_pyg

SPLITS = ('train', 'valid', 'test')
# The relation of the last id occurs in test alone, so that its inverse is no edge.
FACTS = {
    'train': [('c', '_also_see', 'a'), ('a', '_has_part', 'b'), ('b', '_also_see', 'c')],
    'valid': [('a', '_also_see', 'c')],
    'test': [('b', '_has_part', 'a'), ('d', '_hypernym', 'a')],
}

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


def write_raw(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, facts in FACTS.items():
        (folder / f'{split}.txt').write_text(''.join('\t'.join(fact) + '\n' for fact in facts))
    for name, labels in (('entities', 'dcba'), ('relations', ['_hypernym', '_has_part', '_also_see'])):
        (folder / f'{name}.dict').write_text(''.join(f'{number}\t{label}\n' for number, label in enumerate(labels)))


def check(data: KGData, entities: dict[str, int], relations: dict[str, int], num_relations: int) -> None:
    assert (data.num_nodes, data.num_relations, data.has_inverse_relations) == (4, num_relations, False)
    assert data.entity_labels is None and data.relation_labels is None
    for split in SPLITS:
        expected = [[entities[h], relations[r], entities[t]] for h, r, t in FACTS[split]]
        assert sorted(data.facts(split).tolist()) == sorted(expected)


def test_fb15k_237(tmp_path: Path) -> None:
    write_raw(tmp_path / 'raw')
    entities = {'c': 0, 'a': 1, 'b': 2, 'd': 3}  # by first appearance
    relations = {'_also_see': 0, '_has_part': 1, '_hypernym': 2}
    check(from_pyg(FB15k_237(str(tmp_path))), entities, relations, 3)
    check(from_pyg(FB15k_237(str(tmp_path), split='test')), entities, relations, 3)
    parts = {name: FB15k_237(str(tmp_path), split=name) for name in ('test', 'val', 'train')}
    check(from_pyg(parts), entities, relations, 3)
    check(from_pyg({name: part[0] for name, part in parts.items()}), entities, relations, 3)


def test_wordnet18rr(tmp_path: Path) -> None:
    write_raw(tmp_path / 'raw')
    dataset = WordNet18RR(str(tmp_path))
    entities = {'c': 0, 'b': 2, 'a': 1, 'd': 3}
    for source in (dataset, dataset[0]):
        # Relations have fixed ids here; '_hypernym' is 3.
        check(from_pyg(source), entities, WordNet18RR.edge2id, 4)
    data = dataset[0]
    data.val_mask[int(data.train_mask.nonzero()[0])] = True
    with pytest.raises(DataError, match=r'edge \d .* 2 .*masks'):
        from_pyg(data)


def test_rel_link_pred_dataset(tmp_path: Path) -> None:
    write_raw(tmp_path / 'FB15k-237' / 'raw')
    dataset = RelLinkPredDataset(str(tmp_path), 'FB15k-237')
    assert dataset[0].edge_index.size(1) == 2 * len(FACTS['train'])  # inverse edges are in there
    entities = dict(zip('dcba', range(4)))
    relations = {'_hypernym': 0, '_has_part': 1, '_also_see': 2}
    for source in (dataset, dataset[0]):
        check(from_pyg(source), entities, relations, 3)


def test_the_number_of_relations_is_read_off_inverse_edges() -> None:
    # Five relations, as the inverse types say, although facts name the first alone.
    edge = torch.tensor([[0], [1]])
    data = Data(num_nodes=2, edge_index=torch.cat([edge, edge.flip(0)], dim=1), edge_type=torch.tensor([0, 5]),
                train_edge_index=edge, train_edge_type=torch.tensor([0]), valid_edge_index=edge,
                valid_edge_type=torch.tensor([0]), test_edge_index=edge, test_edge_type=torch.tensor([0]))
    graph = from_pyg(data)
    assert graph.num_relations == 5 and graph.edge_type.tolist() == [0]
    assert graph.with_inverse_relations().edge_type.tolist() == data.edge_type.tolist()


def complete(**attributes: Any) -> Data:
    nodes = torch.arange(10)
    edge_type = torch.zeros(100, dtype=torch.long)
    return Data(**{'edge_index': torch.cartesian_prod(nodes, nodes).t(), 'edge_type': edge_type, 'num_nodes': 10,
                   **attributes})


def test_facts_without_a_split() -> None:
    with pytest.raises(ArgumentError, match='fractions='):
        from_pyg(complete())
    first, second = (from_pyg(complete(), (0.6, 0.2, 0.2), seed) for seed in (1, 1))
    assert [first.num_facts(split) for split in SPLITS] == [60, 20, 20]
    assert torch.equal(first.edge_index, second.edge_index)


@pytest.mark.parametrize('attributes', [
    {'edge_weight': torch.rand(100)}, {'edge_attr': torch.rand(100, 3)}, {'x': torch.rand(10, 4)},
    {'y': torch.zeros(10)}, {'time': torch.arange(100)}, {'train_mask': torch.ones(10, dtype=torch.bool)},
    {'edge_label_index': torch.zeros(2, 1)},
    {'train_mask': torch.ones(10, dtype=torch.bool), 'val_mask': torch.ones(10, dtype=torch.bool)},
])
def test_attributes_that_would_be_ignored_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=', '.join(attributes)):
        from_pyg(complete(**attributes), (0.6, 0.2, 0.2))
    with pytest.raises(DataError, match=', '.join(attributes)):
        from_pyg({'train': complete(), 'test': complete(**attributes)})


def test_remedies_for_attributes_that_would_be_ignored() -> None:
    with pytest.raises(DataError, match=r'ignored: x, y\. Pass keep=.*, weights=.*, or a Data without them$'):
        from_pyg(complete(x=torch.zeros(10, 2), y=torch.zeros(10)), (0.6, 0.2, 0.2))
    graph = complete()
    for options in ({}, {'split_labels': True}):
        part = RandomLinkSplit(**options)(graph)[0]
        with pytest.raises(DataError, match='RandomLinkSplit; pass the graph before that split'):
            from_pyg(part)
        del part.edge_type
        with pytest.raises(DataError, match=r'RandomLinkSplit; pass all three parts: load_dataset\(\(train, val, test'):
            from_pyg(part)


def mask(*edges: int) -> torch.Tensor:
    found = torch.zeros(100, dtype=torch.bool)
    found[list(edges)] = True
    return found


@pytest.mark.parametrize('name', ['val', 'valid', 'validation', 'dev'])
def test_all_names_of_a_split(name: str) -> None:
    parts = {'train_mask': ~mask(1, 2, 3), f'{name}_mask': mask(1), 'test_mask': mask(2, 3)}
    data = from_pyg(complete(**parts))
    assert data.facts('valid').tolist() == [[0, 0, 1]] and data.facts('test').tolist() == [[0, 0, 2], [0, 0, 3]]
    edge = torch.tensor([[0, 1], [1, 2]])
    kinds = torch.tensor([0, 1])
    given = Data(num_nodes=3, train_edge_index=edge, train_edge_type=kinds)
    given[f'{name}_edge_index'], given[f'{name}_edge_type'] = edge.flip(0), kinds
    data = from_pyg(given)
    assert data.facts('valid').tolist() == [[1, 0, 0], [2, 1, 1]] and data.num_facts('train') == 2
    # As in a KGData, edge_index is what is trained on.
    given.edge_index, given.edge_type = given.train_edge_index, given.train_edge_type
    del given.train_edge_index, given.train_edge_type
    assert from_pyg(given).facts('all').tolist() == data.facts('all').tolist()
    given.valid_edge_index = given.val_edge_index = edge
    with pytest.raises(DataError, match='valid_edge_index.* val_edge_index'):
        from_pyg(given)


@pytest.mark.parametrize(('value', 'got'), [
    (mask(1).long(), 'int64'), (mask(1).to(torch.uint8), 'uint8'), (mask(1).float(), 'float32'),
    (mask(1).tolist(), 'list'), (mask(1).numpy(), 'ndarray'), (mask(1).unsqueeze(1), r'\(100, 1\)'), (1, 'int'),
])
def test_masks_are_boolean(value: Any, got: str) -> None:
    for name in ('train', 'val', 'test'):
        parts = {'train_mask': ~mask(1, 2), 'val_mask': mask(1), 'test_mask': mask(2), f'{name}_mask': value}
        with pytest.raises(DataError, match=rf'{name}_mask: .*\(100,\).*{got}'):
            from_pyg(complete(**parts))


def test_a_graph_without_relation_types_is_one_relation() -> None:
    data = from_pyg(complete(edge_type=None), (0.6, 0.2, 0.2))
    assert data.num_relations == 1 and torch.equal(data.edge_index, from_pyg(complete(), (0.6, 0.2, 0.2)).edge_index)
    assert from_pyg(complete(edge_type=None, train_mask=~mask(1), test_mask=mask(1))).num_facts('test') == 1
    with pytest.raises(DataError, match='train .*edge_type'):
        from_pyg({'train': complete(), 'test': complete(edge_type=None)})
    edge = torch.tensor([[0], [1]])
    with pytest.raises(DataError, match='test_edge_type.*train_edge_type'):
        from_pyg(Data(train_edge_index=edge, train_edge_type=edge[0], test_edge_index=edge))


@pytest.mark.parametrize('options', [{}, {'is_undirected': True}, {'disjoint_train_ratio': 0.3}, {'split_labels': True},
                                     {'neg_sampling_ratio': 0.0}, {'add_negative_train_samples': False}])
def test_parts_of_random_link_split(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    nodes = torch.arange(20)
    edges = torch.cartesian_prod(nodes, nodes)
    edges = edges[(edges[:, 0] < edges[:, 1]) & ((edges.sum(1) % 3) == 0)]
    edge_index = torch.cat([edges, edges.flip(1)]).t()
    split = RandomLinkSplit(num_val=0.1, num_test=0.2, **options)
    parts = dict(zip(('train', 'val', 'test'), split(Data(edge_index=edge_index, num_nodes=20))))
    data = from_pyg(parts)
    every = {tuple(edge) for edge in edge_index.t().tolist()}
    found = [{(head, tail) for head, _, tail in data.facts(name).tolist()} for name in SPLITS]
    assert data.num_relations == 1 and data.num_nodes == 20
    assert all(part <= every for part in found)  # no negative among them
    assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
    reached = set().union(*found)
    assert reached | {(tail, head) for head, tail in reached} == every


def test_relations_that_random_link_split_has_lost() -> None:
    parts = dict(zip(('train', 'val', 'test'), RandomLinkSplit()(complete())))
    with pytest.raises(DataError, match="'train'.*RandomLinkSplit.*fractions="):
        from_pyg(parts)
    with pytest.raises(DataError, match='edge_label'):
        from_pyg(parts['train'], (1, 0, 0))
    with pytest.raises(DataError, match='3 graphs'):
        from_pyg(tuple(parts.values()))


def test_edges_beside_the_splits_are_not_ignored() -> None:
    edge = torch.tensor([[0, 1], [1, 2]])
    given = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), train_edge_index=edge[:, :1],
                 test_edge_index=edge[:, 1:])
    with pytest.raises(DataError, match=r'edge_index, column 2: \[2, 0, 0\]'):
        from_pyg(given)
    given.edge_index = edge
    assert from_pyg(given).num_facts('train') == 1


def test_types_of_nodes_are_kept() -> None:
    hetero = HeteroData()
    hetero['a'].num_nodes, hetero['b'].num_nodes = 3, 2
    hetero['a', 'to', 'b'].edge_index = torch.tensor([[0, 1, 2], [0, 1, 1]])
    hetero['b', 'back', 'a'].edge_index = torch.tensor([[0, 1], [2, 2]])
    data = from_pyg(hetero.to_homogeneous(), (1, 0, 0))
    assert data.num_relations == 2 and data.num_nodes == 5 and data.node_type.tolist() == [0, 0, 0, 1, 1]


def test_labels_and_sizes_of_a_data_are_kept() -> None:
    labels = [f'e{number}' for number in range(12)]
    data = from_pyg(complete(num_nodes=None, entity_labels=labels, num_relations=4), (1, 0, 0))
    assert (data.num_nodes, data.num_relations, data.entity_labels) == (12, 4, labels)


@pytest.mark.parametrize(('key', 'value', 'other'), [
    ('entity_labels', ['a', 'b', 'c'], ['x', 'y', 'z']), ('entity_labels', ['a', 'b', 'c'], ['a', 'b']),
    ('relation_labels', ['r'], ['s']), ('node_type', torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])),
    ('x', torch.zeros(3, 2), torch.ones(3, 2)), ('x', torch.zeros(3, 2), torch.zeros(3, 3)),
])
def test_splits_that_differ_in_nodes_or_relations(key: str, value: Any, other: Any) -> None:
    parts = {split: Data(edge_index=torch.tensor([[0, 1], [1, 2]]), edge_type=torch.tensor([0, 0])) for split in SPLITS}
    parts['train'][key], parts['test'][key] = value, other
    keep = ('x', ) if key == 'x' else ()
    with pytest.raises(DataError, match=f"{key}: .*'test'.*'train'"):
        from_pyg(parts, keep=keep)
    # The split without it goes with the others.
    parts['test'][key] = value.clone() if isinstance(value, torch.Tensor) else tuple(value)
    data = from_pyg(parts, keep=keep)
    assert data[key] is value and (data.num_nodes, data.num_relations) == (3, 1)


def test_missing_features_are_equal() -> None:
    parts = {split: complete(x=torch.full((10, 1), float('nan'))) for split in SPLITS}
    assert bool(from_pyg(parts, keep=('x', )).x.isnan().all())


def test_the_number_of_nodes() -> None:
    edges = {'edge_index': torch.tensor([[0, 7], [1, 2]])}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for attributes in ({'x': torch.zeros(10, 2)}, {'emb': torch.zeros(10)}, {'num_nodes': 10, 'x': torch.zeros(10)},
                           {'node_type': torch.zeros(10, dtype=torch.long)}):
            data = from_pyg(Data(**edges, **attributes), (1, 0, 0), keep={*attributes} & {'x', 'emb'})
            assert data.num_nodes == Data(**edges, num_nodes=10).num_nodes
            # As PyG says, where it says anything.
            assert 'emb' in attributes or Data(**edges, **attributes).num_nodes == data.num_nodes
        assert from_pyg(Data(**edges), (1, 0, 0)).num_nodes == 8
    for attributes in ({'x': torch.zeros(5)}, {'num_nodes': 9, 'x': torch.zeros(10)},
                       {'x': torch.zeros(10), 'emb': torch.zeros(12)}):
        with pytest.raises(DataError, match='x: .* nodes'):
            from_pyg(Data(**edges, **attributes), (1, 0, 0), keep={*attributes} - {'num_nodes'})


@pytest.mark.parametrize(('size', 'given', 'labels', 'count'), [('num_nodes', 12, 'entity_labels', 10),
                                                               ('num_relations', 3, 'relation_labels', 2)])
def test_sizes_that_contradict_labels(size: str, given: int, labels: str, count: int) -> None:
    source = complete(**{size: given, labels: [f'n{number}' for number in range(count)]})
    with pytest.raises(DataError, match=rf'{labels}: .*{given}.*{size}.*{count}'):
        from_pyg(source, (1, 0, 0))
    with pytest.raises(DataError, match=rf'{labels}: .*{given}.*{size}.*{count}'):
        from_pyg({'train': source, 'test': complete()})


def test_what_pyg_has_no_facts_in() -> None:
    edge = torch.tensor([[0], [1]])
    with pytest.raises(DataError, match='edge_index'):
        from_pyg(Data(num_nodes=2))
    with pytest.raises(DataError, match=r'edge_index .*\(2, 1\) .*edge_type \(2,\)'):
        from_pyg(Data(edge_index=edge, edge_type=torch.tensor([0, 0]), num_nodes=2), (1, 0, 0))
    with pytest.raises(DataError, match='edge_type: .*float32'):
        from_pyg(Data(edge_index=edge, edge_type=torch.tensor([0.0]), num_nodes=2), (1, 0, 0))
    with pytest.raises(DataError, match='edge_index: .*list'):
        from_pyg(Data(edge_index=[[0], [1]], edge_type=torch.tensor([0]), num_nodes=2), (1, 0, 0))
    with pytest.raises(DataError, match='2 graphs'):
        from_pyg([Data(), Data()])
    with pytest.raises(DataError, match='int'):
        from_pyg(3)
    graph = Data(edge_index=edge, edge_type=torch.tensor([0]), num_nodes=2)
    with pytest.raises(ArgumentError, match='tset'):
        from_pyg({'train': graph, 'tset': graph})
    with pytest.raises(ArgumentError, match="'valid', 'val'"):
        from_pyg({'train': graph, 'valid': graph, 'val': graph})
    with pytest.raises(ArgumentError, match='fractions'):
        from_pyg({'train': graph, 'test': graph}, (0.8, 0.1, 0.1))
