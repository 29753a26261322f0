r"""The training loop: steps, validation, early stopping, checkpoints and resumption."""
from __future__ import annotations

import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Literal, Mapping, Optional, Sequence, Union
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm.auto import tqdm

from pyg_emu.core.arguments import boolean, instance, is_number, positive_integer, positive_integers, positive_number
from pyg_emu.core.distributed import any_process, check_joined, current, on_first, same_random_state
from pyg_emu.core.errors import ArgumentError, CheckpointError, DivergenceError, ProcessError
from pyg_emu.core.mapped_table import copied
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.metrics import metric_mode, plain_numbers
from pyg_emu.models.mapped import mapped_tables
from pyg_emu.models.sharded import sharded_tables
from pyg_emu.training.checkpoint import load_checkpoint, load_weights, model_fingerprint, save_checkpoint
from pyg_emu.training.data_parallel import DataParallelLoss
from pyg_emu.training.graphed_step import GraphedStep, check_run
from pyg_emu.training.history import History, read_csv
from pyg_emu.training.interrupt import StopRequest, TrainingInterrupted
from pyg_emu.training.loggers import CSVLogger, Logger, RunInfo, TensorBoardLogger, check_loggers
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.run_folder import RunFolder, read_json, versions
from pyg_emu.training.run_record import (
    changed_facts,
    changed_options,
    changed_parts,
    describe_facts,
    describe_run,
    used_backends,
)
from pyg_emu.training.run_state import Progress, RunState, TrainResult
from pyg_emu.training.schedules import Constant, Schedule
from pyg_emu.training.stability import LossMeter, drifted_weights, nonfinite_weights, scalars
from pyg_emu.training.step import PlainStep, check_closure, check_mapped, check_parts
from pyg_emu.training.tables import TABLES, read_tables, remove_tables, tables_of, write_tables

#: The graphs whose report has been shown, by id: they have no hash.
_shown: WeakValueDictionary[int, KGData] = WeakValueDictionary()


class Trainer:
    r"""Trains a model, step by step.

    A step reads one batch, minimises :obj:`criterion(model, batch)`, and trains the parts that learn beside the model
    (:class:`~pyg_emu.LearningPart`), such as a cache of negatives or a learned mask. No step waits for the device: the
    loss and its terms (:obj:`criterion.terms`, a dictionary of detached scalars, if the criterion has it), and those of
    the parts, are summed on the device and read at every :obj:`log_every`-th step.

    A run folder receives :obj:`last.pt`, from which a run continues (bit for bit on a CPU), :obj:`best.pt`,
    :obj:`history.csv`, :obj:`metrics.json`, :obj:`versions.json` and :obj:`run.json`. The folder is locked while the
    run writes to it. A kill or an error at any moment leaves files from which the same call continues to the same
    result, see :mod:`pyg_emu.training.run_folder`. SIGINT and SIGTERM finish the step, write the checkpoint and raise
    :class:`~pyg_emu.training.TrainingInterrupted`. If :obj:`validate` fails, the checkpoint is written before the
    exception is raised, and the same call continues with this validation.

    Inside of :func:`~pyg_emu.process_group`, the processes that :obj:`torchrun` has started divide
    each batch's rows among themselves, and take the steps that a single one would take. All are created with the same
    arguments; the first one writes. A validation runs in all of them, so that
    :func:`~pyg_emu.evaluate` can be divided, too. With a model of :func:`~pyg_emu.models.shard_entities`, they divide
    the entities instead of the batch's rows, and each writes its own into checkpoints. A model of
    :func:`~pyg_emu.map_entities` is trained in memory-mapped files, and checkpoints hold copies of them.

    .. code-block:: python

        trainer = Trainer(model, criterion, loader, optimizer, num_steps=10_000, run_dir='runs/mine',
                          validate=lambda model: evaluate(model, data, split='valid'), patience=5)
        result = trainer.fit()  # after a kill, the same call continues from runs/mine

    Args:
        model (torch.nn.Module): The model.
        criterion (callable): :obj:`criterion(model, batch)` returns the scalar loss.
        loader (TripletLoader): Has :obj:`batches()`, without end, :obj:`state_dict()` and :obj:`load_state_dict()`.
        optimizer (torch.optim.Optimizer): The optimiser.
        num_steps (int): Steps to take.
        schedule (Schedule, optional): See :mod:`pyg_emu.training.schedules`.
            (default: :class:`~pyg_emu.training.schedules.Constant`)
        validate (callable, optional): :obj:`validate(model)` returns :class:`~pyg_emu.evaluation.metrics.Metrics` or a
            dictionary. It runs without gradients, the model in evaluation mode. (default: :obj:`None`)
        metric (str, optional): The validation metric that decides which step is best: any metric of
            :class:`~pyg_emu.evaluation.Metrics`, such as :obj:`"tail.mrr"`, or :obj:`"macro.mrr"` of
            :obj:`evaluate(..., by="relation")`. Only beside :obj:`validate`. (default: :obj:`"mrr"`)
        mode (str, optional): Whether more (:obj:`"max"`) or less (:obj:`"min"`) of the metric is better. Needed for
            metrics that are not in :obj:`pyg_emu.evaluation.metrics.DIRECTIONS`. (default: :obj:`None`)
        evaluate_every (int or sequence of int, optional): Steps between validations, and between rows of the history;
            or the steps to validate after, in increasing order, such as :obj:`[10, 100, 1000]`. The last step is
            always evaluated. (default: :obj:`500`)
        patience (int, optional): Stop after this many validations in a row without a new best value of :obj:`metric`.
            (default: :obj:`None`)
        max_seconds (float, optional): Stop after this many seconds of training steps, as :attr:`TrainResult.seconds
            <pyg_emu.training.run_state.TrainResult>` counts them: without validations and checkpoints, but including
            those before a resumption. The last step is evaluated like any other last step. Schedules that depend on
            :obj:`num_steps` do not take this limit into account. On a GPU, the time is checked when the loss is read,
            see :obj:`log_every`. (default: :obj:`None`)
        restore_best (bool, optional): Whether the model ends with the weights of its best validation.
            (default: :obj:`True`)
        run_dir (str, Path or RunFolder, optional): The run folder. If it holds a run of more than :obj:`num_steps`
            steps, a warning is raised, and the result is that of the run. (default: :obj:`None`)
        overwrite (bool, optional): Whether a new run may replace files in the run folder that stand in its way: those
            of the user, and those of a run whose :obj:`last.pt` is missing or whose :obj:`run.json` is damaged. A run
            with other settings or a damaged :obj:`last.pt` is replaced by :obj:`fit(resume=False)` instead. A
            :class:`~pyg_emu.training.run_folder.RunFolder` has an :obj:`overwrite` of its own.
            (default: :obj:`False`)
        checkpoint_every (int, optional): Steps between checkpoints in :obj:`run_dir`; a new best is kept as well.
            (default: as :obj:`evaluate_every`)
        max_grad_norm (float, optional): Clip the norm of all gradients that :obj:`optimizer` uses to this, and that of
            each part with an optimizer of its own. (default: :obj:`None`)
        log_every (int, optional): Steps between readings of the loss, for the progress bar and to detect NaN, and
            between measurements of the gradient norm. (default: :obj:`50`)
        graph (bool, optional): Whether steps are captured as CUDA graphs, see
            :class:`~pyg_emu.training.GraphedStep`. (default: :obj:`False`)
        tensorboard (bool, optional): Whether to write the history for TensorBoard, too. (default: :obj:`False`)
        loggers (list, optional): Further receivers of the history's rows, see :class:`~pyg_emu.training.Logger`.
            (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar, where a run in :obj:`run_dir` continues and, once for
            each graph, the summary of its report. (default: :obj:`True`)
        name (str, optional): The label of the progress bar. (default: :obj:`"train"`)
        recipe_hash (str, optional): Marks the checkpoints, so that a run cannot be continued with other settings.
            Without it, the options of the model, the optimiser, the loss and the negatives, and :obj:`max_grad_norm`
            are compared as :obj:`run.json` describes them. Attributes of a model class of your own may change during
            training; if they differ, a warning is raised. The arguments and facts of the loader, the schedule, and
            :obj:`metric` with its :obj:`mode` are compared in any case. All others may be changed, since they do not
            decide the weights of a step. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is out of its domain; in :meth:`fit`, if the schedule does not go with the
            optimiser.
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], loader: Any, optimizer: Optimizer, *,
                 num_steps: int, schedule: Optional[Schedule] = None,
                 validate: Optional[Callable[[torch.nn.Module], Any]] = None, metric: str = 'mrr',
                 mode: Optional[Literal['max', 'min']] = None,
                 evaluate_every: Union[int, Sequence[int]] = 500, patience: Optional[int] = None,
                 max_seconds: Optional[float] = None, restore_best: bool = True,
                 run_dir: Optional[Union[str, Path, RunFolder]] = None, overwrite: bool = False,
                 checkpoint_every: Optional[int] = None, max_grad_norm: Optional[float] = None, log_every: int = 50,
                 graph: bool = False,
                 tensorboard: bool = False, loggers: Optional[Iterable[Logger]] = None, progress: bool = True,
                 name: str = 'train', recipe_hash: Optional[str] = None):
        check_parts(model, criterion, loader, optimizer)
        check_closure(optimizer)
        if schedule is not None and not isinstance(schedule, Schedule):
            raise ArgumentError(f'schedule: expected one of pyg_emu.training.schedules, such as LinearDecay(), '
                                f'got {schedule!r}')
        mode = metric_mode(metric, mode)
        if validate is None and metric != 'mrr':
            raise ArgumentError(f'metric: expected validate, too, whose results it judges; got metric={metric!r} and '
                                'validate=None')
        instance('name', name, str)
        if recipe_hash is not None:
            instance('recipe_hash', recipe_hash, str)
        if validate is not None and (isinstance(validate, type) or not callable(validate)):
            raise ArgumentError(f'validate: expected a function of the model that returns metrics, got {validate!r}')
        for argument, flag in (('restore_best', restore_best), ('overwrite', overwrite), ('graph', graph),
                               ('tensorboard', tensorboard), ('progress', progress)):
            boolean(argument, flag)
        num_steps, log_every = positive_integer('num_steps', num_steps), positive_integer('log_every', log_every)
        patience, checkpoint_every = (None if value is None else positive_integer(argument, value) for argument, value
                                      in (('patience', patience), ('checkpoint_every', checkpoint_every)))
        evaluate_every = _validation_steps(evaluate_every, num_steps)
        if max_grad_norm is not None:
            positive_number('max_grad_norm', max_grad_norm)
        if max_seconds is not None and not (is_number(max_seconds) and max_seconds > 0.0):
            raise ArgumentError(f'max_seconds: expected a positive number, got {max_seconds!r}')
        check_mapped(model, optimizer, graph)
        if overwrite and isinstance(run_dir, RunFolder):
            raise ArgumentError('overwrite: expected the path of a folder as run_dir, or RunFolder(path, '
                                f'overwrite=True), got run_dir={run_dir!r}')
        folder = run_dir if run_dir is None or isinstance(run_dir, RunFolder) else RunFolder(run_dir, overwrite)
        if patience is not None and validate is None:
            raise ArgumentError('patience: expected validate, too, whose results it counts; got '
                                'validate=None')
        if tensorboard and folder is None:
            raise ArgumentError('tensorboard=True: expected run_dir, the folder of its events, got None')
        loggers = check_loggers(() if loggers is None else loggers)
        if tensorboard and folder is not None:
            loggers.insert(0, TensorBoardLogger(folder.tensorboard))
        self.model = model
        self.criterion = criterion
        self.loader = loader
        self.optimizer = optimizer
        self.num_steps = num_steps
        self.schedule = schedule if schedule is not None else Constant()
        self.validate = validate
        self.metric = metric
        self.mode = mode
        self.evaluate_every = evaluate_every
        self.patience = patience
        self.max_seconds = max_seconds
        self.restore_best = restore_best
        self.folder = folder
        self.loggers = loggers
        self.checkpoint_every = evaluate_every if checkpoint_every is None else checkpoint_every
        self.max_grad_norm = max_grad_norm
        self.log_every = log_every
        self.graph = graph
        self.progress = progress
        self.name = name
        self._fingerprint = model_fingerprint(model, recipe_hash)
        self._run = Progress()
        # Once: what has trained the run goes on with it, and a schedule may have changed the optimiser since.
        self._compares = recipe_hash is None
        self._divided = any(True for _ in sharded_tables(model))
        self._mapped = any(True for _ in mapped_tables(model))
        self._best_tables: Optional[str] = None

    @property
    def step(self) -> int:
        r"""Steps taken, those before a resumption included."""
        return self._run.step

    def fit(self, resume: Union[bool, Literal['auto']] = 'auto') -> TrainResult:
        r"""Trains until all steps are taken, or until patience or time runs out.

        Args:
            resume (bool or str, optional): :obj:`True` continues the run in :obj:`run_dir`, :obj:`False` starts over
                and removes the files of an earlier run, :obj:`"auto"` continues if there is something to continue.
                (default: :obj:`"auto"`)

        Raises:
            DivergenceError: If the loss or a weight becomes NaN or infinite. The last checkpoint before is kept.
            ProcessError: If processes that divide the entities hold different relations.
            CheckpointError: If :obj:`run_dir` cannot be written to, is in use by another process, or holds a run that
                was made of other parts or trained on other facts, or files of the user.
            TrainingInterrupted: On SIGINT or SIGTERM, after a checkpoint was written.
            ArgumentError: If :obj:`torchrun` has started several processes that have not joined, or that draw
                different random numbers.
            BackendError: If steps cannot be captured on this device.
        """
        if not isinstance(resume, bool) and not (isinstance(resume, str) and resume == 'auto'):
            raise ArgumentError(f"resume: expected True, False or 'auto', got {resume!r}")
        check_joined()
        if self._mapped and current()[1] > 1:
            raise ArgumentError('model: its entity rows are in memory-mapped files, which belong to one process; '
                                f'divide them among {current()[1]} processes with shard_entities, not map_entities')
        if self.graph:
            check_run(LearningParts(self.loader, self.model, self.criterion), self.schedule, self.optimizer)
        if self.folder is None:
            return self._fit(resume)
        with self.folder.held():
            return self._fit(resume)

    def _fit(self, resume: Union[bool, Literal['auto']]) -> TrainResult:
        self._start(resume)
        first = current()[0] == 0
        data = getattr(self.loader, 'data', None)
        if self.progress and first and isinstance(data, KGData) and _shown.get(id(data)) is not data:
            _shown[id(data)] = data
            print(data.report().summary(), file=sys.stderr, flush=True)
        if self.progress and first and self._resumed:
            print(self._going_on(), file=sys.stderr, flush=True)
        bar = tqdm(total=self.num_steps, initial=self._run.step, desc=self.name, unit='step',
                   disable=not (self.progress and first), mininterval=0.2 if sys.stderr.isatty() else 10.0)
        failed = True  # sys.exc_info() would also tell of an exception that is being handled around fit().
        try:
            on_first(self._start_loggers)
            with StopRequest() as request:
                self._loop(request, bar)
            failed = False
        finally:
            bar.close()
            # Processes that average gradients hang on to the model's parameters.
            del self._take, self._loss
            self._close_loggers(failed)
        return self._finish()

    def _start(self, resume: Union[bool, Literal['auto']]) -> None:
        self._best_weights: Optional[dict[str, Tensor]] = None
        self._device = next(self.model.parameters()).device
        self._meter = LossMeter(self._device)
        self._record = self._describe()
        self.schedule.start(self.optimizer, self.num_steps)
        self.history = History()
        self._learning = LearningParts(self.loader, self.model, self.criterion)
        self._learning.start(self.optimizer)
        self._state = RunState(self.model, self.schedule, self.loader, self._meter, self.history, self._learning)
        self._run = self._state.progress
        self._run.metric, self._run.mode = self.metric, self.mode
        self._started: list[Logger] = []
        self._is_late = self._resumed = False
        self._loss = self.criterion
        # Processes that divide the entities compute the same loss of the whole batch.
        if current()[1] > 1 and not self._divided:
            self._learning.check_processes()
            self._loss = DataParallelLoss(self.model, self.criterion, self._learning.parameters())
        self._take = self._make_step()
        if self.folder is None:
            if resume is True:
                raise CheckpointError("resume=True: expected run_dir, the folder of an interrupted run, got None; pass "
                                      "run_dir, or resume='auto'")
        else:
            folder, device = self.folder, str(self._device)
            folder.has_tables = self._divided or self._mapped
            self._resumed = on_first(lambda: self._open(resume))
            if self._resumed:
                state = load_checkpoint(folder.last, expected=self._fingerprint)
                self._load(read_tables(state, folder.tables, self.model))
                if self._run.best_step is not None and folder.tables.is_dir():
                    self._best_tables = tables_of(load_checkpoint(folder.best))
                # Last: a run that is refused leaves the folder as it was. The same goes for one that is complete, whose
                # settings are those of the steps that were taken.
                self._is_late = self._spent(0.0)
                on_first(lambda: folder.describe(self._record, only_missing=self._done()))
            else:
                # First: run.json tells the files of the run from those of the user.
                on_first(lambda: folder.describe(self._record))
                state = self._captured()
                on_first(lambda: self._save(state))
            on_first(lambda: folder.write_json(folder.versions, versions(device)))
        self._compares = False
        self._first_step = self._run.step

    def _open(self, resume: Union[bool, Literal['auto']]) -> bool:
        r"""Makes the run folder ready, and returns whether there is a run in it to be continued."""
        assert self.folder is not None
        parameter_bytes = sum(value.numel() * value.element_size() for value in self.model.state_dict().values())
        # A checkpoint holds the weights and up to two moments of each; while it is being replaced there are two.
        return self.folder.open(resume, needed=4 * parameter_bytes)

    def _load(self, state: Mapping[str, Any]) -> None:
        r"""Continues from a checkpoint, and brings the other files into agreement with it."""
        assert self.folder is not None
        folder = self.folder
        # First, because the state replaces the options of the optimiser.
        recorded = on_first(lambda: read_json(folder.record))
        if changed := changed_facts(recorded, self._record):
            raise CheckpointError(f'{folder.last} was trained on other facts than those of the loader '
                                  f'({"; ".join(changed)}); continue with the same facts, or choose another run folder')
        recorded = recorded if self._compares else None
        if changed := changed_parts(recorded, self._record):
            raise CheckpointError(f'{folder.last} was started with other parts than those of this run '
                                  f'({"; ".join(changed)}); continue with the same parts, or start over')
        if changed := changed_options(recorded, self._record):
            warn(f'{folder.last} was started with a model of other options ({"; ".join(changed)})')
        self._state.load_state_dict(state, folder.last)
        run = self._run = self._state.progress
        if self.validate is not None:  # Without it, nothing is compared with what was best.
            for name, before, now in (('metric', run.metric, self.metric), ('mode', run.mode, self.mode)):
                if run.best_step is not None and before not in (None, now):
                    raise CheckpointError(f'{folder.last} was started with the {name} {before!r}, but this run has '
                                          f'{now!r}; continue with the same {name}, or start over')
            run.metric, run.mode = self.metric, self.mode
        if 'history' not in state and folder.history.exists():  # begun by an older version
            self.history.replace(row for row in on_first(lambda: read_csv(folder.history)) if row['step'] <= run.step)
        on_first(lambda: folder.settle(run.best_step, run.best_digest, run.reported, len(self.history) > 0))
        if run.step > self.num_steps and current()[0] == 0:
            warn(f'num_steps: expected at least {run.step}, the steps that the run in {folder.path} has taken '
                 f'already, got {self.num_steps}; no step is taken, and the result is that of the whole run. '
                 'Choose another run folder, or start over with resume=False')

    def _going_on(self) -> str:
        r"""Says where a run in the folder goes on, or that there is nothing left to do."""
        assert self.folder is not None
        path, step = self.folder.path, self._run.step
        if self._validation_due():
            return f'{path}: continues with the validation of step {step} of {self.num_steps}'
        if not self._done():
            return f'{path}: continues after step {step} of {self.num_steps}'
        found = f'complete after {step} steps'
        if step < self.num_steps:
            cause = f'patience={self.patience}' if self._stopped_early() else f'max_seconds={self.max_seconds:g}'
            found = f'stopped after step {step} of {self.num_steps} by {cause}'
        return f'{path}: {found}; nothing to train (--fresh or resume=False starts over)'

    def _describe(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in (
            'num_steps', 'metric', 'mode', 'evaluate_every', 'checkpoint_every', 'patience', 'max_seconds',
            'restore_best', 'max_grad_norm', 'log_every', 'graph')}
        settings |= {name: list(value) for name, value in settings.items() if isinstance(value, Sequence) and
                     not isinstance(value, str)}
        # Facts matter where a run may be resumed. One process sorts them for all.
        facts = None if self.folder is None else on_first(lambda: describe_facts(self.loader))
        record = describe_run(self.model, self.criterion, self.loader, self.optimizer, self.schedule, settings, facts)
        return {**record, 'processes': current()[1], **({'shard': 'entities'} if self._divided else {}),
                **({'storage': 'mmap'} if self._mapped else {})}

    def _start_loggers(self) -> None:
        run = RunInfo(self.name, None if self.folder is None else self.folder.path, self._run.step, self.num_steps,
                      tuple(self.history.rows), self._record)
        own = [] if self.folder is None else [CSVLogger(self.folder.history)]
        for logger in (*own, *self.loggers):
            self._started.append(logger)
            logger.start(run)

    def _close_loggers(self, failed: bool) -> None:
        for logger in self._started:
            if failed and callable(fail := getattr(logger, 'fail', None)):
                fail()
            logger.close()
        self._started = []

    def _loop(self, request: StopRequest, bar: Any) -> None:
        run = self._run
        if on_first(self._validation_due):
            due, better = self._evaluate_or_keep(self._read_loss())
            self._store(due, better, True)
        if self._done():
            return
        self.model.train()
        batches = iter(self.loader.batches())
        clock, measuring = time.perf_counter(), False
        while not self._done():
            self._step(next(batches))
            run.step += 1
            bar.update()
            evaluation, checkpoint = self._due(self.evaluate_every), self._due(self.checkpoint_every)
            measure = evaluation or run.step % self.log_every == 0
            look = measure or checkpoint
            # On a CPU, asking the other processes takes no time beside a step.
            asking = look or self._device.type == 'cpu' or current()[1] == 1
            stop = asking and any_process(request.signal is not None)
            if asking and self.max_seconds is not None and any_process(self._spent(time.perf_counter() - clock)):
                self._is_late = evaluation = look = True
            # At steps that do not depend on when the run was stopped, so that a resumed one has the same mean.
            measuring = measuring or measure
            norm = self._take.gradient_norm() if measuring else None
            if norm is not None:
                self._meter.add_norm(norm)
                measuring = False
            if not (look or stop):
                continue
            means = self._read_loss()
            if evaluation or checkpoint or stop:
                self._check_weights()
                run.seconds += time.perf_counter() - clock
                row: Optional[dict[str, float]] = None
                improved = False
                if evaluation:
                    row, improved = self._evaluate_or_keep(means)
                # A stop for want of patience is an end as well, and the last step is always saved; so is the best one,
                # since what is resumed from before it would not know best.pt.
                save = checkpoint or stop or self._done() or improved
                self._store(row, improved, save)
                if stop:
                    raise TrainingInterrupted(self._interruption(request))
                clock = time.perf_counter()
            self._show(bar, means['loss'])

    def _step(self, batch: Any) -> None:
        self._learning.update(batch)
        if self._take.optimizer is not self.schedule.optimizer:
            self._take = self._make_step()
        loss = self._take(batch)
        self._learning.observe(batch)
        self._meter.add(loss, {**self._take.terms, **scalars(self._learning.terms(), loss)})
        self.schedule.step()

    def _make_step(self) -> PlainStep:
        check_mapped(self.model, self.schedule.optimizer, self.graph)  # a schedule may have made another one
        if self.graph:
            return GraphedStep(self.model, self._loss, self.schedule.optimizer, max_grad_norm=self.max_grad_norm)
        return PlainStep(self.model, self._loss, self.schedule.optimizer, max_grad_norm=self.max_grad_norm,
                         others=self._learning.optimizers.values())

    def _validation_due(self) -> bool:
        r"""Whether the run stopped because its last validation failed."""
        step, rows = self._run.step, self.history.rows
        due = self._due(self.evaluate_every) or self._is_late
        return step > 0 and due and (not rows or rows[-1]['step'] < step)

    def _due(self, every: Union[int, Sequence[int]]) -> bool:
        step = self._run.step
        return step == self.num_steps or (step % every == 0 if isinstance(every, int) else step in every)

    def _evaluate_or_keep(self, means: Mapping[str, float]) -> tuple[dict[str, float], bool]:
        try:
            metrics = self._validated()
        except DivergenceError:
            raise  # what has diverged is not worth keeping
        except Exception as error:
            # Not by way of on_first: the other processes may be past the validation. For the same reason, nothing is
            # kept of entities that are divided among them.
            if self.folder is not None and current()[0] == 0 and not self._divided:
                self._save(self._captured())
                error.add_note(f'step {self._run.step} is kept in {self.folder.last}; the same command continues with '
                               'its validation')
            raise
        return self._evaluated(means, metrics)

    def _validated(self) -> Optional[dict[str, float]]:
        r"""The numbers of a validation. What fails here leaves the run as it was before."""
        if self.validate is None:
            return None
        self.model.eval()
        with torch.no_grad():
            found = plain_numbers(self.validate(self.model), self.metric)
        self.model.train()
        # One opinion, also where a validation draws: all processes must go on, or stop, together.
        metrics = on_first(lambda: found)
        if self.metric not in metrics:
            hint = "; evaluate(..., by='relation') returns it" if self.metric.startswith('macro.') else ''
            raise ArgumentError(f'metric: validate returned no {self.metric!r}, which decides which step is best; it '
                                f'returned {", ".join(metrics) or "nothing"}{hint}')
        if math.isnan(metrics[self.metric]):
            raise DivergenceError(f'the validation {self.metric} is NaN at step {self._run.step}; {self._kept()}')
        return metrics

    def _evaluated(self, means: Mapping[str, float], metrics: Optional[dict[str, float]]
                   ) -> tuple[dict[str, float], bool]:
        r"""Records an evaluation; returns its row, and whether it is the best so far."""
        run = self._run
        steps, seconds = run.step - run.reported.get('steps', 0), run.seconds - run.reported.get('seconds', 0.0)
        row: dict[str, float] = {'step': run.step, 'seconds': round(run.seconds, 3), 'loss': means['loss'],
                                 'lr': float(self.schedule.optimizer.param_groups[0]['lr'])}
        improved = False
        if metrics is not None:
            row |= {f'valid_{key}': value for key, value in metrics.items()}
            improved = run.judge(metrics[self.metric], metrics, self.mode)
        row |= {name: value for name, value in means.items() if name not in row}
        row['steps_per_second'] = round(steps / max(seconds, 1e-9), 3)
        run.reported = {'steps': run.step, 'seconds': run.seconds, 'best_step': run.best_step,
                        'valid': dict(run.best_metrics)}
        self.history.append(row)
        self._meter.reset()
        if improved and self.restore_best and self.folder is None:
            self._best_weights = {name: copied(value) for name, value in self.model.state_dict().items()}
        return row, improved

    def _store(self, row: Optional[Mapping[str, float]], improved: bool, save: bool) -> None:
        r"""Writes a checkpoint and a row."""
        state = self._captured() if save and self.folder is not None else None
        on_first(partial(self._write, row, improved, state))

    def _captured(self) -> dict[str, Any]:
        r"""The state of the run. Entity rows that are divided among processes, or in memory-mapped files, are written
        to files of their own; those that are divided, by all processes.
        """
        assert self.folder is not None
        return write_tables(self._state.state_dict(), self.folder.tables, self._run.step)

    def _write(self, row: Optional[Mapping[str, float]], improved: bool, state: Optional[dict[str, Any]]) -> None:
        r"""Writes a checkpoint and a row, in the order that :mod:`pyg_emu.training.run_folder` explains."""
        run, folder = self._run, self.folder
        if folder is not None and state is not None:
            if improved:
                best = {'step': run.step, 'model': state['model'], 'metrics': run.best_metrics}
                best |= {TABLES: state[TABLES]} if TABLES in state else {}
                run.best_digest = save_checkpoint(folder.staged, best, fingerprint=self._fingerprint)
                state['run']['best_digest'] = run.best_digest
                self._best_tables = tables_of(state)
            backends = used_backends()
            if self._record.get('backends') != backends:
                self._record['backends'] = backends
                folder.update_record({'backends': backends})
            self._save(state)
            if improved:
                folder.promote()
            remove_tables(folder.tables, keep=(tables_of(state), self._best_tables))
        if row is None:
            return
        for logger in self._started:
            logger.log(run.step, row)
        if folder is not None:
            folder.write_json(folder.metrics, run.reported)

    def _done(self) -> bool:
        return self._run.step >= self.num_steps or self._stopped_early() or self._is_late

    def _spent(self, more: float) -> bool:
        r"""Whether the time is over, :obj:`more` seconds after what is counted so far."""
        return self.max_seconds is not None and self._run.seconds + more >= self.max_seconds

    def _stopped_early(self) -> bool:
        return self.patience is not None and self._run.stale >= self.patience

    def _finish(self) -> TrainResult:
        run = self._run
        if self.restore_best and run.best_step is not None:
            if self.folder is not None:
                load_weights(self.folder.best, self.model)
            elif self._best_weights is not None:
                self.model.load_state_dict(self._best_weights)
        self.model.eval()
        self.history.replace(on_first(lambda: self.history.rows))
        return TrainResult(run.step, run.best_step, run.best_metric, dict(run.best_metrics), self.history.frame(),
                           run.seconds, self._stopped_early(), None if self.folder is None else self.folder.path)

    def _save(self, state: Mapping[str, Any]) -> None:
        assert self.folder is not None
        save_checkpoint(self.folder.last, state, fingerprint=self._fingerprint)

    def _read_loss(self) -> dict[str, float]:
        r"""The means since the last row of the history. Waits for the device."""
        means, finite_steps = self._meter.read()
        good = self._first_step + finite_steps
        if good < self._run.step:
            raise DivergenceError(f'the loss became NaN or infinite at step {good + 1}; {self._kept()}')
        if not same_random_state(getattr(self.loader, 'generator', None)):
            raise ArgumentError(f'loader: the processes drew different random numbers by step {self._run.step} and no '
                                'longer train on the same batches; give their loaders the same seed, and draw for '
                                'batch.whole in losses and mutations')
        return means

    def _check_weights(self) -> None:
        # A finite loss can still have had an infinite gradient; such weights must reach neither a ranking nor a file.
        names = nonfinite_weights(self.model)
        if names:
            raise DivergenceError(f'the weights {", ".join(names)} became NaN or infinite by step {self._run.step}; '
                                  f'{self._kept()}')
        # Gradients of what all processes hold are equal only if all of them round alike.
        drifted = drifted_weights(self.model) if self._divided else []
        if drifted:
            raise ProcessError(f'the weights {", ".join(drifted)} differ between the processes by step '
                               f'{self._run.step}; start all of them on machines of one kind, with equal versions of '
                               'PyTorch and numbers of threads')

    def _kept(self) -> str:
        rate = self.schedule.optimizer.param_groups[0]['lr']
        advice = f'lower the learning rate (now {float(rate):g}) or set max_grad_norm'
        if self.folder is None:
            return advice
        return f'the last good checkpoint is kept in {self.folder.last}; {advice}'

    def _interruption(self, request: StopRequest) -> str:
        done = f'{request.signal or "another process"}: stopped after step {self._run.step} of {self.num_steps}'
        if self.folder is None:
            return f'{done}; nothing was saved, since no run_dir was given; the model holds the weights of this step'
        return f'{done}; saved {self.folder.last}, from which the same command continues'

    def _show(self, bar: Any, loss: float) -> None:
        if bar.disable:
            return
        shown = {'loss': f'{loss:.4f}'}
        if self._run.best_metric is not None:
            # Not each row has it: a validated run may be resumed without validation.
            name = f'valid_{self.metric}'
            last = next((row[name] for row in reversed(self.history.rows) if name in row), None)
            shown |= {} if last is None else {self.metric: f'{last:.4f}'}
            shown['best'] = f'{self._run.best_metric:.4f}'
        bar.set_postfix(shown, refresh=False)


def _validation_steps(every: Any, num_steps: int) -> Union[int, list[int]]:
    r"""Checks the steps between validations, or the steps to validate after."""
    if isinstance(every, str) or not isinstance(every, Sequence) and getattr(every, 'ndim', 0) == 0:
        return positive_integer('evaluate_every', every)
    steps = positive_integers('evaluate_every', every)
    for index, step in enumerate(steps):
        if index > 0 and step <= steps[index - 1]:
            raise ArgumentError(f'evaluate_every: expected increasing steps, got {steps[index - 1]} before {step}')
        if step > num_steps:
            raise ArgumentError(f'evaluate_every[{index}]: step {step} comes after the last one, num_steps={num_steps}')
    return steps
