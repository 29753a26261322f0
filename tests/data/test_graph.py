from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.batch import Batch
from pyg_emu.data.checks import check_data
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.files import from_folder, to_folder

# alice likes bob; alice likes carol; bob knows carol | carol likes bob | dave knows alice
LABELS = ['alice', 'bob', 'carol', 'dave']
RELATIONS = ['likes', 'knows']


def make_data(**overrides: Any) -> KGData:
    arguments: dict[str, Any] = {
        'edge_index': torch.tensor([[0, 0, 1], [1, 2, 2]]), 'edge_type': torch.tensor([0, 0, 1]),
        'valid_edge_index': torch.tensor([[2], [1]]), 'valid_edge_type': torch.tensor([0]),
        'test_edge_index': torch.tensor([[3], [0]]), 'test_edge_type': torch.tensor([1]),
        'entity_labels': list(LABELS), 'relation_labels': list(RELATIONS)}
    return KGData(**{**arguments, **overrides})


def through_file(data: Any, weights_only: bool = False) -> Any:
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


# Sizes and facts #############################################################


def test_sizes_and_facts() -> None:
    data = make_data()
    assert (data.num_nodes, data.num_relations, data.num_edge_types) == (4, 2, 2)
    assert data.facts('train').tolist() == [[0, 0, 1], [0, 0, 2], [1, 1, 2]]
    assert data.facts('valid').tolist() == [[2, 0, 1]]
    assert data.facts('all').tolist() == [[0, 0, 1], [0, 0, 2], [1, 1, 2], [2, 0, 1], [3, 1, 0]]
    assert [data.num_facts(split) for split in ('train', 'valid', 'test', 'all')] == [3, 1, 1, 5]
    assert data.facts('train')[:, 2].is_contiguous()
    assert data.device == torch.device('cpu')
    assert repr(data) == 'KGData(num_nodes=4, num_relations=2, train=3, valid=1, test=1, labels)'


def test_sizes_are_inferred_from_all_splits() -> None:
    data = make_data(entity_labels=None, relation_labels=None)
    assert (data.num_nodes, data.num_relations) == (4, 2)
    assert make_data(entity_labels=None, num_nodes=9).num_nodes == 9
    inverse = KGData(torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 5]), has_inverse_relations=True)
    assert inverse.num_relations == 3


def test_what_is_missing_reads_as_none() -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]))
    assert data.entity_labels is None and data.valid_edge_index is None
    assert data.has_inverse_relations is False
    assert data.facts('test').shape == (0, 3)
    with pytest.raises(AttributeError, match='no attribute'):
        data.no_such_attribute  # noqa: B018
    for name in ('head_index', 'neg_index', 'side', 'step', 'source', 'generator', 'mutation'):
        assert not hasattr(data, name)  # a graph is no batch


def test_shows_itself_in_a_notebook() -> None:
    shown = make_data(entity_labels=['<b>', *LABELS[1:]])._repr_html_()
    rows = [re.findall('<t[hd]>([^<]*)</t', row) for row in shown.split('<tr')]
    assert ['facts', '3', '1', '1'] in rows and ['&lt;b&gt;', 'likes', 'bob'] in rows and '<b>' not in shown
    assert ['0', '0', '1'] in [re.findall('<td>([^<]*)</td', row)
                               for row in make_data(entity_labels=None, relation_labels=None, num_nodes=4,
                                                    num_relations=2)._repr_html_().split('<tr')]
    assert make_data().with_inverse_relations()._repr_html_().count('<tr') == 2 + 4
    assert 'num_nodes=None' in KGData()._repr_html_()


def test_unknown_split_and_order() -> None:
    with pytest.raises(ArgumentError, match="'train'.* 'dev'$"):
        make_data().facts('dev')  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="'tail'"):
        make_data().edges_by('tail')  # type: ignore[arg-type]


def test_is_a_pyg_data() -> None:
    data = make_data()
    assert isinstance(data, Data)
    assert data.num_edges == 3 and data.is_directed() and not data.has_self_loops()
    assert KGData.from_dict(data.to_dict()).facts('all').tolist() == data.facts('all').tolist()


def test_inverse_relations() -> None:
    data = make_data()
    index = data.fact_index('all')
    assert data.edges_by('relation').ptr.tolist() == [0, 2, 3]
    both = data.with_inverse_relations()
    assert both.edge_index.tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 2, 0, 0, 1]]
    assert both.edge_type is not None and both.edge_type.tolist() == [0, 0, 1, 2, 2, 3]
    assert (both.num_relations, both.num_edge_types, both.num_facts('train')) == (2, 4, 3)
    assert both.facts('train').tolist() == data.facts('train').tolist()
    assert both.edges_by('relation').ptr.tolist() == [0, 2, 3, 5, 6]
    assert not data.has_inverse_relations and data.edge_index.size(1) == 3
    # Facts are the same with and without inverse edges, so their index is not built again.
    assert both.fact_index('all') is index
    assert data.edges_by('relation').ptr.tolist() == [0, 2, 3]
    assert both.with_inverse_relations().edge_index.size(1) == 6
    assert 'inverse relations' in repr(both)
    with pytest.raises(DataError, match='edge_index, edge_type: '):
        KGData(num_nodes=3, num_relations=1).with_inverse_relations()


# Cached indices ##############################################################


def caches(data: KGData) -> list[Any]:
    return [data.facts('train'), data.fact_index('train'), data.fact_index('all'), data.edges_by('target'),
            data.edges_by('source'), data.edges_by('relation')]


def test_one_storage_serves_all_consumers() -> None:
    data = make_data()
    first, second = caches(data), caches(data)
    assert first[0].data_ptr() == second[0].data_ptr()
    assert all(a is b for a, b in zip(first[1:], second[1:]))
    ids = torch.tensor([0])
    source = copy.copy(Batch(ids, ids, ids, source=data)).source
    assert source is not None and source.fact_index('train').keys.data_ptr() == first[1].keys.data_ptr()


def assign(data: KGData) -> None:
    data.edge_type = torch.tensor([1, 0, 1])


def assign_by_key(data: KGData) -> None:
    data['edge_type'] = torch.tensor([1, 0, 1])


def update(data: KGData) -> None:
    data.update({'edge_type': torch.tensor([1, 0, 1])})


def write(data: KGData) -> None:
    assert data.edge_type is not None
    data.edge_type[0] = 1


def write_to_view(data: KGData) -> None:
    assert data.edge_type is not None
    data.edge_type[:1].fill_(1)


@pytest.mark.parametrize('change', [assign, assign_by_key, update, write, write_to_view])
def test_indices_are_dropped_when_facts_change(change: Callable[[KGData], None]) -> None:
    data = make_data()
    before = caches(data)
    change(data)
    assert data.facts('train').tolist() == [[0, 1, 1], [0, 0, 2], [1, 1, 2]]
    assert data.fact_index('train').contains(*torch.tensor([0, 1, 1])).item()
    assert data.edges_by('relation').ptr.tolist() == [0, 1, 3]
    assert all(a is not b for a, b in zip(before[1:], caches(data)[1:]))


@pytest.mark.parametrize('key, value', [('num_nodes', 9), ('num_relations', 5), ('test_edge_type', torch.tensor([0])),
                                        ('valid_edge_index', torch.tensor([[0], [3]]))])
def test_indices_are_dropped_when_sizes_or_other_splits_change(key: str, value: Any) -> None:
    data = make_data()
    before = data.fact_index('all')
    setattr(data, key, value)
    assert data.fact_index('all') is not before


def test_indices_stay_when_something_else_changes() -> None:
    data = make_data()
    before = data.fact_index('train')
    data.x = torch.zeros(4, 2)
    assert data.fact_index('train') is before
    data.drop_indices()
    assert data.fact_index('train') is not before


def test_copies_share_indices_only_while_unchanged() -> None:
    data = make_data()
    index = data.fact_index('train')
    shallow = copy.copy(data)
    assert shallow.fact_index('train') is index
    assert shallow.edges_by('target') is data.edges_by('target')  # whoever builds it
    assign(shallow)
    assert shallow.fact_index('train').contains(*torch.tensor([0, 1, 1])).item()
    assert data.fact_index('train') is index
    # A change of the original is not seen by the copy, and what the copy then builds not by the original.
    other = copy.copy(data)
    assign(data)
    assert not other.fact_index('all').contains(*torch.tensor([0, 1, 1])).item()
    assert data.fact_index('all').contains(*torch.tensor([0, 1, 1])).item()
    # A write into a tensor that both hold is seen by both.
    third = copy.copy(other)
    write(other)
    assert third.fact_index('all').contains(*torch.tensor([0, 1, 1])).item()


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda data: data.clone(), through_file,
                                       lambda data: through_file(data, weights_only=True),
                                       lambda data: pickle.loads(pickle.dumps(data))],
                         ids=['deepcopy', 'clone', 'save', 'save-weights-only', 'pickle'])
def test_deep_copies_and_files(duplicate: Callable[[KGData], KGData]) -> None:
    data = make_data()
    index = data.fact_index('train')
    assert data.entity_id('bob') == 1
    out = duplicate(data)
    assert out.facts('all').tolist() == data.facts('all').tolist()
    assert out.entity_labels == LABELS and out.relation_labels == RELATIONS and out.num_nodes == 4
    assert out.edge_index.data_ptr() != data.edge_index.data_ptr()
    assert out.fact_index('train') is not index
    write(out)
    assert data.fact_index('train') is index
    assert repr(out) == repr(data) and set(out.keys()) == set(data.keys())
    assert out.entity_id('carol') == 2


def test_indices_are_neither_keys_nor_saved() -> None:
    data = make_data()
    keys, size = set(data.keys()), len(pickle.dumps(data))
    caches(data)
    data.entity_id('bob')
    assert set(data.keys()) == keys and set(data.to_dict()) == keys
    assert len(pickle.dumps(data)) == size


@pytest.mark.parametrize('move', [lambda data: data.to('meta'), lambda data: copy.copy(data).to(torch.device('meta'))])
def test_indices_move_with_the_data(move: Callable[[KGData], KGData]) -> None:
    data = make_data()
    index, order = data.fact_index('train'), data.edges_by('target')
    moved = move(data)
    # On the meta device nothing could be built: what is there has been moved.
    assert moved.fact_index('train').keys.is_meta and moved.edges_by('target').source.is_meta
    assert moved.device.type == 'meta'
    assert not index.keys.is_meta and not order.source.is_meta
    assert moved.entity_labels == LABELS


def test_copy_that_moves_leaves_the_original() -> None:
    data = make_data()
    index = data.fact_index('train')
    copy.copy(data).to('meta')
    assert data.fact_index('train') is index and not data.edge_index.is_meta


def test_moving_stale_indices_drops_them() -> None:
    data = make_data()
    before = data.fact_index('train')
    write(data)
    data.to('cpu')
    assert data.fact_index('train') is not before
    assert data.fact_index('train').contains(*torch.tensor([0, 1, 1])).item()
    after = data.fact_index('train')
    assert data.cpu().fact_index('train').keys.data_ptr() == after.keys.data_ptr()


def test_partial_move_drops_indices() -> None:
    data = make_data()
    before = data.fact_index('train')
    data.to('meta', 'test_edge_type')
    assert data.test_edge_type is not None and data.test_edge_type.is_meta
    assert data.fact_index('train') is not before


def test_inference_tensors_can_be_indexed() -> None:
    with torch.inference_mode():
        data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]))
    assert data.fact_index('train').num_facts == 1
    assert data.fact_index('train') is data.fact_index('train')


@pytest.mark.gpu
def test_indices_on_gpu() -> None:
    data = make_data()
    index = data.fact_index('train')
    data.cuda()
    assert data.fact_index('train').keys.is_cuda
    assert data.fact_index('train').keys.cpu().equal(index.keys)
    assert data.edges_by('target').ptr.is_cuda
    assert not data.cpu().edges_by('target').ptr.is_cuda


# Labels ######################################################################


def test_label_lookup() -> None:
    data = make_data()
    assert data.entity_id('carol') == 2 and data.relation_id('knows') == 1
    with pytest.raises(DataError, match="entity 'karol' .*4 .*'carol'"):
        data.entity_id('karol')
    with pytest.raises(DataError, match="relation 'zzz' .*2 relation labels$"):
        data.relation_id('zzz')
    with pytest.raises(DataError, match="'3'.*tensor"):
        data.entity_id(3)
    for wrong in (None, True, 1.5, ['carol']):
        with pytest.raises(DataError, match=f'entity .*{type(wrong).__name__}'):
            data.entity_id(wrong)  # type: ignore[arg-type]
    data.entity_labels = ['w', 'x', 'y', 'z']
    assert data.entity_id('z') == 3
    with pytest.raises(DataError, match='entity_labels'):
        make_data(entity_labels=None).entity_id('carol')


def test_suggestion_among_many_labels() -> None:
    data = make_data(entity_labels=[f'{prefix}_{i}' for prefix in 'abc' for i in range(10_000)])
    with pytest.raises(DataError, match="'b_99"):
        data.entity_id('b_99999')


# Checks ######################################################################


def test_good_data_validates_without_a_word() -> None:
    data = KGData(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert data.validate() is True
        assert data.with_inverse_relations().validate() is True


@pytest.mark.parametrize('overrides, message', [
    ({'edge_index': torch.tensor([[0, 0, 1], [1, 4, 2]])},
     r'edge_index\[1\], column 1: .*tail id .*\[0, 3\].*num_nodes.* 4$'),
    ({'edge_index': torch.tensor([[0, 0, -2], [1, 1, 2]])}, r'edge_index\[0\], column 2: .*head id.* -2$'),
    ({'edge_type': torch.tensor([0, 2, 1])}, r'edge_type, column 1: .*relation id .*\[0, 1\].*num_relations.* 2$'),
    ({'valid_edge_index': torch.tensor([[9], [1]])}, r'valid_edge_index\[0\], column 0: .*head id .* 9$'),
    ({'test_edge_type': torch.tensor([-1])}, 'test_edge_type, column 0: .*relation id .* -1$'),
    ({'edge_type': torch.tensor([0., 1., 0.])}, r'edge_type: .*int64.*torch.float32.*edge_type.long'),
    ({'edge_index': torch.zeros(2, 3, dtype=torch.int32)}, 'edge_index: .*int64.*int32'),
    ({'edge_index': torch.zeros(3, 2, dtype=torch.int64)}, r'edge_index: .*\(2, F\).*\(3, 2\)'),
    ({'edge_type': torch.tensor([0, 1])}, r'edge_type: .*\(3,\)'),
    ({'edge_type': torch.zeros(3, 1, dtype=torch.int64)}, r'edge_type: .*\(3,\)'),
    ({'edge_type': None}, 'edge_type: .*edge_index'),
    ({'test_edge_index': None}, 'test_edge_index: .*test_edge_type'),
    ({'edge_index': torch.empty(2, 0, dtype=torch.int64), 'edge_type': torch.empty(0, dtype=torch.int64)},
     'edge_index: '),
    ({'edge_index': None, 'edge_type': None}, '^edge_index: '),
    ({'num_nodes': 0, 'entity_labels': None}, 'num_nodes: .* 0'),
    ({'num_relations': 2.0, 'relation_labels': None}, 'num_relations: .* 2.0'),
    ({'entity_labels': ['a', 'b']}, 'edge_index'),
    ({'entity_labels': ['a', 'b'], 'num_nodes': 4}, 'entity_labels: .*num_nodes .*4.* 2$'),
    ({'relation_labels': ['same', 'same']}, "relation_labels: .*'same'"),
    ({'entity_labels': 'abcd'}, 'entity_labels: .*str'),
    ({'entity_labels': ['a', 'b', 1.5, 'd']}, 'entity_labels, position 2: .*1.5 .*float'),
    ({'relation_labels': ['r', None]}, 'relation_labels, position 1: .*None .*NoneType'),
    ({'entity_labels': [True, 1, 2, 3]}, 'entity_labels, position 0: .*True .*bool'),
    ({'entity_labels': [1, 2, '1', 3]}, "entity_labels: .*'1'"),
    ({'has_inverse_relations': True}, r'has_inverse_relations: .*3 edges.* 0$'),
    ({'edge_type': [0, 0, 1]}, 'edge_type: .*list'),
    ({'test_edge_type': torch.zeros(1, dtype=torch.int64, device='meta')}, 'test_edge_type: .*cpu.* meta'),
])
def test_unusable_data(overrides: dict[str, Any], message: str) -> None:
    data = make_data(**overrides)
    with pytest.raises(DataError, match=message):
        data.validate()
    with pytest.warns(DataWarning, match=message):
        assert data.validate(raise_on_error=False) is False


def test_facts_that_are_no_tensors() -> None:
    with pytest.raises(DataError, match='edge_type: .*list'):
        KGData(torch.tensor([[0], [1]]), [0], num_relations=1).validate()  # type: ignore[arg-type]
    with pytest.raises(DataError, match='edge_type: .*list'):  # not: the graph is empty
        KGData(torch.tensor([[0], [1]]), [0]).validate()  # type: ignore[arg-type]


def test_empty_graph() -> None:
    with pytest.raises(DataError, match='num_nodes: .*edge_index'):
        KGData().validate()


@pytest.mark.parametrize('attributes', [
    {'edge_attr': torch.rand(3, 2)}, {'confidence': torch.rand(3)},
    {'edge_time': [1, 2, 3]}, {'val_edge_index': torch.zeros(2, 1, dtype=torch.int64)},
])
def test_attributes_of_edges_are_not_ignored(attributes: dict[str, Any]) -> None:
    (key, value), = attributes.items()
    with pytest.raises(DataError, match=f'{key}: '):
        make_data(**attributes)
    data = make_data()
    data[key] = value
    with pytest.raises(DataError, match=f'{key}: '):
        data.validate()


def test_a_misspelt_split_is_recognised() -> None:
    with pytest.raises(DataError, match='val_edge_index.* valid_edge_index'):
        make_data(val_edge_index=torch.zeros(2, 1, dtype=torch.int64))


def test_attributes_of_entities_stay() -> None:
    data = make_data(x=torch.rand(4, 2), name='mine')
    assert data.validate() and data.x.shape == (4, 2) and data.name == 'mine'


def test_a_graph_without_relation_types_is_one_relation() -> None:
    edge = torch.tensor([[0, 1], [1, 2]])
    data = KGData(edge, test_edge_index=edge.flip(0))
    assert (data.num_nodes, data.num_relations) == (3, 1) and data.validate()
    assert data.facts('train').tolist() == [[0, 0, 1], [1, 0, 2]]
    assert data.facts('test').tolist() == [[1, 0, 0], [2, 0, 1]]
    assert KGData(edge, relation_labels=['r']).num_facts() == KGData(edge, num_relations=1).num_facts() == 2
    # Where there are several relations, an edge without one is a mistake.
    for options in ({'num_relations': 2}, {'relation_labels': ['r', 's']}, {'test_edge_type': torch.tensor([0, 0])}):
        with pytest.raises(DataError, match='edge_type: .*edge_index'):
            KGData(edge, **{'test_edge_index': edge, **options}).validate()


def test_integers_are_ids_unless_labels_are_integers() -> None:
    assert not make_data().has_integer_labels('entity')
    assert not make_data(entity_labels=None).has_integer_labels('entity')
    data = make_data(entity_labels=['1', '10', '02', '-7'])
    assert data.has_integer_labels('entity') and not data.has_integer_labels('relation')
    assert [data.entity_id(label) for label in (1, 10, -7, '02')] == [0, 1, 3, 2]
    numbers: Any = [7, 3, 5, 1]
    data = make_data(entity_labels=numbers)
    assert data.has_integer_labels('entity') and [data.entity_id(label) for label in (7, 3, 5, 1)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="'8'"):
        data.entity_id(8)


def test_integers_as_labels_become_strings(tmp_path: Path) -> None:
    numbers: list[Any] = [np.int64(7), 3, 5, '1']
    made, assigned, data = make_data(entity_labels=numbers), make_data(), make_data()
    assigned.entity_labels = numbers
    data['entity_labels'] = tuple(numbers)
    data.update({'relation_labels': [10, 20]})
    assert made.entity_labels == assigned.entity_labels == data.entity_labels == ['7', '3', '5', '1']
    assert data.relation_labels == ['10', '20']
    # What is given stays as it is.
    assert numbers == [7, 3, 5, '1'] and make_data(entity_labels=LABELS).entity_labels is LABELS
    assert data.validate() and data.report() and data.entity_id(3) == data.entity_id('3') == 1
    back = from_folder(to_folder(data, tmp_path), entities=data)
    assert back.entity_labels == data.entity_labels and torch.equal(back.facts('all'), data.facts('all'))


def test_validation_warns_of_what_the_report_finds() -> None:
    data = KGData(torch.tensor([[0, 0], [1, 1]]), torch.tensor([0, 0]))
    with pytest.warns(DataWarning) as caught:
        assert data.validate() is True
    assert [str(warning.message) for warning in caught] == data.report().warnings
    with pytest.raises(DataError, match='edge_type'):
        KGData(torch.tensor([[0], [1]]), torch.tensor([3]), num_relations=1).report()


def test_labels_are_not_walked_over() -> None:
    calls: list[Any] = []

    def record(value: Any) -> Any:
        calls.append(value)
        return value

    make_data().apply(record)
    assert len(calls) > 0 and all(not isinstance(value, str) for value in calls)
    assert any(isinstance(value, Tensor) for value in calls)


def test_columns_are_not_copied() -> None:
    data = make_data()
    assert [column.tolist() for column in data.columns('valid')] == [[2], [0], [1]]
    for column, held in zip(data.columns('train'), (data.edge_index[0], data.edge_type, data.edge_index[1])):
        assert column.data_ptr() == held.data_ptr()  # type: ignore[union-attr]
    inverse = data.with_inverse_relations()
    for split in ('train', 'valid', 'test', 'all'):
        for other in (data, inverse):
            assert torch.equal(torch.stack(other.columns(split), dim=1), data.facts(split))  # type: ignore[arg-type]
    alone = KGData(data.edge_index, data.edge_type, 4, 2)
    assert alone.columns('all')[0].data_ptr() == data.edge_index.data_ptr()  # no other split has facts
    assert alone.fact_index('all') is alone.fact_index('train') and alone.columns('test')[0].shape == (0, )


def test_int32_in_index_and_types() -> None:
    data = make_data()
    narrow = make_data(**{key: value.int() for key, value in data.to_dict().items() if 'edge' in key})
    assert narrow.validate() and narrow.columns('train')[0].dtype == torch.int32
    for split in ('train', 'valid', 'all'):
        assert torch.equal(narrow.facts(split), data.facts(split))  # type: ignore[arg-type]
        assert torch.equal(narrow.fact_index(split).keys, data.fact_index(split).keys)  # type: ignore[arg-type]
    inverse, subgraph = narrow.with_inverse_relations(), narrow.subgraph(torch.tensor([0, 1, 2]))
    assert inverse.edge_index.dtype == inverse.edge_type.dtype == torch.int64  # type: ignore[union-attr]
    assert torch.equal(inverse.edge_index, data.with_inverse_relations().edge_index)
    assert torch.equal(subgraph.facts('train'), data.subgraph(torch.tensor([0, 1, 2])).facts('train'))
    with pytest.raises(DataError, match='edge_index: .*int64.*int32'):
        KGData(inverse.edge_index.int(), inverse.edge_type.int(), 4, 2, has_inverse_relations=True).validate()


@pytest.mark.parametrize('kind', [np.int64, np.int32, np.uint8])
def test_sizes_of_numpy_are_integers_of_python(kind: Any) -> None:
    edges = torch.tensor([[0, 1], [1, 2]])
    data: Any = KGData(edges, num_nodes=kind(200), num_relations=kind(1))
    assert data.edge_type.tolist() == [0, 0]  # the single relation, as for the integer 1 of Python
    data.num_relations, data['num_nodes'] = kind(2), kind(201)
    for value, size in ((data.num_nodes, 201), (data.num_relations, 2)):
        assert value == size and type(value) is int
    check_data(data)
    assert data.fact_index('train').num_facts == 2


@pytest.mark.parametrize('kind', [np.array, pd.Index, tuple, lambda names: pd.Series(names, index=[3, 2, 1, 0]),
                                  lambda names: pd.Series(names, dtype='category')])
def test_labels_may_be_arrays_and_columns(kind: Callable[[Any], Any]) -> None:
    names = ['d', 'c', 'b', 'a']
    data = make_data(entity_labels=kind(names))
    check_data(data)
    assert list(data.entity_labels or ()) == names
    assert [data.entity_id(name) for name in names] == [0, 1, 2, 3]  # not the places that an index of pandas names
    assert make_data(entity_labels=kind([7, 3, 5, 1])).entity_id(3) == 1


def test_labels_that_are_replaced_in_place_are_found() -> None:
    data = make_data(entity_labels=['a', 'b', 'c', 'd'])
    assert data.entity_id('b') == 1 and data.entity_labels is not None
    data.entity_labels[1] = 'new'
    assert data.entity_id('new') == 1
    with pytest.raises(DataError, match="no entity 'b'"):
        data.entity_id('b')
    data.entity_labels[1], data.entity_labels[2] = data.entity_labels[2], data.entity_labels[1]
    assert (data.entity_id('c'), data.entity_id('new')) == (1, 2)
