r"""Models whose entity rows are in a file have the values that they would have in memory."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.nn import DistMult as PyGDistMult

from pyg_emu import HAKE, RGCN, DistMult, RotatE
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.mapped_table import folder_of
from pyg_emu.models import Reciprocal, map_entities
from pyg_emu.models.mapped import mapped_tables

MODELS: dict[str, Any] = {
    'DistMult': lambda: DistMult(9, 4, 8, sparse=True), 'RotatE': lambda: RotatE(9, 4, 8, sparse=True),
    'HAKE': lambda: HAKE(9, 4, 8, sparse=True), 'Reciprocal': lambda: Reciprocal(DistMult(9, 4, 8, sparse=True))}


@pytest.mark.parametrize('name', MODELS)
def test_initial_values(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = MODELS[name]()
    torch.manual_seed(3)
    with torch.device('meta'):
        model = MODELS[name]()
    assert map_entities(model, tmp_path / 'made') is model
    (table, ) = mapped_tables(model)
    assert folder_of(table) == tmp_path / 'made' and table.requires_grad
    found = model.state_dict()
    assert found.keys() == expected.state_dict().keys()
    for key, value in expected.state_dict().items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize('name', MODELS)
def test_values_of_a_model_are_kept(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    map_entities(model, str(tmp_path))
    (table, ) = mapped_tables(model)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert map_entities(model, tmp_path) is model  # nothing more to do
    assert next(mapped_tables(model)) is table
    known, relation = torch.tensor([1, 8]), torch.tensor([0, 1])
    assert model.query(known, relation, 'tail').requires_grad
    assert model.candidates(known).equal(expected[next(key for key in expected if 'node_emb' in key)][known])
    with torch.no_grad():
        model.load_state_dict({key: value + 1.0 for key, value in expected.items()})
    assert torch.equal(table, expected[next(key for key in expected if 'node_emb' in key)] + 1.0)


def test_frozen_rows_stay_frozen(tmp_path: Path) -> None:
    model = DistMult(9, 4, 8, sparse=True)
    model.node_emb.weight.requires_grad_(False)
    assert not next(mapped_tables(map_entities(model, tmp_path))).requires_grad


def test_rows_stay_where_they_are(tmp_path: Path) -> None:
    model = map_entities(DistMult(9, 4, 8, sparse=True), tmp_path)
    (table, ) = mapped_tables(model)
    assert next(mapped_tables(model.to('cpu').float().eval().share_memory())) is table
    with pytest.raises(ArgumentError, match='9 entity rows.*float32.*float64'):
        model.double()
    with pytest.raises(ArgumentError, match='9 entity rows.*meta'):
        model.to('meta')


def test_errors(tmp_path: Path) -> None:
    for model, facts in ((DistMult(9, 4, 8), 'sparse=True.*sparse=False'), (PyGDistMult(9, 4, 8), 'DistMult'),
                         (RGCN(9, 4, 8), 'RGCN'), (torch.nn.Linear(2, 2), 'Linear'), (DistMult, 'DistMult'),
                         (DistMult(9, 4, 8, sparse=True).bfloat16(), 'float32.*bfloat16')):
        with pytest.raises(ArgumentError, match=f'model: .*{facts}'):
            map_entities(model, tmp_path)  # type: ignore[arg-type]
    for folder in (None, 3, '', ' '):
        with pytest.raises(ArgumentError, match='folder: '):
            map_entities(DistMult(9, 4, 8, sparse=True), folder)  # type: ignore[arg-type]
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='file'):
        map_entities(DistMult(9, 4, 8, sparse=True), tmp_path / 'file')
