from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.io.frames import write_table

FRAME = pd.DataFrame({'head': ['ä', 'b,"c'], 'rank': [1, 2], 'score': [0.5, -1.25]})


@pytest.mark.parametrize('name', ['a.csv', 'a.tsv', 'a.txt', 'a.jsonl', 'a.parquet', 'A.CSV'])
def test_tables_are_read_back(tmp_path: Path, name: str) -> None:
    if name.endswith('parquet'):
        pytest.importorskip('pyarrow')
    path = write_table(FRAME, 'output', tmp_path / name)
    readers = {'.csv': pd.read_csv, '.jsonl': lambda path: pd.read_json(path, lines=True), '.parquet': pd.read_parquet}
    reader = readers.get(path.suffix.lower(), lambda path: pd.read_csv(path, sep='\t'))
    pd.testing.assert_frame_equal(reader(path), FRAME, check_dtype=False)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_json_lines_keep_all_digits(tmp_path: Path) -> None:
    scores = [1.23456789012345e-9, 1e-300, 0.1 + 0.2, -1e22, math.nan, math.inf, -math.inf]
    labels = ['ä', '"\n', '\ud800', None, pd.NA, '/', 'null']
    frame = pd.DataFrame({'label': pd.Series(labels, dtype=object), 'score': scores, 'known': [True] * 6 + [False],
                          'rank': range(7), 'single': np.array(scores, np.float32),
                          3: pd.Series([np.float64(0.1), np.int64(2), np.True_, None, 'x', 1, 2.5], dtype=object)})
    lines = write_table(frame, 'output', tmp_path / 'a.jsonl').read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    finite = [score if math.isfinite(score) else None for score in scores]
    assert [row['score'] for row in rows] == finite
    assert [row['label'] for row in rows] == ['ä', '"\n', '\ud800', None, None, '/', 'null']
    assert rows[0]['known'] is True and rows[6]['rank'] == 6 and rows[5]['single'] is None
    assert np.float32(rows[0]['single']) == frame['single'][0]
    assert [row['3'] for row in rows] == [0.1, 2, True, None, 'x', 1, 2.5]


def test_bad_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / 'a.xlsx', tmp_path / 'missing' / 'a.csv', ''):
        with pytest.raises(ArgumentError, match='output: '):
            write_table(FRAME, 'output', path)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match=r'output: .*a.parquet.*pip install pyarrow.*\.csv'):
        write_table(FRAME, 'output', tmp_path / 'a.parquet')
    (tmp_path / 'a.csv').mkdir()
    with pytest.raises(CheckpointError, match='a.csv'):
        write_table(FRAME, 'output', tmp_path / 'a.csv')
