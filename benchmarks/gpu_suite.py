r"""All benchmarks and tests on a GPU, in pieces of less than nine minutes that run unattended. Run gpu_suite.sh.

=================  ===================================================================================================
tests              tests of kernels and graphs, and all other tests that need a GPU
precision          errors of values and gradients against float64, by interaction and data type of the table
speed-{model}      complete training steps, next to eager PyTorch and torch.compile (:mod:`benchmarks.gpu_speed`)
scaling            the EMU step with CUDA graphs, against the number of negatives, the width and the entities
accuracy-{model}   the packaged FB15k-237 recipes with EMU, trained by ``pyg-emu train`` and by steps with CUDA graphs
nbfnet-relational  the message passing operator, next to gathers in PyTorch (:mod:`benchmarks.gpu_nbfnet`)
nbfnet-steps       time and memory of NBFNet's training steps on FB15k-237 and WN18RR in float32 and bfloat16
nbfnet-train-emu   a piece of the full run on FB15k-237, to be repeated until the run is complete
nbfnet-train-bce   the same without EMU
=================  ===================================================================================================

A piece writes one JSON file. Recorded pieces are skipped. ``--smoke`` runs all pieces with tiny sizes on the CPU.
"""
from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable

from benchmarks._record import RESULTS, ROOT, write_result

MODELS = ('distmult', 'complex', 'transe', 'rotate')
TESTS = (
    'tests/ops/emu_score/test_triton.py',
    'tests/ops/relational/test_triton.py',
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
)
SMOKE_TESTS = ('tests/ops/emu_score/test_triton.py::test_by_hand', 'tests/ops/relational/test_triton.py::test_by_hand')


def run_tests(folder: Path, smoke: bool) -> Path:
    r"""Runs the tests in a separate process and records the number of passed tests."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / 'report.xml'
        # The tests compile thousands of kernels, so one process would exceed the time of a piece.
        spread = not smoke and importlib.util.find_spec('xdist') is not None
        options = [f'--junit-xml={report}', *(['-n', str(min(os.cpu_count() or 1, 16))] if spread else [])]
        chosen = SMOKE_TESTS if smoke else TESTS
        start = time.perf_counter()
        # Runs all tests after a failure, because device time is short.
        code = subprocess.call([sys.executable, '-m', 'pytest', '-q', '--tb=short', *options, *chosen], cwd=ROOT)
        if code != 0:
            raise SystemExit(f'gpu_suite: tests failed with exit code {code}')
        counts = ElementTree.parse(report).getroot()[0].attrib
    metrics = {name: int(counts[name]) for name in ('tests', 'failures', 'errors', 'skipped')}
    return write_result('tests', {**metrics, 'seconds': time.perf_counter() - start}, folder=folder)


def precision(folder: Path, smoke: bool) -> Path:
    r"""Measures relative errors :math:`\|x - y\| / \|y\|` of both scores and all gradients on random inputs."""
    import torch

    from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, ModulusPhase
    from pyg_emu.ops import MaskPlan, emu_score

    device, (size, num, nodes, width) = ('cpu', (2, 3, 5, 6)) if smoke else ('cuda', (200, 256, 14541, 200))
    generator = torch.Generator(device).manual_seed(0)

    def results(tensors: list[Any], backend: str, interaction: Any) -> list[Any]:
        index, masks, *grads = tensors[4:]
        query, positive, table, bank = leaves = [value.detach().requires_grad_() for value in tensors[:4]]
        vanilla, mutated = emu_score(query, positive, table, index, MaskPlan(bank, masks), interaction=interaction,
                                     backend=backend)
        assert vanilla is not None and mutated is not None
        scores = [vanilla, mutated]
        return [*scores, *torch.autograd.grad(scores, leaves, [grad.to(table.dtype) for grad in grads])]

    errors: dict[str, dict[str, float]] = {}
    for interaction in (Dot(), L1(), L2(), ComplexModulus(), ModulusPhase()):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            shapes = ((size, interaction.query_width(width)), (size, width), (nodes, width), (32, width))
            values = [torch.randn(shape, device=device, generator=generator).to(dtype) for shape in shapes]
            values[3] = values[3].float().sigmoid().to(dtype)
            values.append(torch.randint(nodes, (size, num), device=device, generator=generator))
            values.append(torch.randint(32, (size, num), device=device, generator=generator))
            values += [torch.randn(size, num, device=device, generator=generator).to(dtype) for _ in range(2)]
            exact = [value.double() if value.is_floating_point() else value for value in values]
            pairs = zip(results(values, 'triton', interaction), results(exact, 'torch', interaction))
            names = ('vanilla', 'mutated', 'query', 'positive', 'table', 'bank')
            found = {name: float((value.double() - other).detach().norm() / other.detach().norm())
                     for name, (value, other) in zip(names, pairs)}
            if not all(map(math.isfinite, found.values())):
                raise SystemExit(f'gpu_suite: {interaction.name} in {dtype}: expected finite errors, got {found}')
            label = f'{interaction.name}, {str(dtype).removeprefix("torch.")}'
            errors[label] = found
            print(f'{label:<26} ' + ' '.join(f'{name} {error:.1e}' for name, error in found.items()), flush=True)
    return write_result('precision', {'shape': [size, num, nodes, width], 'relative_errors': errors}, seed=0,
                        folder=folder)


def run_speed(model: str, folder: Path, smoke: bool) -> Path:
    r"""Runs :mod:`benchmarks.gpu_speed`."""
    from benchmarks.gpu_speed import Setting, speed
    from pyg_emu.ops import use_backend

    setting = Setting(model)
    with use_backend('triton' if smoke else None):
        return speed(setting.tiny() if smoke else setting, folder)


def scaling(folder: Path, smoke: bool) -> Path:
    r"""Measures the EMU step with CUDA graphs against each of its sizes, and fits the growth exponents."""
    import numpy as np

    from benchmarks.gpu_speed import Setting, measure, ours
    from pyg_emu.ops import use_backend

    base = Setting()
    axes: dict[str, tuple[int, ...]] = {'negatives': (64, 256, 1024, 4096), 'dim': (50, 100, 200, 500, 1000),
                                        'entities': (10_000, 100_000, 1_000_000, 5_000_000)}
    if smoke:
        base, axes = base.tiny(), {'negatives': (1, 4), 'dim': (2, 4), 'entities': (8, 16)}
    metrics: dict[str, Any] = {'base': asdict(base)}
    for axis, sizes in axes.items():
        times = []
        for size in sizes:
            changed: dict[str, Any] = {axis: size}
            setting = replace(base, **changed)
            make = partial(ours, setting, True, capture=setting.device == 'cuda')
            with use_backend('triton' if smoke else None):
                entry = measure(setting, {'ours': make})['ours']
            if 'error' in entry:
                raise SystemExit(f'gpu_suite: scaling, {axis}={size}: {entry["error"]}')
            times.append(entry)
            print(f'{axis}={size}: {entry["step_ms"]:.4f} ms', flush=True)
        exponent = np.polyfit(np.log(sizes), np.log([entry['step_ms'] for entry in times]), 1)[0]
        metrics[axis] = {'sizes': sizes, 'steps': times, 'exponent': float(exponent)}
    return write_result('scaling', metrics, seed=0, folder=folder)


def accuracy(model: str, folder: Path, smoke: bool) -> Path:
    r"""Trains the packaged recipe with the trainer, and with CUDA graph steps only, without validation."""
    from pyg_emu.data.io.datasets import load_dataset
    from pyg_emu.experiments.layers import assignment_layer
    from pyg_emu.experiments.recipe import load_recipe
    from pyg_emu.experiments.runs import run_recipe

    settings = []
    if smoke:
        settings = ['num_steps=4', 'evaluate_every=2', 'batch_size=8', 'model.hidden_channels=4',
                    'negatives.num_negatives=3']
    recipe = load_recipe(f'{model}-fb15k237-emu', [assignment_layer(settings)])
    with tempfile.TemporaryDirectory() as scratch:
        data = load_dataset(tiny_dataset(Path(scratch)) if smoke else os.environ['PYG_EMU_DATA'] + '/FB15k-237')
        runs = Path(scratch) / 'run' if smoke else ROOT / 'runs' / 'gpu' / model
        outcome = run_recipe(recipe, runs, data=data, device='cpu' if smoke else 'cuda', progress=False)
    assert outcome.test is not None
    trained = {'test': outcome.test.to_dict(), 'valid_mrr': outcome.train.best_metric, 'seconds': outcome.train.seconds,
               'best_step': outcome.train.best_step}
    print(f'{model}: test MRR {outcome.test["mrr"]:.4f} after {outcome.train.seconds:.1f} s of training', flush=True)
    graphed = train_graphed(recipe, outcome.data, capture=not smoke)
    print(f'{model}, graphed: test MRR {graphed["test"]["mrr"]:.4f} after {graphed["seconds"]:.1f} s', flush=True)
    return write_result(f'accuracy_{model}', {'recipe': recipe.to_dict(), 'trainer': trained, 'graphed': graphed},
                        seed=recipe.seed, folder=folder)


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


def run_nbfnet(piece: str, folder: Path, smoke: bool) -> Path:
    r"""Runs :mod:`benchmarks.gpu_nbfnet`."""
    from benchmarks import gpu_nbfnet

    functions: dict[str, Callable[[Path, bool], Path]] = {
        'relational': gpu_nbfnet.relational, 'steps': gpu_nbfnet.steps,
        'train_emu': partial(gpu_nbfnet.train, ''), 'train_bce': partial(gpu_nbfnet.train, '-bce')}
    return functions[piece](folder, smoke)


def tiny_dataset(folder: Path) -> Path:
    r"""Creates a folder of random triples."""
    import numpy as np

    generator = np.random.default_rng(0)
    for split, count in (('train', 40), ('valid', 5), ('test', 5)):
        facts = generator.integers([9, 2, 9], size=(count, 3))
        (folder / f'{split}.txt').write_text(''.join(f'e{h}\tr{r}\te{t}\n' for h, r, t in facts))
    return folder


PIECES: dict[str, tuple[str, Callable[[Path, bool], Path]]] = {
    'tests': ('tests', run_tests),
    'precision': ('precision', precision),
    **{f'speed-{model}': (f'speed_{model}', partial(run_speed, model)) for model in MODELS},
    'scaling': ('scaling', scaling),
    **{f'accuracy-{model}': (f'accuracy_{model}', partial(accuracy, model)) for model in MODELS},
    **{f'nbfnet-{piece.replace("_", "-")}': (f'nbfnet_{piece}', partial(run_nbfnet, piece))
       for piece in ('relational', 'steps', 'train_emu', 'train_bce')},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog='gpu_suite', description=__doc__.splitlines()[0])
    parser.add_argument('pieces', nargs='*', choices=[[], *PIECES], metavar='PIECE', help='the pieces (default: all)')
    parser.add_argument('--list', action='store_true', help='list all pieces')
    parser.add_argument('--smoke', action='store_true', help='run with tiny sizes on the CPU and record nothing')
    parser.add_argument('--again', action='store_true', help='repeat recorded pieces')
    arguments = parser.parse_args()
    if arguments.list:
        print(*PIECES, sep='\n')
        return
    if arguments.smoke:
        os.environ['TRITON_INTERPRET'] = '1'
    elif not os.environ.get('PYG_EMU_DATA') and any(piece.startswith(('accuracy', 'nbfnet-train'))
                                                    for piece in arguments.pieces):
        parser.error('PYG_EMU_DATA: expected the folder that contains FB15k-237')
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if arguments.smoke else Path(os.environ.get('OUT') or RESULTS / 'h200')
        for piece in arguments.pieces or PIECES:
            name, function = PIECES[piece]
            if (folder / f'{name}.json').exists() and not arguments.again:
                print(f'== {piece}: already recorded; use --again to repeat it', flush=True)
                continue
            print(f'== {piece}', flush=True)
            start = time.perf_counter()
            function(folder, arguments.smoke)
            print(f'== {piece}: {time.perf_counter() - start:.1f} s', flush=True)


if __name__ == '__main__':
    main()
