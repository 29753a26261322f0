r"""Names of classes, for recipes and the command line: nowhere else do strings choose classes.

What a section of a recipe may say is read off the signature of the class it names, so a class that takes a new argument
needs no change here.
"""
from __future__ import annotations

import collections.abc
import difflib
import functools
import inspect
import re
import types
import typing
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Callable, Iterable, Mapping, Optional

from pyg_emu.core.errors import PygEmuError, RecipeError
from pyg_emu.experiments.layers import KeyPath, Layer


@dataclass(frozen=True)
class Section:
    r"""What one section of a recipe may hold.

    Args:
        classes (dict): Name to :obj:`"module:class"`. A section with a single class needs no name.
        default (str): The name if none is given.
        given (frozenset): Arguments that the program itself supplies.
        nested (dict): Arguments that are sections themselves, and the section they are.
        named (bool): Whether the section has a :obj:`name` to choose by.
        complete (bool): Whether defaults are written into a checked section.
        reciprocal (bool): Whether :obj:`reciprocal: true` makes the object with twice the relations and puts it into a
            :class:`~pyg_emu.models.Reciprocal`. What reads a graph has inverse relations of its own.
    """
    classes: Mapping[str, str]
    default: str
    given: frozenset[str] = frozenset()
    nested: Mapping[str, str] = field(default_factory=dict)
    named: bool = True
    complete: bool = True
    reciprocal: bool = False


_MODELS = 'pyg_emu.models:'
_LOSSES = 'pyg_emu.losses:'
_OPTIM = 'torch.optim:'
_SCHEDULES = 'pyg_emu.training.schedules:'

SECTIONS: dict[str, Section] = {
    'model': Section(
        {name: _MODELS + name for name in ('DistMult', 'ComplEx', 'TransE', 'RotatE', 'HAKE', 'NBFNet')},
        'DistMult', given=frozenset({'num_nodes', 'num_relations'}), reciprocal=True),
    'negatives': Section(
        {'emu_negatives': 'pyg_emu.negatives:EMUNegatives'}, 'emu_negatives',
        nested={'sampler': 'sampler', 'mutation': 'mutation', 'mutation_rate': 'rate'}, named=False),
    'sampler': Section(
        {'uniform': 'pyg_emu.negatives.sampling:UniformSampler', 'sans': 'pyg_emu.negatives.sampling:SANSSampler',
         'nscaching': 'pyg_emu.negatives.sampling:NSCachingSampler'}, 'uniform'),
    'mutation': Section(
        {'mixup': 'pyg_emu.negatives.mutation:Mixup', 'learned': 'pyg_emu.negatives.mutation:LearnedMask'}, 'mixup'),
    'rate': Section(
        {'linear': 'pyg_emu.negatives.mutation:LinearSchedule'}, 'linear', named=False),
    'loss': Section(
        {'emu': _LOSSES + 'EMULoss', 'cross_entropy': _LOSSES + 'CrossEntropyLoss', 'emu_bce': _LOSSES + 'EMUBCELoss',
         'bce': _LOSSES + 'BCELoss', 'self_adversarial': _LOSSES + 'SelfAdversarialLoss',
         'margin': _LOSSES + 'MarginLoss', 'one_vs_all_emu': 'pyg_emu.losses.one_vs_all:OneVsAllEMULoss',
         'one_vs_all': 'pyg_emu.losses.one_vs_all:OneVsAllLoss', 'nbfnet_emu': 'pyg_emu.losses.nbfnet:NBFNetEMULoss',
         'nbfnet_bce': 'pyg_emu.losses.nbfnet:NBFNetBCELoss'},
        'emu', nested={'regularizer': 'regularizer'}),
    'regularizer': Section(
        {'lp': 'pyg_emu.losses.regularizers:LpRegularizer', 'l3': 'pyg_emu.losses.regularizers:L3Regularizer',
         'n3': 'pyg_emu.losses.regularizers:N3Regularizer'}, 'l3'),
    'optimizer': Section(
        {'adagrad': 'pyg_emu.training.optimizers:RowAdagrad', 'adam': _OPTIM + 'Adam', 'adamw': _OPTIM + 'AdamW',
         'sgd': _OPTIM + 'SGD', 'sparse_adam': 'pyg_emu.training.optimizers:RowAdam'},
        'adagrad', given=frozenset({'params'}), complete=False),
    'schedule': Section(
        {'constant': _SCHEDULES + 'Constant', 'linear': _SCHEDULES + 'LinearDecay',
         'cosine': _SCHEDULES + 'CosineDecay', 'switch': _SCHEDULES + 'SwitchOptimizer'},
        'constant', given=frozenset({'make', 'sparse'})),
    'evaluation': Section(
        {'evaluate': 'pyg_emu.evaluation.ranking:evaluate'}, 'evaluate',
        given=frozenset({'model', 'data', 'split', 'progress', 'backend'}), named=False, complete=False),
}
SECTIONS['validation'] = SECTIONS['evaluation']

#: Optimisers that take row-sparse gradients.
SPARSE_OPTIMIZERS = ('adagrad', 'sgd', 'sparse_adam')


def reads_graph(kind: str, value: Any) -> bool:
    r"""Whether the class that a section names, such as NBFNet or its losses, works on a graph rather than on a table of
    entity vectors. False for what the registry does not know.
    """
    name = canonical_name(kind, value.get('name') if isinstance(value, Mapping) else value)
    known = isinstance(name, str) and name in SECTIONS[kind].classes
    return known and bool(getattr(_load(SECTIONS[kind], name), 'reads_graph', False))


def graph_obstacle(model: Mapping[str, Any], loss: Mapping[str, Any], negatives: Mapping[str, Any]) -> Optional[str]:
    r"""Why a loss or a sampler does not go with a model, one of them reading a graph, or :obj:`None` if all do.

    Args:
        model (dict): The checked section.
        loss (dict): The checked section.
        negatives (dict): The checked section.
    """
    graph = reads_graph('model', model)
    if graph != reads_graph('loss', loss):
        fitting = [name for name in SECTIONS['loss'].classes if reads_graph('loss', name) == graph]
        what = 'reads a graph' if graph else 'has a vector for each entity'
        return (f'loss.name: {loss["name"]} does not go with {model["name"]}, which {what}; choose one of '
                f'{", ".join(fitting)}')
    sampler = negatives.get('sampler')
    if graph and sampler and 'update' in vars(_load(SECTIONS['sampler'], sampler['name'])):
        return (f'negatives.sampler: {sampler["name"]} learns from entity vectors, and {model["name"]} has none; '
                'choose another sampler')
    return None


def sparse_obstacle(optimizer: Mapping[str, Any], loss: Mapping[str, Any], schedule: Mapping[str, Any],
                    negatives: Mapping[str, Any]) -> Optional[str]:
    r"""Why a model with row-sparse gradients cannot be trained so, or :obj:`None` if it can.

    Args:
        optimizer (dict): The checked section.
        loss (dict): The checked section.
        schedule (dict): The checked section.
        negatives (dict): The checked section.
    """
    name = optimizer['name']
    if name not in SPARSE_OPTIMIZERS:
        return (f'optimizer.name: {name} takes no row-sparse gradients, which model.sparse asks for; choose one of '
                f'{", ".join(SPARSE_OPTIMIZERS)}')
    for key in ('weight_decay', 'momentum'):
        if optimizer.get(key):
            return (f'optimizer.{key}: it would touch every row, and model.sparse asks for steps that touch few; '
                    f'expected 0, got {optimizer[key]!r}')
    if optimizer.get('fused') or optimizer.get('foreach'):
        return 'optimizer: PyTorch has no fused or foreach steps for the row-sparse gradients of model.sparse'
    if name == 'sparse_adam':
        adam, instead = name, 'adagrad'
    elif schedule['name'] == 'switch':
        adam, instead = 'the Adam that schedule switch goes over to', 'another schedule'
    else:
        return None
    rows = f'{adam} takes row-sparse ones alone'
    penalty = loss.get('regularizer') or {}
    if penalty.get('name') in ('lp', 'l3'):
        return f'loss.regularizer: the gradient of {penalty["name"]} is dense, and {rows}; choose n3, or {instead}'
    if loss['name'] in ('one_vs_all', 'one_vs_all_emu'):
        return (f'loss.name: {loss["name"]} scores every entity, so its gradient is dense, and {rows}; choose '
                f'{instead}')
    if (negatives.get('mutation') or {}).get('name') == 'learned':
        return f'negatives.mutation: the gradient of a learned mask is dense, and {rows}; choose {instead}'
    return None


def dense_obstacle(model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> Optional[str]:
    r"""Why a model whose gradients are not row-sparse cannot be trained so, or :obj:`None` if it can.

    Args:
        model (dict): The checked section.
        optimizer (dict): The checked section.
    """
    if optimizer['name'] != 'sparse_adam':
        return None
    remedy = 'give model.sparse: true, or choose adam' if 'sparse' in model else 'choose adam'
    return (f'optimizer.name: sparse_adam takes row-sparse gradients alone, and those of {model["name"]} are dense; '
            f'{remedy}')


def fused_by_default(model: Mapping[str, Any], optimizer: Mapping[str, Any], graph: bool = False,
                     device: Any = 'cpu') -> dict[str, Any]:
    r"""The arguments that make an optimiser of PyTorch take its fastest way, where a recipe leaves that open and the
    gradients are dense. Left to itself, it makes several passes over each table on a CPU. With :obj:`graph`, those too
    without which Adam refuses to be captured in a CUDA graph.

    Args:
        model (dict): The checked section.
        optimizer (dict): The checked section.
        graph (bool, optional): Whether steps are to be captured. (default: :obj:`False`)
        device (str or torch.device, optional): Where the parameters are. (default: :obj:`"cpu"`)
    """
    section = SECTIONS['optimizer']
    held = {'capturable': True} if graph and 'capturable' in _parameters(section, optimizer['name']) else {}
    chosen = any(optimizer.get(key) is not None for key in ('fused', 'foreach'))
    if model.get('sparse') or chosen or 'fused' not in _parameters(section, optimizer['name']):
        return held
    return {'fused': True, **held} if _has_fused_step(optimizer['name'], device) else held


@functools.cache
def _has_fused_step(name: str, device: Any) -> bool:
    r"""Whether an optimiser can take a fused step there. Which can depends on the version of PyTorch, and it tells only
    once it steps: 2.11 fuses Adagrad on a CPU alone.
    """
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        _load(SECTIONS['optimizer'], name)([parameter], lr=0.1, fused=True).step()
    except RuntimeError:
        return False
    return True


def nearest(name: str, known: Iterable[str], prefix: str = '') -> str:
    r"""A hint at the nearest known name, with :obj:`prefix` before it, and the list of all."""
    known = list(known)
    matches = difflib.get_close_matches(name.lower(), [other.lower() for other in known], n=1, cutoff=0.5)
    found = [prefix + other for other in known if other.lower() in matches]
    hint = f'; did you mean {found[0]!r}?' if found else ';'
    return f'{hint} Known: {", ".join(known)}'


def canonical_name(kind: str, name: Any) -> Any:
    r"""A name as the registry spells it, whatever its case and dashes; one that it does not know, as it is."""
    def plain(text: str) -> str:
        return re.sub(r'[^a-z0-9]', '', text.lower())

    known = {plain(other): other for other in SECTIONS[kind].classes}
    return known.get(plain(name), name) if isinstance(name, str) else name


def check_section(kind: str, value: Any, path: KeyPath, layer: Layer) -> dict[str, Any]:
    r"""Returns a section with its name in the canonical spelling and the defaults of its class filled in.

    Args:
        kind (str): Which of :obj:`SECTIONS`.
        value (Any): A mapping, or a name alone.
        path (tuple): Where the section is in the recipe.
        layer (Layer): Knows where it was written.

    Raises:
        RecipeError: If a name or key is unknown, an argument is missing, or a value is of the wrong type.
    """
    section = SECTIONS[kind]
    if isinstance(value, str) and section.named:
        value = {'name': value}
    if not isinstance(value, dict):
        raise RecipeError(f'{layer.place(path)}{".".join(path)}: expected a section of settings, got {value!r}')
    name = canonical_name(kind, value.get('name', section.default) if section.named else section.default)
    if not isinstance(name, str) or name not in section.classes:
        raise RecipeError(f'{layer.place((*path, "name"))}unknown {kind} {name!r}{nearest(str(name), section.classes)}')
    checked: dict[str, Any] = {'name': name} if section.named else {}
    parameters = _parameters(section, name)
    for key in value:
        if key not in parameters and not (key == 'name' and section.named):
            what = f' of {name}' if section.named else ''
            raise RecipeError(f'{layer.place((*path, key))}unknown key {".".join((*path, key))!r}{what}'
                              f'{nearest(key, [*checked, *parameters], ".".join((*path, "")))}')
    for key, (hint, default) in parameters.items():
        if key in value:
            checked[key] = _check_value(section, key, value[key], hint, (*path, key), layer)
        elif default is inspect.Parameter.empty:
            raise RecipeError(f'{layer.place(path)}{".".join((*path, key))} is missing: {name} needs it')
        elif section.complete:
            # Written down, so that the recipe of a run means the same when a default changes.
            checked[key] = list(default) if isinstance(default, tuple) else default
    return checked


def section_keys(kind: str, value: Any) -> list[str]:
    r"""The keys that a section may have, given its name; none where there is no class of that name."""
    section = SECTIONS[kind]
    name = value.get('name', section.default) if section.named and isinstance(value, Mapping) else section.default
    return list(_parameters(section, name)) if name in section.classes else []


def without_defaults(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    r"""A checked section without what it would say anyway. The rest stays the same when its class takes a new argument.
    """
    section = SECTIONS[kind]
    parameters = _parameters(section, value.get('name', section.default) if section.named else section.default)
    found = {}
    for key, option in value.items():
        default = parameters[key][1] if key in parameters else inspect.Parameter.empty
        if key in section.nested and isinstance(option, dict):
            found[key] = without_defaults(section.nested[key], option)
        elif option != (list(default) if isinstance(default, tuple) else default):
            found[key] = option
    return found


def build(kind: str, value: Mapping[str, Any], **given: Any) -> Any:
    r"""Makes the object that a checked section describes.

    Args:
        kind (str): Which of :obj:`SECTIONS`.
        value (dict): What :func:`check_section` returned.
        **given (optional): Arguments that the program supplies; those that the class does not take are left out.

    Raises:
        RecipeError: If the class refuses an argument; names the section.
    """
    section = SECTIONS[kind]
    make = _load(section, value.get('name', section.default) if section.named else section.default)
    arguments = {key: option for key, option in value.items() if key != 'name' or not section.named}
    for key, inner in section.nested.items():
        if isinstance(arguments.get(key), dict):
            arguments[key] = build(inner, arguments[key])
    known = inspect.signature(make).parameters
    reciprocal = section.reciprocal and arguments.pop('reciprocal', False)
    if reciprocal:
        given['num_relations'] *= 2
    arguments |= {key: option for key, option in given.items() if key in known}
    try:
        made = make(**arguments)
        return import_module('pyg_emu.models').Reciprocal(made) if reciprocal else made
    except RecipeError:
        raise
    except (PygEmuError, ValueError, TypeError) as error:
        raise RecipeError(f'{kind}: {error}') from error


def _load(section: Section, name: str) -> Callable[..., Any]:
    module, _, attribute = section.classes[name].partition(':')
    made: Callable[..., Any] = getattr(import_module(module), attribute)
    return made


def _parameters(section: Section, name: str) -> dict[str, tuple[Any, Any]]:
    r"""Type and default of each argument that a recipe may set."""
    make = _load(section, name)
    function = make.__init__ if inspect.isclass(make) else make
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a type that is imported for type checkers alone
        hints = {}
    found = {}
    for key, parameter in inspect.signature(make).parameters.items():
        plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if plain and key not in section.given:
            found[key] = (hints.get(key, Any), parameter.default)
    if section.reciprocal and not getattr(make, 'reads_graph', False):
        found['reciprocal'] = (bool, False)
    return found


def _check_value(section: Section, key: str, value: Any, hint: Any, path: KeyPath, layer: Layer) -> Any:
    inner = section.nested.get(key)
    if inner is not None and (isinstance(value, dict) or (isinstance(value, str) and SECTIONS[inner].named)):
        return check_section(inner, value, path, layer)
    try:
        return conform(value, hint)
    except TypeError as error:
        section_too = ' or a section of settings' if inner is not None else ''
        raise RecipeError(f'{layer.place(path)}{".".join(path)}: expected {error}{section_too}, got '
                          f'{value!r}') from None


def conform(value: Any, hint: Any) -> Any:
    r"""Returns :obj:`value` as the type that an annotation asks for. Annotations that YAML cannot meet ask for nothing.

    Raises:
        TypeError: If it does not fit; says what would.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _conform_to_any(value, arguments)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise TypeError('one of ' + ', '.join(map(repr, arguments)))
    if origin is dict and not isinstance(value, dict):
        raise TypeError('a section of settings')
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, typing.Sequence)):
        if not isinstance(value, (list, tuple)):
            raise TypeError('a list')
        return [conform(item, arguments[0]) for item in value] if arguments else list(value)
    if hint in _PLAIN:
        described, kinds = _PLAIN[hint]
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise TypeError(described)
        return hint(value) if hint is not type(None) else None
    return value


_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ('true or false', (bool, )),
    int: ('an integer', (int, )),
    float: ('a number', (int, float)),
    str: ('a text', (str, )),
    type(None): ('null', (type(None), )),
}


def _conform_to_any(value: Any, hints: tuple[Any, ...]) -> Any:
    # None first, and integers before numbers, so that nothing is turned into a wider type than it has.
    described: list[str] = []
    for hint in hints:
        if hint not in _PLAIN and typing.get_origin(hint) in (None, collections.abc.Callable):
            continue  # a tensor, an object, a function: nothing that YAML can write
        try:
            return conform(value, hint)
        except TypeError as error:
            described.append(str(error))
    if described:
        raise TypeError(' or '.join(described))
    return value
