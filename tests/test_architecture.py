r"""Holds ARCHITECTURE.md: who may import whom, what a module must say about itself and what it costs to load."""
from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'pyg_emu'
FILES = sorted(PACKAGE.rglob('*.py'))
MODULES = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path for path in FILES}

# Loaded only by those who use them: slow to import, or not installed everywhere.
HEAVY = ('numba', 'triton', 'pykeen', 'matplotlib', 'tensorboard', 'optuna', 'plotly', 'pyoxigraph', 'sqlalchemy',
         'lightning', 'wandb', 'mlflow')

# "Who may import whom" of ARCHITECTURE.md: each room imports itself and the rooms before it.
ROOMS = ('core', 'ops', 'data', 'models', 'negatives', 'losses', 'evaluation', 'training', 'experiments')


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, 'id', None)
    return name == 'TYPE_CHECKING'


def imports_of(tree: ast.AST, package: tuple[str, ...], types: bool = False) -> set[str]:
    r"""Dotted names of all modules that are imported at run time, inside functions too, and, with :obj:`types`, those
    for type checkers. Relative names are resolved.
    """
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if is_type_checking(node) and not types:
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *([node.module] if node.module else [])])
            # `from pyg_emu import data` names a module; `from pyg_emu.data.graph import KGData` does not.
            names = [f'{module}.{alias.name}' for alias in node.names]
            found.update(name if module == 'pyg_emu' or name in MODULES else module for name in names)
        pending.extend(ast.iter_child_nodes(node))
    return found


def rooms_imported_by(path: Path) -> set[str]:
    package = ('pyg_emu', *path.relative_to(PACKAGE).parent.parts)
    names = imports_of(tree_of(path), package, types=True) - {'pyg_emu.__version__'}
    return {name.split('.')[1] for name in names if name.startswith('pyg_emu.')}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_imports(path: Path) -> None:
    room = room_of(path)
    if room in ('__init__', '__main__'):
        return  # the public names, imported lazily (see test_public_api.py), and the command line
    assert room in ROOMS, f'{relative(path)} is in no room: ARCHITECTURE.md lists them'
    allowed = {*ROOMS[:ROOMS.index(room) + 1]}
    forbidden = rooms_imported_by(path) - allowed - {'__version__'}
    assert not forbidden, f'{relative(path)} may not import {sorted(forbidden)}'


def test_no_cycles() -> None:
    pending = {}
    for name, path in MODULES.items():
        package = ('pyg_emu', *path.relative_to(PACKAGE).parent.parts)
        pending[name] = imports_of(tree_of(path), package) & (MODULES.keys() - {name, 'pyg_emu'})
    while free := [name for name, imported in pending.items() if not imported & pending.keys()]:
        for name in free:
            del pending[name]
    assert not pending, f'modules in or above a cycle of imports: {sorted(pending)}'


def test_the_wheel_holds_all_files() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    patterns = config['options.package_data']['pyg_emu'].split()
    others = [path.relative_to(PACKAGE) for path in PACKAGE.rglob('*')
              if path.is_file() and path.suffix != '.py' and '__pycache__' not in path.parts]
    assert len(others) > 5 and [path for path in others if not any(map(path.match, patterns))] == []


def test_bars_are_those_of_notebooks() -> None:
    names = {name for path in FILES for name in imports_of(tree_of(path), ()) if name.split('.')[0] == 'tqdm'}
    assert names == {'tqdm.auto'}


def test_import_reader_sees_every_form() -> None:
    source = """
import torch
from pyg_emu import data
from pyg_emu.ops import last_backend
from . import sibling
from ..losses import EMULoss
if TYPE_CHECKING:
    from pyg_emu.experiments.cli.main import main
def late():
    import pyg_emu.training.trainer
"""
    found = {'torch', 'pyg_emu.data', 'pyg_emu.ops', 'pyg_emu.models', 'pyg_emu.losses', 'pyg_emu.training.trainer'}
    assert imports_of(ast.parse(source), ('pyg_emu', 'models')) == found
    every = imports_of(ast.parse(source), ('pyg_emu', 'models'), types=True)
    assert every == {*found, 'pyg_emu.experiments.cli.main'}


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_module_says_what_it_is_for(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), f'{relative(path)} has no docstring'
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
            assert ast.get_docstring(node), f'{relative(path)}:{node.lineno}: {node.name} has no docstring'


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
