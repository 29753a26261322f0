from __future__ import annotations

import sys
from pathlib import Path

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
