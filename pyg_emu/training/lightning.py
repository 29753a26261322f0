r"""Training by Lightning, beside :class:`~pyg_emu.Trainer`. Importing this module requires the package :obj:`lightning`
(extra :obj:`lightning`); no other module imports it.
"""
from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.batch import Batch
from pyg_emu.evaluation.metrics import plain_numbers
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.stability import scalars
from pyg_emu.training.step import check_loss, check_parts

try:
    from lightning.pytorch import LightningModule
except ImportError as missing:
    raise ArgumentError("lightning: this module needs the package lightning, which is not installed; run pip install "
                        "'pyg_emu[lightning]'") from missing


class LinkPredictionModule(LightningModule):
    r"""A model, its criterion, loader and optimiser as a :class:`lightning.pytorch.LightningModule`.

    The first four arguments are those of :class:`~pyg_emu.Trainer`, and the steps are the same. Lightning's trainer
    replaces :class:`~pyg_emu.Trainer`: its devices, precision, callbacks, loggers and checkpoints apply.

    .. code-block:: python

        module = LinkPredictionModule(model, criterion, loader, optimizer,
                                      validate=lambda model: evaluate(model, data, split='valid'),
                                      test=lambda model: evaluate(model, data, split='test'))
        trainer = lightning.pytorch.Trainer(max_epochs=50, callbacks=[EarlyStopping('valid_mrr', mode='max')])
        trainer.fit(module)
        trainer.test(module)

    An epoch is one pass over :obj:`loader`. The logged values are :obj:`loss`, the terms of the criterion and of the
    parts that learn beside the model (:class:`~pyg_emu.LearningPart`), and the metrics of :obj:`validate` and
    :obj:`test` with the prefixes :obj:`valid_` and :obj:`test_`. Checkpoints hold the position of the loader, the
    states of the parts and those of PyTorch's random number generators, so that
    :obj:`trainer.fit(module, ckpt_path=...)` continues with the next batch and the same random numbers.

    Override :meth:`configure_optimizers` to add a learning rate scheduler of PyTorch. For several processes, use
    :obj:`torchrun` with :class:`~pyg_emu.Trainer`: each process would train on all facts here.

    Args:
        model (torch.nn.Module): The model.
        criterion (callable): :obj:`criterion(model, batch)` returns the scalar loss.
        loader (TripletLoader): Yields the batches of an epoch.
        optimizer (torch.optim.Optimizer): The optimiser.
        validate (callable, optional): :obj:`validate(model)` returns :class:`~pyg_emu.evaluation.Metrics` or a
            dictionary. It runs when Lightning validates. (default: :obj:`None`)
        test (callable, optional): The same for :obj:`trainer.test`. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is out of its domain.
        CheckpointError: When fitting, if a checkpoint holds the states of other parts.
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], loader: Any, optimizer: Optimizer, *,
                 validate: Optional[Callable[[torch.nn.Module], Any]] = None,
                 test: Optional[Callable[[torch.nn.Module], Any]] = None) -> None:
        super().__init__()
        check_parts(model, criterion, loader, optimizer)
        for name, function in (('validate', validate), ('test', test)):
            if function is not None and (isinstance(function, type) or not callable(function)):
                raise ArgumentError(f'{name}: expected a function of the model that returns metrics, got {function!r}')
        self.model = model
        self.criterion = criterion
        self.loader = loader
        self.optimizer = optimizer
        self._functions = {'valid': validate, 'test': test}
        self._learning: Optional[LearningParts] = None
        #: Those of a checkpoint, until the parts begin.
        self._states: Optional[Mapping[str, Any]] = None
        self._random: Mapping[str, Tensor] = {}
        #: The last batch, until the parts have learned from its scores.
        self._pending: Optional[Batch] = None

    def train_dataloader(self) -> Any:
        r"""The loader."""
        return self.loader

    def val_dataloader(self) -> Any:
        r"""One item, for which :obj:`validate` is called, or none."""
        return _Once(self._functions['valid'] is not None)

    def test_dataloader(self) -> Any:
        r"""One item, for which :obj:`test` is called, or none."""
        return _Once(self._functions['test'] is not None)

    def configure_optimizers(self) -> Any:
        r"""The optimiser."""
        return self.optimizer

    def on_fit_start(self) -> None:
        r"""Lets the parts begin that learn beside the model.

        Raises:
            ArgumentError: If there are several processes, or a part has an optimiser of its own.
        """
        if self.trainer.world_size > 1:
            raise ArgumentError(f'trainer: expected one process, got {self.trainer.world_size}; several need torchrun '
                                'and pyg_emu.Trainer')
        learning = LearningParts(self.loader, self.model, self.criterion)
        learning.start(self.optimizer)
        if learning.optimizers:
            names = ', '.join(learning.optimizers)
            raise ArgumentError(f'loader: {names} has an optimiser of its own, which Lightning does not step; expected '
                                'parts without make_optimizer(), or pyg_emu.Trainer')
        states = learning.states()
        if self._states is not None:
            if set(states) != set(self._states):
                raise CheckpointError('ckpt_path: the checkpoint contains the state of '
                                      f'{", ".join(self._states) or "no part"}, but this module has '
                                      f'{", ".join(states) or "none"}; continue with the same objects as before')
            for name, part in states.items():
                part.load_state_dict(self._states[name])
        self._learning, self._states, self._pending = learning, None, None

    def on_train_start(self) -> None:
        r"""Continues with the random numbers of the checkpoint."""
        # Not before: Lightning and the parts may draw while they begin.
        random, self._random = self._random, {}
        if random:
            torch.set_rng_state(random['cpu'])
        if 'cuda' in random and self.device.type == 'cuda':
            torch.cuda.set_rng_state(random['cuda'], self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        r"""Computes and logs the loss of a batch."""
        assert self._learning is not None
        self._learning.update(batch)
        loss = self.criterion(self.model, batch)
        check_loss(loss)
        size = batch.head_index.numel()
        self.log('loss', loss.detach(), prog_bar=True, batch_size=size)
        terms = scalars(getattr(self.criterion, 'terms', None), loss) | scalars(self._learning.terms(), loss)
        self.log_dict(terms, batch_size=size)
        self._pending = batch
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        r"""Lets the parts learn from the scores of the batch."""
        self._observe()

    def _observe(self) -> None:
        batch, self._pending = self._pending, None
        if batch is not None:
            assert self._learning is not None
            self._learning.observe(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        r"""Logs the result of :obj:`validate`."""
        self._evaluate('valid')

    def test_step(self, batch: Any, batch_idx: int) -> None:
        r"""Logs the result of :obj:`test`."""
        self._evaluate('test')

    def _evaluate(self, split: str) -> None:
        function = self._functions[split]
        assert function is not None
        metrics = plain_numbers(function(self.model))
        self.log_dict({f'{split}_{name}': value for name, value in metrics.items()}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        r"""Adds the states of the parts and of the random number generators. Lightning itself adds that of the
        loader.
        """
        if self._learning is None:
            return
        self._observe()  # Callbacks, which save checkpoints, come before on_train_batch_end() of the module.
        random = {'cpu': torch.get_rng_state()}
        if self.device.type == 'cuda':
            random['cuda'] = torch.cuda.get_rng_state(self.device)
        checkpoint['pyg_emu'] = {name: part.state_dict() for name, part in self._learning.states().items()}
        checkpoint['pyg_emu_random'] = random

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        r"""Keeps these states until the parts begin."""
        self._states = checkpoint.get('pyg_emu')
        self._random = checkpoint.get('pyg_emu_random', {})


class _Once:
    r"""A loader of one item, or of none."""
    def __init__(self, some: bool) -> None:
        self.some = some

    def __len__(self) -> int:
        return int(self.some)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))
