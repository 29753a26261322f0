from __future__ import annotations

import errno
import gc
import mmap
import os
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_emu.core import mapped_table
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.mapped_table import (
    copied,
    create,
    create_like,
    folder_of,
    is_mapped,
    open_table,
    read_ahead,
    read_in_order,
    write_table,
)


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


def test_a_table_is_read_in_order_inside_of_a_block(tmp_path: Path) -> None:
    tables = [create((4, 2), torch.float32, tmp_path), open_table(written(tmp_path / 'rows.npy', torch.ones(4, 2)),
                                                                  (4, 2), torch.float32)]

    def advised() -> list[bool]:
        # Of Linux: whether pages are read at random ("rr") or, otherwise, with their neighbours.
        found = []
        for table in tables:
            start = f'{table.untyped_storage().data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE:x}-'
            entry = Path('/proc/self/smaps').read_text().partition(f'\n{start}')[2]
            found.append('rr' in entry.partition('VmFlags:')[2].partition('\n')[0].split())
        return found

    if not Path('/proc/self/smaps').exists():
        pytest.skip('only Linux tells')
    assert advised() == [True, True]
    with read_in_order(*tables, torch.ones(2)):
        assert advised() == [False, False]
        with read_in_order(tables[0]):
            assert advised() == [False, False]
        assert advised() == [False, False]
    assert advised() == [True, True]


def test_rows_are_read_ahead_where_pages_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, memory = create((60, 2000), torch.float32, tmp_path), torch.zeros(60, 2000)
    touched: list[tuple[int, list[int]]] = []

    class Components(np.ndarray):
        def take(self, places: np.ndarray) -> np.ndarray:  # type: ignore[override]
            touched.append((self.size, places.tolist()))
            return super().take(places)

    real = mapped_table._touch
    monkeypatch.setattr(mapped_table, '_touch',
                        lambda components, rows, width: real(components.view(Components), rows, width))
    rows = torch.tensor([[3, 7], [3, 59]])
    monkeypatch.setattr(mapped_table._Waiting, 'look', lambda: False)
    read_ahead(rows, wide, memory)
    assert touched == []
    monkeypatch.setattr(mapped_table._Waiting, 'look', lambda: True)
    read_ahead(rows, wide, memory)
    places = {place for size, part in touched for place in part}
    assert {size for size, _ in touched} == {wide.numel()}
    # 8,000 bytes are on up to three pages of 4 KiB; each page of each row has a place.
    for row in (3, 7, 59):
        pages = {(row * 2000 + component) * 4 // mmap.PAGESIZE for component in range(2000)}
        assert pages == {place * 4 // mmap.PAGESIZE for place in places if row * 2000 <= place < (row + 1) * 2000}


def test_waiting_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([100, 100, 1000, 1001, 5000])
    monkeypatch.setattr(mapped_table._Waiting, 'pages', 100)
    monkeypatch.setattr(mapped_table.resource, 'getrusage',
                        lambda _: types.SimpleNamespace(ru_majflt=next(faults)))
    assert [mapped_table._Waiting.look() for _ in range(5)] == [False, False, True, False, True]
