r"""The contenders of :mod:`benchmarks.headline`: DistMult on the same data, trained by this package and by PyKEEN.

Each contender performs complete training steps, saves its state, and provides its embeddings to the same ranking code.
All use PyTorch's fused Adagrad with learning rate 0.1 on dense tables with 100 components.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator

import torch

from pyg_emu import DistMult, KGData, TripletLoader
from pyg_emu.experiments.build import build, fused_by_default
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.models import Reciprocal

LEARNING_RATE, SEED = 0.1, 0


@dataclass(frozen=True)
class Sizes:
    r"""The shared sizes of all contenders.

    Args:
        batch_size (int): The number of positive triples per step.
        num_negatives (int): The number of negatives per triple, for sampled negatives.
        channels (int): The number of components of an embedding.
        pairs (int): The number of (entity, relation) pairs per step, for scores against all entities.
    """
    batch_size: int = 1000
    num_negatives: int = 256
    channels: int = 100
    pairs: int = 256


class Ours:
    r"""A packaged recipe, trained step by step.

    Args:
        recipe (str): The name of the recipe.
        data (KGData): The data.
        sizes (Sizes): The sizes.
    """
    def __init__(self, recipe: str, data: KGData, sizes: Sizes) -> None:
        settings = load_recipe({'base': recipe, 'seed': SEED, 'batch_size': sizes.batch_size,
                                'model': {'hidden_channels': sizes.channels}, 'optimizer': {'lr': LEARNING_RATE},
                                'negatives': {'num_negatives': sizes.num_negatives}})
        torch.manual_seed(SEED)
        self.model: Any = build('model', settings.model, num_nodes=data.num_nodes, num_relations=data.num_relations)
        self.optimizer: Any = build('optimizer', {**fused_by_default(settings.model, settings.optimizer),
                                                  **settings.optimizer}, params=[*self.model.parameters()])
        self.criterion = build('loss', settings.loss)
        self.loader = TripletLoader(data, settings.batch_size, shuffle=True, corrupt=settings.corrupt, seed=SEED,
                                    transform=build('negatives', settings.negatives))
        self.batches = self.loader.batches()
        self.settings = {'library': 'pyg_emu', **settings.decisive()}

    def step(self) -> None:
        r"""Performs one training step."""
        batch = next(self.batches)
        self.optimizer.zero_grad()
        self.criterion(self.model, batch).backward()
        self.optimizer.step()

    def scorer(self) -> torch.nn.Module:
        r"""Returns the current model for ranking."""
        return self.model

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the training state."""
        return {'model': self.model.state_dict(), 'optimizer': self.optimizer.state_dict(),
                'loader': self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Restores the training state."""
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.loader.load_state_dict(state['loader'])
        self.batches = self.loader.batches()


class PyKEEN:
    r"""PyKEEN's DistMult with PyKEEN's training loop: its loader, sampler, loss and forward pass.

    Its unit-norm constraint and its L2 regularizer are disabled. Under a softmax with temperature 1, the constraint
    bounds all scores, so that the model cannot fit the data.

    Args:
        data (KGData): The data.
        sizes (Sizes): The sizes.
        loss (str): The PyKEEN name of the loss.
        one_to_all (bool): If set to :obj:`True`, scores pairs against all entities (LCWA) with inverse relations.
            Otherwise uses sampled negatives (sLCWA with the basic sampler, which corrupts heads and tails equally).
    """
    def __init__(self, data: KGData, sizes: Sizes, loss: str = 'crossentropy', one_to_all: bool = False) -> None:
        from pykeen.losses import loss_resolver
        from pykeen.models import DistMult as Model
        from pykeen.training import LCWATrainingLoop, SLCWATrainingLoop
        from pykeen.triples import CoreTriplesFactory

        torch.manual_seed(SEED)
        factory = CoreTriplesFactory(data.facts('train').contiguous(), data.num_nodes, data.num_relations,
                                     create_inverse_triples=one_to_all)
        self.one_to_all = one_to_all
        self.model: Any = Model(triples_factory=factory, embedding_dim=sizes.channels, loss=loss_resolver.make(loss),
                                entity_constrainer=None, regularizer=None, random_seed=SEED)
        self.optimizer = torch.optim.Adagrad(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        shared: dict[str, Any] = {'model': self.model, 'triples_factory': factory, 'optimizer': self.optimizer}
        if one_to_all:
            self.loop: Any = LCWATrainingLoop(**shared)
        else:
            self.loop = SLCWATrainingLoop(**shared, negative_sampler='basic',
                                          negative_sampler_kwargs={'num_negs_per_pos': sizes.num_negatives})
        size = sizes.pairs if one_to_all else sizes.batch_size
        options = {'shuffle': True} if one_to_all else {}  # The sLCWA loader always shuffles.
        self.loader = self.loop._create_training_data_loader(factory, sampler=None, batch_size=size, drop_last=True,
                                                             **options)
        self.batches = self._endless()
        self.settings = {'library': 'PyKEEN', 'loop': type(self.loop).__name__, 'loss': type(self.model.loss).__name__,
                         'batch_size': size, 'negatives': 'all entities' if one_to_all else sizes.num_negatives,
                         'sampler': None if one_to_all else 'basic', 'inverse_triples': one_to_all,
                         'channels': sizes.channels, 'optimizer': {'name': 'adagrad', 'lr': LEARNING_RATE}}

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def step(self) -> None:
        r"""Performs one training step."""
        batch = next(self.batches)
        size = self.loop._get_batch_size(batch)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.loop._forward_pass(batch, 0, size, size, 0.0, None)
        self.optimizer.step()
        self.model.post_parameter_update()

    def scorer(self) -> torch.nn.Module:
        r"""Returns a DistMult model of this package with PyKEEN's embeddings. PyKEEN's relation r is row 2r and its
        inverse is row 2r + 1.
        """
        with torch.no_grad():
            entities = self.model.entity_representations[0]().detach()
            relations = self.model.relation_representations[0]().detach()
            if self.one_to_all:
                relations = torch.cat([relations[0::2], relations[1::2]])
            model = DistMult(entities.size(0), relations.size(0), entities.size(1))
            model.node_emb.weight.copy_(entities)
            model.rel_emb.weight.copy_(relations)
        return Reciprocal(model) if self.one_to_all else model

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the training state without the position in the epoch. A restored run starts a new epoch."""
        return {'model': self.model.state_dict(), 'optimizer': self.optimizer.state_dict(),
                'random': torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Restores the training state."""
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        torch.set_rng_state(state['random'])
        self.batches = self._endless()


#: The caption and the factory of each contender.
CONTENDERS: dict[str, tuple[str, Callable[[KGData, Sizes], Any]]] = {
    'emu': ('pyg_emu, EMU, one mask per triple, 256 negatives',
            lambda data, sizes: Ours('distmult-fb15k237-emu', data, sizes)),
    'uniform': ('pyg_emu, uniform + L3, 256 negatives',
                lambda data, sizes: Ours('distmult-fb15k237-uniform', data, sizes)),
    'pykeen': ('PyKEEN, sLCWA, cross-entropy, 256 negatives', lambda data, sizes: PyKEEN(data, sizes)),
    'pykeen-lcwa': ('PyKEEN, LCWA (1-N), cross-entropy, inverse relations',
                    lambda data, sizes: PyKEEN(data, sizes, one_to_all=True)),
    # Other losses of PyKEEN, not run by default.
    'pykeen-infonce': ('PyKEEN, sLCWA, InfoNCE, 256 negatives', lambda data, sizes: PyKEEN(data, sizes, 'infonce')),
    'pykeen-nssa': ('PyKEEN, sLCWA, NSSA, 256 negatives', lambda data, sizes: PyKEEN(data, sizes, 'nssa')),
}
#: The contenders that run by default.
DEFAULT = ('emu', 'uniform', 'pykeen', 'pykeen-lcwa')
