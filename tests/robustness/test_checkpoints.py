r"""Damage to checkpoints: each changed bit and each cut is noticed."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyg_emu import DistMult
from pyg_emu.core.errors import CheckpointError
from pyg_emu.training.checkpoint import FORMAT, load_checkpoint, load_weights, model_fingerprint, save_checkpoint
from tests.robustness.cases import Cases


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    torch.manual_seed(0)
    model = DistMult(20, 3, 8)
    state = {'step': 3, 'model': model.state_dict(), 'random': {'cpu': torch.get_rng_state()}, 'metrics': {'mrr': 0.5}}
    save_checkpoint(tmp_path / 'good.pt', state, fingerprint=model_fingerprint(model))
    return (tmp_path / 'good.pt').read_bytes()


def test_each_flipped_bit_is_noticed(tmp_path: Path, content: bytes, cases: Cases) -> None:
    path = tmp_path / 'last.pt'
    bits = 8 * len(content)
    tail = range(bits - 8 * 120, bits)  # the digest and what leads to it
    tried = [*tail, *cases.random().sample(range(bits), min(bits, cases.count(20_000, least=200)))]
    for bit in tried:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with cases.attempt(bit), pytest.raises(CheckpointError, match=r'last\.pt'):
            load_checkpoint(path)


def test_each_cut_is_noticed(tmp_path: Path, content: bytes, cases: Cases) -> None:
    path = tmp_path / 'last.pt'
    for size in cases.chosen(range(len(content)), least=50):
        path.write_bytes(content[:size])
        with cases.attempt(size), pytest.raises(CheckpointError, match=r'last\.pt'):
            load_checkpoint(path)
    path.write_bytes(content + b'x')
    with pytest.raises(CheckpointError, match=r'last\.pt'):
        load_checkpoint(path)


def test_checksums_of_older_checkpoints_are_verified(tmp_path: Path, cases: Cases) -> None:
    r"""Format 1 had no digest, but a zip archive has a checksum for each member."""
    model = DistMult(20, 3, 8)
    path = tmp_path / 'last.pt'
    torch.save({'format': FORMAT, 'version': 1, 'fingerprint': model_fingerprint(model),
                'state': {'step': 3, 'model': model.state_dict()}}, path)
    assert load_weights(path, DistMult(20, 3, 8)) == 3
    content = path.read_bytes()
    weights = model.node_emb.weight.detach().numpy().tobytes()
    place = content.index(weights)
    for offset in cases.chosen(range(len(weights)), least=20):
        damaged = bytearray(content)
        damaged[place + offset] ^= 4
        path.write_bytes(damaged)
        with cases.attempt(offset), pytest.raises(CheckpointError, match='checksum'):
            load_checkpoint(path)


@pytest.mark.parametrize('content', [
    {'format': FORMAT, 'version': 1},
    {'format': FORMAT, 'version': 1, 'state': {}, 'fingerprint': {}},
    {'format': FORMAT, 'version': 1, 'state': [], 'fingerprint': {'shapes': {}}},
    {'format': FORMAT, 'version': '1', 'state': {}, 'fingerprint': {'shapes': {}}},
    {'format': FORMAT, 'version': 1, 'state': {}, 'fingerprint': {'shapes': {}, 'model': 'DistMult'}},
    {'format': FORMAT, 'version': 2, 'state': {}, 'fingerprint': {'shapes': {}, 'model': 'DistMult'}},
    {'format': FORMAT, 'version': 1, 'state': {'model': 3, 'step': 1}, 'fingerprint': None},
])
def test_crafted_content(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'last.pt')
    with pytest.raises(CheckpointError, match=r'last\.pt'):
        load_weights(tmp_path / 'last.pt', DistMult(20, 3, 8))


def test_digest_is_returned_and_depends_on_the_values_alone(tmp_path: Path) -> None:
    def save(name: str, key: str, step: int) -> str:
        state = {'step': step, 'rows': [{key: 1.0}, {key: 2.0}]}
        return save_checkpoint(tmp_path / name, state, fingerprint={'shapes': {}})

    one = save('a.pt', 'loss', 1)
    assert save('b.pt', ''.join(['lo', 'ss']), 1) == one != save('c.pt', 'loss', 2)
    assert (tmp_path / 'a.pt').read_bytes() == (tmp_path / 'b.pt').read_bytes()
    assert (tmp_path / 'a.pt').read_bytes().endswith(one.encode())
