r"""Names in recipes: which classes each section of a recipe may name.

The exports of the package are the names: recipes know each class that the :obj:`__init__` of a room exports. A class of
the user's own is named by its path, :obj:`package.module:Class`. Importing its module runs the code of the module.
"""
from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import re
import sys
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Optional

from pyg_emu.core.errors import RecipeError


@dataclass(frozen=True)
class Section:
    r"""What a section of a recipe names.

    Args:
        modules (tuple of str): Modules whose exports can be named.
        default (str): The name that applies if none is given.
        what (str): What the classes are, for messages.
        suffix (str, optional): A regular expression of the suffix that a class name loses in recipes. (default:
            :obj:`""`)
        base (str, optional): The class that all of them derive from, :obj:`"module:Class"`. (default: :obj:`None`)
        protocol (str, optional): The class whose public methods all of them have, :obj:`"module:Class"`.
            (default: :obj:`None`)
        arguments (tuple of str, optional): What an instance is called with. (default: :obj:`None`, it is not called)
        given (frozenset, optional): Arguments that the program supplies.
        kept (tuple of str, optional): Settings that stay when a recipe changes the name, if the new class takes them.
        named (bool, optional): Whether the section has a key :obj:`name`. (default: :obj:`True`)
        nameless_default (bool, optional): Whether the key :obj:`name` is left out for the default. (default:
            :obj:`False`)
        complete (bool, optional): Whether defaults are written into a checked section. (default: :obj:`True`)
        reciprocal (bool, optional): Whether :obj:`reciprocal: true` makes the object with twice the relations and puts
            it into a :class:`~pyg_emu.models.Reciprocal`. (default: :obj:`False`)
    """
    modules: tuple[str, ...]
    default: str
    what: str
    suffix: str = ''
    base: Optional[str] = None
    protocol: Optional[str] = None
    arguments: Optional[tuple[str, ...]] = None
    given: frozenset[str] = frozenset()
    kept: tuple[str, ...] = ()
    named: bool = True
    nameless_default: bool = False
    complete: bool = True
    reciprocal: bool = False


SECTIONS: dict[str, Section] = {
    'model': Section(
        ('pyg_emu.models', ), 'DistMult', 'a model', base='torch.nn:Module', protocol='pyg_emu.core.contract:Scorer',
        given=frozenset({'num_nodes', 'num_relations'}), kept=('hidden_channels', 'sparse'), reciprocal=True),
    'negatives': Section(
        ('pyg_emu.negatives', ), 'emu', 'a transform', 'Negatives', base='pyg_emu.negatives:EMUNegatives', named=False),
    'sampler': Section(
        ('pyg_emu.negatives.sampling', 'pyg_emu.negatives.adversarial'), 'uniform', 'a sampler', 'Sampler',
        protocol='pyg_emu.negatives.contract:Sampler'),
    'mutation': Section(
        ('pyg_emu.negatives.mutation', ), 'mixup', 'a mutation', '(Mask|Mutation)?',
        protocol='pyg_emu.negatives.mutation:Mutation'),
    'rate': Section(
        ('pyg_emu.negatives.mutation', ), 'linear', 'a schedule of the mutation rate', 'Schedule',
        arguments=('step', ), nameless_default=True),
    'loss': Section(
        ('pyg_emu.losses', ), 'emu', 'a loss', 'Loss', arguments=('model', 'batch'), kept=('regularizer', )),
    'regularizer': Section(
        ('pyg_emu.losses', ), 'l3', 'a regularizer', 'Regularizer', arguments=('scorer', 'batch')),
    'optimizer': Section(
        ('pyg_emu.training', 'torch.optim'), 'adagrad', 'an optimizer', base='torch.optim:Optimizer',
        given=frozenset({'params'}), complete=False),
    'schedule': Section(
        ('pyg_emu.training', ), 'constant', 'a schedule of the learning rate', '(Decay|Optimizer|Schedule)?',
        base='pyg_emu.training:Schedule', given=frozenset({'make', 'sparse'})),
    'evaluation': Section(
        ('pyg_emu.evaluation.ranking', ), 'evaluate', 'a function',
        given=frozenset({'model', 'data', 'split', 'progress', 'backend'}), named=False, complete=False),
}
SECTIONS['validation'] = SECTIONS['evaluation']

#: Arguments of any class that may be sections themselves, and the section they are.
NESTED = {'sampler': 'sampler', 'mutation': 'mutation', 'mutation_rate': 'rate', 'rate': 'rate',
          'regularizer': 'regularizer'}


#: What goes by a name in the literature and is no class of its section here, and what a recipe says instead.
ELSEWHERE = {('sampler', 'bernoulli'): 'Bernoulli sampling decides which end of a fact is replaced and goes with any '
                                       'sampler; expected corrupt: bernoulli'}


def class_names(kind: str) -> list[str]:
    r"""The names that a section may have, the default first.

    Args:
        kind (str): A key of :obj:`SECTIONS`.
    """
    default = SECTIONS[kind].default
    return [default, *(name for name in _exported(kind) if name != default)]


def name_of(cls: type, suffix: str = '') -> Optional[str]:
    r"""The name of a class in recipes: its own attribute :attr:`recipe_name`, or else its name without the suffix of
    its kind, in snake case. :obj:`None` for a class that recipes cannot name, such as a base class.

    An underscore goes before a capital that follows a small letter, unless the capital ends the name:
    :obj:`OneVsAllEMULoss` is :obj:`one_vs_all_emu`, :obj:`AdamW` is :obj:`adamw`.

    Args:
        cls (type): The class.
        suffix (str, optional): The regular expression of :attr:`Section.suffix`. (default: :obj:`""`)
    """
    match = re.fullmatch(f'(.+?){suffix}', cls.__name__)
    if match is None or inspect.isabstract(cls):
        return None
    if 'recipe_name' in vars(cls):  # its own: a subclass has another name
        own: Optional[str] = vars(cls)['recipe_name']
        return own
    return re.sub(r'(?<=[a-z])(?=[A-Z].)', '_', match[1]).lower()


def canonical_name(kind: str, name: Any) -> Any:
    r"""A name in the spelling of the package, whatever its case, dashes and underscores. A path and an unknown name are
    returned unchanged.
    """
    if not isinstance(name, str) or ':' in name:
        return name
    return {_plain(other): other for other in class_names(kind)}.get(_plain(name), name)


def find_class(kind: str, name: Any, place: str = '') -> Callable[..., Any]:
    r"""The class that a name or a path stands for.

    Args:
        kind (str): A key of :obj:`SECTIONS`.
        name (Any): The name, as a recipe gives it.
        place (str, optional): Where it was written, ending in a colon and a space, for the message. (default:
            :obj:`""`)

    Raises:
        RecipeError: If there is no class of this name, the module of a path cannot be imported, or the class is of
            another kind.
    """
    found = _exported(kind).get(canonical_name(kind, name)) if isinstance(name, str) else None
    if found is not None:
        return found
    if isinstance(name, str) and ':' in name and SECTIONS[kind].named:
        return _class_at(kind, name, place)
    own = ', or package.module:Class for a class of your own' if SECTIONS[kind].named else ''
    elsewhere = ELSEWHERE.get((kind, _plain(name))) if isinstance(name, str) else None
    if elsewhere is not None:
        raise RecipeError(f'{place}{kind} {name}: {elsewhere}')
    raise RecipeError(f'{place}unknown {kind} {_short(name)}{nearest(str(name)[:200], class_names(kind))}{own}')


def fact(cls: Any, name: str, default: Any) -> Any:
    r"""A fact about a class, such as :attr:`reads_graph`: its attribute of this name, or the documented default."""
    return getattr(cls, name, default)


def nearest(name: str, known: Iterable[str], prefix: str = '') -> str:
    r"""A hint at the nearest known name, with :obj:`prefix` before it, and the list of all."""
    known = list(known)
    matches = difflib.get_close_matches(name.lower(), [other.lower() for other in known], n=1, cutoff=0.5)
    found = [prefix + other for other in known if other.lower() in matches]
    hint = f'; did you mean {found[0]!r}?' if found else ';'
    return f'{hint} Known: {", ".join(known)}'


def _plain(text: str) -> str:
    return re.sub(r'[^a-z0-9]', '', text.lower())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f'{text[:97]}...'


@functools.cache
def _exported(kind: str) -> dict[str, Callable[..., Any]]:
    section = SECTIONS[kind]
    found: dict[str, Callable[..., Any]] = {}
    for module_name in section.modules:
        module = importlib.import_module(module_name)
        if not section.named and hasattr(module, section.default):
            return {section.default: getattr(module, section.default)}  # a function
        for export in module.__all__:
            value = getattr(module, export)
            bases = [_at(base) for base in (section.base, section.protocol) if base is not None]
            if not inspect.isclass(value) or (section.named and value in bases) or _misfit(kind, value) is not None:
                continue
            name = name_of(value, section.suffix)
            if name is not None:
                # Models keep the spelling of their papers. The first module's class wins.
                found.setdefault(export if kind == 'model' else name, value)
    return found


def _class_at(kind: str, path: str, place: str) -> Callable[..., Any]:
    module_name, _, attribute = path.partition(':')
    where = f'{place}{path}: '
    if not all(part.isidentifier() for part in (*module_name.split('.'), *attribute.split('.'))):
        raise RecipeError(f'{where}expected package.module:Class, for example my_models:MyModel')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f'{module_name}.'.startswith(f'{error.name}.'):
            raise RecipeError(f'{where}importing {module_name} failed: {error}; install what it imports') from error
        raise RecipeError(f'{where}there is no module {error.name}, neither installed nor in the working directory '
                          f'{os.getcwd()}; check the spelling, or add its folder to PYTHONPATH') from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module does when it runs, SystemExit included
        told = str(error).splitlines()[0] if str(error) else 'no message'
        raise RecipeError(f'{where}importing {module_name} failed with {type(error).__name__}: {told}') from error
    value: Any = module
    for part in attribute.split('.'):
        if not hasattr(value, part):
            known = [name for name, other in vars(module).items() if inspect.isclass(other) and name[0] != '_']
            raise RecipeError(f'{where}{module_name} ({_file_of(module)}) has no attribute {attribute}'
                              f'{nearest(attribute, known)}')
        value = getattr(value, part)
    if not inspect.isclass(value):
        raise RecipeError(f'{where}expected a class, got {"a function" if inspect.isroutine(value) else "an object"} '
                          f'of type {type(value).__name__}')
    misfit = _misfit(kind, value)
    if misfit is not None:
        raise RecipeError(f'{where}the class is not {SECTIONS[kind].what}: {misfit}')
    return value


def _file_of(module: Any) -> str:
    return str(getattr(module, '__file__', None) or 'built in')


def _misfit(kind: str, cls: type) -> Optional[str]:
    r"""Why a class cannot stand in a section, or :obj:`None` if it can."""
    section = SECTIONS[kind]
    base = None if section.base is None else _at(section.base)
    if base is not None and not issubclass(cls, base):
        return f'it does not derive from {base.__module__}.{base.__name__}'
    if kind == 'model' and fact(cls, 'reads_graph', False):
        wanted = ['as_ranker']
    elif kind == 'model' and issubclass(cls, importlib.import_module('torch_geometric.nn.kge').KGEModel):
        wanted = []  # PyG's own layers, for which as_scorer() has adapters
    else:
        protocol = None if section.protocol is None else _at(section.protocol)
        wanted = [] if protocol is None else [name for name, value in vars(protocol).items()
                                              if inspect.isfunction(value) and not name.startswith('_')]
    missing = [name for name in wanted if not callable(getattr(cls, name, None))]
    if missing:
        source = f' of {section.protocol.replace(":", ".")}' if section.protocol else ''
        return f'it has no method {", ".join(missing)}{source}'
    if inspect.isabstract(cls):
        return f'it is abstract and lacks {", ".join(sorted(cls.__abstractmethods__))}'  # type: ignore[attr-defined]
    if section.arguments is not None:
        return _call_misfit(cls, section.arguments)
    step = getattr(cls, 'step', None)
    if kind == 'optimizer' and cls is not base and _needs(step, 'closure'):
        return 'its step needs a closure, and training gives none'
    return None


def _call_misfit(cls: type, arguments: tuple[str, ...]) -> Optional[str]:
    call = next((vars(base)['__call__'] for base in cls.__mro__ if '__call__' in vars(base)), None)
    torch = sys.modules.get('torch')
    if torch is not None and issubclass(cls, torch.nn.Module):
        forward = getattr(cls, 'forward', None)
        call = None if forward is torch.nn.Module.forward else forward
    shown = ', '.join(arguments)
    if call is None:
        return f'its instances cannot be called with ({shown})'
    try:
        inspect.signature(call).bind(None, *arguments)
    except TypeError:
        return f'its instances are called with {inspect.signature(call)}, expected (self, {shown})'
    except ValueError:  # no signature to be had
        pass
    return None


def _needs(function: Any, argument: str) -> bool:
    try:
        found = inspect.signature(function).parameters.get(argument)
    except (TypeError, ValueError):
        return False
    return found is not None and found.default is inspect.Parameter.empty


def _at(path: str) -> Any:
    module, _, attribute = path.partition(':')
    return getattr(importlib.import_module(module), attribute)
