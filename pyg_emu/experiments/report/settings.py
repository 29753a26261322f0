r"""The settings of a run: recipe, parts as they were built, data and environment."""
from __future__ import annotations

import json
from typing import Any

from pyg_emu.experiments.report.content import MISSING, Cell, Column, Grid, Section, Table, short
from pyg_emu.experiments.report.opened import OpenedRun

#: Sections of the entries of a run, and their titles.
ENTRY_TITLES = {'settings': 'recipe', 'built': 'as built', 'data': 'data', 'environment': 'environment'}


def settings_section(run: OpenedRun) -> Section:
    r"""The settings of a run."""
    tables = []
    for section, title in ENTRY_TITLES.items():
        entries = run.entries.get(section) or {}
        if entries:
            tables.append(Table([Column(title), Column('')], [[Cell(short(key), key), value_cell(value)]
                                                              for key, value in entries.items()]))
    if not tables:
        return Section('settings', 'Settings', absent='The folder holds no settings: neither recipe.yaml nor run.json.')
    return Section('settings', 'Settings', [Grid(tables)])


def value_cell(value: Any, mark: str = '') -> Cell:
    r"""A cell of a setting."""
    if value is None:
        return Cell(MISSING, mark=mark)
    if isinstance(value, bool):
        return Cell('true' if value else 'false', str(value), mark=mark)
    if isinstance(value, (int, float)):
        return Cell(f'{value:.10g}' if isinstance(value, float) else str(value), float(value), mark=mark)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return Cell(short(text), text, mark=mark)
