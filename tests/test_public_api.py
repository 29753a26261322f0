r"""The names a user imports: all there, all documented, none of them shadowed."""
from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyg_emu

ROOT = Path(__file__).resolve().parent.parent
NAMES = [name for name in pyg_emu.__all__ if name != '__version__']


@pytest.mark.parametrize('name', NAMES)
def test_name_is_there_and_documented(name: str) -> None:
    value = getattr(pyg_emu, name)
    assert not inspect.ismodule(value), f'{name} is the module, not what it defines'
    assert inspect.getdoc(value)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(pyg_emu.__file__).read_text(encoding='utf-8'))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: node.module
        for node in block.body if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == {name: f'pyg_emu.{module}' for name, module in pyg_emu._MODULES.items()}


def test_no_name_hides_a_module() -> None:
    # Importing a submodule sets an attribute of its name on the package, which would replace a function of that name.
    modules = {path.stem for path in Path(pyg_emu.__file__).parent.glob('*.py')}
    assert not modules & set(NAMES)


def test_dir_and_unknown_names() -> None:
    assert set(NAMES) <= set(dir(pyg_emu))
    with pytest.raises(AttributeError, match='no_such_name'):
        pyg_emu.no_such_name  # noqa: B018


def test_version_is_said_once() -> None:
    assert re.fullmatch(r'\d+\.\d+\.\d+', pyg_emu.__version__)
    assert f'version: {pyg_emu.__version__}\n' in (ROOT / 'CITATION.cff').read_text(encoding='utf-8')


@pytest.mark.parametrize('command', [['--help'], ['train', '--help'], ['evaluate', '--help'], ['predict', '--help']])
def test_module_is_a_command(command: list[str]) -> None:
    result = subprocess.run([sys.executable, '-m', 'pyg_emu', *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'usage' in result.stdout.lower()
