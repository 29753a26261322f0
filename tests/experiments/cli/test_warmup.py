r"""Compiling ahead: what is compiled serves the training, and nothing else is left."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyg_emu.experiments.cli import warmup
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[3]


def test_a_recipe_is_run_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['warmup', 'distmult-umls-emu', '--set', 'model.hidden_channels=8', '--quiet']) == 0
    assert '1 recipe ' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_unknown_recipe_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(warmup, '_facts', lambda: pytest.fail('runs'))
    assert main(['warmup', 'distmult-umls-emu', 'no-such-recipe']) == 2
    assert 'no-such-recipe' in capsys.readouterr().err


def test_a_mutation_mixes_from_the_first_step() -> None:
    # The kernels that mix would not be compiled otherwise.
    short = warmup._short(load_recipe('transe-umls-demix'))
    assert short.negatives['mutation']['name'] == 'demix' and short.negatives['mutation']['warmup'] == 0
    assert load_recipe('transe-umls-demix').negatives['mutation']['warmup'] > 0


def test_rankings_of_a_recipe_need_its_data(tmp_path: Path) -> None:
    (tmp_path / 'a.yaml').write_text('base: distmult-umls-emu\nmetric: hits@5\nvalidation: {ks: [5]}\n'
                                     'evaluation: {candidates: [virus, mammal]}\n')
    assert main(['warmup', str(tmp_path / 'a.yaml'), '--set', 'model.hidden_channels=8', '--quiet']) == 0


@pytest.mark.parametrize('name', warmup.COMMON)
def test_common_recipes_exist(name: str) -> None:
    assert load_recipe(name).description


TRAIN = ('train', '--recipe', 'distmult-umls-emu', '--data', 'facts.tsv', '--steps', '2', '--quiet', '--set',
         'model.hidden_channels=8', '--run-dir', 'run')


@pytest.mark.timeout(600)
def test_training_compiles_nothing_after_it(tmp_path: Path) -> None:
    (tmp_path / 'facts.tsv').write_text(''.join(f'e{i % 40}\tr{i % 3}\te{i * 7 % 41}\n' for i in range(200)))

    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, '-m', 'pyg_emu', *arguments], cwd=tmp_path, capture_output=True,
                              text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
        assert done.returncode == 0, done.stderr
        return done.stderr

    run('warmup', 'distmult-umls-emu', '--quiet')
    assert 'compiling' not in run(*TRAIN)
