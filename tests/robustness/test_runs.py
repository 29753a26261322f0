r"""Damage to the files of a run folder: noticed, mended, or of no consequence, but never another result."""
from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import types
import zipfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import torch

from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint, save_checkpoint
from tests.robustness.cases import Cases
from tests.robustness.commands import Outcome, command

#: Of :obj:`make robustness`.
FLIPS, CUTS, CRAFTED, STATES = 2_000, 300, 300, 400
SHARDS = 4
FILES = ('best.pt', 'last.pt', 'history.csv', 'metrics.json', 'recipe.yaml', 'trained_on.json', 'run.json',
         'versions.json')
CHECKPOINTS = FILES[:2]
#: What a resumed run writes, whatever has happened to it before.
RESULTS = ('best.pt', 'last.pt', 'history.csv', 'metrics.json')
#: People edit it, so that each of its bytes may mean something else. What decides the weights is compared.
EDITED = 'recipe.yaml'


@pytest.fixture(scope='module', autouse=True)
def same_time_everywhere() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, use_backend('torch'):
        patch.setattr('pyg_emu.training.trainer.time', types.SimpleNamespace(perf_counter=lambda: 0.0))
        patch.setattr('pyg_emu.training.run_folder._commit', lambda: None)
        yield


class Run:
    r"""A run folder, and what an undisturbed run makes of it.

    Args:
        root (Path): A folder of its own.
    """
    def __init__(self, root: Path) -> None:
        rng = random.Random(0)
        facts = sorted({(rng.randrange(12), rng.randrange(3), rng.randrange(12)) for _ in range(150)})
        rng.shuffle(facts)
        (root / 'graph').mkdir(parents=True)
        for split, rows in (('train', facts[:100]), ('valid', facts[100:112]), ('test', facts[112:])):
            lines = [f'e{head}\tr{relation}\te{tail}\n' for head, relation, tail in rows]
            (root / 'graph' / f'{split}.txt').write_text(''.join(lines))
        self.whole, self.damaged, finished = root / 'whole', root / 'damaged', root / 'finished'
        begun = command('train', '--data', str(root / 'graph'), '--dim', '4', '--negatives', '3', '--batch-size', '40',
                        '--evaluate-every', '2', '--steps', '4', '--run-dir', str(self.whole), '--quiet')
        assert begun.code == 0, begun
        self.ranking = self.evaluate(self.whole).output
        shutil.copytree(self.whole, finished)
        assert self.resume(finished).code == 0
        self.expected = {name: (finished / name).read_bytes() for name in RESULTS}

    def prepare(self) -> Path:
        r"""The folder to damage, as good as new."""
        shutil.rmtree(self.damaged, ignore_errors=True)
        shutil.copytree(self.whole, self.damaged)
        return self.damaged

    @staticmethod
    def evaluate(folder: Path) -> Outcome:
        return command('evaluate', '--run', str(folder), '--json', '--quiet')

    @staticmethod
    def resume(folder: Path) -> Outcome:
        return command('train', '--run-dir', str(folder), '--steps', '6', '--quiet')

    def check(self, name: str, strict: bool = True) -> None:
        r"""Uses the folder after damage to one of its files.

        Args:
            name (str): The file.
            strict (bool): Whether a use that goes on must come to what it comes to without damage.
        """
        evaluated = self.evaluate(self.damaged)
        if evaluated.refused:
            assert name in evaluated.errors or name not in CHECKPOINTS, evaluated
        elif strict and name != EDITED:
            assert evaluated.output == self.ranking, 'another ranking'
        resumed = self.resume(self.damaged)
        if resumed.refused:
            assert name in resumed.errors or name not in CHECKPOINTS, resumed
        elif name != EDITED:
            found = {name: (self.damaged / name).read_bytes() for name in RESULTS}
            others = [name for name in RESULTS if found[name] != self.expected[name]]
            assert not strict or not others, others
        else:  # its settings of observation may have changed; the weights may not
            state = load_checkpoint(self.damaged / 'last.pt')
            for key, value in load_checkpoint_bytes(self.expected['last.pt'], self.damaged)['model'].items():
                assert torch.equal(state['model'][key], value), 'other weights'


def load_checkpoint_bytes(content: bytes, folder: Path) -> dict[str, Any]:
    path = folder.parent / 'expected.pt'
    path.write_bytes(content)
    return load_checkpoint(path)


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp('runs'))


@pytest.mark.parametrize('shard', range(SHARDS))
def test_flipped_bits(run: Run, cases: Cases, shard: int) -> None:
    rng = cases.random()
    for _ in range(cases.count(FLIPS // SHARDS)):
        path = run.prepare() / rng.choice(FILES)
        content = bytearray(path.read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        around = bytes(content[max(0, bit // 8 - 30):bit // 8 + 30])
        with cases.attempt((path.name, bit, around)):
            run.check(path.name)


def test_cuts(run: Run, cases: Cases) -> None:
    rng = cases.random()
    for _ in range(cases.count(CUTS)):
        path = run.prepare() / rng.choice(FILES)
        size = rng.choice([0, rng.randrange(path.stat().st_size)])
        os.truncate(path, size)
        with cases.attempt((path.name, size)):
            run.check(path.name)


class Code:
    r"""Creates a file when it is unpickled."""
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker), )


def repacked(content: bytes, change: Callable[[dict[str, bytes]], Any], compression: int = zipfile.ZIP_STORED) -> bytes:
    r"""A zip archive with other members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def crafted(rng: random.Random, path: Path, marker: Path) -> tuple[str, bool]:
    r"""Puts something else in the place of a checkpoint; says what, and whether that must be refused."""
    content = path.read_bytes()
    pickled = pickle.dumps(Code(marker))
    root = zipfile.ZipFile(io.BytesIO(content)).namelist()[0].partition('/')[0]

    def saved(value: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    state = torch.load(path, weights_only=True)
    makers: dict[str, Callable[[], bytes]] = {
        'code alone': lambda: saved(Code(marker)),
        'code among the state': lambda: saved({**state, 'state': {**state['state'], 'more': Code(marker)}}),
        'code in format 1': lambda: saved({**state, 'version': 1, 'fingerprint': Code(marker)}),
        'code instead of the pickle': lambda: repacked(content, lambda all: all.update({f'{root}/data.pkl': pickled})),
        'a bare pickle': lambda: pickled,
        'a pickle of the old kind': lambda: saved_legacy({**state, 'more': Code(marker)}),
        'another member': lambda: repacked(content, lambda all: all.update({f'{root}/more': b'x' * rng.randrange(99)})),
        'a member outside': lambda: repacked(content, lambda all: all.update({'../../more': b'x'})),
        'a constants.pkl': lambda: repacked(content, lambda all: all.update({f'{root}/constants.pkl': pickled})),
        'no pickle': lambda: repacked(content, lambda all: all.pop(f'{root}/data.pkl')),
        'a member less': lambda: repacked(content, lambda all: all.pop(rng.choice(list(all)))),
        'members exchanged': lambda: repacked(content, lambda all: all.update(shuffled(rng, all))),
        'a large member': lambda: repacked(content, lambda all: all.update({f'{root}/data/0': bytes(1 << 26)}),
                                           zipfile.ZIP_DEFLATED),
        'an empty archive': lambda: repacked(content, dict.clear),
        'a text file': lambda: b'PK\x03\x04 is how an archive begins',
        'a tensor': lambda: saved(torch.zeros(3)),
        'weights alone': lambda: saved(state['state']['model']),
        'a file in a file': lambda: repacked(content, lambda all: all.update({f'{root}/data.pkl': content})),
        'twice': lambda: content + content,
        'something before it': lambda: b'#!/bin/sh\n' + content,
    }
    kind = rng.choice(list(makers))
    path.write_bytes(makers[kind]())
    return kind, path.read_bytes() != content and kind != 'twice'


def saved_legacy(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def shuffled(rng: random.Random, members: dict[str, bytes]) -> dict[str, bytes]:
    values = list(members.values())
    rng.shuffle(values)
    return dict(zip(members, values))


def test_crafted_archives(run: Run, cases: Cases) -> None:
    rng = cases.random()
    for number in range(cases.count(CRAFTED, least=10)):
        path = run.prepare() / rng.choice(CHECKPOINTS)
        marker = run.damaged.parent / f'marker{number}'
        with cases.attempt((path.name, number)):
            kind, must_be_refused = crafted(rng, path, marker)
            try:
                run.check(path.name)
                resumed = run.resume(run.damaged)
                assert resumed.refused or not must_be_refused
                assert not marker.exists(), 'the code has run'
            except AssertionError as error:
                raise AssertionError(f'{kind}: {error}') from error


def changed(rng: random.Random, value: Any, depth: int = 0) -> Any:
    r"""A copy of nested values with one of them replaced, removed or added."""
    others = [None, True, -1, 2**70, 1.5, float('nan'), '', 'x', [], {}, [1], {'x': 1}, torch.zeros(0),
              torch.full((3, ), float('nan')), torch.zeros(12, 4)]
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if kind < 0.15:
            return {**value, 'strange': rng.choice(others)}
        return {**value, key: changed(rng, value[key], depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], changed(rng, value[at], depth + 1), *value[at + 1:]]
    return rng.choice(others)


def test_other_content_of_intact_files(run: Run, cases: Cases) -> None:
    r"""Files that are whole, but hold values that no run would write."""
    rng = cases.random()
    names = (*CHECKPOINTS, 'metrics.json', 'trained_on.json', 'run.json', 'versions.json')
    for _ in range(cases.count(STATES)):
        path = run.prepare() / rng.choice(names)
        if path.name in CHECKPOINTS:
            content = torch.load(path, weights_only=True)
            value = changed(rng, {key: content[key] for key in ('fingerprint', 'state')})
            if not isinstance(value, dict):
                continue
            save_checkpoint(path, value.get('state'), fingerprint=value.get('fingerprint'))  # type: ignore[arg-type]
        else:
            value = changed(rng, json.loads(path.read_text()))
            path.write_text(json.dumps(value, default=str))
        with cases.attempt((path.name, differences(json_or_none(run.whole / path.name), value))):
            # A changed value that fits is another checkpoint, and not a damaged one.
            run.check(path.name, strict=False)


def json_or_none(path: Path) -> Any:
    if path.suffix == '.json':
        return json.loads(path.read_text())
    content = torch.load(path, weights_only=True)
    return {key: content[key] for key in ('fingerprint', 'state')}


def differences(one: Any, other: Any, place: str = '') -> str:
    r"""Where nested values differ, for messages."""
    if isinstance(one, dict) and isinstance(other, dict):
        return ' '.join(differences(one.get(key), other.get(key), f'{place}.{key}')
                        for key in dict.fromkeys([*one, *other]) if one.get(key) is not other.get(key))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return ' '.join(differences(a, b, f'{place}.{number}') for number, (a, b) in enumerate(zip(one, other)))
    if type(one) is type(other) and repr(one) == repr(other):
        return ''
    return f'{place}: {other!r:.80}, not {one!r:.80}'


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('kind', ['a folder', 'a pipe', 'gone'])
def test_other_kinds_of_files(run: Run, cases: Cases, name: str, kind: str) -> None:
    path = run.prepare() / name
    path.unlink()
    if kind == 'a folder':
        path.mkdir()
    elif kind == 'a pipe':
        os.mkfifo(path)
    with cases.attempt((name, kind)):
        run.check(name)
