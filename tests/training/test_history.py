from __future__ import annotations

from pathlib import Path

import pytest

from pyg_emu.core.errors import CheckpointError
from pyg_emu.training.history import History


def write(path: Path, steps: int) -> History:
    history = History(path)
    for step in range(1, steps + 1):
        history.append({'step': step, 'loss': 1.0 / 3.0 / step, 'valid_mrr': 0.1 * step})
    return history


def test_csv_reads_as_written(tmp_path: Path) -> None:
    history = write(tmp_path / 'history.csv', 3)
    again = History(tmp_path / 'history.csv')
    again.resume(3)
    assert again.rows == history.rows
    assert (tmp_path / 'history.csv').read_text().splitlines()[0] == 'step,loss,valid_mrr'
    frame = again.frame()
    assert frame['step'].tolist() == [1, 2, 3] and frame['step'].dtype == 'int64'


def test_resume_cuts_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / 'history.csv'
    write(path, 4)
    history = History(path)
    history.resume(2)
    history.append({'step': 3, 'loss': 7.0, 'valid_mrr': 0.5})
    again = History(path)
    again.resume(100)
    assert [row['loss'] for row in again.rows] == [1.0 / 3.0, 1.0 / 6.0, 7.0]


def test_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / 'history.csv'
    write(path, 3)
    text = path.read_text()
    path.write_text(text[:-5])
    history = History(path)
    history.resume(3)
    assert len(history) == 2
    history.append({'step': 3, 'loss': 1.0 / 9.0, 'valid_mrr': 0.1 * 3})
    assert path.read_text() == text


def test_resume_before_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / 'history.csv'
    write(path, 2)
    history = History(path)
    history.resume(0)
    history.append({'step': 1, 'loss': 1.0})
    assert path.read_text() == 'step,loss\n1,1.0\n'


def test_without_a_file() -> None:
    history = History()
    assert history.frame().empty
    history.append({'step': 1, 'loss': 1.0})
    history.append({'step': 2, 'loss': 0.5})
    history.resume(1)
    assert history.frame()['loss'].tolist() == [1.0]


def test_other_columns() -> None:
    history = History()
    history.append({'step': 1, 'loss': 1.0})
    with pytest.raises(ValueError, match='columns'):
        history.append({'step': 1, 'mrr': 1.0})


def test_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'history.csv'
    write(path, 2)
    path.write_text(path.read_text() + '3,oops,0.3\n')
    with pytest.raises(CheckpointError, match=r'history\.csv:4: .*oops'):
        History(path).resume(3)


def test_unwritable_file(tmp_path: Path) -> None:
    history = History(tmp_path / 'missing' / 'history.csv')
    with pytest.raises(CheckpointError, match='cannot write .*history.csv'):
        history.append({'step': 1, 'loss': 1.0})
