r"""Tests of the Sphinx extension that writes the reference from the exports."""
from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

import pyg_emu

pytest.importorskip('lightning', reason='the reference has its module')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def extension() -> ModuleType:
    spec = util.spec_from_file_location('public_names', ROOT / 'docs' / '_extensions' / 'public_names.py')
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_hold_every_public_name_once(extension: ModuleType) -> None:
    pages = '\n'.join(extension.page(room) for room in extension.ROOMS)
    listed = [line.rpartition(':: ')[2] for line in pages.splitlines() if line.startswith('.. auto') and ':: ' in line]
    assert len(set(listed)) == len(listed) > 100
    assert {f'pyg_emu.{name}' for name in pyg_emu.__all__} - {'pyg_emu.__version__'} <= set(listed)
    assert {'pyg_emu.losses.BCELoss', 'pyg_emu.core.errors.DataError', 'pyg_emu.negatives.mutation.Mixup',
            'pyg_emu.training.lightning.LinkPredictionModule', 'pyg_emu.experiments.runs.run_recipe'} <= set(listed)


def test_a_new_export_is_listed(extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules['pyg_emu.losses.emu']
    monkeypatch.setattr(module, 'NewLoss', type('NewLoss', (), {}), raising=False)
    monkeypatch.setitem(pyg_emu._MODULES, 'NewLoss', 'losses.emu')
    monkeypatch.setattr(pyg_emu, 'NewLoss', module.NewLoss, raising=False)
    assert '.. autoclass:: pyg_emu.NewLoss\n' in extension.page('losses')
    assert 'NewLoss' not in extension.page('models')


@pytest.mark.parametrize(('text', 'name'), [
    ('EMULoss', 'pyg_emu.EMULoss'), ('evaluate(model, data)', 'pyg_emu.evaluate'), ('mutation_rate', None),
    ('pyg_emu.losses.BCELoss', 'pyg_emu.losses.BCELoss'), ('--evaluate', None), ('pyg-emu train', None)])
def test_names_in_prose(text: str, name: str, extension: ModuleType) -> None:
    assert extension.target(text) == name
