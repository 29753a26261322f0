r"""All benchmarks and tests on a GPU, in pieces of less than four minutes that run unattended. Run gpu_suite.sh.

=================  ===================================================================================================
tests-emu-score    tests of the kernels of emu_score
tests-relational   tests of the kernels of message passing
tests-rest         all other tests that need a GPU: graphs, training, samplers, encoders
precision          errors of values and gradients against float64, by interaction and data type of the table
speed-{model}      complete training steps, next to eager PyTorch (:mod:`benchmarks.gpu_speed`)
nbfnet-steps       time and memory of NBFNet's training steps on FB15k-237 and WN18RR, float32 and bfloat16
nbfnet-relational  the message passing operator, next to gathers in PyTorch (:mod:`benchmarks.gpu_nbfnet`)
compiled-{model}   complete training steps, next to torch.compile
compiled-nbfnet    the message passing operator, next to gathers compiled by torch.compile
scaling            the EMU step with CUDA graphs, against the number of negatives, the width and the entities
accuracy-{model}   the packaged FB15k-237 recipes with EMU, trained by ``pyg-emu train`` and by CUDA graphs
nbfnet-train-emu   a piece of the full run on FB15k-237, to be repeated until the run is complete
nbfnet-train-bce   the same without EMU
=================  ===================================================================================================

The pieces are ordered by worth, for a GPU that is there for some minutes only. A name without its end stands for all
pieces that begin with it, such as ``speed``. ``--list`` prints them with the seconds that they are expected to take
from empty caches of compiled code on an H200 with 16 cores.

A piece writes one JSON file. Recorded pieces are skipped. A piece that has used its time exits with code 75, and its
next call continues (:mod:`benchmarks._gpu_pieces`). ``--smoke`` runs all pieces with tiny sizes on the CPU.
"""
from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from benchmarks._budget import Budget
from benchmarks._gpu_pieces import UNFINISHED, Unfinished, Work
from benchmarks._record import RESULTS, ROOT

MODELS = ('distmult', 'complex', 'transe', 'rotate')
TESTS = {
    'emu-score': ('tests/ops/emu_score/test_triton.py', ),
    'relational': ('tests/ops/relational/test_triton.py', ),
    'rest': (
        'tests/training/test_graphed_step.py',
        'tests/training/test_trainer.py::test_trains_by_graphs',
        'tests/data/test_loader.py::test_batches_stay_on_the_gpu',
        'tests/data/test_graph.py::test_indices_on_gpu',
        'tests/negatives/sampling/test_uniform.py::test_draws_on_the_gpu',
        'tests/negatives/sampling/test_nscaching.py::test_on_the_gpu',
        'tests/negatives/sampling/test_sans.py::test_on_the_gpu',
        'tests/negatives/sampling/test_esns.py::test_on_the_gpu',
        'tests/negatives/sampling/test_mcns.py::test_on_the_gpu',
        'tests/negatives/sampling/test_pools.py::test_on_the_gpu',
        'tests/negatives/adversarial/test_dans.py::test_on_the_gpu',
        'tests/negatives/adversarial/test_kbgan.py::test_on_the_gpu',
        'tests/models/encoders/test_rgcn.py::test_a_gpu_computes_what_the_cpu_does',
    ),
}
#: One test of each kind for the smoke run, which does not depend on a GPU.
SMOKE_TESTS = {
    'emu-score': 'tests/ops/emu_score/test_triton.py::test_by_hand',
    'relational': 'tests/ops/relational/test_triton.py::test_by_hand',
    'rest': 'tests/training/test_graphed_step.py::test_a_model_on_the_cpu_is_refused',
}
#: The shares of its limit after which a piece starts nothing more, and is interrupted. It is killed at the limit.
TO_START, TO_SAVE = 0.8, 0.94
#: The seconds that interrupted tests have to report what they found.
_PATIENCE = 15.0


def num_cores() -> int:
    r"""Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def run_tests(group: str, work: Work) -> Path:
    r"""Runs tests in a separate process and records the number of passed tests. If tests fail, or the time is over, the
    counts and the names of failed tests are recorded as unfinished.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / 'report.xml'
        # The tests compile thousands of kernels, so one process would exceed the time of a piece.
        spread = not work.smoke and importlib.util.find_spec('xdist') is not None
        options = [f'--junit-xml={report}', *(['-n', str(min(num_cores(), 16))] if spread else [])]
        if group == 'rest' and not work.smoke:
            options += ['-m', 'gpu']  # The other tests of these files run on the CPU.
        chosen = (SMOKE_TESTS[group], ) if work.smoke else TESTS[group]
        start = time.perf_counter()
        # Runs all tests after a failure, because device time is short.
        code = _call([sys.executable, '-m', 'pytest', '-q', '--tb=short', *options, *chosen], work.left)
        seconds = time.perf_counter() - start
        suite = ElementTree.parse(report).getroot()[0] if report.exists() else None
    metrics: dict[str, Any] = {'seconds': seconds}
    if suite is not None:
        metrics |= {name: int(suite.attrib[name]) for name in ('tests', 'failures', 'errors', 'skipped')}
    if code == 0 and suite is not None:
        return work.finish(metrics)
    failed = [] if suite is None else [f'{case.get("classname")}.{case.get("name")}' for case in suite.iter('testcase')
                                       if case.find('failure') is not None or case.find('error') is not None]
    work.note({**metrics, 'exit_code': code, 'failed': failed})
    if code is None:
        raise Unfinished(f'tests: no time left after {metrics.get("tests", 0)} tests, {len(failed)} of which failed')
    raise SystemExit(f'gpu_suite: tests failed with exit code {code}')


def _call(command: Sequence[str], seconds: Optional[float]) -> Optional[int]:
    r"""Returns the exit code of a command, or :obj:`None` if it took longer and was interrupted."""
    # All of its processes are in a session of their own, so that none is left behind.
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for kind in (signal.SIGINT, signal.SIGKILL):
            os.killpg(process.pid, kind)
            try:
                process.wait(_PATIENCE)
                break
            except subprocess.TimeoutExpired:
                continue
        return None


def precision(work: Work, processes: Optional[int] = None) -> Path:
    r"""Measures relative errors :math:`\|x - y\| / \|y\|` of both scores and all gradients on random inputs.

    Args:
        work (Work): The piece.
        processes (int, optional): The number of processes. Most of the time goes into compiling kernels.
            (default: :obj:`None`, at most eight, and one for a smoke run)
    """
    sizes = (2, 3, 5, 6) if work.smoke else (200, 256, 14541, 200)
    device = 'cpu' if work.smoke else 'cuda'
    if processes is None:
        processes = 1 if work.smoke else min(num_cores(), 8)
    cases = {f'{interaction}, {dtype}': (interaction, dtype, sizes, device)
             for interaction in ('dot', 'l1', 'l2', 'modulus', 'modulus_phase')
             for dtype in ('float32', 'bfloat16', 'float16')}
    work.measure_all(relative_errors, cases, processes)
    failed = [case for case in cases if 'error' in work.cases[case]]
    for case in cases:
        line = ' '.join(f'{name} {error}' if case in failed else f'{name} {error:.1e}'
                        for name, error in work.cases[case].items())
        print(f'{case:<26} {line}', flush=True)
    if failed:
        raise SystemExit(f'gpu_suite: precision failed for {"; ".join(failed)}')
    return work.finish({'shape': list(sizes), 'relative_errors': {case: work.cases[case] for case in cases}})


def relative_errors(name: str, dtype_name: str, sizes: tuple[int, int, int, int], device: str) -> dict[str, float]:
    r"""Returns the relative errors of an interaction in a data type."""
    import torch

    from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, ModulusPhase
    from pyg_emu.ops import MaskPlan, emu_score

    kinds = {kind.name: kind for kind in (Dot, L1, L2, ComplexModulus, ModulusPhase)}
    interaction, dtype = kinds[name](), getattr(torch, dtype_name)
    size, num, nodes, width = sizes
    generator = torch.Generator(device).manual_seed(0)

    def results(tensors: list[Any], backend: str) -> list[Any]:
        index, masks, *grads = tensors[4:]
        query, positive, table, bank = leaves = [value.detach().requires_grad_() for value in tensors[:4]]
        vanilla, mutated = emu_score(query, positive, table, index, MaskPlan(bank, masks), interaction=interaction,
                                     backend=backend)
        assert vanilla is not None and mutated is not None
        scores = [vanilla, mutated]
        return [*scores, *torch.autograd.grad(scores, leaves, [grad.to(table.dtype) for grad in grads])]

    shapes = ((size, interaction.query_width(width)), (size, width), (nodes, width), (32, width))
    values = [torch.randn(shape, device=device, generator=generator).to(dtype) for shape in shapes]
    values[3] = values[3].float().sigmoid().to(dtype)
    values.append(torch.randint(nodes, (size, num), device=device, generator=generator))
    values.append(torch.randint(32, (size, num), device=device, generator=generator))
    values += [torch.randn(size, num, device=device, generator=generator).to(dtype) for _ in range(2)]
    exact = [value.double() if value.is_floating_point() else value for value in values]
    pairs = zip(results(values, 'triton'), results(exact, 'torch'))
    names = ('vanilla', 'mutated', 'query', 'positive', 'table', 'bank')
    found = {name: float((value.double() - other).detach().norm() / other.detach().norm())
             for name, (value, other) in zip(names, pairs)}
    if not all(map(math.isfinite, found.values())):
        raise ValueError(f'expected finite errors, got {found}')
    return found


def run_speed(model: str, compiled: bool, work: Work) -> Path:
    r"""Runs :mod:`benchmarks.gpu_speed`."""
    from benchmarks.gpu_speed import Setting, speed
    from pyg_emu.ops import use_backend

    setting = Setting(model)
    with use_backend('triton' if work.smoke else None):
        return speed(setting.tiny() if work.smoke else setting, work, compiled)


def scaling(work: Work) -> Path:
    r"""Measures the EMU step with CUDA graphs against each of its sizes, and fits the growth exponents."""
    import numpy as np

    from benchmarks.gpu_speed import Setting

    base = Setting()
    axes: dict[str, tuple[int, ...]] = {'negatives': (64, 256, 1024, 4096), 'dim': (50, 100, 200, 500, 1000),
                                        'entities': (10_000, 100_000, 1_000_000, 5_000_000)}
    if work.smoke:
        base, axes = base.tiny(), {'negatives': (1, 4), 'dim': (2, 4), 'entities': (8, 16)}
    metrics: dict[str, Any] = {'base': asdict(base)}
    for axis, sizes in axes.items():
        times = []
        for size in sizes:
            changed: dict[str, Any] = {axis: size}
            times.append(work.measure(f'{axis}={size}', partial(_scaled, replace(base, **changed), work.smoke)))
            print(f'{axis}={size}: {times[-1]["step_ms"]:.4f} ms', flush=True)
        exponent = np.polyfit(np.log(sizes), np.log([entry['step_ms'] for entry in times]), 1)[0]
        metrics[axis] = {'sizes': sizes, 'steps': times, 'exponent': float(exponent)}
    return work.finish(metrics)


def _scaled(setting: Any, smoke: bool) -> dict[str, Any]:
    from benchmarks.gpu_speed import measure, ours
    from pyg_emu.ops import use_backend

    with use_backend('triton' if smoke else None):
        entry = measure(setting, {'ours': partial(ours, setting, True, capture=setting.device == 'cuda')})['ours']
    if 'error' in entry:
        raise SystemExit(f'gpu_suite: scaling, {setting}: {entry["error"]}')
    return entry


def accuracy(model: str, work: Work) -> Path:
    r"""Trains the packaged recipe with the trainer, and with CUDA graph steps only, without validation."""
    from pyg_emu.data.io.datasets import load_dataset
    from pyg_emu.experiments.layers import assignment_layer
    from pyg_emu.experiments.recipe import load_recipe

    settings, device = [], 'cpu' if work.smoke else 'cuda'
    if work.smoke:
        settings = ['num_steps=4', 'evaluate_every=2', 'batch_size=8', 'model.hidden_channels=4',
                    'negatives.num_negatives=3']
    recipe = load_recipe(f'{model}-fb15k237-emu', [assignment_layer(settings)])
    work.seed = recipe.seed
    with tempfile.TemporaryDirectory() as scratch:
        data = load_dataset(tiny_dataset(Path(scratch)) if work.smoke else os.environ['PYG_EMU_DATA'] + '/FB15k-237')
        runs = Path(scratch) / 'run' if work.smoke else ROOT / 'runs' / 'gpu' / model
        trained = work.measure('trainer', partial(train_by_recipe, recipe, data, device, runs, work))
    print(f'{model}: test MRR {trained["test"]["mrr"]:.4f} after {trained["seconds"]:.1f} s of training', flush=True)
    graphed = work.measure('graphed', partial(train_graphed, recipe, data.to(device), capture=not work.smoke))
    print(f'{model}, graphed: test MRR {graphed["test"]["mrr"]:.4f} after {graphed["seconds"]:.1f} s', flush=True)
    return work.finish({'recipe': recipe.to_dict(), 'trainer': trained, 'graphed': graphed})


def train_by_recipe(recipe: Any, data: Any, device: str, runs: Path, work: Work) -> dict[str, Any]:
    r"""Trains the recipe as ``pyg-emu train`` does. An unfinished run continues in the next call."""
    from pyg_emu.experiments.runs import run_recipe

    try:
        with Budget(work.left):
            outcome = run_recipe(recipe, runs, data=data, resume=False if work.again else 'auto', device=device,
                                 progress=False)
    except KeyboardInterrupt as stop:
        # The message of an interrupted ranking of the test facts is empty.
        raise Unfinished(f'trainer: {stop or "no time left to rank the test facts"}') from None
    assert outcome.test is not None
    return {'test': outcome.test.to_dict(), 'valid_mrr': outcome.train.best_metric, 'seconds': outcome.train.seconds,
            'best_step': outcome.train.best_step}


def train_graphed(recipe: Any, data: Any, capture: bool) -> dict[str, Any]:
    r"""Trains the recipe with captured steps and ranks with the last weights, because there is no validation."""
    import torch

    from pyg_emu import TripletLoader, evaluate
    from pyg_emu.experiments.build import build
    from pyg_emu.experiments.runs import make_model
    from pyg_emu.training.graphed_step import GraphedStep

    torch.manual_seed(recipe.seed)
    model = make_model(recipe, data).to(data.device)
    optimizer = build('optimizer', recipe.optimizer, params=list(model.parameters()))
    step = GraphedStep(model, build('loss', recipe.loss), optimizer, build('negatives', recipe.negatives),
                       capture=capture)
    loader = TripletLoader(data, recipe.batch_size, shuffle=True, corrupt=recipe.corrupt, seed=recipe.seed)
    start = time.perf_counter()
    for _, batch in zip(range(recipe.num_steps), loader.batches()):
        loss = step(batch)
    final = float(loss)
    seconds = time.perf_counter() - start
    model.eval()
    return {'test': evaluate(model, data, split='test', progress=False).to_dict(), 'seconds': seconds, 'loss': final,
            'steps': recipe.num_steps}


def run_nbfnet(piece: str, work: Work) -> Path:
    r"""Runs :mod:`benchmarks.gpu_nbfnet`."""
    from benchmarks import gpu_nbfnet

    functions: dict[str, Callable[[Work], Path]] = {
        'steps': gpu_nbfnet.steps,
        'relational': gpu_nbfnet.relational, 'relational-compiled': partial(gpu_nbfnet.relational, compiled=True),
        'train-emu': partial(gpu_nbfnet.train, ''), 'train-bce': partial(gpu_nbfnet.train, '-bce')}
    return functions[piece](work)


def tiny_dataset(folder: Path) -> Path:
    r"""Creates a folder of random triples."""
    import numpy as np

    generator = np.random.default_rng(0)
    for split, count in (('train', 40), ('valid', 5), ('test', 5)):
        facts = generator.integers([9, 2, 9], size=(count, 3))
        (folder / f'{split}.txt').write_text(''.join(f'e{h}\tr{r}\te{t}\n' for h, r, t in facts))
    return folder


@dataclass(frozen=True)
class Piece:
    r"""A piece of the suite.

    Args:
        seconds (int): The seconds that it is expected to take.
        run (callable): The function that runs it.
        about (str): What it measures.
    """
    seconds: int
    run: Callable[[Work], Path]
    about: str


def _pieces() -> dict[str, Piece]:
    r"""Returns all pieces, those that are worth most first."""
    found = {
        'tests-emu-score': Piece(100, partial(run_tests, 'emu-score'), 'tests of the kernels of emu_score'),
        'tests-relational': Piece(70, partial(run_tests, 'relational'), 'tests of the kernels of message passing'),
        'tests-rest': Piece(60, partial(run_tests, 'rest'), 'all other tests that need a GPU'),
        'precision': Piece(40, precision, 'errors of values and gradients against float64'),
    }
    for model in MODELS:
        found[f'speed-{model}'] = Piece(50, partial(run_speed, model, False), 'steps, next to eager PyTorch')
    found['nbfnet-steps'] = Piece(75, partial(run_nbfnet, 'steps'), "NBFNet's steps: time and memory")
    found['nbfnet-relational'] = Piece(100, partial(run_nbfnet, 'relational'),
                                       'the message passing operator, next to gathers in PyTorch')
    for model in MODELS:
        found[f'compiled-{model}'] = Piece(120, partial(run_speed, model, True), 'steps, next to torch.compile')
    found['compiled-nbfnet'] = Piece(130, partial(run_nbfnet, 'relational-compiled'),
                                     'the message passing operator, next to torch.compile')
    found['scaling'] = Piece(60, scaling, 'steps against the number of negatives, the width and the entities')
    for model in MODELS:
        found[f'accuracy-{model}'] = Piece(110, partial(accuracy, model), 'test MRR and time of the FB15k-237 recipe')
    for loss in ('emu', 'bce'):
        found[f'nbfnet-train-{loss}'] = Piece(220, partial(run_nbfnet, f'train-{loss}'),
                                              'a piece of the full NBFNet run, to be repeated until it is complete')
    return found


PIECES = _pieces()


def pieces_of(names: Sequence[str]) -> list[str]:
    r"""Returns the pieces that names stand for, each once and those of a name in order: the piece of this name, or else
    all pieces that begin with it and a hyphen.

    Raises:
        ValueError: If a name stands for none.
    """
    found: dict[str, None] = {}
    for name in names:
        meant = [name] if name in PIECES else [piece for piece in PIECES if piece.startswith(f'{name}-')]
        if not meant:
            raise ValueError(f'{name}: expected a piece of --list, or the beginning of some')
        found.update(dict.fromkeys(meant))
    return list(found)


def main(argv: Optional[Sequence[str]] = None) -> int:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(prog='gpu_suite', description=__doc__.splitlines()[0])
    parser.add_argument('pieces', nargs='*', metavar='PIECE', help='the pieces, or beginnings of them (default: all)')
    parser.add_argument('--list', action='store_true', help='list the pieces with the seconds expected of each')
    parser.add_argument('--smoke', action='store_true', help='run with tiny sizes on the CPU and record nothing')
    parser.add_argument('--again', action='store_true', help='repeat recorded pieces')
    parser.add_argument('--limit', type=float, metavar='SECONDS', help='end after this time (default: no limit)')
    arguments = parser.parse_args(argv)
    try:
        pieces = pieces_of(arguments.pieces) if arguments.pieces else list(PIECES)
    except ValueError as error:
        parser.error(str(error))
    if arguments.list:
        for piece in pieces:
            print(f'{piece:<18} {PIECES[piece].seconds:>4} s  {PIECES[piece].about}')
        return 0
    if arguments.smoke:
        os.environ['TRITON_INTERPRET'] = '1'
    elif not os.environ.get('PYG_EMU_DATA') and any(piece.startswith(('accuracy', 'nbfnet-train')) for piece in pieces):
        parser.error('PYG_EMU_DATA: expected the folder that contains FB15k-237')
    folder = Path(os.environ.get('OUT') or RESULTS / 'h200')
    with tempfile.TemporaryDirectory() as scratch, Budget(_share(arguments.limit, TO_SAVE)) as budget:
        if arguments.limit is not None:
            # Also ends what an interrupt cannot end, such as a kernel that never returns.
            faulthandler.dump_traceback_later(arguments.limit, exit=True)
        try:
            codes = [_run(piece, Path(scratch) if arguments.smoke else folder, arguments) for piece in pieces]
        except KeyboardInterrupt:
            if not budget.is_spent:
                raise
            print(f'gpu_suite: interrupted shortly before {arguments.limit:g} s', file=sys.stderr)
            return 1
        finally:
            faulthandler.cancel_dump_traceback_later()
    return max(codes)


def _run(piece: str, folder: Path, arguments: argparse.Namespace) -> int:
    r"""Runs a piece and returns its exit code."""
    work = Work(piece.replace('-', '_'), folder, arguments.smoke, _share(arguments.limit, TO_START), arguments.again)
    if work.is_recorded and not arguments.again:
        print(f'== {piece}: already recorded; use --again to repeat it', flush=True)
        return 0
    print(f'== {piece}', flush=True)
    start = time.perf_counter()
    try:
        PIECES[piece].run(work)
    except Unfinished as stop:
        print(f'== {piece}: unfinished ({stop})', flush=True)
        return UNFINISHED
    print(f'== {piece}: {time.perf_counter() - start:.1f} s', flush=True)
    return 0


def _share(limit: Optional[float], share: float) -> Optional[float]:
    return None if limit is None else share * limit


if __name__ == '__main__':
    sys.exit(main())
