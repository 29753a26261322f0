from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.io.vectors import read_vectors, write_vectors

ROWS = np.array([[0.5, -1.25], [1e-7, 3.0], [2.0, 1 / 3]], dtype=np.float32)
VECTORS = pd.DataFrame(ROWS, index=pd.Index(['ann', 'bob', 'Zoë'], name='entity'))


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip('pyarrow')
    found = pd.read_parquet(write_vectors(VECTORS, tmp_path / 'a.parquet'))
    assert list(found.columns) == ['entity', '0', '1'] and found['entity'].tolist() == list(VECTORS.index)
    assert np.array_equal(found[['0', '1']], ROWS)


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip('safetensors')
    path = write_vectors(VECTORS, tmp_path / 'a.safetensors')
    with safetensors.safe_open(path, 'numpy') as file:
        assert np.array_equal(file.get_tensor('vectors'), ROWS)
        assert json.loads(file.metadata()['labels']) == list(VECTORS.index) and file.metadata()['kind'] == 'entity'


@pytest.mark.parametrize('name', ['a.txt', 'a.vec'])
def test_word2vec(tmp_path: Path, name: str) -> None:
    lines = write_vectors(VECTORS, tmp_path / name).read_text().splitlines()
    assert lines[0] == '3 2' and [line.split()[0] for line in lines[1:]] == list(VECTORS.index)
    read = np.array([line.split()[1:] for line in lines[1:]], dtype=np.float32)
    assert np.array_equal(read, ROWS)


def test_projector(tmp_path: Path) -> None:
    vectors = VECTORS.set_axis(['a label, with "marks"', 'bob', 'Zoë'])
    folder = write_vectors(vectors, tmp_path / 'projector')
    assert np.array_equal(np.loadtxt(folder / 'vectors.tsv', dtype=np.float32), ROWS)
    assert (folder / 'metadata.tsv').read_text().splitlines() == list(vectors.index)
    assert 'vectors.tsv' in (folder / 'projector_config.pbtxt').read_text()
    assert write_vectors(VECTORS, tmp_path / 'a.b', 'projector').is_dir()


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, label in (('a.txt', 'New York'), ('projector', 'a\tb')):
        with pytest.raises(DataError, match=re.escape(repr(label))):
            write_vectors(VECTORS.rename({'bob': label}), tmp_path / name)
    with pytest.raises(ArgumentError, match='path: .*a.bin'):
        write_vectors(VECTORS, tmp_path / 'a.bin')
    with pytest.raises(ArgumentError, match="format: .*'onnx'"):
        write_vectors(VECTORS, tmp_path / 'a.txt', 'onnx')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match='pip install safetensors'):
        write_vectors(VECTORS, tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['a.parquet', 'a.safetensors', 'a.vec'])
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    pytest.importorskip({'a.parquet': 'pyarrow', 'a.safetensors': 'safetensors'}.get(name, 'pandas'))
    for index in (VECTORS.index, pd.RangeIndex(3), pd.Index([7, 5, 6], name='entity')):
        found = read_vectors(write_vectors(VECTORS.set_axis(index), tmp_path / name))
        assert found.index.tolist() == [str(label) for label in index] and np.array_equal(found.to_numpy(), ROWS)


def test_labels_that_look_like_something_else(tmp_path: Path) -> None:
    labels = ['nan', '007', '"', 'null']
    vectors = pd.DataFrame(np.ones((4, 1), np.float32), index=labels)
    assert read_vectors(write_vectors(vectors, tmp_path / 'a.txt')).index.tolist() == labels
    (tmp_path / 'b.txt').write_text('2 1\nann 1 \nbob 2 \n')  # as fastText ends its lines
    assert read_vectors(tmp_path / 'b.txt').loc['bob'].tolist() == [2.0]


@pytest.mark.parametrize('text, told', [
    ('ann 1 2\n', 'a.txt:1: '), ('2 2\nann 1 2\n', 'a.txt: .* 2 .* 1$'), ('1 2\nann 1 2 3\n', 'a.txt:2: .* 2 .* 3 '),
    ('2 2\nann 1 2\nbob 1 x\n', "a.txt:3: .*'bob'"), ('2 2\nann 1 2\nbob 1\n', "a.txt:3: .*'bob'"),
    ('1 2\nann 1 2 3 4\n', 'a.txt:2: '),
])
def test_bad_text_names_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / 'a.txt').write_text(text)
    with pytest.raises(DataError, match=told):
        read_vectors(tmp_path / 'a.txt')


def test_bad_files(tmp_path: Path) -> None:
    pytest.importorskip('pyarrow')
    safetensors = pytest.importorskip('safetensors.numpy')
    for name in ('a.parquet', 'a.safetensors'):
        (tmp_path / name).write_bytes(b'no such file')
        with pytest.raises(DataError, match=name):
            read_vectors(tmp_path / name)
        with pytest.raises(DataError, match='missing'):
            read_vectors(tmp_path / f'missing-{name}')
    (tmp_path / 'a.safetensors').write_bytes(safetensors.save({'x': ROWS}))
    with pytest.raises(DataError, match='vectors, and labels.* x '):
        read_vectors(tmp_path / 'a.safetensors')
    (tmp_path / 'a.safetensors').write_bytes(safetensors.save({'vectors': ROWS}, {'labels': '["a"]'}))
    with pytest.raises(DataError, match=r'1 labels.*\(3, 2\)'):
        read_vectors(tmp_path / 'a.safetensors')
    pd.DataFrame({'x': [1.0]}).to_parquet(tmp_path / 'a.parquet')
    with pytest.raises(DataError, match='a.parquet: .*labels'):
        read_vectors(tmp_path / 'a.parquet')
