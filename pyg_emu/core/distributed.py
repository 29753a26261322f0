r"""Several processes that train one model: who they are, and what they agree on.

:obj:`torchrun` starts them; :func:`process_group` makes one group of them. All else here is at once done in a single
process, so that no caller has to ask how many there are.
"""
from __future__ import annotations

import os
import zlib
from contextlib import contextmanager
from typing import Any, Callable, Iterator, NamedTuple, Optional, TypeVar, Union

import torch
import torch.distributed as dist
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, PygEmuError

T = TypeVar('T')


class Place(NamedTuple):
    r"""Where a process stands.

    Args:
        rank (int): Its number, from 0.
        world (int): The number of processes.
        device (torch.device): Where it computes.
    """
    rank: int
    world: int
    device: torch.device


@contextmanager
def process_group(device: Optional[str] = None) -> Iterator[Place]:
    r"""Joins the processes that :obj:`torchrun` has started, and parts from them at the end. Without :obj:`torchrun`,
    and inside of a group, nothing happens.

    .. code-block:: python

        with process_group() as place:
            data = load_dataset('UMLS').to(place.device)
            ...
            Trainer(model.to(place.device), ...).fit()
            metrics = evaluate(model, data)
            if place.rank == 0:
                print(metrics)

    They speak by Gloo on CPUs and by NCCL on GPUs.

    Args:
        device (str, optional): :obj:`"cpu"` or :obj:`"cuda"`, where each process gets a GPU of its own.
            (default: GPUs if there are any)

    Raises:
        ArgumentError: If there are fewer GPUs than processes, or the environment is not one of :obj:`torchrun`.
    """
    chosen = local_device(device)
    if launched() == 1 or dist.is_initialized():
        yield Place(*current(), chosen)
        return
    if chosen.type == 'cuda':
        torch.cuda.set_device(chosen)
    # Flags and counts of the host go by Gloo on GPUs, too: they must not wait for what the device still computes.
    dist.init_process_group('cpu:gloo,cuda:nccl' if chosen.type == 'cuda' else 'gloo')
    try:
        yield Place(*current(), chosen)
    finally:
        dist.destroy_process_group()


def launched() -> int:
    r"""How many processes :obj:`torchrun` has started; 1 without it."""
    return _environment('WORLD_SIZE', 1)


def launched_rank() -> int:
    r"""The number that :obj:`torchrun` has given to this process; 0 without it."""
    return _environment('RANK', 0)


def current() -> tuple[int, int]:
    r"""The number of this process in its group, and the number of processes there; 0 and 1 without a group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def check_joined() -> None:
    r"""Refuses to work as if alone where :obj:`torchrun` has started several processes.

    Raises:
        ArgumentError: If they have not joined.
    """
    if launched() > 1 and not dist.is_initialized():
        raise ArgumentError(f'torchrun has started {launched()} processes, which have not joined, so that each would '
                            'train a model of its own; put `with pyg_emu.process_group() as place:` around '
                            'the training')


def local_device(device: Optional[Union[str, torch.device]] = None) -> torch.device:
    r"""The device of this process: the one that was asked for, or else a GPU if there is one. Where several processes
    share a machine, the GPU of its number.

    Args:
        device (str or torch.device, optional): What was asked for. (default: :obj:`None`)

    Raises:
        ArgumentError: If the device is not there, or there is no GPU for this process.
    """
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if chosen.type == 'meta':
            raise RuntimeError('it holds no values')
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ArgumentError(f'device: {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); try '
                            "'cpu'") from error
    if chosen.type != 'cuda' or launched() == 1:
        return chosen
    local, found = _environment('LOCAL_RANK', launched_rank()), torch.cuda.device_count()
    if chosen.index not in (None, local):
        raise ArgumentError(f"device: each of {launched()} processes takes a GPU of its own; expected 'cuda' without a "
                            f'number, got {device!r}')
    if local >= found:
        raise ArgumentError(f'device: process {local} of this machine has no GPU, there are {found}; start as many '
                            f"processes with --nproc_per_node, or give 'cpu'")
    return torch.device('cuda', local)


def on_first(function: Callable[[], T]) -> T:
    r"""What :obj:`function` returns, or raises, in the first process; the others wait for it and do not call it.

    Args:
        function (callable): Without arguments; what it returns goes through :mod:`pickle`.
    """
    rank, world = current()
    if world == 1:
        return function()
    error: Optional[Exception] = None
    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = function()
        except Exception as caught:
            error = caught
            # An exception of another library need not survive the way to the others.
            outcome[1] = caught if isinstance(caught, PygEmuError) else RuntimeError(f'the first process: {caught!r}')
    dist.broadcast_object_list(outcome, src=0)
    if error is not None:
        raise error
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def first_alone() -> Iterator[None]:
    r"""The first process goes through this before the others begin: what it downloads is then there for them."""
    first = current()[0] == 0
    if not first:
        on_first(lambda: None)
    try:
        yield
    finally:
        if first:
            on_first(lambda: None)


@contextmanager
def shared_errors() -> Iterator[None]:
    r"""What one process raises of :class:`~pyg_emu.core.errors.PygEmuError` inside, all raise at the end: otherwise the
    others would wait for it forever. Of several errors it is the first process's.
    """
    rank, world = current()
    if world == 1:
        yield
        return
    error: Optional[PygEmuError] = None
    try:
        yield
    except PygEmuError as caught:
        error = caught
    errors: list[Optional[PygEmuError]] = [None] * world
    dist.all_gather_object(errors, error)
    for number, other in enumerate(errors):
        if other is not None:
            raise error if error is not None and number == rank else other


def any_process(flag: bool) -> bool:
    r"""Whether :obj:`flag` is true in any process."""
    if current()[1] == 1:
        return flag
    value = torch.tensor(float(flag), device=_host_side())
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value)


def same_random_state(generator: Optional[torch.Generator]) -> bool:
    r"""Whether a random stream stands at the same place in all processes."""
    if generator is None or current()[1] == 1:
        return True
    state = zlib.crc32(generator.get_state().cpu().numpy().tobytes())
    value = torch.tensor([state, -state], device=_host_side())
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value[0]) == -int(value[1])


def sum_(value: Tensor) -> Tensor:
    r"""Sums a tensor over the processes, in place."""
    if current()[1] > 1:
        dist.all_reduce(value)
    return value


def minimum_(value: Tensor) -> Tensor:
    r"""The smallest of a tensor's values over the processes, in place."""
    if current()[1] > 1:
        dist.all_reduce(value, dist.ReduceOp.MIN)
    return value


def _host_side() -> torch.device:
    # A group that somebody else has made may speak NCCL alone, which knows no tensors of the host.
    return torch.device('cuda' if dist.get_backend() == 'nccl' else 'cpu')


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name)
    try:
        return default if text is None else int(text)
    except ValueError:
        raise ArgumentError(f'environment variable {name}: expected a number, as torchrun sets it, '
                            f'got {text!r}') from None
