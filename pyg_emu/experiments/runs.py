r"""Running a recipe: training and ranking a model in a run folder, and loading the model from the folder."""
from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Literal, Mapping, Optional, Union

import torch

from pyg_emu.core.arguments import boolean
from pyg_emu.core.distributed import current, first_alone, local_device, on_first
from pyg_emu.core.errors import ArgumentError, RecipeError, RecipeWarning
from pyg_emu.core.files import read_bytes
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.evaluation.graphs import check_settings, rank, ranker_of
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.experiments.build import build, fused_by_default
from pyg_emu.experiments.provenance import TrainedOn, load_source, merged_source, source_name
from pyg_emu.experiments.recipe import Recipe, differences, load_recipe
from pyg_emu.experiments.rules import idle_settings
from pyg_emu.experiments.sections import reads_graph
from pyg_emu.experiments.starts import ORIGIN, Start, check_origin, start_from
from pyg_emu.models.mapped import map_entities
from pyg_emu.models.sharded import shard_entities
from pyg_emu.negatives.contract import shared_parameters
from pyg_emu.negatives.transform import parts_of
from pyg_emu.training.checkpoint import load_weights
from pyg_emu.training.loggers import Logger
from pyg_emu.training.run_folder import RunFolder
from pyg_emu.training.trainer import Trainer, TrainResult
from pyg_emu.training.warm_start import Vectors


@dataclass(frozen=True)
class RunResult:
    r"""The result of :func:`run_recipe`.

    Args:
        train (TrainResult): The result of training.
        test (Metrics, optional): The ranking of the test facts with the best weights, or :obj:`None` without test
            facts.
        model (torch.nn.Module, optional): The model with the best weights.
        data (KGData, optional): The training data.
    """
    train: TrainResult
    test: Optional[Metrics]
    model: torch.nn.Module = field(repr=False)
    data: KGData = field(repr=False)

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks: training, and the ranking of the test facts."""
        test = '<p>no test facts</p>' if self.test is None else self.test._repr_html_()
        return f'{self.train._repr_html_()}\n{test}'


def run_recipe(recipe: Recipe, run_dir: Optional[Union[str, Path]] = None, *, data: Optional[KGData] = None,
               resume: Union[bool, Literal['auto']] = 'auto', device: Optional[str] = None, progress: bool = True,
               tensorboard: bool = False, name: Optional[str] = None, test: bool = True,
               on_validation: Optional[Callable[[int, Metrics], Any]] = None, overwrite: bool = False,
               loggers: Optional[Iterable[Logger]] = None, weights: Optional[Union[str, Path]] = None,
               vectors: Optional[Vectors] = None, relation_vectors: Optional[Vectors] = None,
               start: Optional[Start] = None, shard: Optional[Literal['entities']] = None) -> RunResult:
    r"""Trains the model of a recipe and ranks the test facts. Within :func:`~pyg_emu.process_group`, all processes must
    call it with the same arguments, and only the first process writes files. Settings of negatives that have no effect
    on the loss raise a :class:`~pyg_emu.core.errors.RecipeWarning`.

    Args:
        recipe (Recipe): The settings.
        run_dir (str or Path, optional): The run folder, see :class:`~pyg_emu.Trainer`. (default: :obj:`None`)
        data (KGData, optional): The data, if already loaded. (default: the dataset of the recipe)
        resume (bool or str, optional): See :meth:`Trainer.fit() <pyg_emu.Trainer.fit>`. (default: :obj:`"auto"`)
        device (str, optional): The training device. (default: a GPU if available, else the CPU)
        progress (bool, optional): Whether to show progress bars. (default: :obj:`True`)
        tensorboard (bool, optional): Whether to also write the history for TensorBoard. (default: :obj:`False`)
        name (str, optional): The label of the progress bar. (default: the names of the model and the loss)
        test (bool, optional): Whether to rank the test facts. (default: :obj:`True`)
        on_validation (callable, optional): A function that is called with the step and the
            :class:`~pyg_emu.evaluation.metrics.Metrics` of every validation. If it raises an exception, training ends.
            (default: :obj:`None`)
        overwrite (bool, optional): See :class:`~pyg_emu.Trainer`. (default: :obj:`False`)
        loggers (list, optional): See :class:`~pyg_emu.Trainer`. (default: :obj:`None`)
        weights (str or Path, optional): The :obj:`best.pt` or :obj:`last.pt` of another run, whose weights a new run
            starts from. A run that is resumed has weights of its own, and must have started from the same file, or an
            error is raised; the same applies to vectors. (default: :obj:`None`, initial weights)
        vectors (pandas.DataFrame or str or os.PathLike, optional): Vectors of entities that a new run starts from, see
            :func:`~pyg_emu.warm_start`. (default: :obj:`None`)
        relation_vectors (pandas.DataFrame or str or os.PathLike, optional): The same for relations.
            (default: :obj:`None`)
        start (Start, optional): Another start of a new run, in place of these three. (default: :obj:`None`)
        shard (str, optional): :obj:`"entities"` divides the entity rows among the processes, see
            :func:`~pyg_emu.models.shard_entities`, instead of the rows of batches. (default: :obj:`None`)

    Raises:
        RecipeError: If a class does not accept its settings, the folder contains a run with other settings or one that
            started from other weights or vectors, the model has no entity rows to divide, or :obj:`storage: mmap` is to
            go without a run folder, onto a GPU or into several processes.
        ArgumentError: If the folder contains a run with other entities, relations or facts.
        CheckpointError: If :obj:`weights` cannot be read, or are those of another model.
    """
    _check_shard(shard, recipe)
    given = start_from(weights, vectors, relation_vectors)
    if given is not None and start is not None:
        raise ArgumentError('start: expected no weights, vectors and relation_vectors beside it')
    start = given if start is None else start
    for told in idle_settings(recipe.model, recipe.loss, recipe.negatives):
        warn(told, RecipeWarning)
    # Settings are checked before a possibly large graph is loaded. Parts may draw parameters of their own.
    torch.manual_seed(recipe.seed)
    transform = build('negatives', recipe.negatives)
    criterion = build('loss', recipe.loss)
    schedule = build('schedule', recipe.schedule, sparse=bool(recipe.model.get('sparse')))
    folder = None if run_dir is None else RunFolder(run_dir, overwrite)
    device = str(local_device(device))
    _check_storage(recipe, folder, device, shard)
    with nullcontext() if folder is None else folder.held():
        return _run(recipe, folder, transform, criterion, schedule, data, resume, device, progress, tensorboard, name,
                    test, on_validation, loggers, start, shard)


def _run(recipe: Recipe, folder: Optional[RunFolder], transform: Any, criterion: Any, schedule: Any,
         data: Optional[KGData], resume: Union[bool, Literal['auto']], device: str, progress: bool, tensorboard: bool,
         name: Optional[str], test: bool, on_validation: Optional[Callable[[int, Metrics], Any]],
         loggers: Optional[Iterable[Logger]], start: Optional[Start], shard: Optional[str]) -> RunResult:
    if folder is not None and resume is not False:
        on_first(lambda: _check_same(recipe, folder))
    other = None
    going_on = folder if folder is not None and resume is not False and folder.last.exists() else None
    if going_on is not None and start is not None:
        on_first(partial(check_origin, going_on, start))
        start = None
    with first_alone():
        data = _loaded(recipe, going_on) if data is None else data
        # Loaded before training, so that unknown labels raise an error early.
        if test and recipe.inference is not None:
            other = TrainedOn.of(data).load(recipe.inference)
    begun = recipe
    if going_on is not None:
        begun = _as_begun(recipe, going_on)
        _check_data(going_on, data, recipe)
    data = _prepared(recipe, data, device)
    graph = data if other is None else _prepared(recipe, other, device)
    # Likewise: the ranking of the test facts comes last.
    for settings, ranked in ((recipe.validation, data), *([(recipe.evaluation, graph)] if test else [])):
        check_settings(ranked, settings)
    torch.manual_seed(recipe.seed)
    scratch = folder.path if folder is not None and recipe.storage == 'mmap' else None
    model = make_model(recipe, data, shard, scratch).to(device)
    if start is not None:
        start.model(model, data)
    loader = TripletLoader(data, recipe.batch_size, shuffle=True, transform=transform, corrupt=recipe.corrupt,
                           seed=recipe.seed)
    parts = parts_of(loader, criterion).values()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            part.to(device)
    parameters = [*model.parameters(), *shared_parameters(parts)]
    fastest = fused_by_default(recipe.model, recipe.optimizer, recipe.graph, device)
    optimizer = build('optimizer', {**fastest, **recipe.optimizer}, params=parameters)
    if start is not None and start.optimizer is not None:
        start.optimizer(optimizer, model)
    has_valid = data.num_facts('valid') > 0
    for key in ('patience', 'metric'):
        if not has_valid and getattr(recipe, key) != getattr(Recipe, key):
            raise RecipeError(f'{key}: expected validation facts for {key}={getattr(recipe, key)}, got none; remove it')

    by_relation = {'by': 'relation'} if recipe.metric.startswith('macro.') else {}
    validation: dict[str, Any] = {**recipe.validation, **by_relation}

    def validate(model: torch.nn.Module) -> Metrics:
        metrics = evaluate(ranker_of(model, data), data, split='valid', **validation)
        if on_validation is not None:
            on_validation(trainer.step, metrics)
        return metrics

    trainer = Trainer(
        model, criterion, loader, optimizer, num_steps=recipe.num_steps, schedule=schedule,
        validate=validate if has_valid else None,
        metric=recipe.metric, evaluate_every=recipe.evaluate_every, patience=recipe.patience,
        checkpoint_every=recipe.checkpoint_every, max_seconds=recipe.max_seconds, max_grad_norm=recipe.max_grad_norm,
        graph=recipe.graph, run_dir=folder, tensorboard=tensorboard, loggers=loggers, progress=progress,
        name=name or f'{recipe.model["name"]}, {recipe.loss["name"]}', recipe_hash=begun.hash())
    if folder is not None:
        folder.files.update(_description(folder, recipe, data, begun))
        folder.files.update({} if start is None else {ORIGIN: start.file()})
    result = trainer.fit(resume)
    ranking = None
    if test and graph.num_facts('test') > 0:
        ranking = rank(model, graph, 'test', recipe.evaluation, name=source_name(recipe.inference or recipe.dataset),
                       inductive=recipe.inference is not None, progress=progress)
        if folder is not None:
            on_first(lambda: folder.update_metrics({'test': ranking.to_dict()}))
    return RunResult(result, ranking, model, data)


def _description(folder: RunFolder, recipe: Recipe, data: KGData, begun: Recipe) -> dict[str, bytes]:
    r"""Returns the files that describe a run, from name to content, in the order in which they are written: a new place
    of the data is recorded after the one that the run was begun with.
    """
    written = recipe.to_yaml().encode()
    try:
        if recorded_recipe(folder) == recipe:  # The existing file may contain comments.
            written = read_bytes(folder.recipe)
    except (RecipeError, OSError):
        pass  # RunFolder raises an error that names the file.
    trained_on = json.dumps(TrainedOn.of(data, begun.dataset).to_dict(), indent=2, allow_nan=True) + '\n'
    return {_trained_on(folder).name: trained_on.encode(), folder.recipe.name: written}


def open_run(run_dir: Union[str, Path], *, which: Literal['best', 'last'] = 'best',
             data: Optional[Union[KGData, str, Mapping[str, Any]]] = None, inference: bool = False,
             whole: bool = False, facts: bool = True, other_facts: bool = False, device: Optional[str] = None,
             shard: Optional[Literal['entities']] = None
             ) -> tuple[torch.nn.Module, KGData, Recipe]:
    r"""Loads the model of a run folder, and its training data or other data. If the model reads a graph, the data has
    inverse relations.

    .. code-block:: python

        model, data, _ = open_run('runs/nbfnet', data='fb237_v1_ind')  # other entities, the same relations
        frame = predict(model.as_ranker(data), data, heads='/m/012hw', relations='/people/cause_of_death/people')

    Args:
        run_dir (str or Path): The run folder.
        which (str, optional): The weights to load: :obj:`"best"` (on the validation facts) or :obj:`"last"`. Without
            validation, the last weights are the best. (default: :obj:`"best"`)
        data (KGData, str or dict, optional): The data, its name or path, or a dictionary with :obj:`source` and options
            as in a recipe. A name, path or dictionary is loaded with the relation ids of the training data and, unless
            the model reads a graph, with its entity ids. Options of the recipe apply where possible. (default: the
            dataset of the recipe)
        inference (bool, optional): Without :obj:`data`, whether to load the :obj:`inference` graph of the recipe, if it
            has one, instead of its :obj:`dataset`. (default: :obj:`False`)
        whole (bool, optional): Whether all facts of :obj:`data` are known facts, as in prediction. A file is not split,
            and a folder only needs the file train.txt. (default: :obj:`False`)
        facts (bool, optional): Whether to read the data. If :obj:`False`, only the run folder is read: the data has the
            entities, relations and labels of the run, and no facts. (default: :obj:`True`)
        other_facts (bool, optional): Whether data with the entities of the run may have other facts than the run. A
            warning says so. (default: :obj:`False`)
        device (str, optional): The device of the model and the data. (default: a GPU if available, else the CPU; the
            CPU for a run with :obj:`storage: mmap`, whose entity rows are read from the files of the checkpoint)
        shard (str, optional): :obj:`"entities"` divides the entity rows among the processes of
            :func:`~pyg_emu.process_group`, all of which have to call this function. It does not matter how many
            processes have trained the model. (default: :obj:`None`)

    Raises:
        RecipeError: If the folder does not contain a run, or its model has no entity rows to divide.
        CheckpointError: If the checkpoint cannot be read or does not match the data.
        ArgumentError: If the data has other relation ids than the training data, other entity ids (unless the model
            reads a graph), another split of the same facts, or other facts about the same entities.
    """
    if which not in ('best', 'last'):
        raise ArgumentError(f"which: expected 'best' or 'last', got {which!r}")
    folder = RunFolder(run_dir)
    recipe = recorded_recipe(folder)
    if recipe is None:
        raise RecipeError(f'there is no run in {folder.path}; expected a folder with recipe.yaml and last.pt, as '
                          'written by pyg-emu train')
    _check_shard(shard, recipe)
    in_place = recipe.storage == 'mmap' and shard is None
    device = str(local_device('cpu' if in_place and device is None else device))
    known, trained = recorded_data(folder), None
    if not boolean('facts', facts):
        data, whole = _labels_alone(folder, recipe, known, data), True
    elif not isinstance(data, KGData):
        recorded = recipe.inference if inference and recipe.inference is not None else recipe.dataset
        source = merged_source(data, recorded, whole)
        if known is None:
            data = load_source(source)
        elif reads_graph('model', recipe.model):
            data = known.with_own_ids(known.load(source))
        else:
            data, trained = known.load_like(source, recipe.dataset)
    elif known is not None:
        known.check(data)
    if known is not None and not reads_graph('model', recipe.model):
        known.check_entities(data, trained)
    if known is not None and not whole:
        known.check_split(data, boolean('other_facts', other_facts))
    data = _prepared(recipe, data, device)
    with torch.device('meta') if in_place else nullcontext():
        model = make_model(recipe, data, shard)
    load_weights(folder.weights(which), model)
    return model.to(device).eval(), data, recipe


def _labels_alone(folder: RunFolder, recipe: Recipe, known: Optional[TrainedOn], data: Any) -> KGData:
    r"""The entities and relations of a run, without its facts."""
    if data is not None:
        raise ArgumentError('data, facts: expected no data with facts=False, which reads only the run folder')
    if reads_graph('model', recipe.model):
        raise RecipeError(f'{recipe.model["name"]} computes its scores from the facts of a graph; open the run with '
                          'its data')
    found = None if known is None else known.without_facts()
    if found is None:
        raise RecipeError(f'{folder.path} was written by a version that did not record the labels of the entities; '
                          'open the run with its data')
    return found


def is_inductive(run_dir: Union[str, Path], data: KGData) -> bool:
    r"""Returns whether :obj:`data` has other entities than the training data of the run in :obj:`run_dir`. It is always
    :obj:`False` for a model with entity embeddings.
    """
    folder = RunFolder(run_dir)
    recipe, known = recorded_recipe(folder), recorded_data(folder)
    return (recipe is not None and known is not None and reads_graph('model', recipe.model)
            and not known.is_of(data))


def recorded_recipe(folder: RunFolder) -> Optional[Recipe]:
    r"""Returns the recipe of the run in a folder, or :obj:`None` if there is none."""
    return load_recipe(folder.recipe, trained=True) if folder.recipe.exists() else None


def recorded_data(folder: RunFolder) -> Optional[TrainedOn]:
    r"""Returns the description of the data of the run in a folder, or :obj:`None` if there is none."""
    return TrainedOn.read(_trained_on(folder))


def make_model(recipe: Recipe, data: KGData, shard: Optional[str] = None, scratch: Optional[Path] = None
               ) -> torch.nn.Module:
    r"""Creates the model of a recipe for the size of the data.

    Args:
        recipe (Recipe): The settings.
        data (KGData): The data.
        shard (str, optional): :obj:`"entities"` divides the entity rows among processes. The whole table exists in none
            of them. (default: :obj:`None`)
        scratch (Path, optional): The folder of memory-mapped files that entity rows are to be in. (default:
            :obj:`None`, they are in memory)
    """
    with nullcontext() if shard is None and scratch is None else torch.device('meta'):
        model: torch.nn.Module = build('model', recipe.model, num_nodes=data.num_nodes,
                                       num_relations=data.num_relations)
    if scratch is not None:
        return map_entities(model, scratch)
    return model if shard is None else shard_entities(model)


def _check_shard(shard: Optional[str], recipe: Recipe) -> None:
    if shard not in (None, 'entities'):
        raise ArgumentError(f"shard: expected 'entities' or None, got {shard!r}")
    if shard is not None and reads_graph('model', recipe.model):
        raise RecipeError(f'shard: {recipe.model["name"]} has no entity rows to divide among processes; leave shard '
                          'out, which divides the rows of batches')


def _check_storage(recipe: Recipe, folder: Optional[RunFolder], device: str, shard: Optional[str]) -> None:
    if recipe.storage != 'mmap':
        return
    if shard is not None or current()[1] > 1:
        raise RecipeError('storage: entity rows in memory-mapped files belong to one process; expected storage: memory '
                          "with several, whose --shard entities (shard='entities') divides the rows among them")
    if folder is None:
        raise RecipeError('storage: mmap needs a run folder for its files; give --run-dir (run_dir), or '
                          'storage: memory')
    if device != 'cpu':
        raise RecipeError(f'storage: mmap keeps entity rows on the CPU; expected --device cpu (device), got {device}')


def _prepared(recipe: Recipe, data: KGData, device: str) -> KGData:
    r"""Returns the data on the device, with inverse relations if the model of the recipe needs them."""
    return (data.with_inverse_relations() if reads_graph('model', recipe.model) else data).to(device)


def _loaded(recipe: Recipe, going_on: Optional[RunFolder]) -> KGData:
    r"""Reads the data of a recipe, with the ids of the run that is continued: an extended run has the entities and
    relations of an older one first.
    """
    data = load_source(recipe.dataset)
    known = None if going_on is None else recorded_data(going_on)
    return data if known is None else known.with_own_ids(data)


def _trained_on(folder: RunFolder) -> Path:
    return folder.path / 'trained_on.json'


def _check_data(folder: RunFolder, data: KGData, recipe: Recipe) -> None:
    r"""Checks that the ids and facts of the data are those of the run so far.

    Raises:
        ArgumentError: If they differ.
    """
    known = recorded_data(folder)
    if known is None:
        return
    found = known.other_ids(data, entities=not reads_graph('model', recipe.model))
    if found is not None:
        raise ArgumentError(f'{folder.path} contains a run on other data ({found}); choose another run folder, or '
                            'start over with resume=False')
    known.check_same(data)


def _check_same(recipe: Recipe, folder: RunFolder) -> None:
    recorded = recorded_recipe(folder) if folder.last.exists() else None
    if recorded is None:
        return
    one, other = _as_begun(recipe, folder), _as_begun(recorded, folder)
    if one.hash() != other.hash():
        changed = '; '.join(differences(one, other))
        raise RecipeError(f'{folder.path} contains a run with other settings ({changed}); choose another run folder, '
                          'or start over with resume=False')


def _as_begun(recipe: Recipe, folder: RunFolder) -> Recipe:
    r"""Returns a recipe with the dataset that the run in a folder was begun with. The fingerprints of the facts decide
    whether the data is the same, and not its name or place: :func:`_check_data` compares them. A run of an early
    version has none, and the recipe is returned as it is.
    """
    known, recorded = recorded_data(folder), recorded_recipe(folder)
    if known is None or known.facts is None or recorded is None:
        return recipe
    return replace(recipe, dataset=recorded.dataset if known.source is None else known.source)
