r"""Two small runs on facts whose labels are HTML, made once for all tests of this folder."""
from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.ops import use_backend

#: Labels that would become elements, end a script, or load something, if they were not escaped.
ENTITIES = ['<img src=x onerror="document.title=\'entity\'">', '</script><script>document.title=1</script>',
            '<!--<script>', '&lt;b&gt;', "a' onmouseover='x", '<style>*{display:none}</style>',
            *(f'e{number}' for number in range(8))]
RELATIONS = ['<b>likes</b>', '</td></table><h1>knows</h1>', 'r2', 'r3']


def write_graph(folder: Path, splits: tuple[str, ...] = ('train', 'valid', 'test')) -> Path:
    r"""Writes random facts: 100 to train on, 15 for validation, the others for the test."""
    rng = random.Random(0)
    size = len(ENTITIES)
    facts = sorted({(rng.randrange(size), rng.randrange(4), rng.randrange(size)) for _ in range(170)})
    rng.shuffle(facts)
    folder.mkdir(parents=True)
    for split, rows in (('train', facts[:100]), ('valid', facts[100:115]), ('test', facts[115:])):
        lines = [f'{ENTITIES[head]}\t{RELATIONS[relation]}\t{ENTITIES[tail]}\n' for head, relation, tail in rows]
        if split in splits:
            (folder / f'{split}.txt').write_text(''.join(lines))
    return folder


def train(data: Any, folder: Path, *assignments: str) -> Path:
    r"""Trains two steps, each with an evaluation."""
    recipe = load_recipe({'dataset': data, 'model': {'hidden_channels': 4}, 'negatives': {'num_negatives': 3},
                          'batch_size': 50, 'num_steps': 4, 'evaluate_every': 2}, [assignment_layer(assignments)])
    with use_backend('torch'):
        run_recipe(recipe, folder, progress=False, device='cpu')
    return folder


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A folder with the data :obj:`graph` and the runs :obj:`emu` and :obj:`plain`. Not to be changed."""
    root = tmp_path_factory.mktemp('report')
    data = str(write_graph(root / 'graph'))
    train(data, root / 'emu')
    train(data, root / 'plain', 'loss=cross_entropy', 'negatives.mutation_rate=0', 'seed=1')
    return root


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    r"""A copy of the run :obj:`emu`."""
    return Path(shutil.copytree(trained / 'emu', tmp_path / 'run'))
