r"""Recipes and flags of all kinds: exit code 0, or 2 with one sentence; never a traceback."""
from __future__ import annotations

import copy
import os
import random
import re
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml

from pyg_emu.core.errors import DataError
from pyg_emu.experiments.recipe import packaged_recipes, packaged_text
from pyg_emu.ops import use_backend
from tests.robustness.cases import Cases
from tests.robustness.commands import command

#: Of :obj:`make robustness`.
TREES, MUTATED, FLAGS = 300, 400, 300
#: Memory that a case may add before an allocation fails.
ROOM = 3 << 30

SCALARS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 64, 2**31, 2**63, 10**30, 0.0, -0.0, 0.5, 1.0, 1e-8, -0.1, 1e300, float('inf'), float('nan'), True,
    False, None, '', ' ', 'x', 'none', 'null', 'DistMult', 'ComplEx', 'TransE', 'RotatE', 'HAKE', 'NBFNet', 'emu',
    'nbfnet_emu', 'bce', 'margin', 'adam', 'adagrad', 'sgd', 'constant', 'cosine', 'uniform', 'nscaching', 'sans',
    'popularity', 'typed', 'mcns', 'esns_like', 'cans_like',
    'bernoulli', 'exact', 'block', 'learned', 'importance', 'mean', 'sum', 'os:system', 'torch:nope', 'nope.nope:X',
    'a' * 300, 'ü', '../..', '/dev/null', '\0', '-1', '1e5', '0x10', '2024-13-45', '${HOME}', '%s', '{}', [], {}, [1],
    ['x', None], [[]], {'x': 1}, {'name': None}, {'name': 'x'}, {1: 2}, {None: None}, [0.9, 0.999], [0.9])
KEYS = ('base', 'dataset', 'description', 'model', 'negatives', 'loss', 'optimizer', 'schedule', 'batch_size',
        'corrupt', 'num_steps', 'evaluate_every', 'checkpoint_every', 'patience', 'max_seconds', 'max_grad_norm',
        'seed', 'graph', 'evaluation', 'validation', 'inference', 'name', 'hidden_channels', 'sparse', 'reciprocal',
        'num_negatives', 'mutation_rate', 'mask', 'shared', 'sampler', 'mutation', 'filtered', 'alpha', 'beta',
        'regularizer', 'weight', 'margin', 'lr', 'betas', 'weight_decay', 'foreach', 'fused', 'warmup_steps',
        'num_layers', 'aggregation', 'tie', 'max_triples', 'batch_size', 'source', 'header', 'delimiter', 'fractions',
        'start', 'end', 'steps', 'adversarial_temperature', 'cache_size', 'p', 'unknown', '', 'x.y')
FLAG_NAMES = ('--dataset', '--data', '--inference', '--model', '--dim', '--negatives', '--rate', '--loss', '--alpha',
              '--beta', '--l3', '--optimizer', '--lr', '--schedule', '--batch-size', '--steps', '--evaluate-every',
              '--patience', '--seed', '--set', '--recipe', '--run-dir', '--device', '--require-splits', '--nope')
TEXTS = ('0', '1', '-1', '2', '1.5', '1e-3', 'nan', 'inf', '1e400', '99999999999999999999', '', ' ', 'x', 'none',
         'null', 'true', 'DistMult', 'HAKE', 'NBFNet', 'emu', 'adam', 'cosine', '[]', '{}', '{', '[1, 2', '!!int x',
         '!!python/object/apply:os.getcwd []', '&a [*a]', '2024-13-45', 'a: b: c', "'", '\u2028', 'x' * 5000,
         '9' * 5000, 'model=3', 'model.hidden_channels=0', 'negatives.mask=exact', 'negatives.sampler.filtered=true',
         'a.b.c=1', 'loss=', '=1', '.=1', 'model.name', 'dataset.header=maybe', 'dataset.delimiter=5', 'graph=true',
         'optimizer.betas=[0.9]', 'optimizer={foreach: true, fused: true, name: adam, lr: 1}', 'meta', 'cuda:99', 'cpu',
         'train', 'train,test', 'nowhere', '/', '.', '/dev/null', 'distmult-umls-emu', 'nbfnet-umls')


class Reached(BaseException):
    r"""The run would begin to train now."""


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    def reached(*arguments: Any, **options: Any) -> None:
        raise Reached

    def by_name(name: str, *arguments: Any) -> None:
        raise DataError(f'{name} would be downloaded')

    monkeypatch.setattr('pyg_emu.experiments.runs.Trainer.fit', reached)
    monkeypatch.setattr('pyg_emu.data.io.datasets._download', by_name)
    monkeypatch.chdir(tmp_path)
    with use_backend('torch'):
        yield


@contextmanager
def limited_memory() -> Iterator[None]:
    r"""Lets large allocations fail, as on a small machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def check(*arguments: str) -> None:
    with limited_memory():
        try:
            command(*arguments)
        except Reached:
            pass


def tree(rng: random.Random, depth: int = 0) -> Any:
    r"""Random settings."""
    if depth == 3 or (depth > 0 and rng.random() < 0.5):
        return copy.deepcopy(rng.choice(SCALARS))
    return {rng.choice(KEYS): tree(rng, depth + 1) for _ in range(rng.randrange(1, 5))}


def test_random_trees(graph_folder: Path, tmp_path: Path, cases: Cases) -> None:
    rng = cases.random()
    path = tmp_path / 'recipe.yaml'
    for number in range(cases.count(TREES)):
        text = yaml.dump(tree(rng), allow_unicode=True)
        path.write_text(text, encoding='utf-8')
        arguments = ['train', '--recipe', str(path), '--quiet', '--run-dir', str(tmp_path / f'run{number}')]
        if rng.random() < 0.85:
            arguments += ['--data', str(graph_folder)]
        with cases.attempt(text):
            check(*arguments)


def replaced(rng: random.Random, settings: Any) -> Any:
    r"""Settings with one of them replaced, removed, renamed or added."""
    settings = copy.deepcopy(settings)
    target = settings
    while True:
        inner = [value for value in target.values() if isinstance(value, dict) and value]
        if not inner or rng.random() < 0.3:
            break
        target = rng.choice(inner)
    key = rng.choice(list(target))
    kind = rng.random()
    if kind < 0.1:
        del target[key]
    elif kind < 0.2:
        target[rng.choice(KEYS)] = target.pop(key)
    elif kind < 0.4:
        target[rng.choice(KEYS)] = copy.deepcopy(rng.choice(SCALARS))
    else:
        target[key] = copy.deepcopy(rng.choice(SCALARS))
    return settings


def scrambled(rng: random.Random, text: str) -> bytes:
    r"""A text with a few characters changed."""
    content = bytearray(text.encode())
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at:at + rng.randrange(1, 6)]
        elif kind == 2:
            content[at:at] = rng.choice([b'\n', b'  ', b'\t', b': ', b'- ', b'{', b'}', b'[', b'&a ', b'*a', b'!!x ',
                                         b'"', b'\0', b'\xff', b'#', b'|', b'>', b'%', b'---\n', b'...\n', b'? ',
                                         b'9', b'-'])
        else:
            content[at:at] = content[rng.randrange(len(content)):][:rng.randrange(20)]
    return bytes(content)


def test_mutated_recipes(graph_folder: Path, tmp_path: Path, cases: Cases) -> None:
    rng = cases.random()
    names = list(packaged_recipes())
    path = tmp_path / 'recipe.yaml'
    for number in range(cases.count(MUTATED)):
        name = rng.choice(names)
        if rng.random() < 0.6:
            settings = yaml.safe_load(re.sub(r'(\d)e(-?\d)', r'\1.0e\2', packaged_text(name)))
            content = yaml.dump(replaced(rng, settings), allow_unicode=True).encode()
        else:
            content = scrambled(rng, packaged_text(name))
        path.write_bytes(content)
        with cases.attempt((name, content)):
            check('train', '--recipe', str(path), '--data', str(graph_folder), '--quiet', '--run-dir',
                  str(tmp_path / f'run{number}'))


def test_flags(graph_folder: Path, tmp_path: Path, cases: Cases) -> None:
    rng = cases.random()
    known = {'train': FLAG_NAMES,
             'evaluate': ('--run', '--split', '--tie', '--max-triples', '--data', '--set', '--json'),
             'predict': ('--run', '--head', '--relation', '--tail', '-k', '--csv', '--data', '--set'),
             'explain': ('--run', '--head', '--relation', '--tail', '-k', '--out'), 'data': ('--json', '--set'),
             'diff': ('--json', ), 'recipes': ('list', 'show'), '': ('--version', '--help')}
    before = os.getcwd()
    for number in range(cases.count(FLAGS)):
        name = rng.choice(['train'] * 6 + list(known))
        arguments = [name] if name else []
        if name == 'train':
            arguments += ['--data', str(graph_folder), '--quiet', '--run-dir', f'run{number}']
        elif name in ('data', 'diff', 'recipes'):
            arguments += rng.choices(['.', str(graph_folder), 'nowhere', '', 'list', 'show'], k=rng.randrange(3))
        for _ in range(rng.randrange(1, 4)):
            arguments += [rng.choice(known[name]), *rng.choices(TEXTS, k=rng.choice([0, 1, 1, 1, 1]))]
        with cases.attempt(arguments):
            check(*arguments)
        os.chdir(before)
