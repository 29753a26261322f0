from __future__ import annotations

import copy
import io
import pickle
from typing import Any, Callable

import pytest
import torch
from torch_geometric.data import Batch as Collated
from torch_geometric.data import Data
from torch_geometric.transforms import RandomLinkSplit

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData


def make_batch(side: Any = 'tail') -> Batch:
    data = KGData(torch.tensor([[0, 0, 1], [1, 2, 2]]), torch.tensor([0, 0, 1]), 4, 2)
    return Batch(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 3]), side, num_nodes=4, num_relations=2,
                 step=7, source=data, generator=torch.Generator())


def make_plain(**extra: Any) -> Data:
    head_index, rel_type, tail_index = torch.tensor([[0, 1], [0, 1], [2, 3]])
    return Data(**{'head_index': head_index, 'rel_type': rel_type, 'tail_index': tail_index, 'num_nodes': 4, **extra})


def through_file(data: Any) -> Any:
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize('side, known, target, tails', [
    ('tail', [0, 1], [2, 3], [True, True]),
    ('head', [2, 3], [0, 1], [False, False]),
    (torch.tensor([False, True]), [2, 1], [0, 3], [False, True]),
])
def test_ends_follow_from_side(side: Any, known: list[int], target: list[int], tails: list[bool]) -> None:
    batch = make_batch(side)
    assert batch.known_index.tolist() == known and batch.target_index.tolist() == target
    assert batch.corrupts_tail.tolist() == tails


@pytest.mark.parametrize('size', [0, 1, 2, 7, 100])
def test_without_a_side_half_of_the_rows_predict_each_end(size: int) -> None:
    ids = torch.arange(size)
    counts = set()
    for seed in range(30):
        drawn = [Batch(ids, ids, ids, num_nodes=100, generator=torch.Generator().manual_seed(seed)).corrupts_tail
                 for _ in range(2)]
        assert drawn[0].dtype == torch.bool and torch.equal(*drawn)
        counts.add(int(drawn[0].sum()))
    assert counts == {size // 2, (size + 1) // 2}


def bernoulli_graph() -> KGData:
    r"""Relation 0 has one head and three tails, so that heads are replaced in 3/4 of the cases; relation 1 has four
    heads and one tail, 1/5; relation 2 has no facts, 1/2.
    """
    head, relation, tail = torch.tensor([[0, 0, 1], [0, 0, 2], [0, 0, 3], [1, 1, 0], [2, 1, 0], [3, 1, 0],
                                         [4, 1, 0]]).unbind(1)
    return KGData(torch.stack([head, tail]), relation, 5, 3)


def test_bernoulli_sides() -> None:
    data, relation = bernoulli_graph(), torch.arange(6000) % 3
    ids = torch.zeros(6000, dtype=torch.int64)
    batches = [Batch(ids, relation, ids, 'bernoulli', num_nodes=5, num_relations=3, source=data,
                     generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    assert batches[0].corrupts_tail.equal(batches[1].corrupts_tail)
    plain = Batch.of(Data(head_index=ids, rel_type=relation, tail_index=ids, num_nodes=5, side='bernoulli',
                          source=data))
    for batch in (batches[0], plain):
        heads = ~Batch.of(batch).corrupts_tail
        for relation_id, share in enumerate((0.75, 0.2, 0.5)):
            deviation = (share * (1 - share) / 2000)**0.5
            assert abs(float(heads[relation == relation_id].double().mean()) - share) < 3.5 * deviation


@pytest.mark.parametrize('changes, facts', [
    ({'source': None}, ['batch.source', 'KGData', 'None']),
    ({'source': Data()}, ['batch.source', 'KGData', 'Data']),
    ({'source': 'UMLS'}, ['batch.source', 'KGData', "'UMLS'"]),
    ({'generator': 3}, ['batch.generator', '3']),
    ({'rel_type': torch.tensor([0, 3])}, ['batch.rel_type', '3', 'position 1']),
    ({'rel_type': torch.tensor([0.0, 1.0])}, ['batch.rel_type', 'float32']),
    ({'rel_type': torch.tensor([0])}, ['batch.rel_type', '(1,)']),
    ({'rel_type': [0, 1]}, ['batch.rel_type', 'list']),
    ({'rel_type': torch.zeros(2, dtype=torch.int64, device='meta')}, ['batch.rel_type', 'meta']),
])
def test_bernoulli_sides_of_what_is_unusable(changes: dict[str, Any], facts: list[str]) -> None:
    ids = torch.tensor([0, 1])
    with pytest.raises(ArgumentError) as error:
        Batch.of(Batch(**{'head_index': ids, 'rel_type': ids, 'tail_index': ids, 'side': 'bernoulli', 'num_nodes': 5,
                          'source': bernoulli_graph(), **changes}))
    assert all(fact in str(error.value) for fact in facts)


def test_optional_fields_are_none() -> None:
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([1]), 'head', num_nodes=2)
    assert (batch.neg_index, batch.neg_mask, batch.neg_vectors, batch.step, batch.source, batch.generator,
            batch.mutation, batch.scored, batch.whole, batch.rows) == (None, ) * 10
    assert batch.num_negatives == 0 and batch.device == torch.device('cpu')
    with pytest.raises(AttributeError, match='nothing'):
        batch.nothing  # noqa: B018


@pytest.mark.parametrize('duplicate', [copy.copy, copy.deepcopy, lambda batch: batch.clone(),
                                       lambda batch: batch.to('cpu')], ids=['copy', 'deepcopy', 'clone', 'to'])
def test_holds_its_source(duplicate: Callable[[Batch], Batch]) -> None:
    batch = make_batch()
    batch.mutation = torch.nn.Linear(1, 1)  # type: ignore[assignment]
    out = duplicate(batch)
    assert out.source is batch.source and out.generator is batch.generator and out.mutation is batch.mutation
    assert not {'source', 'generator', 'mutation', '_source'} & set(out.keys())
    assert out.step == 7 and out.side == 'tail'


def test_moving_a_batch_moves_neither_source_nor_mutation() -> None:
    batch = make_batch()
    batch.mutation = torch.nn.Linear(1, 1)  # type: ignore[assignment]
    batch.to('meta')
    assert batch.head_index.is_meta and batch.source is not None and not batch.source.edge_index.is_meta
    assert not batch.mutation.weight.is_meta  # type: ignore[attr-defined]


def test_saved_batch_leaves_its_source_behind() -> None:
    for out in (through_file(make_batch()), pickle.loads(pickle.dumps(make_batch()))):
        assert out.source is None and out.generator is None and out.head_index.tolist() == [0, 1] and out.step == 7


def test_repr() -> None:
    batch = make_batch(torch.tensor([True, False]))
    batch.neg_index = torch.zeros(2, 5, dtype=torch.int64)
    batch.neg_vectors = torch.zeros(2, 3, 8)
    assert repr(batch) == 'Batch(batch_size=2, side=both, num_negatives=8)'
    assert repr(Batch()) == 'Batch()'


def test_part() -> None:
    batch = make_batch(torch.tensor([True, False]))
    part = batch.part(slice(1, 2))
    assert part.head_index.tolist() == [1] and part.corrupts_tail.tolist() == [False] and part.num_nodes == 4
    assert part.whole is batch and part.rows == slice(1, 2) and batch.whole is None
    assert copy.copy(part).whole is batch and part.source is batch.source
    assert batch.head_index.tolist() == [0, 1]


# Negatives that rows share ###################################################


def make_shared(size: int = 5, chunk_size: int = 2, **extra: Any) -> Batch:
    ids = torch.arange(size)
    index = torch.arange(3 * -(-size // chunk_size)).view(-1, 3)
    return Batch(ids, torch.zeros_like(ids), ids, 'tail', num_nodes=50,
                 neg_index=SharedIndex(index, chunk_size, size), **extra)


def test_shared_negatives_read_as_each_rows_own() -> None:
    batch = make_shared()
    assert batch.neg_index.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5], [6, 7, 8]]
    assert batch.num_negatives == 3 and 'num_negatives=3' in repr(batch) and 'neg_index' in batch
    assert batch.shared_index is not None and batch.shared_index.index.shape == (3, 3)
    batch.neg_index = torch.zeros(5, 2, dtype=torch.int64)
    assert batch.shared_index is None and batch.num_negatives == 2 and batch.neg_index.shape == (5, 2)
    del batch.neg_index
    assert batch.shared_index is None and batch.neg_index is None and batch.num_negatives == 0


@pytest.mark.parametrize('duplicate', [copy.copy, copy.deepcopy, lambda batch: batch.clone(),
                                       lambda batch: batch.to('cpu'), through_file,
                                       lambda batch: pickle.loads(pickle.dumps(batch)),
                                       lambda batch: Batch.of(Data(**batch.to_dict()))],
                         ids=['copy', 'deepcopy', 'clone', 'to', 'file', 'pickle', 'plain'])
def test_shared_negatives_travel(duplicate: Callable[[Batch], Batch]) -> None:
    batch = make_shared()
    out = duplicate(batch)
    assert isinstance(out.shared_index, SharedIndex) and out.shared_index[1:] == (2, 5, 0)
    assert out.neg_index.equal(batch.neg_index)


def test_shared_negatives_move() -> None:
    batch = make_shared().to('meta')
    assert batch.shared_index is not None and batch.shared_index.index.is_meta and batch.neg_index.is_meta


@pytest.mark.parametrize('chunk_size', [1, 2, 3, 9])
def test_part_of_shared_negatives(chunk_size: int) -> None:
    # Chunks of one row have as many sets of ids as there are rows, which are no rows of the batch.
    batch = make_shared(chunk_size=chunk_size, neg_mask=torch.arange(15).view(5, 3) % 2 == 0)
    for start, stop in ((0, 2), (2, 5), (1, 4), (3, 3)):
        part = batch.part(slice(start, stop))
        part.check()
        assert part.neg_index.equal(batch.neg_index[start:stop]) and part.neg_mask.equal(batch.neg_mask[start:stop])
        assert part.whole is batch and part.whole.neg_index.shape == (5, 3)


def test_take() -> None:
    batch = make_shared(extra=torch.arange(5), neg_mask=torch.ones(5, 3, dtype=torch.bool))
    batch.side = torch.tensor([True, False, True, True, False])
    out = batch.take(torch.tensor([4, 0, 4]))
    assert out.head_index.tolist() == [4, 0, 4] and out.extra.tolist() == [4, 0, 4]
    assert out.corrupts_tail.tolist() == [False, True, False]
    assert out.neg_index is None and out.neg_mask is None and out.whole is None
    assert batch.neg_index.shape == (5, 3)


@pytest.mark.parametrize('index, message', [
    (SharedIndex(torch.zeros(2, 3, dtype=torch.int64), 2, 4), 'neg_index: .*5 rows, got size=4'),
    (SharedIndex(torch.zeros(2, 3, dtype=torch.int64), 2, 5), r'neg_index\.index: expected 3 .* got 2'),
    (SharedIndex(torch.full((3, 3), 50), 2, 5), r'neg_index: 50 at position \(0, 0\) .*\[0, 50\)'),
])
def test_shared_negatives_that_do_not_fit(index: SharedIndex, message: str) -> None:
    ids = torch.arange(5)
    with pytest.raises(ArgumentError, match=message):
        Batch.of(Batch(ids, ids, ids, 'tail', num_nodes=50, num_relations=5, neg_index=index))


# Plain data ##################################################################


def test_of_takes_plain_data() -> None:
    data = make_plain(weight=torch.ones(2), side='head', step=3, num_relations=2)
    keys = set(data.keys())
    batch = Batch.of(data)
    assert isinstance(batch, Batch) and batch.head_index is data.head_index and batch.weight is data.weight
    assert (batch.side, batch.step, batch.num_nodes, batch.num_relations) == ('head', 3, 4, 2)
    assert set(data.keys()) == keys and Batch.of(batch) is batch


def test_of_draws_a_side() -> None:
    assert int(Batch.of(make_plain()).corrupts_tail.sum()) == 1


def test_data_without_relations_has_one() -> None:
    data = make_plain()
    del data.rel_type
    assert Batch.of(data).rel_type.tolist() == [0, 0]
    data.num_relations = 1
    assert Batch.of(data).rel_type.tolist() == [0, 0]
    data.num_relations = 2
    with pytest.raises(ArgumentError, match='rel_type.*num_relations=2'):
        Batch.of(data)
    del data.num_relations
    data.edge_type = torch.tensor([0, 1])
    with pytest.raises(ArgumentError, match='rel_type.*edge_type'):
        Batch.of(data)


@pytest.mark.parametrize('duplicate', [copy.copy, copy.deepcopy, lambda batch: batch.clone(),
                                       lambda batch: batch.to('meta'), through_file,
                                       lambda batch: pickle.loads(pickle.dumps(batch)),
                                       lambda batch: batch.part(slice(1)), lambda batch: batch.take(torch.tensor([1])),
                                       lambda batch: Collated.from_data_list([batch, batch]),
                                       lambda batch: Collated.from_data_list([batch, batch])[1]],
                         ids=['copy', 'deepcopy', 'clone', 'to', 'file', 'pickle', 'part', 'take', 'collate',
                              'separate'])
def test_remembers_that_relations_were_not_given(duplicate: Callable[[Batch], Batch]) -> None:
    data = make_plain()
    given = Batch.of(data)
    assert not given.lacks_relation and not duplicate(given).lacks_relation
    del data.rel_type
    batch = Batch.of(data)
    assert batch.lacks_relation and duplicate(batch).lacks_relation
    assert set(batch.keys()) == set(given.keys())
    batch.rel_type = given.rel_type
    assert not batch.lacks_relation and not Batch().lacks_relation


@pytest.mark.parametrize('name', ['relation', 'relations', 'rel', 'rel_types', 'edge_label_type'])
def test_names_the_attribute_that_is_meant_for_the_relations(name: str) -> None:
    data = make_plain(**{name: torch.tensor([0, 1])})
    assert Batch.of(data).rel_type.tolist() == [0, 1]  # beside the relations, it is an attribute like any other
    del data.rel_type
    with pytest.raises(ArgumentError, match=f'rel_type is missing, and the data has {name} of 2 values'):
        Batch.of(data)
    with pytest.raises(ArgumentError, match=f'rel_type is missing, and the data has {name} of 2 values'):
        Batch(**data.to_dict())
    for value in ('of', torch.tensor([0, 1, 1]), 2):  # neither belongs to triples
        data[name] = value
        assert Batch.of(data).lacks_relation


def test_parts_of_a_random_link_split() -> None:
    torch.manual_seed(0)
    graph = Data(x=torch.ones(9, 2), edge_index=torch.randint(9, (2, 40)))
    train, _, test = RandomLinkSplit(add_negative_train_samples=False)(graph)
    batch = Batch.of(train)
    assert torch.equal(torch.stack([batch.head_index, batch.tail_index]), train.edge_label_index)
    assert batch.num_nodes == 9 and batch.rel_type.sum() == 0
    first = int((test.edge_label == 0).nonzero()[0])
    with pytest.raises(ArgumentError, match=f'edge_label: 0.0 at position {first} .*add_negative_train_samples'):
        Batch.of(test)
    with pytest.raises(ArgumentError, match='n_id'):
        Batch.of(Data(edge_label_index=torch.zeros(2, 3, dtype=torch.int64), n_id=torch.arange(5), num_nodes=5))
    with pytest.raises(ArgumentError, match=r'edge_label_index: .*\(2, B\), got .*\(3,\)'):
        Batch.of(Data(edge_label_index=torch.arange(3), num_nodes=5))


@pytest.mark.parametrize('extra, message', [
    ({'head_index': None}, 'head_index'),
    ({'num_nodes': None}, 'num_nodes'),
    ({'head_index': torch.tensor([0, 4])}, r'head_index: 4 at position 1 .*\[0, 4\).*num_nodes'),
    ({'tail_index': torch.tensor([-1, 2])}, r'tail_index: -1 at position 0 .*\[0, 4\)'),
    ({'rel_type': torch.tensor([0, -2])}, r'rel_type: -2 at position 1'),
    ({'num_relations': 1}, r'rel_type: 1 at position 1 .*\[0, 1\).*num_relations'),
    ({'rel_type': torch.tensor([0.0, 1.0])}, r'rel_type: .*int64, got torch\.float32'),
    ({'tail_index': torch.tensor([1, 2, 3])}, r'tail_index: .*\(B,\).*got \(3,\)'),
    ({'head_index': torch.tensor([[0, 1]])}, r'head_index'),
    ({'tail_index': [2, 3]}, r'tail_index: .*got list'),
    ({'side': 'both'}, "side: .*'tail', 'head' .*got 'both'"),
    ({'side': torch.tensor([0, 1])}, r'side: .*\(2,\), got torch.int64'),
    ({'side': torch.tensor([True])}, r'side: .*\(2,\), got torch.bool of shape \(1,\)'),
    ({'neg_index': torch.zeros(3, 2, dtype=torch.int64)}, r'neg_index: .*B = 2, got .*\(3, 2\)'),
    ({'neg_index': [[0], [1]]}, r'neg_index: .*list'),
    ({'neg_vectors': torch.zeros(2, 2)}, r'neg_vectors: .*\(B, M, d\)'),
    ({'neg_index': torch.zeros(2, 2, dtype=torch.int64), 'neg_mask': torch.ones(2, 2)}, r'neg_mask: .*\(2, 2\)'),
])
def test_of_names_the_attribute_that_is_unusable(extra: dict[str, Any], message: str) -> None:
    data = make_plain(**extra)
    for key, value in extra.items():
        if value is None:
            del data[key]
    with pytest.raises(ArgumentError, match=message):
        Batch.of(data)


def test_of_checks_batches_made_by_hand() -> None:
    ids = torch.tensor([0, 9])
    with pytest.raises(ArgumentError, match=r'head_index: 9 at position 1'):
        Batch.of(Batch(ids, ids, ids, num_nodes=4))
    with pytest.raises(ArgumentError, match='dict'):
        Batch.of({'head_index': ids})  # type: ignore[arg-type]


@pytest.mark.parametrize('name, value', [
    ('weight', torch.ones(2, 1)), ('weight', -torch.ones(2)), ('neg_mask', torch.ones(2, 1, dtype=torch.bool)),
    ('neg_mask', torch.ones(3, dtype=torch.bool)), ('neg_mask', torch.ones(2, 3)), ('neg_index', torch.zeros(3).long()),
    ('neg_index', torch.full((2, 3), 9)), ('side', torch.ones(2)), ('head_index', torch.tensor([0, 4])),
    ('rel_type', torch.tensor([0.0, 1.0])), ('step', -1), ('mutation', 'mixup'), ('source', 5)])
@pytest.mark.parametrize('as_item', [False, True])
def test_what_is_replaced_is_checked_again(name: str, value: Any, as_item: bool) -> None:
    batch = make_batch()
    batch.neg_index = torch.zeros(2, 3, dtype=torch.int64)
    assert Batch.of(batch) is batch
    if as_item and name not in ('mutation', 'source'):
        batch[name] = value
    else:
        setattr(batch, name, value)
    for given in (batch, copy.copy(batch)):
        with pytest.raises(ArgumentError, match=f'^batch.{name}\\b'):
            Batch.of(given)
