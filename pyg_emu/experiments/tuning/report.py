r"""Reports of a study: the trials as CSV, the best trial as a recipe, and a text table."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable

from pyg_emu.core.files import atomic_write
from pyg_emu.experiments.recipe import Recipe
from pyg_emu.experiments.tuning.space import SearchSpace, Value

if TYPE_CHECKING:
    import pandas as pd

#: The outcomes of a trial.
COMPLETE, PRUNED, DIVERGED, FAILED = 'complete', 'pruned', 'diverged', 'failed'


def values_of(trial: Any, space: SearchSpace) -> dict[str, Value]:
    r"""Returns the parameter values of an Optuna trial as used in its recipe."""
    return {parameter.key: parameter.value(trial.params[parameter.key]) for parameter in space.parameters}


def trials_frame(trials: Iterable[Any], space: SearchSpace, metric: str) -> pd.DataFrame:
    r"""Returns a table with one row for each finished trial.

    Args:
        trials (list of optuna.trial.FrozenTrial): The trials, in the order of their execution.
        space (SearchSpace): The search space.
        metric (str): The metric and the name of its column. For a trial that is not complete, the column holds the
            last value.

    Returns:
        Columns :obj:`trial` (from 1), :obj:`outcome` (complete, pruned, diverged or failed), :obj:`metric`,
        :obj:`best_step`, :obj:`steps`, :obj:`seconds`, and one for each parameter.
    """
    import pandas as pd

    rows = []
    for number, trial in enumerate(trials, start=1):
        known = trial.user_attrs['course']
        rows.append({'trial': number, 'outcome': known['outcome'], metric: trial.value,
                     **{name: known.get(name) for name in ('best_step', 'steps', 'seconds')},
                     **values_of(trial, space)})
    columns = ['trial', 'outcome', metric, 'best_step', 'steps', 'seconds', *(p.key for p in space.parameters)]
    frame = pd.DataFrame(rows, columns=columns)
    for parameter in space.parameters:
        if parameter.choices is not None:  # dtype object, because pandas would convert null to NaN and 1 to 1.0.
            frame[parameter.key] = pd.Series([row[parameter.key] for row in rows], index=frame.index, dtype=object)
    return frame.astype({'best_step': 'Int64', 'steps': 'Int64', metric: 'float64', 'seconds': 'float64'})


def best_trials(frame: pd.DataFrame, metric: str, count: int = 5) -> pd.DataFrame:
    r"""Returns the best complete trials, in descending order."""
    complete = frame[frame['outcome'] == COMPLETE]
    return complete.sort_values(metric, ascending=False, kind='stable').head(count)


def render(frame: pd.DataFrame, metric: str) -> str:
    r"""Formats trials as a text table with rounded numbers and dashes for empty cells."""
    shown = frame.drop(columns='outcome') if set(frame['outcome']) <= {COMPLETE} else frame
    text = shown.astype(object).apply(lambda column: column.map(lambda value: _short(value, column.name == metric)))
    return str(text.to_string(index=False))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    r"""Writes the trials atomically as CSV."""
    atomic_write(path, lambda file: file.write(frame.to_csv(index=False).encode()))


def write_recipe(recipe: Recipe, path: Path) -> None:
    r"""Writes a recipe atomically."""
    atomic_write(path, lambda file: file.write(recipe.to_yaml().encode()))


def _short(value: Any, is_metric: bool) -> str:
    if value is None or value != value or str(value) == '<NA>':
        return '-'
    if isinstance(value, float):
        return f'{value:.4f}' if is_metric else f'{value:.4g}'
    return str(value)
