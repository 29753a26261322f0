r"""Datasets and triples factories of PyKEEN, with no network."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.data.io.pykeen import from_pykeen

SPLITS = ('train', 'valid', 'test')
# The relation of the last id occurs in test alone, so that its inverse is no edge.
FACTS = {
    'train': [('c', '_also_see', 'a'), ('a', '_has_part', 'b'), ('b', '_also_see', 'c')],
    'valid': [('a', '_also_see', 'c')],
    'test': [('b', '_has_part', 'a'), ('d', '_hypernym', 'a')],
}

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


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
    with pytest.raises(DataError, match="'test'.*'train'"):
        from_pykeen({**factories(), 'test': other['test']})
    with pytest.raises(DataError, match='int'):
        from_pykeen(3)
    with pytest.raises(ArgumentError, match='fractions'):
        from_pykeen(factories(), (0.8, 0.1, 0.1))


@pytest.mark.parametrize(('name', 'sizes'), [
    ('Nations', (14, 55, 1592, 199, 201)), ('umls', (135, 46, 5216, 652, 661)),
])
def test_pykeen_names(name: str, sizes: tuple[int, ...]) -> None:
    pytest.importorskip('pykeen')
    data = from_pykeen(name)
    assert (data.num_nodes, data.num_relations, *(data.num_facts(split) for split in SPLITS)) == sizes


def test_folders_that_pykeen_writes(tmp_path: Path) -> None:
    datasets = pytest.importorskip('pykeen.datasets')
    triples = pytest.importorskip('pykeen.triples')
    labels = {'entity_to_id': {'NA': 0, '"a': 1, '01': 2, 'b': 3}, 'relation_to_id': {'null': 0, "it's": 1, 's': 2}}
    facts = {'train': [[0, 2, 1], [2, 0, 3], [1, 0, 1]], 'valid': [[3, 2, 3]], 'test': [[1, 0, 0]]}
    parts = {split: triples.TriplesFactory(torch.tensor(rows), create_inverse_triples=split == 'train', **labels)
             for split, rows in facts.items()}
    datasets.EagerDataset(parts['train'], parts['test'], parts['valid']).to_directory_binary(tmp_path / 'dataset')
    expected = from_pykeen(parts)
    read = load_dataset(tmp_path / 'dataset')
    assert read.entity_labels == ['NA', '"a', '01', 'b'] == expected.entity_labels
    assert read.relation_labels == expected.relation_labels and read.num_relations == 3
    assert all(torch.equal(read.facts(split), expected.facts(split)) for split in SPLITS)
    parts['train'].to_path_binary(tmp_path / 'training_triples')
    assert torch.equal(load_dataset(tmp_path / 'training_triples', require_splits=['train']).facts(), expected.facts())
