r"""DeMix in recipes."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint


def test_recipes(graph_folder: Path, tmp_path: Path) -> None:
    source: dict[str, Any] = {
        'dataset': str(graph_folder), 'model': {'name': 'TransE', 'hidden_channels': 4, 'margin': 3.0},
        'negatives': {'num_negatives': 4, 'mutation': {'name': 'demix', 'warmup': 1, 'mu': float('inf')}},
        'loss': {'name': 'demix', 'temperature': 0.5}, 'batch_size': 25, 'num_steps': 8, 'evaluate_every': 8}
    recipe = load_recipe(source)
    assert recipe.negatives['mutation']['mu'] == float('inf')
    with use_backend('torch'):
        run_recipe(recipe, run_dir=tmp_path / 'run', device='cpu', progress=False)
    assert load_checkpoint(tmp_path / 'run' / 'last.pt')['parts']['transform.mutation']['seen'] == 200
    adversarial = {**source, 'loss': {'name': 'self_adversarial', 'mutate': True}}
    load_recipe(adversarial)
    for change, facts in (
            ({'loss': 'cross_entropy'}, ['loss.name: ', 'demix', 'cross_entropy', 'self_adversarial']),
            ({'loss': 'self_adversarial'}, ['loss.mutate: ', 'self_adversarial', 'demix']),
            ({'model': 'NBFNet', 'loss': 'nbfnet_emu'}, ['negatives.mutation: ', 'demix', 'NBFNet'])):
        with pytest.raises(RecipeError) as error:
            load_recipe({**source, **change})
        assert all(fact in str(error.value) for fact in facts)
