r"""Figures 3 and 5 of the DeMix paper from a tiny run."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.demix_figures import SHOWN, busiest_pattern, main, tails
from pyg_emu import DistMult, KGData
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe


def make_data() -> KGData:
    torch.manual_seed(0)
    return KGData(torch.tensor([[0, 0, 0, 1], [1, 2, 3, 4]]), torch.tensor([0, 0, 0, 1]), 7, 2,
                  valid_edge_index=torch.tensor([[0, 1], [4, 5]]), valid_edge_type=torch.tensor([0, 1]),
                  test_edge_index=torch.tensor([[0], [5]]), test_edge_type=torch.tensor([0]))


def test_tails_of_a_pattern_by_score() -> None:
    data = make_data()
    model = DistMult(7, 2, 4)
    found = tails(model, data, 0, 0)
    assert {name: set(ids.tolist()) for name, ids in found.items()} == {
        'training facts': {1, 2, 3}, 'held-out facts': {4, 5}, 'other entities': {0, 6}}
    score = model.score_all(model.query(torch.tensor([0]), torch.tensor([0]), 'tail'))[0]
    for name, ids in found.items():
        own = score[ids].tolist()
        assert own == sorted(own, reverse=name == 'other entities') and len(own) <= SHOWN[name]
    assert busiest_pattern(data) == (0, 0)


def test_figures_of_a_run(graph_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('matplotlib')
    pytest.importorskip('sklearn')
    recipe = load_recipe({'dataset': str(graph_folder), 'model': {'hidden_channels': 4}, 'batch_size': 40,
                          'negatives': {'num_negatives': 3}, 'num_steps': 4, 'evaluate_every': 2})
    run = tmp_path / 'run'
    run_recipe(recipe, run, progress=False)
    main(['convergence', '--runs', str(run), '--out', str(tmp_path / 'out')])
    main(['embeddings', '--run', str(run), '--out', str(tmp_path / 'out')])
    curves, points = (json.loads(next((tmp_path / 'out' / 'demix').glob(f'{name}-*.json')).read_text())['metrics']
                      for name in ('convergence', 'embeddings'))
    assert len(curves['curves']['run']['seconds']) == 2
    assert sum(map(len, points['points'].values())) >= 4
    assert len(list((tmp_path / 'out' / 'demix').glob('*.png'))) == 2
