r"""A Sphinx extension for public names: writes the reference pages, and turns names in Markdown into links to them.

The pages follow from :obj:`pyg_emu.__all__` and the :obj:`__all__` of each room, so that no export can be missed. They
are written to :obj:`docs/api`, which is not under version control.
"""
from __future__ import annotations

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, NamedTuple, Optional

import pyg_emu

#: The title of the page of each room, in the order of a training run.
ROOMS = {
    'data': 'Facts', 'models': 'Models', 'negatives': 'Negatives', 'losses': 'Losses', 'evaluation': 'Answers',
    'training': 'Training', 'experiments': 'Recipes and runs', 'ops': 'Operators', 'core': 'Protocols and errors',
}
#: Modules whose public names users import although no room exports them.
MODULES = (
    'pyg_emu.evaluation.analysis', 'pyg_emu.experiments.recipe', 'pyg_emu.experiments.runs',
    'pyg_emu.experiments.comparison', 'pyg_emu.core.errors', 'pyg_emu.training.lightning',
)


class Entry(NamedTuple):
    r"""A name in the reference.

    Args:
        name (str): The name to import it by, with dots.
        value (object): What it names.
    """
    name: str
    value: Any


def entries(room: str) -> dict[str, list[Entry]]:
    r"""Returns the public names of a room by the module that they are imported from, each of them once.

    Args:
        room (str): One of :obj:`ROOMS`.
    """
    found = {'pyg_emu': [Entry(f'pyg_emu.{name}', getattr(pyg_emu, name)) for name, module in pyg_emu._MODULES.items()
                         if module.partition('.')[0] == room]}
    listed = {id(getattr(pyg_emu, name)) for name in pyg_emu._MODULES}
    for module in _modules(room):
        found[module.__name__] = []
        for name in _names(module):
            value = getattr(module, name)
            if id(value) not in listed:
                listed.add(id(value))
                found[module.__name__].append(Entry(f'{module.__name__}.{name}', value))
    return {module: names for module, names in found.items() if names}


def _modules(room: str) -> Iterator[ModuleType]:
    package = import_module(f'pyg_emu.{room}')
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f'pyg_emu.{room}.') if found.ispkg]
    for name in (package.__name__, *sorted(names)):
        module = import_module(name)
        if hasattr(module, '__all__'):
            yield module
    for name in MODULES:
        if name.startswith(f'pyg_emu.{room}.'):
            yield import_module(name)


def _names(module: ModuleType) -> list[str]:
    if hasattr(module, '__all__'):
        return list(module.__all__)
    return [name for name, value in vars(module).items()
            if not name.startswith('_') and getattr(value, '__module__', None) == module.__name__]


def page(room: str) -> str:
    r"""Returns the reference page of a room.

    Args:
        room (str): One of :obj:`ROOMS`.
    """
    lines = [ROOMS[room], '=' * len(ROOMS[room]), '']
    for module, names in entries(room).items():
        lines += [module, '-' * len(module), '', '.. autosummary::', '    :nosignatures:', '']
        lines += [f'    ~{entry.name}' for entry in names]
        lines += ['']
        for entry in names:
            lines += [f'.. {_directive(entry.value)}:: {entry.name}', '']
    return '\n'.join(lines)


def _directive(value: Any) -> str:
    if isinstance(value, type):
        return 'autoexception' if issubclass(value, BaseException) else 'autoclass'
    return 'autofunction' if inspect.isroutine(value) else 'autodata'


def target(text: str) -> Optional[str]:
    r"""Returns the public name that a piece of code in prose is, or :obj:`None`.

    Args:
        text (str): Such as :obj:`EMULoss`, :obj:`pyg_emu.losses.BCELoss` or :obj:`evaluate(model, data)`.
    """
    match = re.fullmatch(r'(pyg_emu(?:\.\w+)+|\w+)(?:\(.*\))?', text)
    if match is None:
        return None
    name = match[1]
    if '.' in name:
        return name
    return f'pyg_emu.{name}' if name in pyg_emu._MODULES else None


def setup(app: Any) -> dict[str, Any]:
    r"""Called by Sphinx."""
    from docutils import nodes
    from sphinx import addnodes
    from sphinx.transforms import SphinxTransform
    from sphinx.util import logging

    class Links(SphinxTransform):
        r"""Turns public names in Markdown into references, and links to folders, which have no page, into text."""
        default_priority = 500

        def apply(self, **kwargs: Any) -> None:
            source = Path(self.env.doc2path(self.env.docname))
            if source.suffix != '.md':
                return
            for link in list(self.document.findall(addnodes.pending_xref)):
                if link.get('reftype') == 'myst' and (source.parent / link['reftarget']).is_dir():
                    link.replace_self(link.children)
            for node in list(self.document.findall(nodes.literal)):
                name = target(node.astext())
                if name is None or isinstance(node.parent, (nodes.reference, nodes.title, addnodes.pending_xref)):
                    continue
                link = addnodes.pending_xref('', refdomain='py', reftype='obj', reftarget=name, refexplicit=False,
                                             refwarn=False, refdoc=self.env.docname)
                node.replace_self(link)
                link += node

    def write(app: Any) -> None:
        folder = Path(app.srcdir) / 'docs' / 'api'
        folder.mkdir(exist_ok=True)
        for old in folder.glob('*.rst'):
            if old.stem not in ROOMS:
                old.unlink()
        for room in ROOMS:
            path, text = folder / f'{room}.rst', page(room)
            if not path.exists() or path.read_text(encoding='utf-8') != text:
                path.write_text(text, encoding='utf-8')

    def check(app: Any, env: Any) -> None:
        documented = env.get_domain('py').objects
        for name in pyg_emu._MODULES:
            if f'pyg_emu.{name}' not in documented:
                logging.getLogger(__name__).warning(f'the public name {name} is not documented')

    app.add_transform(Links)
    app.connect('builder-inited', write, priority=100)
    app.connect('env-check-consistency', check)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
