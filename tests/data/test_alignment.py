from __future__ import annotations

import pytest
import torch

from pyg_emu import KGData
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.alignment import aligned


def make(**options: object) -> KGData:
    r"""Facts (b, s, a), (c, r, b), and the test fact (a, r, c)."""
    return KGData(torch.tensor([[1, 2], [0, 1]]), torch.tensor([1, 0]), test_edge_index=torch.tensor([[0], [2]]),
                  test_edge_type=torch.tensor([0]), entity_labels=['a', 'b', 'c'], relation_labels=['r', 's'],
                  **options)  # type: ignore[arg-type]


def labelled(data: KGData, split: str = 'train') -> list[tuple[str, str, str]]:
    assert data.entity_labels is not None and data.relation_labels is not None
    return [(data.entity_labels[head], data.relation_labels[relation], data.entity_labels[tail])
            for head, relation, tail in data.facts(split).tolist()]  # type: ignore[arg-type]


def test_known_ids_stay_and_new_ones_follow() -> None:
    data = make()
    out, entities, relations = aligned(data, ['x', 'c', 'a'], ['s', 'q'])
    assert out.entity_labels == ['x', 'c', 'a', 'b'] and out.relation_labels == ['s', 'q', 'r']
    assert (out.num_nodes, out.num_relations) == (4, 3)
    assert (entities.new, entities.absent, relations.new, relations.absent) == (['b'], ['x'], ['r'], ['q'])
    # In the order they were in.
    assert out.facts().tolist() == [[3, 0, 2], [1, 2, 3]]
    for split in ('train', 'test'):
        assert labelled(out, split) == labelled(data, split)
    assert data.facts().tolist() == [[1, 1, 0], [2, 0, 1]]


def test_inverse_relations_go_with_theirs() -> None:
    out = aligned(make().with_inverse_relations(), ['a', 'b', 'c'], ['s', 'q']).data
    assert out.edge_type is not None and out.edge_type.tolist() == [0, 2, 3, 5]
    assert out.num_edge_types == 6
    assert labelled(out) == labelled(make())


def test_values_of_entities_go_with_them() -> None:
    out = aligned(make(node_type=torch.tensor([5, 6, 7])), ['c', 'a'], ['r']).data
    assert out.entity_labels == ['c', 'a', 'b'] and out.node_type.tolist() == [7, 5, 6]
    with pytest.raises(DataError, match=r"node_type.*'x'.*1 such"):
        aligned(make(node_type=torch.tensor([5, 6, 7])), ['x'], ['r'])


def test_ids_serve_as_labels() -> None:
    plain = KGData(torch.tensor([[0], [2]]), torch.tensor([0]))
    out, entities, relations = aligned(plain, 5, 1)
    assert (out.num_nodes, out.num_relations) == (5, 1) and out.entity_labels is None
    assert (entities.new, entities.absent, relations.new) == ([], [3, 4], [])
    assert aligned(plain, 2, 1).entities.new == [2]
    with pytest.raises(ArgumentError, match='entity_labels'):
        aligned(plain, ['a'], 1)
    with pytest.raises(ArgumentError, match='relation_labels'):
        aligned(make(), ['a'], 2)
