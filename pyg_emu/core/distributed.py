r"""Helpers for distributed training: the process group, devices, and collective operations.

:obj:`torchrun` starts the processes and :func:`process_group` joins them. In a single process, all functions return
immediately, so callers need no special case.
"""
from __future__ import annotations

import os
import zlib
from contextlib import contextmanager
from typing import Any, Callable, Iterator, NamedTuple, Optional, TypeVar, Union

import torch
import torch.distributed as dist
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, ProcessError, PygEmuError

T = TypeVar('T')


class Place(NamedTuple):
    r"""Rank and device of a process.

    Args:
        rank (int): The rank of the process, from 0.
        world (int): The number of processes.
        device (torch.device): The device of the process.
    """
    rank: int
    world: int
    device: torch.device


@contextmanager
def process_group(device: Optional[str] = None) -> Iterator[Place]:
    r"""Initializes the process group on entry and destroys it on exit. Without :obj:`torchrun`, or inside an existing
    group, only the device is chosen.

    .. code-block:: python

        with process_group() as place:
            data = load_dataset('UMLS').to(place.device)
            ...
            Trainer(model.to(place.device), ...).fit()
            metrics = evaluate(model, data)
            if place.rank == 0:
                print(metrics)

    The group uses Gloo on CPUs and NCCL on GPUs.

    Args:
        device (str, optional): :obj:`"cpu"` or :obj:`"cuda"`. With :obj:`"cuda"`, each process uses its own GPU.
            (default: :obj:`"cuda"` if available)

    Raises:
        ArgumentError: If there are fewer GPUs than processes, or the environment variables are not those of
            :obj:`torchrun`.
        ProcessError: If another process has ended before its work was done.
    """
    chosen = local_device(device)
    if launched() == 1 or dist.is_initialized():
        yield Place(*current(), chosen)
        return
    if chosen.type == 'cuda':
        torch.cuda.set_device(chosen)
    # Host-side flags and counts use Gloo on GPUs, too, because NCCL would wait for pending kernels.
    dist.init_process_group('cpu:gloo,cuda:nccl' if chosen.type == 'cuda' else 'gloo')
    try:
        yield Place(*current(), chosen)
    except RuntimeError as error:
        if _is_lost_connection(error):
            rank, world = current()
            raise ProcessError(f'process {rank} of {world} lost the connection to another process, which has ended or '
                               'cannot be reached; the first error above names the cause. The last checkpoint is kept, '
                               'and the same command continues from it') from error
        raise
    finally:
        dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    # Gloo raises a RuntimeError of no class of its own.
    text = str(error)
    return not isinstance(error, PygEmuError) and (
        isinstance(error, dist.DistError)
        or any(part in text for part in ('gloo/', 'Connection closed by peer', 'Connection reset by peer')))


def launched() -> int:
    r"""Returns the number of processes that :obj:`torchrun` started, or 1 without :obj:`torchrun`."""
    return _environment('WORLD_SIZE', 1)


def launched_rank() -> int:
    r"""Returns the rank that :obj:`torchrun` assigned to this process, or 0 without :obj:`torchrun`."""
    return _environment('RANK', 0)


def current() -> tuple[int, int]:
    r"""Returns the rank of this process and the world size. Without a process group, returns 0 and 1."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def check_joined() -> None:
    r"""Checks that the processes started by :obj:`torchrun` have joined a process group.

    Raises:
        ArgumentError: If :obj:`torchrun` started several processes and there is no process group.
    """
    if launched() > 1 and not dist.is_initialized():
        raise ArgumentError(f'process group: torchrun started {launched()} processes, but they have not joined a '
                            'process group, so each would train its own model; wrap the training in '
                            '`with pyg_emu.process_group() as place:`')


def local_device(device: Optional[Union[str, torch.device]] = None) -> torch.device:
    r"""Returns the device of this process. Processes on the same machine use the GPU of their local rank.

    Args:
        device (str or torch.device, optional): The requested device. (default: :obj:`None`, a GPU if there is one)

    Raises:
        ArgumentError: If the device is not available.
    """
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if chosen.type == 'meta':
            raise RuntimeError('it holds no values')
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ArgumentError(f'device: {str(device)!r} is not available ({str(error).splitlines()[0]}); try '
                            "'cpu'") from error
    if chosen.type != 'cuda' or launched() == 1:
        return chosen
    local, found = _environment('LOCAL_RANK', launched_rank()), torch.cuda.device_count()
    if chosen.index not in (None, local):
        raise ArgumentError(f"device: expected 'cuda' without an index, because each of the {launched()} processes "
                            f'uses its own GPU, got {device!r}')
    if local >= found:
        raise ArgumentError(f'device: no GPU for local rank {local}, found {found} GPUs; start at most that many '
                            f"processes with --nproc_per_node, or use 'cpu'")
    return torch.device('cuda', local)


def on_first(function: Callable[[], T]) -> T:
    r"""Calls :obj:`function` on rank 0 and returns its result, or raises its exception, on all ranks.

    Args:
        function (callable): A function without arguments. Its result must be picklable.
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
            # Exceptions of other libraries may not be picklable.
            outcome[1] = caught if isinstance(caught, PygEmuError) else RuntimeError(f'error on rank 0: {caught!r}')
    dist.broadcast_object_list(outcome, src=0)
    if error is not None:
        raise error
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def first_alone() -> Iterator[None]:
    r"""Runs the body on rank 0 first and on the other ranks afterwards, for example to download a file only once."""
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
    r"""Raises a :class:`~pyg_emu.core.errors.PygEmuError` of any rank on all ranks at the end of the body. Otherwise
    the other ranks would wait forever. If several ranks fail, the error of the lowest rank is raised.
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
    r"""Returns :obj:`True` if :obj:`flag` is true on any rank."""
    if current()[1] == 1:
        return flag
    value = torch.tensor(float(flag), device=_host_side())
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value)


def same_random_state(generator: Optional[torch.Generator]) -> bool:
    r"""Returns :obj:`True` if the random generator has the same state on all ranks."""
    if generator is None or current()[1] == 1:
        return True
    state = zlib.crc32(generator.get_state().cpu().numpy().tobytes())
    value = torch.tensor([state, -state], device=_host_side())
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value[0]) == -int(value[1])


def sum_(value: Tensor) -> Tensor:
    r"""Sums a tensor over all ranks in place."""
    if current()[1] > 1:
        dist.all_reduce(value)
    return value


def minimum_(value: Tensor) -> Tensor:
    r"""Computes the element-wise minimum of a tensor over all ranks in place."""
    if current()[1] > 1:
        dist.all_reduce(value, dist.ReduceOp.MIN)
    return value


def _host_side() -> torch.device:
    # A user's group may support NCCL only, which cannot reduce CPU tensors.
    return torch.device('cuda' if dist.get_backend() == 'nccl' else 'cpu')


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name)
    try:
        return default if text is None else int(text)
    except ValueError:
        raise ArgumentError(f'environment variable {name}: expected an integer, as set by torchrun, '
                            f'got {text!r}') from None
