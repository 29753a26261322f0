r"""Plots of a study: the best value over the trials, the value over each parameter, and parameter importances."""
from __future__ import annotations

import math
import re
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from pyg_emu.core.files import atomic_write
from pyg_emu.experiments.tuning.report import COMPLETE
from pyg_emu.experiments.tuning.space import Parameter
from pyg_emu.experiments.tuning.storage import load_optuna

if TYPE_CHECKING:
    import pandas as pd


def importances(study: Any) -> dict[str, float]:
    r"""Computes the importance of each parameter by PED-ANOVA (`"PED-ANOVA: Efficiently Quantifying Hyperparameter
    Importance in Arbitrary Subspaces" <https://arxiv.org/abs/2304.10255>`_), which is exact and needs no additional
    package.

    Returns:
        The fraction of each parameter in the difference between good trials and all other trials, in descending order.
        Empty if too few trials are complete.
    """
    optuna = load_optuna()
    values = {trial.value for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE, ))}
    if len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Some versions of Optuna mark this method as experimental.
        found: dict[str, float] = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return found


def draw(frame: pd.DataFrame, parameters: Sequence[Parameter], metric: str, shares: Mapping[str, float],
         folder: Path) -> list[Path]:
    r"""Plots :obj:`history.png`, :obj:`slice-<parameter>.png` for each parameter and :obj:`importances.png`.

    Args:
        frame (pandas.DataFrame): The trials, see :func:`~pyg_emu.experiments.tuning.report.trials_frame`.
        parameters (list of Parameter): The parameters of the search space.
        metric (str): The metric, which is a column of :obj:`frame`.
        shares (dict): The result of :func:`importances`. If empty, :obj:`importances.png` is omitted.
        folder (Path): The output folder, created if it does not exist.

    Returns:
        The paths of the plots.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {'history': _history(frame, metric)}
    for parameter in parameters:
        figures[f'slice-{re.sub(r"[^A-Za-z0-9_.-]", "-", parameter.key)}'] = _slice(frame, parameter, metric)
    if shares:
        figures['importances'] = _importances(shares)
    paths = []
    for name, figure in figures.items():
        path = folder / f'{name}.png'
        atomic_write(path, partial(figure.savefig, format='png', dpi=110, metadata={'Software': None}))
        paths.append(path)
    return paths


def _figure(xlabel: str, ylabel: str, height: float = 4.5) -> tuple[Any, Any]:
    # Figures without pyplot are freed when unused and need no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout='constrained')
    place = figure.subplots()
    place.set(xlabel=xlabel, ylabel=ylabel)
    place.grid(alpha=0.3)
    return figure, place


def _history(frame: pd.DataFrame, metric: str) -> Any:
    figure, place = _figure('trial', f'validation {metric}')
    complete = frame['outcome'] == COMPLETE
    place.scatter(frame['trial'][complete], frame[metric][complete], s=18, label='complete')
    ended = ~complete & frame[metric].notna()
    if ended.any():
        place.scatter(frame['trial'][ended], frame[metric][ended], s=18, marker='x', color='C7',
                      label='not complete, last value')
    best = frame[metric].where(complete).cummax().ffill()
    place.step(frame['trial'], best, where='post', color='C1', label='best so far')
    place.xaxis.get_major_locator().set_params(integer=True)
    place.legend(fontsize=9)
    return figure


def _slice(frame: pd.DataFrame, parameter: Parameter, metric: str) -> Any:
    figure, place = _figure(parameter.key, f'validation {metric}')
    for outcome, marker in ((True, 'o'), (False, 'x')):
        own = frame[((frame['outcome'] == COMPLETE) == outcome) & frame[metric].notna()]
        if own.empty:
            continue
        across = own[parameter.key].tolist()
        if parameter.choices is not None:
            across = [parameter.choices.index(value) for value in across]
        points = place.scatter(across, own[metric], c=own['trial'], marker=marker, s=22, cmap='viridis', vmin=1,
                               vmax=len(frame), label='complete' if outcome else 'not complete, last value')
    if not frame[metric].isna().all():
        figure.colorbar(points, label='trial')
        place.legend(fontsize=9)
    if parameter.choices is not None:
        place.set_xticks(range(len(parameter.choices)), [str(choice) for choice in parameter.choices])
    elif parameter.log:
        place.set_xscale('log')
        place.tick_params(axis='x', which='minor', labelsize=7)
    return figure


def _importances(shares: Mapping[str, float]) -> Any:
    figure, place = _figure('share', '', height=1.2 + 0.4 * len(shares))
    names = [name for name in reversed(list(shares)) if math.isfinite(shares[name])]
    bars = place.barh(names, [shares[name] for name in names])
    place.bar_label(bars, fmt='%.2f', padding=3)
    place.margins(x=0.1)
    place.set_title('importance (PED-ANOVA)', fontsize=10)
    return figure
