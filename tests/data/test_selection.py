r"""Parts of a graph keep its splits, its labels and the attributes of its entities in agreement."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.graph import KGData

LABELS = ['a', 'b', 'c', 'd', 'e']


def make_data() -> KGData:
    return KGData(torch.tensor([[0, 1, 2, 4], [1, 2, 3, 0]]), torch.tensor([0, 1, 0, 1]),
                  valid_edge_index=torch.tensor([[0, 2], [2, 4]]), valid_edge_type=torch.tensor([1, 0]),
                  test_edge_index=torch.tensor([[1, 3, 4, 2], [4, 0, 2, 1]]), test_edge_type=torch.tensor([0, 1, 1, 0]),
                  entity_labels=LABELS, relation_labels=['r', 's'], x=torch.arange(5.0))


def labelled(data: KGData, split: Any) -> list[tuple[str, int, str]]:
    labels = data.entity_labels
    assert labels is not None
    return [(labels[head], relation, labels[tail]) for head, relation, tail in data.facts(split).tolist()]


@pytest.mark.parametrize('subset', [
    torch.tensor([1, 2, 4]), torch.tensor([4, 1, 2]), torch.tensor([2, 4, 1], dtype=torch.int32), [1, 2, 4],
    torch.tensor([False, True, True, False, True]),
])
@pytest.mark.parametrize('inverse', [False, True])
def test_all_splits_are_relabelled(subset: Any, inverse: bool) -> None:
    data = make_data()
    data = data.with_inverse_relations() if inverse else data
    before = data.facts('all').tolist()
    part = data.subgraph(subset)
    kept = torch.as_tensor(subset)
    kept = kept.nonzero().squeeze(1) if kept.dtype == torch.bool else kept.long()
    assert part.entity_labels == [LABELS[number] for number in kept] and part.num_nodes == 3
    assert part.x.tolist() == kept.tolist()
    assert labelled(part, 'train') == [('b', 1, 'c')]
    assert labelled(part, 'valid') == [('c', 0, 'e')]
    assert labelled(part, 'test') == [('b', 0, 'e'), ('e', 1, 'c'), ('c', 0, 'b')]
    assert part.num_relations == 2 and part.relation_labels == ['r', 's']
    assert part.has_inverse_relations == inverse
    with pytest.warns():
        assert part.validate()
    assert data.facts('all').tolist() == before and data.num_nodes == 5


@pytest.mark.parametrize(('subset', 'said'), [
    (torch.tensor([0, 5]), '5'), (torch.tensor([-1, 0]), '-1'), (torch.tensor([1, 1]), '1 more'),
    (torch.tensor([0.0]), 'float32'), (torch.ones(4, dtype=torch.bool), r'\(5,\).*\(4,\)'), ('ab', 'str'),
    (torch.tensor([[0]]), r'\(1, 1\)'),
])
def test_impossible_subsets(subset: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=f'subset: .*{said}'):
        make_data().subgraph(subset)


def test_edges_are_selected_without_the_held_out_ones() -> None:
    # Test has as many facts as train, which PyG would take for attributes of the same edges.
    data = make_data()
    part = data.edge_subgraph(torch.tensor([3, 0]))
    assert labelled(part, 'train') == [('e', 1, 'a'), ('a', 0, 'b')]
    assert all(labelled(part, split) == labelled(data, split) for split in ('valid', 'test'))
    assert part.num_nodes == 5 and part.validate()
    assert labelled(data.edge_subgraph(torch.tensor([True, False, False, False])), 'train') == [('a', 0, 'b')]


def test_sorting_leaves_facts_whole() -> None:
    data = KGData(torch.tensor([[2, 0, 1, 0, 0], [0, 1, 2, 1, 1]]), torch.tensor([0, 1, 1, 0, 1]),
                  test_edge_index=torch.tensor([[2, 1, 0, 2, 1], [1, 0, 2, 1, 0]]),
                  test_edge_type=torch.tensor([0, 1, 0, 1, 0]))
    test = data.facts('test').tolist()
    for part, facts in ((data.sort(), [[0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 2], [2, 0, 0]]),
                        (data.sort(sort_by_row=False), [[2, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 2]]),
                        (data.coalesce(), [[0, 0, 1], [0, 1, 1], [1, 1, 2], [2, 0, 0]])):
        assert part.facts('train').tolist() == facts and part.facts('test').tolist() == test
