r"""Labels that a plan gives to each negative, and negatives that are vectors."""
from __future__ import annotations

import copy
import math
from typing import Any, Iterator, Optional

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.losses import (
    BCELoss,
    CrossEntropyLoss,
    EMUBCELoss,
    EMULoss,
    LinkPredictionLoss,
    MarginLoss,
    NBFNetEMULoss,
    OneVsAllEMULoss,
    SelfAdversarialLoss,
)
from pyg_emu.losses.functional import uls_binary_cross_entropy, uls_cross_entropy
from pyg_emu.models import DistMult, NBFNet, RotatE, TransE
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import BernoulliMask, DeMixMutation, Mixup, MutationContext, draw_plan
from pyg_emu.ops import MaskPlan, MixPlan, use_backend

SIZE, NUM, NODES, WIDTH = 5, 4, 9, 6
MASKS = {'all count': None, 'some': 'some', 'a row without any': 'row'}


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


def scores(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positive, negative = (torch.randn(shape, generator=generator, dtype=torch.double).mul_(3).requires_grad_()
                          for shape in ((SIZE, ), (SIZE, NUM)))
    return positive, negative, torch.rand(SIZE, NUM, generator=generator, dtype=torch.double)


def make_mask(kind: Optional[str]) -> Optional[Tensor]:
    if kind is None:
        return None
    mask = torch.rand(SIZE, NUM, generator=torch.Generator().manual_seed(1)) < 0.6
    if kind == 'row':
        mask[2] = False
    return mask


# Functions of scores #########################################################


def cross_entropy_by_loops(positive: Tensor, negative: Tensor, label: Tensor, mask: Optional[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.double)
    for row in range(SIZE):
        slots = [k for k in range(NUM) if mask is None or bool(mask[row, k])]
        normaliser = positive[row].exp() + sum(negative[row, k].exp() for k in slots)
        total = total - (positive[row].exp() / normaliser).log()
        for k in slots:
            total = total - label[row, k] * (negative[row, k].exp() / normaliser).log()
    return total / SIZE


def binary_by_loops(positive: Tensor, negative: Tensor, label: Tensor, mask: Optional[Tensor],
                    temperature: Optional[float]) -> Tensor:
    def bce(score: Tensor, target: Any) -> Tensor:
        return (1 + score.exp()).log() - target * score

    total = torch.zeros((), dtype=torch.double)
    for row in range(SIZE):
        slots = [k for k in range(NUM) if mask is None or bool(mask[row, k])]
        raw = [1.0 if temperature is None else math.exp(float(negative[row, k]) / temperature) for k in slots]
        terms = bce(positive[row], 1.0)
        for k, weight in zip(slots, raw):
            terms = terms + weight / sum(raw) * bce(negative[row, k], label[row, k])
        total = total + terms / (2.0 if slots else 1.0)
    return total / SIZE


def same(actual: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(actual, expected)
    for left, right in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize('kind', MASKS.values(), ids=MASKS.keys())
def test_cross_entropy_with_a_label_for_each_slot(kind: Optional[str]) -> None:
    positive, negative, label = scores()
    mask = make_mask(kind)
    same(uls_cross_entropy(positive, negative, label, mask), cross_entropy_by_loops(positive, negative, label, mask),
         positive, negative)
    assert torch.autograd.gradcheck(lambda *values: uls_cross_entropy(*values, label, mask), (positive, negative))


@pytest.mark.parametrize('temperature', [None, 0.7])
@pytest.mark.parametrize('kind', MASKS.values(), ids=MASKS.keys())
def test_binary_cross_entropy_with_a_label_for_each_slot(kind: Optional[str], temperature: Optional[float]) -> None:
    positive, negative, label = scores()
    mask = make_mask(kind)
    same(uls_binary_cross_entropy(positive, negative, label, mask, temperature),
         binary_by_loops(positive, negative, label, mask, temperature), positive, negative)
    if temperature is None:  # with one, weights have no gradient
        assert torch.autograd.gradcheck(lambda *values: uls_binary_cross_entropy(*values, label, mask),
                                        (positive, negative))


@pytest.mark.parametrize('loss', [uls_cross_entropy, uls_binary_cross_entropy])
def test_equal_labels_are_one_label(loss: Any) -> None:
    positive, negative, label = scores()
    same(loss(positive, negative, torch.full_like(label, 0.3), make_mask('row')),
         loss(positive, negative, 0.3, make_mask('row')), positive, negative)
    with pytest.raises(ArgumentError, match=r'beta: .*\(5, 4\).*\(5,\)'):
        loss(positive, negative, label[:, 0])
    # Labels are constants, and what is masked out does not count.
    learned = label.clone().requires_grad_()
    (grad, ) = torch.autograd.grad(loss(positive, negative, learned), learned, allow_unused=True)
    assert grad is None


# Labels of a plan ############################################################


class Labelled:
    r"""Mixes by halves and gives slot k the label k / 10; with :obj:`masks`, takes the first component instead."""
    def __init__(self, masks: bool = False) -> None:
        self.masks = masks

    def plan(self, context: MutationContext) -> Any:
        size, num = context.query.size(0), context.num_negatives
        label = torch.arange(num, dtype=context.query.dtype).expand(size, num) / 10
        if self.masks:
            return MaskPlan(torch.arange(context.width).unsqueeze(0) == 0, torch.zeros(size, dtype=torch.int64), label)
        return MixPlan(torch.full_like(label, 0.5), None, label)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(masks={self.masks})'


def make_batch(mutation: Any = None, vectors: int = 0, ids: int = NUM, masked: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(4)
    head, tail = torch.randint(NODES, (2, SIZE), generator=generator)
    batch = Batch(head, torch.randint(2, (SIZE, ), generator=generator), tail, torch.arange(SIZE) % 2 == 0,
                  num_nodes=NODES, num_relations=2, step=0, generator=generator, mutation=mutation,
                  neg_index=torch.randint(NODES, (SIZE, ids), generator=generator))
    if vectors > 0:
        batch.neg_vectors = torch.randn(SIZE, vectors, WIDTH, generator=generator, dtype=torch.double).requires_grad_()
    if masked:
        batch.neg_mask = torch.rand(SIZE, ids + vectors, generator=generator) < 0.7
    return batch


def make_model(make: Any = DistMult) -> Any:
    torch.manual_seed(0)
    return make(NODES, 2, WIDTH if make is not RotatE else WIDTH // 2).double()


@pytest.mark.parametrize('masks', [False, True])
def test_losses_use_the_labels_of_a_plan(masks: bool) -> None:
    model, batch = make_model(), make_batch(Labelled(masks))
    scored = EMULoss().score(model, batch)
    label = torch.arange(NUM, dtype=torch.double).expand(SIZE, NUM) / 10
    assert torch.equal(scored.label, label)
    positive, mutated, vanilla = scored.positive, scored.mutated, scored.vanilla
    torch.testing.assert_close(EMULoss(0.3, 0.9)(model, batch), uls_cross_entropy(positive, mutated, label) / NUM
                               + 0.3 * uls_cross_entropy(positive, vanilla))
    torch.testing.assert_close(EMUBCELoss(0.3, 0.9)(model, batch), uls_binary_cross_entropy(positive, mutated, label)
                               + 0.3 * uls_binary_cross_entropy(positive, vanilla))
    torch.testing.assert_close(BCELoss(mutate=True)(model, batch), uls_binary_cross_entropy(positive, mutated, label))
    torch.testing.assert_close(
        SelfAdversarialLoss(0.5, mutate=True, alpha=0.2)(model, batch),
        uls_binary_cross_entropy(positive, mutated, label, None, 2.0)
        + 0.2 * uls_binary_cross_entropy(positive, vanilla, 0.0, None, 2.0))


@pytest.mark.parametrize('criterion', [CrossEntropyLoss(mutate=True), MarginLoss(mutate=True), OneVsAllEMULoss()],
                         ids=lambda criterion: type(criterion).__name__)
def test_losses_without_labels_refuse_them(criterion: Any) -> None:
    with pytest.raises(ArgumentError, match='Labelled'):
        criterion(make_model(), make_batch(Labelled(masks=True)))


def test_nbfnet_uses_the_labels_of_a_plan() -> None:
    torch.manual_seed(0)
    data = KGData(torch.randint(NODES, (2, 20)), torch.randint(2, (20, )), NODES, 2).with_inverse_relations()
    batch = make_batch(Labelled())
    batch.source = data
    scored = NBFNetEMULoss().score(NBFNet(2, 4, 1), batch)
    assert scored.label is not None and scored.label[0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    batch.neg_vectors = torch.zeros(SIZE, 1, 4)
    with pytest.raises(ArgumentError, match='neg_vectors'):
        NBFNetEMULoss()(NBFNet(2, 4, 1), batch)


class Partners:
    r"""Mixes each negative with entity 0."""
    def plan(self, context: MutationContext) -> MixPlan:
        assert context.index is not None and context.model is not None and context.step == 0
        weight = context.query.new_full(context.index.shape, 0.5)
        return MixPlan(weight, torch.zeros_like(context.index))

    def __repr__(self) -> str:
        return 'Partners()'


@pytest.mark.parametrize('mutation', [BernoulliMask(0.5), BernoulliMask(0.5, shared=False), Mixup(), Labelled(),
                                      Labelled(masks=True), Partners()], ids=repr)
def test_a_part_of_a_batch_has_its_rows_of_the_plan(mutation: Any) -> None:
    batch = make_batch(mutation)
    part = batch.part(slice(1, 3))
    query = torch.randn(SIZE, WIDTH, dtype=torch.double)
    plans = []
    for some, rows in ((batch, query), (part, query[1:3])):
        assert batch.generator is not None
        batch.generator.manual_seed(0)
        plans.append(draw_plan(mutation, some, make_model(), rows, NUM, WIDTH))
    whole, own = plans
    assert type(whole) is type(own) and whole is not None and own is not None
    for name, value in whole._asdict().items():
        found = getattr(own, name)
        assert value is found is None or torch.equal(found, value if name == 'bank' else value[1:3])


def test_plans_that_do_not_fit() -> None:
    class Odd:
        def __init__(self, plan: Any) -> None:
            self.made = plan

        def plan(self, context: MutationContext) -> Any:
            return self.made

        def __repr__(self) -> str:
            return 'Odd()'

    with pytest.raises(ArgumentError, match='Odd.*Tensor'):
        EMULoss()(make_model(), make_batch(Odd(torch.zeros(3))))
    plan = MixPlan(torch.ones(SIZE, NUM, dtype=torch.double), None, torch.ones(SIZE))
    with pytest.raises(ArgumentError, match=r'plan.label: .*\(5, 4\).*\(5,\).*Odd'):
        EMULoss()(make_model(), make_batch(Odd(plan)))


# Negatives that are vectors ##################################################


@pytest.mark.parametrize('make', [DistMult, TransE, RotatE])
@pytest.mark.parametrize('mutation', [None, BernoulliMask(0.5, shared=False), Labelled()], ids=repr)
@pytest.mark.parametrize('masked', [False, True])
def test_vectors_are_scored_beside_ids(make: Any, mutation: Any, masked: bool) -> None:
    model, batch = make_model(make), make_batch(mutation, vectors=3, masked=masked)
    ids_only = copy.copy(batch)
    ids_only.neg_vectors, ids_only.neg_mask = None, None
    assert batch.generator is not None and batch.neg_vectors is not None
    state = batch.generator.get_state()
    scored = EMULoss().score(model, batch)
    batch.generator.set_state(state)
    expected = EMULoss().score(model, ids_only)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    beside = torch.stack([torch.stack([model.score(query[row:row + 1], vector.unsqueeze(0)).squeeze(0)
                                       for vector in batch.neg_vectors[row]]) for row in range(SIZE)])
    for name in ('vanilla', 'mutated'):
        value, of_ids = getattr(scored, name), getattr(expected, name)
        assert (value is None) == (of_ids is None)
        if value is not None:
            torch.testing.assert_close(value, torch.cat([of_ids, beside], dim=1))
    assert scored.mask is batch.neg_mask

    batch.generator.set_state(state)
    loss = EMULoss(0.3, 0.9)(model, batch)
    label: Any = 0.9 if scored.label is None else F.pad(scored.label, (0, 3), value=0.9)
    by_hand = (uls_cross_entropy(expected.positive, torch.cat([expected.hardest, beside], 1), label, batch.neg_mask)
               / (NUM + 3) + 0.3 * uls_cross_entropy(expected.positive, torch.cat([expected.vanilla, beside], 1),
                                                     mask=batch.neg_mask))
    same(loss, by_hand, batch.neg_vectors, *model.parameters())


@pytest.mark.parametrize('make', [DistMult, TransE, RotatE])
@pytest.mark.parametrize('mutation', [BernoulliMask(0.5), BernoulliMask(0.5, shared=False), Mixup()], ids=repr)
def test_vectors_are_mutated_where_the_loss_says_so(make: Any, mutation: Any) -> None:
    r"""Against ids alone, whose vectors are those of the batch."""
    model, batch = make_model(make), make_batch(mutation, vectors=3)
    assert batch.generator is not None and batch.neg_vectors is not None and batch.neg_index is not None
    as_ids = copy.copy(batch)
    rows = batch.neg_vectors.detach().flatten(0, 1)
    twin = copy.deepcopy(model)
    twin.node_emb.weight = torch.nn.Parameter(torch.cat([model.node_emb.weight.detach(), rows]))
    twin.num_nodes = as_ids.num_nodes = NODES + len(rows)
    as_ids.neg_vectors = None
    as_ids.neg_index = torch.cat([batch.neg_index, NODES + torch.arange(len(rows)).view(SIZE, 3)], dim=1)
    state = batch.generator.get_state()
    criterion = EMULoss(0.3, 0.9, mutate_vectors=True)
    scored = criterion.score(model, batch)
    batch.generator.set_state(state)
    expected = criterion.score(twin, as_ids)
    for name in ('vanilla', 'mutated'):
        torch.testing.assert_close(getattr(scored, name), getattr(expected, name))
    assert not torch.allclose(scored.mutated, scored.vanilla)  # type: ignore[arg-type]
    for one, some in ((model, batch), (twin, as_ids)):
        batch.generator.set_state(state)
        criterion(one, some).backward()
    torch.testing.assert_close(model.node_emb.weight.grad, twin.node_emb.weight.grad[:NODES])
    torch.testing.assert_close(batch.neg_vectors.grad, twin.node_emb.weight.grad[NODES:].view(SIZE, 3, WIDTH))


def test_mutated_vectors_alone() -> None:
    model, batch = make_model(), make_batch(BernoulliMask(0.5), vectors=3, ids=0)
    scored = EMUBCELoss(mutate_vectors=True).score(model, batch)
    assert scored.vanilla is not None and scored.mutated is not None
    assert scored.mutated.shape == (SIZE, 3) and not torch.allclose(scored.mutated, scored.vanilla)
    for rate in (1.0, 0.0):  # all of the positive, and nothing
        batch.mutation = BernoulliMask(rate)
        hardest = EMULoss(mutate_vectors=True).score(model, batch).hardest
        torch.testing.assert_close(hardest, scored.positive.unsqueeze(1).expand(-1, 3) if rate else scored.vanilla)


@pytest.mark.parametrize('mutation', [Labelled(), Labelled(masks=True), Partners(), DeMixMutation()],
                         ids=lambda mutation: repr(mutation)[:12])
def test_vectors_have_neither_labels_nor_partners(mutation: Any) -> None:
    batch = make_batch(mutation, vectors=2)
    with pytest.raises(ArgumentError, match='mutate_vectors: (Labelled|Partners|DeMix).*False'):
        EMULoss(mutate_vectors=True)(make_model(), batch)


def test_vectors_are_not_mutated_alone() -> None:
    with pytest.raises(ArgumentError, match='mutate_vectors: .*mutate=True'):
        LinkPredictionLoss(mutate_vectors=True)


def test_vectors_alone() -> None:
    model, batch = make_model(), make_batch(BernoulliMask(0.5), vectors=3, ids=0)
    scored = EMULoss().score(model, batch)
    assert scored.mutated is None and scored.hardest.shape == (SIZE, 3)
    EMULoss()(model, batch).backward()
    assert batch.neg_vectors is not None and batch.neg_vectors.grad is not None
    batch.neg_vectors = batch.neg_vectors.detach()
    EMULoss()(model, batch).backward()
    batch.neg_vectors = torch.zeros(SIZE, 3, WIDTH + 1)
    with pytest.raises(ArgumentError, match='neg_vectors: .*width 6.*width 7'):
        EMULoss()(model, batch)


def test_scores_are_left_on_the_batch() -> None:
    model, batch = make_model(), make_batch(Labelled(), vectors=2)
    EMULoss()(model, batch)
    assert batch.scored is not None and batch.scored.hardest.shape == (SIZE, NUM + 2)
    assert not batch.scored.positive.requires_grad and copy.copy(batch).to('cpu').scored is None


def test_a_transform_passes_vectors_on() -> None:
    class Source:
        def sample(self, batch: Batch, num_negatives: int, generator: Any = None) -> Any:
            from pyg_emu import Negatives
            ids = torch.zeros(SIZE, 0, dtype=torch.int64)
            return Negatives(ids, vectors=torch.ones(SIZE, num_negatives, WIDTH, dtype=torch.double))

    batch = EMUNegatives(2, sampler=Source())(make_batch())
    assert batch.num_negatives == 2
    assert torch.isfinite(EMULoss()(make_model(), batch))
