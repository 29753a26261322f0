from __future__ import annotations

from typing import Callable

import pytest
import torch

from pyg_emu import KGData, models
from pyg_emu.core.errors import ArgumentError
from pyg_emu.models.growing import Rows, Sizes, carried, grown_state, rows_by_name
from pyg_emu.ops import use_backend

BEFORE, AFTER = Sizes(4, 2), Sizes(6, 3)
MAKERS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    'DistMult': lambda v, r: models.DistMult(v, r, 4),
    'HAKE': lambda v, r: models.HAKE(v, r, 4),
    'Reciprocal': lambda v, r: models.Reciprocal(models.RotatE(v, 2 * r, 4)),
    'RGCN': lambda v, r: models.RGCN(v, r, 4),
    'RGCN blocks': lambda v, r: models.RGCN(v, r, 4, num_blocks=2),
    'NBFNet': lambda v, r: models.NBFNet(r, 4, num_layers=2),
    'NBFNet tables': lambda v, r: models.NBFNet(r, 4, num_layers=2, dependent=False),
    'Reciprocal RGCN': lambda v, r: models.Reciprocal(models.RGCN(v, 2 * r, 4)),
}


@pytest.mark.parametrize('name', MAKERS)
def test_rows_are_told_from_shapes(name: str) -> None:
    rows = rows_by_name(MAKERS[name])
    kinds = {'entity': 0, 'relation': 0, None: 0}
    for one in rows.values():
        kinds[one.kind] += 1
    assert kinds['relation'] >= 1 and (kinds['entity'] == 1) == (not name.startswith('NBF'))


def test_rows_of_nbfnet() -> None:
    rows = rows_by_name(MAKERS['NBFNet'])
    assert rows['query.weight'] == Rows('relation', 2, 1)
    assert rows['layers.0.relation_linear.weight'] == Rows('relation', 2, 4)
    assert rows['layers.0.linear.weight'].kind is None


def test_blocks_of_rows_move_apart() -> None:
    # Two blocks of two relations, two rows for each: 00 01 10 11 | 20 21 30 31.
    old = torch.arange(8.0).view(8, 1)
    out = carried(old, torch.full((12, 1), -1.0), Rows('relation', 2, 2), BEFORE, AFTER)
    assert out.flatten().tolist() == [0, 1, 2, 3, -1, -1, 4, 5, 6, 7, -1, -1]
    out = carried(torch.arange(4.0), torch.full((6, ), -1.0), Rows('entity'), BEFORE, AFTER)
    assert out.tolist() == [0, 1, 2, 3, -1, -1]


@pytest.mark.parametrize('name', ['DistMult', 'HAKE', 'Reciprocal'])
def test_old_facts_keep_their_scores(name: str) -> None:
    old, new = MAKERS[name](*BEFORE), MAKERS[name](*AFTER)
    begun = {key: value.clone() for key, value in new.state_dict().items()}
    new.load_state_dict(grown_state(old.state_dict(), new, rows_by_name(MAKERS[name]), BEFORE, AFTER))
    known, relation = torch.tensor([0, 3, 2]), torch.tensor([1, 0, 1])
    for side in ('tail', 'head'):
        scores = new.score_all(new.query(known, relation, side))  # type: ignore[operator]
        expected = old.score_all(old.query(known, relation, side))  # type: ignore[operator]
        torch.testing.assert_close(scores[:, :4], expected, rtol=0, atol=0)
    # New rows are as they were initialised.
    table = next(key for key in begun if key.endswith('node_emb.weight'))
    assert torch.equal(new.state_dict()[table][4:], begun[table][4:])


@pytest.mark.parametrize('name', ['NBFNet', 'NBFNet tables', 'RGCN', 'RGCN blocks'])
def test_old_graph_keeps_its_scores(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    edges, types = torch.randint(4, (2, 12), generator=generator), torch.randint(2, (12, ), generator=generator)
    graphs = [KGData(edges, types, *sizes).with_inverse_relations() for sizes in (BEFORE, AFTER)]
    old, new = MAKERS[name](*BEFORE).eval(), MAKERS[name](*AFTER).eval()
    new.load_state_dict(grown_state(old.state_dict(), new, rows_by_name(MAKERS[name]), BEFORE, AFTER))
    known, relation = torch.tensor([0, 3, 2]), torch.tensor([1, 0, 1])
    with use_backend('torch'), torch.no_grad():
        if name.startswith('NBF'):
            # Another graph than the old one would have other degrees.
            hidden = [model.layers[0].relation_vectors(model.query(model.query_relation(relation, 'head')))
                      for model in (old, new)]
            if hidden[0].dim() == 2:
                torch.testing.assert_close(hidden[1][[0, 1, 3, 4]], hidden[0])
            else:
                torch.testing.assert_close(hidden[1][:, [0, 1, 3, 4]], hidden[0])
        else:
            scores = [model.for_graph(graph).score_all(model.for_graph(graph).query(known, relation, 'tail'))
                      for model, graph in zip((old, new), graphs)]
            torch.testing.assert_close(scores[1][:, :4], scores[0])


class Doubled(torch.nn.Module):
    r"""A class of one's own with rows for inverse relations."""
    def __init__(self, num_nodes: int, num_relations: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(2 * num_relations, 3)


def test_unknown_order_of_rows_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r'Doubled\.table\.weight.*relation_blocks'):
        rows_by_name(Doubled)

    class Stated(Doubled):
        relation_blocks = 2

    assert rows_by_name(Stated) == {'table.weight': Rows('relation', 2, 1)}
    with pytest.raises(ArgumentError, match=r'Linear\.weight'):
        rows_by_name(lambda v, r: torch.nn.Linear(v, 2))
