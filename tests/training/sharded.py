r"""What is computed by one process, and by several that divide the entity rows among themselves; see
:mod:`tests.training.test_sharded`. One process imports everything and forks groups of others.
"""
from __future__ import annotations

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import socket
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch_geometric.nn import DistMult as PyGDistMult

from pyg_emu import (
    HAKE,
    RGCN,
    ComplEx,
    CrossEntropyLoss,
    DistMult,
    EMUBCELoss,
    EMULoss,
    EMUNegatives,
    KGData,
    OneVsAllEMULoss,
    OneVsAllLoss,
    RotatE,
    RowAdagrad,
    RowAdam,
    Trainer,
    TransE,
    TripletLoader,
    UniformSampler,
    evaluate,
    predict,
    shard_entities,
)
from pyg_emu.core.distributed import current, on_first, process_group
from pyg_emu.core.errors import DivergenceError, PygEmuError
from pyg_emu.core.interaction import Dot
from pyg_emu.experiments.cli.main import main as command_line
from pyg_emu.losses import BCELoss, L3Regularizer, MarginLoss, N3Regularizer, SelfAdversarialLoss
from pyg_emu.models import Reciprocal
from pyg_emu.models.sharded import sharded_tables
from pyg_emu.negatives.mutation import BernoulliMask, LearnedMask, Mixup
from pyg_emu.negatives.sampling import NSCachingSampler, SharedNegativesSampler
from pyg_emu.ops import MixPlan, emu_score, use_backend
from pyg_emu.ops.rank_counts import blocks, numba
from pyg_emu.training import SwitchOptimizer

#: Two processes hold 5 and 4 rows, and four of them 3, 3, 3 and none.
NUM_NODES, NUM_RELATIONS, WIDTH = 9, 3, 8
WORLDS = (2, 4)


def transe(p_norm: int) -> Callable[..., torch.nn.Module]:
    return lambda **options: TransE(NUM_NODES, NUM_RELATIONS, WIDTH, p_norm=p_norm, **options)


def of(kind: Any, nodes: int = NUM_NODES, relations: int = NUM_RELATIONS) -> Callable[..., torch.nn.Module]:
    return lambda **options: kind(nodes, relations, WIDTH, **options)


# A model, a criterion and arguments of EMUNegatives.
LOSSES: dict[str, tuple[Callable[..., torch.nn.Module], Callable[[], Any], Callable[[], dict[str, Any]]]] = {
    'DistMult, EMU': (of(DistMult), EMULoss, lambda: {'mutation_rate': 0.4}),
    'ComplEx, masks per negative': (of(ComplEx), EMULoss, lambda: {'mutation': BernoulliMask(0.4, shared=False)}),
    'TransE L1, EMU': (transe(1), EMULoss, lambda: {'mutation_rate': 0.4}),
    'TransE L2, cross entropy': (transe(2), CrossEntropyLoss, lambda: {'mutation_rate': 0.0}),
    'RotatE, self-adversarial': (of(RotatE), SelfAdversarialLoss, lambda: {'mutation_rate': 0.0}),
    'RotatE, EMU BCE': (of(RotatE), lambda: EMUBCELoss(regularizer=L3Regularizer(0.1)), lambda: {'mutation_rate': 0.4}),
    'HAKE, EMU': (of(HAKE), EMULoss, lambda: {'mutation_rate': 0.4}),
    'HAKE, BCE': (of(HAKE), BCELoss, lambda: {'mutation_rate': 0.0}),
    'reciprocal, filtered': (lambda **options: Reciprocal(of(ComplEx, relations=2 * NUM_RELATIONS)(**options)),
                             lambda: MarginLoss(regularizer=N3Regularizer(0.1)),
                             lambda: {'mutation_rate': 0.0, 'sampler': UniformSampler(filtered=True)}),
    'shared negatives': (of(DistMult), EMULoss, lambda: {'sampler': SharedNegativesSampler(3)}),
    'learned mask': (of(DistMult), EMULoss, lambda: {'mutation': LearnedMask(WIDTH, num_masks=2)}),
    'mixup': (of(TransE), EMULoss, lambda: {'mutation': Mixup()}),
    'no own negative': (of(DistMult), EMULoss, lambda: {'mutation_rate': 0.4, 'sampler': LowIds()}),
    'cached negatives': (of(DistMult), EMULoss, lambda: {'sampler': NSCachingSampler(4, 3)}),
    '1-vs-all': (of(DistMult), lambda: OneVsAllLoss(0.1, block_size=2), lambda: {'mutation_rate': 0.0}),
    '1-vs-all, L1': (transe(1), lambda: OneVsAllLoss(0.1), lambda: {'mutation_rate': 0.0}),
    '1-vs-all, EMU': (of(ComplEx), lambda: OneVsAllEMULoss(mutation=BernoulliMask(0.5)), lambda: {}),
    '1-vs-all, EMU, HAKE': (of(HAKE), lambda: OneVsAllEMULoss(mutation=BernoulliMask(0.5)), lambda: {}),
}


class LowIds:
    r"""Negatives of the first process alone."""
    def sample(self, batch: Any, num_negatives: int, generator: Any = None) -> Any:
        from pyg_emu import Negatives
        return Negatives(torch.randint(3, (batch.head_index.numel(), num_negatives), generator=generator))


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(0)

    def facts(count: int) -> tuple[Tensor, Tensor]:
        return (torch.randint(NUM_NODES, (2, count), generator=generator),
                torch.randint(NUM_RELATIONS, (count, ), generator=generator))

    (edges, types), (valid, valid_types), (test, test_types) = facts(40), facts(9), facts(17)
    return KGData(edges, types, NUM_NODES, NUM_RELATIONS, valid_edge_index=valid, valid_edge_type=valid_types,
                  test_edge_index=test, test_edge_type=test_types)


def make_model(make: Callable[..., torch.nn.Module], **options: Any) -> torch.nn.Module:
    r"""A model in double precision, never whole in any of several processes."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        if current()[1] == 1:
            return make(**options)
        with torch.device('meta'):
            model = make(**options)
        return shard_entities(model)
    finally:
        torch.set_default_dtype(torch.float32)


def loss_of(name: str, sparse: bool = False) -> dict[str, Any]:
    r"""The loss of a batch, and all gradients."""
    make, criterion, negatives = LOSSES[name]
    model = make_model(make, margin=3.0, **({'sparse': True} if sparse else {}))
    transform = EMUNegatives(6, **negatives())
    loader = TripletLoader(make_data(), 11, shuffle=True, transform=transform, corrupt='both', seed=3)
    mutation = transform.mutation
    learned = dict(mutation.double().named_parameters()) if isinstance(mutation, torch.nn.Module) else {}
    if hasattr(transform.sampler, 'begin'):
        transform.sampler.begin(model)
    batch = next(iter(loader))
    if hasattr(transform.sampler, 'update'):
        transform.sampler.update(batch, model)
    loss = criterion()(model, batch)
    loss.backward()
    grads = {key: value.grad for key, value in {**dict(model.named_parameters()), **learned}.items()}
    return {'loss': loss.detach(), 'grads': {key: grad for key, grad in grads.items() if grad is not None},
            'drawn': loader.generator.get_state()}


# Ranking and prediction ######################################################

#: Whose ties show whether the order of answers depends on who has them.
RANKED: dict[str, Callable[..., torch.nn.Module]] = {
    'DistMult': of(DistMult), 'TransE': transe(1), 'HAKE': of(HAKE),
    'reciprocal': lambda **options: Reciprocal(of(ComplEx, relations=2 * NUM_RELATIONS)(**options)),
}


def answers(name: str) -> dict[str, Any]:
    r"""Metrics, and predictions as lists."""
    data, model = make_data(), make_model(RANKED[name], margin=3.0)
    with torch.no_grad():
        for table in sharded_tables(model):  # Two entities with the rows of others: ties.
            rows = table[torch.tensor([0, 4])]
            for row, entity in zip(rows, (7, 8)):
                if bool(table.owns(torch.tensor(entity))):
                    table.rows[entity - table.start] = row
        if current()[1] == 1:
            weight = next(iter(model.embedding_weights()))
            weight[[7, 8]] = weight[[0, 4]]
    some = [1, 3, 4, 8]
    found: dict[str, Any] = {}
    # PyTorch's matrix products do not keep ties.
    with use_backend('numba' if isinstance(model.interaction, Dot) else 'torch'):
        for key, options in {'all': {}, 'unfiltered': {'filter_splits': None, 'tie': 'optimistic', 'batch_size': 9},
                             'some': {'candidates': some, 'tie': 'pessimistic'}}.items():
            with warnings.catch_warnings(action='ignore'):
                found[key] = evaluate(model, data, 'test', **options).to_dict()
        heads, tails = torch.tensor([0, 3, 5]), torch.tensor([2, 2, 8])
        # Parts of two rows, of which processes have different numbers.
        small = patch.multiple(blocks, PART_BYTES=24, _LEAST_ROWS=1), patch.object(numba, 'BLOCK_BYTES', 0)
        for key, asked in {
                'tails': {'heads': heads, 'relations': 1, 'k': 4},
                'new heads': {'tails': tails, 'relations': 0, 'k': 20, 'exclude_known': True},
                'some tails': {'heads': heads, 'relations': 2, 'candidates': some, 'k': 3},
                'relations': {'heads': heads, 'tails': tails}}.items():
            found[key] = predict(model, data, **asked).to_dict('list')
            with small[0], small[1]:
                found[f'{key}, in parts'] = predict(model, data, **asked).to_dict('list')
            assert str(found[f'{key}, in parts']) == str(found[key])
    with torch.no_grad():
        (next(sharded_tables(model)).rows if current()[1] > 1 else weight)[:1] = float('nan')
    try:
        evaluate(model, data, 'test')
    except DivergenceError as error:
        found['error'] = str(error)
    return found


# Training ####################################################################

# An optimiser of parameters, whether gradients are row-sparse, and arguments of the trainer.
TRAINED: dict[str, tuple[Callable[[Any], Any], bool, dict[str, Any]]] = {
    'Adagrad': (lambda values: torch.optim.Adagrad(values, lr=0.1), False, {'restore_best': True, 'patience': 4}),
    'Adam, clipped': (lambda values: torch.optim.Adam(values, lr=0.1, fused=True), False, {'max_grad_norm': 0.05}),
    'RowAdagrad, clipped': (lambda values: RowAdagrad(values, lr=0.1), True, {'max_grad_norm': 0.05}),
    'RowAdam': (lambda values: RowAdam(values, lr=0.05), True, {}),
    'switched': (lambda values: RowAdagrad(values, lr=0.1), True, {'schedule': SwitchOptimizer(sparse=True)}),
}


#: Those that are continued by others.
RESUMED = ('Adam, clipped', 'RowAdagrad, clipped')


def make_trainer(name: str, run_dir: Any = None, **options: Any) -> Trainer:
    r"""A run of 12 steps."""
    make, sparse, settings = TRAINED[name]
    data, model = make_data(), make_model(of(DistMult), margin=2.0, sparse=sparse)
    loader = TripletLoader(data, 5, shuffle=True, transform=EMUNegatives(3), seed=1)
    settings = {'num_steps': 12, 'evaluate_every': 3, 'restore_best': False, 'progress': False, 'log_every': 2,
                'validate': lambda model: evaluate(model, data, 'valid'), **settings, **options}
    return Trainer(model, EMULoss(), loader, make(model.parameters()), run_dir=run_dir, **settings)


def trained(trainer: Trainer) -> dict[str, Any]:
    r"""What a run comes to."""
    result = trainer.fit()
    weights = {key: value.full_tensor() if hasattr(value, 'full_tensor') else value
               for key, value in trainer.model.state_dict().items()}
    rows = result.history.drop(columns=['seconds', 'steps_per_second'])
    return {'weights': weights, 'history': rows.to_dict('list'), 'best': result.best_step}


def cut(name: str, folder: Path) -> None:
    r"""A run that ends after 6 of 12 steps, as if it was killed."""
    class Killed(Exception):
        pass

    trainer = make_trainer(name, folder)

    def validate(model: Any) -> Any:
        if trainer.step == 9:
            raise Killed
        return evaluate(model, trainer.loader.data, 'valid')

    trainer.validate = validate
    try:
        trainer.fit()
    except Killed:
        pass


def resumed(folder: Path) -> dict[str, Any]:
    r"""Runs that one process, or two, have begun, and that go on here."""
    world = current()[1]
    found = {}
    for name in RESUMED:
        for before in (1, 2):
            if before != world:
                copy = folder / f'from {before}' / name
                on_first(partial(shutil.copytree, folder.parent / str(before) / 'cut' / name, copy))
                found[f'{name} from {before}'] = trained(make_trainer(name, copy))
    return found


def errors() -> Iterator[str]:
    r"""What all processes raise."""
    rank, world = current()
    model = make_model(of(DistMult), margin=3.0)
    loader = TripletLoader(make_data(), 5, transform=EMUNegatives(3, mutation=Partners()))

    def drifting() -> None:
        trainer = make_trainer('Adagrad')
        with torch.no_grad():
            trainer.model.rel_emb.weight[0, 0] += rank
        trainer.fit()

    for function in (lambda: shard_entities(PyGDistMult(9, 3, 4)), lambda: shard_entities(RGCN(9, 3, 4)),
                     lambda: shard_entities(of(DistMult, nodes=world - 1)()),
                     lambda: EMULoss()(model, next(iter(loader))), lambda: model.entity_table().mean(),
                     lambda: model.load_state_dict(of(DistMult, nodes=4)().state_dict()), drifting,
                     lambda: emu_score(torch.zeros(1, 8), torch.zeros(1, 8), model.entity_table(),
                                       torch.tensor([[9]]))):
        try:
            function()
            yield 'nothing'
        except (PygEmuError, RuntimeError) as error:
            yield f'{type(error).__name__}: {error}'


class Partners:
    r"""Mixes each negative with another entity."""
    def plan(self, context: Any) -> MixPlan:
        weight = torch.full((context.query.size(0), context.num_negatives), 0.5, dtype=torch.float64)
        return MixPlan(weight, torch.zeros_like(weight, dtype=torch.int64))


def exchanged() -> list[int]:
    r"""The numbers that this process sends in a step, one count for each exchange."""
    sent: list[int] = []
    all_reduce, all_gather = dist.all_reduce, dist.all_gather
    dist.all_reduce = lambda value, *args: (sent.append(value.numel()), all_reduce(value, *args))
    dist.all_gather = lambda parts, value: (sent.append(value.numel()), all_gather(parts, value))
    try:
        loss_of('DistMult, EMU')
    finally:
        dist.all_reduce, dist.all_gather = all_reduce, all_gather
    return sent


def everything(folder: Path) -> dict[str, Any]:
    r"""What each process of a group comes to."""
    with process_group('cpu'), use_backend('torch'):
        return {'losses': {name: loss_of(name) for name in LOSSES}, 'sparse': loss_of('DistMult, EMU', True),
                'answers': {name: answers(name) for name in RANKED},
                'trained': {name: trained(make_trainer(name)) for name in TRAINED}, 'resumed': resumed(folder),
                'cut': [cut(name, folder / 'cut' / name) for name in RESUMED], 'errors': [*errors()],
                'exchanged': exchanged()}


def killed(folder: Path) -> dict[str, Any]:
    r"""Commands that end as they should, and a run of which one process is killed."""
    # One group for everything: a second one could meet the store of the first one.
    with process_group('cpu') as place, use_backend('torch'):
        torch.save(commands(folder), folder / f'commands-{place.rank}.pt')

        class Dying(EMULoss):
            def _get_name(self) -> str:
                return 'EMULoss'  # with which the run goes on

            def forward(self, model: torch.nn.Module, batch: Any) -> Tensor:
                if batch.step == 7 and place.rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().forward(model, batch)

        trainer = make_trainer('RowAdam', folder / 'killed')
        trainer.criterion = Dying()
        trainer.fit()
    raise AssertionError('this is not reached')


def commands(folder: Path) -> dict[str, Any]:
    r"""The code of each command, and what it prints."""
    arguments = ['--shard', 'entities', '--device', 'cpu', '--quiet']
    found: dict[str, Any] = {}
    for name, command in {
            'train': ['train', '--data', str(folder / 'graph'), '--dim', '4', '--steps', '4', '--evaluate-every', '2',
                      '--negatives', '3', '--batch-size', '5', '--run-dir', str(folder / 'commands')],
            'evaluate': ['evaluate', str(folder / 'commands'), '--json'],
            'predict': ['predict', str(folder / 'commands'), '--head', 'e1', '--relation', 'r1', '-k', '4', '--csv'],
            'nothing to divide': ['train', '--data', str(folder / 'graph'), '--model', 'NBFNet']}.items():
        output, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(told):
            code = command_line([*command, *arguments])
        found[name] = code, output.getvalue(), told.getvalue()
    return found


def work(function: Callable[[Path], dict[str, Any]], rank: int, world: int, folder: Path) -> None:
    r"""One process of a group, as :obj:`torchrun` starts it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    try:
        torch.save(function(folder), folder / f'{rank}.pt')
    except BaseException as error:
        (folder / f'error-{rank}.txt').write_text(f'{type(error).__name__}: {error}')
        traceback.print_exc()
        os._exit(1)  # The others wait for it, and their connections break.


def group(function: Callable[[Path], dict[str, Any]], world: int, folder: Path, alone: bool = False) -> list[Any]:
    r"""Runs a group of processes, and returns their exit codes. If one fails, the others are ended, unless they are to
    notice it :obj:`alone`.
    """
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(probe.getsockname()[1]))
    folder.mkdir(exist_ok=True)
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=work, args=(function, rank, world, folder)) for rank in range(world)]
    for process in processes:
        process.start()
    while alive := [process.sentinel for process in processes if process.is_alive()]:
        multiprocessing.connection.wait(alive)
        if not alone and any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
    return [process.exitcode for process in processes]


def main(folder: Path) -> None:
    r"""All groups, one after the other."""
    import pyg_emu.ops.rank_counts.numba  # noqa: F401  once, and not in each process

    for world in WORLDS:
        if any(group(everything, world, folder / str(world))):
            sys.exit(1)
    start = time.monotonic()
    torch.save(group(killed, 2, folder / 'commands', alone=True), folder / 'codes.pt')
    torch.save(time.monotonic() - start, folder / 'seconds.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
