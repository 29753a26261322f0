r"""NBFNet on a GPU: the message passing operator, training steps, and the full run on FB15k-237 in pieces.

.. code-block:: console

    benchmarks/gpu_suite.sh run nbfnet-steps nbfnet-relational
    benchmarks/gpu_suite.sh run --budget 3h nbfnet-train-emu    # piece by piece, until the run is complete

Without ``PYG_EMU_DATA``, steps are timed on generated data of the same size. The full run needs the data. A piece of
the full run trains for some minutes and continues from ``runs/gpu/nbfnet-emu``. Until the run is complete, it exits
with code 75. If ``OUT`` is set, this folder is packed into ``$OUT/state/nbfnet-emu``, as four files of less than 16
MiB. To continue on another machine, copy these files to ``runs/gpu/state/nbfnet-emu``.
"""
from __future__ import annotations

import io
import os
import shutil
import statistics
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

import torch
from torch import Tensor

from benchmarks._budget import Budget
from benchmarks._contenders import generate
from benchmarks._gpu_pieces import Unfinished, Work
from benchmarks._record import ROOT
from benchmarks.gpu_speed import milliseconds
from pyg_emu import KGData, TripletLoader, load_dataset
from pyg_emu.experiments.build import build
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import make_model, run_recipe
from pyg_emu.ops import last_backend
from pyg_emu.ops.relational import EdgeOrders, relational_conv
from pyg_emu.training.checkpoint import load_checkpoint
from pyg_emu.training.interrupt import TrainingInterrupted
from pyg_emu.training.run_folder import RunFolder

#: The targets of a step on a GPU of the H200 class, and the target MRR on FB15k-237 by suffix of the recipe.
TARGETS: dict[str, Any] = {'step_ms': 60.0, 'peak_gib': 12.0, 'mrr': {'': 0.419, '-bce': 0.415}}
#: The published implementation on four V100 GPUs, as reported by its authors.
PUBLIC = {'epoch_minutes': 22.8, 'peak_gib': 22.9}
#: The maximum size of a file of a packed state in bytes.
PART_BYTES = 15 * 2**20


@dataclass(frozen=True)
class Graph:
    r"""A dataset, its sizes, and the suffix of its recipes."""
    name: str
    recipe: str
    nodes: int
    relations: int
    facts: int

    def load(self) -> tuple[KGData, str]:
        r"""Loads the data and returns it with a description of its source."""
        root = os.environ.get('PYG_EMU_DATA')
        if root and (Path(root) / self.name).is_dir():
            return load_dataset(Path(root) / self.name), 'real'
        return generate(self.nodes, self.relations, self.facts), 'generated'


GRAPHS = (Graph('FB15k-237', 'nbfnet-fb15k237', 14_541, 237, 272_115),
          Graph('WN18RR', 'nbfnet-wn18rr', 40_943, 11, 86_835))
_TINY = ['model.hidden_channels=4', 'model.num_layers=2', 'negatives.num_negatives=2', 'batch_size=4']


def _measure(function: Callable[[], Any], device: str, warmup: int, repeats: int) -> dict[str, Any]:
    r"""Measures the times of single calls and the peak memory. Records errors, because the suite runs unattended."""
    cuda = device == 'cuda'
    try:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        for _ in range(warmup):
            function()
        times = [milliseconds(function, device) for _ in range(repeats)]
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
        return {'ms': statistics.median(times), 'fastest_ms': min(times), 'slowest_ms': max(times), 'peak_gib': peak}
    except Exception as error:
        return {'error': f'{type(error).__name__}: {error}'[:500]}


def _line(entry: dict[str, Any]) -> str:
    return entry.get('error') or f'{entry["ms"]:9.3f} ms {entry["peak_gib"]:7.2f} GiB'


# Steps #######################################################################


def make_step(recipe: Recipe, data: KGData, device: str) -> Callable[[], Tensor]:
    r"""Returns a complete training step: batch, negatives, loss, gradients and optimizer."""
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, data).to(device)
    criterion = build('loss', recipe.loss)
    optimizer = build('optimizer', {**recipe.optimizer, 'fused': True}, params=list(model.parameters()))
    batches = TripletLoader(data, recipe.batch_size, shuffle=True, transform=build('negatives', recipe.negatives),
                            corrupt=recipe.corrupt, seed=recipe.seed).batches()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model, next(batches))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def steps(work: Work) -> Path:
    r"""Measures time and peak memory of training steps, with and without EMU, in float32 and bfloat16 autocast."""
    for graph in GRAPHS:
        data, origin = (generate(9, 2, 16), 'generated') if work.smoke else graph.load()
        data = data.with_inverse_relations().to('cpu' if work.smoke else 'cuda')
        for end in ('', '-bce'):
            for bf16 in (False, True):
                name = f'{graph.name}, {"BCE" if end else "EMU"}, {"bf16" if bf16 else "fp32"}'
                settings = [f'model.bf16={str(bf16).lower()}', *(_TINY if work.smoke else [])]
                recipe = load_recipe(f'{graph.recipe}{end}', [assignment_layer(settings)])
                entry = work.measure(name, partial(_measured_step, recipe, data, origin, work.smoke))
                print(f'{name:<24} {_line(entry)} (target: {TARGETS["step_ms"]:g} ms, {TARGETS["peak_gib"]:g} GiB)',
                      flush=True)
    return work.finish({'steps': work.cases, 'targets': TARGETS, 'public': PUBLIC})


def _measured_step(recipe: Recipe, data: KGData, origin: str, smoke: bool) -> dict[str, Any]:
    device, (warmup, repeats) = ('cpu', (1, 1)) if smoke else ('cuda', (8, 30))
    # The model is freed at the end, so that the next peak is that of the next model.
    entry = _measure(make_step(recipe, data, device), device, warmup, repeats)
    if 'ms' in entry:
        entry['epoch_minutes'] = -(-data.num_facts('train') // recipe.batch_size) * entry['ms'] / 60_000
    return {**entry, 'batch': recipe.batch_size, 'facts': origin, 'backend': last_backend('relational')}


# Message passing #############################################################


def plain(x: Tensor, relation: Tensor, source: Tensor, rel_type: Tensor, target: Tensor, aggregate: str) -> Tensor:
    r"""Passes messages in plain PyTorch: gather, multiply, scatter. :obj:`relation` is :obj:`(R, B, D)`."""
    messages = x[source] * relation[rel_type]
    total = torch.zeros_like(x).index_add(0, target, messages)
    if aggregate == 'sum':
        return total
    count = torch.bincount(target, minlength=x.size(0)).clamp(min=1).view(-1, 1, 1)
    index = target.view(-1, 1, 1).expand_as(messages)
    mean = total / count
    high, low = (torch.zeros_like(x).scatter_reduce(0, index, messages, reduce=reduce, include_self=False)
                 for reduce in ('amax', 'amin'))
    square = torch.zeros_like(x).index_add(0, target, messages * messages) / count
    return torch.stack([mean, high, low, (square - mean * mean).clamp(min=1e-6).sqrt()], dim=2)


def relational(work: Work, compiled: bool = False) -> Path:
    r"""Measures the operator on the FB15k-237 graph with 64 queries of 32 features, next to gathers in PyTorch.

    Args:
        work (Work): The piece.
        compiled (bool): Whether gathers are compiled by torch.compile, which takes minutes, instead of eager.
            (default: :obj:`False`)
    """
    from pyg_emu.ops import use_backend

    smoke = work.smoke
    device, (size, width) = ('cpu', (2, 2)) if smoke else ('cuda', (64, 32))
    data, origin = (generate(9, 2, 16), 'generated') if smoke else GRAPHS[0].load()
    data = data.with_inverse_relations().to(device)
    edges = EdgeOrders.of(data)
    order = edges.by_target
    # Each dtype, aggregation and gradient mode compiles the same function again, which exceeds the default limit.
    torch._dynamo.config.recompile_limit = 64
    gathers = torch.compile(plain, dynamic=False, backend='aot_eager' if smoke else 'inductor') if compiled else plain
    # NBFNet trains with all of PNA's aggregations.
    for aggregate in ('pna', 'sum'):
        for dtype in (torch.float32, torch.bfloat16):
            generator = torch.Generator(device).manual_seed(0)
            shapes = (data.num_nodes, size, width), (size, 2 * data.num_relations, width)
            x, relation = (torch.randn(shape, device=device, generator=generator).to(dtype).requires_grad_()
                           for shape in shapes)
            conv = partial(relational_conv, x, relation, edges, aggregate=aggregate)
            contenders: dict[str, Callable[[], Tensor]] = {'ours': conv}
            if not compiled:
                contenders['gather, segment'] = partial(conv, backend='torch')
            contenders['compiled' if compiled else 'gather, scatter'] = partial(_gathered, gathers, x, relation, order,
                                                                                aggregate)
            for name, function in contenders.items():
                with use_backend('triton' if smoke and name == 'ours' else None):
                    for part, call in (('forward', partial(_forward, function)),
                                       ('forward and backward', partial(_forward_backward, function, (x, relation)))):
                        label = f'{aggregate}, {str(dtype).removeprefix("torch.")}, {part}, {name}'
                        repeats = (1, 1) if smoke else (3, 10)
                        entry = work.measure(label, partial(_measure, call, device, *repeats))
                        print(f'{label:<58} {_line(entry)}', flush=True)
    found = work.cases
    ratios = {}
    for label, entry in found.items():
        for other in ('gather, segment', 'gather, scatter', 'compiled') if label.endswith('ours') else ():
            slower = found.get(label.replace('ours', other), {})
            if 'ms' in entry and 'ms' in slower:
                ratios[label.replace(', ours', f': {other} / ours')] = slower['ms'] / entry['ms']
    for label, ratio in ratios.items():
        print(f'{label}: {ratio:.2f}', flush=True)
    return work.finish({'nodes': data.num_nodes, 'edges': order.source.numel(), 'features': size * width,
                        'facts': origin, 'cases': found, 'ratios': ratios})


def _gathered(function: Callable[..., Tensor], x: Tensor, relation: Tensor, order: Any, aggregate: str) -> Tensor:
    return function(x, relation.transpose(0, 1), order.source, order.relation, order.target, aggregate)


def _forward(function: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return function()


def _forward_backward(function: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> Any:
    out = function()
    return torch.autograd.grad(out, leaves, torch.ones_like(out))


# The full run ################################################################


def pack(run: Path, target: Path) -> list[Path]:
    r"""Packs the files of a run folder into an archive that is split into parts, because transfers may limit the number
    and the size of files.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w') as archive:
        for path in sorted(path for path in run.iterdir() if path.is_file() and not path.name.startswith('.')):
            archive.add(path, path.name)
    written: list[Path] = []
    for start in range(0, content.tell(), PART_BYTES):
        written.append(target / f'{run.name}.tar.part{len(written):03}')
        written[-1].write_bytes(content.getbuffer()[start:start + PART_BYTES])
    return written


def unpack(source: Path, run: Path) -> None:
    r"""Reverses :func:`pack`."""
    run.mkdir(parents=True, exist_ok=True)
    content = b''.join(path.read_bytes() for path in sorted(source.glob('*.tar.part*')))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(run, filter='data')


def train(end: str, work: Work, *, runs: Path = ROOT / 'runs' / 'gpu') -> Path:
    r"""Trains a piece of the full run on FB15k-237.

    Args:
        end (str): The suffix of the recipe.
        work (Work): The piece. When its time is over, the current step is completed and the state is saved.
        runs (Path): The folder of the run folders.

    Raises:
        Unfinished: If the run is not complete. Its progress is recorded.
    """
    name, smoke = 'bce' if end else 'emu', work.smoke
    settings = [*_TINY, 'num_steps=4', 'evaluate_every=2', 'checkpoint_every=1'] if smoke else []
    recipe = load_recipe(f'nbfnet-fb15k237{end}', [assignment_layer(settings)])
    work.seed = recipe.seed
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) if smoke and runs == ROOT / 'runs' / 'gpu' else runs
        run, state = runs / f'nbfnet-{name}', runs / 'state' / f'nbfnet-{name}'
        if not (run / 'last.pt').exists() and any(state.glob('*.tar.part*')):
            unpack(state, run)
        data = generate(20, 2, 40, 6) if smoke else GRAPHS[0].load()[0]
        outcome, stopped = None, ''
        try:
            with Budget(work.left):
                outcome = run_recipe(recipe, run, data=data, device='cpu' if smoke else 'cuda', progress=False)
        except TrainingInterrupted as stop:
            stopped = str(stop)
        except KeyboardInterrupt:
            # The last weights are saved. Time ran out during the test ranking.
            stopped = 'the next piece ranks the test triples'
        metrics = progress_of(run, recipe)
        out = os.environ.get('OUT')
        if out and not smoke:
            pack(run, Path(out) / 'state' / f'nbfnet-{name}')
    print(f'nbfnet-train-{name}: step {metrics["steps"]} of {recipe.num_steps}, {metrics["step_ms"]:.2f} ms a step',
          flush=True)
    if outcome is None or outcome.test is None:
        work.note(metrics)
        raise Unfinished(f'step {metrics["steps"]} of {recipe.num_steps}; {stopped}')
    metrics |= {'test': outcome.test.to_dict(), 'best_step': outcome.train.best_step}
    print(f'nbfnet-train-{name}: test MRR {outcome.test["mrr"]:.4f} (target: {TARGETS["mrr"][end]})', flush=True)
    return work.finish(metrics)


def progress_of(run: Path, recipe: Recipe) -> dict[str, Any]:
    r"""Returns the progress of a run."""
    from pyg_emu.training.history import History

    state = load_checkpoint(RunFolder(run).last)
    history = History()
    history.load_state_dict(state['history'])
    seconds = state['run']['seconds']
    return {'recipe': recipe.to_dict(), 'targets': TARGETS, 'steps': state['step'], 'of_steps': recipe.num_steps,
            'epochs': state['step'] / recipe.evaluate_every, 'seconds': seconds,
            'step_ms': 1e3 * seconds / max(state['step'], 1), 'history': history.rows}
