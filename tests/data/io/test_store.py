r"""What goes into a fact store comes out of it, mapped into memory, and damage is named."""
from __future__ import annotations

import contextlib
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_emu import DistMult, EMULoss, EMUNegatives, TripletLoader, evaluate
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError, DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io import load_dataset, open_fact_store, write_fact_store
from pyg_emu.negatives.sampling import SANSSampler, UniformSampler

pytest.importorskip('pyarrow')

ENTITIES = ['anna', 'bern', 'Łódź', '\ud800', 'a\tb\n', 'e5']
FACTS = {'train': [[0, 0, 1], [1, 1, 2], [2, 0, 3], [4, 1, 5], [5, 0, 0]], 'valid': [[3, 1, 4]], 'test': [[0, 1, 5]]}


def graph(labels: bool = True) -> KGData:
    columns = {split: torch.tensor(rows).t() for split, rows in FACTS.items()}
    held_out = {f'{split}_{key}': value for split in ('valid', 'test')
                for key, value in (('edge_index', columns[split][::2]), ('edge_type', columns[split][1]))}
    named: dict[str, Any] = {'entity_labels': list(ENTITIES), 'relation_labels': ['r', 's']} if labels else {}
    return KGData(columns['train'][::2], columns['train'][1], 6, 2, **held_out, **named)


@pytest.mark.parametrize('labels', [True, False])
def test_a_graph_comes_back(tmp_path: Path, labels: bool) -> None:
    folder = write_fact_store(graph(labels), tmp_path / 'store')
    for data in (load_dataset(folder), open_fact_store(folder, verify=True)):
        assert (data.num_nodes, data.num_relations) == (6, 2)
        assert data.entity_labels == (ENTITIES if labels else None)
        assert {split: data.facts(split).tolist() for split in FACTS} == FACTS
        assert data.edge_index.dtype == data.test_edge_type.dtype == torch.int32
        assert data.facts('all').dtype == torch.int64 and data.validate()
        # The columns are the mapped file.
        assert data.columns('train')[2].data_ptr() == data.edge_index[1].data_ptr() and data.edge_index.is_contiguous()
    assert open_fact_store(folder, labels=False).entity_labels is None


def test_modifications_stay_in_memory(tmp_path: Path) -> None:
    folder = write_fact_store(graph(), tmp_path / 'store')
    data = open_fact_store(folder)
    assert bool(data.fact_index('train').contains(*torch.tensor([0, 0, 1])))
    data.edge_index[1, 0] = 4
    assert data.facts('train')[0].tolist() == [0, 0, 4]
    assert not bool(data.fact_index('train').contains(*torch.tensor([0, 0, 1])))
    assert open_fact_store(folder, verify=True).facts('train')[0].tolist() == [0, 0, 1]


def random_graph() -> KGData:
    generator = torch.Generator().manual_seed(0)
    columns = torch.stack([torch.randint(size, (320, ), generator=generator) for size in (40, 3, 40)])
    return KGData(columns[::2, :300], columns[1, :300], 40, 3, test_edge_index=columns[::2, 300:],
                  test_edge_type=columns[1, 300:])


def test_training_and_ranking_are_those_of_the_graph_in_memory(tmp_path: Path) -> None:
    folder = write_fact_store(random_graph(), tmp_path / 'store')
    found = []
    for data in (random_graph(), open_fact_store(folder)):
        for sampler in (UniformSampler(filtered=True), SANSSampler()):
            torch.manual_seed(0)
            model = DistMult(40, 3, 4)
            loader = TripletLoader(data, 64, shuffle=True, transform=EMUNegatives(8, sampler=sampler), corrupt='both')
            for batch in loader:
                assert batch.head_index.dtype == torch.int64
                model.zero_grad()
                EMULoss()(model, batch).backward()
                with torch.no_grad():
                    model.node_emb.weight -= 0.1 * model.node_emb.weight.grad
            metrics = evaluate(model, data, split='test')
            found.append((model.node_emb.weight.detach(), metrics['mrr'], data.report(), data.subgraph(
                torch.arange(20)).facts('train'), data.with_inverse_relations().edges_by('target').relation))
    for mapped, expected in zip(found[2:], found[:2]):
        assert torch.equal(mapped[0], expected[0]) and mapped[1:3] == expected[1:3]
        assert all(torch.equal(left, right) for left, right in zip(mapped[3:], expected[3:]))


def test_ids_of_another_graph(tmp_path: Path) -> None:
    folder = write_fact_store(graph(), tmp_path / 'store')
    same = open_fact_store(folder, vocabulary=graph(), entities=graph())
    assert same.edge_index.dtype == torch.int32 and same.facts('train').tolist() == FACTS['train']

    def named(data: KGData, split: str) -> list[tuple[str, ...]]:
        assert data.entity_labels is not None and data.relation_labels is not None
        return [(data.entity_labels[head], data.relation_labels[relation], data.entity_labels[tail])
                for head, relation, tail in data.facts(split).tolist()]  # type: ignore[arg-type]

    other = KGData(torch.tensor([[0], [1]]), torch.tensor([2]), entity_labels=['e5', 'new', 'bern'],
                   relation_labels=['s', 'x', 'r'])
    for options in ({'vocabulary': other}, {'entities': other}):
        with pytest.warns(DataWarning) if 'entities' in options else contextlib.nullcontext():
            data = open_fact_store(folder, **options)
        assert data.relation_labels == ['s', 'x', 'r'] and data.num_relations == 3
        assert all(named(data, split) == named(graph(), split) for split in FACTS)
    assert data.entity_labels[:3] == ['e5', 'new', 'bern'] and data.num_nodes == 7  # type: ignore[index]
    assert data.edge_index.dtype == data.edge_type.dtype == torch.int64  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"relations\.json.*'s'"):
        open_fact_store(folder, vocabulary=KGData(other.edge_index, torch.tensor([0]), 2, relation_labels=['r']))
    with pytest.raises(DataError, match='labels'):
        open_fact_store(folder, labels=False, vocabulary=other)
    with pytest.raises(ArgumentError, match='^vocabulary: '):
        open_fact_store(folder, vocabulary=graph(labels=False))


def test_columns_of_files_are_refused_beside_a_graph(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='^head: '):
        write_fact_store(graph(), tmp_path / 'store', head='h')


# Damage #######################################################################


def test_graphs_that_a_store_would_cut_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='without inverse'):
        write_fact_store(graph().with_inverse_relations(), tmp_path / 'store')
    data = graph()
    data.x = torch.zeros(6, 2)
    with pytest.raises(DataError, match=' x;'):
        write_fact_store(data, tmp_path / 'store')
    data = graph()
    data.edge_weight = torch.ones(5)
    with pytest.raises(DataError, match=' edge_weight;'):
        write_fact_store(data, tmp_path / 'store')


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = write_fact_store(graph(), tmp_path / 'store')
    with pytest.raises(DataError, match='fact store already'):
        write_fact_store(graph(), folder)
    # Writing was interrupted: it is no store yet, and may be written again.
    (folder / 'store.json').unlink()
    with pytest.raises(DataError, match=r'no store\.json'):
        open_fact_store(folder)
    assert load_dataset(write_fact_store(graph(), folder)).num_facts('all') == 7
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.tex').touch()
    with pytest.raises(DataError, match=r'thesis\.tex'):
        write_fact_store(graph(), tmp_path / 'other')
    with pytest.raises(CheckpointError, match=r'thesis\.tex'):
        write_fact_store(graph(), tmp_path / 'other' / 'thesis.tex')


def test_a_full_disk_leaves_no_store(tmp_path: Path) -> None:
    data = graph()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    data.edge_index, data.edge_type = torch.zeros(2, 50_000, dtype=torch.int64), torch.zeros(50_000, dtype=torch.int64)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        with pytest.raises(CheckpointError, match=r'train\.npy'):
            write_fact_store(data, tmp_path / 'store')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list((tmp_path / 'store').iterdir()) == []


def test_damage_is_named(tmp_path: Path) -> None:
    whole = write_fact_store(graph(), tmp_path / 'whole')
    names = sorted(file.name for file in whole.iterdir())
    assert names == ['entities.json', 'relations.json', 'store.json', 'test.npy', 'train.npy', 'valid.npy']
    for name in names:
        for number, damage in enumerate((lambda content: content[:-3], lambda content: b'',
                                         lambda content: content.replace(b'3', b'x'), None)):
            folder = tmp_path / f'{name}{number}'
            shutil.copytree(whole, folder)
            if damage is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(damage((whole / name).read_bytes()))
            if (folder / name).exists() and (folder / name).read_bytes() == (whole / name).read_bytes():
                continue
            with pytest.raises(DataError, match=name.replace('.', r'\.')):
                open_fact_store(folder, verify=True)
    # One other id, which no size tells.
    content = bytearray((whole / 'train.npy').read_bytes())
    content[-4] ^= 1
    (whole / 'train.npy').write_bytes(content)
    assert open_fact_store(whole).num_facts('train') == 5
    with pytest.raises(DataError, match=r'train\.npy.*digest'):
        open_fact_store(whole, verify=True)


@pytest.mark.parametrize('changed', [{'format': 2}, {'num_nodes': 0}, {'num_nodes': True}, {'facts': {'train': 4}},
                                     {'facts': {'test': 1}}, {'facts': {'train': 5, '../x': 1}},
                                     {'digests': {'../../x': ''}}, {'digests': None}, {'num_relations': 3}])
def test_wrong_manifests(tmp_path: Path, changed: dict[str, Any]) -> None:
    folder = write_fact_store(graph(), tmp_path / 'store')
    manifest = json.loads((folder / 'store.json').read_text())
    (folder / 'store.json').write_text(json.dumps({**manifest, **changed}))
    with pytest.raises(DataError, match=r'(store|relations)\.json|train\.npy'):
        open_fact_store(folder)
