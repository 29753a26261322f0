from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.nn import kge

from pyg_emu import KGData, embeddings, models, warm_start
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io import write_vectors

DATA = KGData(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([0, 1, 0]), entity_labels=['a', 'b', 'c', 'd'],
              relation_labels=['r', 's'])
MAKERS: dict[str, Any] = {
    **{name: getattr(models, name) for name in ('DistMult', 'ComplEx', 'RotatE', 'TransE', 'HAKE')},
    **{f'PyG {name}': getattr(kge, name) for name in ('DistMult', 'ComplEx', 'RotatE', 'TransE')},
    'Reciprocal': lambda v, r, d: models.Reciprocal(models.RotatE(v, 2 * r, d)),
}


@pytest.mark.parametrize('name', MAKERS)
def test_vectors_of_another_model_are_taken_over(name: str) -> None:
    torch.manual_seed(0)
    source, model = MAKERS[name](4, 2, 6), MAKERS[name](4, 2, 6)
    given = {kind: embeddings(source, DATA, kind) for kind in ('entity', 'relation')}  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        # By label, in another order.
        warm_start(model, DATA, given['entity'].iloc[::-1], given['relation'].iloc[::-1])
    for kind in ('entity', 'relation'):
        found = embeddings(model, DATA, kind)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(found, given[kind], rtol=1e-5, atol=1e-6)


def test_reciprocal_relations_keep_theirs() -> None:
    model = models.Reciprocal(models.DistMult(4, 4, 3))
    before = model.model.rel_emb.weight.clone()
    warm_start(model, DATA, relations=pd.DataFrame(np.ones((2, 3)), index=['s', 'r']))
    after = model.model.rel_emb.weight
    assert torch.equal(after[:2], torch.ones(2, 3)) and torch.equal(after[2:], before[2:])


def test_entities_without_a_vector_are_counted(tmp_path: Path) -> None:
    model = models.DistMult(4, 2, 2)
    before = model.node_emb.weight.clone()
    vectors = pd.DataFrame([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], index=['c', 'x', 'a'])
    with pytest.warns(DataWarning) as told:
        warm_start(model, DATA, write_vectors(vectors, tmp_path / 'v.vec'))
    texts = [str(one.message) for one in told]
    assert any(re.search("2 of 4 .*'b', 'd'", text) for text in texts)
    assert any(re.search("1 of the given .*'x'", text) for text in texts)
    assert model.node_emb.weight.tolist() == [[5.0, 6.0], before[1].tolist(), [1.0, 2.0], before[3].tolist()]
    assert model.node_emb.weight.requires_grad


def test_encoder_gets_them_as_input() -> None:
    model = models.RGCN(4, 2, 3)
    warm_start(model, DATA, pd.DataFrame(np.ones((4, 3)), index=list('abcd')))
    assert torch.equal(model.decoder.node_emb.weight, torch.ones(4, 3))


def test_ids_serve_as_labels() -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]))
    model = models.DistMult(2, 1, 2)
    warm_start(model, data, pd.DataFrame([[1.0, 2.0], [3.0, 4.0]]))
    assert model.node_emb.weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize('vectors, error, told', [
    (pd.DataFrame(np.ones((1, 5)), index=['a']), ArgumentError, 'entities: .* 2 .*DistMult.* 5$'),
    (pd.DataFrame([[1.0, float('nan')]], index=['a']), DataError, "entities: .*'a'"),
    (pd.DataFrame(np.ones((2, 2)), index=['a', 'a']), DataError, "entities: .*'a'"),
    (pd.DataFrame(np.ones((2, 2)), index=['x', 'y']), DataError, "entities: .* 2 .*'x'.* 4 .*'a'"),
    (pd.DataFrame({'label': ['a'], 0: [1.0]}), DataError, 'entities: '),
    (pd.DataFrame(), DataError, 'entities: '),
    (torch.ones(4, 2), ArgumentError, 'entities: '),
])
def test_unusable_vectors(vectors: Any, error: type[Exception], told: str) -> None:
    model = models.DistMult(4, 2, 2)
    before = model.node_emb.weight.clone()
    with pytest.raises(error, match=told):
        warm_start(model, DATA, vectors)
    assert torch.equal(model.node_emb.weight, before)


def test_models_without_vectors() -> None:
    given = pd.DataFrame(np.ones((4, 2)), index=list('abcd'))
    with pytest.raises(ArgumentError, match='model: .*entity.*NBFNet'):
        warm_start(models.NBFNet(2, 4), DATA, given)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='num_nodes=3.* 4 '):
        warm_start(models.DistMult(3, 2, 2), DATA, given)

    class Halved(models.DistMult):
        def relation_rows(self, rel_type: Any, side: Any) -> Any:
            return super().relation_rows(rel_type, side) / 2

    with pytest.raises(ArgumentError, match=r'Halved.*relation_parameters'):
        warm_start(Halved(4, 2, 2), DATA, relations=given.set_axis(['r', 's', 'x', 'y']))
