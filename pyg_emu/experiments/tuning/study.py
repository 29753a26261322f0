r"""Hyperparameter search: a sequence of training runs, with early stopping of unpromising trials."""
from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Optional, Union

from tqdm.auto import tqdm

from pyg_emu.core.arguments import is_number, non_negative_integer, positive_integer
from pyg_emu.core.distributed import launched, local_device
from pyg_emu.core.errors import ArgumentError, DivergenceError, RecipeError
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.metrics import Metrics, metric_mode, metric_names
from pyg_emu.experiments.provenance import load_source
from pyg_emu.experiments.recipe import Recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.experiments.tuning import plots, report
from pyg_emu.experiments.tuning.space import SearchSpace, Value, default_space
from pyg_emu.experiments.tuning.storage import StudyFolder, give_up, has_failed, load_optuna, open_study, quiet
from pyg_emu.training.interrupt import StopRequest, TrainingInterrupted
from pyg_emu.training.trainer import TrainResult

if TYPE_CHECKING:
    import pandas as pd

#: The fraction of the steps before a trial can be pruned, because good settings may start slowly.
_WARM_UP = 0.25


@dataclass(frozen=True)
class TuneResult:
    r"""The result of :func:`tune`. Its string is a table of the best trials.

    Args:
        recipe (Recipe): The recipe of the best trial.
        value (float): The validation metric of the best trial.
        metric (str): The name of the metric.
        trials (pandas.DataFrame, optional): See :func:`~pyg_emu.experiments.tuning.report.trials_frame`.
        importances (dict): See :func:`~pyg_emu.experiments.tuning.plots.importances`.
        folder (Path): The folder of the study.
    """
    recipe: Recipe
    value: float
    metric: str
    trials: pd.DataFrame = field(repr=False)
    importances: dict[str, float]
    folder: Path

    def __str__(self) -> str:
        counts = self.trials['outcome'].value_counts()
        ends = ', '.join(f'{counts[name]} {name}' for name in (report.COMPLETE, report.PRUNED, report.DIVERGED,
                                                                  report.FAILED) if name in counts)
        best = report.best_trials(self.trials, self.metric)
        return f'{_trials(len(self.trials))}: {ends}\n{report.render(best, self.metric)}'


def tune(recipe: Recipe, folder: Union[str, Path], space: Optional[SearchSpace] = None, *, trials: int = 40,
         timeout: Optional[float] = None, metric: Optional[str] = None, pruning: bool = True, seed: int = 0,
         data: Optional[KGData] = None, device: Optional[str] = None, progress: bool = True) -> TuneResult:
    r"""Searches for the settings of a recipe with the best validation metric. Test triples are not ranked.

    Values are sampled by the tree-structured Parzen estimator of the `"Algorithms for Hyper-Parameter Optimization"
    <https://papers.nips.cc/paper/4443>`_ paper, as implemented in Optuna. The first trial uses the recipe's own values
    where the space contains them. All trials use the recipe's seed. The value of a trial is the metric at the step with
    the best validation metric of the recipe, which is also the final model of a training run with this recipe. After a
    quarter of the steps, a trial is pruned if its best value so far is worse than the median of the completed trials at
    the same step. A diverged trial counts as pruned.

    An error in a trial ends the call. The next call tries the same values once more. If they fail again, the outcome of
    the trial is :obj:`"failed"`, and the study continues with other values.

    The folder contains :obj:`study.db`, :obj:`trials.csv` and :obj:`best.yaml`, updated after each trial, and the
    plots, written at the end. The same call continues an interrupted study. On a CPU, a continued study runs the same
    trials as an uninterrupted one.

    Args:
        recipe (Recipe): The recipe to tune.
        folder (str or Path): The folder of the study.
        space (SearchSpace, optional): The search space. (default:
            :func:`~pyg_emu.experiments.tuning.space.default_space`)
        trials (int, optional): The total number of trials in the folder. (default: :obj:`40`)
        timeout (float, optional): The time in seconds after which no further trial starts. (default: :obj:`None`)
        metric (str, optional): The metric to maximize, such as :obj:`"mrr"` or :obj:`"hits@10"`. A metric of a group,
            such as :obj:`"macro.mrr"`, has to be that of the recipe. (default: :obj:`None`, that of the recipe)
        pruning (bool, optional): If set to :obj:`False`, no trial is pruned. (default: :obj:`True`)
        seed (int, optional): The seed of the sampled values. (default: :obj:`0`)
        data (KGData, optional): The data, if already loaded. (default: the dataset of the recipe)
        device (str, optional): The training device. (default: a GPU if available, else the CPU)
        progress (bool, optional): If set to :obj:`True`, shows a progress bar and one line per trial.
            (default: :obj:`True`)

    Raises:
        ArgumentError: If Optuna is not installed, an argument is outside its domain, or :obj:`torchrun` has started
            several processes.
        RecipeError: If the space does not match the recipe, or the folder contains a study with other settings
            or other facts.
        CheckpointError: If the folder is not writable, or its database cannot be read.
        DivergenceError: If no trial is complete.
        TrainingInterrupted: On SIGINT or SIGTERM. The next call repeats the interrupted trial.
    """
    if launched() > 1:
        raise ArgumentError(f'tune: expected one process, got {launched()} processes of torchrun; start it without '
                            'torchrun')
    if recipe.storage == 'mmap':
        raise RecipeError('storage: trials have no run folders for memory-mapped files; expected storage: memory for '
                          'tuning')
    trials = positive_integer('trials', trials)
    if timeout is not None and (not is_number(timeout) or not timeout > 0):
        raise ArgumentError(f'timeout: expected a positive number of seconds, got {timeout!r}')
    seed = non_negative_integer('seed', seed)
    metric = recipe.metric if metric is None else metric
    _check_metric(metric, recipe)
    load_optuna()
    space = (default_space(recipe) if space is None else space).bound(recipe)
    device = str(local_device(device))
    data = load_source(recipe.dataset) if data is None else data
    if data.num_facts('valid') == 0:
        raise RecipeError('dataset: expected validation triples for tuning, got none')
    search = _Search(recipe, space, StudyFolder(folder), metric, pruning, seed, data, device)
    return search.run(trials, timeout, progress)


class _Search:
    def __init__(self, recipe: Recipe, space: SearchSpace, folder: StudyFolder, metric: str, pruning: bool, seed: int,
                 data: KGData, device: str):
        self.recipe = recipe
        self.space = space
        self.folder = folder
        self.metric = metric
        self.pruning = pruning
        self.seed = seed
        self.data = data
        self.device = device
        self.optuna = load_optuna()

    def run(self, trials: int, timeout: Optional[float], progress: bool) -> TuneResult:
        with quiet(self.optuna), self.folder.lock():
            self.folder.prepare()
            self.study = open_study(self.folder, self._settings(), self.recipe.hash(), self.data,
                                    self._pruner())
            if not self.study.get_trials(deepcopy=False) and (start := self.space.start(self.recipe)):
                self.study.enqueue_trial(start)
            done = self._report()
            bar = tqdm(total=trials, initial=min(len(done), trials), desc='tune', unit='trial', disable=not progress)
            self._show_best(bar)
            try:
                with StopRequest() as request:
                    deadline = math.inf if timeout is None else monotonic() + timeout
                    while len(done) < trials and monotonic() < deadline:
                        self._trial(len(done), trials, bar, request)
                        done = self._report()
                        self._show_best(bar)
                        bar.update()
                        if progress:
                            bar.write(self._line(done.iloc[-1], trials))
                        if request.signal is not None:
                            raise self._interruption(request.signal, f'after trial {len(done)} of {trials}')
            finally:
                bar.close()
            return self._finish(done)

    def _trial(self, number: int, trials: int, bar: Any, request: StopRequest) -> None:
        optuna = self.optuna
        # The sampler is seeded for each trial, so that a continued study samples the same values. A sampler with one
        # seed would sample its first values again.
        self.study.sampler = optuna.samplers.TPESampler(seed=(1_000_003 * self.seed + number) % 2**32)
        trial = self.study.ask()
        state, value, reason, steps = optuna.trial.TrialState.COMPLETE, None, None, 0
        result: Optional[TrainResult] = None
        clock = perf_counter()

        def on_validation(step: int, metrics: Metrics) -> None:
            nonlocal steps
            steps, found = step, float(metrics[self.metric])
            bar.set_postfix_str(f'step {step}, {self.metric} {found:.4f}{best}', refresh=sys.stderr.isatty())
            if request.signal is not None:  # The signal arrived before the trainer installed its handler.
                raise TrainingInterrupted(request.signal)
            if math.isnan(found):
                return  # The trainer raises an error for it.
            trial.report(found, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        best = self._best_text()
        try:
            values = {parameter.key: parameter.suggest(trial) for parameter in self.space.parameters}
            result = run_recipe(self.space.recipe(self.recipe, values), data=self.data, device=self.device,
                                progress=False, test=False, on_validation=on_validation).train
            outcome, value = report.COMPLETE, result.metrics[self.metric]
        except optuna.TrialPruned:
            outcome, state = report.PRUNED, optuna.trial.TrialState.PRUNED
        except DivergenceError as error:
            # Marked as pruned, because the sampler ignores failed trials and would sample these values again.
            outcome, state = report.DIVERGED, optuna.trial.TrialState.PRUNED
            reason = str(error)
        except KeyboardInterrupt as error:
            give_up(self.study, trial)
            signal = str(error).partition(':')[0] or 'interrupted'
            where = f'in trial {number + 1} of {trials}, which the next call repeats'
            raise self._interruption(signal, where) from None
        except Exception as error:
            if not has_failed(trial):
                give_up(self.study, trial, failed=True)
                error.add_note(f'trial {number + 1} of {trials} in {self.folder.path}: the next call tries its values '
                               'once more')
                raise
            # Marked as pruned, like a diverged one: the study would never get past these values.
            outcome, state = report.FAILED, optuna.trial.TrialState.PRUNED
            reason = str(error) or type(error).__name__
            warn(f'trial {number + 1} of {trials} failed twice and is left out: {reason}')
        except BaseException:
            give_up(self.study, trial)
            raise
        # One write, before the trial counts as finished.
        trial.set_user_attr('course', {
            'outcome': outcome, 'reason': reason, 'steps': steps, 'seconds': round(perf_counter() - clock, 3),
            'best_step': None if result is None else result.best_step, 'metrics': result and result.metrics})
        self.study.tell(trial, value, state=state)

    def _interruption(self, signal: str, where: str) -> TrainingInterrupted:
        return TrainingInterrupted(f'{signal}: stopped {where}; the same command continues the study in '
                                   f'{self.folder.path}')

    def _report(self) -> pd.DataFrame:
        frame = report.trials_frame(self._finished(), self.space, self.metric)
        report.write_csv(frame, self.folder.trials)
        if (best := self._best()) is not None:
            report.write_recipe(self._best_recipe(best, len(frame)), self.folder.best)
        return frame

    def _finish(self, frame: pd.DataFrame) -> TuneResult:
        best = self._best()
        if best is None:
            raise DivergenceError(f'none of {len(frame)} trials is complete; see {self.folder.trials} for their '
                                  'outcomes, and search smaller learning rates')
        shares = plots.importances(self.study)
        if find_spec('matplotlib') is None:
            warn("plots: matplotlib is not installed, so no plots were written; install the extra 'tune'")
        else:
            plots.draw(frame, self.space.parameters, self.metric, shares, self.folder.plots)
        return TuneResult(self._best_recipe(best, len(frame)), best.value, self.metric, frame, shares, self.folder.path)

    def _finished(self) -> list[Any]:
        state = self.optuna.trial.TrialState
        trials: list[Any] = self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))
        return trials

    def _best(self) -> Optional[Any]:
        complete = [trial for trial in self._finished() if trial.user_attrs['course']['outcome'] == report.COMPLETE]
        return max(complete, key=lambda trial: trial.value, default=None)

    def _best_recipe(self, best: Any, count: int) -> Recipe:
        recipe = self.space.recipe(self.recipe, report.values_of(best, self.space))
        source = recipe.dataset if isinstance(recipe.dataset, str) else recipe.dataset['source']
        found = (f'{recipe.model["name"]}, {recipe.loss["name"]}, on {Path(source).name}: the best of '
                 f'{_trials(count)}, validation {self.metric} {best.value:.4f} (pyg-emu tune, TPE, seed {self.seed}).')
        return replace(recipe, description=found)

    def _settings(self) -> dict[str, Any]:
        recipe = self.recipe
        watched = {key: getattr(recipe, key) for key in ('num_steps', 'evaluate_every', 'patience', 'validation')}
        if recipe.metric != 'mrr':
            watched['metric'] = recipe.metric
        if recipe.max_seconds is not None:
            watched['max_seconds'] = recipe.max_seconds
        return {'recipe': {**recipe.decisive(), **watched}, 'search': self.space.to_dict(), 'metric': self.metric,
                'pruning': self.pruning, 'seed': self.seed}

    def _pruner(self) -> Any:
        if not self.pruning:
            return self.optuna.pruners.NopPruner()
        return self.optuna.pruners.MedianPruner(n_startup_trials=5,
                                                n_warmup_steps=math.ceil(_WARM_UP * self.recipe.num_steps))

    def _best_text(self) -> str:
        best = self._best()
        return '' if best is None else f', best {best.value:.4f}'

    def _show_best(self, bar: Any) -> None:
        bar.set_postfix_str(self._best_text().removeprefix(', '), refresh=False)

    def _line(self, row: pd.Series, trials: int) -> str:
        value = row[self.metric]
        ends = {report.COMPLETE: f'{self.metric} {value:.4f} at step {row["best_step"]}',
                report.PRUNED: f'pruned at step {row["steps"]}, {self.metric} {value:.4f}',
                report.DIVERGED: 'diverged', report.FAILED: 'failed'}
        values = ', '.join(f'{p.key} {_text(row[p.key])}' for p in self.space.parameters)
        return f'trial {row["trial"]} of {trials}: {ends[row["outcome"]]} in {row["seconds"]:.1f} s; {values}'


def _trials(count: int) -> str:
    return f'{count} trial' if count == 1 else f'{count} trials'


def _text(value: Value) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)


def _check_metric(metric: str, recipe: Recipe) -> None:
    names, _ = metric_names(ks=recipe.validation.get('ks', (1, 3, 10)))
    known = [name for name in dict.fromkeys([*names, recipe.metric]) if metric_mode(name) == 'max']
    if metric not in known:
        less = ' (mr is minimized, so it is not supported)' if metric == 'mr' else ''
        raise ArgumentError(f'metric: expected one of {", ".join(known)}, got {metric!r}{less}')
