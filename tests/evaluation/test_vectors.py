from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.nn import ComplEx, TransE

import pyg_emu.models as models
from pyg_emu.core.errors import ArgumentError, DataError, DivergenceError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.vectors import embeddings, neighbors

NAMES = ['ann', 'bob', 'cat', 'dan']


def make_data(labels: bool = True) -> KGData:
    names: dict[str, Any] = {'entity_labels': NAMES, 'relation_labels': ['knows', 'likes']} if labels else {}
    return KGData(torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 1]), 4, 2, **names)


def make_model(rows: list[list[float]]) -> models.DistMult:
    model = models.DistMult(4, 2, len(rows[0]))
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor(rows))
    return model


def test_tables_by_label() -> None:
    model = models.ComplEx(4, 2, 3).train()
    frame = embeddings(model, make_data())
    assert frame.shape == (4, 6) and list(frame.index) == NAMES and frame.index.name == 'entity' and model.training
    assert frame.loc['cat'].tolist() == model.node_emb.weight[2].tolist()
    frame.iloc[0, 0] = 99.0
    assert float(model.node_emb.weight.detach()[0, 0]) != 99.0
    relations = embeddings(model, make_data(labels=False), 'relation')
    assert list(relations.index) == [0, 1] and np.array_equal(relations, model.rel_emb.weight.detach())
    layer = ComplEx(4, 2, 3)
    expected = torch.cat([layer.node_emb.weight, layer.node_emb_im.weight], 1).detach()
    assert np.array_equal(embeddings(layer, make_data()), expected)
    assert np.linalg.norm(embeddings(TransE(4, 2, 3, p_norm=2), make_data()), axis=1) == pytest.approx([1] * 4)
    assert embeddings(model.bfloat16(), make_data()).dtypes.eq('float32').all()


@pytest.mark.parametrize('similarity, expected', [
    ('cosine', [('bob', 1.0), ('dan', 0.6), ('cat', 0.0)]),
    ('dot', [('dan', 6.0), ('bob', 2.0), ('cat', 0.0)]),
    ('euclidean', [('bob', -1.0), ('cat', -(5**0.5)), ('dan', -(5**2 + 8**2)**0.5)]),
])
def test_neighbors_by_hand(similarity: Any, expected: list[tuple[str, float]]) -> None:
    model = make_model([[1.0, 0.0], [2.0, 0.0], [0.0, 2.0], [6.0, 8.0]])
    frame = neighbors(model, make_data(), 'ann', similarity=similarity)
    assert frame['entity'].tolist() == ['ann'] * 3 and frame['rank'].tolist() == [1, 2, 3]
    assert frame['neighbor'].tolist() == [name for name, _ in expected]
    assert frame['similarity'].tolist() == pytest.approx([value for _, value in expected], abs=1e-6)


def test_many_neighbors_and_candidates() -> None:
    torch.manual_seed(0)
    model, data = models.DistMult(4, 2, 5), make_data()
    whole = neighbors(model, data, NAMES, 2)
    assert len(whole) == 8 and (whole['entity'] != whole['neighbor']).all()
    for name in NAMES:
        part = neighbors(model, data, name, 2)
        assert part['neighbor'].tolist() == whole.loc[whole['entity'] == name, 'neighbor'].tolist()
    some = neighbors(model, data, ['ann', 'bob'], candidates=['bob', 'cat'])
    assert some.groupby('entity')['neighbor'].apply(set).to_dict() == {'ann': {'bob', 'cat'}, 'bob': {'cat'}}
    assert neighbors(model, make_data(labels=False), 0, 1)['entity'].tolist() == [0]


@pytest.mark.parametrize('call, error, facts', [
    (lambda model, data: embeddings(model, data, 'edge'), ArgumentError, ['kind', "'edge'"]),
    (lambda model, data: embeddings(lambda *_: None, data), ArgumentError, ['model', 'function']),
    (lambda model, data: embeddings(models.NBFNet(2, 4, 1), data), ArgumentError, ['NBFNet']),
    (lambda model, data: embeddings(models.DistMult(5, 2, 4), data), ArgumentError, ['5', '4']),
    (lambda model, data: neighbors(model, data, 'eve'), DataError, ["'eve'"]),
    (lambda model, data: neighbors(model, data, 'ann', 0), ArgumentError, ['k:', '0']),
    (lambda model, data: neighbors(model, data, 'ann', similarity='l1'), ArgumentError, ['similarity', "'l1'"]),
    (lambda model, data: neighbors(make_model([[1.0], [float('nan')], [1.0], [1.0]]), data, 'ann'), DivergenceError,
     ["'bob'"]),
])
def test_bad_arguments(call: Any, error: type[Exception], facts: list[str]) -> None:
    with pytest.raises(error) as caught:
        call(models.DistMult(4, 2, 4), make_data())
    assert all(fact in str(caught.value) for fact in facts), caught.value
