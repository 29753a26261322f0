r"""One function takes names, paths, tables and other libraries' objects to the reader that knows them."""
from __future__ import annotations

import builtins
import importlib
import inspect
import os
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io import datasets
from pyg_emu.data.io.datasets import (
    absolute_source,
    dataset_names,
    from_pykeen,
    is_folder,
    load_dataset,
    reader_options,
)

SPLITS = ('train', 'valid', 'test')

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)


def write(folder: Path, label: str = 'a') -> Path:
    folder.mkdir(parents=True)
    for split in SPLITS:
        (folder / f'{split}.txt').write_text(f'{label}\tin {split}\tb\n')
    return folder


@pytest.mark.parametrize(('name', 'sizes'), [
    ('UMLS', (135, 46, 5216, 652, 661)), ('nations', (14, 55, 1592, 199, 201)),
    ('Kin-ships', (104, 25, 8544, 1068, 1074)),
])
def test_bundled_names_agree_with_pykeen(name: str, sizes: tuple[int, ...]) -> None:
    pytest.importorskip('pykeen')
    data = load_dataset(name)
    assert (data.num_nodes, data.num_relations, *(data.num_facts(split) for split in SPLITS)) == sizes
    theirs = from_pykeen(name.replace('-', ''))
    assert (data.entity_labels, data.relation_labels) == (theirs.entity_labels, theirs.relation_labels)
    for split in SPLITS:
        assert sorted(data.facts(split).tolist()) == sorted(theirs.facts(split).tolist())


def test_other_files_of_a_published_dataset_are_not_taken_for_facts(tmp_path: Path) -> None:
    pytest.importorskip('pykeen')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        assert load_dataset('Nations').num_facts('train') == 1592  # beside literals.txt
    assert not any('hold facts' in str(warning.message) for warning in caught)
    # A folder of the user's own is another matter.
    (write(tmp_path / 'graph') / 'literals.txt').write_text('a\tin train\t1\n')
    with pytest.warns(DataWarning, match=r'literals\.txt.*extra_files'):
        load_dataset(tmp_path / 'graph')


def test_bundled_names_do_not_import_pykeen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('pykeen')
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert not name.startswith('pykeen')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', guarded)
    monkeypatch.setattr(importlib, 'import_module', guarded)
    assert load_dataset('UMLS').num_nodes == 135


def test_bundled_names_without_pykeen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(DataError, match=r'UMLS.*pip install pykeen.*\$PYG'):
        load_dataset('umls')
    write(tmp_path / 'umls')
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    assert load_dataset('UMLS').num_nodes == 2


def test_folders_of_the_environment_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / 'FB15k-237', 'mine')
    write(tmp_path / 'my_graph_v1')
    (tmp_path / 'README.md').touch()
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    assert 'my_graph_v1' in dataset_names() and 'README.md' not in dataset_names()
    for name in ('FB15k-237', 'fb15k237', 'FB15K_237'):
        assert load_dataset(name).entity_labels == ['b', 'mine']
    data = load_dataset('MyGraph-v1')
    other = load_dataset('my_graph_v1', vocabulary=data, require_splits=['train'])
    assert other.relation_labels == data.relation_labels
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path / 'nowhere'))
    with pytest.raises(DataError, match=r'\$PYG_EMU_DATA is .*nowhere'):
        load_dataset('FB15k-237')


def test_exact_names_come_first_and_others_have_to_be_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('kg-1.0', 'kg-10', '甲', '乙', '+', '++', 'Größe', 'umls')
    for name in names:
        write(tmp_path / 'home' / name, f'of {name}')
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path / 'home'))
    assert {*names, 'UMLS', 'FB15k-237'} <= {*dataset_names()}
    for name in names:
        assert load_dataset(name).entity_labels == ['b', f'of {name}']
    for name in ('GRÖSSE', unicodedata.normalize('NFD', 'größe')):
        assert load_dataset(name).entity_labels == ['b', 'of Größe']
    with pytest.raises(DataError, match=r"'kg_10'.*'kg-1\.0', 'kg-10'"):
        load_dataset('kg_10')
    for name in ('丙', '-', '+++'):  # nothing in common with any name, or nothing to compare
        with pytest.raises(DataError, match='unknown dataset'):
            load_dataset(name)
    monkeypatch.chdir(write(tmp_path / 'here'))
    assert load_dataset('.').entity_labels == ['a', 'b']
    with pytest.raises(DataError, match='got an empty one'):
        load_dataset('')


def test_all_functions_agree_on_what_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / 'home' / 'FB15k-237', 'home')
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    write(Path('FB15k_237'), 'here')
    Path('wn18rr').write_text('a\tr\tb\n')
    Path('yago3-10').write_text('a\tr\tb\n')
    for name in ('FB15k-237', 'FB15k_237', 'fb15k237'):
        assert absolute_source(name) == name and load_dataset(name).entity_labels == ['b', 'home']
    for path in ('./FB15k_237', Path('FB15k_237')):
        assert absolute_source(path) == str(tmp_path / 'FB15k_237')
        assert load_dataset(path).entity_labels == ['b', 'here']
    # What is asked of a name is not asked of the file that is called so.
    assert is_folder('wn18rr') and not is_folder('./wn18rr')
    assert 'require_splits' in reader_options('wn18rr', {}) and 'require_splits' not in reader_options('./wn18rr', {})
    # PyKEEN's own reader takes no folder.
    assert not is_folder('yago3-10') and 'require_splits' not in reader_options('yago3-10', {})


def test_unknown_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"'fb237_v1'.*\$PYG_EMU_DATA.*not set"):
        load_dataset('fb237_v1')
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=f"'fb237_v1'.*PYG_EMU_DATA, {tmp_path};"):
        load_dataset('fb237_v1')
    with pytest.raises(DataError, match=r"'FB15k-2337'.*'FB15k-237'.*UMLS"):
        load_dataset('FB15k-2337')
    with pytest.raises(DataError, match='missing: '):
        load_dataset(str(tmp_path / 'missing'))
    with pytest.raises(DataError, match='UMLS: '):
        load_dataset(Path('UMLS'))  # a path is never a name


def test_downloads_keep_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyg = pytest.importorskip('torch_geometric.datasets')

    def download(self: Any) -> None:
        for split in SPLITS:
            (Path(self.raw_dir) / f'{split}.txt').write_text('x\t_hypernym\ty\n')

    for name, title in (('FB15k_237', 'FB15k-237'), ('WordNet18RR', 'WN18RR')):
        monkeypatch.setattr(getattr(pyg, name), 'download', download)
        data = load_dataset(title, root=tmp_path)
        assert data.entity_labels == ['x', 'y'] and data.relation_labels == ['_hypernym']
        assert (tmp_path / title).is_dir()


def test_downloads_through_pykeen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pykeen = pytest.importorskip('pykeen.datasets')
    asked = {}

    def get_dataset(dataset: str, dataset_kwargs: dict[str, Any]) -> Any:
        asked[dataset] = dataset_kwargs
        return pykeen.Nations()

    monkeypatch.setattr(pykeen, 'get_dataset', get_dataset)
    assert load_dataset('YAGO3-10', root=tmp_path).num_nodes == 14
    assert asked == {'YAGO310': {'cache_root': tmp_path}}


def test_pykeen_knows_the_names_we_hand_to_it() -> None:
    pykeen = pytest.importorskip('pykeen.datasets')
    for name in datasets._PYKEEN.values():
        assert pykeen.dataset_resolver.lookup(name) is not None


def test_failed_downloads_say_what_else_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyg = pytest.importorskip('torch_geometric.datasets')

    def download(self: Any) -> None:
        raise OSError('no route to host')

    monkeypatch.setattr(pyg.WordNet18RR, 'download', download)
    with pytest.raises(DataError, match=r'WN18RR.*no route to host.*\$PYG_EMU_DATA'):
        load_dataset('WN18RR', root=tmp_path)


def test_paths_tables_and_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / 'UMLS')
    data = load_dataset(folder)
    assert data.entity_labels == ['a', 'b'] and load_dataset(data) is data
    monkeypatch.chdir(tmp_path)
    assert load_dataset('./UMLS').num_nodes == 2
    assert load_dataset(folder / 'train.txt', fractions=(1.0, 0.0, 0.0)).num_facts() == 1

    table = pd.DataFrame([('a', 'r', 'b')], columns=['h', 'relation', 'tail'])
    assert load_dataset(table, head='h', fractions=(1, 0, 0)).entity_labels == ['a', 'b']
    graph = Data(edge_index=torch.tensor([[0], [1]]), edge_type=torch.tensor([0]), num_nodes=2)
    assert load_dataset(graph, fractions=(1, 0, 0)).num_nodes == 2
    assert load_dataset({'train': graph, 'test': graph}).num_facts('test') == 1
    with pytest.raises(DataError, match='HeteroData.*at least one type of edges'):
        load_dataset({'train': HeteroData(), 'test': HeteroData()})


@pytest.mark.parametrize(('source', 'said'), [
    (3, 'RandomLinkSplit, .* type int$'),
    ([('a', 'r', 'b')], r"list; .*DataFrame\(rows, columns=\['head', 'relation', 'tail'\]\), .* Data\(edge_index="),
    (torch.zeros(4, 3, dtype=torch.long), 'Tensor; .*DataFrame'), (np.zeros((4, 3)), 'ndarray; .*DataFrame'),
    ({'train': [('a', 'r', 'b')]}, 'dict; .*DataFrame'),
    ((Data(), Data()), r'tuple; name the split of each graph: \{"train"'),
    ([HeteroData(), HeteroData()], 'list; name the split'),
    ({'train': pd.DataFrame(), 'test': pd.DataFrame()}, "dict; .*pandas.concat.*split='split'"),
])
def test_what_is_no_source(source: Any, said: str) -> None:
    with pytest.raises(DataError, match=f'source: expected .*{said}'):
        load_dataset(source)


def test_pykeen_objects() -> None:
    nations = pytest.importorskip('pykeen.datasets').Nations()
    assert load_dataset(nations).num_facts('test') == 201
    assert load_dataset(nations.training, fractions=(0.5, 0.25, 0.25)).num_facts('test') == 398
    assert load_dataset({'train': nations.training, 'test': nations.testing}).num_facts('test') == 201


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / 'graph')
    with pytest.raises(ArgumentError, match="load_dataset: a folder has no option 'fractions'.*require_splits"):
        load_dataset(folder, fractions=(1, 0, 0))
    with pytest.raises(ArgumentError, match="a DataFrame has no option 'header'"):
        load_dataset(pd.DataFrame(), header=True)
    with pytest.raises(ArgumentError, match="'fraction'; did you mean 'fractions'. Its options are fractions, seed"):
        load_dataset(pd.DataFrame(), fraction=(1, 0, 0))
    with pytest.raises(ArgumentError, match="a HeteroData has no option 'keep'; its options are fractions, seed, wei"):
        load_dataset(HeteroData(), keep=('x', ))
    with pytest.raises(ArgumentError, match="a KGData has no option 'seed', and no other one"):
        load_dataset(load_dataset(folder), seed=1)
    with pytest.raises(ArgumentError, match='root: '):
        load_dataset(pd.DataFrame(), root=os.curdir)


@pytest.mark.parametrize('source', ['', Path('x' * 5000), '/' + 'x' * 5000, './a\0b', '~nobody-of-this-name/x'])
def test_impossible_paths(source: Any) -> None:
    with pytest.raises(DataError):
        load_dataset(source)


def test_unlisted_files_and_named_columns_reach_the_reader(tmp_path: Path) -> None:
    (tmp_path / 'facts.csv').write_text('object,subject,predicate\nb,a,in\n')
    data = load_dataset(tmp_path / 'facts.csv', header=True, fractions=(1, 0, 0))
    assert data.relation_labels == ['in'] and data.edge_index.tolist() == [[0], [1]]
    other = load_dataset(tmp_path / 'facts.csv', fractions=(1, 0, 0), head='object', tail='subject', entities=data)
    assert other.edge_index.tolist() == [[1], [0]]


@pytest.mark.parametrize('kind', ['folder', 'file', 'table', 'entities', 'hetero', 'data'])
def test_warnings_point_at_the_line_of_the_caller(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame([('a', 'r', 'b'), ('b', 'r', 'c'), ('b', 'r', 'c')], columns=['head', 'relation', 'tail'])
    graph = HeteroData()
    graph['v'].x = torch.zeros(3, 2)
    graph['v', 'r', 'v'].edge_index = torch.tensor([[0, 1, 1], [1, 2, 2]])
    table.to_csv(tmp_path / 'facts.csv', index=False)
    (write(tmp_path / 'graph') / 'more.txt').write_text('a\tin train\tc\n')
    source, options = {
        'folder': (tmp_path / 'graph', {}), 'file': (tmp_path / 'facts.csv', {'fractions': (1, 0, 0)}),
        'table': (table.assign(note=1), {'fractions': (1, 0, 0)}),
        'entities': (table, {'fractions': (1, 0, 0), 'entities': load_dataset(table[:1])}),
        'hetero': (graph, {'fractions': (1, 0, 0)}),
        'data': (Data(edge_index=torch.tensor([[0, 1, 1], [1, 2, 2]])), {'fractions': (1, 0, 0)}),
    }[kind]
    with pytest.warns(DataWarning) as told:
        line = inspect.stack()[0].lineno + 1
        load_dataset(source, **options)
    assert {(each.filename, each.lineno) for each in told} == {(__file__, line)}
