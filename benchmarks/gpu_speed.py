r"""Complete training steps on a GPU with and without EMU: eager PyTorch, torch.compile and this package.

.. code-block:: console

    benchmarks/gpu_suite.sh run speed-distmult compiled-distmult

All contenders train the same model with the same loss and optimizer (Adagrad), sample negatives and masks in the step,
and receive the same batches of positives. Times are medians over rounds that alternate between the contenders.
torch.compile takes minutes to compile its steps. They are a piece of their own, with the steps of this package that
they are compared with.
"""
from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import torch
from torch import Tensor

from benchmarks._gpu_pieces import Unfinished, Work
from pyg_emu import ComplEx, DistMult, EMULoss, EMUNegatives, KGData, RotatE, TransE, TripletLoader
from pyg_emu.losses import CrossEntropyLoss
from pyg_emu.ops import MaskPlan, emu_score, last_backend
from pyg_emu.training.graphed_step import GraphedStep

MODELS = {'distmult': DistMult, 'complex': ComplEx, 'transe': TransE, 'rotate': RotatE}
ALPHA, BETA, RATE = 0.11, 0.53, 0.3
#: The error of a contender that was not prepared because the time was over.
LATE = 'no time left'


@dataclass(frozen=True)
class Setting:
    r"""The model, the sizes and the timing. The default sizes are those of FB15k-237."""
    model: str = 'distmult'
    batch: int = 1000
    negatives: int = 256
    dim: int = 100
    entities: int = 14541
    relations: int = 237
    facts: int = 272115
    rounds: int = 15
    steps: int = 20
    copy_bytes: int = 2**32
    device: str = 'cuda'

    def tiny(self) -> Setting:
        r"""Returns a copy with tiny sizes for a test on the CPU."""
        return replace(self, batch=4, negatives=3, dim=4, entities=9, relations=2, facts=16, rounds=1, steps=2,
                       copy_bytes=2**12, device='cpu')


def make_model(setting: Setting) -> Any:
    torch.manual_seed(0)
    with torch.device(setting.device):
        return MODELS[setting.model](setting.entities, setting.relations, setting.dim)


def make_data(setting: Setting) -> KGData:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(setting.entities, (2, setting.facts), generator=generator)
    types = torch.randint(setting.relations, (setting.facts, ), generator=generator)
    return KGData(edges, types, num_nodes=setting.entities, num_relations=setting.relations).to(setting.device)


# Contenders ##################################################################


def eager_loss(model: Any, batch: Any, negatives: int, emu: bool) -> Tensor:
    r"""Computes the loss in plain PyTorch: gather, select, score, softmax."""
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    positive = model.candidates(batch.target_index)
    index = torch.randint(model.num_nodes, (query.size(0), negatives), device=query.device)
    rows = model.entity_table()[index]
    own = model.score(query, positive)
    vanilla = cross_entropy(own, eager_score(model, query, rows), 0.0)
    if not emu:
        return vanilla
    mask = torch.rand(positive.shape, device=query.device) < RATE
    mutated = torch.where(mask.unsqueeze(1), positive.unsqueeze(1), rows)
    return cross_entropy(own, eager_score(model, query, mutated), BETA) / negatives + ALPHA * vanilla


def eager_score(model: Any, query: Tensor, rows: Tensor) -> Tensor:
    if model.interaction.matrix_product:
        return torch.einsum('bd,bnd->bn', query, rows)
    return model.offset + model.interaction(query.unsqueeze(1), rows)


def cross_entropy(positive: Tensor, negative: Tensor, beta: float) -> Tensor:
    logarithms = torch.cat([positive.unsqueeze(1), negative], dim=1).log_softmax(1)
    return -(logarithms[:, 0] + beta * logarithms[:, 1:].sum(1)).mean()


def theirs(setting: Setting, emu: bool, **compile_options: Any) -> Callable[[Any], Any]:
    r"""Returns a step in eager or compiled PyTorch."""
    model = make_model(setting)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    # All variants compile the same function, which exceeds the default limit.
    torch._dynamo.config.recompile_limit = 64
    loss_of = torch.compile(eager_loss, **compile_options) if compile_options else eager_loss

    def step(batch: Any) -> Tensor:
        if compile_options:
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, batch, setting.negatives, emu)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def ours(setting: Setting, emu: bool, capture: bool, shared: bool = True) -> Callable[[Any], Any]:
    r"""Returns a step of this package."""
    model = make_model(setting)
    criterion = EMULoss(ALPHA, BETA) if emu else CrossEntropyLoss()
    negatives = EMUNegatives(setting.negatives, RATE if emu else 0.0, shared=shared)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    return GraphedStep(model, criterion, optimizer, negatives, capture=capture)


def contenders(setting: Setting, compiled: bool = False) -> dict[str, Callable[[], Callable[[Any], Any]]]:
    r"""Returns the factories of all steps by name, those that matter most first. On a CPU, the steps use neither graphs
    nor generated code.

    Args:
        setting (Setting): The sizes and the device.
        compiled (bool): Whether to return the steps of torch.compile, and those of this package to compare them with,
            instead of all other steps. (default: :obj:`False`)
    """
    cuda = setting.device == 'cuda'
    options: dict[str, Any] = {'dynamic': False, **({} if cuda else {'backend': 'aot_eager'})}
    found: dict[str, Callable[[], Callable[[Any], Any]]] = {}
    for emu, kind in ((True, 'emu'), (False, 'vanilla')):
        found[f'ours, graphs {kind}'] = partial(ours, setting, emu, capture=cuda)
        if compiled:
            found[f'compiled {kind}'] = partial(theirs, setting, emu, **options)
            if cuda:
                found[f'compiled, graphs {kind}'] = partial(theirs, setting, emu, mode='reduce-overhead', **options)
        else:
            found[f'eager {kind}'] = partial(theirs, setting, emu)
            found[f'ours {kind}'] = partial(ours, setting, emu, capture=False)
    if not compiled:
        found['ours, graphs emu, mask per negative'] = partial(ours, setting, True, capture=cuda, shared=False)
    return found


# Measuring ###################################################################


def milliseconds(function: Callable[[], Any], device: str) -> float:
    r"""Returns the time of a call, measured by CUDA events on a GPU."""
    if device != 'cuda':
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    function()
    after.record()
    after.synchronize()
    return before.elapsed_time(after)


def copy_bandwidth(setting: Setting) -> float:
    r"""Returns the bandwidth of a large copy on the device in bytes per second, counting reads and writes."""
    source = torch.randint(255, (setting.copy_bytes, ), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    times = [milliseconds(lambda: target.copy_(source), setting.device) for _ in range(12)]
    return 2 * setting.copy_bytes / (statistics.median(times[2:]) / 1e3)


def fewest_bytes(setting: Setting, emu: bool) -> int:
    r"""Returns the minimum memory traffic of a step with perfect caches. Negatives are written once and read in the
    forward and the backward pass. The table is read in both passes, and its gradient is written and read. Adagrad reads
    and writes weights and sums. Scores of each kind are written and read by the loss, and so are their gradients.
    """
    width = make_width(setting)
    slots = setting.batch * setting.negatives
    rows = 4 * width * setting.entities
    index, table, gradient, optimizer = 8 * slots * 3, 2 * rows, 2 * rows, 4 * rows
    scores = 4 * slots * 4 * (2 if emu else 1)
    return index + table + gradient + optimizer + scores


def gathered_bytes(setting: Setting) -> int:
    r"""Returns the traffic of rows in the operator at any level of the memory hierarchy: one row per slot in each pass,
    and one query per slot for the gradient of the table.
    """
    return 4 * 3 * setting.batch * setting.negatives * make_width(setting)


def make_width(setting: Setting) -> int:
    return setting.dim * (2 if setting.model in ('complex', 'rotate') else 1)


def run_steps(step: Callable[[Any], Any], batches: list[Any], count: int) -> None:
    for i in range(count):
        step(batches[i % len(batches)])


def prepare(make: Callable[[], Callable[[Any], Any]], batches: list[Any], setting: Setting) -> dict[str, Any]:
    r"""Creates a contender, runs its first steps, and returns its peak memory without tables, gradients and sums."""
    cuda = setting.device == 'cuda'
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if cuda else 0
    start = time.perf_counter()
    step = make()
    # Three steps of each side before a graph is captured, and some steps after.
    run_steps(step, batches, 12 if cuda else 2)
    facts: dict[str, Any] = {'step': step, 'first_steps_seconds': time.perf_counter() - start}
    if cuda:
        torch.cuda.synchronize()
        parameters = sum(value.nbytes for value in make_model(replace(setting, device='meta')).parameters())
        facts['peak_mib'] = (torch.cuda.max_memory_allocated() - held - 3 * parameters) / 2**20
    return facts


def measure(setting: Setting, made: dict[str, Callable[[], Callable[[Any], Any]]],
            work: Optional[Work] = None) -> dict[str, dict[str, Any]]:
    r"""Returns the times of all contenders, measured in rounds. If a contender fails, its error is recorded. It is left
    out if the slowest one before it took longer to prepare than the time that :obj:`work` has left.
    """
    loader = TripletLoader(make_data(setting), setting.batch, shuffle=True)
    source: Iterator[Any] = loader.batches()
    batches = [next(source) for _ in range(2 * (min(len(loader), 16) // 2) or 2)]
    found: dict[str, dict[str, Any]] = {}
    slowest = 0.0
    for name, make in made.items():
        if work is not None and work.left is not None and work.left <= slowest:
            found[name] = {'error': LATE}
            continue
        start = time.perf_counter()
        try:
            found[name] = prepare(make, batches, setting)
            if 'ours' in name:
                found[name]['backend'] = last_backend('emu_score')
        except Exception as error:  # An unattended run continues and records the error.
            found[name] = {'error': f'{type(error).__name__}: {error}'[:500]}
        slowest = max(slowest, time.perf_counter() - start)
    times: dict[str, list[float]] = {name: [] for name in found if 'step' in found[name]}
    for _ in range(setting.rounds):
        for name in times:
            steps = partial(run_steps, found[name]['step'], batches, setting.steps)
            times[name].append(milliseconds(steps, setting.device) / setting.steps)
    for name, values in times.items():
        found[name].pop('step')
        found[name].update(step_ms=statistics.median(values), fastest_ms=min(values), slowest_ms=max(values))
    return found


def operator_ms(setting: Setting, emu: bool) -> float:
    r"""Returns the time of the operator alone, forward and backward with all three gradients."""
    width = make_width(setting)
    interaction = make_model(replace(setting, entities=2, device='cpu')).interaction
    query, positive, table = (torch.randn(rows, width, device=setting.device, requires_grad=True)
                              for rows in (setting.batch, setting.batch, setting.entities))
    index = torch.randint(setting.entities, (setting.batch, setting.negatives), device=setting.device)
    plan = MaskPlan(torch.rand(setting.batch, width, device=setting.device) < RATE,
                    torch.arange(setting.batch, device=setting.device)) if emu else None

    def call() -> None:
        scores = [score for score in emu_score(query, positive, table, index, plan, interaction=interaction)
                  if score is not None]
        torch.autograd.grad(scores, [query, positive, table], [torch.ones_like(score) for score in scores],
                            allow_unused=True)

    run = call
    if setting.device == 'cuda':
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())  # That stream may still write the operands.
        with torch.cuda.stream(stream):
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        run = graph.replay
    for _ in range(3):
        run()
    times = [milliseconds(lambda: [run() for _ in range(setting.steps)], setting.device) / setting.steps
             for _ in range(setting.rounds)]
    return statistics.median(times)


def loader_ms(setting: Setting) -> float:
    r"""Returns the host time of a batch of positives. Up to the time of a step, it overlaps with work on the GPU."""
    batches = TripletLoader(make_data(setting), setting.batch, shuffle=True).batches()
    next(batches)
    start = time.perf_counter()
    for _ in range(10 * setting.steps):
        next(batches)
    return 1e3 * (time.perf_counter() - start) / (10 * setting.steps)


def speed(setting: Setting, work: Work, compiled: bool = False) -> Path:
    r"""Measures one model, prints a table and records the result.

    Args:
        setting (Setting): The model, the sizes and the timing.
        work (Work): The piece.
        compiled (bool): See :func:`contenders`. The other piece measures the operator and the loader.
            (default: :obj:`False`)

    Raises:
        Unfinished: If contenders are left. Compiled code is cached on the disk, so that the next call gets further.
    """
    bandwidth = copy_bandwidth(setting)
    found = measure(setting, contenders(setting, compiled), work)
    for name, entry in found.items():
        line = entry.get('error')
        if line is None:
            rate = fewest_bytes(setting, ' emu' in name) / (entry['step_ms'] / 1e3)
            entry['bandwidth_fraction'] = rate / bandwidth
            line = (f'{entry["step_ms"]:9.4f} ms {entry.get("peak_mib", 0.0):10.1f} MiB {rate / bandwidth:7.1%} of the '
                    'bandwidth limit')
        print(f'{name:<40} {line}', flush=True)
    ratios = {}
    for top, bottom in (('ours, graphs emu', 'ours, graphs vanilla'), ('eager emu', 'ours, graphs emu'),
                        ('eager emu', 'ours emu'), ('compiled emu', 'ours, graphs emu'),
                        ('compiled, graphs emu', 'ours, graphs emu')):
        if 'step_ms' in found.get(top, {}) and 'step_ms' in found.get(bottom, {}):
            ratios[f'{top} / {bottom}'] = found[top]['step_ms'] / found[bottom]['step_ms']
            print(f'{top} / {bottom}: {ratios[f"{top} / {bottom}"]:.3f}', flush=True)
    metrics = {'setting': asdict(setting), 'copy_bytes_per_second': bandwidth, 'contenders': found, 'ratios': ratios,
               'fewest_bytes': {'vanilla': fewest_bytes(setting, False), 'emu': fewest_bytes(setting, True)}}
    # Before the rest, which may fail.
    work.note(metrics)
    late = [name for name, entry in found.items() if entry.get('error') == LATE]
    if late:
        raise Unfinished(f'{", ".join(late)}: {LATE}')
    if compiled:
        return work.finish(metrics)
    operator = {}
    for emu, kind in ((False, 'vanilla'), (True, 'emu')):
        took = operator_ms(setting, emu)
        gathered = gathered_bytes(setting) / (took / 1e3)
        operator[kind] = {'ms': took, 'gathered_bytes_per_second': gathered, 'of_copy_bandwidth': gathered / bandwidth}
        print(f'operator, {kind}: {took:.4f} ms, gathers at {gathered / bandwidth:.1%} of the bandwidth of a copy')
    return work.finish({**metrics, 'operator': operator, 'loader_ms': loader_ms(setting),
                        'gathered_bytes': gathered_bytes(setting)})
