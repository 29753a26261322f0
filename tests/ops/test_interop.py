from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, OneVsAllEMULoss, TripletLoader, evaluate
from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.interaction import L1, Dot
from pyg_emu.negatives.mutation import BernoulliMask
from pyg_emu.ops import (
    MixPlan,
    emu_score,
    last_backend,
    rank_counts,
    relational_conv,
    score_entities,
    use_backend,
)
from pyg_emu.ops.relational import EdgeOrders

NUM_NODES, NUM_RELATIONS, WIDTH = 8, 2, 4


def facts() -> KGData:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(NUM_NODES, (2, 20), generator=generator)
    return KGData(edge_index, torch.randint(NUM_RELATIONS, (20, ), generator=generator), NUM_NODES, NUM_RELATIONS)


def score(query: Tensor, table: Tensor) -> Tensor:
    index = torch.arange(6).view(2, 3)
    plan = MixPlan(torch.full((2, 3), 0.25), index.flip(0))
    scores = emu_score(2 * query, table[:2], table, index, plan, interaction=L1())
    assert scores.vanilla is not None and scores.mutated is not None
    return (scores.vanilla + 1).sum() * scores.mutated.mean()


def rank(query: Tensor, table: Tensor) -> Tensor:
    counts = rank_counts(2 * query, table, torch.tensor([3, 5]), interaction=Dot())
    return counts.greater + 10 * counts.equal


def convolve(query: Tensor, table: Tensor) -> Tensor:
    data = facts()
    return relational_conv(2 * table.unsqueeze(1), query, EdgeOrders.of(data), aggregate='sum').square().sum()


OPERATORS = {score: 'emu_score', rank: 'rank_counts', convolve: 'relational'}


@pytest.mark.parametrize('function', OPERATORS, ids=lambda function: function.__name__)
def test_compiled(function: Any) -> None:
    torch.manual_seed(0)
    query, table = (torch.randn(size, WIDTH).requires_grad_() for size in (2, NUM_NODES))
    expected, operator = function(query, table), OPERATORS[function]
    backend = last_backend(operator)
    assert backend == 'numba'
    torch._dynamo.reset()
    compiled = torch.compile(function, backend='eager')
    for _ in range(2):
        found = compiled(query, table)
        assert torch.equal(found, expected)
        assert last_backend(operator) == backend
        if found.requires_grad:
            torch.testing.assert_close(torch.autograd.grad(found, (query, table)),
                                       torch.autograd.grad(expected, (query, table), retain_graph=True))


def test_loss_and_step_compiled() -> None:
    torch.manual_seed(0)
    model = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH)
    batch = next(iter(TripletLoader(facts(), 6, transform=EMUNegatives(3, 0.5))))
    criterion = EMULoss()

    def loss(model: torch.nn.Module) -> Tensor:
        return criterion(model, batch)

    state = batch.generator.get_state()
    expected = loss(model)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend='eager')
    for _ in range(2):
        batch.generator.set_state(state)
        found = compiled(model)
        torch.testing.assert_close(found, expected)
        parameters = list(model.parameters())
        torch.testing.assert_close(torch.autograd.grad(found, parameters),
                                   torch.autograd.grad(expected, parameters, retain_graph=True))


class Encoded(ScorerMixin, torch.nn.Module):
    r"""An encoder whose linear layer autocast runs in bfloat16, and relations that stay in float32."""
    def __init__(self, interaction: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.interaction, self.num_nodes, self.num_relations = interaction, NUM_NODES, NUM_RELATIONS
        self.features = torch.nn.Parameter(torch.randn(NUM_NODES, WIDTH))
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.relations = torch.nn.Parameter(torch.randn(NUM_RELATIONS, WIDTH))

    def entity_table(self) -> Tensor:
        return self.linear(self.features)

    def _query(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return self.entity_table()[known] + self.relations[rel_type]


@pytest.mark.parametrize('interaction,criterion', [
    (Dot(), EMULoss()),
    (Dot(), OneVsAllEMULoss(mutation=BernoulliMask(0.5))),
    (L1(), OneVsAllEMULoss(mutation=BernoulliMask(0.5))),
], ids=lambda value: getattr(value, 'name', type(value).__name__))
def test_encoder_under_autocast(interaction: Any, criterion: Any) -> None:
    model, data = Encoded(interaction), facts()
    batch = next(iter(TripletLoader(data, 6, transform=EMUNegatives(3, 0.5))))
    state = batch.generator.get_state()
    expected = criterion(model, batch)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(expected, parameters)
    batch.generator.set_state(state)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert model.entity_table().dtype == torch.bfloat16
        loss = criterion(model, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)
    for value, other in zip(torch.autograd.grad(loss, parameters), gradients):
        assert value.dtype == torch.float32
        if interaction == Dot():  # The derivative of an absolute value jumps where rounding changes a sign.
            torch.testing.assert_close(value, other, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('backend', ['torch', 'numba'])
def test_scores_of_all_entities_keep_their_type_under_autocast(backend: str) -> None:
    data = facts()
    torch.manual_seed(0)
    model = DistMult(NUM_NODES, NUM_RELATIONS, 64)
    query = model.query(torch.arange(8), torch.zeros(8, dtype=torch.int64), 'tail')
    with use_backend(backend):
        expected = evaluate(model, data, split='train')
        scores = score_entities(query, model.entity_table(), interaction=Dot())
        both = model.score_all(query)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert evaluate(model, data, split='train') == expected
            assert torch.equal(score_entities(query, model.entity_table(), interaction=Dot()), scores)
            assert torch.equal(model.score_all(query), both)


def test_dynamo_is_not_imported() -> None:
    code = ('import sys, torch\n'
            'from pyg_emu.ops import emu_score\n'
            'query = torch.ones(1, 2)\n'
            'emu_score(query, query, query, torch.zeros(1, 1, dtype=torch.int64), backend="torch")\n'
            'assert "torch._dynamo" not in sys.modules')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2])
