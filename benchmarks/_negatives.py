r"""The ways to get negatives that :mod:`benchmarks.negatives` compares: their recipes, and the settings to search.

All are changes to one recipe: DistMult with uniform negatives and cross-entropy, and a penalty of L3. A way is one line
in :data:`METHODS`. With EMU on top, :data:`EMU` is laid over it.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional

from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.names import class_names
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.tuning.space import SearchSpace, load_space

#: A recipe without a limit of steps: the time decides.
_ENDLESS = 1_000_000
#: EMU, with the values of its authors' scripts and one mask per triple.
EMU: dict[str, Any] = {'loss': {'name': 'emu', 'alpha': 0.11, 'beta': 0.53}, 'negatives': {'mutation_rate': 0.3}}
#: The settings of EMU that are searched.
EMU_SEARCH: dict[str, Any] = {'loss.alpha': {'low': 0.01, 'high': 1.0, 'log': True},
                              'loss.beta': {'low': 0.05, 'high': 1.0},
                              'negatives.mutation_rate': {'low': 0.05, 'high': 0.95}}
#: The settings that are searched for every method.
SHARED_SEARCH: dict[str, Any] = {'optimizer.lr': {'factor': 5},
                                 'loss.regularizer.weight': {'low': 1e-7, 'high': 1e-3, 'log': True}}
_SHARE = {'low': 0.0, 'high': 1.0}
_RATE = {'low': 1e-4, 'high': 1e-2, 'log': True}
_TEMPERATURE = {'low': 0.1, 'high': 2.0, 'log': True}


@dataclass(frozen=True)
class Method:
    r"""A way to get negatives.

    Args:
        title (str): The name in tables.
        changes (dict): The changes to the recipe of uniform negatives.
        search (dict, optional): Its own settings to search, as in a search space. (default: none)
        emu (dict, optional): What is laid over it to put EMU on top. (default: :data:`EMU`)
        emu_search (dict, optional): The settings to search with EMU on top, beside those of :obj:`search` that the
            recipe still has. (default: :data:`EMU_SEARCH`)
        no_emu (str, optional): Why EMU cannot be put on top, or which method it would be. (default: :obj:`None`)
    """
    title: str
    changes: dict[str, Any]
    search: dict[str, Any] = field(default_factory=dict)
    emu: dict[str, Any] = field(default_factory=lambda: EMU)
    emu_search: dict[str, Any] = field(default_factory=lambda: EMU_SEARCH)
    no_emu: Optional[str] = None


@dataclass(frozen=True)
class Setting:
    r"""What all methods share on a dataset.

    Args:
        base (dict): The recipe of uniform negatives.
        seconds (float): The seconds of training steps of a run.
        search_seconds (float): Those of a trial of the search.
        seeds (int): The number of seeds.
        steps (int): The number of steps at which methods are compared at equal steps.
    """
    base: dict[str, Any]
    seconds: float
    search_seconds: float
    seeds: int
    steps: int


def _sampler(name: str, **settings: Any) -> dict[str, Any]:
    return {'negatives': {'sampler': {'name': name, **settings}}}


def _searched(**settings: Any) -> dict[str, Any]:
    return {f'negatives.sampler.{key}': value for key, value in settings.items()}


def _choices(*values: Any) -> dict[str, Any]:
    return {'choices': list(values)}


#: All methods by their name on the command line and in files.
METHODS: dict[str, Method] = {
    'uniform': Method('uniform', {}, no_emu='it is EMU'),
    'filtered': Method('filtered', _sampler('uniform', filtered=True)),
    'bernoulli': Method('Bernoulli', {'corrupt': 'bernoulli'}),
    'popularity': Method('popularity', _sampler('popularity'), _searched(power=_SHARE, uniform=_SHARE)),
    'typed': Method('typed', _sampler('typed', uniform=0.5), _searched(uniform=_SHARE)),
    'shared': Method('shared', _sampler('shared_negatives'),
                     {**_searched(chunk_size=_choices(50, 250)), 'negatives.num_negatives': {'factor': 4}}),
    'self-adversarial': Method(
        'self-adversarial', {'loss': {'name': 'self_adversarial', 'temperature': 1.0}},
        {'loss.temperature': _TEMPERATURE},
        {'loss': {'name': 'emu_bce', 'adversarial_temperature': 1.0}, 'negatives': {'mutation_rate': 0.3}},
        {'loss.adversarial_temperature': {'low': 0.5, 'high': 10.0, 'log': True}, **EMU_SEARCH}),
    'sans': Method('SANS', _sampler('sans'), _searched(num_hops=_choices(1, 2, 3))),
    'nscaching': Method('NSCaching', _sampler('nscaching'), _searched(
        cache_size={'low': 10, 'high': 100, 'log': True}, lazy_update=_choices(0, 1))),
    'mcns': Method('MCNS', _sampler('mcns'), _searched(alpha=_SHARE, burn_in=_choices(5, 10, 20))),
    'esns-like': Method('ESNSLike', _sampler('esns_like'), _searched(
        context=_choices('fact', 'relation'), uniform=_SHARE)),
    'cans-like': Method('CANSLike', _sampler('cans_like'), _searched(uniform=_SHARE)),
    'kbgan': Method('KBGAN', {'negatives': {'num_negatives': 20, 'sampler': {'name': 'kbgan', 'num_candidates': 128}}},
                    _searched(num_candidates=_choices(32, 128), lr=_RATE)),
    'dans': Method('DANS', {'negatives': {'num_negatives': 20, 'sampler': {'name': 'dans'}}},
                   _searched(film_weight={'low': 1e-6, 'high': 1e-2, 'log': True}, generator_lr=_RATE)),
    'mixup': Method(
        'Mixup', {'loss': EMU['loss'], 'negatives': {'mutation': {'name': 'mixup', 'alpha': 2.0, 'beta': 1.0}}},
        {'loss.alpha': EMU_SEARCH['loss.alpha'], 'loss.beta': EMU_SEARCH['loss.beta'],
         'negatives.mutation.alpha': {'low': 0.5, 'high': 4.0}},
        no_emu='it takes the place of the mutation'),
    'demix': Method(
        'DeMix', {'loss': {'name': 'demix', 'temperature': 1.0}, 'negatives': {'mutation': {'name': 'demix'}}},
        {'loss.temperature': _TEMPERATURE, 'negatives.mutation.delta': _choices(0.0, 0.1, 1.0),
         'negatives.mutation.mu': _choices(1, 3, 5)},
        no_emu='it takes the place of the mutation'),
    'uls': Method('ULS alone', {'loss': EMU['loss']}, {key: EMU_SEARCH[key] for key in ('loss.alpha', 'loss.beta')},
                  no_emu='it is EMU'),
    'emu': Method('EMU', EMU, EMU_SEARCH, no_emu='it is EMU'),
    'one-vs-all': Method(
        '1-vs-all', {'loss': {'name': 'one_vs_all'}, 'negatives': {'num_negatives': 1}},
        emu={'loss': {**EMU['loss'], 'name': 'one_vs_all_emu'}, 'negatives': {'mutation_rate': 0.3}}),
}

_BASE: dict[str, Any] = {
    'model': {'name': 'DistMult', 'hidden_channels': 100}, 'corrupt': 'alternate',
    'negatives': {'mutation_rate': 0.0},
    'loss': {'name': 'cross_entropy', 'regularizer': {'name': 'l3', 'weight': 1e-5}},
    'optimizer': {'name': 'adagrad', 'lr': 0.1}, 'num_steps': _ENDLESS}
#: What is shared on each dataset.
SETTINGS: dict[str, Setting] = {
    'UMLS': Setting({**_BASE, 'dataset': 'UMLS', 'negatives': {**_BASE['negatives'], 'num_negatives': 64},
                     'batch_size': 500, 'evaluate_every': 25, 'checkpoint_every': 500}, 20.0, 10.0, 5, 1000),
    'FB15k-237': Setting({**_BASE, 'dataset': 'FB15k-237', 'negatives': {**_BASE['negatives'], 'num_negatives': 256},
                          'batch_size': 1000, 'evaluate_every': 100, 'checkpoint_every': 500,
                          'validation': {'max_triples': 2000}},
                         300.0, 60.0, 3, 2000),
    # For tests.
    'Nations': Setting({**_BASE, 'dataset': 'Nations', 'model': {'name': 'DistMult', 'hidden_channels': 4},
                        'negatives': {**_BASE['negatives'], 'num_negatives': 4}, 'batch_size': 200, 'num_steps': 6,
                        'evaluate_every': 2}, 60.0, 60.0, 1, 4),
}


@dataclass(frozen=True)
class Variant:
    r"""A method, alone or with EMU on top.

    Args:
        name (str): The name of the method.
        with_emu (bool): Whether EMU is on top.
    """
    name: str
    with_emu: bool

    @property
    def method(self) -> Method:
        r"""The method."""
        return METHODS[self.name]

    @property
    def key(self) -> str:
        r"""The name in files and on the command line."""
        return f'{self.name}-emu' if self.with_emu else self.name

    @property
    def title(self) -> str:
        r"""The name in tables."""
        return f'{self.method.title} + EMU' if self.with_emu else self.method.title

    def missing(self) -> Optional[str]:
        r"""Returns which class this version of the package lacks, or :obj:`None` if it has all."""
        negatives = self.method.changes.get('negatives', {})
        for kind in ('sampler', 'mutation'):
            name = negatives.get(kind, {}).get('name')
            if name is not None and name not in class_names(kind):
                return f'there is no {kind} named {name}'
        return None

    def recipe(self, dataset: str) -> Recipe:
        r"""Returns the recipe before the search, without a time limit."""
        layers = [self.method.changes, *([self.method.emu] if self.with_emu else [])]
        return load_recipe(SETTINGS[dataset].base, [Layer(_copied(layer)) for layer in layers])

    def space(self, recipe: Recipe) -> SearchSpace:
        r"""Returns the settings to search: those of all methods, those of this one, and with EMU on top those of EMU.
        """
        known = recipe.to_dict()
        own = {key: value for key, value in self.method.search.items() if not self.with_emu or _has(known, key)}
        return load_space({**SHARED_SEARCH, **own, **(self.method.emu_search if self.with_emu else {})})


def variants() -> Iterator[Variant]:
    r"""Yields all methods, each alone and, where possible, with EMU on top."""
    for name, method in METHODS.items():
        yield Variant(name, False)
        if method.no_emu is None:
            yield Variant(name, True)


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in settings.items()}


def _has(settings: Any, key: str) -> bool:
    for part in key.split('.'):
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True
