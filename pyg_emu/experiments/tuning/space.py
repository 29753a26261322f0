r"""Search spaces: ranges and choices for the settings of a recipe, in YAML.

.. code-block:: yaml

    description: EMU with an L3 penalty
    loss.regularizer.name: l3                                # fixed in all trials
    loss.beta: {low: 0.05, high: 1.0}
    loss.regularizer.weight: {low: 1e-8, high: 1e-4, log: true}
    optimizer.lr: {factor: 5}                                # from 1/5 to 5 times the value in the recipe
    negatives.mask: {choices: [bernoulli, exact]}

Keys are those of a recipe, with dots between section and setting.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import islice, product
from pathlib import Path
from typing import Any, Collection, Mapping, Optional, Union

from pyg_emu.core.arguments import is_number
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import KeyPath, Layer, put, read_layer
from pyg_emu.experiments.names import fact, nearest
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.sections import class_of

Value = Union[bool, int, float, str, None]

_KINDS = ('low', 'high', 'log', 'step', 'choices', 'factor')
#: Settings that define how trials are evaluated and compared, and therefore cannot be searched.
_MEASURES = ('description', 'dataset', 'inference', 'evaluation', 'validation', 'evaluate_every', 'checkpoint_every',
             'patience', 'max_seconds', 'seed')
#: The maximum number of combinations of choices to check before the first trial.
_MAX_COMBINATIONS = 64
#: The number of significant digits of sampled numbers, which keeps the tuned recipe readable.
_DIGITS = 4


@dataclass(frozen=True)
class Parameter:
    r"""A parameter of the search space.

    Args:
        key (str): The key of the setting in a recipe, such as :obj:`"loss.alpha"`.
        low (float, optional): The minimum. (default: :obj:`None`)
        high (float, optional): The maximum. (default: :obj:`None`)
        log (bool, optional): If set to :obj:`True`, samples on a logarithmic scale. (default: :obj:`False`)
        step (float, optional): The distance between two values. (default: :obj:`None`, no step for numbers, 1 for
            integers)
        choices (tuple, optional): The values, instead of a range. (default: :obj:`None`)
        factor (float, optional): Instead of :obj:`low` and :obj:`high`: a logarithmic range from the value in the
            recipe divided by :obj:`factor` to this value times :obj:`factor`. (default: :obj:`None`)
        integer (bool, optional): Whether the values are integers. (default: :obj:`False`)
    """
    key: str
    low: Optional[float] = None
    high: Optional[float] = None
    log: bool = False
    step: Optional[float] = None
    choices: Optional[tuple[Value, ...]] = None
    factor: Optional[float] = None
    integer: bool = False

    @property
    def path(self) -> KeyPath:
        r"""The key as a tuple of section and setting names."""
        return tuple(self.key.split('.'))

    @property
    def ends(self) -> tuple[Value, ...]:
        r"""The values to validate: all choices, or both ends of the range."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        return self.low, self.high

    def suggest(self, trial: Any) -> Value:
        r"""Samples a value with an :class:`optuna.trial.Trial`."""
        if self.choices is not None:
            return self.value(trial.suggest_categorical(self.key, self.choices))
        if self.integer:
            return self.value(trial.suggest_int(self.key, self.low, self.high, step=self.step or 1, log=self.log))
        return self.value(trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log))

    def value(self, drawn: Any) -> Value:
        r"""Returns a sampled value as used in a recipe: numbers are rounded to four significant digits."""
        if self.choices is not None or self.integer:
            found: Value = drawn
            return found
        assert self.low is not None and self.high is not None
        return min(max(_short(drawn), self.low), self.high)

    def holds(self, value: Any) -> bool:
        r"""Returns :obj:`True` if the value is in the range or among the choices."""
        if self.choices is not None:
            # A recipe accepts 1 for 1.0, but true is not a number.
            return any(value == choice and isinstance(value, bool) == isinstance(choice, bool)
                       for choice in self.choices)
        assert self.low is not None and self.high is not None
        if not is_number(value) or not self.low <= value <= self.high or (self.integer and value != int(value)):
            return False
        return self.step is None or _multiple(value - self.low, self.step)

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the parameter in its YAML form, without the key."""
        if self.choices is not None:
            return {'choices': list(self.choices)}
        kept = {'low': self.low, 'high': self.high, 'log': self.log or None, 'step': self.step, 'factor': self.factor}
        return {name: value for name, value in kept.items() if value is not None}

    def __str__(self) -> str:
        if self.choices is not None:
            return f'{self.key}: {", ".join(map(str, self.choices))}'
        steps = '' if self.step is None else f', in steps of {self.step:g}'
        return f'{self.key}: {self.low:g} to {self.high:g}{", logarithmic" if self.log else ""}{steps}'


@dataclass(frozen=True)
class SearchSpace:
    r"""The parameters to search and the settings that are fixed in all trials.

    Args:
        parameters (tuple of Parameter): The parameters to search.
        fixed (dict, optional): The settings that are fixed in all trials, by dotted key. (default: none)
        places (dict, optional): The file and line of each key. (default: unknown)
        origin (str, optional): The source of the space, for messages. (default: :obj:`"the search space"`)
        description (str, optional): A one-line description. (default: :obj:`""`)
    """
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    origin: str = 'the search space'
    description: str = ''

    def without(self, keys: Collection[str]) -> SearchSpace:
        r"""Returns the space without the given keys. A section stands for all settings in it."""
        def decided(key: str) -> bool:
            return any(key == other or key.startswith(f'{other}.') for other in keys)

        return replace(self, parameters=tuple(p for p in self.parameters if not decided(p.key)),
                       fixed={key: value for key, value in self.fixed.items() if not decided(key)})

    def recipe(self, base: Recipe, values: Mapping[str, Value]) -> Recipe:
        r"""Returns the recipe of a trial.

        Args:
            base (Recipe): The recipe to tune.
            values (dict): The value of each parameter by dotted key.

        Raises:
            RecipeError: If a value or a combination of values is invalid. The message names the line.
        """
        layer = Layer()
        for key, value in {**self.fixed, **values}.items():
            put(layer, tuple(key.split('.')), value, self.places.get(key, self.origin))
        return load_recipe(base.to_dict(), [layer])

    def bound(self, base: Recipe) -> SearchSpace:
        r"""Returns the space with all ranges that depend on the recipe resolved, and checks it against the recipe.

        Args:
            base (Recipe): The recipe to tune.

        Raises:
            RecipeError: If a key or a range does not match the recipe. The message names the line.
        """
        if not self.parameters:
            raise RecipeError(f'{self.origin}: expected at least one parameter with a range, such as '
                              'loss.alpha: {low: 0.01, high: 1.0, log: true}, got none')
        known = base.to_dict()
        space = replace(self, parameters=tuple(self._around(parameter, known) for parameter in self.parameters))
        start = {parameter.key: parameter.ends[0] for parameter in space.parameters}
        parameters = []
        for parameter in space.parameters:
            place = space.places.get(parameter.key, space.origin)
            recipes = [space.recipe(base, {**start, parameter.key: value}) for value in parameter.ends]
            values = [_value(recipe.to_dict(), parameter.path) for recipe in recipes]
            parameters.append(_typed(parameter, values, place))
        chosen = [p for p in parameters if p.choices is not None]
        for combination in islice(product(*(p.ends for p in chosen)), _MAX_COMBINATIONS):
            together = {p.key: value for p, value in zip(chosen, combination)}
            space.recipe(base, {**start, **together})
        return replace(space, parameters=tuple(parameters))

    def start(self, base: Recipe) -> dict[str, Value]:
        r"""Returns the values of the recipe that are in the space."""
        own = {parameter: _value(base.to_dict(), parameter.path) for parameter in self.parameters}
        return {parameter.key: value for parameter, value in own.items() if parameter.holds(value)}

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the space in its YAML form, without the description."""
        return {**self.fixed, **{parameter.key: parameter.to_dict() for parameter in self.parameters}}

    def _around(self, parameter: Parameter, known: Mapping[str, Any]) -> Parameter:
        if parameter.factor is None:
            return parameter
        value = self.fixed.get(parameter.key, _value(known, parameter.path))
        if not is_number(value) or value <= 0:
            place = self.places.get(parameter.key, self.origin)
            raise RecipeError(f'{place}: {parameter.key}.factor: expected a positive number in the recipe, got '
                              f'{value!r}; use low and high instead')
        low, high = _short(value / parameter.factor), _short(value * parameter.factor)
        if isinstance(value, int):
            low, high = max(1, round(low)), round(high)
        return replace(parameter, low=low, high=high, log=True, factor=None)


def load_space(source: Union[str, Path, Mapping[str, Any]]) -> SearchSpace:
    r"""Loads a search space.

    Args:
        source (str, Path or dict): The name of a packaged space, a path to a file, or a dictionary.

    Raises:
        RecipeError: If the space does not exist or is invalid. The message names the file, the line and the expected
            value.
    """
    if isinstance(source, Mapping):
        layer, origin = Layer(dict(source)), 'the search space'
    else:
        path = _find(source)
        layer, origin = read_layer(path), str(path)
    description = layer.values.pop('description', '')
    parameters, fixed = [], {}
    for key, value in layer.values.items():
        if key.split('.')[0] in _MEASURES:
            raise RecipeError(f'{layer.place((key, ))}{key}: expected a setting of the model or of training, because '
                              f'all trials must be evaluated in the same way; set {key} in the recipe')
        if isinstance(value, dict):
            parameters.append(_parameter(key, value, layer))
        elif isinstance(value, list):
            raise RecipeError(f'{layer.place((key, ))}{key}: expected a range or a value, got a list; for choices, '
                              f'write {{choices: {value}}}')
        else:
            fixed[key] = value
    places = {path[0]: place for path, place in layer.places.items() if len(path) == 1}
    return SearchSpace(tuple(parameters), fixed, places, origin, str(description))


def default_space(recipe: Recipe) -> SearchSpace:
    r"""Returns the packaged search space for the loss of a recipe.

    The class attribute :attr:`search_space` of the loss names the space. Without this attribute, the space has the name
    of the loss. A recipe with unbounded label smoothing alone, ordinary label smoothing, a confidence penalty or the N3
    regularizer uses the variant of the space for it, if there is one.

    The space does not replace settings of the recipe. A setting that the packaged space fixes at another value keeps
    the value of the recipe. A regularizer of another kind also keeps its weight. A recipe without a regularizer gets
    that of the space.

    Raises:
        RecipeError: If there is no packaged space for this loss.
    """
    loss, packaged, settings = recipe.loss['name'], packaged_spaces(), recipe.to_dict()
    name = fact(class_of('loss', recipe.loss), 'search_space', None) or loss.replace('_', '-')
    if name not in packaged:
        raise RecipeError(f'space: no default search space for loss {loss!r}; pass a packaged space '
                          f'({", ".join(packaged)}) or a file')
    if name == 'emu' and recipe.negatives['mutation_rate'] == 0 and recipe.negatives['mutation'] is None:
        name = 'uls'
    if name == 'uniform-l3':
        smoothed = [key for key in ('label_smoothing', 'confidence_penalty') if recipe.loss.get(key)]
        name = smoothed[0].replace('_', '-') if smoothed else name
    penalty = (recipe.loss.get('regularizer') or {}).get('name')
    other = f'{name.removesuffix("-l3")}-{penalty}'
    space = load_space(other if other in packaged else name)
    kept = {key for key, value in space.fixed.items() if _value(settings, tuple(key.split('.'))) not in (None, value)}
    # The range of a weight suits one kind of penalty.
    return space.without({'loss.regularizer' if key == 'loss.regularizer.name' else key for key in kept})


def packaged_spaces() -> dict[str, str]:
    r"""Returns the names and descriptions of the packaged search spaces."""
    return {path.stem: load_space(path).description for path in sorted(_packaged().glob('*.yaml'))}


def _packaged() -> Path:
    return Path(str(resources.files('pyg_emu.experiments.tuning'))) / 'spaces'


def _find(source: Union[str, Path]) -> Path:
    packaged = _packaged() / f'{source}.yaml'
    if isinstance(source, str) and not Path(source).suffix and packaged.is_file():
        return packaged
    path = Path(source).expanduser()
    if path.is_file():
        return path
    names = [other.stem for other in sorted(_packaged().glob('*.yaml'))]
    raise RecipeError(f'space: {str(source)!r} is neither a packaged search space nor a '
                      f'file{nearest(str(source), names)}')


def _parameter(key: str, value: Mapping[str, Any], layer: Layer) -> Parameter:
    def refuse(name: Optional[str], message: str) -> RecipeError:
        place = layer.place((key, ) if name is None else (key, name))
        return RecipeError(f'{place}{key}{"" if name is None else f".{name}"}: {message}')

    for name in value:
        if name not in _KINDS:
            raise refuse(None, f'unknown key {name!r}{nearest(name, _KINDS)}')
    ways = [names for names in (('choices', ), ('factor', ), ('low', 'high')) if set(names) & set(value)]
    if len(ways) != 1 or not set(ways[0]) <= set(value):
        raise refuse(None, f'expected low and high, or choices, or factor, got {", ".join(value) or "nothing"}')
    for name in set(value) - set(ways[0]):
        if 'low' not in value:
            raise refuse(name, f'expected it with low and high only, got it with {ways[0][0]}')
    if 'choices' in value:
        choices = value['choices']
        if not isinstance(choices, list) or not choices or any(isinstance(one, (dict, list)) for one in choices):
            raise refuse('choices', f'expected a list of strings, numbers, true, false or null, got {choices!r}')
        return Parameter(key, choices=tuple(choices))
    for name in ('low', 'high', 'step', 'factor'):
        if name in value and (not is_number(value[name]) or not math.isfinite(value[name])):
            raise refuse(name, f'expected a finite number, got {value[name]!r}')
    if 'factor' in value:
        if value['factor'] <= 1:
            raise refuse('factor', f'expected a number greater than 1, got {value["factor"]!r}')
        return Parameter(key, factor=value['factor'])
    low, high, log, step = value['low'], value['high'], value.get('log', False), value.get('step')
    if not isinstance(log, bool):
        raise refuse('log', f'expected true or false, got {log!r}')
    if not low < high:
            raise refuse('high', f'expected a number greater than low ({low!r}), got {high!r}')
    if log and low <= 0:
            raise refuse('low', f'expected a positive number for log: true, got {low!r}')
    if log and step is not None:
            raise refuse('step', 'expected no step for log: true; remove step or log')
    if step is not None and (step <= 0 or not _multiple(high - low, step)):
            raise refuse('step', f'expected a positive number that divides the range {low!r} to {high!r}, got {step!r}')
    return Parameter(key, low, high, log, step)


def _typed(parameter: Parameter, values: list[Any], place: str) -> Parameter:
    r"""Converts the range to integers if the setting accepts integers only, as parsed by the recipe."""
    if parameter.choices is not None:
        return parameter
    if not all(is_number(value) for value in values):
        raise RecipeError(f'{place}: {parameter.key}: expected choices, because the setting is not a number')
    integer = all(isinstance(value, int) for value in values)
    if integer and parameter.step is not None and parameter.step != int(parameter.step):
        raise RecipeError(f'{place}: {parameter.key}.step: expected an integer, got {parameter.step!r}')
    kind = int if integer else float
    return replace(parameter, low=kind(values[0]), high=kind(values[1]), integer=integer,
                   step=None if parameter.step is None else kind(parameter.step))


def _value(settings: Any, path: KeyPath) -> Any:
    for key in path:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def _short(value: float) -> float:
    return float(f'{value:.{_DIGITS}g}')


def _multiple(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=1e-9)
