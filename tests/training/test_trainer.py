r"""The training loop, on a small generated graph. What a kill may break is tested by killing."""
from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch_geometric.transforms import Compose

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, L3Regularizer, Trainer, TransE, TripletLoader
from pyg_emu.core.errors import ArgumentError, BackendError, CheckpointError, DivergenceError
from pyg_emu.data.fingerprints import facts_entry
from pyg_emu.evaluation.metrics import Metrics, Ranks
from pyg_emu.models import Reciprocal
from pyg_emu.negatives.mutation import LearnedMask, LinearSchedule
from pyg_emu.negatives.sampling import NSCachingSampler, UniformSampler
from pyg_emu.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from pyg_emu.training.graphed_step import GraphedStep
from pyg_emu.training.interrupt import TrainingInterrupted
from pyg_emu.training.loggers import RunInfo
from pyg_emu.training.run_folder import RunFolder
from pyg_emu.training.schedules import LinearDecay, Schedule, SwitchOptimizer

ROOT = Path(__file__).resolve().parents[2]


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(12, (2, 60), generator=generator)
    types = torch.randint(3, (60, ), generator=generator)
    return KGData(edges, types, num_nodes=12, num_relations=3)


def make_trainer(*, criterion: Optional[Callable[..., Tensor]] = None, sampler: Any = None, sparse: bool = False,
                 device: str = 'cpu', **kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    data = make_data().to(device)
    model = DistMult(data.num_nodes, data.num_relations, 8, sparse=sparse).to(device)
    loader = TripletLoader(data, batch_size=16, shuffle=True, seed=1,
                           transform=EMUNegatives(num_negatives=4, sampler=sampler))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    options = {'num_steps': 20, 'evaluate_every': 5, 'log_every': 2, 'progress': False, 'validate': score, **kwargs}
    return Trainer(model, criterion or EMULoss(), loader, optimizer, **options)


def score(model: torch.nn.Module) -> dict[str, float]:
    r"""Stands in for a ranking: deterministic, and more is better."""
    return {'mrr': float(model.node_emb.weight.square().mean()), 'hits@10': 0.5}


def weights(trainer: Trainer) -> list[Tensor]:
    return [value.detach().clone() for value in trainer.model.parameters()]


def without_times(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns=['seconds', 'steps_per_second'])


class Scripted:
    r"""A validation whose results are given."""
    def __init__(self, *values: float):
        self.values = list(values)
        self.seen: list[Tensor] = []

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        self.seen.append(model.node_emb.weight.clone())
        return {'mrr': self.values.pop(0)}


class Spoil:
    r"""A loss that is what :obj:`bad` says from one step on."""
    def __init__(self, step: int, bad: float, once: bool = False):
        self.loss, self.step, self.bad, self.once, self.calls = EMULoss(), step, bad, once, 0

    def __call__(self, model: torch.nn.Module, batch: Any) -> Tensor:
        self.calls += 1
        loss = self.loss(model, batch)
        bad = self.calls == self.step if self.once else self.calls >= self.step
        return loss.detach() * self.bad + 0.0 * loss if bad else loss


# What a run does and writes ##################################################


def test_same_steps_as_a_plain_loop() -> None:
    trainer = make_trainer(validate=None)
    result = trainer.fit()
    twin = make_trainer(validate=None)
    losses = []
    for _, batch in zip(range(20), twin.loader.batches()):
        twin.optimizer.zero_grad()
        loss = twin.criterion(twin.model, batch)
        loss.backward()
        twin.optimizer.step()
        losses.append(loss.item())
    assert all(map(torch.equal, weights(trainer), weights(twin)))
    means = [sum(losses[start:start + 5]) / 5 for start in range(0, 20, 5)]
    assert result.history['loss'].tolist() == pytest.approx(means, rel=1e-6)
    assert result.history['step'].tolist() == [5, 10, 15, 20]
    assert (result.steps, result.best_step, result.best_metric) == (20, None, None)
    assert result.seconds > 0 and not result.stopped_early and result.run_dir is None


def test_run_folder(tmp_path: Path) -> None:
    result = make_trainer(run_dir=tmp_path, num_steps=12).fit()
    assert set(os.listdir(tmp_path)) == {'history.csv', 'metrics.json', 'versions.json', 'run.json', 'last.pt',
                                         'best.pt'}
    history = pd.read_csv(tmp_path / 'history.csv')
    assert list(history) == ['step', 'seconds', 'loss', 'lr', 'valid_mrr', 'valid_hits@10', 'positive_score',
                             'loss_mutated', 'loss_vanilla', 'grad_norm', 'steps_per_second']
    assert history['step'].tolist() == [5, 10, 12]
    pd.testing.assert_frame_equal(history, result.history)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['best_step'] == result.best_step and metrics['valid'] == result.metrics and metrics['steps'] == 12
    assert json.loads((tmp_path / 'versions.json').read_text())['device'] == 'cpu'


@pytest.mark.parametrize('with_folder', [False, True])
def test_best_weights_are_restored(tmp_path: Path, with_folder: bool) -> None:
    validate = Scripted(0.1, 0.3, 0.2, 0.3)
    trainer = make_trainer(validate=validate, run_dir=tmp_path / 'run' if with_folder else None)
    result = trainer.fit()
    assert (result.best_step, result.best_metric, result.steps) == (10, 0.3, 20)
    assert torch.equal(trainer.model.node_emb.weight, validate.seen[1])
    if with_folder:
        assert load_checkpoint(tmp_path / 'run' / 'last.pt')['step'] == 20
        assert load_weights(tmp_path / 'run' / 'best.pt', trainer.model) == 10


def test_last_weights_on_request() -> None:
    validate = Scripted(0.4, 0.3, 0.2, 0.1)
    trainer = make_trainer(validate=validate, restore_best=False)
    assert trainer.fit().best_step == 5
    assert torch.equal(trainer.model.node_emb.weight, validate.seen[-1])


def test_early_stopping(tmp_path: Path) -> None:
    # Twice in a row without a new best, not twice in all.
    validate = Scripted(0.1, 0.05, 0.2, 0.1, 0.2, 0.9)
    trainer = make_trainer(validate=validate, num_steps=100, patience=2, run_dir=tmp_path)
    result = trainer.fit()
    assert (result.steps, result.best_step, result.stopped_early) == (25, 15, True)
    assert load_checkpoint(tmp_path / 'last.pt')['step'] == 25
    # A finished run is not trained any further.
    again = make_trainer(validate=Scripted(), num_steps=100, patience=2, run_dir=tmp_path).fit()
    assert (again.steps, again.best_step, again.stopped_early) == (25, 15, True)
    assert len(again.history) == 5


class Clock:
    r"""Stands in for the module :obj:`time`: a step takes one second and a validation a hundred."""
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.loss = 0.0, EMULoss()
        monkeypatch.setattr('pyg_emu.training.trainer.time', self)

    def perf_counter(self) -> float:
        return self.now

    def criterion(self, model: Any, batch: Any) -> Tensor:
        self.now += 1.0
        return self.loss(model, batch)

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        self.now += 100.0
        return score(model)


def test_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    options: dict[str, Any] = {'criterion': clock.criterion, 'validate': clock.validate}
    first = make_trainer(**options, max_seconds=7.5, run_dir=tmp_path).fit()
    assert (first.steps, first.seconds, first.stopped_early) == (8, 8.0, False)
    assert first.history['step'].tolist() == [5, 8]
    # Validations take no time of the run, and the speed is that since the last one.
    assert first.history['seconds'].tolist() == [5.0, 8.0]
    assert first.history['steps_per_second'].tolist() == pytest.approx([1.0, 1.0])
    assert load_checkpoint(tmp_path / 'last.pt')['step'] == 8
    # A finished run is not trained any further, and one with more time goes on as if it had always had it.
    assert make_trainer(**options, max_seconds=7.5, run_dir=tmp_path).fit().steps == 8
    longer = make_trainer(**options, max_seconds=13.0, run_dir=tmp_path)
    assert longer.fit().steps == 13
    whole = make_trainer(**options, max_seconds=13.0, restore_best=False)
    assert whole.fit().history['step'].tolist() == [5, 10, 13]
    last = load_checkpoint(tmp_path / 'last.pt')['model']
    assert all(torch.equal(last[name], value) for name, value in whole.model.state_dict().items())


def test_validation_that_failed_when_time_was_over_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    options: dict[str, Any] = {'criterion': clock.criterion, 'max_seconds': 3.0, 'run_dir': tmp_path}

    def fail(model: torch.nn.Module) -> dict[str, float]:
        raise RuntimeError('no room')

    with pytest.raises(RuntimeError, match='no room'):
        make_trainer(**options, validate=fail).fit()
    result = make_trainer(**options).fit()
    assert (result.steps, result.best_step, len(result.history)) == (3, 3, 1)


def test_sampler_learns_once_a_step() -> None:
    class Learning(UniformSampler):
        seen: list[int] = []

        def update(self, batch: Any, scorer: Any) -> None:
            assert scorer.score_all(scorer.query(batch.known_index, batch.rel_type, batch.side)).size(1) == 12
            self.seen.append(batch.step)

    make_trainer(sampler=Learning(), num_steps=7).fit()
    assert Learning.seen == list(range(7))


def test_schedule_and_clipping(tmp_path: Path) -> None:
    trainer = make_trainer(schedule=SwitchOptimizer(), max_grad_norm=0.01, validate=None)
    assert trainer.fit().history['lr'].tolist() == pytest.approx([0.1, 0.01, 0.01, 0.01])
    free = make_trainer(schedule=SwitchOptimizer(), validate=None)
    free.fit()
    assert not torch.equal(trainer.model.node_emb.weight, free.model.node_emb.weight)


def test_schedule_that_would_lose_an_option(tmp_path: Path) -> None:
    trainer = make_trainer(schedule=SwitchOptimizer(), run_dir=tmp_path / 'run')
    trainer.optimizer.param_groups[0]['eps'] = 1e-5
    with pytest.raises(ArgumentError, match='^optimizer: SwitchOptimizer.* eps=1e-05 '):
        trainer.fit()
    assert trainer.step == 0 and not (tmp_path / 'run').exists()


def test_progress_bar(capfd: pytest.CaptureFixture[str]) -> None:
    make_trainer(progress=True, name='DistMult').fit()
    shown = capfd.readouterr().err
    assert 'DistMult: 100%' in shown and '20/20' in shown and 'loss=' in shown and 'mrr=' in shown


def test_resumed_run_is_announced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def told(**options: Any) -> str:
        make_trainer(run_dir=tmp_path, progress=True, **options).fit()
        return ''.join(line for line in capfd.readouterr().err.splitlines() if line.startswith(f'{tmp_path}: '))

    assert told(num_steps=10) == ''
    assert told(num_steps=15) == f'{tmp_path}: continues after step 10 of 15'
    start_over = 'nothing to train (--fresh or resume=False starts over)'
    assert told(num_steps=15) == f'{tmp_path}: complete after 15 steps; {start_over}'
    assert told(num_steps=20, max_seconds=1e-9) == (
        f'{tmp_path}: stopped after step 15 of 20 by max_seconds=1e-09; {start_over}')
    make_trainer(run_dir=tmp_path, num_steps=15).fit()
    assert capfd.readouterr().err == ''


def test_resumed_run_that_has_lost_patience_is_announced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        make_trainer(run_dir=tmp_path, progress=True, patience=1, validate=lambda model: {'mrr': 0.5}).fit()
    assert f'{tmp_path}: stopped after step 10 of 20 by patience=1; nothing to train' in capfd.readouterr().err


def test_report_of_the_data_at_the_start(capfd: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(progress=True)
    data = trainer.loader.data
    trainer.fit()
    shown = capfd.readouterr().err
    assert data.report().summary() in shown and f'{data.num_nodes} entities' in shown
    assert shown.index('entities') < shown.index('20/20')
    again = make_trainer(progress=True)
    again.loader = trainer.loader
    again.fit()
    assert f'{data.num_nodes} entities' not in capfd.readouterr().err  # once for each graph
    make_trainer(progress=False).fit()
    assert capfd.readouterr().err == ''


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    result = make_trainer(run_dir=tmp_path, tensorboard=True).fit()
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert [event.step for event in events.Scalars('valid_mrr')] == [5, 10, 15, 20]
    assert [event.value for event in events.Scalars('loss')] == pytest.approx(result.history['loss'].tolist())


class Recorder:
    r"""A logger that keeps what it is told."""
    def __init__(self, fail_at: Optional[int] = None) -> None:
        self.calls: list[Any] = []
        self.fail_at = fail_at

    def start(self, run: RunInfo) -> None:
        self.run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fail_at:
            raise ConnectionError
        self.calls.append((step, dict(values)))

    def fail(self) -> None:
        self.calls.append('failed')

    def close(self) -> None:
        self.calls.append('closed')


def test_loggers(tmp_path: Path) -> None:
    logger = Recorder()
    try:
        raise _Stop
    except _Stop:  # an exception around fit() is not one of the run
        result = make_trainer(run_dir=tmp_path, loggers=[logger], name='mine').fit()
    assert (logger.run.name, logger.run.run_dir, logger.run.first_step, logger.run.num_steps) == ('mine', tmp_path, 0,
                                                                                                 20)
    assert logger.run.settings['optimizer']['class'].endswith('Adagrad')
    assert logger.calls == [*((row['step'], row) for row in result.history.to_dict('records')), 'closed']


def test_failing_logger_loses_no_step(tmp_path: Path) -> None:
    logger = Recorder(fail_at=10)
    with pytest.raises(ConnectionError):
        make_trainer(run_dir=tmp_path / 'cut', loggers=[logger]).fit()
    assert logger.calls[-2:] == ['failed', 'closed'] and load_checkpoint(tmp_path / 'cut' / 'last.pt')['step'] == 10
    again = Recorder()
    resumed = make_trainer(run_dir=tmp_path / 'cut', loggers=[again]).fit()
    assert again.run.first_step == 10 and [row['step'] for row in again.run.rows] == [5, 10]
    assert [call[0] for call in again.calls[:-1]] == [15, 20]
    whole = make_trainer().fit()
    pd.testing.assert_frame_equal(without_times(resumed.history), without_times(whole.history), check_exact=True)


@pytest.mark.parametrize('max_grad_norm', [0.01, None])
def test_what_is_logged(max_grad_norm: Optional[float]) -> None:
    regularizer = L3Regularizer(1e-3)
    trainer = make_trainer(criterion=EMULoss(regularizer=regularizer), max_grad_norm=max_grad_norm)
    result = trainer.fit()
    twin = make_trainer(criterion=EMULoss(regularizer=regularizer))
    rows, sums, norms = [], dict.fromkeys(('loss_mutated', 'loss_vanilla', 'loss_penalty', 'positive_score'), 0.0), []
    for step, batch in zip(range(1, 21), twin.loader.batches()):
        twin.optimizer.zero_grad()
        loss = twin.criterion(twin.model, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.model.parameters(), max_grad_norm or math.inf)
        norms += [float(norm)] if step % 2 == 0 or step % 5 == 0 else []
        twin.optimizer.step()
        sums = {name: value + float(twin.criterion.terms[name]) for name, value in sums.items()}
        if step % 5 == 0:
            rows.append({**{name: value / 5 for name, value in sums.items()}, 'grad_norm': sum(norms) / len(norms)})
            sums, norms = dict.fromkeys(sums, 0.0), []
    for row, expected in zip(result.history.to_dict('records'), rows):
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert row['loss'] == pytest.approx(sum(row[f'loss_{name}'] for name in ('mutated', 'vanilla', 'penalty')))
        assert row['steps_per_second'] > 0


def test_criterion_without_terms() -> None:
    history = make_trainer(criterion=lambda model, batch: EMULoss()(model, batch)).fit().history
    assert {'loss', 'grad_norm'} <= set(history) and not any(name.startswith('loss_') for name in history)


def test_record(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path).fit()
    record = json.loads((tmp_path / 'run.json').read_text())
    assert record['optimizer']['class'] == 'torch.optim.adagrad.Adagrad'
    assert record['optimizer']['options'] == {'lr': 0.1, 'lr_decay': 0, 'eps': 1e-10, 'weight_decay': 0,
                                              'initial_accumulator_value': 0, 'foreach': None, 'maximize': False,
                                              'differentiable': False, 'fused': None}
    assert record['model'] == {'class': 'pyg_emu.models.distmult.DistMult', 'parameters': 120, 'dtype': 'float32',
                               'options': {'num_nodes': 12, 'num_relations': 3, 'hidden_channels': 8, 'margin': 24.0}}
    assert record['backends']['emu_score'] in ('torch', 'numba')
    assert record['trainer']['num_steps'] == 20
    facts = {'train': facts_entry(make_data(), 'train')}
    assert record['data'] == {'num_nodes': 12, 'num_relations': 3, 'facts': facts}
    # A function has no name that is the same in each process, but a qualified one.
    make_trainer(run_dir=tmp_path, criterion=signalling(signal.SIGINT, 99)).fit(resume=False)
    assert ' at 0x' not in (tmp_path / 'run.json').read_text()


def test_less_is_better(tmp_path: Path) -> None:
    values = iter([3.0, 2.0, 2.5, 2.0])
    result = make_trainer(validate=lambda model: {'mr': next(values)}, metric='mr', run_dir=tmp_path).fit()
    assert (result.best_step, result.best_metric) == (10, 2.0)
    assert load_checkpoint(tmp_path / 'best.pt')['step'] == 10
    values = iter([3.0, 2.0, 2.5, 2.0])
    trainer = make_trainer(validate=lambda model: {'error': next(values)}, metric='error', mode='min', patience=1)
    assert trainer.fit().steps == 15


def ranked(model: torch.nn.Module) -> Metrics:
    r"""Ranks in which the fact of relation 1 gets better, and the three of relation 0 get worse, from call to call."""
    ranked.calls += 1  # type: ignore[attr-defined]
    greater = torch.tensor([ranked.calls] * 3 + [9 - ranked.calls])  # type: ignore[attr-defined]
    facts = torch.tensor([[0, 0, 1], [1, 0, 2], [3, 0, 2], [2, 1, 3]])
    return Metrics({'tail': Ranks(greater, torch.zeros(4, dtype=torch.int64), torch.full((4, ), 11))},
                   facts={'tail': facts}, by='relation')


def ranked_from(call: int, **options: Any) -> Any:
    ranked.calls = call - 1  # type: ignore[attr-defined]
    return make_trainer(validate=ranked, **options).fit()


def test_metric_of_a_group_decides(tmp_path: Path) -> None:
    # From the fourth call on, relation 1 gains more than relation 0 loses, but it has one fact of four.
    assert ranked_from(4).best_step == 5 and ranked_from(4, metric='macro.mrr').best_step == 20
    result = ranked_from(1, metric='macro.mrr', patience=2, num_steps=40, run_dir=tmp_path)
    macro = [(1 / (1 + call) + 1 / (10 - call)) / 2 for call in range(1, 4)]
    assert result.history['valid_macro.mrr'].tolist() == pytest.approx(macro)
    assert result.best_step == 5 and result.stopped_early and result.steps == 15
    assert result.best_metric == pytest.approx(macro[0]) and 'valid_macro.mrr' not in ranked_from(1).history
    assert json.loads((tmp_path / 'metrics.json').read_text())['valid']['macro.mrr'] == result.best_metric


def test_group_of_a_dictionary_decides() -> None:
    values = iter([0.1, 0.4, 0.2, 0.3])
    result = make_trainer(validate=lambda model: {'mrr': 0.5, 'macro': {'mrr': next(values)}}, metric='macro.mrr').fit()
    assert (result.best_step, result.best_metric) == (10, 0.4)
    with pytest.raises(ArgumentError, match=r"'macro\.mrr'.*mrr.*by='relation'"):
        make_trainer(metric='macro.mrr').fit()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_resume_with_another_metric(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10).fit()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"last\.pt .*'mrr', .*'hits@10'"):
        make_trainer(run_dir=RunFolder(tmp_path, files={'recipe.yaml': b'metric: hits@10'}), metric='hits@10').fit()
    assert contents(tmp_path) == before
    # Without validation, no metric is compared with the best one, and a later validation goes on with the first.
    assert make_trainer(run_dir=tmp_path, num_steps=15, validate=None).fit().best_step == 5
    with pytest.raises(CheckpointError, match=r"last\.pt .*'mrr', .*'hits@10'"):
        make_trainer(run_dir=tmp_path, metric='hits@10').fit()
    assert make_trainer(run_dir=tmp_path).fit().steps == 20


def test_resume_with_another_mode(tmp_path: Path) -> None:
    def make(mode: str, **options: Any) -> Trainer:
        return make_trainer(run_dir=tmp_path, validate=lambda model: {'error': 0.5}, metric='error', mode=mode,
                            **options)

    make('max', num_steps=10).fit()
    with pytest.raises(CheckpointError, match=r"last\.pt .*mode 'max', .*'min'"):
        make('min').fit()
    # Older checkpoints do not say.
    last = load_checkpoint(tmp_path / 'last.pt')
    fingerprint = torch.load(tmp_path / 'last.pt', weights_only=True)['fingerprint']
    del last['run']['mode']
    save_checkpoint(tmp_path / 'last.pt', last, fingerprint=fingerprint)
    assert make('min').fit().steps == 20


def test_resume_with_other_clipping(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10, max_grad_norm=1).fit()
    for other in (0.5, None):
        with pytest.raises(CheckpointError, match=rf'last\.pt .*max_grad_norm={other}, not 1\b'):
            make_trainer(run_dir=tmp_path, max_grad_norm=other).fit()
    assert make_trainer(run_dir=tmp_path, max_grad_norm=1.0, num_steps=15).fit().steps == 15
    # Older records do not say.
    record = json.loads((tmp_path / 'run.json').read_text())
    del record['trainer'], record['model']['options']
    (tmp_path / 'run.json').write_text(json.dumps(record))
    assert make_trainer(run_dir=tmp_path).fit().steps == 20


@pytest.mark.parametrize('reciprocal', [False, True])
def test_resume_with_other_options_of_the_model(tmp_path: Path, reciprocal: bool) -> None:
    def make(dtype: torch.dtype = torch.float32, **options: Any) -> Trainer:
        model: Any = TransE(12, 6, 8, **options).to(dtype)
        model = Reciprocal(model) if reciprocal else model
        data = make_data()
        loader = TripletLoader(data, batch_size=16, transform=EMUNegatives(num_negatives=4))
        return Trainer(model, EMULoss(), loader, torch.optim.SGD(model.parameters(), lr=0.1), num_steps=2,
                       run_dir=tmp_path, progress=False)

    make(sparse=True).fit()
    place = r'model\.model\.' if reciprocal else r'model\.'
    with pytest.raises(CheckpointError, match=rf'last\.pt .*{place}margin=9\.0, not 24\.0; {place}p_norm=2, not 1\)'):
        make(margin=9.0, p_norm=2).fit()
    with pytest.raises(CheckpointError, match=r"last\.pt .*model\.dtype='float64', not 'float32'"):
        make(torch.float64).fit()
    # Row-sparse or not, the steps are equal.
    assert make().fit().steps == 2


class Annealed(DistMult):
    r"""Has attributes called like arguments that change, that are no number, and that cannot be read."""
    def __init__(self, num_nodes: int, num_relations: int, hidden_channels: int, temperature: float = 1.0,
                 clip: float = math.nan, margins: float = 0.0) -> None:
        super().__init__(num_nodes, num_relations, hidden_channels)
        self.temperature, self.clip = temperature, clip

    @property
    def margins(self) -> float:
        raise RuntimeError('not yet')


def test_resume_with_other_options_of_a_model_of_ones_own(tmp_path: Path) -> None:
    def make(**options: Any) -> Trainer:
        model = Annealed(12, 6, 8, **options)
        loader = TripletLoader(make_data(), batch_size=16, transform=EMUNegatives(num_negatives=4))
        return Trainer(model, EMULoss(), loader, torch.optim.SGD(model.parameters(), lr=0.1), num_steps=2,
                       run_dir=tmp_path, progress=False)

    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        make().fit()
        make().fit()
    with pytest.warns(UserWarning, match=r'last\.pt .*model\.temperature=0\.5, not 1\.0\)') as told:
        assert make(temperature=0.5).fit().steps == 2
    assert told[0].filename == __file__


def test_fewer_steps_than_taken(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10).fit()
    with pytest.warns(UserWarning, match='num_steps: .* 10, .* 5;') as told:
        assert make_trainer(run_dir=tmp_path, num_steps=5).fit().steps == 10
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        make_trainer(run_dir=tmp_path, num_steps=10).fit()


@pytest.mark.parametrize('missing', [None, 'recipe.yaml'])
def test_call_without_a_step_leaves_the_record(tmp_path: Path, missing: Optional[str]) -> None:
    def make(num_steps: int) -> Trainer:
        folder = RunFolder(tmp_path, files={'recipe.yaml': f'num_steps: {num_steps}'.encode()})
        return make_trainer(run_dir=folder, num_steps=num_steps)

    make(10).fit()
    if missing is not None:
        (tmp_path / missing).unlink()
    before = {name: (tmp_path / name).read_bytes() for name in ('run.json', 'recipe.yaml') if name != missing}
    with pytest.warns(UserWarning, match='num_steps: .* 10, .* 5;'):
        make(5).fit()
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
    assert (tmp_path / 'recipe.yaml').exists()
    make(12).fit()
    assert json.loads((tmp_path / 'run.json').read_text())['trainer']['num_steps'] == 12
    assert (tmp_path / 'recipe.yaml').read_text() == 'num_steps: 12'


def test_resume_with_other_options_of_the_parts(tmp_path: Path) -> None:
    def make(lr: float = 0.1, alpha: float = 0.5, num_negatives: int = 4) -> Trainer:
        trainer = make_trainer(run_dir=tmp_path, criterion=EMULoss(alpha=alpha), schedule=LinearDecay())
        trainer.loader.transform = EMUNegatives(num_negatives)
        trainer.optimizer.param_groups[0]['lr'] = lr
        return trainer

    first = make()
    criterion = first.criterion
    interrupt_at(first, 13)
    (tmp_path / 'run.json').write_text((tmp_path / 'run.json').read_text().replace('interrupt_at.<locals>.failing',
                                                                                   str(criterion)))
    before = contents(tmp_path)
    changes: list[tuple[dict[str, Any], str]] = [
        ({'lr': 0.01}, r'optimizer\.lr=0\.01, not 0\.1\b'), ({'alpha': 0.9}, r'alpha=0\.9.*alpha=0\.5'),
        ({'num_negatives': 16}, 'num_negatives=16.*num_negatives=4')]
    for change, fact in changes:
        trainer = make(**change)
        for _ in range(2):
            with pytest.raises(CheckpointError, match=rf'last\.pt .*{fact}'):
                trainer.fit()
        assert contents(tmp_path) == before
    # With a learning rate that the schedule has lowered.
    first.criterion = criterion
    assert first.fit().steps == 20 and make().fit().steps == 20
    # With a recipe, its hash decides.
    make_trainer(run_dir=tmp_path / 'recipe', recipe_hash='abc', num_steps=10, criterion=EMULoss(alpha=0.5)).fit()
    assert make_trainer(run_dir=tmp_path / 'recipe', recipe_hash='abc', criterion=EMULoss(alpha=0.9)).fit().steps == 20


@pytest.mark.parametrize('change', ['schedule', 'loader', 'best.pt'])
def test_refused_run_leaves_the_folder_as_it_was(tmp_path: Path, change: str) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10).fit()
    if change == 'best.pt':
        (tmp_path / 'best.pt').unlink()
    before = contents(tmp_path)
    trainer = make_trainer(run_dir=tmp_path, schedule=LinearDecay() if change == 'schedule' else None)
    trainer.loader.batch_size = 8 if change == 'loader' else 16
    with pytest.raises(CheckpointError, match='batch_size' if change == 'loader' else change):
        trainer.fit()
    assert contents(tmp_path) == before


@pytest.mark.parametrize('recipe_hash', [None, 'abc'])
@pytest.mark.parametrize('change', ['fact', 'weights'])
def test_resume_with_other_facts(tmp_path: Path, change: str, recipe_hash: Optional[str]) -> None:
    def make(data: KGData, num_steps: int = 20) -> Trainer:
        trainer = make_trainer(run_dir=tmp_path, num_steps=num_steps, recipe_hash=recipe_hash)
        trainer.loader = TripletLoader(data, batch_size=16, shuffle=True, seed=1, transform=trainer.loader.transform)
        return trainer

    given = make_data()
    assert given.edge_index is not None and given.edge_type is not None
    weight = None if change == 'fact' else torch.ones(60)
    edge_index, order = given.edge_index.clone(), torch.arange(60).flip(0)
    data = KGData(edge_index, given.edge_type, 12, 3, edge_weight=weight)
    make(data, 10).fit()
    before = contents(tmp_path)
    if change == 'fact':
        edge_index = edge_index.clone()
        edge_index[1, 7] = (edge_index[1, 7] + 1) % 12
    other = KGData(edge_index, given.edge_type, 12, 3, edge_weight=None if weight is None else 2 * weight)
    told = '60 facts, the run had 60' if change == 'fact' else 'the same facts with other weights'
    with pytest.raises(CheckpointError, match=rf'last\.pt was trained on other facts .*\(train: {told}\); continue'):
        make(other).fit()
    assert contents(tmp_path) == before
    # Their order does not matter, and a record of an earlier version is not compared.
    if change == 'fact':
        make(KGData(given.edge_index[:, order], given.edge_type[order], 12, 3), 11).fit()
    record = json.loads((tmp_path / 'run.json').read_text())
    del record['data']['facts']
    (tmp_path / 'run.json').write_text(json.dumps(record))
    assert make(other).fit().steps == 20


# Resumption ##################################################################


class _Stop(Exception):
    pass


def interrupt_at(trainer: Trainer, step: int) -> None:
    r"""Runs until the criterion is asked for the given step, and fails there, as a crash would."""
    criterion, calls = trainer.criterion, 0

    def failing(model: torch.nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            raise _Stop
        loss = criterion(model, batch)
        failing.terms = getattr(criterion, 'terms', {})
        return loss

    failing.state_dict, failing.load_state_dict = criterion.state_dict, criterion.load_state_dict
    trainer.criterion = failing
    with pytest.raises(_Stop):
        trainer.fit()


@pytest.mark.parametrize('schedule', [None, LinearDecay, SwitchOptimizer])
@pytest.mark.parametrize('checkpoint_every', [3, 5])
@pytest.mark.parametrize('step', [2, 9, 14])
def test_resumes_bit_for_bit(tmp_path: Path, schedule: Optional[type[Schedule]], checkpoint_every: int,
                             step: int) -> None:
    def make(folder: str) -> Trainer:
        return make_trainer(run_dir=tmp_path / folder, checkpoint_every=checkpoint_every, restore_best=False,
                            schedule=None if schedule is None else schedule())

    whole = make('whole')
    expected = whole.fit()
    interrupt_at(make('cut'), step)
    resumed = make('cut')
    for value in resumed.model.parameters():
        value.data.zero_()  # nothing may depend on how the process began
    torch.manual_seed(99)
    result = resumed.fit(resume=step > checkpoint_every or 'auto')
    assert all(map(torch.equal, weights(resumed), weights(whole)))
    columns = ['step', 'loss', 'lr', 'valid_mrr']
    pd.testing.assert_frame_equal(result.history[columns], expected.history[columns], check_exact=True)
    assert (result.best_step, result.best_metric) == (expected.best_step, expected.best_metric)
    last = [load_checkpoint(tmp_path / folder / 'last.pt') for folder in ('whole', 'cut')]
    assert torch.equal(last[0]['random']['cpu'], last[1]['random']['cpu'])


def test_validates_after_given_steps(tmp_path: Path) -> None:
    def make(folder: str, steps: Any) -> Trainer:
        # No validation is better than the first, so that checkpoints are not those of a new best.
        return make_trainer(run_dir=tmp_path / folder, evaluate_every=steps, validate=lambda model: {'mrr': 0.5})

    expected = make('whole', [1, 2, 5, 11])
    history = expected.fit().history
    assert history['step'].tolist() == [1, 2, 5, 11, 20]
    interrupt_at(make('cut', (1, 2, 5, 11)), 13)
    assert load_checkpoint(tmp_path / 'cut' / 'last.pt')['step'] == 11
    resumed = make('cut', [1, 2, 5, 11])
    pd.testing.assert_frame_equal(without_times(resumed.fit().history), without_times(history), check_exact=True)
    assert all(map(torch.equal, weights(resumed), weights(expected)))
    assert make('range', range(4, 20, 8)).fit().history['step'].tolist() == [4, 12, 20]


def test_resumes_without_validation(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10).fit()
    result = make_trainer(run_dir=tmp_path, validate=None, progress=True).fit()
    assert (result.steps, result.best_step) == (20, 5) and result.history['valid_mrr'].count() == 2


def test_resume_false_starts_over(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10).fit()
    result = make_trainer(run_dir=tmp_path, num_steps=5).fit(resume=False)
    assert result.steps == 5 and pd.read_csv(tmp_path / 'history.csv')['step'].tolist() == [5]


@pytest.mark.parametrize('change', ['settings', 'damage'])
def test_overwrite_keeps_a_run_that_is_refused(tmp_path: Path, change: str) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10, schedule=LinearDecay()).fit()
    if change == 'damage':
        (tmp_path / 'last.pt').write_bytes((tmp_path / 'last.pt').read_bytes()[:-9])
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r'last\.pt'):
        make_trainer(run_dir=tmp_path, overwrite=True).fit()
    assert contents(tmp_path) == before
    assert make_trainer(run_dir=tmp_path).fit(resume=False).steps == 20


def test_resume_true_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'resume.*last\.pt'):
        make_trainer(run_dir=tmp_path).fit(resume=True)
    with pytest.raises(CheckpointError, match='resume.*run_dir'):
        make_trainer().fit(resume=True)


def test_resume_with_other_settings(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, recipe_hash='abc').fit()
    with pytest.raises(CheckpointError, match='another recipe'):
        make_trainer(run_dir=tmp_path, recipe_hash='def').fit()
    with pytest.raises(CheckpointError, match=r'last\.pt .*criterion.* loader, schedule, meter'):
        make_trainer(run_dir=tmp_path, criterion=lambda model, batch: model.node_emb.weight.sum()).fit()


def test_resume_with_another_schedule(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10, schedule=LinearDecay()).fit()
    with pytest.raises(CheckpointError, match=r'last\.pt .*LinearDecay\(end_factor=0.0\).*SwitchOptimizer\('):
        make_trainer(run_dir=tmp_path, num_steps=10, schedule=SwitchOptimizer()).fit()
    with pytest.raises(CheckpointError, match='num_steps: .* 10.* 20'):
        make_trainer(run_dir=tmp_path, num_steps=20, schedule=LinearDecay()).fit()
    make_trainer(run_dir=tmp_path / 'switch', num_steps=10, schedule=SwitchOptimizer()).fit()
    with pytest.raises(CheckpointError, match=r'last\.pt.* num_steps: .* 10.* 20'):
        make_trainer(run_dir=tmp_path / 'switch', num_steps=20, schedule=SwitchOptimizer()).fit()
    make_trainer(run_dir=tmp_path / 'constant', num_steps=10).fit()
    assert make_trainer(run_dir=tmp_path / 'constant', num_steps=20).fit().steps == 20


def test_best_step_is_that_of_its_file(tmp_path: Path) -> None:
    trainer = make_trainer(run_dir=tmp_path, evaluate_every=3, checkpoint_every=20, validate=Scripted(0.2, 0.5, 0.1))
    interrupt_at(trainer, 11)
    # Whatever is seen from here on: what best.pt holds is known to the run.
    result = make_trainer(run_dir=tmp_path, evaluate_every=10, validate=Scripted(0.3, 0.4)).fit()
    assert result.best_step == 6 and load_checkpoint(tmp_path / 'best.pt')['step'] == 6


def test_failed_validation_names_no_best_step(tmp_path: Path) -> None:
    r"""The checkpoint that a failed validation leaves must not refer to weights that were never written."""
    def failing(model: torch.nn.Module) -> dict[str, float]:
        if trainer.step == 10:
            raise ZeroDivisionError
        return {'mrr': trainer.step}

    trainer = make_trainer(run_dir=tmp_path, validate=failing)
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    state = load_checkpoint(tmp_path / 'last.pt')
    assert (state['step'], state['run']['best_step']) == (10, 5) == (10, load_checkpoint(tmp_path / 'best.pt')['step'])
    # With other numbers than before, as after other settings of the validation.
    again = make_trainer(run_dir=tmp_path, validate=lambda model: {'mrr': 0.1, 'new': 1.0})
    result = again.fit()
    assert result.best_step == 5 and load_checkpoint(tmp_path / 'best.pt')['step'] == 5
    frame = pd.read_csv(tmp_path / 'history.csv')
    assert frame['step'].tolist() == [5, 10, 15, 20] and frame['valid_new'].isna().tolist() == [True, *[False] * 3]


@pytest.mark.parametrize('name', ['best.pt', 'history.csv', 'metrics.json'])
def test_files_of_the_user_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('mine')
    for resume in ('auto', False):
        with pytest.raises(CheckpointError, match=f'{name}.*overwrite=True'):
            make_trainer(run_dir=tmp_path).fit(resume)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == 'mine'
    assert make_trainer(run_dir=tmp_path, overwrite=True).fit().steps == 20


@pytest.mark.parametrize('damage', ['missing', 'other', 'flipped', 'last'])
def test_best_weights_that_are_not_those_of_the_run(tmp_path: Path, damage: str) -> None:
    make_trainer(run_dir=tmp_path, validate=Scripted(0.2, 0.1, 0.1, 0.1)).fit()
    best, last = tmp_path / 'best.pt', tmp_path / 'last.pt'
    if damage == 'missing':
        best.unlink()
    elif damage == 'other':
        save_checkpoint(best, {**load_checkpoint(best), 'step': 6}, fingerprint={'shapes': {}, 'model': None})
    elif damage == 'flipped':
        best.write_bytes(best.read_bytes().replace(b'step', b'stop'))
    else:
        last.write_bytes(best.read_bytes())
    with pytest.raises(CheckpointError, match=r'last\.pt' if damage == 'last' else r'best\.pt'):
        make_trainer(run_dir=tmp_path).fit()


def test_two_trainers_on_one_folder(tmp_path: Path) -> None:
    def validate(model: torch.nn.Module) -> dict[str, float]:
        with pytest.raises(CheckpointError, match=f'process {os.getpid()} '):
            make_trainer(run_dir=tmp_path).fit()
        return {'mrr': 0.5}

    make_trainer(run_dir=tmp_path, validate=validate).fit()
    assert make_trainer(run_dir=tmp_path).fit().steps == 20


def test_clipping_counts_what_a_mutation_learns() -> None:
    trainer = make_trainer(max_grad_norm=1e-6, num_steps=1, validate=None)
    mutation = trainer.loader.transform.mutation = LearnedMask(8, adversarial=True)
    trainer.optimizer.add_param_group({'params': [*mutation.parameters()]})
    trainer.fit()
    groups = trainer.optimizer.param_groups
    norms = [value.grad.norm() for group in groups for value in group['params'] if value.grad is not None]
    assert len(norms) == 3 and 0 < torch.stack(norms).norm() <= 1e-6


def test_resume_with_another_optimizer(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path, num_steps=10).fit()
    trainer = make_trainer(run_dir=tmp_path)
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters())
    with pytest.raises(CheckpointError, match=r'last\.pt .*\bAdagrad\b.*\bAdam;'):
        trainer.fit()
    trainer = make_trainer(run_dir=tmp_path)
    groups = [{'params': [value]} for value in trainer.model.parameters()]
    trainer.optimizer = torch.optim.Adagrad(groups, lr=0.1)
    with pytest.raises(CheckpointError, match=r'last\.pt .*optimiser.*\(loaded state dict'):
        trainer.fit()
    # What was written before checkpoints said so is continued.
    last = load_checkpoint(tmp_path / 'last.pt')
    fingerprint = torch.load(tmp_path / 'last.pt', weights_only=True)['fingerprint']
    last.pop('optimizer_kind')
    save_checkpoint(tmp_path / 'last.pt', last, fingerprint=fingerprint)
    assert make_trainer(run_dir=tmp_path).fit(resume=True).steps == 20


# Many short steps and many checkpoints: a kill is likely to meet one of each half done.
_LONG = {'num_steps': 250, 'evaluate_every': 20, 'checkpoint_every': 7, 'restore_best': False}
_SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_trainer import make_trainer
make_trainer(run_dir=sys.argv[1], **{_LONG!r}).fit()
"""


def wait_for_step(process: subprocess.Popen[bytes], path: Path, step: int) -> None:
    while process.poll() is None:
        if path.exists() and load_checkpoint(path)['step'] >= step:  # raises if the file is not whole
            return
    pytest.fail('the run ended before it could be stopped')


def test_kill_and_resume(tmp_path: Path) -> None:
    whole = make_trainer(run_dir=tmp_path / 'whole', **_LONG)
    expected = whole.fit()
    folder = tmp_path / 'cut'
    process = subprocess.Popen([sys.executable, '-c', _SCRIPT, str(folder)], cwd=ROOT)
    wait_for_step(process, folder / 'last.pt', 30)
    process.kill()
    process.wait()
    assert 30 <= load_checkpoint(folder / 'last.pt')['step'] < 250
    resumed = make_trainer(run_dir=folder, **_LONG)
    result = resumed.fit(resume=True)
    assert all(map(torch.equal, weights(resumed), weights(whole)))
    assert result.history['valid_mrr'].tolist() == expected.history['valid_mrr'].tolist()


def signalling(number: signal.Signals, step: int) -> Callable[..., Tensor]:
    def criterion(model: torch.nn.Module, batch: Any) -> Tensor:
        if batch.step == step - 1:
            os.kill(os.getpid(), number)
        return EMULoss()(model, batch)

    return criterion


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match=rf'{number.name}: .*step 7 of 20; .*last\.pt'):
        make_trainer(criterion=signalling(number, 7), run_dir=tmp_path / 'cut').fit()
    assert signal.getsignal(number) is before
    assert load_checkpoint(tmp_path / 'cut' / 'last.pt')['step'] == 7
    criterion = signalling(number, 99)
    resumed, whole = (make_trainer(criterion=criterion, run_dir=tmp_path / name) for name in ('cut', 'whole'))
    resumed.fit()
    whole.fit()
    assert all(map(torch.equal, weights(resumed), weights(whole)))


def test_second_signal_does_not_wait() -> None:
    def criterion(model: torch.nn.Module, batch: Any) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return pytest.fail('the second signal came to nothing')

    with pytest.raises(KeyboardInterrupt):
        make_trainer(criterion=criterion).fit()


def test_signal_without_a_folder() -> None:
    with pytest.raises(TrainingInterrupted, match='step 4 of 20; .*run_dir'):
        make_trainer(criterion=signalling(signal.SIGINT, 4)).fit()


def test_trains_outside_of_the_main_thread() -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(make_trainer().fit()))
    thread.start()
    thread.join()
    assert results[0].steps == 20


# Captured steps ##############################################################


@pytest.mark.parametrize('schedule', [None, SwitchOptimizer])
def test_graphed_steps_are_the_same(monkeypatch: pytest.MonkeyPatch, schedule: Optional[type[Schedule]]) -> None:
    made = []

    def make(*args: Any, **kwargs: Any) -> GraphedStep:
        made.append(GraphedStep(*args, **kwargs, capture=False))
        return made[-1]

    monkeypatch.setattr('pyg_emu.training.trainer.GraphedStep', make)
    graphed, plain = (make_trainer(graph=graph, max_grad_norm=0.5, sampler=NSCachingSampler(4, 3),
                                   schedule=None if schedule is None else schedule()) for graph in (True, False))
    assert graphed.fit().history['loss'].tolist() == plain.fit().history['loss'].tolist()
    assert all(map(torch.equal, weights(graphed), weights(plain)))
    # One for each optimiser that was in charge.
    assert [type(step.optimizer).__name__ for step in made] == ['Adagrad', 'Adam'][:1 if schedule is None else 2]


@pytest.mark.parametrize(('before', 'after'), [(False, True), (True, False)])
def test_resumed_optimizer_computes_as_it_was_made(tmp_path: Path, before: bool, after: bool) -> None:
    r"""A run that goes on with CUDA graphs, which it began without: PyTorch restores how steps were computed, too."""
    def make(capturable: bool) -> Trainer:
        trainer = make_trainer(run_dir=tmp_path, num_steps=10 if capturable == before else 15)
        trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), lr=0.1)
        trainer.optimizer.param_groups[0]['capturable'] = capturable
        # No CPU takes a step that could be captured; what matters is what would be asked of a GPU.
        trainer.optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
        return trainer

    make(before).fit()
    resumed = make(after)
    resumed.fit(resume=True)
    assert resumed.optimizer.param_groups[0]['capturable'] is after
    options = json.loads((tmp_path / 'run.json').read_text())['optimizer']['options']
    assert (options['capturable'], options['lr']) == (after, 0.1)


@pytest.mark.parametrize('tensor_before', [False, True])
@pytest.mark.parametrize('tensor_after', [False, True])
def test_resumed_learning_rate_is_of_the_kind_it_was_made(tmp_path: Path, tensor_before: bool,
                                                          tensor_after: bool) -> None:
    def make(tensor: bool, lr: float = 0.1, **options: Any) -> Trainer:
        trainer = make_trainer(schedule=LinearDecay(), restore_best=False, **options)
        rate: Any = torch.tensor(lr, dtype=torch.float64) if tensor else lr
        trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), lr=rate)
        return trainer

    interrupt_at(make(tensor_before, run_dir=tmp_path, checkpoint_every=5), 8)
    resumed, whole = make(tensor_after, run_dir=tmp_path), make(tensor_after)
    result, expected = resumed.fit(resume=True), whole.fit()
    group = resumed.optimizer.param_groups[0]
    assert isinstance(group['lr'], Tensor) is tensor_after
    assert result.history['lr'].tolist() == pytest.approx(expected.history['lr'].tolist())
    for value, other in zip(weights(resumed), weights(whole)):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize('composed', [False, True])
def test_what_negatives_have_learned_is_resumed(tmp_path: Path, composed: bool) -> None:
    def make(num_steps: int, folder: str) -> tuple[Trainer, NSCachingSampler, LearnedMask]:
        trainer, sampler, mask = make_trainer(), NSCachingSampler(4, 3), LearnedMask(8, shared=False, num_masks=5)
        transform = EMUNegatives(4, sampler=sampler, mutation=mask)
        trainer.loader.transform = Compose([Compose([transform])]) if composed else transform
        optimizer = torch.optim.Adagrad([*trainer.model.parameters(), *mask.parameters()], lr=0.1)
        return Trainer(trainer.model, trainer.criterion, trainer.loader, optimizer, num_steps=num_steps, progress=False,
                       run_dir=tmp_path / folder), sampler, mask

    whole, sampler, mask = make(12, 'whole')
    whole.fit()
    make(7, 'cut')[0].fit()
    resumed, own_sampler, own_mask = make(12, 'cut')
    with torch.no_grad():
        own_mask.logits.add_(1.0)  # nothing may depend on how it began
    resumed.fit(resume=True)
    for value, other in zip(weights(resumed), weights(whole)):
        assert value.equal(other)
    assert own_mask.logits.equal(mask.logits) and not mask.logits.equal(LearnedMask(8).logits)
    state, own_state = sampler.state_dict(), own_sampler.state_dict()
    assert state['seen'] == own_state['seen'] > 100 and state['caches'].equal(own_state['caches'])


def test_what_cannot_be_graphed(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match='GraphedStep: .* CUDA .* cpu'):
        make_trainer(graph=True, run_dir=tmp_path / 'run').fit()
    assert not (tmp_path / 'run').exists()
    with pytest.raises(ArgumentError, match='graph: LinearDecay'):
        make_trainer(graph=True, schedule=LinearDecay()).fit()
    trainer = make_trainer(graph=True)
    changing = EMUNegatives(4, LinearSchedule(0.1, 0.2, 5))
    for transform in (changing, Compose([changing])):
        trainer.loader.transform = transform
        with pytest.raises(ArgumentError, match='^mutation: .*BernoulliMask'):
            trainer.fit()


@pytest.mark.gpu
@pytest.mark.parametrize('schedule', [None, SwitchOptimizer])
def test_trains_by_graphs(tmp_path: Path, schedule: Optional[type[Schedule]]) -> None:
    def make(graph: bool, folder: str) -> Trainer:
        return make_trainer(graph=graph, device='cuda', num_steps=40, run_dir=tmp_path / folder, restore_best=False,
                            schedule=None if schedule is None else schedule())

    graphed, plain = make(True, 'graphed').fit(), make(False, 'plain').fit()
    assert graphed.history['loss'].tolist() == pytest.approx(plain.history['loss'].tolist(), rel=1e-4)
    interrupt_at(make(True, 'cut'), 3)  # while warming up: what is captured is not run again in Python
    resumed = make(True, 'cut').fit(resume=True)
    assert resumed.history['loss'].tolist() == pytest.approx(plain.history['loss'].tolist(), rel=1e-4)


# What goes wrong #############################################################


@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('once', [False, True])
def test_divergence_names_the_step_and_keeps_the_checkpoint(tmp_path: Path, bad: float, once: bool) -> None:
    with pytest.raises(DivergenceError, match=r'NaN .*step 13; .*last\.pt; .*rate'):
        make_trainer(run_dir=tmp_path, criterion=Spoil(13, bad, once), log_every=4).fit()
    state = load_checkpoint(tmp_path / 'last.pt')
    assert state['step'] == 10
    assert all(bool(value.isfinite().all()) for value in state['model'].values())
    # The step is named correctly when counting began in the middle, too.
    with pytest.raises(DivergenceError, match='at step 16'):
        make_trainer(run_dir=tmp_path, criterion=Spoil(6, bad, once)).fit(resume=True)


def test_infinite_gradient_of_a_finite_loss(tmp_path: Path) -> None:
    def criterion(model: torch.nn.Module, batch: Any) -> Tensor:
        loss = EMULoss()(model, batch)
        # The gradient of a square root at zero.
        return loss + (model.rel_emb.weight[0, 0] * 0.0).abs().sqrt() if batch.step == 9 else loss

    with pytest.raises(DivergenceError, match='rel_emb.weight .*NaN .*step 10'):
        make_trainer(run_dir=tmp_path, criterion=criterion).fit()
    assert load_checkpoint(tmp_path / 'last.pt')['step'] == 5


def test_nan_metric() -> None:
    with pytest.raises(DivergenceError, match='mrr .*NaN .*step 5'):
        make_trainer(validate=lambda model: {'mrr': math.nan}).fit()


def test_missing_metric() -> None:
    with pytest.raises(ArgumentError, match="'auc'.*mrr, hits@10"):
        make_trainer(metric='auc', mode='max').fit()


@pytest.mark.parametrize('fault', ['metric', 'validate'])
@pytest.mark.parametrize('evaluate_every', [5, 20])
def test_failed_validation_loses_no_step(tmp_path: Path, fault: str, evaluate_every: int) -> None:
    def make(folder: str, **kwargs: Any) -> Trainer:
        return make_trainer(run_dir=tmp_path / folder, evaluate_every=evaluate_every, checkpoint_every=3, **kwargs)

    def broken(model: torch.nn.Module) -> dict[str, float]:
        raise ZeroDivisionError

    expected = make('whole')
    history = expected.fit().history
    trainer = make('cut', **({'metric': 'auc', 'mode': 'max'} if fault == 'metric' else {'validate': broken}))
    with pytest.raises((ArgumentError, ZeroDivisionError)) as caught:
        trainer.fit()
    assert f'step {evaluate_every} is kept in {tmp_path / "cut" / "last.pt"}' in caught.value.__notes__[0]
    mended = make('cut')
    result = mended.fit()
    pd.testing.assert_frame_equal(without_times(result.history), without_times(history), check_exact=True)
    assert all(map(torch.equal, weights(mended), weights(expected)))
    # What was made up for is in the checkpoint as well.
    assert make('cut').fit().history['step'].tolist() == history['step'].tolist()


def test_loss_that_is_no_scalar() -> None:
    with pytest.raises(ArgumentError, match=r'^criterion: .*\(12, 8\)'):
        make_trainer(criterion=lambda model, batch: model.node_emb.weight).fit()


@pytest.mark.parametrize('loss, message', [
    (lambda model, batch: 0.5, '^criterion: .*tensor.* float$'),
    (lambda model, batch: EMULoss()(model, batch).detach(), r'^criterion: .*gradient.*detach\(\)'),
])
def test_loss_that_nothing_can_be_learned_from(loss: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_trainer(criterion=loss).fit()


@pytest.mark.parametrize('found', [0.5, None, [0.5]])
def test_validation_that_returns_no_metrics(found: Any) -> None:
    with pytest.raises(ArgumentError, match=f'^validate: .* {type(found).__name__}$'):
        make_trainer(validate=lambda model: found).fit()


def test_unwritable_folder_is_found_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    spoil = Spoil(1, math.nan)
    with pytest.raises(CheckpointError, match='file/run .*Not a directory'):
        make_trainer(run_dir=tmp_path / 'file' / 'run', criterion=spoil).fit()
    assert spoil.calls == 0


def test_truncated_checkpoint(tmp_path: Path) -> None:
    make_trainer(run_dir=tmp_path).fit()
    path = tmp_path / 'last.pt'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r'last\.pt .*damaged'):
        make_trainer(run_dir=tmp_path).fit()


@pytest.mark.parametrize('options, message', [
    ({'num_steps': 0}, 'num_steps: .* 0'),
    ({'num_steps': True}, 'num_steps: .* True'),
    ({'run_dir': 3}, 'run_dir: .* 3$'),
    ({'max_grad_norm': '1'}, "max_grad_norm: .* '1'"),
    ({'evaluate_every': 2.5}, 'evaluate_every: .* 2.5'),
    ({'evaluate_every': '5'}, "evaluate_every: .* '5'"),
    ({'evaluate_every': []}, r'evaluate_every: .* \[\]'),
    ({'evaluate_every': [1, 0]}, r'evaluate_every\[1\]: .* 0'),
    ({'evaluate_every': [1, 3, 2]}, 'evaluate_every: .* 3 before 2'),
    ({'evaluate_every': [2, 2]}, 'evaluate_every: .* 2 before 2'),
    ({'evaluate_every': [2, 21]}, r'evaluate_every\[1\]: step 21 .* num_steps=20'),
    ({'patience': -1}, 'patience: .* -1'),
    ({'patience': 2, 'validate': None}, 'patience.*validate'),
    ({'max_grad_norm': math.nan}, 'max_grad_norm: .* nan'),
    ({'max_seconds': 0}, 'max_seconds: .* 0'),
    ({'tensorboard': True}, 'tensorboard.*run_dir'),
    ({'overwrite': True, 'run_dir': RunFolder('runs')}, r'overwrite: .*RunFolder\(path, overwrite=True\).*runs'),
    ({'metric': 'hits@10', 'validate': None}, "metric: .*validate.*'hits@10'"),
    ({'name': 3.5}, 'name: .* 3.5'),
    ({'recipe_hash': 3.5}, 'recipe_hash: .* 3.5'),
    ({'run_dir': ''}, "run_dir: .* ''"),
    ({'metric': 'auc'}, "^metric: .*'auc'.*'max'.*'min'"),
    ({'metric': 3}, 'metric: .* 3'),
    ({'metric': 'mr', 'mode': 'max'}, "mode: .*'min'.* mr .*'max'"),
    ({'mode': 'up'}, "mode: .*'max'.*'min'.* 'up'"),
    ({'loggers': [print]}, r'loggers\[0\]: .*start.*log.*close'),
    ({'loggers': 5}, 'loggers: .* 5$'),
])
def test_arguments_outside_of_their_domain(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_trainer(**options)


class _Endless:
    def batches(self) -> Any:
        return iter(())


@pytest.mark.parametrize('part, value, message', [
    ('model', 'DistMult', '^model: .*Module.* str$'),
    ('model', DistMult, '^model: .*Module.*class DistMult$'),
    ('model', EMULoss(), '^model: .*parameters.*EMULoss'),
    ('criterion', None, r'^criterion: .* NoneType$'),
    ('criterion', EMULoss, '^criterion: .*class EMULoss$'),
    ('loader', [1, 2], r'^loader: .*TripletLoader.* batches\(\).* list$'),
    ('loader', _Endless(), '^loader: .* _Endless$'),
    ('loader', TripletLoader, '^loader: .*class TripletLoader$'),
    ('optimizer', torch.optim.Adam, '^optimizer: .*Optimizer.*class Adam$'),
    ('optimizer', torch.optim.SGD([torch.zeros(1)], 0.1), '^optimizer: .*parameters of DistMult'),
    ('schedule', 'linear', "^schedule: .*'linear'"),
    ('validate', 0.5, '^validate: .* 0.5$'),
])
def test_objects_of_the_wrong_kind(part: str, value: Any, message: str) -> None:
    trainer = make_trainer()
    parts: dict[str, Any] = {name: getattr(trainer, name) for name in ('model', 'criterion', 'loader', 'optimizer')}
    with pytest.raises(ArgumentError, match=message):
        Trainer(**{**parts, part: value}, num_steps=1)


def test_unknown_resume() -> None:
    with pytest.raises(ArgumentError, match="'auto'.* 'yes'"):
        make_trainer().fit(resume='yes')  # type: ignore[arg-type]


def test_sparse_gradients(tmp_path: Path) -> None:
    result = make_trainer(sparse=True, schedule=SwitchOptimizer(sparse=True), run_dir=tmp_path).fit()
    assert result.steps == 20


class WithTerms(EMULoss):
    r"""A criterion whose terms are plain numbers, one of them under the name of the loss."""
    def forward(self, model: Any, batch: Any) -> Tensor:
        loss = super().forward(model, batch)
        self.terms: Any = {'loss': loss.detach() * 0, 'kl': 0.5, 'count': np.int64(3)}
        return loss


def test_terms_of_a_criterion_may_be_numbers_and_do_not_replace_the_loss() -> None:
    plain, termed = make_trainer().fit().history, make_trainer(criterion=WithTerms()).fit().history
    assert termed['loss'].tolist() == plain['loss'].tolist()
    assert set(termed['kl']) == {0.5} and set(termed['count']) == {3.0}


def test_arguments_of_numpy(tmp_path: Path) -> None:
    def fit(folder: str, count: Callable[[int], Any]) -> Any:
        numbers: Any = {'num_steps': count(6), 'evaluate_every': count(2), 'patience': count(9), 'log_every': count(2),
                        'checkpoint_every': count(3)}
        trainer = make_trainer(run_dir=tmp_path / folder, **numbers)
        result = trainer.fit()
        assert type(trainer.num_steps) is int and type(trainer.evaluate_every) is int
        return result.history.drop(columns=['seconds', 'steps_per_second'])

    assert fit('numpy', np.int64).equals(fit('python', int))
    steps: Any = np.array([1, 3])
    assert make_trainer(num_steps=4, evaluate_every=steps).fit().history['step'].tolist() == [1, 3, 4]


def test_validation_may_return_numbers_of_other_libraries() -> None:
    result = make_trainer(metric='auc', mode='max', validate=lambda model: {
        'auc': torch.tensor(0.5), 'mrr': np.float32(0.25)}).fit()
    assert result.best_metric == 0.5 and set(result.history['valid_mrr']) == {0.25}


def test_refuses_optimizers_whose_steps_need_a_closure() -> None:
    trainer = make_trainer()
    with pytest.raises(ArgumentError, match=r'^optimizer: .* got LBFGS, whose step\(\) needs closure'):
        Trainer(trainer.model, trainer.criterion, trainer.loader, torch.optim.LBFGS(trainer.model.parameters()),
                num_steps=1)
