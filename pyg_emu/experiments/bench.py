r"""How fast training steps are on this machine, next to the same steps of plain PyTorch."""
from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterator, Optional

import torch
from tqdm.auto import tqdm

from pyg_emu.core.arguments import is_number, one_of, positive_integer, random_seed, shown
from pyg_emu.core.cores import usable_cores
from pyg_emu.core.distributed import local_device
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import CrossEntropyLoss, EMULoss
from pyg_emu.models import ComplEx, DistMult, RotatE, TransE
from pyg_emu.negatives import EMUNegatives
from pyg_emu.ops import last_backend, use_backend

#: The models that can be measured.
MODELS: dict[str, Any] = {'DistMult': DistMult, 'ComplEx': ComplEx, 'TransE': TransE, 'RotatE': RotatE}
#: Entities, relations and facts of FB15k-237.
SIZES = (14_541, 237, 272_115)


@dataclass(frozen=True)
class Timing:
    r"""The time of a training step.

    Args:
        step (str): What the step trains, and how.
        ms (float): The median of a step in milliseconds.
        least_ms (float): The shortest step in milliseconds.
        steps (int): The number of steps that were timed.
    """
    step: str
    ms: float
    least_ms: float
    steps: int


@dataclass(frozen=True)
class BenchResult:
    r"""What :func:`bench` measured. :obj:`str()` of it is a table.

    Args:
        timings (list of Timing): A line for each kind of step.
        ratio (float): The time of an EMU step in plain PyTorch, in EMU steps of this package.
        machine (dict): Device, backend, threads, usable cores and versions.
        settings (dict): Model and sizes.
    """
    timings: list[Timing]
    ratio: float
    machine: dict[str, Any]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        r"""The result as numbers, strings, and dictionaries and lists of them."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(timing.step) for timing in self.timings)
        lines = [', '.join(f'{name} {value}' for name, value in part.items()) for part in (self.machine, self.settings)]
        lines += [f'{timing.step:{width}}  {timing.ms:9.1f} ms  (least {timing.least_ms:.1f}, {timing.steps} steps)'
                  for timing in self.timings]
        return '\n'.join([*lines, f'plain PyTorch / fused, EMU: {self.ratio:.1f}'])


def bench(model: str = 'DistMult', *, batch_size: int = 1000, num_negatives: int = 256, hidden_channels: int = 100,
          seconds: float = 40.0, device: Optional[str] = None, seed: int = 0, progress: bool = True,
          sizes: tuple[int, int, int] = SIZES) -> BenchResult:
    r"""Times training steps with and without EMU, and EMU steps in plain PyTorch, on random facts.

    A step is everything in a training loop: triples, negatives, loss, gradients and Adagrad. The kinds of steps take
    turns, so that other load on the machine affects all of them.

    .. code-block:: python

        result = bench('RotatE', seconds=20)
        print(result)
        result.ratio

    Args:
        model (str, optional): :obj:`"DistMult"`, :obj:`"ComplEx"`, :obj:`"TransE"` or :obj:`"RotatE"`.
            (default: :obj:`"DistMult"`)
        batch_size (int, optional): The number of triples in a step. (default: :obj:`1000`)
        num_negatives (int, optional): The number of negatives for each triple. (default: :obj:`256`)
        hidden_channels (int, optional): The hidden embedding size. (default: :obj:`100`)
        seconds (float, optional): How long to measure, compilation excluded. Each kind of step runs at least three
            times. (default: :obj:`40.0`)
        device (str, optional): The device. (default: a GPU if available, else the CPU)
        seed (int, optional): The seed of facts, weights and negatives. (default: :obj:`0`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        sizes (tuple of int, optional): The numbers of entities, relations and facts. (default: those of FB15k-237)

    Raises:
        ArgumentError: If an argument is outside of its domain.
    """
    one_of('model', model, tuple(MODELS))
    for name, value in (('batch_size', batch_size), ('num_negatives', num_negatives),
                        ('hidden_channels', hidden_channels), *((f'sizes[{place}]', size)
                                                                for place, size in enumerate(sizes))):
        positive_integer(name, value)
    if not is_number(seconds) or not 0.0 <= seconds < float('inf'):
        raise ArgumentError(f'seconds: expected a number >= 0, got {shown(seconds)}')
    seed = random_seed('seed', seed)
    place = local_device(device)
    generator = torch.Generator().manual_seed(seed)
    entities, relations, facts = sizes
    data = KGData(torch.randint(entities, (2, facts), generator=generator),
                  torch.randint(relations, (facts, ), generator=generator), entities, relations).to(place)

    def step(rate: float, criterion: Any) -> Callable[[], None]:
        torch.manual_seed(seed)
        made = MODELS[model](entities, relations, hidden_channels).to(place)
        optimizer = torch.optim.Adagrad(made.parameters(), lr=0.1)
        loader = TripletLoader(data, batch_size, shuffle=True, seed=seed,
                               transform=EMUNegatives(num_negatives, mutation_rate=rate))
        return _Step(made, criterion, optimizer, loader.batches())

    kinds = {'uniform negatives, fused': (step(0.0, CrossEntropyLoss()), None),
             'EMU, fused': (step(0.3, EMULoss()), None),
             'EMU, plain PyTorch': (step(0.3, EMULoss()), 'torch')}
    backends, times = _measure(kinds, seconds, place, progress)
    timings = [Timing(name, 1e3 * statistics.median(found), 1e3 * min(found), len(found))
               for name, found in times.items()]
    medians = {timing.step: timing.ms for timing in timings}
    machine = {'device': str(place), 'backend': backends['EMU, fused'], 'threads': torch.get_num_threads(),
               'usable cores': usable_cores(), 'torch': torch.__version__}
    if place.type == 'cuda':
        machine['gpu'] = torch.cuda.get_device_name(place)
    settings = {'model': model, 'batch size': batch_size, 'negatives': num_negatives, 'd': hidden_channels,
                'entities': entities, 'relations': relations, 'facts': facts}
    return BenchResult(timings, medians['EMU, plain PyTorch'] / medians['EMU, fused'], machine, settings)


class _Step:
    def __init__(self, model: torch.nn.Module, criterion: Any, optimizer: torch.optim.Optimizer,
                 batches: Iterator[Batch]) -> None:
        self.model, self.criterion, self.optimizer, self.batches = model, criterion, optimizer, batches

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.criterion(self.model, next(self.batches)).backward()
        self.optimizer.step()


def _measure(kinds: dict[str, tuple[Callable[[], None], Optional[str]]], seconds: float, device: torch.device,
             progress: bool) -> tuple[dict[str, Optional[str]], dict[str, list[float]]]:
    r"""The backend of each kind of step, and the times of its steps in seconds."""
    backends: dict[str, Optional[str]] = {}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for name, (step, backend) in tqdm(kinds.items(), desc='compiling', unit='kind', disable=not progress, leave=False):
        with use_backend(backend):
            step()
            step()  # gradients that accumulate take another way in the second one
        backends[name] = last_backend('emu_score')
    with tqdm(total=round(seconds), desc='measuring', unit='s', disable=not progress,
              bar_format='{desc}: {percentage:3.0f}%|{bar}| {elapsed}') as bar:
        begin = time.perf_counter()
        while min(map(len, times.values())) < 3 or time.perf_counter() - begin < seconds:
            for name, (step, backend) in kinds.items():
                # As long a turn for each, so that the fast kinds are not measured in a few steps.
                turn = time.perf_counter()
                while True:
                    start = time.perf_counter()
                    with use_backend(backend):
                        step()
                    if device.type == 'cuda':
                        torch.cuda.synchronize(device)
                    end = time.perf_counter()
                    times[name].append(end - start)
                    if end - turn >= min(1.0, seconds / 12):
                        break
            bar.update(min(bar.total or 0, round(time.perf_counter() - begin)) - bar.n)
    return backends, times

