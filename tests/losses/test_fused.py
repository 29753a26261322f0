r"""Losses that one operator computes with their gradients, next to the same losses composed of scores."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu import models
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import BCELoss, CrossEntropyLoss, EMULoss, L3Regularizer, LinkPredictionLoss, ScoredBatch, base
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import Mixup
from pyg_emu.negatives.sampling import SharedNegativesSampler
from pyg_emu.ops import use_backend

NUM_NODES, NUM_RELATIONS = 12, 3


def make_batch(side: str = 'both', size: int = 20, **arguments: Any) -> Batch:
    generator = torch.Generator().manual_seed(9)
    data = KGData(torch.randint(NUM_NODES, (2, 50), generator=generator),
                  torch.randint(NUM_RELATIONS, (50, ), generator=generator), NUM_NODES, NUM_RELATIONS)
    transform = EMUNegatives(**{'num_negatives': 6, **arguments})
    return next(iter(TripletLoader(data, size, corrupt=side, transform=transform)))  # type: ignore[arg-type]


def make_model(sparse: bool = False) -> models.DistMult:
    torch.manual_seed(0)
    return models.DistMult(NUM_NODES, NUM_RELATIONS, 18, margin=6.0, sparse=sparse)


def run(criterion: LinkPredictionLoss, batch: Batch, fused: bool, sparse: bool = False) -> list[Tensor]:
    r"""The loss, its terms, the scores and the gradients of a multiple of the loss."""
    model = make_model(sparse)
    criterion.fused = fused
    loss = criterion(model, batch)
    (3.0 * loss).backward()
    entities, relations = model.node_emb.weight.grad, model.rel_emb.weight.grad
    assert entities is not None and relations is not None and entities.is_sparse == relations.is_sparse == sparse
    assert batch.scored is not None and not any(value is not None and value.requires_grad for value in batch.scored)
    found = [loss, *criterion.terms.values(), *batch.scored, entities, relations]
    return [value.detach().to_dense() for value in found if value is not None]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    r"""Which way each loss has taken."""
    ways: list[str] = []

    def spy(name: str) -> None:
        function = getattr(base, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            ways.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(base, name, called)

    spy('emu_loss')
    spy('emu_score')
    return ways


@pytest.mark.parametrize('side', ['tail', 'head', 'both'])
@pytest.mark.parametrize('make,arguments', [
    (EMULoss, {}),
    (lambda: EMULoss(alpha=0.0, beta=0.3, divide_by_negatives=False), {}),
    (lambda: EMULoss(regularizer=L3Regularizer(1e-2)), {}),
    (EMULoss, {'mutation_rate': 0.0}),
    (CrossEntropyLoss, {'mutation_rate': 0.0}),
    (lambda: CrossEntropyLoss(label_smoothing=0.3, mutate=True), {}),
], ids=['emu', 'beta', 'penalty', 'smoothing', 'cross_entropy', 'mutated'])
def test_same_as_composed(make: Any, arguments: dict[str, Any], side: str, ran: list[str]) -> None:
    for sparse in (False, True):
        if sparse and make is not EMULoss:
            continue
        batches = (make_batch(side, **arguments) for _ in range(2))
        found, expected = (run(make(), batch, fused, sparse) for batch, fused in zip(batches, (True, False)))
        assert ran == ['emu_loss', 'emu_score']
        ran.clear()
        assert len(found) == len(expected)
        for value, other in zip(found, expected):
            torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def test_terms_have_the_same_names() -> None:
    names = []
    for fused in (True, False):
        criterion = EMULoss(regularizer=L3Regularizer(1e-2))
        run(criterion, make_batch(), fused)
        names.append(list(criterion.terms))
    assert names[0] == names[1] == ['positive_score', 'loss_mutated', 'loss_vanilla', 'loss_penalty']


def test_masked_negatives(ran: list[str]) -> None:
    results = []
    for fused in (True, False):
        batch = make_batch()
        batch.neg_mask = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) < 0.6
        batch.neg_mask[3] = False
        results.append(run(EMULoss(), batch, fused))
        run(CrossEntropyLoss(label_smoothing=0.3), batch, fused)
    # With a mask, the labels of label smoothing differ between triples.
    assert ran == ['emu_loss', 'emu_score', 'emu_score', 'emu_score']
    for value, other in zip(*results):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


class _Own(EMULoss):
    def loss(self, scored: ScoredBatch) -> Tensor:
        return 2.0 * super().loss(scored)


class _Scored(EMULoss):
    def score(self, model: Any, batch: Batch) -> ScoredBatch:
        return super().score(model, batch)._replace(mask=None)


@pytest.mark.parametrize('criterion,arguments', [
    (_Own(), {}),
    (_Scored(), {}),
    (BCELoss(), {'mutation_rate': 0.0}),
    (CrossEntropyLoss(confidence_penalty=0.1), {'mutation_rate': 0.0}),
    (EMULoss(), {'mutation_rate': 0.3, 'sampler': SharedNegativesSampler(5)}),
    (EMULoss(), {'mutation': Mixup()}),
], ids=['loss', 'score', 'bce', 'penalty', 'shared', 'mixup'])
def test_everything_else_is_composed(criterion: LinkPredictionLoss, arguments: dict[str, Any], ran: list[str]) -> None:
    with use_backend('torch'):  # Kernels would only be compiled.
        loss = criterion(make_model(), make_batch(**arguments))
        assert ran == ['emu_score'] and loss.isfinite()
        if isinstance(criterion, _Own):
            criterion.fused = False
            own = criterion(make_model(), make_batch(**arguments))
            assert torch.equal(loss, own) and not torch.equal(loss, EMULoss()(make_model(), make_batch(**arguments)))
            ran.clear()


def test_vectors_beside_ids_are_composed(ran: list[str]) -> None:
    batch = make_batch(mutation_rate=0.0)
    batch.neg_vectors = torch.randn(20, 2, 18)
    with use_backend('torch'):
        EMULoss()(make_model(), batch)
    assert ran == ['emu_score']


def test_frozen_entities(ran: list[str]) -> None:
    grads = []
    for fused in (True, False):
        model, criterion = make_model(), EMULoss()
        model.node_emb.weight.requires_grad_(False)
        criterion.fused = fused
        criterion(model, make_batch()).backward()
        assert model.node_emb.weight.grad is None and model.rel_emb.weight.grad is not None
        grads.append(model.rel_emb.weight.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
    assert ran == ['emu_loss', 'emu_score']
