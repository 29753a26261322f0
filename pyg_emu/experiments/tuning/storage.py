r"""The folder of a study and the database in it, from which an interrupted study continues."""
from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Union

from pyg_emu.core.errors import ArgumentError, CheckpointError, RecipeError
from pyg_emu.experiments.recipe import setting_differences
from pyg_emu.training.run_folder import RunFolder

_NAME = 'pyg_emu'


class StudyFolder:
    r"""Everything that a study writes.

    Args:
        path (str or Path): The folder. It is made by :meth:`prepare`, not before.
    """
    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        self.database = self.path / 'study.db'
        self.trials = self.path / 'trials.csv'
        self.best = self.path / 'best.yaml'
        self.plots = self.path / 'plots'

    def prepare(self) -> None:
        r"""Makes the folder.

        Raises:
            CheckpointError: If it cannot be made or written to, or holds a run.
        """
        folder = RunFolder(self.path)
        if folder.last.exists() and not self.database.exists():
            raise CheckpointError(f'{self.path} holds a run, among whose files a study would be lost; choose another '
                                  f'folder, such as {self.path}-tune')
        folder.prepare()

    @contextmanager
    def lock(self) -> Iterator[None]:
        r"""Locks the study, so that a second process does not restart the running trial of the first.

        Raises:
            CheckpointError: If another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # not on this system
            yield
            return
        with open(self.path / '.lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CheckpointError(f'another process is working on the study in {self.path}; wait for it, or choose '
                                      'another folder') from None
            yield

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({str(self.path)!r})'


def load_optuna() -> Any:
    r"""Imports :obj:`optuna`, which only studies need.

    Raises:
        ArgumentError: If it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ArgumentError("tuning needs the package optuna, which the extra 'tune' installs: pip install "
                            "'pyg_emu[tune]'") from error
    return optuna


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    r"""Silences the log of Optuna, since studies print a line for each trial themselves."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_study(folder: StudyFolder, settings: Mapping[str, Any], recipe_hash: str, pruner: Any,
               direction: str = 'maximize') -> Any:
    r"""Makes the study, or continues the one in the folder: trials that were running when their process ended are
    marked as failed and wait to be run again, with the same values.

    Args:
        folder (StudyFolder): Where it is, or will be.
        settings (dict): All that its trials have in common. A study is continued with the same settings only.
        recipe_hash (str): The :meth:`~pyg_emu.experiments.recipe.Recipe.hash` of the recipe that is tuned.
        pruner (optuna.pruners.BasePruner): What ends trials early.
        direction (str): Whether more is better. (default: :obj:`"maximize"`)

    Raises:
        CheckpointError: If the database is damaged, or of another program.
        RecipeError: If the folder holds a study with other settings; names them.
    """
    optuna = load_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    settings = json.loads(json.dumps(settings, default=str))  # as they come back from the database
    try:
        study = optuna.create_study(storage=f'sqlite:///{os.path.abspath(folder.database)}', study_name=_NAME,
                                    direction=direction, pruner=pruner, load_if_exists=True)
        recorded, trials = study.user_attrs, study.get_trials(deepcopy=False)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise CheckpointError(f'{folder.database} cannot be read as a study ({str(error).splitlines()[0]}); choose '
                              'another folder, or remove the file to start over') from error
    if 'settings' not in recorded:
        study.set_user_attr('recipe_hash', recipe_hash)
        study.set_user_attr('settings', settings)
    elif recorded['settings'] != settings or recorded['recipe_hash'] != recipe_hash:
        changed = '; '.join(setting_differences(settings, recorded['settings']))
        raise RecipeError(f'{folder.path} holds a study with other settings ({changed or "another recipe"}); choose '
                          'another folder')
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            give_up(study, trial)
    return study


def give_up(study: Any, trial: Any) -> None:
    r"""Marks a trial as failed and enqueues its values to run next."""
    study.tell(trial.number, state=load_optuna().trial.TrialState.FAIL)
    study.enqueue_trial(trial.params)
