r"""Samplers with a generator in recipes."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint

SAMPLERS: dict[str, dict[str, Any]] = {
    'dans': {'name': 'dans', 'film_weight': 1e-3, 'sampler': {'name': 'uniform', 'filtered': True}},
    'kbgan': {'name': 'kbgan', 'generator': 'TransE', 'hidden_channels': 4, 'num_candidates': 6},
}


def source(graph_folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    return {'dataset': str(graph_folder), 'model': {'name': 'DistMult', 'hidden_channels': 4},
            'negatives': {'num_negatives': 4, 'mutation_rate': 0.0, 'sampler': SAMPLERS[name]},
            'loss': 'cross_entropy', 'batch_size': 25, 'num_steps': 6, 'evaluate_every': 3, **changes}


@pytest.mark.parametrize('name', SAMPLERS)
def test_runs(graph_folder: Path, tmp_path: Path, name: str) -> None:
    recipe = load_recipe(source(graph_folder, name))
    assert load_recipe(recipe.to_dict()).hash() == recipe.hash()
    with use_backend('torch'):
        run_recipe(recipe, run_dir=tmp_path / 'run', device='cpu', progress=False)
    state = load_checkpoint(tmp_path / 'run' / 'last.pt')['parts']['transform.sampler']
    assert set(state) == ({'game'} if name == 'dans' else {'generator'})
    history = pd.read_csv(tmp_path / 'run' / 'history.csv')
    column = {'dans': 'pathway_accuracy', 'kbgan': 'entropy'}[name]
    assert history[f'transform.sampler.{column}'].between(0.0, 1.0).all() and len(history) == 2


@pytest.mark.parametrize('name, change, facts', [
    ('dans', {'model': 'NBFNet', 'loss': 'nbfnet_emu'}, ['negatives.sampler: ', 'dans', 'NBFNet']),
    ('kbgan', {'model': 'NBFNet', 'loss': 'nbfnet_emu'}, ['negatives.sampler: ', 'kbgan', 'NBFNet']),
    ('dans', {'negatives': {'sampler': {'name': 'dans', 'pathways': 'three'}}}, ['pathways', "'both'", 'three']),
    ('dans', {'negatives': {'sampler': {'name': 'dans', 'film': 'yes'}}}, ['negatives.sampler.film', 'yes']),
    ('kbgan', {'negatives': {'sampler': {'name': 'kbgan', 'generator': 'RESCAL'}}}, ['generator', 'TransE', 'RESCAL']),
])
def test_what_does_not_fit(graph_folder: Path, name: str, change: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(source(graph_folder, name, **change))
    assert all(fact in str(error.value) for fact in facts)
