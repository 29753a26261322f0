r"""Recipes: the settings of a run in YAML, and how they are read and checked.

.. code-block:: yaml

    base: distmult-fb15k237-uniform    # another recipe, packaged or a file beside this one
    negatives: {num_negatives: 256, mutation_rate: 0.61}
    loss: {name: emu, alpha: 0.11, beta: 0.53}

A section names a class and its arguments (:mod:`pyg_emu.experiments.sections`): a class of the package, or a class
of the user's own by its path :obj:`package.module:Class` (:mod:`pyg_emu.experiments.names`). Over a base, sections
merge key by key. A section that changes its :obj:`name` inherits nothing, but a model keeps :obj:`hidden_channels` and
:obj:`sparse`, and a loss keeps :obj:`regularizer`, if the new class takes them. A section that is :obj:`null` drops
that of the base, so that the default applies. A recipe that sets :obj:`negatives.mutation` does not inherit the
settings of masks, which have no effect beside it.
"""
from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Iterable, Literal, Mapping, Optional, Union, get_type_hints

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.checks import check_dataset, check_ranges
from pyg_emu.experiments.layers import KeyPath, Layer, dump, read_layer
from pyg_emu.experiments.names import SECTIONS, canonical_name, fact, find_class, nearest
from pyg_emu.experiments.rules import (
    dense_obstacle,
    graph_obstacle,
    metric_obstacle,
    mutation_obstacle,
    sparse_obstacle,
    storage_obstacle,
)
from pyg_emu.experiments.sections import (
    check_section,
    class_of,
    kept_settings,
    name_in,
    plain_section,
    reads_graph,
    replaced_settings,
    section_keys,
    signature,
    without_defaults,
)
from pyg_emu.experiments.values import conform

#: What a recipe says where it says nothing.
_DEFAULTS: dict[str, Any] = {
    'model': {'name': 'DistMult', 'hidden_channels': 100},
    'negatives': {},
    'loss': {'name': 'emu'},
    'optimizer': {'name': 'adagrad', 'lr': 0.1},
    'schedule': {'name': 'constant'},
    'evaluation': {},
    'validation': {},
}
#: Settings that do not change the weights a run goes through, only what is looked at and when.
_OBSERVATION = ('description', 'evaluate_every', 'checkpoint_every', 'metric', 'patience', 'max_seconds', 'evaluation',
                'validation', 'inference', 'graph', 'storage')
_COUNTS = ('batch_size', 'num_steps', 'evaluate_every', 'checkpoint_every', 'patience')
_POSITIVE = ('max_seconds', 'max_grad_norm')


@dataclass(frozen=True)
class Recipe:
    r"""All settings of a run, checked. A section is a mapping of the name of a class and its arguments.

    Args:
        dataset (str or dict): The dataset for :func:`~pyg_emu.load_dataset`: a name, a path, or a mapping of
            :obj:`source` and options.
        description (str, optional): One line for people. (default: :obj:`""`)
        model (dict, optional): Class and sizes. (default: DistMult with 100 channels)
        negatives (dict, optional): Arguments of :class:`~pyg_emu.EMUNegatives`.
        loss (dict, optional): Class and arguments. (default: :class:`~pyg_emu.EMULoss`)
        optimizer (dict, optional): Class and arguments. (default: Adagrad with a learning rate of 0.1)
        schedule (dict, optional): Class and arguments. (default: constant)
        batch_size (int, optional): Triples per step. (default: :obj:`1000`)
        corrupt (str, optional): See :class:`~pyg_emu.TripletLoader`. (default: :obj:`"alternate"`)
        num_steps (int, optional): Steps to take. (default: :obj:`10000`)
        evaluate_every (int, optional): Steps between validations. (default: :obj:`500`)
        checkpoint_every (int, optional): Steps between checkpoints. (default: :obj:`evaluate_every`)
        metric (str, optional): The validation metric that decides which step is best, and that :obj:`patience` counts
            by, such as :obj:`"hits@10"`, :obj:`"tail.mrr"` or :obj:`"macro.mrr"`, the mean over relations, which adds
            :obj:`by: relation` to :obj:`validation`. (default: :obj:`"mrr"`)
        patience (int, optional): Validations without a new best before stopping. (default: :obj:`None`)
        max_seconds (float, optional): Seconds of training steps after which to stop, see :class:`~pyg_emu.Trainer`.
            (default: :obj:`None`)
        max_grad_norm (float, optional): Clip gradients to this norm. (default: :obj:`None`)
        seed (int, optional): Seed of everything random. (default: :obj:`0`)
        graph (bool, optional): Whether steps run as CUDA graphs, see :class:`~pyg_emu.Trainer`. (default: :obj:`False`)
        storage (str, optional): Where entity rows and their optimiser state are: in :obj:`"memory"`, or with
            :obj:`"mmap"` in memory-mapped files, see :func:`~pyg_emu.map_entities`. (default: :obj:`"memory"`)
        evaluation (dict, optional): Arguments of :func:`~pyg_emu.evaluate` for the final ranking.
        validation (dict, optional): The same for the validations during training.
        inference (str or dict, optional): Another graph with the same relations, given like :obj:`dataset`, for a model
            that reads a graph. The final ranking takes its test facts over its training facts. Validation stays on
            :obj:`dataset`. As in NBFNet's published results, the filter holds the facts of the graph that is read, and
            the expected Hits@10 against 50 negatives is added, unless :obj:`evaluation` says otherwise.
            (default: :obj:`None`, the test facts of :obj:`dataset`)

    A model class may bring defaults of its own (:attr:`recipe_defaults`). Those of :class:`~pyg_emu.NBFNet` are
    :obj:`nbfnet_emu`, Adam with 5e-3, batches of 64 that corrupt both sides, and 32 filtered negatives.
    """
    dataset: Union[str, dict[str, Any]]
    description: str = ''
    model: dict[str, Any] = field(default_factory=lambda: _default('model'))
    negatives: dict[str, Any] = field(default_factory=lambda: _default('negatives'))
    loss: dict[str, Any] = field(default_factory=lambda: _default('loss'))
    optimizer: dict[str, Any] = field(default_factory=lambda: _default('optimizer'))
    schedule: dict[str, Any] = field(default_factory=lambda: _default('schedule'))
    batch_size: int = 1000
    corrupt: Literal['alternate', 'both', 'tail', 'head', 'bernoulli'] = 'alternate'
    num_steps: int = 10000
    evaluate_every: int = 500
    checkpoint_every: Optional[int] = None
    metric: str = 'mrr'
    patience: Optional[int] = None
    max_seconds: Optional[float] = None
    max_grad_norm: Optional[float] = None
    seed: int = 0
    graph: bool = False
    storage: Literal['memory', 'mmap'] = 'memory'
    evaluation: dict[str, Any] = field(default_factory=lambda: _default('evaluation'))
    validation: dict[str, Any] = field(default_factory=lambda: _default('validation'))
    inference: Optional[Union[str, dict[str, Any]]] = None

    def to_dict(self) -> dict[str, Any]:
        r"""All settings as plain values."""
        values = asdict(self)
        return {'description': values.pop('description'), **values}

    def to_yaml(self) -> str:
        r"""All settings as a recipe."""
        return dump(self.to_dict())

    def decisive(self) -> dict[str, Any]:
        r"""The settings that determine the weights. A run can be continued with any recipe that agrees in them; of its
        data, the facts have to agree, and not the place.
        """
        found = {}
        defaults = {entry.name: entry.default for entry in fields(self)}
        for key, value in self.to_dict().items():
            if key in SECTIONS:
                value = without_defaults(key, value)
            if key not in _OBSERVATION and value != defaults[key]:
                found[key] = value
        if not fact(class_of('schedule', self.schedule), 'follows_num_steps', True):
            found.pop('num_steps', None)
        return found

    def hash(self) -> str:
        r"""A short hash of :meth:`decisive`."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()[:12]


def load_recipe(source: Union[str, Path, Mapping[str, Any]], overrides: Iterable[Layer] = (), trained: bool = False
                ) -> Recipe:
    r"""Reads a recipe and its bases.

    Args:
        source (str, Path or dict): The name of a packaged recipe, a path, or settings.
        overrides (iterable of Layer, optional): Layers over it, the last one on top. (default: none)
        trained (bool, optional): Whether a run was made with it. Whether its settings go together is then not checked:
            an earlier version may have trained what this one refuses, and its weights are valid. (default:
            :obj:`False`)

    Raises:
        RecipeError: If the recipe does not exist, cannot be read, or has an invalid setting; names the file, the line
            and what was expected.
    """
    layer = _resolved(source)
    given = [_named(override) for override in overrides]
    for override in given:
        # What is given beside it is not inherited: a setting without an effect is refused then.
        layer = _lay(override, layer, beside=given)
    return make_recipe(layer, trained)


def written_settings(source: Union[str, Path, Mapping[str, Any]]) -> dict[str, Any]:
    r"""Returns the settings that a recipe and its bases write, unchecked and without defaults.

    Args:
        source (str, Path or dict): See :func:`load_recipe`.

    Raises:
        RecipeError: If the recipe or a base does not exist or cannot be read.
    """
    return _resolved(source).values


def make_recipe(layer: Layer, trained: bool = False) -> Recipe:
    r"""Checks settings and fills in the defaults.

    Args:
        layer (Layer): The settings, with the place that each came from; :obj:`base` must be resolved.
        trained (bool, optional): See :func:`load_recipe`. (default: :obj:`False`)

    Raises:
        RecipeError: If a key is unknown or a value is invalid.
    """
    layer = _named(layer)
    # A section that is null has dropped those below it.
    given = {key: value for key, value in layer.values.items() if value is not None or key not in SECTIONS}
    layer = Layer(given, layer.places)
    layer = _over(layer, _named(Layer(_defaults(layer))))
    values = layer.values
    hints = get_type_hints(Recipe)
    for key in values:
        if key not in hints:
            inside = [f'{kind}.{key}' for kind in SECTIONS
                      if kind in hints and key in section_keys(kind, values.get(kind))]
            hint = f'; did you mean {" or ".join(map(repr, inside))}?' if inside else nearest(key, hints)
            raise RecipeError(f'{layer.place((key, ))}unknown key {key!r}{hint}')
    if values.get('dataset') is None:
        raise RecipeError('dataset is missing: give the name of a dataset or a folder with train.txt, valid.txt and '
                          'test.txt')
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key in SECTIONS:
            checked[key] = check_section(key, value, (key, ), layer)
            continue
        try:
            checked[key] = conform(value, hints[key])
        except TypeError as error:
            raise RecipeError(f'{layer.place((key, ))}{key}: expected {error}, got {value!r:.100}') from None
        if key in _COUNTS and checked[key] is not None and checked[key] < 1:
            raise RecipeError(f'{layer.place((key, ))}{key}: expected an integer of at least 1, got {value!r}')
        if key in _POSITIVE and checked[key] is not None and not 0 < checked[key] < float('inf'):
            raise RecipeError(f'{layer.place((key, ))}{key}: expected a finite number above 0, got {value!r}')
    if not 0 <= checked.get('seed', 0) < 2**63:
        raise RecipeError(f'{layer.place(("seed", ))}seed: expected an integer in [0, 2^63), got {checked["seed"]}')
    for key in ('dataset', 'inference'):
        check_dataset(key, checked.get(key), layer)
    if not trained:
        _check_together(checked, layer)
    return Recipe(**checked)


def _check_together(checked: Mapping[str, Any], layer: Layer) -> None:
    r"""Checks what settings mean for each other, and the values that a class refuses."""
    _refuse(graph_obstacle(checked['model'], checked['loss'], checked['negatives']), layer)
    _refuse(mutation_obstacle(checked['loss'], checked['negatives']), layer)
    if 'metric' in checked:
        _refuse(metric_obstacle(checked['metric'], checked['validation']), layer)
    if checked.get('inference') is not None and not reads_graph('model', checked['model']):
        _refuse(f'inference: {checked["model"]["name"]} has a vector for each entity of dataset and none for those of '
                'another graph; choose the model NBFNet, or leave inference out', layer)
    if checked['model'].get('sparse'):
        _refuse(sparse_obstacle(*(checked[key] for key in ('optimizer', 'loss', 'schedule', 'negatives'))), layer)
    else:
        _refuse(dense_obstacle(checked['model'], checked['optimizer']), layer)
    if checked.get('storage') == 'mmap':
        _refuse(storage_obstacle(checked['model'], checked['optimizer'], checked['loss'], checked.get('graph', False)),
                layer)
    check_ranges(checked, layer)


def packaged_recipes() -> dict[str, str]:
    r"""Names of the recipes that come with the package, and their descriptions."""
    found = {}
    for path in sorted(_packaged().glob('*.yaml')):
        found[path.stem] = str(read_layer(path).values.get('description', ''))
    return found


def packaged_text(name: str) -> str:
    r"""A packaged recipe as it is written.

    Raises:
        RecipeError: If there is none of that name.
    """
    return _find(name, None).read_text()


def differences(one: Recipe, other: Recipe) -> list[str]:
    r"""The decisive settings in which two recipes differ, such as :obj:`"batch_size: 500, not 1000"`. A setting that a
    recipe does not have is :obj:`nothing`.

    Args:
        one (Recipe): Its values come first.
        other (Recipe): Its values come after "not".
    """
    return setting_differences(one.to_dict(), other.to_dict(), changed_settings(one.decisive(), other.decisive()))


def changed_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    r"""The dotted keys whose values differ between two nested mappings."""
    ours, theirs = _flat(one), _flat(other)
    return [key for key in dict.fromkeys([*ours, *theirs])
            if key not in ours or key not in theirs or ours[key] != theirs[key]]


def setting_differences(one: Mapping[str, Any], other: Mapping[str, Any], keys: Optional[Iterable[str]] = None
                        ) -> list[str]:
    r"""The values of two nested mappings side by side, such as :obj:`"batch_size: 500, not 1000"`.

    Args:
        one (dict): Its values come first.
        other (dict): Its values come after "not".
        keys (iterable of str, optional): The dotted keys to compare. (default: those whose values differ)
    """
    ours, theirs = _flat(one), _flat(other)
    keys = changed_settings(one, other) if keys is None else keys
    return [f'{key}: {ours.get(key, "nothing")}, not {theirs.get(key, "nothing")}' for key in keys]


def _resolved(source: Union[str, Path, Mapping[str, Any]]) -> Layer:
    return _with_base(Layer(dict(source)), None, ()) if isinstance(source, Mapping) else _read(source, ())


def _read(source: Union[str, Path], seen: tuple[Path, ...], beside: Optional[Path] = None) -> Layer:
    path = _find(source, beside)
    if path in seen:
        raise RecipeError(f'{path} is based on itself, through {", ".join(map(str, seen))}')
    return _with_base(read_layer(path), path, seen)


def _with_base(layer: Layer, path: Optional[Path], seen: tuple[Path, ...]) -> Layer:
    base = layer.values.pop('base', None)
    layer = _named(layer)
    if base is None:
        return layer
    if not isinstance(base, str):
        raise RecipeError(f'{layer.place(("base", ))}base: expected the name or the path of a recipe, got {base!r}')
    try:
        below = _read(base, seen if path is None else (*seen, path), None if path is None else path.parent)
    except RecipeError as error:
        raise RecipeError(f'{layer.place(("base", ))}{error}') from error
    # What a base says of itself does not describe what is built on it.
    below.values.pop('description', None)
    return _lay(layer, below)


def _lay(above: Layer, below: Layer, beside: Iterable[Layer] = ()) -> Layer:
    r"""One layer over another. Options of a dataset are added to a name or a path below."""
    values = dict(below.values)
    for key in ('dataset', 'inference'):
        options = above.values.get(key)
        if isinstance(options, dict) and 'source' not in options and isinstance(values.get(key), str):
            values[key] = {'source': values[key]}
    return _over(above, Layer(values, below.places), beside)


def _over(above: Layer, below: Layer, beside: Iterable[Layer] = ()) -> Layer:
    values = dict(below.values)
    for kind, section in values.items():
        gone = replaced_settings(kind, above.values.get(kind))
        if gone and isinstance(section, dict):
            stay = {key for other in beside if isinstance(other.values.get(kind), dict) for key in other.values[kind]}
            values[kind] = {key: value for key, value in section.items() if key not in gone - stay}
    below = Layer(values, below.places)

    def kept(path: KeyPath, name: Any) -> list[str]:
        return kept_settings(path[0], name, above.place((*path, 'name'))) if len(path) == 1 else []

    return above.over(below, kept)


def _defaults(layer: Layer) -> dict[str, Any]:
    r"""The defaults of a recipe, which depend on its model."""
    name = canonical_name('model', name_in('model', layer.values.get('model')))
    cls = find_class('model', name, layer.place(('model', 'name')))
    defaults = {**_DEFAULTS, **fact(cls, 'recipe_defaults', {})}
    width = signature(cls).get('hidden_channels')
    needs_width = width is not None and width[1] is inspect.Parameter.empty
    model = {'hidden_channels': _DEFAULTS['model']['hidden_channels']} if needs_width else {}
    return {**defaults, 'model': {**model, **fact(cls, 'recipe_defaults', {}).get('model', {}), 'name': name}}


def _find(source: Union[str, Path], beside: Optional[Path]) -> Path:
    folders = [Path()] if beside is None else [beside, Path()]
    candidates = [folder / Path(source).expanduser() for folder in folders]
    if isinstance(source, str) and not Path(source).suffix:
        candidates = [_packaged() / f'{source}.yaml', *candidates]
    for path in candidates:
        try:
            if path.is_file():
                return path
        except OSError as error:  # a name that is too long, a folder that may not be read
            raise RecipeError(f'there is no recipe {str(source)!r:.100} ({error.strerror})') from error
    names = [path.stem for path in sorted(_packaged().glob('*.yaml'))]
    raise RecipeError(f'there is no recipe {str(source)!r:.100}, neither packaged nor as a '
                      f'file{nearest(str(source), names)}')


def _packaged() -> Path:
    return Path(str(resources.files('pyg_emu.experiments'))) / 'recipes'


def _named(layer: Layer) -> Layer:
    r"""Writes sections that are a name alone as mappings, and names in their canonical spelling, for merging."""
    places = dict(layer.places)
    values = {key: plain_section(key, value, (key, ), places) if key in SECTIONS else value
              for key, value in layer.values.items()}
    return Layer(values, places)


def _refuse(obstacle: Optional[str], layer: Layer) -> None:
    # Messages read 'section.key: what is wrong'.
    if obstacle is not None:
        raise RecipeError(f'{layer.place(tuple(obstacle.partition(":")[0].split(".")))}{obstacle}')


def _default(kind: str) -> dict[str, Any]:
    return check_section(kind, _DEFAULTS[kind], (kind, ), Layer())


def _flat(values: Mapping[str, Any], path: str = '') -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f'{path}{key}.') if isinstance(value, dict) else {f'{path}{key}': value}
    return found
