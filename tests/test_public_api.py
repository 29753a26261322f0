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


def _described(node: ast.AST) -> tuple[str, dict[str, bool]]:
    r"""A docstring of arguments, and the arguments that it should be about, with whether each has a default."""
    if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return '', {}
    text = (ast.get_docstring(node) or '').partition('Args:\n')[2]
    own = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef) and part.name == '__init__']
    made_by = own[0] if isinstance(node, ast.ClassDef) and own else node
    if not isinstance(made_by, ast.FunctionDef):
        return '', {}
    positional = [*made_by.args.posonlyargs, *made_by.args.args]
    defaults = [*[None] * (len(positional) - len(made_by.args.defaults)), *made_by.args.defaults,
                *made_by.args.kw_defaults]
    return text, {argument.arg: default is not None
                  for argument, default in zip([*positional, *made_by.args.kwonlyargs], defaults)
                  if argument.arg not in ('self', 'cls')}


def test_each_argument_begins_a_line_and_is_optional_if_it_has_a_default() -> None:
    # Where lines are filled, the next argument slips into the description of the one before it.
    found = 0
    for path in sorted(Path(pyg_emu.__file__).parent.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            text, names = _described(node)
            found += len(names) if text else 0
            slipped = [name for name in names if re.search(rf'^ *\S.* {name} \([^()]+\): ', text, re.MULTILINE)]
            assert not slipped, f'{path.name}, {node.name}: {slipped}'  # type: ignore[attr-defined]
            types = dict(re.findall(r'^ *(\w+) \((.+?)\): ', text, re.MULTILINE))
            unlike = [name for name, has_default in names.items()
                      if has_default and not types.get(name, 'optional').endswith('optional')]
            assert not unlike, f'{path.name}, {node.name}: {unlike}'  # type: ignore[attr-defined]
    assert found > 500


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
