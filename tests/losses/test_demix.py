r"""The losses of DeMix: values and gradients against plain loops over numbers."""
from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data import Batch, KGData
from pyg_emu.losses import BCELoss, CrossEntropyLoss, DeMixLoss, EMUBCELoss, EMULoss, MarginLoss, SelfAdversarialLoss
from pyg_emu.losses.functional import demix_cross_entropy, uls_binary_cross_entropy
from pyg_emu.models import DistMult, TransE
from pyg_emu.negatives.mutation import DeMixMutation, draw_plan
from pyg_emu.ops import use_backend
from tests.reference import brute_force, demix

FACTS = [(0, 0, 1), (0, 0, 2), (0, 0, 4), (0, 0, 5), (1, 0, 2), (1, 0, 3), (3, 0, 2), (2, 1, 0), (2, 1, 3), (5, 1, 3)]
NODES, WIDTH, NUM = 7, 3, 8


def make_model(name: str) -> Any:
    torch.manual_seed(1)
    model = TransE(NODES, 2, WIDTH, margin=1.0) if name == 'TransE' else DistMult(NODES, 2, WIDTH, margin=1.0)
    return model.double()


def make_batch(mutation: Any, masked: bool = True) -> Batch:
    columns = torch.tensor(FACTS).t()
    generator = torch.Generator().manual_seed(2)
    batch = Batch(*columns[:, :6], side=torch.tensor([True, False, True, True, False, True]), num_nodes=NODES,
                  num_relations=2, source=KGData(columns[[0, 2]], columns[1], NODES, 2), step=0, generator=generator,
                  neg_index=torch.randint(NODES, (6, NUM), generator=generator), mutation=mutation)
    if masked:
        batch.neg_mask = torch.rand(6, NUM, generator=generator) < 0.8
        batch.neg_mask[4] = False
    return batch


def by_loops(name: str, entities: list[list[float]], relations: list[list[float]], batch: Batch, plan: Any,
             temperature: Optional[float], divide: bool, fixed: Optional[list[Any]]) -> tuple[float, list[Any]]:
    r"""The loss, and the weights of equation 15, which are given for a gradient."""
    def score(row: int, vector: list[float]) -> float:
        known, relation = (list(entities[batch.known_index[row]]), relations[batch.rel_type[row]])
        ends = (known, vector) if batch.side[row] else (vector, known)
        return brute_force.score(name, ends[0], relation, ends[1], 1.0)  # type: ignore[arg-type]

    total, found = 0.0, []
    for row in range(6):
        slots = [slot for slot in range(NUM) if batch.neg_mask is None or batch.neg_mask[row, slot]]
        scores = [score(row, demix.mixed(entities[batch.neg_index[row, slot]], entities[plan.partner[row, slot]],
                                         float(plan.weight[row, slot]))) for slot in slots]
        labels = [float(plan.label[row, slot]) for slot in slots]
        weights = None
        if temperature is not None:
            weights = demix.adversarial_weights(scores, temperature)
        elif divide:
            weights = [1 / max(len(slots), 1)] * len(slots)
        weights = weights if fixed is None else fixed[row]
        found.append(weights)
        total += demix.loss(score(row, entities[batch.target_index[row]]), scores, labels, weights)
    return total / 6, found


@pytest.mark.parametrize('name', ['TransE', 'DistMult'])
@pytest.mark.parametrize('temperature, divide', [(1.0, False), (0.4, False), (None, False), (None, True)])
@pytest.mark.parametrize('backend', ['torch', 'numba'])
def test_agrees_with_plain_loops(name: str, temperature: Optional[float], divide: bool, backend: str) -> None:
    model, mutation = make_model(name), DeMixMutation(0.5, mu=2, ramp_epochs=1.0, warmup=0)
    batch = make_batch(mutation)
    with use_backend(backend):
        mutation.update(batch, model)
        state = batch.generator.get_state()
        plan = draw_plan(mutation, batch, model, model.query(batch.known_index, batch.rel_type, batch.side), NUM, WIDTH)
        assert plan is not None and 3 < int((plan.label > 0).sum()) < 20
        batch.generator.set_state(state)
        actual = DeMixLoss(temperature, divide)(model, batch)
        actual.backward()
    tables = [value.weight.tolist() for value in (model.node_emb, model.rel_emb)]
    expected, weights = by_loops(name, *tables, batch, plan, temperature, divide, None)
    assert float(actual) == pytest.approx(expected, rel=1e-9)
    for table, parameter in zip(tables, (model.node_emb.weight, model.rel_emb.weight)):
        for place, row in enumerate(table):
            for column, value in enumerate(row):
                ends = []
                for step in (1e-6, -1e-6):
                    row[column] = value + step
                    ends.append(by_loops(name, *tables, batch, plan, temperature, divide, weights)[0])
                row[column] = value
                assert float(parameter.grad[place, column]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def scores(masked: bool) -> tuple[Tensor, Tensor, Tensor, Optional[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_()
                          for shape in ((4, ), (4, 5)))
    mask = torch.rand(4, 5, generator=generator) < 0.7 if masked else None
    return positive, negative, torch.rand(4, 5, generator=generator, dtype=torch.double), mask


@pytest.mark.parametrize('masked', [False, True])
def test_against_the_losses_that_take_a_mean(masked: bool) -> None:
    positive, negative, label, mask = scores(masked)
    torch.testing.assert_close(demix_cross_entropy(positive, negative, label, mask, 0.5),
                               2 * uls_binary_cross_entropy(positive, negative, label, mask, 2.0))
    torch.testing.assert_close(demix_cross_entropy(positive, negative, label, mask, divide_by_negatives=True),
                               2 * uls_binary_cross_entropy(positive, negative, label, mask))
    if mask is None:
        torch.testing.assert_close(demix_cross_entropy(positive, negative, label), 5 * demix_cross_entropy(
            positive, negative, label, divide_by_negatives=True) + 4 * torch.nn.functional.logsigmoid(positive).mean())
    assert torch.autograd.gradcheck(lambda *values: demix_cross_entropy(*values, label, mask), (positive, negative))


def test_no_negative_is_left() -> None:
    positive, negative, label, _ = scores(False)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    for options in ({}, {'temperature': 1.0}, {'divide_by_negatives': True}):
        found = demix_cross_entropy(positive, negative, label, mask, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(found, -torch.nn.functional.logsigmoid(positive).mean())


def test_large_scores_stay_finite() -> None:
    positive, negative = torch.tensor([-1e4], requires_grad=True), torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = demix_cross_entropy(positive, negative, torch.tensor([[0.5, 0.0]]), temperature=1.0)
    loss.backward()
    assert float(loss) == 1.5e4 and torch.isfinite(negative.grad).all()


@pytest.mark.parametrize('criterion', [EMULoss(), EMUBCELoss(), BCELoss(mutate=True), SelfAdversarialLoss(mutate=True)],
                         ids=lambda criterion: type(criterion).__name__)
def test_other_losses_with_labels(criterion: Any) -> None:
    model, mutation = make_model('TransE'), DeMixMutation(0.5, mu=2, warmup=0)
    batch = make_batch(mutation)
    mutation.update(batch, model)
    loss = criterion(model, batch)
    assert torch.isfinite(loss) and batch.scored is not None and (batch.scored.label > 0).any()


@pytest.mark.parametrize('criterion', [CrossEntropyLoss(mutate=True), MarginLoss(mutate=True)],
                         ids=lambda criterion: type(criterion).__name__)
def test_losses_without_labels_say_so_before_the_warm_up(criterion: Any) -> None:
    model, mutation = make_model('TransE'), DeMixMutation(warmup=3)
    batch = make_batch(mutation)
    mutation.update(batch, model)
    with pytest.raises(ArgumentError) as error:
        criterion(model, batch)
    assert all(fact in str(error.value) for fact in ('DeMixMutation', type(criterion).__name__, 'DeMixLoss'))


def test_arguments() -> None:
    for temperature in (0.0, -1.0, float('nan'), '1'):
        with pytest.raises(ArgumentError, match=f'temperature: .*{temperature!r}'):
            DeMixLoss(temperature)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='divide_by_negatives'):
        DeMixLoss(divide_by_negatives=2)  # type: ignore[arg-type]
    positive, negative, label, _ = scores(False)
    with pytest.raises(ArgumentError, match=r'labels: .*\(4, 5\).*\(4,\)'):
        demix_cross_entropy(positive, negative, label[:, 0])
    assert repr(DeMixLoss(0.5)) == 'DeMixLoss(temperature=0.5, divide_by_negatives=False)'
