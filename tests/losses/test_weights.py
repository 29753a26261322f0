r"""Weights of facts in every loss: a fact of weight 2 counts as one that is there twice."""
from __future__ import annotations

import math
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor

from pyg_emu import KGData, losses, models
from pyg_emu.core.contract import ScoredBatch
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.losses import functional
from pyg_emu.models.encoders import MessageGraph
from pyg_emu.negatives.mutation import BernoulliMask
from pyg_emu.ops import use_backend

NAMES = ['EMULoss', 'EMUBCELoss', 'CrossEntropyLoss', 'BCELoss', 'SelfAdversarialLoss', 'MarginLoss', 'DeMixLoss',
         'OneVsAllLoss', 'OneVsAllEMULoss']


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


def batch_of(rows: list[int], weight: Any = None, mask: bool = False, **options: Any) -> Batch:
    r"""Some of three triples, which may repeat, each with its own negatives."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(high, (3, ), generator=generator)[rows] for high in (6, 2, 6)]
    negatives = torch.randint(6, (3, 4), generator=generator)[rows]
    masks = torch.rand(3, 4, generator=generator)[rows] < 0.7 if mask else None
    return Batch(*ids, torch.tensor([True, False, True])[rows], num_nodes=6, neg_index=negatives, neg_mask=masks,
                 weight=None if weight is None else torch.tensor(weight), **options)


def loss_and_gradients(criterion: Any, batch: Batch, make: Any = models.DistMult) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    model = make(6, 2, 4).double()
    loss = criterion(model, batch)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize('mask', [False, True])
@pytest.mark.parametrize('name', NAMES)
def test_weight_two_is_the_fact_twice(name: str, mask: bool) -> None:
    options: dict[str, Any] = {'mutation': BernoulliMask(0.0)} if name == 'OneVsAllEMULoss' else {}
    options |= {'label_smoothing': 0.2, 'confidence_penalty': 0.1} if name == 'CrossEntropyLoss' else {}
    criterion = getattr(losses, name)(**options)
    weighted = loss_and_gradients(criterion, batch_of([0, 1, 2], [1.0, 2.0, 1.0], mask))
    twice = loss_and_gradients(criterion, batch_of([0, 1, 1, 2], None, mask))
    torch.testing.assert_close(weighted, twice)
    # Only ratios matter, and equal weights change nothing.
    torch.testing.assert_close(weighted, loss_and_gradients(criterion, batch_of([0, 1, 2], [0.5, 1.0, 0.5], mask)))
    torch.testing.assert_close(loss_and_gradients(criterion, batch_of([0, 1, 2], [3.0, 3.0, 3.0], mask)),
                               loss_and_gradients(criterion, batch_of([0, 1, 2], None, mask)))
    assert not torch.allclose(weighted[0], loss_and_gradients(criterion, batch_of([0, 1, 2], None, mask))[0])


@pytest.mark.parametrize('make', [models.DistMult, models.ComplEx])
def test_penalty_of_facts(make: Any) -> None:
    criterion = losses.EMULoss(regularizer=losses.N3Regularizer(0.5))
    torch.testing.assert_close(loss_and_gradients(criterion, batch_of([0, 1, 2], [1.0, 2.0, 1.0]), make),
                               loss_and_gradients(criterion, batch_of([0, 1, 1, 2]), make))
    # Equal weights are the penalty without weights.
    torch.testing.assert_close(loss_and_gradients(criterion, batch_of([0, 1, 2], [2.0, 2.0, 2.0]), make),
                               loss_and_gradients(criterion, batch_of([0, 1, 2]), make))


def test_numbers_worked_out_by_hand() -> None:
    # Rows of two classes: log(1 + e^(s- - s+)) is log 2, log(1 + 1/2) and log(1 + 2).
    positive, negative = torch.tensor([0.0, math.log(2.0), 0.0]), torch.tensor([[0.0], [0.0], [math.log(2.0)]])
    weight = torch.tensor([1.0, 3.0, 4.0])
    expected = (math.log(2.0) + 3 * math.log(1.5) + 4 * math.log(3.0)) / 8
    found = functional.uls_cross_entropy(positive, negative, weight=weight)
    assert float(found) == pytest.approx(expected)
    scored = ScoredBatch(positive, negative, None, None, None, weight)
    assert float(losses.CrossEntropyLoss().loss(scored)) == pytest.approx(expected)
    # max(0, 1 - s+ + s-): 1, 1 - log 2, 1 + log 2.
    hinge = (1 + 3 * (1 - math.log(2.0)) + 4 * (1 + math.log(2.0))) / 8
    for temperature in (None, 2.0):  # a single negative weighs 1
        found = losses.MarginLoss(adversarial_temperature=temperature).loss(scored)
        assert float(found) == pytest.approx(hinge)
    # The mean of softplus(-s+) and softplus(s-).
    bce = [(math.log(2) + math.log(2)) / 2, (math.log(1.5) + math.log(2)) / 2, (math.log(2) + math.log(3)) / 2]
    assert float(losses.BCELoss().loss(scored)) == pytest.approx((bce[0] + 3 * bce[1] + 4 * bce[2]) / 8)


def test_gradient_in_double_precision() -> None:
    generator = torch.Generator().manual_seed(1)
    positive = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.5, 1.0, 2.0, 7.0])
    for function in (functional.uls_cross_entropy, functional.softmax_entropy, functional.uls_binary_cross_entropy,
                     functional.demix_cross_entropy):
        torch.autograd.gradcheck(lambda one, other, function=function: function(one, other, weight=weight),
                                 (positive, negative))


def test_loss_that_would_ignore_weights() -> None:
    class Own(losses.LinkPredictionLoss):
        def loss(self, scored: ScoredBatch) -> Tensor:
            return scored.positive.mean()

    assert Own()(models.DistMult(6, 2, 4), batch_of([0, 1])).dim() == 0
    with pytest.raises(ArgumentError, match=r'^batch.weight: Own .*uses_weights'):
        Own()(models.DistMult(6, 2, 4), batch_of([0, 1], [1.0, 2.0]))


# Messages ####################################################################


def graphs() -> tuple[KGData, KGData]:
    r"""A graph whose second fact has weight 2, and one where it is there twice."""
    edges, types = torch.tensor([[0, 1, 3, 2], [1, 2, 2, 0]]), torch.tensor([0, 1, 1, 0])
    weighted = KGData(edges, types, 6, 2, edge_weight=torch.tensor([1.0, 2.0, 1.0, 1.0]))
    copies = torch.tensor([0, 1, 1, 2, 3])
    return weighted.with_inverse_relations(), KGData(edges[:, copies], types[copies], 6, 2).with_inverse_relations()


def test_messages_of_nbfnet() -> None:
    torch.manual_seed(0)
    model = models.NBFNet(2, 4, num_layers=2, aggregate='sum').double().eval()
    known, relation = torch.tensor([0, 2]), torch.tensor([1, 0])
    weighted, twice = (model.score(graph, known, relation) for graph in graphs())
    torch.testing.assert_close(weighted, twice)
    plain = graphs()[0]
    plain.edge_weight = None
    assert not torch.allclose(model.score(plain, known, relation), twice)
    # Factors of messages, as explanations use them, come on top.
    factor = torch.full((8, ), 0.5, dtype=torch.float64)
    halved = graphs()[0]
    halved.edge_weight = halved.edge_weight * 0.5
    torch.testing.assert_close(model.score(graphs()[0], known, relation, edge_weights=[factor] * 2),
                               model.score(halved, known, relation))


@pytest.mark.parametrize('name', ['NBFNetEMULoss', 'NBFNetBCELoss'])
def test_losses_of_nbfnet(name: str) -> None:
    graph = graphs()[0]

    def found(batch: Batch) -> list[Tensor]:
        torch.manual_seed(0)
        model = models.NBFNet(2, 4, num_layers=1).double()
        loss = getattr(losses, name)()(model, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)]

    torch.testing.assert_close(found(batch_of([0, 1, 2], [1.0, 2.0, 1.0], source=graph)),
                               found(batch_of([0, 1, 1, 2], source=graph)))


def test_messages_of_encoders_are_averaged_by_weight() -> None:
    torch.manual_seed(0)
    model = models.RGCN(6, 2, 4).double().eval()
    with torch.no_grad():
        torch.testing.assert_close(*(model.encode(MessageGraph.of(graph)) for graph in graphs()))
    weighted = graphs()[0]
    share = MessageGraph.of(weighted).weight_as(torch.zeros(1))
    # Two edges of relation 1 end at node 2, with weights 2 and 1.
    assert share.tolist()[:4] == pytest.approx([1, 2 / 3, 1 / 3, 1])
    sampled = MessageGraph.sample(weighted, 4, torch.Generator().manual_seed(0)).weight_as(torch.zeros(1))
    assert sorted(sampled.tolist()) == pytest.approx(sorted(share.tolist()))
