r"""Continuing a trained model with new facts, relations and entities, in a new run folder."""
from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Literal, Mapping, Optional, Union

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.arguments import boolean, file_path, instance, one_of
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataWarning, RecipeError
from pyg_emu.core.warn import warn
from pyg_emu.data.alignment import Aligned, Matched, aligned
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.datasets import absolute_source, load_dataset
from pyg_emu.experiments.build import build
from pyg_emu.experiments.provenance import TrainedOn, load_source, merged_source
from pyg_emu.experiments.recipe import Recipe, setting_differences
from pyg_emu.experiments.runs import RunResult, recorded_data, recorded_recipe, run_recipe
from pyg_emu.experiments.sections import reads_graph
from pyg_emu.experiments.starts import Start, source_text
from pyg_emu.models.growing import Sizes, carried, grown_state, rows_by_name
from pyg_emu.training.checkpoint import load_checkpoint, load_weights, verified_digest
from pyg_emu.training.loggers import Logger
from pyg_emu.training.run_folder import RunFolder
from pyg_emu.training.tables import read_tables
from pyg_emu.training.warm_start import Vectors, fill_rows


def extend(run: Union[str, Path], data: Any, run_dir: Union[str, Path], *, recipe: Optional[Recipe] = None,
           which: Literal['best', 'last'] = 'best', optimizer_state: Literal['keep', 'new'] = 'keep',
           vectors: Optional[Vectors] = None, resume: Union[bool, Literal['auto']] = 'auto',
           device: Optional[str] = None, progress: bool = True, tensorboard: bool = False, test: bool = True,
           overwrite: bool = False, loggers: Optional[Iterable[Logger]] = None) -> RunResult:
    r"""Trains the model of a run further, on a graph that may have new facts, entities and relations. The result is a
    run in a new folder; the old one is only read.

    .. code-block:: python

        result = extend('runs/umls', 'path/to/larger', 'runs/umls-2')
        predict(result.model, result.data, heads='new virus', relations='causes')

    * The new run trains only on the facts of :obj:`data`. Include the old facts if the model should still be trained on
      them.
    * Entities and relations are compared by label. Old ones keep their ids and their vectors. New ones get the ids
      after them, and vectors as the model initialises them, by the seed of the recipe. All other weights are kept.
    * Entities and relations of the old run that :obj:`data` does not have keep their ids and vectors, too; a warning
      names them. (A model without entity vectors, such as NBFNet, keeps only relations.)
    * The state of the optimiser of old rows is kept, and new rows start without one. Parts that learn beside the model
      (masks, caches, generators), the schedule and the count of steps start from the beginning.

    The same call continues an interrupted run. :obj:`origin.json` in the new folder names the old run, its weights and
    what was new.

    Args:
        run (str or Path): The folder of the old run.
        data (Any): The new graph: a name, a path, or a dictionary with :obj:`source` and options as in a recipe; or any
            other source of :func:`~pyg_emu.load_dataset` without options, such as a :class:`~pyg_emu.KGData`. An object
            is recorded as :obj:`"given"`, and commands that read facts need the data again.
        run_dir (str or Path): The folder of the new run.
        recipe (Recipe, optional): The settings, with the model of the old run. (default: those of the old run, with the
            new :obj:`data`)
        which (str, optional): The weights to start from: :obj:`"best"` (on the validation facts) or :obj:`"last"`.
            (default: :obj:`"best"`)
        optimizer_state (str, optional): :obj:`"keep"` takes the state that the optimiser had after the last step of the
            old run; :obj:`"new"` begins without one. (default: :obj:`"keep"`)
        vectors (pandas.DataFrame or str or os.PathLike, optional): Initial vectors of new entities, see
            :func:`~pyg_emu.warm_start`. (default: :obj:`None`)
        resume (bool or str, optional): See :meth:`Trainer.fit() <pyg_emu.Trainer.fit>`. (default: :obj:`"auto"`)
        device (str, optional): The training device. (default: a GPU if available, else the CPU)
        progress (bool, optional): Whether to show progress bars. (default: :obj:`True`)
        tensorboard (bool, optional): Whether to also write the history for TensorBoard. (default: :obj:`False`)
        test (bool, optional): Whether to rank the test facts. (default: :obj:`True`)
        overwrite (bool, optional): See :class:`~pyg_emu.Trainer`. (default: :obj:`False`)
        loggers (list, optional): See :class:`~pyg_emu.Trainer`. (default: :obj:`None`)

    Raises:
        RecipeError: If :obj:`run` holds no run, or one of an early version without the labels of its entities; if
            :obj:`recipe` has another model; or if :obj:`run_dir` holds another run.
        ArgumentError: If an argument is outside of its domain, only one of old and new graph has labels, or the model
            has parameters of which it is not known how they grow.
        CheckpointError: If the weights of the old run cannot be read, or its optimiser was another one.
        DataError: If the data cannot be read.
    """
    for name, path in (('run', run), ('run_dir', run_dir)):
        file_path(name, path)
    one_of('which', which, ('best', 'last'))
    for name, flag in (('progress', progress), ('tensorboard', tensorboard), ('test', test), ('overwrite', overwrite)):
        boolean(name, flag)
    one_of('optimizer_state', optimizer_state, ('keep', 'new'))
    if recipe is not None:
        instance('recipe', recipe, Recipe)
    old = RunFolder(run)
    base, known = recorded_recipe(old), recorded_data(old)
    if base is None:
        raise RecipeError(f'run: there is no run in {old.path}; expected a folder with recipe.yaml and last.pt, as '
                          'written by pyg-emu train')
    if known is None or known.num_nodes is None or known.num_relations is None:
        raise RecipeError(f'run: {old.path} was written by a version that did not record the labels of the entities; '
                          'train it again')
    if old.path.resolve() == Path(run_dir).resolve():
        raise ArgumentError(f'run_dir: expected another folder than that of the old run, got {run_dir}')
    named = isinstance(data, (str, os.PathLike)) or isinstance(data, Mapping) and 'source' in data
    recipe = recipe or replace(base, dataset=merged_source(_recorded(data), base.dataset) if named else 'given')
    changed = setting_differences({'model': recipe.model}, {'model': base.model})
    if changed:
        raise RecipeError(f'recipe: expected the model of {old.path}, got other settings ({"; ".join(changed)})')
    loaded = load_source(recipe.dataset) if named else load_dataset(data)
    entities, relations = (size if labels is None else labels for labels, size in (
        (known.entity_labels, known.num_nodes), (known.relations, known.num_relations)))
    grown = aligned(loaded, entities, relations)
    if reads_graph('model', recipe.model):
        # Its entities have no rows: those that are gone would be nodes without edges.
        own = loaded.num_nodes if loaded.entity_labels is None else loaded.entity_labels
        grown = grown._replace(data=aligned(loaded, own or 0, relations).data)
    source = _Source(old, base, which, known, grown, optimizer_state, vectors)
    if resume is False or not RunFolder(run_dir, overwrite).last.exists():
        _tell_absent(grown, reads_graph('model', recipe.model))
    start = Start(source.begin, source.optimizer if optimizer_state == 'keep' else None, source.origin())
    return run_recipe(recipe, run_dir, data=grown.data, resume=resume, device=device, progress=progress,
                      tensorboard=tensorboard, test=test, overwrite=overwrite, loggers=loggers, start=start)


@dataclass
class _Source:
    r"""The old run, and what its model becomes."""
    folder: RunFolder
    recipe: Recipe
    which: Literal['best', 'last']
    known: TrainedOn
    grown: Aligned
    optimizer_state: str
    vectors: Optional[Vectors]

    def origin(self) -> dict[str, Any]:
        path = self.folder.weights(self.which)
        kinds = {'entities': self.grown.entities, 'relations': self.grown.relations}
        counts = {name: {'kept': kind.size - len(kind.new), 'new': len(kind.new), 'without facts': len(kind.absent)}
                  for name, kind in kinds.items()}
        found = {'extends': str(self.folder.path.resolve()), 'weights': path.name, 'digest': verified_digest(path),
                 **counts, 'optimizer_state': self.optimizer_state}
        return found if self.vectors is None else {**found, 'vectors': source_text(self.vectors)}

    @property
    def _sizes(self) -> tuple[Sizes, Sizes]:
        assert self.known.num_nodes is not None and self.known.num_relations is not None
        return (Sizes(self.known.num_nodes, self.known.num_relations),
                Sizes(self.grown.entities.size, self.grown.relations.size))

    def _make(self, num_nodes: int, num_relations: int) -> torch.nn.Module:
        made: torch.nn.Module = build('model', self.recipe.model, num_nodes=num_nodes, num_relations=num_relations)
        return made

    def begin(self, model: torch.nn.Module, data: KGData) -> None:
        r"""Puts the weights of the old run into the new model."""
        before, after = self._sizes
        with torch.random.fork_rng(devices=[]):
            self.old = self._make(*before)
        load_weights(self.folder.weights(self.which), self.old)
        self.rows = rows_by_name(self._make)
        model.load_state_dict(grown_state(self.old.state_dict(), model, self.rows, before, after))
        if self.optimizer_state == 'new':
            del self.old
        if self.vectors is None:
            return
        if reads_graph('model', self.recipe.model):
            raise ArgumentError(f'vectors: {self.recipe.model["name"]} has no vector for each entity; leave them out')
        if before.num_nodes == after.num_nodes:
            raise ArgumentError('vectors: they are for new entities, and the data has none; leave vectors out')
        fill_rows(model, data, 'entity', self.vectors, first=before.num_nodes)

    def optimizer(self, optimizer: Optimizer, model: torch.nn.Module) -> None:
        r"""Puts the state of the optimiser of the old run into that of the new model, for the parameters of the model.
        """
        path = self.folder.last
        state = read_tables(load_checkpoint(path), self.folder.tables, self.old)
        own, kind = type(optimizer).__name__, state.get('optimizer_kind')
        if kind != own:
            raise CheckpointError(f'{path} contains the state of {kind or "an unknown optimiser"}, but the optimiser '
                                  f"of the new run is {own}; pass optimizer_state='new' to begin without it")
        held = state['optimizer'].get('state', {})
        fresh = optimizer.state_dict()
        for number, (name, parameter) in enumerate(model.named_parameters()):
            if number in held:
                fresh['state'][number] = self._moments(name, parameter, held[number],
                                                       fresh['state'].get(number, {}), own)
        optimizer.load_state_dict(fresh)
        del self.old

    def _moments(self, name: str, parameter: Tensor, held: Mapping[str, Any], fresh: Mapping[str, Any], own: str
                 ) -> dict[str, Any]:
        rows, shape, found = self.rows[name], self.old.get_parameter(name).shape, {}
        for key, value in held.items():
            if isinstance(value, Tensor) and value.shape == shape:
                begun = fresh.get(key)
                begun = torch.zeros_like(parameter, device='cpu') if begun is None else begun.detach().cpu()
                found[key] = carried(value.cpu(), begun.to(value.dtype), rows, *self._sizes)
            elif rows.kind is None or not isinstance(value, Tensor) or value.numel() == 1:
                found[key] = value
            else:
                raise CheckpointError(f'{self.folder.last}: {own} keeps {key!r} of {name} in the shape '
                                      f'{tuple(value.shape)}, which has no row for each {rows.kind}; pass '
                                      "optimizer_state='new' to begin without it")
        return found


def _recorded(data: Any) -> Union[str, dict[str, Any]]:
    return dict(data) if isinstance(data, Mapping) else absolute_source(data)


def _tell_absent(grown: Aligned, only_relations: bool) -> None:
    for what, matched in (('entities', grown.entities), ('relations', grown.relations)):
        if matched.absent and not (only_relations and what == 'entities'):
            warn(f'data: {len(matched.absent)} {what} of the old run are not in the data and keep their '
                 f'vectors: {_examples(matched)}', DataWarning)


def _examples(matched: Matched) -> str:
    return f'{", ".join(map(repr, matched.absent[:3]))}{", ..." if len(matched.absent) > 3 else ""}'
