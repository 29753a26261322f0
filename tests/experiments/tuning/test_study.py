r"""Tests of small studies on a generated graph: interrupted studies give the same trials, the best recipe reproduces
the recorded value, and test triples are not ranked.
"""
from __future__ import annotations

import builtins
import contextlib
import itertools
import os
import re
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any, Optional

import pandas as pd
import pytest
import torch

from pyg_emu import KGData
from pyg_emu.core.errors import ArgumentError, CheckpointError, DivergenceError, RecipeError
from pyg_emu.experiments import runs
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.experiments.tuning import SearchSpace, TuneResult, load_space, study, tune
from pyg_emu.training.interrupt import TrainingInterrupted
from pyg_emu.training.trainer import Trainer

optuna = pytest.importorskip('optuna')

BASE = {'dataset': 'given', 'model': {'hidden_channels': 4}, 'negatives': {'num_negatives': 3}, 'batch_size': 40,
        'num_steps': 6, 'evaluate_every': 2}
SPACE = {'loss.beta': {'low': 0.05, 'high': 1.0}, 'optimizer.lr': {'low': 0.01, 'high': 1.0, 'log': True}}


@pytest.fixture(scope='module')
def data() -> KGData:
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(high, (150, ), generator=generator) for high in (12, 3, 12)]
    facts = torch.unique(torch.stack(columns, 1), dim=0)
    head, relation, tail = facts[torch.randperm(len(facts), generator=generator)].t()
    ends = torch.stack([head, tail])
    train, valid, test = slice(100), slice(100, 115), slice(115, None)
    return KGData(ends[:, train], relation[train], num_nodes=12, num_relations=3, valid_edge_index=ends[:, valid],
                  valid_edge_type=relation[valid], test_edge_index=ends[:, test], test_edge_type=relation[test])


def search(folder: Path, data: KGData, trials: int = 3, space: Optional[SearchSpace] = None, base: Any = None,
           **options: Any) -> TuneResult:
    settings = {'progress': False, 'device': 'cpu', **options}
    return tune(load_recipe({**BASE, **(base or {})}), folder, load_space(SPACE) if space is None else space,
                trials=trials, data=data, **settings)


def same_trials(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.drop(columns='seconds').equals(other.drop(columns='seconds'))


@pytest.fixture(autouse=True)
def few_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Skips the plots, which take longer than the studies."""
    if 'pictures' not in request.node.name:
        monkeypatch.setattr(study.plots, 'draw', lambda *arguments: [])
        monkeypatch.setattr(study.plots, 'importances', lambda study: {})


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory, data: KGData) -> TuneResult:
    return search(tmp_path_factory.mktemp('whole'), data, trials=4)


def test_first_trial_is_the_recipe_itself(whole: TuneResult, data: KGData) -> None:
    first = whole.trials.iloc[0]
    assert whole.trials['loss.beta'].is_unique  # Each trial samples a new value.
    assert (first['loss.beta'], first['optimizer.lr']) == (0.53, 0.1)
    assert first['mrr'] == run_recipe(load_recipe(BASE), data=data, progress=False).train.best_metric


def test_best_recipe_does_what_was_recorded(whole: TuneResult, data: KGData) -> None:
    recipe = load_recipe(whole.folder / 'best.yaml')
    assert recipe == whole.recipe and recipe.num_steps == 6
    assert re.search(r'best of 4 trials, validation mrr 0\.\d{4} \(pyg-emu tune, TPE, seed 0\)', recipe.description)
    best = whole.trials.loc[whole.trials['mrr'].idxmax()]
    assert best['outcome'] == 'complete'
    assert (recipe.loss['beta'], recipe.optimizer['lr']) == (best['loss.beta'], best['optimizer.lr'])
    again = run_recipe(recipe, data=data, progress=False).train
    assert again.best_metric == whole.value == best['mrr'] and again.best_step == best['best_step']


def test_table_and_pictures(whole: TuneResult) -> None:
    frame = pd.read_csv(whole.folder / 'trials.csv')
    assert frame['trial'].tolist() == [1, 2, 3, 4] and frame['mrr'].equals(whole.trials['mrr'])
    assert frame['loss.beta'].equals(whole.trials['loss.beta'])
    pictures = sorted(path.name for path in (whole.folder / 'plots').iterdir())
    assert pictures == ['history.png', 'importances.png', 'slice-loss.beta.png', 'slice-optimizer.lr.png']
    assert all((whole.folder / 'plots' / name).read_bytes().startswith(b'\x89PNG') for name in pictures)
    assert sum(whole.importances.values()) == pytest.approx(1.0)
    assert set(whole.importances) == set(SPACE)
    assert str(whole).startswith('4 trials: 4 complete\n') and f'{whole.value:.4f}' in str(whole)


def test_two_and_two_trials_are_four(whole: TuneResult, data: KGData, tmp_path: Path) -> None:
    part = search(tmp_path, data, trials=2)
    assert len(part.trials) == 2 and 'best of 2 trials' in part.recipe.description
    both = search(tmp_path, data, trials=4)
    assert same_trials(both.trials, whole.trials) and both.recipe == whole.recipe
    # No further trial runs if all are complete.
    assert search(tmp_path, data, trials=2).trials.equals(both.trials)


def test_other_seed_other_trials(whole: TuneResult, data: KGData, tmp_path: Path) -> None:
    other = search(tmp_path, data, trials=2, seed=1)
    assert other.trials['loss.beta'].iloc[1] != whole.trials['loss.beta'].iloc[1]


def test_interrupted_trial_is_run_again(whole: TuneResult, data: KGData, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = Trainer._step, []

    def interrupting(self: Trainer, *arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 6 + 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, '_step', interrupting)
        with pytest.raises(TrainingInterrupted, match=f'^SIGINT: .*trial 2 of 4.*{tmp_path}'):
            search(tmp_path, data, trials=4)
    assert len(pd.read_csv(tmp_path / 'trials.csv')) == 1 and (tmp_path / 'best.yaml').exists()
    assert same_trials(search(tmp_path, data, trials=4).trials, whole.trials)


def test_killed_trial_is_run_again(whole: TuneResult, data: KGData, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    search(tmp_path, data, trials=1)
    with monkeypatch.context() as patch:
        patch.setattr(study, 'run_recipe', killed)
        patch.setattr(study, 'give_up', lambda *arguments: None)  # A killed process does not get to call it.
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, data, trials=4)
    stored = optuna.load_study(study_name='pyg_emu', storage=f'sqlite:///{tmp_path / "study.db"}')
    assert stored.trials[-1].state == optuna.trial.TrialState.RUNNING
    assert same_trials(search(tmp_path, data, trials=4).trials, whole.trials)


def test_trial_that_failed_is_run_again(whole: TuneResult, data: KGData, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(study, 'run_recipe', failing)
        with pytest.raises(MemoryError):
            search(tmp_path, data, trials=2)
    # The first trial is the recipe itself, as without the failure.
    assert same_trials(search(tmp_path, data, trials=2).trials, whole.trials.head(2))


def test_trial_that_fails_each_time_is_left_out(whole: TuneResult, data: KGData, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    run, beta = study.run_recipe, whole.trials['loss.beta'].iloc[1]
    interruptions = iter([False, True, False])

    def failing(recipe: Any, *arguments: Any, **options: Any) -> Any:
        if recipe.loss['beta'] == beta:
            raise KeyboardInterrupt if next(interruptions) else ValueError('no such beta')
        return run(recipe, *arguments, **options)

    monkeypatch.setattr(study, 'run_recipe', failing)
    with pytest.raises(ValueError, match='no such beta'):
        search(tmp_path, data, trials=3)
    with pytest.raises(KeyboardInterrupt):  # what is between both errors does not count
        search(tmp_path, data, trials=3)
    with pytest.warns(UserWarning, match='trial 2 of 3 .*no such beta'):
        found = search(tmp_path, data, trials=3)
    assert found.trials['outcome'].tolist() == ['complete', 'failed', 'complete']
    assert found.trials['loss.beta'].iloc[1] == beta and pd.isna(found.trials['mrr'].iloc[1])
    assert '1 failed' in str(found)


def test_memory_mapped_storage_is_refused(data: KGData, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='^storage: .*memory'):
        search(tmp_path / 'study', data, base={'storage': 'mmap', 'model': {'hidden_channels': 4, 'sparse': True}})
    assert not (tmp_path / 'study').exists()


def test_signal_between_trials(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = optuna.study.Study.tell

    def interrupting(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return tell(*arguments, **options)

    monkeypatch.setattr(optuna.study.Study, 'tell', interrupting)
    with pytest.raises(TrainingInterrupted, match=f'^SIGTERM: .*trial 1 of 3.*{tmp_path}'):
        search(tmp_path, data)
    assert len(pd.read_csv(tmp_path / 'trials.csv')) == 1


def test_test_facts_are_not_ranked(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits, evaluate = [], runs.evaluate

    def watching(*arguments: Any, split: str, **options: Any) -> Any:
        splits.append(split)
        return evaluate(*arguments, split=split, **options)

    monkeypatch.setattr(runs, 'evaluate', watching)
    monkeypatch.setattr(runs, 'rank', lambda *arguments, **options: pytest.fail('the test facts were ranked'))
    search(tmp_path, data, trials=2)
    assert splits == ['valid'] * 6


def test_falling_behind_is_pruned(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The values of the trials at each validation: five with a median of 0.5, then one below it from the second on.
    courses = iter([*[[0.1, 0.5, 0.6, 0.6, 0.6, 0.6]] * 5, [0.05, 0.4]])
    run = study.run_recipe

    def scripted(*arguments: Any, on_validation: Any, **options: Any) -> Any:
        course = iter(next(courses))
        return run(*arguments, **options, on_validation=lambda step, _: on_validation(step, {'mrr': next(course)}))

    monkeypatch.setattr(study, 'run_recipe', scripted)
    found = search(tmp_path, data, trials=6, base={'num_steps': 12}).trials
    assert found['outcome'].tolist() == ['complete'] * 5 + ['pruned']
    # It is not pruned at step 2, where it is also below the median, because a quarter of the steps is the warm-up.
    assert (found.iloc[-1]['steps'], found.iloc[-1]['mrr']) == (4, 0.4)
    assert pd.isna(found.iloc[-1]['best_step'])


def test_no_pruning(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.trial.Trial, 'should_prune', lambda self: isinstance(
        self.study.pruner, optuna.pruners.MedianPruner))
    with pytest.raises(DivergenceError, match=r'\b2 trials\b'):
        search(tmp_path / 'pruned', data, trials=2)
    assert search(tmp_path / 'whole', data, trials=2, pruning=False).trials['outcome'].eq('complete').all()


def test_divergence_is_no_end(data: KGData, tmp_path: Path) -> None:
    space = load_space({'optimizer.lr': {'choices': [1e30, 0.1]}})
    result = search(tmp_path, data, trials=4, space=space, base={'optimizer': {'name': 'sgd', 'lr': 1e30},
                                                                 'num_steps': 12})
    outcomes = dict(zip(result.trials['optimizer.lr'], result.trials['outcome']))
    assert outcomes == {1e30: 'diverged', 0.1: 'complete'} and result.recipe.optimizer['lr'] == 0.1
    assert 'diverged' in str(result)


def test_all_diverge(data: KGData, tmp_path: Path) -> None:
    space = load_space({'optimizer.lr': {'low': 1e30, 'high': 1e31}})
    with pytest.raises(DivergenceError, match=r'\b2 trials\b.*trials\.csv'):
        search(tmp_path, data, trials=2, space=space, base={'optimizer': {'name': 'sgd', 'lr': 1e30}, 'num_steps': 12})
    assert not (tmp_path / 'best.yaml').exists()


def test_metric_of_the_recipe(data: KGData, tmp_path: Path) -> None:
    result = search(tmp_path, data, trials=2, base={'metric': 'macro.mrr'})
    metrics = run_recipe(result.recipe, data=data, progress=False).train.metrics
    assert metrics['macro.mrr'] == result.value and result.metric == 'macro.mrr'
    with pytest.raises(ArgumentError, match="^metric: .*'macro.mrr'"):
        search(tmp_path / 'other', data, metric='macro.mrr')


def test_other_metric(data: KGData, tmp_path: Path) -> None:
    result = search(tmp_path, data, trials=2, metric='hits@1')
    best = result.trials.loc[result.trials['hits@1'].idxmax()]
    metrics = run_recipe(result.recipe, data=data, progress=False).train.metrics
    assert metrics['hits@1'] == best['hits@1'] == result.value


def test_timeout_starts_no_further_trial(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count()
    monkeypatch.setattr(study, 'monotonic', lambda: 3600.0 * next(hours))
    assert len(search(tmp_path, data, trials=9, timeout=1.5 * 3600.0).trials) == 1


@pytest.mark.parametrize('options, message', [
    ({'seed': 1}, r'seed: 1, not 0'),
    ({'metric': 'hits@1'}, r'metric: hits@1, not mrr'),
    ({'base': {'batch_size': 30}}, r'recipe\.batch_size: 30, not 40'),
    ({'base': {'num_steps': 8}}, r'recipe\.num_steps: 8, not 6'),
    ({'space': load_space({'loss.beta': {'low': 0.05, 'high': 2.0}})},
     r'search\.loss\.beta\.high: 2\.0, not 1\.0; search\.optimizer\.lr\.\w+: nothing, not'),
])
def test_other_study_is_refused(whole: TuneResult, data: KGData, options: Any, message: str) -> None:
    before = (whole.folder / 'trials.csv').read_bytes()
    with pytest.raises(RecipeError, match=f'{whole.folder}.*{message}'):
        search(whole.folder, data, **options)
    assert (whole.folder / 'trials.csv').read_bytes() == before


def test_recipe_hash_decides(data: KGData, tmp_path: Path) -> None:
    search(tmp_path, data, trials=1)
    stored = optuna.load_study(study_name='pyg_emu', storage=f'sqlite:///{tmp_path / "study.db"}')
    assert stored.user_attrs['recipe_hash'] == load_recipe(BASE).hash()
    stored.set_user_attr('recipe_hash', 'another')
    with pytest.raises(RecipeError, match=str(tmp_path)):
        search(tmp_path, data, trials=1)


def test_other_facts_are_refused(data: KGData, tmp_path: Path) -> None:
    search(tmp_path, data, trials=1)
    before = (tmp_path / 'trials.csv').read_bytes()
    other = KGData(data.edge_index[:, 1:], data.edge_type[1:], num_nodes=12, num_relations=3,
                   valid_edge_index=data.valid_edge_index, valid_edge_type=data.valid_edge_type,
                   test_edge_index=data.test_edge_index, test_edge_type=data.test_edge_type)
    with pytest.raises(RecipeError, match=rf'{tmp_path} .*train \(99 facts, .*100\);'):
        search(tmp_path, other)
    assert (tmp_path / 'trials.csv').read_bytes() == before
    # A study of an earlier version knows no facts, until it is continued.
    with contextlib.closing(sqlite3.connect(tmp_path / 'study.db')) as database, database:
        assert database.execute("DELETE FROM study_user_attributes WHERE key = 'facts'").rowcount == 1
    assert len(search(tmp_path, other, trials=2).trials) == 2
    with pytest.raises(RecipeError, match='100 facts, .*99'):
        search(tmp_path, data)


@pytest.mark.parametrize('options, message', [
    ({'trials': 0}, r'^trials: .*\b1\b.*\b0$'),
    ({'timeout': 0.0}, r'^timeout: .*\b0\.0$'),
    ({'seed': -1}, '^seed: .*0.*-1$'),
    ({'metric': 'mr'}, r"^metric: .*mrr, hits@1, .*'mr'"),
    ({'device': 'no-such'}, "^device: 'no-such'"),
])
def test_arguments_are_checked_first(data: KGData, tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        search(tmp_path / 'study', data, **options)
    assert not (tmp_path / 'study').exists()


def test_no_validation_facts(tmp_path: Path) -> None:
    data = KGData(torch.randint(9, (2, 50)), torch.randint(2, (50, )), num_nodes=9, num_relations=2)
    with pytest.raises(RecipeError, match='^dataset: .*valid'):
        search(tmp_path, data)


def test_damaged_database(data: KGData, tmp_path: Path) -> None:
    (tmp_path / 'study.db').write_bytes(b'not a database, but longer than its header' * 100)
    with pytest.raises(CheckpointError, match=r'study\.db'):
        search(tmp_path, data)


def test_folder_of_a_run(data: KGData, tmp_path: Path) -> None:
    run_recipe(load_recipe(BASE), tmp_path / 'run', data=data, progress=False)
    files = sorted(path.name for path in (tmp_path / 'run').iterdir())
    with pytest.raises(CheckpointError, match='run .*run-tune'):
        search(tmp_path / 'run', data)
    assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == files


def test_two_processes(data: KGData, tmp_path: Path) -> None:
    with study.StudyFolder(tmp_path).lock(), pytest.raises(CheckpointError, match=f'{tmp_path} .*{os.getpid()} '):
        search(tmp_path, data)


def test_torchrun(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ArgumentError, match=r'\b2\b.*torchrun'):
        search(tmp_path / 'study', data)
    assert not (tmp_path / 'study').exists()


def test_without_optuna(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name == 'optuna':
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    monkeypatch.delitem(sys.modules, 'optuna')
    monkeypatch.setattr(builtins, '__import__', missing)
    with pytest.raises(ArgumentError, match=r"optuna.*'pyg_emu\[tune\]'"):
        search(tmp_path, data)


def test_without_matplotlib(data: KGData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, 'find_spec', lambda name: None)
    with pytest.warns(UserWarning, match="matplotlib.*'tune'"):
        search(tmp_path, data, trials=1)
    assert (tmp_path / 'best.yaml').exists() and not (tmp_path / 'plots').exists()


def test_pictures_of_choices(data: KGData, tmp_path: Path) -> None:
    space = load_space({'negatives.shared': {'choices': [True, False]}})
    result = search(tmp_path, data, trials=2, space=space)
    assert (result.folder / 'plots' / 'slice-negatives.shared.png').exists()
    assert type(load_recipe(tmp_path / 'best.yaml').negatives['shared']) is bool
