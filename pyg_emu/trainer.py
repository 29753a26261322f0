r"""The training loop: steps, validation, early stopping, checkpoints that survive a kill, and resumption."""
from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal, Mapping, Optional, Union

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm.auto import tqdm

from pyg_emu.adapters import as_scorer
from pyg_emu.checkpoint import load_checkpoint, load_weights, model_fingerprint, save_checkpoint
from pyg_emu.errors import ArgumentError, CheckpointError, DivergenceError
from pyg_emu.history import History
from pyg_emu.interrupt import StopRequest, TrainingInterrupted
from pyg_emu.runfolder import RunFolder, versions
from pyg_emu.sampling import BaseSampler
from pyg_emu.schedules import Constant, Schedule
from pyg_emu.stability import LossMeter, clip_gradients, nonfinite_weights

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainResult:
    r"""What :meth:`Trainer.fit` returns.

    Args:
        steps (int): Steps taken, those before a resumption included.
        best_step (int, optional): The step with the best validation, or :obj:`None` where there was none.
        best_metric (float, optional): The watched metric at that step.
        metrics (dict): All numbers of that validation.
        history (pandas.DataFrame): One row per evaluation: step, seconds, loss, learning rate, validation.
        seconds (float): Time spent in training steps, without validation and checkpoints.
        stopped_early (bool): Whether patience ran out before the steps did.
        run_dir (Path, optional): The run folder.
    """
    steps: int
    best_step: Optional[int]
    best_metric: Optional[float]
    metrics: dict[str, float]
    history: pd.DataFrame = field(repr=False)
    seconds: float
    stopped_early: bool
    run_dir: Optional[Path] = None


@dataclass
class _Progress:
    r"""The plain numbers of a run that a checkpoint carries beside the tensors."""
    step: int = 0
    seconds: float = 0.0
    best_step: Optional[int] = None
    best_metric: Optional[float] = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    #: Evaluations since the best one.
    stale: int = 0


class Trainer:
    r"""Trains a model, step by step.

    A step reads one batch, lets the sampler learn from the model (:meth:`~pyg_emu.contract.Sampler.update`), and
    descends on :obj:`criterion(model, batch)`. Nothing in a step waits for the device: losses are summed up there and
    read at every :obj:`log_every`-th step.

    A run folder receives :obj:`last.pt`, from which a run continues, on CPU bit for bit, :obj:`best.pt`,
    :obj:`history.csv`, :obj:`metrics.json` and :obj:`versions.json`. SIGINT and SIGTERM finish the step, write the
    checkpoint and raise :class:`~pyg_emu.interrupt.TrainingInterrupted`; after a SIGKILL the last checkpoint is whole.

    Args:
        model (torch.nn.Module): The model.
        criterion (callable): :obj:`criterion(model, batch)` returns the scalar loss.
        loader (TripletLoader): Offers :obj:`batches()`, without end, :obj:`state_dict()` and :obj:`load_state_dict()`.
        optimizer (torch.optim.Optimizer): The optimiser.
        num_steps (int): Steps to take.
        schedule (Schedule, optional): See :mod:`pyg_emu.schedules`. (default: :class:`~pyg_emu.schedules.Constant`)
        validate (callable, optional): :obj:`validate(model)` returns :class:`~pyg_emu.metrics.Metrics` or a dictionary.
            It runs without gradients, the model in evaluation mode. (default: :obj:`None`)
        metric (str, optional): The validation metric that decides which step is best; more is better.
            (default: :obj:`"mrr"`)
        evaluate_every (int, optional): Steps between validations, and between rows of the history. The last step is
            always evaluated. (default: :obj:`500`)
        patience (int, optional): Stop after this many validations in a row that brought no new best.
            (default: :obj:`None`)
        restore_best (bool, optional): Whether the model ends with the weights of its best validation.
            (default: :obj:`True`)
        run_dir (str or Path, optional): The run folder. (default: :obj:`None`)
        checkpoint_every (int, optional): Steps between checkpoints. (default: :obj:`evaluate_every`)
        max_grad_norm (float, optional): Clip the norm of all gradients to this. (default: :obj:`None`)
        log_every (int, optional): Steps between looks at the loss: for the progress bar, and for NaN.
            (default: :obj:`50`)
        tensorboard (bool, optional): Whether to write the history for TensorBoard as well. (default: :obj:`False`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        name (str, optional): Stands before the progress bar. (default: :obj:`"train"`)
        recipe_hash (str, optional): Marks the checkpoints, so that a run cannot be continued with other settings.
            (default: :obj:`None`)
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], loader: Any, optimizer: Optimizer, *,
                 num_steps: int, schedule: Optional[Schedule] = None,
                 validate: Optional[Callable[[torch.nn.Module], Any]] = None, metric: str = 'mrr',
                 evaluate_every: int = 500, patience: Optional[int] = None, restore_best: bool = True,
                 run_dir: Optional[Union[str, Path]] = None, checkpoint_every: Optional[int] = None,
                 max_grad_norm: Optional[float] = None, log_every: int = 50, tensorboard: bool = False,
                 progress: bool = True, name: str = 'train', recipe_hash: Optional[str] = None):
        checkpoint_every = evaluate_every if checkpoint_every is None else checkpoint_every
        for argument, value in (('num_steps', num_steps), ('evaluate_every', evaluate_every), ('patience', patience),
                                ('checkpoint_every', checkpoint_every), ('log_every', log_every)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ArgumentError(f'{argument} must be a positive integer, got {value!r}')
        if max_grad_norm is not None and not max_grad_norm > 0.0:
            raise ArgumentError(f'max_grad_norm must be positive, got {max_grad_norm}')
        if patience is not None and validate is None:
            raise ArgumentError('patience counts validations without a new best, so it needs validate; got None')
        if tensorboard and run_dir is None:
            raise ArgumentError('tensorboard=True writes into the run folder; give run_dir')
        self.model = model
        self.criterion = criterion
        self.loader = loader
        self.optimizer = optimizer
        self.num_steps = num_steps
        self.schedule = schedule if schedule is not None else Constant()
        self.validate = validate
        self.metric = metric
        self.evaluate_every = evaluate_every
        self.patience = patience
        self.restore_best = restore_best
        self.folder = None if run_dir is None else RunFolder(run_dir)
        self.checkpoint_every = checkpoint_every
        self.max_grad_norm = max_grad_norm
        self.log_every = log_every
        self.tensorboard = tensorboard
        self.progress = progress
        self.name = name
        self._fingerprint = model_fingerprint(model, recipe_hash)
        self._run = _Progress()

    @property
    def step(self) -> int:
        r"""Steps taken, those before a resumption included."""
        return self._run.step

    def fit(self, resume: Union[bool, Literal['auto']] = 'auto') -> TrainResult:
        r"""Trains until the steps are done or patience runs out.

        Args:
            resume (bool or str, optional): :obj:`True` continues the run in :obj:`run_dir`, :obj:`False` starts over
                and removes what an earlier run left there, :obj:`"auto"` continues where there is something to
                continue. (default: :obj:`"auto"`)

        Raises:
            DivergenceError: If the loss or a weight becomes NaN or infinite. The last checkpoint before is kept.
            CheckpointError: If :obj:`run_dir` cannot be written to or holds a checkpoint of something else.
            TrainingInterrupted: On SIGINT or SIGTERM, after a checkpoint was written.
        """
        self._start(resume)
        writer = self._writer()
        bar = tqdm(total=self.num_steps, initial=self._run.step, desc=self.name, unit='step', disable=not self.progress,
                   mininterval=0.2 if sys.stderr.isatty() else 10.0)
        try:
            with StopRequest() as request:
                self._loop(request, bar, writer)
        finally:
            bar.close()
            if writer is not None:
                writer.close()
        return self._finish()

    def _start(self, resume: Union[bool, Literal['auto']]) -> None:
        if resume not in (True, False, 'auto'):
            raise ArgumentError(f"resume must be True, False or 'auto', got {resume!r}")
        if resume is True and (self.folder is None or not self.folder.last.exists()):
            where = 'no run_dir was given' if self.folder is None else f'there is no {self.folder.last}'
            raise CheckpointError(f"cannot resume: {where}. Give the folder of an interrupted run, or resume='auto'")
        self._run = _Progress()
        self._best_weights: Optional[dict[str, Tensor]] = None
        self._device = next(self.model.parameters()).device
        self._meter = LossMeter(self._device)
        self._update_sampler = self._sampler_hook()
        self.schedule.start(self.optimizer, self.num_steps)
        self.history = History(None if self.folder is None else self.folder.history)
        if self.folder is not None:
            parameter_bytes = sum(value.nbytes for value in self.model.parameters())
            # A checkpoint holds the weights and up to two moments of each; while it is being replaced there are two.
            self.folder.prepare(needed=4 * parameter_bytes)
            if resume is not False and self.folder.last.exists():
                self._restore(load_checkpoint(self.folder.last, expected=self._fingerprint))
            else:
                self.folder.clear()
                self._save()
            self.folder.write_json(self.folder.versions, versions(str(self._device)))
        self._first_step = self._run.step

    def _loop(self, request: StopRequest, bar: Any, writer: Any) -> None:
        run = self._run
        if self._done():
            return
        self.model.train()
        batches = iter(self.loader.batches())
        clock = time.perf_counter()
        while not self._done():
            self._step(next(batches))
            run.step += 1
            bar.update()
            evaluation = run.step % self.evaluate_every == 0 or run.step == self.num_steps
            checkpoint = run.step % self.checkpoint_every == 0 or run.step == self.num_steps
            stop = request.signal is not None
            if not (evaluation or checkpoint or stop or run.step % self.log_every == 0):
                continue
            loss = self._read_loss()
            if evaluation or checkpoint or stop:
                self._check_weights()
                run.seconds += time.perf_counter() - clock
                if evaluation:
                    self._evaluate(loss, writer)
                # A stop for want of patience is an end as well, and the last step is always saved.
                if checkpoint or stop or self._done():
                    self._save()
                if stop:
                    raise TrainingInterrupted(self._interruption(request))
                clock = time.perf_counter()
            self._show(bar, loss)

    def _step(self, batch: Any) -> None:
        if self._update_sampler is not None:
            self._update_sampler(batch)
        optimizer = self.schedule.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss = self.criterion(self.model, batch)
        if loss.dim() != 0:
            raise ArgumentError(f'criterion must return a scalar loss, got a tensor of shape {tuple(loss.shape)}')
        loss.backward()
        if self.max_grad_norm is not None:
            clip_gradients(self.model, self.max_grad_norm)
        optimizer.step()
        self.schedule.step()
        self._meter.add(loss)

    def _evaluate(self, loss: float, writer: Any) -> None:
        run = self._run
        row: dict[str, float] = {'step': run.step, 'seconds': round(run.seconds, 3), 'loss': loss,
                                 'lr': float(self.schedule.optimizer.param_groups[0]['lr'])}
        self._meter.reset()
        improved = False
        if self.validate is not None:
            self.model.eval()
            with torch.no_grad():
                metrics = _numbers(self.validate(self.model))
            self.model.train()
            row |= {f'valid_{key}': value for key, value in metrics.items()}
            improved = self._judge(metrics)
        self.history.append(row)
        if writer is not None:
            for key, value in row.items():
                if key != 'step':
                    writer.add_scalar(key, value, run.step)
            writer.flush()
        if improved:
            self._keep_best()
        if self.folder is not None:
            self.folder.write_json(self.folder.metrics, {
                'steps': run.step, 'seconds': run.seconds, 'best_step': run.best_step, 'valid': run.best_metrics})

    def _judge(self, metrics: dict[str, float]) -> bool:
        if self.metric not in metrics:
            raise ArgumentError(f'validate returned no {self.metric!r}, which is to decide on the best step; it '
                                f'returned {", ".join(metrics) or "nothing"}')
        run, value = self._run, metrics[self.metric]
        if math.isnan(value):
            raise DivergenceError(f'the validation {self.metric} is NaN at step {run.step}; {self._kept()}')
        if run.best_metric is not None and value <= run.best_metric:
            run.stale += 1
            return False
        run.best_step, run.best_metric, run.best_metrics, run.stale = run.step, value, metrics, 0
        return True

    def _done(self) -> bool:
        return self._run.step >= self.num_steps or self._stopped_early()

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
        return TrainResult(run.step, run.best_step, run.best_metric, dict(run.best_metrics), self.history.frame(),
                           run.seconds, self._stopped_early(), None if self.folder is None else self.folder.path)

    def _parts(self) -> dict[str, Any]:
        r"""Everything that learns or draws beside the model and the optimiser, and can be saved."""
        transform = getattr(self.loader, 'transform', None)
        parts = {'loader': self.loader, 'schedule': self.schedule, 'criterion': self.criterion, 'meter': self._meter,
                 'transform': transform, 'sampler': getattr(transform, 'sampler', None),
                 'mutation': getattr(transform, 'mutation', None)}
        return {name: part for name, part in parts.items()
                if hasattr(part, 'state_dict') and hasattr(part, 'load_state_dict')}

    def _save(self) -> None:
        if self.folder is None:
            return
        random = {'cpu': torch.get_rng_state()}
        if self._device.type == 'cuda':
            random['cuda'] = torch.cuda.get_rng_state(self._device)
        state = {'step': self._run.step, 'run': asdict(self._run), 'random': random, 'model': self.model.state_dict(),
                 'optimizer': self.schedule.optimizer.state_dict(),
                 'parts': {name: part.state_dict() for name, part in self._parts().items()}}
        save_checkpoint(self.folder.last, state, fingerprint=self._fingerprint)

    def _restore(self, state: Mapping[str, Any]) -> None:
        assert self.folder is not None
        self._run = _Progress(**state['run'])
        self.model.load_state_dict(state['model'])
        parts = self._parts()
        if set(parts) != set(state['parts']):
            raise CheckpointError(f'{self.folder.last} holds the state of {", ".join(state["parts"])}, but this run is '
                                  f'made of {", ".join(parts)}; continue with the objects it was started with')
        for name, part in parts.items():
            part.load_state_dict(state['parts'][name])
        # After the schedule, which may have put another optimiser in charge.
        self.schedule.optimizer.load_state_dict(state['optimizer'])
        torch.set_rng_state(state['random']['cpu'])
        if self._device.type == 'cuda' and 'cuda' in state['random']:
            torch.cuda.set_rng_state(state['random']['cuda'], self._device)
        self.history.resume(self._run.step)

    def _keep_best(self) -> None:
        if self.folder is not None:
            state = {'step': self._run.step, 'model': self.model.state_dict(), 'metrics': self._run.best_metrics}
            save_checkpoint(self.folder.best, state, fingerprint=self._fingerprint)
        elif self.restore_best:
            self._best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}

    def _read_loss(self) -> float:
        r"""The mean loss since the last row of the history. Waits for the device."""
        mean, finite_steps = self._meter.read()
        good = self._first_step + finite_steps
        if good < self._run.step:
            raise DivergenceError(f'the loss became NaN or infinite at step {good + 1}; {self._kept()}')
        return mean

    def _check_weights(self) -> None:
        # A finite loss can still have had an infinite gradient; such weights must reach neither a ranking nor a file.
        names = nonfinite_weights(self.model)
        if names:
            raise DivergenceError(f'the weights {", ".join(names)} became NaN or infinite by step {self._run.step}; '
                                  f'{self._kept()}')

    def _kept(self) -> str:
        rate = self.schedule.optimizer.param_groups[0]['lr']
        advice = f'lower the learning rate (now {float(rate):g}) or set max_grad_norm'
        if self.folder is None:
            return advice
        return f'the last good checkpoint is kept in {self.folder.last}; {advice}'

    def _interruption(self, request: StopRequest) -> str:
        done = f'{request.signal}: stopped after step {self._run.step} of {self.num_steps}'
        if self.folder is None:
            return f'{done}; nothing was saved, since no run folder was given'
        return f'{done}; saved {self.folder.last}, from which the same command continues'

    def _show(self, bar: Any, loss: float) -> None:
        shown = {'loss': f'{loss:.4f}'}
        if self._run.best_metric is not None:
            shown[self.metric] = f'{self.history.rows[-1][f"valid_{self.metric}"]:.4f}'
            shown['best'] = f'{self._run.best_metric:.4f}'
        bar.set_postfix(shown, refresh=False)

    def _writer(self) -> Any:
        if not self.tensorboard or self.folder is None:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ArgumentError('tensorboard=True needs the package tensorboard: pip install tensorboard') from error
        return SummaryWriter(str(self.folder.tensorboard), purge_step=self._run.step + 1)

    def _sampler_hook(self) -> Optional[Callable[[Any], None]]:
        r"""The sampler's :obj:`update`, bound to the model, or :obj:`None` if the sampler does not learn."""
        sampler: Any = getattr(getattr(self.loader, 'transform', None), 'sampler', None)
        if not _learns(sampler):
            return None
        scorer = as_scorer(self.model)
        return lambda batch: sampler.update(batch, scorer)


def _numbers(metrics: Any) -> dict[str, float]:
    r"""The plain numbers among metrics; breakdowns stay behind."""
    found = metrics if isinstance(metrics, Mapping) else metrics.to_dict()
    return {str(key): float(value) for key, value in found.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)}


def _learns(sampler: Any) -> bool:
    r"""Whether a sampler overrides :obj:`update`; most inherit one that does nothing."""
    return hasattr(sampler, 'update') and getattr(type(sampler), 'update', None) is not BaseSampler.update
