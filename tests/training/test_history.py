from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.history import History, csv_lines, read_csv


def make(steps: int) -> History:
    history = History()
    for step in range(1, steps + 1):
        history.append({'step': step, 'loss': 1.0 / 3.0 / step, 'valid_mrr': 0.1 * step})
    return history


def test_frame() -> None:
    frame = make(3).frame()
    assert frame['step'].tolist() == [1, 2, 3] and frame['step'].dtype == 'int64'
    assert History().frame().empty


def test_csv_reads_as_written(tmp_path: Path) -> None:
    history = make(3)
    (tmp_path / 'history.csv').write_bytes(csv_lines(history.columns, history.rows))
    assert (tmp_path / 'history.csv').read_text().splitlines()[0] == 'step,loss,valid_mrr'
    assert read_csv(tmp_path / 'history.csv') == history.rows


def test_new_and_missing_columns(tmp_path: Path) -> None:
    history = make(1)
    history.append({'step': 2, 'valid_hits': 0.5})
    assert history.columns == ['step', 'loss', 'valid_mrr', 'valid_hits']
    assert math.isnan(history.frame()['valid_hits'][0]) and math.isnan(history.frame()['loss'][1])
    text = csv_lines(history.columns, history.rows)
    assert text.splitlines()[2] == b'2,,,0.5'
    (tmp_path / 'history.csv').write_bytes(text)
    assert read_csv(tmp_path / 'history.csv') == history.rows


def test_state() -> None:
    history, again = make(2), History()
    history.append({'step': 3, 'loss': math.nan, 'new': 7.0})
    again.load_state_dict(history.state_dict())
    assert again.columns == history.columns and again.rows[:2] == history.rows[:2]
    assert math.isnan(again.rows[2]['loss']) and 'valid_mrr' not in again.rows[2] and again.rows[2]['new'] == 7.0
    assert all(isinstance(row['step'], int) for row in again.rows)
    empty = History()
    empty.load_state_dict(History().state_dict())
    assert len(empty) == 0 and empty.columns == []


def test_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    history = make(3)
    path = tmp_path / 'history.csv'
    path.write_bytes(csv_lines(history.columns, history.rows)[:-5])
    assert read_csv(path) == history.rows[:2]


@pytest.mark.parametrize('line', ['3,oops,0.3', '3,0.1', '3,0.1,0.2,0.4', ',0.1,0.2'])
def test_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / 'history.csv'
    path.write_bytes(csv_lines(make(2).columns, make(2).rows) + f'{line}\n'.encode())
    with pytest.raises(CheckpointError, match=rf'history\.csv:4: .*{line}'):
        read_csv(path)


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / 'history.csv').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(CheckpointError, match=r'history\.csv'):
        read_csv(tmp_path / 'history.csv')


def test_a_history_plots_and_shows_itself() -> None:
    pytest.importorskip('matplotlib')
    loss, mrr = make(3).plot().axes
    assert loss.lines[0].get_ydata().tolist() == [1 / 3, 1 / 6, 1 / 9] and mrr.get_ylabel() == 'validation mrr'
    with pytest.raises(ArgumentError, match='rows'):
        History().plot()
    with pytest.raises(ArgumentError, match="'mrr'.*'mr'"):
        make(3).plot('mr')
    assert make(3)._repr_html_().count('<tr') == 4
    with pd.option_context('display.max_rows', 10):
        assert make(100)._repr_html_().count('<tr') < 15
