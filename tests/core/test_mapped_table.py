from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_emu.core import mapped_table
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.mapped_table import copied, create, create_like, folder_of, is_mapped, open_table, write_table


def written(path: Path, table: torch.Tensor) -> Path:
    with open(path, 'wb') as file:
        write_table(table, file)
    return path


def test_a_table_for_training_is_in_the_folder_and_has_no_name(tmp_path: Path) -> None:
    table = create((5, 3), torch.float64, tmp_path)
    assert torch.equal(table, torch.zeros(5, 3, dtype=torch.float64)) and [*tmp_path.iterdir()] == []
    parameter = torch.nn.Parameter(table)
    with torch.no_grad():
        parameter[2] += 1.0
    assert table[2].tolist() == [1.0, 1.0, 1.0]  # no copy
    for shown in (table, parameter, parameter.detach(), table[1:3], table.view(-1)):
        assert is_mapped(shown) and folder_of(shown) == tmp_path
    for other in (table.clone(), torch.zeros(5, 3), torch.zeros(2, device='meta'), torch.eye(2).to_sparse()):
        assert not is_mapped(other) and folder_of(other) is None


def test_a_table_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    table = create((5, 3), torch.float32, tmp_path)
    address = table.untyped_storage().data_ptr()
    assert address in mapped_table._mappings
    view = table[2:]
    del table
    assert is_mapped(view)
    del view
    gc.collect()
    assert address not in mapped_table._mappings


def test_tables_beside_a_table(tmp_path: Path) -> None:
    table = create((4, 2), torch.float32, tmp_path).copy_(torch.arange(8.0).view(4, 2))
    moment, other = create_like(table, 0.5), copied(table)
    assert moment.tolist() == [[0.5, 0.5]] * 4 and folder_of(moment) == tmp_path
    table.zero_()
    assert other.tolist() == torch.arange(8.0).view(4, 2).tolist() and folder_of(other) == tmp_path
    assert not is_mapped(copied(torch.ones(2)))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_written_tables(tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_table, '_BLOCK', 64)  # several blocks, the last one not full
    values = torch.randn(7, 3, dtype=dtype)
    path = written(tmp_path / 'rows.npy', create((7, 3), dtype, tmp_path).copy_(values))
    assert np.array_equal(np.load(path), values.numpy())
    opened = open_table(path, (7, 3), dtype)
    assert torch.equal(opened, values) and is_mapped(opened) and folder_of(opened) is None
    content = path.read_bytes()
    opened += 1.0
    assert torch.equal(opened, values + 1.0)
    assert path.read_bytes() == content
    with pytest.raises(ArgumentError, match=r'map_entities\(model, folder\)'):
        create_like(opened)


@pytest.mark.parametrize('damage, facts', [
    (lambda content: content[:-1], 'rows.npy.*size'), (lambda content: content + b'x', 'rows.npy.*size'),
    (lambda content: b'', 'rows.npy'), (lambda content: b'x' * len(content), 'rows.npy'),
    (lambda content: content.replace(b'(4, 2)', b'(2, 4)'), r'\(2, 4\).*\(4, 2\)'),
    (lambda content: content.replace(b'<f4', b'<f2'), 'float16.*float32'),
    (lambda content: content.replace(b'False', b'True '), 'rows.npy')])
def test_files_that_hold_another_table(tmp_path: Path, damage: object, facts: str) -> None:
    path = written(tmp_path / 'rows.npy', torch.zeros(4, 2))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=facts):
        open_table(path, (4, 2), torch.float32)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.npy')
    for name in ('pipe.npy', 'missing.npy'):
        with pytest.raises(CheckpointError, match=name):
            open_table(tmp_path / name, (4, 2), torch.float32)


def test_disks_without_space_and_folders_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match='missing'):
        create((4, 2), torch.float32, tmp_path / 'missing')

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mapped_table.os, 'posix_fallocate', full)
    # Reserved at once: without that, a step would be killed by SIGBUS.
    with pytest.raises(CheckpointError, match=rf'1\.0 GiB.*{tmp_path}.*No space left'):
        create((2**20, 256), torch.float32, tmp_path)
