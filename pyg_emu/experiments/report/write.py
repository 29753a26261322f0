r"""Writing a report: the runs are read, the sections made, and one file written."""
from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Mapping, Optional, Sequence, Union

from pyg_emu.core.arguments import boolean, file_path, instance, one_of, positive_integer, shown, without_effect
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.files import atomic_write
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.experiments.report import differences
from pyg_emu.experiments.report.content import Page
from pyg_emu.experiments.report.entity_map import map_section
from pyg_emu.experiments.report.hardest import hardest_section
from pyg_emu.experiments.report.metrics import metrics_section, relations_section
from pyg_emu.experiments.report.opened import Choices, OpenedRun, open_for_report
from pyg_emu.experiments.report.page import render
from pyg_emu.experiments.report.profile import profile_section
from pyg_emu.experiments.report.settings import settings_section
from pyg_emu.experiments.report.summary import runs_section, subtitle, summary_section
from pyg_emu.experiments.report.training import curves_section, training_section

_Path = Union[str, os.PathLike]


@dataclass(frozen=True)
class Report:
    r"""The result of :func:`write_report`.

    Args:
        path (Path): The file.
        left_out (dict, optional): The sections that were left out, by title, and why.
    """
    path: Path
    left_out: dict[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks: a link to the page."""
        name = html.escape(str(self.path))
        rest = ''.join(f'<li>{html.escape(title)}: {html.escape(reason)}</li>' for title, reason in
                       self.left_out.items())
        return f'<p><a href="{name}" target="_blank">{name}</a></p>' + (f'<p>Left out:</p><ul>{rest}</ul>' if rest
                                                                        else '')


def write_report(
    runs: Union[_Path, Sequence[_Path]],
    output: Optional[_Path] = None,
    *,
    split: Optional[Literal['train', 'valid', 'test']] = None,
    which: Literal['best', 'last'] = 'best',
    data: Optional[Union[KGData, str, Mapping[str, Any]]] = None,
    max_triples: Optional[int] = None,
    num_hardest: Optional[int] = None,
    num_answers: Optional[int] = None,
    projection: Optional[Literal['tsne', 'pca', 'none']] = None,
    max_entities: Optional[int] = None,
    other_facts: bool = False,
    device: Optional[str] = None,
    progress: bool = True,
) -> Report:
    r"""Writes an HTML page about a run: the course of training, metrics by side, kind of relation and relation, the
    hardest facts and what was answered instead, a map of the entities, the data and the settings. Or a page that
    compares several runs: settings that differ, curves, metrics, and the relations and facts that differ most.

    The page is one file that needs no network. Sections without content are left out, and the page says why.

    .. code-block:: python

        write_report('runs/umls')                              # runs/umls/report.html
        write_report(['runs/umls', 'runs/umls-uniform'])       # report.html

    Args:
        runs (str or Path or sequence): The run folder, or several.
        output (str or Path, optional): The file. (default: :obj:`report.html` in the run folder; for several runs, in
            the working directory)
        split (str, optional): The facts to rank: :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`. (default: test facts,
            or validation facts if there are no others)
        which (str, optional): The weights: :obj:`"best"` or :obj:`"last"`. (default: :obj:`"best"`)
        data (KGData, str or dict, optional): Other data than that of the run, or its new place, see
            :func:`~pyg_emu.experiments.runs.open_run`. (default: :obj:`None`)
        max_triples (int, optional): Rank a random subset of at most this many facts. (default: the setting of the
            recipe)
        num_hardest (int, optional): The number of hardest facts on the page about one run. (default: :obj:`50`)
        num_answers (int, optional): The number of answers beside each of them. (default: :obj:`5`)
        projection (str, optional): How the map on the page about one run is drawn: :obj:`"tsne"`, :obj:`"pca"`, or
            :obj:`"none"` for no map. (default: :obj:`"tsne"`)
        max_entities (int, optional): The number of entities on the map, those with the most training facts. (default:
            :obj:`1000`)
        other_facts (bool, optional): Whether :obj:`data` may have other facts than the run. (default: :obj:`False`)
        device (str, optional): The device of the models. (default: a GPU if available, else the CPU)
        progress (bool, optional): Whether to show progress bars. (default: :obj:`True`)

    Raises:
        ArgumentError: If an argument is outside its domain or has no effect, the file cannot be written to, or plotly
            is not installed.
        RecipeError: If a folder holds no run.
        DataError: If :obj:`data` cannot be read, or :obj:`split` has no facts.
        CheckpointError: If the file cannot be written.
    """
    folders = _folders(runs)
    if split is not None:
        one_of('split', split, SPLITS)
    one_of('which', which, ('best', 'last'))
    if max_triples is not None:
        positive_integer('max_triples', max_triples)
    if device is not None:
        instance('device', device, str)
    numbers = {'num_hardest': num_hardest, 'num_answers': num_answers, 'max_entities': max_entities}
    if len(folders) > 1:
        without_effect('several runs', projection=projection, **numbers)
    if projection == 'none':
        without_effect("projection='none'", max_entities=max_entities)
    chosen: dict[str, Any] = {name: positive_integer(name, value) for name, value in numbers.items()
                              if value is not None}
    if projection is not None:
        chosen['projection'] = one_of('projection', projection, ('tsne', 'pca', 'none'))
    choices = Choices(split, which, data, max_triples, other_facts=boolean('other_facts', other_facts), device=device,
                      progress=boolean('progress', progress), **chosen)
    if find_spec('plotly') is None or find_spec('jinja2') is None:
        raise ArgumentError("report: needs the packages plotly and jinja2, which are not installed; install the extra "
                            "'report': pip install plotly jinja2 scikit-learn")
    path = _output(output, folders)
    opened = [open_for_report(folder, name, choices) for folder, name in zip(folders, _names(folders))]
    page = _of_one(opened[0], choices) if len(opened) == 1 else _of_several(opened)
    text = render(page)
    atomic_write(path, lambda file: file.write(text))
    return Report(path, {section.title: section.absent for section in page.sections if section.absent is not None})


def _of_one(run: OpenedRun, choices: Choices) -> Page:
    return Page(run.name, subtitle(run), [
        summary_section(run), training_section(run), metrics_section(run), relations_section(run),
        hardest_section(run, choices), map_section(run, choices), profile_section(run), settings_section(run)])


def _of_several(runs: Sequence[OpenedRun]) -> Page:
    return Page(' and '.join([', '.join(run.name for run in runs[:-1]), runs[-1].name]), f'{len(runs)} runs compared', [
        runs_section(runs), differences.settings_section(runs), curves_section(runs), differences.metrics_section(runs),
        differences.relations_section(runs), differences.facts_section(runs)])


def _folders(runs: Any) -> list[str]:
    given = [runs] if isinstance(runs, (str, os.PathLike)) else runs
    if not isinstance(given, Sequence) or isinstance(given, bytes) or len(given) == 0:
        raise ArgumentError(f'runs: expected a run folder, or a list of run folders, got {shown(runs)}')
    return [os.fspath(file_path('runs', folder)) for folder in given]


def _names(folders: Sequence[str]) -> list[str]:
    r"""The last part of the path of each folder, or as many parts as tell them apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for number in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(own[-number:]) for own in parts]
        if len(set(names)) == len(set(parts)):
            break
    seen: dict[str, int] = {}
    for place, name in enumerate(names):  # a folder that is given twice
        seen[name] = seen.get(name, 0) + 1
        names[place] = name if seen[name] == 1 else f'{name} ({seen[name]})'
    return names


def _output(output: Optional[_Path], folders: Sequence[str]) -> Path:
    r"""The file, whose folder can be written to; before work is done."""
    if output is None:
        path = Path(folders[0]) / 'report.html' if len(folders) == 1 else Path('report.html')
        if not path.parent.is_dir():
            return path  # there will be an error that says that it holds no run
    else:
        path = Path(file_path('output', output)).expanduser()
    if path.is_dir():
        raise ArgumentError(f'output: expected a file, got the folder {path}; choose a name such as '
                            f'{path / "report.html"}')
    if not path.parent.is_dir():
        raise ArgumentError(f'output: the folder of {path} does not exist; make it, or choose another one')
    if not os.access(path.parent, os.W_OK):
        raise ArgumentError(f'output: the folder {path.parent} cannot be written to; choose another one')
    return path
