r"""A whole training step as one CUDA graph.

On a fast GPU, the dozens of small kernels of a step take less time than the host needs to launch them. A CUDA graph
launches them all at once.
"""
from __future__ import annotations

import copy
from typing import Any, Callable, Hashable, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.negatives.transform import negatives_of
from pyg_emu.training.step import PlainStep


class GraphedStep(PlainStep):
    r"""Takes training steps, captured in CUDA graphs and replayed: drawing negatives and masks, scoring, the loss, its
    gradients and the optimiser, with one launch by the host.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True)
        step = GraphedStep(model, EMULoss(), torch.optim.Adagrad(model.parameters(), lr=0.1),
                           transform=EMUNegatives(num_negatives=256))
        for batch in loader:
            loss = step(batch)

    Steps are what they would be without a graph, from the same random stream. There is one graph for each kind of
    batch: tails and heads, and each batch size. The first :obj:`warmup` steps of a kind are taken without one, as
    libraries and kernels set themselves up. All graphs are captured anew when a number among the optimiser's settings
    changes, which takes as long as hundreds of steps: a learning rate that changes in each step is better a tensor on
    the GPU that is filled in place (:class:`torch.optim.Adam` takes one).

    What Python does within a step is captured with it and not run again. So :obj:`transform` must not choose by its
    own state, or by :obj:`batch.step`, and must not make the host wait; one that does, such as a sampler with a cache,
    can be left with the loader: negatives that a batch brings along are copied.

    Args:
        model (torch.nn.Module): The model, on a CUDA device, with dense gradients.
        criterion (callable): The loss, :obj:`criterion(model, batch) -> scalar`.
        optimizer (torch.optim.Optimizer): :class:`~torch.optim.Adagrad` without :obj:`lr_decay`,
            :class:`~torch.optim.SGD`, or any with :obj:`capturable=True`.
        transform (callable, optional): Called on each batch within the step, such as
            :class:`~pyg_emu.EMUNegatives`. (default: :obj:`None`)
        max_grad_norm (float, optional): The norm that gradients are clipped to. (default: :obj:`None`)
        warmup (int, optional): Steps of each kind before its graph is captured. (default: :obj:`3`)
        capture (bool, optional): If :obj:`False`, the same steps are taken without graphs, on any device.
            (default: :obj:`True`)

    Raises:
        BackendError: If the model is not on a CUDA device.
        ArgumentError: If the model's gradients are row-sparse or its layers are computed again, the optimiser, its
            learning rate or the mutation rate cannot be captured, or :obj:`warmup` is not positive.
    """
    def __init__(
        self,
        model: torch.nn.Module,
        criterion: Callable[..., Tensor],
        optimizer: Optimizer,
        transform: Optional[Callable[[Any], Any]] = None,
        *,
        max_grad_norm: Optional[float] = None,
        warmup: int = 3,
        capture: bool = True,
    ) -> None:
        super().__init__(model, criterion, optimizer, max_grad_norm=max_grad_norm)
        self.transform = transform
        self.warmup = warmup
        self.capture = capture
        self._graphs: dict[Hashable, _Graph] = {}
        self._taken: dict[Hashable, int] = {}
        self._device = next(model.parameters()).device
        if capture:
            self._check()
            self._settings = self._current_settings()
            self._stream = torch.cuda.Stream(self._device)
            self._pool = torch.cuda.graph_pool_handle()
            self._loss = torch.zeros((), device=self._device)

    @property
    def num_graphs(self) -> int:
        r"""How many graphs there are at present."""
        return len(self._graphs)

    def __call__(self, batch: Any) -> Tensor:
        r"""Takes one step.

        Args:
            batch (KGData): A batch of :class:`~pyg_emu.TripletLoader`.

        Returns:
            torch.Tensor: The loss, detached; overwritten by the next step. The host does not wait for it.
        """
        if not self.capture:
            return self._step(batch)
        if self._settings != self._current_settings():
            self._settings = self._current_settings()
            self._graphs.clear()
            # Memory that no graph uses any more cannot be shared with a new one.
            self._pool = torch.cuda.graph_pool_handle()
        kind = _kind(batch)
        if kind in self._graphs:
            self._graphs[kind].replay(batch)
        elif self._taken.get(kind, 0) < self.warmup:
            self._taken[kind] = self._taken.get(kind, 0) + 1
            self._aside(lambda: self._loss.copy_(self._step(batch)))
        else:
            self._graphs[kind] = self._captured(batch)
            self._graphs[kind].graph.replay()
        return self._loss

    def _step(self, batch: Any) -> Tensor:
        return super().__call__(batch if self.transform is None else self.transform(batch))

    def _aside(self, function: Callable[[], Any]) -> None:
        r"""Runs a function on a stream of its own, as capturing asks of all work before it."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def _captured(self, batch: Any) -> _Graph:
        check_rate(getattr(batch, 'mutation', None))
        static = copy.copy(batch)
        for name, value in _tensors(batch).items():
            setattr(static, name, value.clone())
        graph = torch.cuda.CUDAGraph()
        generator = getattr(batch, 'generator', None)
        if generator is not None:
            graph.register_generator_state(generator)
        # Gradients of earlier steps would be added to, rather than made anew in the memory of the graph.
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            self._loss.copy_(self._step(static))
        return _Graph(graph, static, self._host_counters())

    def _host_counters(self) -> list[Tensor]:
        r"""Counts of steps that an optimiser keeps on the CPU, where no graph advances them."""
        steps = [state.get('step') for state in self.optimizer.state.values()]
        return [step for step in steps if isinstance(step, Tensor) and not step.is_cuda]

    def _current_settings(self) -> list[dict[str, Any]]:
        return [{name: value for name, value in group.items() if isinstance(value, (bool, int, float, tuple))}
                for group in self.optimizer.param_groups]

    def _check(self) -> None:
        if self.warmup < 1:
            raise ArgumentError(f'warmup: expected at least 1 step, got {self.warmup}')
        if any(getattr(part, 'sparse', False) for part in self.model.modules()):
            raise ArgumentError('model: row-sparse gradients have as many rows as the host has counted, and so cannot '
                                'be captured; make the model with sparse=False, or give capture=False')
        if any(getattr(part, 'checkpointing', False) for part in self.model.modules()):
            raise ArgumentError('model: where layers are computed again, random states are looked up on the host, and '
                                'so they cannot be captured; make the model with checkpointing=False, or give '
                                'capture=False')
        name = type(self.optimizer).__name__
        plain = isinstance(self.optimizer, (torch.optim.Adagrad, torch.optim.SGD))
        for group in self.optimizer.param_groups:
            if not group.get('capturable', plain):
                raise ArgumentError(f'optimizer: {name} counts its steps on the host, and so cannot be captured; make '
                                    'it with capturable=True where it has that, or take Adagrad or Adam')
            if group.get('lr_decay', 0.0) != 0.0:
                raise ArgumentError(f'optimizer: the lr_decay of {name} follows a count that the host keeps, and so '
                                    f'cannot be captured; expected 0, got {group["lr_decay"]}')
            rate = group['lr']
            if isinstance(rate, Tensor) and not (rate.is_cuda and (group.get('capturable') or group.get('fused'))):
                raise ArgumentError(f'optimizer: {name} would read its learning rate, a tensor on {rate.device}, while '
                                    'it is captured, and keep it; expected a number, or a tensor on the GPU and Adam '
                                    'with capturable=True')
        # Losses against all entities may have a mutation of their own.
        for part in (self.transform, self.criterion):
            check_rate(getattr(part, 'mutation', None))
        if self._device.type != 'cuda':
            raise BackendError(f'GraphedStep: CUDA graphs need a CUDA device, and the model is on {self._device}; move '
                               'it there, or give capture=False (graph=False in a Trainer or a recipe)')


class _Graph:
    r"""A captured step, the batch that it reads, and what the host counts."""
    def __init__(self, graph: Any, static: Any, counters: list[Tensor]) -> None:
        self.graph = graph
        self.static = static
        self.counters = counters

    def replay(self, batch: Any) -> None:
        for name, value in _tensors(batch).items():
            getattr(self.static, name).copy_(value)
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        self.graph.replay()


def check_rate(mutation: Any) -> None:
    r"""Refuses a mutation whose rate follows the step: a graph would keep the rate that it was captured with.

    Raises:
        ArgumentError: If it does.
    """
    if callable(getattr(mutation, 'rate', None)):
        raise ArgumentError(f'mutation: the rate of {mutation} follows the step, and would stay what it is when it is '
                            'captured; give a number, or capture=False')


def check_run(loader: Any, schedule: Any, optimizer: Optimizer) -> None:
    r"""Refuses a run whose steps cannot be captured.

    Args:
        loader (TripletLoader): What draws its negatives, too.
        schedule (Schedule): What changes the learning rate.
        optimizer (torch.optim.Optimizer): The optimiser.

    Raises:
        ArgumentError: If the processes are several, or a rate follows the step.
    """
    if current()[1] > 1:
        raise ArgumentError('graph: steps of several processes wait for each other, and cannot be captured; '
                            'expected False, got True')
    if schedule.every_step and not isinstance(optimizer.param_groups[0]['lr'], Tensor):
        raise ArgumentError(f'graph: {schedule} changes the learning rate in each step, and all graphs would '
                            'be captured anew; give Adam a tensor on the GPU as lr, or graph=False')
    check_rate(getattr(negatives_of(loader), 'mutation', None))


def _tensors(batch: Any) -> dict[str, Tensor]:
    r"""The tensors of a batch, by name."""
    return {name: value for name, value in batch.to_dict().items() if isinstance(value, Tensor)}


def _kind(batch: Any) -> Hashable:
    r"""What a graph is captured for: shapes, the side, and the random stream."""
    shapes = tuple((name, tuple(value.shape)) for name, value in _tensors(batch).items())
    side = batch.side if isinstance(batch.side, str) else None
    return shapes, side, id(getattr(batch, 'generator', None))
