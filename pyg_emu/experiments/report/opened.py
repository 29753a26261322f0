r"""A run as a report reads it: everything that its folder gives, and why the rest is not there."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Mapping, Optional, Union

import pandas as pd
import torch

from pyg_emu.core.errors import CheckpointError, DataError, PygEmuError, RecipeError
from pyg_emu.data.graph import KGData, Split
from pyg_emu.evaluation.graphs import rank
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.experiments.comparison import run_entries
from pyg_emu.experiments.provenance import load_source, merged_source, source_name
from pyg_emu.experiments.recipe import Recipe
from pyg_emu.experiments.report.content import number
from pyg_emu.experiments.runs import is_inductive, open_run, recorded_recipe
from pyg_emu.training.history import read_csv
from pyg_emu.training.run_folder import RunFolder, read_json

#: The splits that are ranked if none is asked for, the first one that has facts.
_RANKED: tuple[Split, ...] = ('test', 'valid')


@dataclass(frozen=True)
class Choices:
    r"""What :func:`~pyg_emu.experiments.report.write_report` is asked for; see there."""
    split: Optional[Split] = None
    which: Literal['best', 'last'] = 'best'
    data: Optional[Union[KGData, str, Mapping[str, Any]]] = None
    max_triples: Optional[int] = None
    num_hardest: int = 50
    num_answers: int = 5
    projection: Literal['tsne', 'pca', 'none'] = 'tsne'
    max_entities: int = 1000
    other_facts: bool = False
    device: Optional[str] = None
    progress: bool = True


@dataclass(frozen=True)
class Ranking:
    r"""The ranks of the facts of a split, computed for the report or read from :obj:`metrics.json`.

    Args:
        split (str): The split.
        groups (dict): The metrics of each group: :obj:`"both"`, the sides, the kinds of relations.
        info (dict): How facts were ranked.
        relations (pandas.DataFrame, optional): The metrics of each relation. (default: :obj:`None`)
        metrics (Metrics, optional): The ranks. (default: :obj:`None`, if they were read from the file)
    """
    split: str
    groups: dict[str, dict[str, float]]
    info: dict[str, Any]
    relations: Optional[pd.DataFrame] = None
    metrics: Optional[Metrics] = None

    @classmethod
    def of(cls, metrics: Metrics) -> Ranking:
        r"""The ranking that was computed."""
        groups = {name: dict(values) for name, values in metrics.groups.items()}
        return cls(str(metrics.info['split']), groups, {**metrics.info, 'ties': metrics.tie}, metrics.by('relation'),
                   metrics)

    @classmethod
    def recorded(cls, content: Mapping[str, Any]) -> Optional[Ranking]:
        r"""The ranking of the test facts in :obj:`metrics.json`, or :obj:`None` if it holds none."""
        found = content.get('test')
        if not isinstance(found, dict) or number(found.get('mrr')) is None:
            return None
        groups = {'both': _numbers(found)}
        groups |= {name: _numbers(values) for name, values in found.items()
                   if isinstance(values, dict) and name not in ('info', 'relations')}
        info, relations = found.get('info'), found.get('relations')
        table = None
        if isinstance(relations, dict) and relations:
            table = pd.DataFrame.from_dict({name: _numbers(values) for name, values in relations.items()
                                            if isinstance(values, dict)}, orient='index')
        told = {'ties' if key == 'tie' else key: value for key, value in info.items()} if isinstance(info, dict) else {}
        return cls('test', groups, told, table)


@dataclass
class OpenedRun:
    r"""A run.

    Args:
        folder (RunFolder): The folder.
        name (str): What the run is called in the report.
        entries (dict): Settings, parts, data, environment and metrics, see
            :func:`~pyg_emu.experiments.comparison.run_entries`.
        history (pandas.DataFrame, optional): The rows of the history.
        recorded (dict, optional): The content of :obj:`metrics.json`.
        recipe (Recipe, optional): The settings.
        model (torch.nn.Module, optional): The model.
        data (KGData, optional): The data, without facts if only their labels are known.
        data_name (str, optional): The name of the data.
        ranking (Ranking, optional): The ranks.
        absent (dict, optional): Why :obj:`"history"`, :obj:`"model"`, :obj:`"data"` or :obj:`"ranking"` is not there.
        notes (list of str, optional): What else is unusual.
    """
    folder: RunFolder
    name: str
    entries: dict[str, dict[str, Any]]
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    recorded: dict[str, Any] = field(default_factory=dict)
    recipe: Optional[Recipe] = None
    model: Optional[torch.nn.Module] = None
    data: Optional[KGData] = None
    data_name: Optional[str] = None
    ranking: Optional[Ranking] = None
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> Optional[KGData]:
        r"""The data, if it has facts."""
        return self.data if self.data is not None and 'data' not in self.absent else None

    def entry(self, section: str, key: str) -> Any:
        r"""An entry of the folder, or :obj:`None`."""
        return self.entries.get(section, {}).get(key)


def open_for_report(run_dir: Union[str, Path], name: str, choices: Choices) -> OpenedRun:
    r"""Reads a run folder, and ranks the facts of a split. What cannot be read is left out, with the reason.

    Args:
        run_dir (str or Path): The run folder.
        name (str): What the run is called in the report.
        choices (Choices): What is asked for.

    Raises:
        RecipeError: If the folder holds no run.
        PygEmuError: If data or a split was asked for that cannot be had.
    """
    run = _described(RunFolder(run_dir), name)
    _read_history(run)
    _open_model(run, choices)
    _rank(run, choices)
    return run


def _described(folder: RunFolder, name: str) -> OpenedRun:
    r"""The run with its settings."""
    try:
        run = OpenedRun(folder, name, run_entries(folder), recipe=recorded_recipe(folder))
    except RecipeError as error:
        if not folder.recipe.exists():
            raise
        run = OpenedRun(folder, name, run_entries(folder, settings=False))
        run.absent['model'] = f'The recipe of the run cannot be read: {error}.'
        run.notes.append(run.absent['model'])
    found = read_json(folder.metrics)
    run.recorded = found if isinstance(found, dict) else {}
    for path, content in ((folder.metrics, found), (folder.record, read_json(folder.record)),
                          (folder.versions, read_json(folder.versions))):
        if not isinstance(content, dict):
            run.notes.append(f'{path.name} {"cannot be read" if path.exists() else "is missing"}.')
    return run


def _read_history(run: OpenedRun) -> None:
    path = run.folder.history
    try:
        rows = read_csv(path) if path.exists() else []
    except CheckpointError as error:
        run.absent['history'] = f'{error}.'
        return
    run.history = pd.DataFrame(rows)
    if not rows:
        run.absent['history'] = (f'{path.name} has no row: no evaluation was reached yet.' if path.exists() else
                                 f'{path.name} is missing: no evaluation was reached yet, or the file was removed.')


def _open_model(run: OpenedRun, choices: Choices) -> None:
    r"""Loads model and data; where the data is gone, the labels in the folder."""
    if run.recipe is None:
        run.absent.setdefault('model', 'The folder has no recipe.yaml, from which the model is made: it was not '
                                       'written by pyg-emu train or run_recipe.')
        run.absent['data'] = run.absent['model']
        return
    inference = choices.split in (None, 'test')
    run.data_name = _name_of(run.recipe, choices.data, inference)
    settings: dict[str, Any] = {'which': choices.which, 'inference': inference, 'device': choices.device}
    try:
        run.model, run.data, _ = open_run(run.folder.path, data=choices.data, other_facts=choices.other_facts,
                                          **settings)
        return
    except (PygEmuError, OSError) as error:
        if choices.data is not None:
            raise
        reason = error
    if isinstance(reason, CheckpointError):
        run.absent['model'] = f'The weights cannot be read: {reason}.'
        try:
            run.data = load_source(merged_source(choices.data, run.recipe.dataset))
        except (PygEmuError, OSError) as error:
            run.absent['data'] = f'The data of the run cannot be read: {error}.'
        return
    run.absent['data'] = f'The data of the run cannot be read: {reason}.'
    try:
        run.model, run.data, _ = open_run(run.folder.path, facts=False, **settings)
    except (PygEmuError, OSError):
        run.absent['model'] = run.absent['data']


def _name_of(recipe: Recipe, given: Any, inference: bool) -> Optional[str]:
    if isinstance(given, KGData):
        return None
    source = given.get('source') if isinstance(given, Mapping) else given
    return source_name(source or (recipe.inference if inference else None) or recipe.dataset)


def _rank(run: OpenedRun, choices: Choices) -> None:
    r"""Ranks the facts of a split; without model or facts, reads what the run has recorded."""
    data = run.facts
    if run.model is not None and run.recipe is not None and data is not None:
        split = choices.split or next((name for name in _RANKED if data.num_facts(name) > 0), None)
        if choices.split is not None and data.num_facts(choices.split) == 0:
            raise DataError(f'split: {run.folder.path} was trained on data without facts of the split '
                            f'{choices.split!r}; choose another split')
        if split is None:
            run.absent['ranking'] = 'The data has neither test nor validation facts to rank.'
            return
        settings = dict(run.recipe.evaluation)
        settings.pop('by', None)
        if choices.max_triples is not None:
            settings['max_triples'] = choices.max_triples
        try:
            metrics = rank(run.model, data, split, settings, name=run.data_name, progress=choices.progress,
                           inductive=is_inductive(run.folder.path, data))
        except PygEmuError as error:
            run.absent['ranking'] = f'The facts cannot be ranked: {error}.'
            return
        run.ranking = Ranking.of(metrics)
        if choices.split is None and split != 'test':
            run.notes.append('The data has no test facts. The validation facts are ranked, which have chosen the '
                             'weights of the best step.')
        return
    run.ranking = Ranking.recorded(run.recorded) if choices.split in (None, 'test') else None
    reason = run.absent.get('model') or run.absent.get('data', '')
    if run.ranking is None:
        run.absent['ranking'] = reason
    else:
        run.notes.append(f'The metrics are those in metrics.json. {reason}')


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    r"""The metrics among the entries of a file."""
    found = {str(name): number(value) for name, value in values.items() if not isinstance(value, (dict, list, str))}
    return {name: value for name, value in found.items() if value is not None}
