r"""Tests of the loggers for experiment trackers: with stand-ins for the packages, and offline with the packages."""
from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.core.errors import ArgumentError
from pyg_emu.experiments.cli.main import _parser
from pyg_emu.experiments.cli.train import loggers_of
from pyg_emu.training import MLflowLogger, WandbLogger
from pyg_emu.training.loggers import RunInfo, check_loggers

#: What the packages offer to the loggers. Each call is noted in the list CALLS of wandb.
WANDB = """
    CALLS = []
    class Run:
        resumed = False
        def define_metric(self, name, step_metric=None): CALLS.append(('define', name, step_metric))
        def log(self, values): CALLS.append(('log', values))
        def finish(self, exit_code=None): CALLS.append(('finish', exit_code))
    def init(project=None, name=None, config=None, mode=None, id=None, resume=None):
        CALLS.append(('init', {'project': project, 'name': name, 'config': config, 'mode': mode}))
        Run.resumed = resume is not None
        return Run()
"""
MLFLOW = {
    '__init__': '',
    'entities': """
        from typing import NamedTuple
        class Param(NamedTuple):
            key: str
            value: str
        class Metric(NamedTuple):
            key: str
            value: float
            timestamp: int
            step: int
    """,
    'tracking': """
        from types import SimpleNamespace
        CALLS = []
        class MlflowClient:
            def __init__(self, tracking_uri=None): CALLS.append(('client', tracking_uri))
            def get_experiment_by_name(self, name): return None
            def create_experiment(self, name): return f'id of {name}'
            def create_run(self, experiment_id, run_name=None):
                CALLS.append(('run', experiment_id, run_name))
                return SimpleNamespace(info=SimpleNamespace(run_id='new'))
            def update_run(self, run_id, status=None): CALLS.append(('update', run_id, status))
            def log_batch(self, run_id, metrics=(), params=()):
                CALLS.append(('batch', run_id, {one.key: one.value for one in params},
                              {(one.key, one.step): one.value for one in metrics}))
            def set_terminated(self, run_id, status=None): CALLS.append(('end', run_id, status))
    """,
}
SETTINGS = {'model': {'class': 'pyg_emu.DistMult'}, 'negatives': None}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    r"""Stand-ins for both packages. Returns the calls that one of them has received."""
    files = {'wandb.py': WANDB, **{f'mlflow/{name}.py': text for name, text in MLFLOW.items()}}
    for name, text in files.items():
        path = tmp_path / 'packages' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    for name in [name for name in sys.modules if name.partition('.')[0] in ('wandb', 'mlflow')]:
        monkeypatch.delitem(sys.modules, name)
    for variable in ('WANDB_RUN_ID', 'MLFLOW_RUN_ID', 'MLFLOW_TRACKING_URI'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.syspath_prepend(tmp_path / 'packages')
    yield lambda name: sys.modules[name].CALLS  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.partition('.')[0] in ('wandb', 'mlflow')]:
        del sys.modules[name]


def resumed(run_dir: Path) -> RunInfo:
    return RunInfo('DistMult, emu', run_dir, 2, 4, ({'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.25}), SETTINGS)


def test_wandb(calls: Any, tmp_path: Path) -> None:
    logger = WandbLogger('mine', mode='offline')
    logger.start(resumed(tmp_path / 'umls'))
    logger.log(3, {'step': 3, 'valid_hits@10': 0.75})
    try:
        raise RuntimeError
    except RuntimeError:
        logger.close()  # an exception around fit() is not one of the run
    logger.close()
    found = calls('wandb')
    assert found[0] == ('init', {'project': 'mine', 'name': 'umls', 'config': SETTINGS, 'mode': 'offline'})
    assert [values for kind, values in (call[:2] for call in found) if kind == 'log'] == [
        {'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.25}, {'step': 3, 'valid_hits@10': 0.75}]
    assert found[-1] == ('finish', 0) and ('define', '*', 'step') in found


def test_wandb_continues_a_run(calls: Any, tmp_path: Path) -> None:
    logger = WandbLogger(id='x', resume='allow')
    logger.start(resumed(tmp_path))
    assert not any(call[0] == 'log' for call in calls('wandb'))
    logger.fail()
    logger.close()
    assert calls('wandb')[-1] == ('finish', 1)


def test_wandb_names_unknown_options(calls: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='colour.*project'):
        WandbLogger('mine', colour='blue').start(resumed(tmp_path))


def test_mlflow(calls: Any, tmp_path: Path) -> None:
    logger = MLflowLogger('mine', tracking_uri='sqlite:///runs.db')
    logger.start(resumed(tmp_path / 'umls'))
    logger.log(3, {'step': 3, 'valid_hits@10': 0.75})
    try:
        raise RuntimeError
    except RuntimeError:
        logger.close()
    logger.close()
    assert calls('mlflow.tracking') == [
        ('client', 'sqlite:///runs.db'), ('run', 'id of mine', 'umls'),
        ('batch', 'new', {'model.class': 'pyg_emu.DistMult', 'negatives': 'None'}, {}),
        ('batch', 'new', {}, {('loss', 1): 0.5}), ('batch', 'new', {}, {('loss', 2): 0.25}),
        ('batch', 'new', {}, {('valid_hits_at_10', 3): 0.75}), ('end', 'new', 'FINISHED')]


@pytest.mark.parametrize('given', [True, False])
def test_mlflow_continues_a_run(given: bool, calls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not given:
        monkeypatch.setenv('MLFLOW_RUN_ID', 'old')
    logger = MLflowLogger(run_id='old' if given else None)
    logger.start(resumed(tmp_path))
    logger.log(3, {'loss': 0.125})
    logger.fail()
    logger.close()
    assert calls('mlflow.tracking')[1:] == [('update', 'old', 'RUNNING'), ('batch', 'old', {}, {('loss', 3): 0.125}),
                                            ('end', 'old', 'FAILED')]


def test_flags_name_them(calls: Any) -> None:
    options = _parser().parse_args(['train', '--recipe', 'distmult-umls-emu', '--wandb', 'one', '--mlflow', 'two'])
    loggers = check_loggers(loggers_of(options))
    assert [(type(logger).__name__, repr(logger)) for logger in loggers] == [
        ('WandbLogger', "WandbLogger('one')"), ('MLflowLogger', "MLflowLogger('two')")]
    assert loggers_of(_parser().parse_args(['train', '--recipe', 'distmult-umls-emu'])) == []


@pytest.mark.parametrize(('make', 'package'), [(WandbLogger, 'wandb'), (MLflowLogger, 'mlflow')])
def test_names_the_missing_package(make: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / package).mkdir()  # where Weights & Biases has left its files, and no package
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(ArgumentError, match=rf'pyg_emu\[{package}\]'):
        make('mine')


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('wandb.sdk')  # a folder of the name wandb is a module, too
    import wandb
    monkeypatch.chdir(tmp_path)
    logger = WandbLogger('mine', mode='offline', dir=str(tmp_path), settings=wandb.Settings(silent=True))
    logger.start(resumed(tmp_path))
    logger.log(3, {'step': 3, 'valid_hits@10': 0.75})
    assert dict(logger._run.summary)['valid_hits@10'] == 0.75 and logger._run.config['model'] == SETTINGS['model']
    logger.close()
    assert list(tmp_path.glob('wandb/offline-run-*/*.wandb'))


def test_mlflow_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip('mlflow.tracking')
    monkeypatch.chdir(tmp_path)
    uri = f'sqlite:///{tmp_path}/runs.db'
    logger = MLflowLogger('mine', tracking_uri=uri)
    logger.start(resumed(tmp_path / 'umls'))
    logger.log(3, {'step': 3, 'valid_hits@10 (50 negatives)': 0.75})
    logger.close()
    client = tracking.MlflowClient(uri)
    run, = client.search_runs([client.get_experiment_by_name('mine').experiment_id])
    assert run.info.status == 'FINISHED' and run.info.run_name == 'umls'
    assert run.data.params['model.class'] == 'pyg_emu.DistMult'
    name, = (name for name in run.data.metrics if re.match('valid_hits_at_10', name))
    assert run.data.metrics[name] == 0.75
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, 'loss')] == [(1, 0.5),
                                                                                                     (2, 0.25)]
