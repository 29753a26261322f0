r"""Holds ARCHITECTURE.md: who may import whom, what a module must say about itself, and how long it may be."""
from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'pyg_emu'
FILES = sorted(PACKAGE.rglob('*.py'))
MAX_LINES = 420

# Loaded only by those who use them: slow to import, or not installed everywhere.
HEAVY = ('numba', 'triton', 'pykeen', 'matplotlib', 'tensorboard', 'optuna')

FOUNDATIONS = {'errors', 'arguments', 'interaction', 'contract'}
EVERYTHING = {path.relative_to(PACKAGE).parts[0].removesuffix('.py') for path in FILES} - {'__init__', '__main__'}
COMMANDS = {'cli', 'cli_tune', 'cli_options'}

# "Who may import whom" of ARCHITECTURE.md. A room is a module or a folder directly inside of the package; besides what
# stands here, each may import itself and the foundations.
MAY_IMPORT: dict[str, set[str]] = {
    'errors': set(),
    'arguments': set(),
    'interaction': set(),
    'contract': set(),
    'ops': set(),
    'index': set(),
    'checks': set(),
    'data': {'checks', 'index'},
    'adapters': {'ops', 'models'},
    'readers': set(),
    'vocabulary': set(),
    'splitting': set(),
    'tables': {'data', 'readers', 'splitting', 'vocabulary'},
    'convert': {'data', 'readers', 'splitting', 'tables'},
    'datasets': {'convert', 'data', 'tables'},
    'loader': {'checks', 'data', 'index'},
    'sampling': {'data', 'index', 'ops'},
    'metrics': {'data', 'index'},
    'evaluation': {'adapters', 'data', 'distributed', 'index', 'metrics', 'ops'},
    'analysis': {'adapters', 'mutation', 'ops'},
    'graphs': {'data', 'datasets', 'evaluation', 'metrics'},
    'prediction': {'adapters', 'data', 'evaluation', 'index', 'ops'},
    'functional': set(),
    'losses': {'adapters', 'functional', 'ops'},
    'one_vs_all': {'adapters', 'losses', 'ops', 'sharding'},
    'regularizers': {'adapters', 'ops'},
    'models': {'ops'},
    'nbfnet_loss': {'losses', 'ops'},
    'explanation': set(),
    'mutation': {'adapters', 'data', 'ops', 'sampling'},
    'optim': {'ops'},
    'schedules': {'optim'},
    'distributed': set(),
    'sharding': {'ops'},
    'data_parallel': {'distributed', 'sharding'},
    'stability': {'distributed'},
    'steps': {'adapters', 'sampling', 'stability'},
    'runstate': {'schedules', 'stability'},
    'interrupt': set(),
    'runfolder': set(),
    'history': {'runfolder'},
    'checkpoint': {'runfolder'},
    'graphed': {'distributed', 'steps'},
    'trainer': EVERYTHING - {'convert', 'datasets', 'readers', 'splitting', 'tables', 'vocabulary', 'layers',
                             'registry', 'recipe', 'runs', 'tuning', *COMMANDS},
    'layers': set(),
    'registry': {'layers'},
    'recipe': {'layers', 'registry'},
    'runs': EVERYTHING - {'tuning', *COMMANDS},
    'tuning': EVERYTHING - COMMANDS,
    'cli_options': {'datasets'},
    'cli_tune': {'cli_options', 'layers', 'recipe', 'tuning'},
    'cli': EVERYTHING,
}
# What the foundations themselves may import.
FOUNDATION_IMPORTS = {'errors': set(), 'arguments': {'errors'}, 'interaction': set(),
                      'contract': {'errors', 'interaction'}}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, 'id', None)
    return name == 'TYPE_CHECKING'


def imports_of(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    r"""Dotted names of all modules imported at run time, inside of functions too; relative ones are resolved."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if is_type_checking(node):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *([node.module] if node.module else [])])
            # `from pyg_emu import data` names a module; `from pyg_emu.data import KGData` does not.
            found.update(f'{module}.{alias.name}' if module == 'pyg_emu' else module for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))
    return found


def rooms_imported_by(path: Path) -> set[str]:
    package = ('pyg_emu', *path.relative_to(PACKAGE).parent.parts)
    names = imports_of(tree_of(path), package) - {'pyg_emu.__version__'}
    return {name.split('.')[1] for name in names if name.startswith('pyg_emu.')}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_imports(path: Path) -> None:
    room = room_of(path)
    if room == '__init__':
        return  # public names only, and lazily: see test_public_api.py
    room = 'cli' if room == '__main__' else room
    assert room in MAY_IMPORT, f'{room} has no place in "Who may import whom": give it one in ARCHITECTURE.md and here'
    allowed = {room} | FOUNDATION_IMPORTS.get(room, FOUNDATIONS | MAY_IMPORT[room])
    forbidden = rooms_imported_by(path) - allowed
    assert not forbidden, f'{relative(path)} may not import {sorted(forbidden)}'


def test_import_reader_sees_every_form() -> None:
    source = """
import torch
from pyg_emu import data
from pyg_emu.ops import emu_score
from . import sibling
from ..losses import EMULoss
if TYPE_CHECKING:
    from pyg_emu.cli import main
def late():
    import pyg_emu.trainer
"""
    assert imports_of(ast.parse(source), ('pyg_emu', 'models')) == {
        'torch', 'pyg_emu.data', 'pyg_emu.ops', 'pyg_emu.models', 'pyg_emu.losses', 'pyg_emu.trainer',
    }


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_module_says_what_it_is_for(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), f'{relative(path)} has no docstring'
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
            assert ast.get_docstring(node), f'{relative(path)}:{node.lineno}: {node.name} has no docstring'


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_module_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding='utf-8').splitlines())
    assert lines <= MAX_LINES, f'{relative(path)} has {lines} lines: give it one job and split the rest off'


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_room_is_described(path: Path) -> None:
    room = room_of(path)
    if room.startswith('__'):
        return
    text = (ROOT / 'ARCHITECTURE.md').read_text(encoding='utf-8')
    assert f'`{room}.py`' in text or f'`{room}/`' in text, f'ARCHITECTURE.md does not say what {room} is for'


def loaded_after(statement: str) -> set[str]:
    script = f'import sys; {statement}; print(*{{name.split(".")[0] for name in sys.modules}})'
    result = subprocess.run([sys.executable, '-c', script], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(result.stdout.split())


def test_package_import_is_free() -> None:
    loaded = loaded_after('import pyg_emu')
    assert 'pyg_emu' in loaded
    assert not loaded & {*HEAVY, 'torch', 'torch_geometric'}


def test_public_names_load_nothing_heavy() -> None:
    # PyG itself imports Numba and others where they are installed: what counts is what we add.
    baseline = loaded_after('import torch_geometric.nn, torch_geometric.transforms, torch_geometric.datasets')
    loaded = loaded_after('import pyg_emu; [getattr(pyg_emu, name) for name in pyg_emu.__all__]')
    assert not (loaded - baseline) & set(HEAVY)
