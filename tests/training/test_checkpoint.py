from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_emu.core.errors import CheckpointError
from pyg_emu.training.checkpoint import (
    FORMAT,
    VERSION,
    load_checkpoint,
    load_weights,
    model_fingerprint,
    save_checkpoint,
)


def make_model(width: int = 3) -> torch.nn.Module:
    return torch.nn.Embedding(4, width)


def save(path: Path, model: torch.nn.Module, recipe: str | None = None, step: int = 7) -> None:
    save_checkpoint(path, {'step': step, 'model': model.state_dict()}, fingerprint=model_fingerprint(model, recipe))


def test_round_trip(tmp_path: Path) -> None:
    model, other = make_model(), make_model()
    save(tmp_path / 'last.pt', model)
    assert load_weights(tmp_path / 'last.pt', other) == 7
    assert torch.equal(model.weight, other.weight)
    assert os.listdir(tmp_path) == ['last.pt']


@pytest.mark.parametrize('name, other, state', [('last.pt', 'best.pt', {'metrics': {}}),
                                                ('best.pt', 'last.pt', {'run': {}})])
def test_best_and_last_weights_are_told_apart(tmp_path: Path, name: str, other: str, state: dict[str, Any]) -> None:
    model = make_model()
    for path in (tmp_path / name, tmp_path / 'renamed.pt'):
        save_checkpoint(path, {'step': 7, 'model': model.state_dict(), **state}, fingerprint=model_fingerprint(model))
    assert load_weights(tmp_path / 'renamed.pt', model) == 7
    with pytest.raises(CheckpointError, match=f'{name} .*step 7.*{other}'):
        load_weights(tmp_path / name, model)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'last\.pt .*No such file'):
        load_checkpoint(tmp_path / 'last.pt')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = tmp_path / 'last.pt'
    save(path, make_model())
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r'last\.pt is .*damaged'):
        load_checkpoint(path)


@pytest.mark.parametrize('content, message', [
    (b'', r'last\.pt .*empty'), (b'head\trel\ttail\n', r"last\.pt .*b'head'"),
])
def test_no_torch_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / 'last.pt'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_foreign_dictionary(tmp_path: Path) -> None:
    path = tmp_path / 'model.pt'
    torch.save(make_model().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"^.*\.pt .*'weight'"):
        load_checkpoint(path)
    torch.save(torch.ones(3), path)
    with pytest.raises(CheckpointError, match=r'\.pt .*Tensor'):
        load_checkpoint(path)


def test_foreign_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / 'model.pt'
    torch.save(make_model(), path)
    with pytest.raises(CheckpointError, match=r'\.pt .*objects'):
        load_checkpoint(path)


def test_future_version(tmp_path: Path) -> None:
    path = tmp_path / 'last.pt'
    torch.save({'format': FORMAT, 'version': VERSION + 1, 'whatever': 1}, path)
    with pytest.raises(CheckpointError, match=f'format up to {VERSION}, .*{VERSION + 1};'):
        load_checkpoint(path)


@pytest.mark.parametrize('key, value', [('shapes', {'weight': -1}), ('shapes', {'weight': [torch.tensor([]), 3]}),
                                        ('model', torch.tensor([])), ('recipe', 5)])
def test_broken_fingerprint(tmp_path: Path, key: str, value: object) -> None:
    path, model = tmp_path / 'last.pt', make_model()
    save(path, model)
    content = torch.load(path, weights_only=True)
    content['version'] = 1  # the format without a digest
    content['fingerprint'][key] = value
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf'last\.pt.*fingerprint\.{key}'):
        load_checkpoint(path, expected=model_fingerprint(model))


def test_other_size(tmp_path: Path) -> None:
    save(tmp_path / 'last.pt', make_model(3))
    with pytest.raises(CheckpointError, match=r"\(4, 5\) .*'weight'.*\(4, 3\)"):
        load_weights(tmp_path / 'last.pt', make_model(5))


def test_other_class_and_other_tensors(tmp_path: Path) -> None:
    save(tmp_path / 'last.pt', make_model())
    with pytest.raises(CheckpointError, match='Linear.* Embedding'):
        load_weights(tmp_path / 'last.pt', torch.nn.Linear(3, 4))
    expected = model_fingerprint(make_model())
    expected['shapes']['bias'] = [4]
    with pytest.raises(CheckpointError, match="'bias'"):
        load_checkpoint(tmp_path / 'last.pt', expected=expected)


def test_other_recipe(tmp_path: Path) -> None:
    model = make_model()
    save(tmp_path / 'last.pt', model, recipe='abc')
    with pytest.raises(CheckpointError, match='recipe.* def .* abc'):
        load_checkpoint(tmp_path / 'last.pt', expected=model_fingerprint(model, 'def'))
    load_checkpoint(tmp_path / 'last.pt', expected=model_fingerprint(model))


def test_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / 'last.pt'
    model = make_model()
    save(path, model)
    # A limit on the size of files fails a write half-way, as a full disk does.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r'last\.pt \(File too large\)'):
            save(path, torch.nn.Embedding(4000, 100), step=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_weights(path, model) == 7
    assert os.listdir(tmp_path) == ['last.pt']
