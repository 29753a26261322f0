r"""The shapes of PyG's own datasets, made by PyG's own code from tiny raw files, and PyKEEN's, with no network."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import FB15k_237, RelLinkPredDataset, WordNet18RR

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.pyg import from_pyg
from pyg_emu.data.io.pykeen import from_pykeen

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
    with pytest.raises(DataError, match=r'edge \d is in 2 of the masks'):
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


def test_facts_without_a_split() -> None:
    nodes = torch.arange(10)
    data = Data(edge_index=torch.cartesian_prod(nodes, nodes).t(), edge_type=torch.zeros(100, dtype=torch.long),
                num_nodes=10, train_mask=torch.ones(10, dtype=torch.bool))  # over nodes, as in node classification
    with pytest.raises(ArgumentError, match='has no split.*pass fractions='):
        from_pyg(data)
    first, second = (from_pyg(data, (0.6, 0.2, 0.2), seed) for seed in (1, 1))
    assert [first.num_facts(split) for split in SPLITS] == [60, 20, 20]
    assert torch.equal(first.edge_index, second.edge_index)


def test_what_pyg_has_no_facts_in() -> None:
    edge = torch.tensor([[0], [1]])
    with pytest.raises(DataError, match='has no edge_type'):
        from_pyg(Data(edge_index=edge, num_nodes=2))
    with pytest.raises(DataError, match=r'edge_index has shape \(2, 1\) and edge_type \(2,\)'):
        from_pyg(Data(edge_index=edge, edge_type=torch.tensor([0, 0]), num_nodes=2), (1, 0, 0))
    with pytest.raises(DataError, match='holds 2 graphs'):
        from_pyg([Data(), Data()])
    parts = dict.fromkeys(('train', 'val'), Data(edge_index=edge, edge_type=torch.tensor([0]), edge_label_index=edge))
    with pytest.raises(DataError, match="'train' is a part of RandomLinkSplit.*with fractions="):
        from_pyg(parts)
    assert from_pyg(parts['train'], (1, 0, 0)).num_facts('train') == 1
    with pytest.raises(DataError, match='int is not a PyG dataset'):
        from_pyg(3)
    graph = Data(edge_index=edge, edge_type=torch.tensor([0]), num_nodes=2)
    with pytest.raises(ArgumentError, match='expected the splits'):
        from_pyg({'train': graph, 'tset': graph})
    with pytest.raises(ArgumentError, match='come with a split already'):
        from_pyg({'train': graph, 'test': graph}, (0.8, 0.1, 0.1))


# PyKEEN ######################################################################

def factories(**options: Any) -> dict[str, Any]:
    triples = pytest.importorskip('pykeen.triples')
    numpy = pytest.importorskip('numpy')
    # Ids that are not those of the sorted labels.
    mapping = {'entity_to_id': dict(zip('dcba', range(4))), **options}
    mapping.setdefault('relation_to_id', {'_hypernym': 0, '_has_part': 1, '_also_see': 2})
    return {split: triples.TriplesFactory.from_labeled_triples(numpy.array(facts), **mapping)
            for split, facts in FACTS.items()}


@pytest.mark.parametrize('inverse', [False, True])
def test_pykeen_factories_keep_ids_and_labels(inverse: bool) -> None:
    parts = factories(create_inverse_triples=inverse)
    eager = pytest.importorskip('pykeen.datasets').EagerDataset(parts['train'], parts['test'], parts['valid'])
    for source in (parts, eager):
        data = from_pykeen(source)
        assert data.entity_labels == ['d', 'c', 'b', 'a'] and data.num_relations == 3
        assert data.relation_labels == ['_hypernym', '_has_part', '_also_see']
        for split in SPLITS:
            labels = [(data.entity_labels[h], data.relation_labels[r], data.entity_labels[t])
                      for h, r, t in data.facts(split).tolist()]
            assert sorted(labels) == sorted(FACTS[split])
    without = from_pykeen(pytest.importorskip('pykeen.datasets').EagerDataset(parts['train'], parts['test']))
    assert [without.num_facts(split) for split in SPLITS] == [3, 0, 2]


def test_a_single_pykeen_factory_is_split() -> None:
    data = from_pykeen(factories()['train'], (1.0, 0.0, 0.0))
    assert data.num_facts('train') == 3 and data.entity_labels == ['d', 'c', 'b', 'a']
    triples = pytest.importorskip('pykeen.triples')
    facts = torch.cartesian_prod(torch.arange(9), torch.arange(2), torch.arange(9))
    data = from_pykeen(triples.CoreTriplesFactory.create(facts))
    assert [data.num_facts(split) for split in SPLITS] == [130, 16, 16] and data.entity_labels is None


def test_pykeen_factories_that_do_not_belong_together() -> None:
    other = factories(entity_to_id=dict(zip('abcd', range(4))))
    with pytest.raises(DataError, match="factory of 'test' numbers its entities or relations unlike"):
        from_pykeen({**factories(), 'test': other['test']})
    with pytest.raises(DataError, match='int is neither a PyKEEN dataset nor a triples factory'):
        from_pykeen(3)
    with pytest.raises(ArgumentError, match='come with a split already'):
        from_pykeen(factories(), (0.8, 0.1, 0.1))


@pytest.mark.parametrize(('name', 'sizes'), [
    ('Nations', (14, 55, 1592, 199, 201)), ('umls', (135, 46, 5216, 652, 661)),
])
def test_pykeen_names(name: str, sizes: tuple[int, ...]) -> None:
    pytest.importorskip('pykeen')
    data = from_pykeen(name)
    assert (data.num_nodes, data.num_relations, *(data.num_facts(split) for split in SPLITS)) == sizes
