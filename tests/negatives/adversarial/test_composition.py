r"""What a known entity and a relation make together, by the arithmetic of each model."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import kge

from pyg_emu.core.contract import Scorer, ScorerMixin
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot
from pyg_emu.data.batch import Batch
from pyg_emu.models import HAKE, ComplEx, DistMult, Reciprocal, RotatE, TransE
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.adversarial.composition import complex_inverse, entity_relation_rows, inverse

NUM_NODES, NUM_RELATIONS, WIDTH = 5, 3, 4
HEAD, RELATION, TAIL = [0, 1, 2, 3], [0, 1, 2, 0], [4, 3, 2, 1]
SIDE = [True, False, False, True]


def rows(model: Any, floor: float = 1e-6) -> list[list[complex]]:
    scorer = as_scorer(model)
    batch = Batch(torch.tensor(HEAD), torch.tensor(RELATION), torch.tensor(TAIL), torch.tensor(SIDE),
                  num_nodes=NUM_NODES, num_relations=NUM_RELATIONS)
    with torch.no_grad():
        found = entity_relation_rows(scorer, scorer.candidates(batch.known_index), batch, floor)
        assert found.shape == scorer.candidates(batch.known_index).shape
    return found.tolist()


def as_complex(row: Tensor) -> list[complex]:
    re, im = row.detach().chunk(2)
    return [complex(a, b) for a, b in zip(re.tolist(), im.tolist())]


def apart(values: list[complex]) -> list[float]:
    return [value.real for value in values] + [value.imag for value in values]


def triples() -> list[tuple[int, int, bool]]:
    r"""The known entity, the relation and whether the tail is predicted."""
    return [(h if tail else t, r, tail) for h, r, t, tail in zip(HEAD, RELATION, TAIL, SIDE)]


@pytest.mark.parametrize('cls', [DistMult, kge.DistMult])
def test_distmult(cls: Any) -> None:
    torch.manual_seed(0)
    model = cls(NUM_NODES, NUM_RELATIONS, WIDTH)
    for (known, relation, tail), row in zip(triples(), rows(model)):
        pair = zip(model.node_emb.weight[known].tolist(), model.rel_emb.weight[relation].tolist())
        assert row == pytest.approx([e * r if tail else e / r for e, r in pair], rel=1e-4)


@pytest.mark.parametrize('cls', [ComplEx, kge.ComplEx])
def test_complex(cls: Any) -> None:
    torch.manual_seed(0)
    model = cls(NUM_NODES, NUM_RELATIONS, WIDTH)
    scorer = as_scorer(model)
    for (known, relation, tail), row in zip(triples(), rows(model)):
        pair = zip(as_complex(scorer.entity_table()[known]),
                   as_complex(scorer.relation_rows(torch.tensor([relation]), 'tail')[0]))  # type: ignore[attr-defined]
        assert row == pytest.approx(apart([e * r if tail else e / r for e, r in pair]), rel=1e-4)


@pytest.mark.parametrize('cls', [RotatE, kge.RotatE])
def test_rotate(cls: Any) -> None:
    torch.manual_seed(0)
    model = cls(NUM_NODES, NUM_RELATIONS, WIDTH)
    scorer = as_scorer(model)
    for (known, relation, tail), row in zip(triples(), rows(model)):
        turns = as_complex(scorer.relation_rows(torch.tensor([relation]), 'tail')[0])  # type: ignore[attr-defined]
        pair = zip(as_complex(scorer.entity_table()[known]), turns)
        # The inverse of a rotation is the one back.
        assert row == pytest.approx(apart([e * r if tail else e / r for e, r in pair]), abs=1e-5)


def test_transe() -> None:
    torch.manual_seed(0)
    model = TransE(NUM_NODES, NUM_RELATIONS, WIDTH)
    for (known, relation, tail), row in zip(triples(), rows(model)):
        pair = zip(model.node_emb.weight[known].tolist(), model.rel_emb.weight[relation].tolist())
        assert row == pytest.approx([e + r if tail else e - r for e, r in pair], rel=1e-5)


def reciprocal_hake(num_nodes: int, num_relations: int, width: int) -> Reciprocal:
    return Reciprocal(HAKE(num_nodes, 2 * num_relations, width))


@pytest.mark.parametrize('make', [TransE, RotatE, HAKE, reciprocal_hake])
def test_for_distances_it_is_the_best_candidate(make: Any) -> None:
    torch.manual_seed(0)
    scorer: Any = make(NUM_NODES, NUM_RELATIONS, WIDTH)
    with torch.no_grad():
        for value in scorer.parameters():
            value += torch.empty_like(value).uniform_(-0.3, 0.3)  # HAKE's moduli begin at one and its biases at zero
    for (known, relation, tail), row in zip(triples(), rows(scorer)):
        query = scorer.query(torch.tensor([known]), torch.tensor([relation]), 'tail' if tail else 'head').detach()
        # The largest score that there is: every distance is zero.
        assert float(scorer.score(query, torch.tensor([row]))) == pytest.approx(scorer.offset, abs=1e-3)
        assert float(scorer.score(query, torch.tensor([row]) + 0.1)) < scorer.offset - 1e-3


def test_reciprocal_relations_are_not_inverted() -> None:
    torch.manual_seed(0)
    model = Reciprocal(DistMult(NUM_NODES, 2 * NUM_RELATIONS, WIDTH))
    for (known, relation, tail), row in zip(triples(), rows(model)):
        own = relation if tail else relation + NUM_RELATIONS
        pair = zip(model.entity_table()[known].tolist(),
                   model.model.rel_emb.weight[own].tolist())  # type: ignore[union-attr, index]
        assert row == pytest.approx([e * r for e, r in pair], rel=1e-5)


def test_inverse_is_bounded() -> None:
    values = torch.tensor([2.0, -0.5, 0.1, 0.05, -0.01, 0.0])
    assert inverse(values, 0.1).tolist() == pytest.approx([0.5, -2.0, 10.0, 5.0, -1.0, 0.0])
    found = complex_inverse(torch.tensor([3.0, 0.03, 0.0, 4.0, 0.04, 0.0]), 0.1)
    assert found.tolist() == pytest.approx([3 / 25, 3.0, 0.0, -4 / 25, -4.0, 0.0], rel=1e-5)
    assert float(inverse(torch.linspace(-1, 1, 2001), 0.1).abs().max()) <= 10 + 1e-3
    assert math.isfinite(float(complex_inverse(torch.zeros(2), 0.1).sum()))


class Decoder(ScorerMixin):
    r"""A user's own model without relation rows, or with rows of another width."""
    interaction, num_nodes, num_relations = Dot(), NUM_NODES, NUM_RELATIONS

    def _query(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return self.entity_table()[known]

    def entity_table(self) -> Tensor:
        return torch.ones(NUM_NODES, WIDTH)


class Narrow(Decoder):
    def relation_rows(self, rel_type: Tensor, side: Any) -> Tensor:
        return torch.ones(rel_type.numel(), 2)


@pytest.mark.parametrize('cls, facts', [(Decoder, ['Decoder', 'relation_rows', "pathways='entity'"]),
                                        (Narrow, ['Narrow', '(4, 2)', '(4, 4)', "pathways='entity'"])])
def test_models_without_relation_rows(cls: type[Decoder], facts: list[str]) -> None:
    assert isinstance(cls(), Scorer)
    with pytest.raises(ArgumentError) as error:
        rows(cls())
    assert all(fact in str(error.value) for fact in facts)


def test_reciprocal_relations_of_the_users_own() -> None:
    class Own(ScorerMixin, torch.nn.Module):
        interaction = Dot()
        reciprocal = True

        def __init__(self, other: Reciprocal) -> None:
            super().__init__()
            self.other = other
            self.num_nodes, self.num_relations = other.num_nodes, other.num_relations

        def entity_table(self) -> Tensor:
            return self.other.entity_table()

        def _query(self, known: Tensor, rel_type: Tensor, side: Any) -> Tensor:
            return self.other._query(known, rel_type, side)

        def relation_rows(self, rel_type: Tensor, side: Any) -> Tensor:
            return self.other.relation_rows(rel_type, side)

    torch.manual_seed(0)
    model = Reciprocal(DistMult(NUM_NODES, 2 * NUM_RELATIONS, WIDTH))
    assert rows(Own(model)) == rows(model)
