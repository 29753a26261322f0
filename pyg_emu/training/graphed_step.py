r"""Training steps captured in CUDA graphs.

On a fast GPU, the many small kernels of a training step run faster than the host can launch them. A CUDA graph launches
all of them at once.
"""
from __future__ import annotations

import copy
from typing import Any, Callable, Hashable, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.arguments import boolean, positive_integer, positive_number, shown
from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.data.batch import Batch
from pyg_emu.negatives.contract import does
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.step import PlainStep, check_closure, check_step

_NORM = 'grad_norm'  # A result of a step.


class GraphedStep(PlainStep):
    r"""Captures training steps in CUDA graphs and replays them. A graph contains the whole step: sampling negatives and
    masks, scoring, the loss, the backward pass and the optimizer.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True)
        step = GraphedStep(model, EMULoss(), torch.optim.Adagrad(model.parameters(), lr=0.1),
                           transform=EMUNegatives(num_negatives=256))
        for batch in loader:
            loss = step(batch)

    Steps give the same results as without a graph, with the same random generator. There is one graph for each kind of
    batch: each side (tail or head) and each batch size. The first :obj:`warmup` steps of a kind run without a graph,
    while libraries and kernels are initialized. If a number in the settings of the optimizer changes, all graphs are
    captured again, which takes as long as hundreds of steps. For a learning rate that changes in each step, use a
    tensor on the GPU that is updated in place (supported by :class:`torch.optim.Adam`).

    Python code in a step runs only during capture. Therefore :obj:`transform` must not depend on its own state or on
    :obj:`batch.step`, and must not synchronize with the device. Assign a transform that does, such as a sampler with a
    cache, to the loader. Negatives that are part of the batch are copied.

    Args:
        model (torch.nn.Module): The model, on a CUDA device and with dense gradients.
        criterion (callable): The loss, :obj:`criterion(model, batch) -> scalar`.
        optimizer (torch.optim.Optimizer): :class:`~torch.optim.Adagrad` without :obj:`lr_decay`,
            :class:`~torch.optim.SGD`, or any optimizer with :obj:`capturable=True`.
        transform (callable, optional): A transform applied to each batch as part of the step, such as
            :class:`~pyg_emu.EMUNegatives`. (default: :obj:`None`)
        max_grad_norm (float, optional): The maximum norm of the gradients. (default: :obj:`None`)
        warmup (int, optional): The number of steps of each kind before its graph is captured. (default: :obj:`3`)
        capture (bool, optional): If set to :obj:`False`, the same steps run without graphs, on any device.
            (default: :obj:`True`)

    Raises:
        BackendError: If the model is not on a CUDA device.
        ArgumentError: If an argument has the wrong type or range, if the model has row-sparse gradients or uses
            checkpointing, or if the optimizer, its learning rate or the mutation rate cannot be captured.
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
        check_step(model, criterion, optimizer)
        check_closure(optimizer)
        if transform is not None and (isinstance(transform, type) or not callable(transform)):
            raise ArgumentError(f'transform: expected a function of a batch, such as EMUNegatives(), got '
                                f'{shown(transform)}')
        if max_grad_norm is not None:
            positive_number('max_grad_norm', max_grad_norm)
        super().__init__(model, criterion, optimizer, max_grad_norm=max_grad_norm)
        self.transform = transform
        self.warmup = positive_integer('warmup', warmup)
        self.capture = boolean('capture', capture)
        self._graphs: dict[Hashable, _Graph] = {}
        self._taken: dict[Hashable, int] = {}
        self._device = next(model.parameters()).device
        if capture:
            self._check()
            self._settings = self._current_settings()
            self._stream = torch.cuda.Stream(self._device)
            self._pool = torch.cuda.graph_pool_handle()
            self._loss = torch.zeros((), device=self._device)
            # All graphs write their results here, because one graph does not write to the memory of another.
            self._results: dict[str, Tensor] = {}
            # The step whose gradients the parameters have: a graph, or None for a step without a graph.
            self._owner: Optional[_Graph] = None
            self._ran: Optional[_Graph] = None

    @property
    def num_graphs(self) -> int:
        r"""Returns the current number of graphs."""
        return len(self._graphs)

    def __call__(self, batch: Batch) -> Tensor:
        r"""Performs one training step.

        Args:
            batch (Batch): The batch.

        Returns:
            torch.Tensor: The detached loss, overwritten by the next step. Returned without synchronization.
        """
        if not self.capture:
            return self._step(batch)
        if self._settings != self._current_settings():
            self._settings = self._current_settings()
            self._graphs.clear()
            # A new pool, because new graphs cannot reuse the pool of deleted graphs.
            self._pool = torch.cuda.graph_pool_handle()
        kind = _kind(batch)
        if kind in self._graphs:
            self._graphs[kind].replay(batch)
            self._ran = self._graphs[kind]
        elif self._taken.get(kind, 0) < self.warmup:
            self._taken[kind] = self._taken.get(kind, 0) + 1
            self._aside(lambda: self._keep(self._step(batch)))
            self._owner = self._ran = None
        else:
            self._graphs[kind] = self._captured(batch)
            self._graphs[kind].graph.replay()
            self._owner = self._ran = self._graphs[kind]
        self._norm = self._results.get(_NORM)
        self.terms = {name: value for name, value in self._results.items() if name != _NORM}
        return self._loss

    def gradient_norm(self) -> Optional[Tensor]:
        r"""See :meth:`PlainStep.gradient_norm`. It is :obj:`None` if the parameters do not have the step's
        gradients."""
        # Keeping the gradients of each graph would take as much memory as the model for each of them.
        held = not self.capture or self._norm is not None or self._owner is self._ran
        return super().gradient_norm() if held else None

    def _keep(self, loss: Tensor, capturing: bool = False) -> None:
        r"""Copies the results of a step to persistent tensors, as part of the graph."""
        self._loss.copy_(loss)
        found = dict(self.terms) if self._norm is None else {**self.terms, _NORM: self._norm}
        for name, value in found.items():
            if name not in self._results:
                if capturing:
                    continue  # It would be in the memory of this graph only.
                self._results[name] = torch.zeros_like(value)
            self._results[name].copy_(value)

    def _step(self, batch: Batch) -> Tensor:
        return super().__call__(batch if self.transform is None else self.transform(batch))

    def _aside(self, function: Callable[[], Any]) -> None:
        r"""Runs a function on a side stream, as required for the work before a capture."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def _captured(self, batch: Batch) -> _Graph:
        check_rate(batch.mutation)
        # The steps before the capture have left their terms.
        terms = getattr(self.criterion, 'terms', None)
        for name, value in (terms.items() if isinstance(terms, Mapping) else ()):
            if not isinstance(value, Tensor):
                raise ArgumentError(f'terms[{name!r}]: expected a tensor, because a graph keeps the number of its '
                                    f'capture, got {shown(value)}; use a tensor, or capture=False')
        if batch.neg_vectors is not None and batch.neg_vectors.requires_grad:
            raise ArgumentError('batch.neg_vectors: expected vectors without gradient, because a graph copies the '
                                'batch, got vectors with gradient; detach them, or use capture=False')
        static = _copied(batch)
        graph = torch.cuda.CUDAGraph()
        if batch.generator is not None:
            graph.register_generator_state(batch.generator)
        # Without old gradients, the backward pass allocates new ones in the memory of the graph.
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            self._keep(self._step(static), capturing=True)
        return _Graph(graph, static, self._host_counters())

    def _host_counters(self) -> list[Tensor]:
        r"""Returns the step counters that an optimizer keeps on the CPU, which a graph does not advance."""
        steps = [state.get('step') for state in self.optimizer.state.values()]
        return [step for step in steps if isinstance(step, Tensor) and not step.is_cuda]

    def _current_settings(self) -> list[dict[str, Any]]:
        return [{name: value for name, value in group.items() if isinstance(value, (bool, int, float, tuple))}
                for group in self.optimizer.param_groups]

    def _check(self) -> None:
        if any(getattr(part, 'sparse', False) for part in self.model.modules()):
            raise ArgumentError('model: expected dense gradients, because the shape of row-sparse gradients cannot be '
                                'captured; create the model with sparse=False, or use capture=False')
        if any(getattr(part, 'checkpointing', False) for part in self.model.modules()):
            raise ArgumentError('model: expected a model without checkpointing, because checkpointing reads the random '
                                'state on the host, which cannot be captured; create the model with '
                                'checkpointing=False, or use capture=False')
        name = type(self.optimizer).__name__
        plain = isinstance(self.optimizer, (torch.optim.Adagrad, torch.optim.SGD))
        for group in self.optimizer.param_groups:
            if not group.get('capturable', plain):
                raise ArgumentError(f'optimizer: {name} counts its steps on the host, which cannot be captured; set '
                                    'capturable=True if it is supported, or use Adagrad or Adam')
            if group.get('lr_decay', 0.0) != 0.0:
                raise ArgumentError(f'optimizer: expected lr_decay=0 for {name}, because the decay depends on a step '
                                    f'counter on the host, got {group["lr_decay"]}')
            rate = group['lr']
            if isinstance(rate, Tensor) and not (rate.is_cuda and (group.get('capturable') or group.get('fused'))):
                raise ArgumentError(f'optimizer: expected the lr of {name} to be a number, or a tensor on the GPU with '
                                    f'Adam and capturable=True, got a tensor on {rate.device}, whose value would be '
                                    'fixed at capture')
        # Losses over all entities may have their own mutation.
        for part in (self.transform, self.criterion):
            check_rate(getattr(part, 'mutation', None))
        if self._device.type != 'cuda':
            raise BackendError(f'GraphedStep: expected a model on a CUDA device, got {self._device}; move the model to '
                               'a GPU, or use capture=False (graph=False in a Trainer or a recipe)')


class _Graph:
    r"""A captured step, its input batch, and the step counters on the host."""
    def __init__(self, graph: Any, static: Any, counters: list[Tensor]) -> None:
        self.graph = graph
        self.static = static
        self.counters = counters

    def replay(self, batch: Batch) -> None:
        held = _tensors(self.static)
        for name, value in _tensors(batch).items():
            held[name].copy_(value)
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        self.graph.replay()


def check_rate(mutation: Any) -> None:
    r"""Checks that what a mutation plans depends neither on the step nor on what it has learned. A graph would keep the
    rate, and what was learned, of its capture.

    Raises:
        ArgumentError: If the rate depends on the step, or the mutation learns from the model.
    """
    if callable(getattr(mutation, 'rate', None)):
        raise ArgumentError(f'mutation: expected a constant rate, because a graph keeps the rate of its capture, got '
                            f'{mutation}; use a number, or capture=False')
    if callable(getattr(mutation, 'plan', None)) and does(mutation, 'update'):
        raise ArgumentError(f'mutation: {type(mutation).__name__} learns from the model in update(), and a graph keeps '
                            'what it had learned at its capture; give graph=False, or capture=False')


def check_run(learning: LearningParts, schedule: Any, optimizer: Optimizer) -> None:
    r"""Checks that the steps of a run can be captured.

    Args:
        learning (LearningParts): The other learned parts.
        schedule (Schedule): The schedule of the learning rate.
        optimizer (torch.optim.Optimizer): The optimizer.

    Raises:
        ArgumentError: If there are several processes, a rate depends on the step, or a part learns from scores or has
            its own optimizer.
    """
    if current()[1] > 1:
        raise ArgumentError('graph: expected False with several processes, because their communication cannot be '
                            'captured, got True')
    if schedule.every_step and not isinstance(optimizer.param_groups[0]['lr'], Tensor):
        raise ArgumentError(f'graph: {schedule} changes the learning rate in each step, so all graphs would be '
                            'captured again; use Adam with a tensor on the GPU as lr, or graph=False')
    if getattr(learning.model, 'dynamic_shapes', False):
        raise ArgumentError(f'graph: {type(learning.model).__name__} samples a subgraph of another size in each step, '
                            'which no graph captures; expected False, got True')
    for name, part in learning.named.items():
        check_rate(part)
        if does(part, 'observe') or does(part, 'make_optimizer'):
            raise ArgumentError(f'graph: {type(part).__name__} ({name}) learns from scores or has an optimizer of its '
                                'own, which no graph captures; expected False, got True')


def _tensors(batch: Batch) -> dict[str, Tensor]:
    r"""Returns the tensors of a batch by name."""
    found = ((name, value.index if isinstance(value, SharedIndex) else value)
             for name, value in batch.to_dict().items())
    return {name: value for name, value in found if isinstance(value, Tensor)}


def _copied(batch: Batch) -> Batch:
    r"""Returns a batch with tensors of its own, which a graph reads in each replay."""
    out = copy.copy(batch)
    for name, value in _tensors(batch).items():
        out[name] = value.clone()
    if batch.shared_index is not None:
        out['neg_index'] = batch.shared_index._replace(index=out['neg_index'])
    out.__dict__['_lacks_relation'] = batch.lacks_relation  # A copy of a default is one.
    return out


def _kind(batch: Batch) -> Hashable:
    r"""Returns the key of a graph: the shapes, the chunks, the side and the random generator of a batch."""
    shapes = tuple((name, tuple(value.shape)) for name, value in _tensors(batch).items())
    side = batch.side if isinstance(batch.side, str) else None
    chunks = None if batch.shared_index is None else batch.shared_index[1:]
    return shapes, chunks, side, id(batch.generator)
