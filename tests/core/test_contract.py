r"""The methods of a scorer that a loop of a user's own calls: what they take, and what they say of anything else."""
from __future__ import annotations

from typing import Any, Callable, Literal

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import kge

from pyg_emu import models
from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot
from pyg_emu.models.adapters import as_scorer

V, R, D = 7, 3, 4


class Own(ScorerMixin):
    r"""A scorer of a user's own, whose tables are indexed: a negative id would be read from their end."""
    interaction = Dot()

    def __init__(self) -> None:
        self.entities, self.relations = torch.rand(V, D), torch.rand(R, D)
        self.num_nodes, self.num_relations = V, R

    def entity_table(self) -> Tensor:
        return self.entities

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return self.entities[known] * self.relations[rel_type]


SCORERS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: getattr(models, name)(V, R, D)  # type: ignore[misc]
       for name in ('DistMult', 'ComplEx', 'TransE', 'RotatE', 'HAKE')},
    **{f'PyG {name}': lambda name=name: as_scorer(getattr(kge, name)(V, R, D))  # type: ignore[misc]
       for name in ('DistMult', 'ComplEx', 'TransE', 'RotatE')},
    'Reciprocal': lambda: models.Reciprocal(models.DistMult(V, 2 * R, D)),
    'own': Own,
}


@pytest.fixture(params=SCORERS)
def scorer(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return SCORERS[request.param]()


def message(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ArgumentError) as caught:
        call(*arguments)
    return str(caught.value)


ids = torch.tensor


@pytest.mark.parametrize('known, rel_type, side, facts', [
    (ids([0, 7]), ids([0, 0]), 'tail', ['known', '7', 'position 1', '[0, 7)']),
    (ids([-1, 0]), ids([0, 0]), 'head', ['known', '-1', 'position 0', '[0, 7)']),
    (ids([0, 1]), ids([0, 3]), 'tail', ['rel_type', '3', 'position 1', '[0, 3)']),
    (ids([0, 1]), ids([-1, 0]), 'head', ['rel_type', '-1', 'position 0', '[0, 3)']),
    (ids([0, 1]), ids([0, -1]), ids([True, False]), ['rel_type', '-1', 'position 1']),
    (ids([0.0, 1.0]), ids([0, 0]), 'tail', ['known', 'int64', 'float32']),
    (ids([True, False]), ids([0, 0]), 'tail', ['known', 'int64', 'bool']),
    ([0, 1], ids([0, 0]), 'tail', ['known', '[0, 1]']),
    (ids([0, 1]), ids([0]), 'tail', ['rel_type', '(2,)', '(1,)']),
    (ids([0, 1]), 0, 'tail', ['rel_type', '0']),
    (ids([0, 1]), ids([0, 0]), 'tails', ['side', "'tail'", "'head'", "'tails'"]),
    (ids([0, 1]), ids([0, 0]), None, ['side', 'None']),
    (ids([0, 1]), ids([0, 0]), True, ['side', 'True']),
    (ids([0, 1]), ids([0, 0]), ids([1, 0]), ['side', 'bool', 'int64']),
    (ids([0, 1]), ids([0, 0]), ids([True]), ['side', '(2,)', '(1,)']),
    (ids([0, 1]), ids([0, 0]), ids([True, True]).to('meta'), ['side', 'cpu', 'meta']),
])
def test_query_refuses(scorer: Any, known: Any, rel_type: Any, side: Any, facts: list[str]) -> None:
    told = message(scorer.query, known, rel_type, side)
    assert told.startswith(f'{facts[0]}: ') and all(fact in told for fact in facts), told


@pytest.mark.parametrize('index, facts', [
    (ids([0, 7]), ['7', 'position 1', '[0, 7)']), (ids([[0, 1], [2, -3]]), ['-3', '(1, 1)', '[0, 7)']),
    (ids([0.5]), ['int64', 'float32']), (ids([True]), ['bool']), ([0], ['[0]']), (None, ['None']),
])
def test_candidates_refuse(scorer: Any, index: Any, facts: list[str]) -> None:
    told = message(scorer.candidates, index)
    assert told.startswith('index: ') and all(fact in told for fact in facts), told


def test_ids_on_another_device_are_named() -> None:
    scorer = models.DistMult(V, R, D)
    there = torch.zeros(2, dtype=torch.int64, device='meta')
    assert all(fact in message(scorer.candidates, there) for fact in ('index', 'meta', 'cpu'))
    assert all(fact in message(scorer.query, there, there, 'tail') for fact in ('known', 'meta', 'cpu'))


def test_scores_refuse(scorer: Any) -> None:
    known = ids([0, 1])
    query, rows = scorer.query(known, known, 'tail'), scorer.candidates(ids([[0, 1, 2], [3, 4, 5]]))
    for given, name, fact in (
        ((query[:, 1:], rows), 'query', str(query.size(1))),
        ((query, rows[:, :, :1].expand(-1, -1, 2 * rows.size(2))), 'query', str(tuple(query.shape))),
        ((query.long(), rows), 'query', 'int64'), ((None, rows), 'query', 'None'),
        ((query, rows.long()), 'candidates', 'int64'), ((query, None), 'candidates', 'None'),
        ((query, torch.cat([rows, rows])), 'candidates', '(4, 3, '),
        ((query, rows[:, :, None].expand(-1, -1, 2, -1)), 'candidates', '(2, 3, 2, '),
        ((query.to('meta'), rows), 'query', 'meta'),
    ):
        told = message(scorer.score, *given)
        assert told.startswith(f'{name}: ') and fact in told, told
    for wrong, fact in ((query[:, 1:], str(query.size(1))), (query.long(), 'int64'), ([1.0], '[1.0]'),
                        (query.to('meta'), 'meta'), (query[0, 0], '()')):
        told = message(scorer.score_all, wrong)
        assert told.startswith('query: ') and fact in told, told


def test_valid_arguments_of_other_types_and_shapes_pass(scorer: Any) -> None:
    known, rel_type = ids([0, 6]), ids([2, 0])
    query = scorer.query(known, rel_type, ids([True, False]))
    torch.testing.assert_close(query[0], scorer.query(known, rel_type, 'tail')[0])
    torch.testing.assert_close(query[1], scorer.query(known.int(), rel_type.int(), 'head')[1])
    empty = torch.empty(0, dtype=torch.int64)
    assert scorer.query(empty, empty, 'tail').size(0) == 0 and scorer.candidates(empty).size(0) == 0
    everything = scorer.score_all(query)
    index = ids([[0, 3, 6], [1, 2, 5]])
    torch.testing.assert_close(scorer.score(query, scorer.candidates(index)), everything.gather(1, index))
    torch.testing.assert_close(scorer.score(query, scorer.candidates(known)), everything[[0, 1], known])
    # One query and several rows, and queries of another floating-point type.
    torch.testing.assert_close(scorer.score(query[:1], scorer.candidates(ids([0, 1, 2]))), everything[0, :3])
    torch.testing.assert_close(scorer.score_all(query.double()).float(), everything)
