r"""Runs that are taken by one process and by two, and what they come to. :obj:`torchrun`'s environment, without its
own start-up time; see :mod:`tests.test_data_parallel`.
"""
from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import torch
from torch import Tensor

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, OneVsAllEMULoss, RowAdagrad, Trainer, TripletLoader
from pyg_emu.core.distributed import current, process_group
from pyg_emu.core.errors import PygEmuError
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.losses import MarginLoss
from pyg_emu.losses.nbfnet import NBFNetEMULoss
from pyg_emu.losses.regularizers import L3Regularizer, N3Regularizer
from pyg_emu.models.encoders import RGCN
from pyg_emu.models.nbfnet.model import NBFNet
from pyg_emu.negatives.adversarial import DANSSampler
from pyg_emu.negatives.mutation import BernoulliMask, ImportanceMask, LearnedMask, Mixup
from pyg_emu.negatives.sampling import MCNSSampler, NSCachingSampler, SharedNegativesSampler, UniformSampler
from pyg_emu.ops import use_backend
from pyg_emu.training.data_parallel import DataParallelLoss
from pyg_emu.training.interrupt import TrainingInterrupted
from pyg_emu.training.schedules import SwitchOptimizer

NUM_NODES, NUM_RELATIONS, WIDTH = 9, 3, 8
FILTERED = UniformSampler(filtered=True)

# What a run is made of: arguments of EMUNegatives, a criterion, and how it is trained.
RUNS: dict[str, Callable[[], dict[str, Any]]] = {
    'mask per triple': lambda: {'negatives': {'mutation_rate': 0.3}, 'max_grad_norm': 0.5},
    'mask per negative': lambda: {'negatives': {'mutation': BernoulliMask(0.4, shared=False, num_masks=3)},
                                  'schedule': SwitchOptimizer(), 'criterion': EMULoss(regularizer=L3Regularizer(0.1))},
    'mask of the query': lambda: {'negatives': {'mutation': ImportanceMask(0.5)},
                                  'criterion': EMULoss(regularizer=N3Regularizer(0.1))},
    'learned mask': lambda: {'negatives': {'mutation': LearnedMask(WIDTH, adversarial=True, num_masks=2)}},
    'mixup': lambda: {'negatives': {'mutation': Mixup()}, 'corrupt': 'both'},
    'row-sparse': lambda: {'negatives': {'mutation_rate': 0.3}, 'sparse': True},
    'masked negatives': lambda: {'negatives': {'mutation_rate': 0.0, 'sampler': FILTERED},
                                 'criterion': MarginLoss(2.0, regularizer=N3Regularizer(0.1))},
    'cached negatives': lambda: {'negatives': {'sampler': NSCachingSampler(4, 3)}},
    'chains of negatives': lambda: {'negatives': {'sampler': MCNSSampler()}},
    'generated negatives': lambda: {'negatives': {'sampler': DANSSampler(from_entity=1, from_relation=1)}},
    'R-GCN': lambda: {'negatives': {'mutation_rate': 0.3}, 'encoder': True},
    # The networks of each process are trained on the vectors that it has encoded.
    'R-GCN, generated negatives': lambda: {
        'negatives': {'sampler': DANSSampler(from_entity=1, from_relation=1)}, 'encoder': True},
    # Three rows share a set, and two processes cut a batch of five after two of them.
    'shared negatives': lambda: {'negatives': {'mutation_rate': 0.3, 'sampler': SharedNegativesSampler(3)}},
    'shared, cached and filtered': lambda: {
        'negatives': {'mutation': Mixup(),
                      'sampler': SharedNegativesSampler(3, NSCachingSampler(4, 3), filtered=True)}, 'corrupt': 'both'},
    'all entities': lambda: {'negatives': {'mutation_rate': 0.0},
                             'criterion': OneVsAllEMULoss(mutation=BernoulliMask(0.5))},
    # Processes whose rows weigh more count for more.
    'weights of facts': lambda: {'negatives': {'mutation_rate': 0.3}, 'weighted': True,
                                 'criterion': EMULoss(regularizer=N3Regularizer(0.1))},
    'NBFNet': lambda: {'negatives': {'mutation': BernoulliMask(0.6, shared=False), 'sampler': FILTERED},
                       'corrupt': 'both', 'criterion': NBFNetEMULoss()},
}


def make_data() -> KGData:
    r"""26 facts, of which some exhaust a pattern: no entity is left to be a negative of (0, 0, ?)."""
    generator = torch.Generator().manual_seed(0)
    edges, types = torch.randint(NUM_NODES, (2, 17), generator=generator), torch.randint(1, 3, (17, ),
                                                                                         generator=generator)
    full = torch.stack([torch.zeros(NUM_NODES, dtype=torch.int64), torch.arange(NUM_NODES)])
    test = torch.randint(NUM_NODES, (2, 12), generator=generator)
    return KGData(torch.cat([edges, full], dim=1), torch.cat([types, torch.zeros(NUM_NODES, dtype=torch.int64)]),
                  NUM_NODES, NUM_RELATIONS, test_edge_index=test, test_edge_type=torch.arange(12) % NUM_RELATIONS)


def make_trainer(name: str, criterion: Any = None, **options: Any) -> Trainer:
    r"""A run of 12 steps in double precision. Batches have 5 facts, and the last of an epoch has one: none for the
    first of two processes.
    """
    torch.manual_seed(0)
    settings = RUNS[name]()
    criterion = criterion or settings.get('criterion', EMULoss())
    data = make_data()
    if settings.get('weighted'):
        data.edge_weight = torch.linspace(0.1, 5.0, data.num_facts(), dtype=torch.float64)
    reads_graph = name == 'NBFNet'
    if reads_graph:
        data = data.with_inverse_relations()
        model: torch.nn.Module = NBFNet(NUM_RELATIONS, WIDTH, 2).double()
    elif settings.get('encoder'):
        model = RGCN(NUM_NODES, NUM_RELATIONS, WIDTH, num_bases=2, dropout=0.3, margin=2.0).double()
    else:
        model = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH, margin=2.0, sparse=settings.get('sparse', False)).double()
    transform = EMUNegatives(3, **settings['negatives'])
    parameters = [*model.parameters()]
    if isinstance(transform.mutation, torch.nn.Module):
        parameters += transform.mutation.double().parameters()
    make = RowAdagrad if settings.get('sparse') else torch.optim.Adagrad
    loader = TripletLoader(data, 5, shuffle=True, transform=transform, corrupt=settings.get('corrupt', 'alternate'))

    def validate(model: Any) -> Any:
        return evaluate(model.as_ranker(data) if reads_graph else model, data, 'test', batch_size=2)

    # Nothing in a run draws from PyTorch's global stream, of which each process may have another one.
    torch.manual_seed(current()[0])
    options = {'num_steps': 12, 'evaluate_every': 1, 'progress': False, 'validate': validate, 'restore_best': False,
               'schedule': settings.get('schedule'), 'max_grad_norm': settings.get('max_grad_norm'), **options}
    return Trainer(model, criterion, loader, make(parameters, lr=0.1), **options)


def train(name: str) -> dict[str, Any]:
    r"""What a run comes to."""
    trainer = make_trainer(name)
    result = trainer.fit()
    return {'weights': weights(trainer), 'loss': result.history['loss'].tolist(),
            'valid': result.history.filter(like='valid').to_numpy().tolist()}


def weights(trainer: Trainer) -> list[Tensor]:
    r"""All that was learned."""
    mutation, sampler = trainer.loader.transform.mutation, trainer.loader.transform.sampler
    learned = [*mutation.parameters()] if isinstance(mutation, torch.nn.Module) else []
    if isinstance(sampler, DANSSampler) and sampler._game is not None:
        learned += [*sampler._game.generator.parameters(), *sampler._game.discriminator.parameters()]
    return [value.detach().clone() for value in (*trainer.model.parameters(), *learned)]


# What only several processes can come to #####################################


def interrupted(folder: Path) -> dict[str, Any]:
    r"""A run that the last process is told to stop, and that all go on with, beside one that nobody stops."""
    rank, world = current()
    loss = NBFNetEMULoss()

    class Signalling(torch.nn.Module):
        def forward(self, model: torch.nn.Module, batch: Any) -> Tensor:
            if batch.step == 6 and rank == world - 1:  # step 7
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(model, batch)

        def __repr__(self) -> str:  # the run goes on with this one
            return repr(loss)

    message = ''
    try:
        make_trainer('NBFNet', Signalling(), run_dir=folder / 'cut', log_every=50, checkpoint_every=5).fit()
    except TrainingInterrupted as error:
        message = str(error)
    resumed = make_trainer('NBFNet', loss, run_dir=folder / 'cut', checkpoint_every=5)
    for value in resumed.model.parameters():
        value.data.zero_()
    result = resumed.fit(resume=True)
    whole = make_trainer('NBFNet', loss, run_dir=folder / 'whole', checkpoint_every=5)
    expected = whole.fit()
    return {'message': message, 'steps': result.steps, 'loss': result.history['loss'].tolist(),
            'expected': expected.history['loss'].tolist(), 'weights': weights(resumed), 'whole': weights(whole),
            'best': (result.best_step, expected.best_step)}


def errors() -> Iterator[str]:
    r"""What each process raises where only one has a reason to."""
    rank, world = current()

    def diverging(model: torch.nn.Module, batch: Any) -> Tensor:
        loss = EMULoss()(model, batch)
        return loss * float('nan') if batch.step == 3 and rank == world - 1 else loss

    def drawing(model: torch.nn.Module, batch: Any) -> Tensor:
        noise = torch.rand(batch.head_index.numel(), generator=batch.generator)
        return EMULoss()(model, batch) * noise.mean()

    def ranker(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        scores = torch.rand(known.numel(), NUM_NODES)
        if side == 'tail':
            scores[(known == 0) & (rel_type == 0)] = float('nan')
        return scores

    def unwritable() -> None:
        make_trainer('mixup', run_dir=Path(__file__) / 'run').fit()

    def empty() -> None:
        trainer = make_trainer('mixup')
        batch = next(iter(trainer.loader))._cut(slice(0))
        DataParallelLoss(trainer.model, trainer.criterion)(trainer.model, batch)

    for function in (lambda: make_trainer('mixup', diverging).fit(),
                     lambda: make_trainer('mixup', drawing, evaluate_every=4, log_every=4).fit(),
                     lambda: evaluate(ranker, make_data(), 'train', batch_size=1), unwritable, empty,
                     lambda: make_trainer('mixup', graph=True).fit()):
        try:
            function()
            yield 'nothing'
        except PygEmuError as error:
            yield f'{type(error).__name__}: {error}'


class Writes:
    r"""Counts what a process brings to the disk: :obj:`os.fsync` stands at the end of whatever the package writes."""
    def __init__(self) -> None:
        self.count = 0
        self._fsync = os.fsync
        os.fsync = self._counted

    def _counted(self, descriptor: Any) -> None:
        self.count += 1
        self._fsync(descriptor)


def main(folder: Path) -> None:
    r"""All of it, in the process that :obj:`torchrun` would have started."""
    torch.set_num_threads(1)
    writes = Writes()
    with process_group('cpu') as place, use_backend('torch'):
        found = {name: train(name) for name in RUNS}
        assert writes.count == 0
        result = {'world': place.world, 'runs': found, 'interrupted': interrupted(folder), 'writes': writes.count,
                  'errors': [*errors()]}
        torch.save(result, folder / f'{place.rank}.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
