r"""Facts of Parquet files, on their way into a fact store: ids, labels, and which value is no fact."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io import load_dataset, open_fact_store, parquet, write_fact_store
from pyg_emu.data.io.store import is_fact_store

pytest.importorskip('pyarrow')


def write_parquet(folder: Path, split: str = 'train', **columns: Any) -> Path:
    path = folder / f'{split}.parquet'
    folder.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_parquet(path, index=False)
    return path


def test_labels_get_the_ids_that_text_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, 'BATCH', 7)
    random = np.random.default_rng(0)
    (tmp_path / 'text').mkdir()
    for split, size in (('train', 100), ('valid', 20), ('test', 20)):
        table = pd.DataFrame({name: [f'{prefix}{number}' for number in random.integers(limit, size=size)]
                              for name, prefix, limit in (('tail', 'e', 30), ('head', 'e', 30), ('rel', 'r', 4))})
        table[['head', 'rel', 'tail']].to_csv(tmp_path / 'text' / f'{split}.txt', sep='\t', header=False, index=False)
        # A dictionary may hold labels that no row has.
        coded = table.astype({'rel': pd.CategoricalDtype(['zzz', 'r3', 'r2', 'r1', 'r0'])})
        write_parquet(tmp_path / 'parquet', 'dev' if split == 'valid' else split, **coded)
    with pytest.warns(DataWarning):  # random facts have duplicates
        text = load_dataset(tmp_path / 'text')
    data = load_dataset(write_fact_store(tmp_path / 'parquet', tmp_path / 'store'))
    assert data.entity_labels == text.entity_labels and data.relation_labels == text.relation_labels
    for split in ('train', 'valid', 'test'):
        assert torch.equal(data.facts(split), text.facts(split))


def test_integers_are_ids(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / 'parquet', h=np.array([5, 0], np.uint8), r=[1, 0], t=[3, 8], weight=[0.5, 0.5])
    with pytest.warns(DataWarning, match='weight'):
        data = open_fact_store(write_fact_store(path, tmp_path / 'a'))
    assert data.facts('train').tolist() == [[5, 1, 3], [0, 0, 8]]
    assert (data.num_nodes, data.num_relations, data.entity_labels) == (9, 2, None)
    with pytest.warns(DataWarning):
        folder = write_fact_store(path, tmp_path / 'b', head='t', tail='h', num_nodes=20, num_relations=7)
    data = open_fact_store(folder)
    assert data.facts('train').tolist() == [[3, 1, 5], [8, 0, 0]]
    assert (data.num_nodes, data.num_relations) == (20, 7)
    with pytest.warns(DataWarning), pytest.raises(DataError, match='num_nodes: .*8.*9'):
        write_fact_store(path, tmp_path / 'c', num_nodes=8)
    # Ids beyond 32 bits are kept.
    wide = write_parquet(tmp_path / 'wide', h=[0], r=['x'], t=[2**33])
    data = open_fact_store(write_fact_store(wide, tmp_path / 'd'))
    assert data.facts('train').tolist() == [[0, 0, 2**33]] and data.edge_index.dtype == torch.int64
    assert data.relation_labels == ['x']


@pytest.mark.parametrize(('columns', 'said'), [
    ({'h': ['a', 'b', None], 'r': ['x'] * 3, 't': ['c'] * 3}, ("'h'", 'row 2')),
    ({'h': ['a', 'b', ''], 'r': ['x'] * 3, 't': ['c'] * 3}, ("'h'", 'row 2')),
    ({'h': ['a', 'b', 'c'], 'r': ['x', 'y\0', 'x'], 't': ['c'] * 3}, ("'r'", 'row 1')),
    ({'h': [0, 1, 2], 'r': [0, 0, 0], 't': [0, 1, -3]}, ("'t'", 'row 2', '-3')),
    ({'h': [0, 1, 2], 'r': [0.5, 0, 0], 't': [0, 1, 2]}, ("'r'", 'double')),
    ({'h': [0, 1, 2], 'r': [0, 0, 0], 't': ['0', '1', '2']}, ("'h'", "'t'")),
    ({'h': [0], 'r': [0], 'weight': [2]}, ('tail', 'weight')),
    ({'h': [], 'r': [], 't': []}, ("'h'", )),
])
def test_what_is_no_fact_is_named(tmp_path: Path, columns: dict[str, Any], said: tuple[str, ...],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, 'BATCH', 2)
    path = write_parquet(tmp_path / 'parquet', **columns)
    with pytest.raises(DataError) as caught:
        write_fact_store(path, tmp_path / 'store')
    assert all(part in str(caught.value) for part in (str(path), *said))
    assert not is_fact_store(tmp_path / 'store')


def test_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / 'a', h=[0], r=[0], t=[1])
    write_parquet(tmp_path / 'a', 'test', h=['0'], r=['0'], t=['1'])
    with pytest.raises(DataError, match=r'test\.parquet.*train\.parquet'):
        write_fact_store(tmp_path / 'a', tmp_path / 'store')
    broken = tmp_path / 'a' / 'train.parquet'
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(DataError, match=r'train\.parquet'):
        write_fact_store(broken, tmp_path / 'store')
    (tmp_path / 'empty').mkdir()
    for source in ('empty', 'nothing'):
        with pytest.raises(DataError, match=f'{source}.*train.parquet'):
            write_fact_store(tmp_path / source, tmp_path / 'store')
    with pytest.raises(ArgumentError, match='^num_nodes: '):
        write_fact_store(write_parquet(tmp_path / 'b', h=['a'], r=['x'], t=['b']), tmp_path / 'store', num_nodes=5)
