r"""The folder and the database of a study, from which an interrupted study continues."""
from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ContextManager, Iterator, Mapping, Union

from pyg_emu.core.errors import ArgumentError, CheckpointError, RecipeError
from pyg_emu.data.graph import KGData
from pyg_emu.experiments.provenance import TrainedOn
from pyg_emu.experiments.recipe import setting_differences
from pyg_emu.training.run_folder import RunFolder

_NAME = 'pyg_emu'
#: The attribute of a trial whose values were tried before, and led to an error.
_FAILED = 'failed_before'


class StudyFolder:
    r"""The files of a study.

    Args:
        path (str or Path): The folder, created by :meth:`prepare`.
    """
    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        self.database = self.path / 'study.db'
        self.trials = self.path / 'trials.csv'
        self.best = self.path / 'best.yaml'
        self.plots = self.path / 'plots'

    def prepare(self) -> None:
        r"""Creates the folder.

        Raises:
            CheckpointError: If the folder cannot be created or written to, or contains a run.
        """
        folder = RunFolder(self.path)
        if folder.last.exists() and not self.database.exists():
            raise CheckpointError(f'{self.path} contains a run; a study needs its own folder, such as '
                                  f'{self.path}-tune')
        folder.prepare()

    def lock(self) -> ContextManager[None]:
        r"""Locks the study, so that a second process does not treat the current trial as interrupted. The folder is
        created if it does not exist.

        Raises:
            CheckpointError: If another process holds the lock; names this process.
        """
        return RunFolder(self.path).held()

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({str(self.path)!r})'


def load_optuna() -> Any:
    r"""Imports :obj:`optuna`, which only tuning requires.

    Raises:
        ArgumentError: If :obj:`optuna` is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ArgumentError("optuna is not installed, but tuning requires it; install the extra 'tune': pip install "
                            "'pyg_emu[tune]'") from error
    return optuna


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    r"""Context manager that silences the log messages of Optuna, because :func:`tune` prints its own."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_study(folder: StudyFolder, settings: Mapping[str, Any], recipe_hash: str, data: KGData, pruner: Any,
               direction: str = 'maximize') -> Any:
    r"""Creates a study or opens the study in the folder. Interrupted trials are marked as failed and queued again with
    the same values.

    Args:
        folder (StudyFolder): The folder of the study.
        settings (dict): The settings that all trials share. They must equal those of an existing study.
        recipe_hash (str): The :meth:`~pyg_emu.experiments.recipe.Recipe.hash` of the recipe to tune.
        data (KGData): The data, with the facts of an existing study.
        pruner (optuna.pruners.BasePruner): The pruner.
        direction (str, optional): Whether to maximize or minimize the metric. (default: :obj:`"maximize"`)

    Raises:
        CheckpointError: If the database is damaged, or was not written by this package.
        RecipeError: If the folder contains a study with other settings or other facts. The message names the
            differences.
    """
    optuna = load_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    settings = json.loads(json.dumps(settings, default=str))  # The form in which the database returns them.
    try:
        study = optuna.create_study(storage=f'sqlite:///{os.path.abspath(folder.database)}', study_name=_NAME,
                                    direction=direction, pruner=pruner, load_if_exists=True)
        recorded, trials = study.user_attrs, study.get_trials(deepcopy=False)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise CheckpointError(f'{folder.database} is not a valid study database ({str(error).splitlines()[0]}); choose '
                              'another folder, or remove the file to start a new study') from error
    if 'settings' not in recorded:
        study.set_user_attr('recipe_hash', recipe_hash)
        study.set_user_attr('settings', settings)
    elif recorded['settings'] != settings or recorded['recipe_hash'] != recipe_hash:
        changed = '; '.join(setting_differences(settings, recorded['settings']))
        raise RecipeError(f'{folder.path} contains a study with other settings ({changed or "another recipe"}); choose '
                          'another folder')
    if 'facts' not in recorded:  # new, or of an earlier version
        study.set_user_attr('facts', TrainedOn.of(data).facts)
    elif other := TrainedOn(None, '', recorded['facts']).changed_splits(data):
        raise RecipeError(f'{folder.path} contains a study with other facts; the differences are in '
                          f'{", ".join(other)}; choose another folder, or continue with the same data')
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            give_up(study, trial)
    return study


def give_up(study: Any, trial: Any, failed: bool = False) -> None:
    r"""Marks a trial as failed and queues its values again, before all others.

    Args:
        study (optuna.Study): The study.
        trial (optuna.trial.Trial): The trial.
        failed (bool, optional): Whether it ended with an error, which :func:`has_failed` tells of the next trial of
            these values. An interruption says nothing of the values. (default: :obj:`False`)
    """
    known = {_FAILED: True} if failed or has_failed(trial) else None
    study.tell(trial.number, state=load_optuna().trial.TrialState.FAIL)
    study.enqueue_trial(trial.params, user_attrs=known)


def has_failed(trial: Any) -> bool:
    r"""Returns whether an earlier trial of the same values ended with an error."""
    return bool(trial.user_attrs.get(_FAILED, False))
