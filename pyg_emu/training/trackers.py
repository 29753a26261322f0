r"""Loggers that send the numbers of a run to an experiment tracker: Weights & Biases, MLflow."""
from __future__ import annotations

import importlib.util
import inspect
import os
import re
import time
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError
from pyg_emu.training.loggers import RunInfo

#: Parameters that MLflow takes at a time, and the length of a value.
_PARAMS, _LENGTH = 100, 500


class WandbLogger:
    r"""Writes the rows to `Weights & Biases <https://docs.wandb.ai>`_. Requires the package :obj:`wandb`.

    .. code-block:: python

        Trainer(..., loggers=[WandbLogger('my-project')])
        Trainer(..., loggers=[WandbLogger('my-project', mode='offline', tags=['umls'])])

    The run is named after the run folder, and its configuration is that of :obj:`run.json`. Charts have the column
    :obj:`step` as their x-axis. A resumed run starts a new run in Weights & Biases, which receives the rows of the
    earlier part as well. To continue the same one, give its :obj:`id` and :obj:`resume="allow"`, or set the environment
    variables :obj:`WANDB_RUN_ID` and :obj:`WANDB_RESUME`; rows after the last checkpoint then appear twice.

    Args:
        project (str, optional): The project. (default: :obj:`None`, that of the environment variable
            :obj:`WANDB_PROJECT`)
        **options (optional): Further arguments of :func:`wandb.init`, such as :obj:`mode`, :obj:`tags` or :obj:`dir`.

    Raises:
        ArgumentError: If the package is not installed, or an argument is out of its domain.
    """
    def __init__(self, project: Optional[str] = None, **options: Any) -> None:
        _check_installed('wandb')
        self.project = _name('project', project)
        self.options = options
        self._run: Any = None
        self._failed = False

    def start(self, run: RunInfo) -> None:
        r"""Starts a run, or continues the one that is named by its id.

        Raises:
            ArgumentError: If :func:`wandb.init` does not have one of the options.
        """
        import wandb
        self._failed = False
        known = inspect.signature(wandb.init).parameters
        unknown = [name for name in self.options if name not in known]
        if unknown:
            raise ArgumentError(f'options: expected arguments of wandb.init, got {", ".join(unknown)}; it has '
                                f'{", ".join(known)}')
        given = {'project': self.project, 'name': _title(run), 'config': dict(run.settings), **self.options}
        self._run = wandb.init(**{name: value for name, value in given.items() if value is not None})
        self._run.define_metric('step')
        self._run.define_metric('*', step_metric='step')
        if not self._run.resumed:
            for row in run.rows:
                self.log(int(row['step']), row)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        r"""Writes a row."""
        self._run.log({**values, 'step': step})

    def fail(self) -> None:
        r"""Marks the run as failed."""
        self._failed = True

    def close(self) -> None:
        r"""Ends the run, as failed after :meth:`fail`."""
        if self._run is not None:
            self._run.finish(exit_code=int(self._failed))
            self._run = None

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.project!r})'


class MLflowLogger:
    r"""Writes the rows to `MLflow <https://mlflow.org>`_. Requires the package :obj:`mlflow` or :obj:`mlflow-skinny`.

    .. code-block:: python

        Trainer(..., loggers=[MLflowLogger('my-experiment')])
        Trainer(..., loggers=[MLflowLogger('my-experiment', tracking_uri='sqlite:///mlflow.db')])

    The run is named after the run folder, and its parameters are those of :obj:`run.json`. MLflow does not allow
    :obj:`@` in names: :obj:`valid_hits@10` becomes :obj:`valid_hits_at_10`. A resumed run starts a new run in MLflow,
    which receives the rows of the earlier part as well. To continue the same one, give its :obj:`run_id`, or set the
    environment variable :obj:`MLFLOW_RUN_ID`.

    Args:
        experiment (str, optional): The experiment of a new MLflow run, created if it does not exist. One to continue
            stays in its own. (default: :obj:`None`, MLflow's experiment :obj:`Default`)
        tracking_uri (str or Path, optional): Where MLflow keeps its runs. (default: :obj:`None`, that of the
            environment variable :obj:`MLFLOW_TRACKING_URI`, or MLflow's default)
        run_id (str, optional): The MLflow run to continue. (default: :obj:`None`, a new one)

    Raises:
        ArgumentError: If the package is not installed, or an argument is out of its domain.
    """
    def __init__(self, experiment: Optional[str] = None, tracking_uri: Optional[Union[str, Path]] = None,
                 run_id: Optional[str] = None) -> None:
        _check_installed('mlflow')
        self.experiment = _name('experiment', experiment)
        if not isinstance(tracking_uri, Path):
            tracking_uri = _name('tracking_uri', tracking_uri)
        self.tracking_uri = None if tracking_uri is None else str(tracking_uri)
        self.run_id = _name('run_id', run_id)
        self._client: Any = None
        self._id: Optional[str] = None
        self._failed = False

    def start(self, run: RunInfo) -> None:
        r"""Starts a run, or continues the one that is named by its id."""
        import pandas as pd
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient
        self._failed = False
        self._client = MlflowClient(self.tracking_uri)
        self._id = self.run_id or os.environ.get('MLFLOW_RUN_ID')
        if self._id is not None:
            self._client.update_run(self._id, status='RUNNING')
            return
        self._id = self._client.create_run(self._experiment(), run_name=_title(run)).info.run_id
        settings = pd.json_normalize(dict(run.settings)).to_dict('records')[0]
        params = [Param(_allowed(str(name)), str(value)[:_LENGTH]) for name, value in settings.items()]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(self._id, params=params[first:first + _PARAMS])
        for row in run.rows:
            self.log(int(row['step']), row)

    def _experiment(self) -> str:
        name = self.experiment or 'Default'
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        r"""Writes a row."""
        from mlflow.entities import Metric
        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(_allowed(name), float(value), now, step)
                                                  for name, value in values.items() if name != 'step'])

    def fail(self) -> None:
        r"""Marks the run as failed."""
        self._failed = True

    def close(self) -> None:
        r"""Ends the run, as failed after :meth:`fail`."""
        if self._client is not None:
            self._client.set_terminated(self._id, 'FAILED' if self._failed else 'FINISHED')
            self._client = None

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.experiment!r})'


def _check_installed(package: str) -> None:
    found = importlib.util.find_spec(package)
    # Weights & Biases creates a folder of its own name in the working directory, which is no package.
    if found is None or found.origin is None:
        raise ArgumentError(f"{package}: the package {package} is not installed; run pip install 'pyg_emu[{package}]'")


def _name(argument: str, value: Any) -> Optional[str]:
    if value is not None and (not isinstance(value, str) or not value):
        raise ArgumentError(f'{argument}: expected a name or None, got {shown(value)}')
    return value


def _title(run: RunInfo) -> str:
    return run.name if run.run_dir is None else run.run_dir.name


def _allowed(name: str) -> str:
    r"""A name of a metric or parameter with the characters that MLflow allows."""
    return re.sub(r'[^\w\-./ ]', '_', name.replace('@', '_at_'))
