from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import EMULoss
from pyg_emu.models import HAKE
from pyg_emu.negatives import EMUNegatives
from pyg_emu.ops import MaskPlan, emu_score, last_backend


def make_model() -> HAKE:
    r"""Returns a model with one component. The initial bound is (2 + 2) / 1 = 4, so 4 is half a turn."""
    model = HAKE(3, 3, 1, margin=2.0, modulus_weight=0.5, phase_weight=0.25).double()
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[3.0, 1.0], [-2.0, 2.0], [1.0, 0.0]]))  # [modulus, phase]
        # [phase, modulus, bias]: b = 1/2; b clamped to 1; b clamped to -m = -3.
        model.rel_emb.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 7.0], [4.0, -3.0, -5.0]]))
    return model


# Phases are in units of pi / 4, and the phase weight is 1/4 * 4 = 1.
# (0, 0, 1): 3 (2 + 1/2) - -2 (1 - 1/2) = 8.5, phases 1 + 1 - 2 = 0.
# (0, 1, 2): 3 (1 + 1) - 1 (1 - 1) = 6, phases 1 + 0 - 0 = 1: sin(pi / 8).
# (1, 2, 0): -2 (3 - 3) - 3 (1 + 3) = -12, phases 2 + 4 - 1 = 5: sin(5 pi / 8).
TRIPLES = torch.tensor([[0, 0, 1], [0, 1, 2], [1, 2, 0]]).t()
SCORES = torch.tensor([2 - 0.5 * 8.5, 2 - 0.5 * 6 - math.sin(math.pi / 8), 2 - 0.5 * 12 - math.sin(5 * math.pi / 8)],
                      dtype=torch.double)


def test_by_hand() -> None:
    model = make_model()
    head, relation, tail = TRIPLES
    torch.testing.assert_close(model(head, relation, tail), SCORES)
    query = model.query(tail, relation, 'head')
    torch.testing.assert_close(model.score(query, model.candidates(head)), SCORES)
    # Heads of (?, 0, 1): q_m = -2 (1 - 1/2), w = 2 + 1/2, q_p = (2 - 1) pi / 4.
    torch.testing.assert_close(query[0], torch.tensor([-1.0, 2.5, math.pi / 4], dtype=torch.double))


@pytest.mark.parametrize('side', ['tail', 'head'])
def test_mutation_of_modulus_and_of_phase(side: str) -> None:
    model = make_model()
    head, relation, tail = TRIPLES
    known, target = (head, tail) if side == 'tail' else (tail, head)
    query = model.query(known, relation, side)  # type: ignore[arg-type]
    index = torch.tensor([[2, 1], [0, 1], [1, 2]])
    plan = MaskPlan(torch.tensor([[True, False], [False, True]]), torch.tensor([[0, 1]] * 3))
    # The first negative takes the modulus of the positive, the second takes its phase.
    positive, table = model.candidates(target), model.entity_table()
    modulus, phase = table[:, 0], table[:, 1]
    first = torch.stack([modulus[target], phase[index[:, 0]]], dim=1)
    second = torch.stack([modulus[index[:, 1]], phase[target]], dim=1)
    expected = torch.stack([model.score(query, first), model.score(query, second)], dim=1)
    for backend in ('torch', 'numba'):
        scores = emu_score(query, positive, table, index, plan, interaction=model.interaction, backend=backend)
        assert last_backend('emu_score') == backend
        assert scores.vanilla is not None and scores.mutated is not None
        torch.testing.assert_close(scores.mutated + model.offset, expected)
        torch.testing.assert_close(scores.vanilla + model.offset, model.score(query, model.candidates(index)))


def gradients(model: HAKE, batch: Batch, backend: str) -> list[Tensor]:
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    plan = MaskPlan(torch.arange(2 * 6).view(2, 6) % 5 < 2, batch.known_index % 2)
    assert batch.neg_index is not None
    scores = emu_score(query, model.candidates(batch.target_index), model.entity_table(), batch.neg_index, plan,
                       interaction=model.interaction, backend=backend)
    assert scores.vanilla is not None and scores.mutated is not None
    return list(torch.autograd.grad((scores.vanilla.sin() + scores.mutated).sum(), list(model.parameters())))


def test_fused_gradients_reach_both_tables() -> None:
    torch.manual_seed(0)
    model = HAKE(9, 2, 3).double()
    data = KGData(torch.randint(9, (2, 20)), torch.randint(2, (20, )), 9, 2)
    batch = next(iter(TripletLoader(data, 20, transform=EMUNegatives(5), corrupt='both')))
    for left, right in zip(gradients(model, batch, 'numba'), gradients(model, batch, 'torch')):
        assert right.abs().sum() > 0
        torch.testing.assert_close(left, right)


def test_initial_embeddings() -> None:
    torch.manual_seed(0)
    model = HAKE(100, 40, 10, margin=8.0)
    entities = model.node_emb.weight
    phase, modulus, bias = model.rel_emb.weight.chunk(3, dim=1)
    for uniform in (entities, phase):
        assert 0.95 < uniform.abs().max() <= 1.0 and float(uniform.detach().std()) == pytest.approx(3**-0.5, rel=0.1)
    assert bool((modulus == 1).all()) and bool((bias == 0).all())
    before = entities.detach().clone()
    model.reset_parameters(torch.Generator().manual_seed(1))
    assert not before.equal(entities) and bool((model.rel_emb.weight.chunk(3, dim=1)[1] == 1).all())


def test_learns() -> None:
    torch.manual_seed(0)
    data = KGData(torch.stack([torch.arange(30), torch.arange(30) // 2]), torch.zeros(30, dtype=torch.int64), 30, 1)
    model = HAKE(30, 1, 8)
    loader = TripletLoader(data, 30, transform=EMUNegatives(16))
    criterion, optimizer = EMULoss(), torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        for batch in loader:
            optimizer.zero_grad()
            loss = criterion(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize('name', ['modulus_weight', 'phase_weight'])
@pytest.mark.parametrize('value', [-1.0, float('nan'), float('inf')])
def test_refuses_bad_weights(name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=f'^{name}: .*{value}'):
        HAKE(3, 1, 2, **{name: value})  # type: ignore[arg-type]
