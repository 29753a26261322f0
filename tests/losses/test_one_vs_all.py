from __future__ import annotations

import math
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch_geometric.nn import kge

from pyg_emu import models
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import CrossEntropyLoss
from pyg_emu.losses.functional import smoothed_cross_entropy, uls_cross_entropy
from pyg_emu.losses.one_vs_all import OneVsAllEMULoss, OneVsAllLoss
from pyg_emu.losses.regularizers import L3Regularizer
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import (
    BernoulliMask,
    ExactMask,
    ImportanceMask,
    LearnedMask,
    LinearSchedule,
    Mixup,
    MutationContext,
)
from pyg_emu.ops import MaskPlan, all_entities_cross_entropy, emu_score, use_backend

NUM_NODES, NUM_RELATIONS = 12, 3
MODELS = [models.DistMult, models.ComplEx, models.TransE, models.RotatE]


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


class SecondComponent:
    r"""Takes the second of two components from the positive."""
    def plan(self, context: MutationContext) -> MaskPlan:
        return MaskPlan(torch.tensor([[False, True]]), torch.zeros(context.query.size(0), dtype=torch.int64))


def three_entities() -> tuple[models.DistMult, Batch]:
    r"""e0 = (1, 2), e1 = (1/2, -1), e2 = (1, 1), one relation (2, 1), the triple (0, 0, 2)."""
    model = models.DistMult(3, 1, 2).double()
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[1.0, 2.0], [0.5, -1.0], [1.0, 1.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[2.0, 1.0]]))
    return model, Batch(head_index=torch.tensor([0]), rel_type=torch.tensor([0]), tail_index=torch.tensor([2]),
                         num_nodes=3, side='tail', step=0)


def make_batch(transform: Any = None, side: Any = 'both', size: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(9)
    data = KGData(torch.randint(NUM_NODES, (2, 50), generator=generator),
                  torch.randint(NUM_RELATIONS, (50, ), generator=generator), NUM_NODES, NUM_RELATIONS)
    return next(iter(TripletLoader(data, size, corrupt=side, transform=transform)))


def make_model(make: Any, channels: int = 4) -> Any:
    torch.manual_seed(0)
    return make(NUM_NODES, NUM_RELATIONS, channels).double()


def reference_scores(model: Any, batch: Batch, mutation: Any) -> tuple[Tensor, Tensor, Tensor]:
    r"""Positive scores, and vanilla and mutated ones of all other entities, one by one through the operator."""
    scorer = as_scorer(model)
    query = scorer.query(batch.known_index, batch.rel_type, batch.side)
    positive, size = scorer.candidates(batch.target_index), query.size(0)
    everything = torch.arange(NUM_NODES).expand(size, -1)
    others = everything[everything != batch.target_index.unsqueeze(1)].view(size, -1)
    plan = mutation.plan(MutationContext(batch, scorer, query, 1, positive.size(1)))
    scores = emu_score(query, positive, scorer.entity_table(), others, plan, interaction=scorer.interaction)
    return scorer.interaction(query, positive), scores.vanilla, scores.vanilla if plan is None else scores.mutated


def gradients(loss: Tensor, model: torch.nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


# By hand #####################################################################
# q = (2, 2): the scores are 6, -1 and 4 for the target; with the second component from it, 4, 3 and 4.


def test_emu_by_hand() -> None:
    # As in test_losses.py: there the two other entities were drawn as the only negatives.
    loss = OneVsAllEMULoss(alpha=0.11, beta=0.53, mutation=SecondComponent())(*three_entities())
    assert float(loss.detach()) == pytest.approx(2.3057093 / 2 + 0.11 * 2.1277309, abs=1e-6)


def test_plain_by_hand() -> None:
    model, batch = three_entities()
    assert float(OneVsAllLoss()(model, batch).detach()) == pytest.approx(2.1277309, abs=1e-6)
    # lse = 6.1277309; labels 0.7 + 0.1 and 0.1, 0.1
    smoothed = 0.8 * 2.1277309 + 0.1 * (6.1277309 - 6) + 0.1 * (6.1277309 + 1)
    assert float(OneVsAllLoss(label_smoothing=0.3)(model, batch).detach()) == pytest.approx(smoothed, abs=1e-6)


# Against the formulas ########################################################


@pytest.mark.parametrize('mutation', [BernoulliMask(0.5), ExactMask(0.5), ImportanceMask(0.3), BernoulliMask(0.0)],
                         ids=str)
@pytest.mark.parametrize('divide', [True, False])
@pytest.mark.parametrize('side', ['tail', 'head', 'both'])
@pytest.mark.parametrize('make', MODELS)
def test_emu_against_the_reference(make: Any, side: str, divide: bool, mutation: Any) -> None:
    model = make_model(make)
    batch = make_batch(side=side)
    state = batch.generator.get_state()
    loss = OneVsAllEMULoss(0.2, 0.4, mutation, divide_by_negatives=divide, block_size=5)(model, batch)
    batch.generator.set_state(state)
    positive, vanilla, mutated = reference_scores(model, batch, mutation)
    expected = uls_cross_entropy(positive, mutated, 0.4) / (NUM_NODES - 1 if divide else 1)
    expected = expected + 0.2 * uls_cross_entropy(positive, vanilla)
    torch.testing.assert_close(loss, expected)
    for left, right in zip(gradients(loss, model), gradients(expected, model)):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize('label_smoothing', [0.0, 0.3])
@pytest.mark.parametrize('make', [*MODELS, kge.ComplEx, kge.TransE])
def test_plain_against_the_reference(make: Any, label_smoothing: float) -> None:
    model, batch = make_model(make), make_batch()
    loss = OneVsAllLoss(label_smoothing, block_size=5)(model, batch)
    positive, vanilla, _ = reference_scores(model, batch, BernoulliMask(0.0))
    expected = smoothed_cross_entropy(positive, vanilla, label_smoothing)
    torch.testing.assert_close(loss, expected)
    for left, right in zip(gradients(loss, model), gradients(expected, model)):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize('make', MODELS)
def test_blocks_make_no_difference(make: Any) -> None:
    model, mutation = make_model(make), ImportanceMask(0.5)
    whole = OneVsAllEMULoss(mutation=mutation, block_size=NUM_NODES)(model, make_batch())
    for block_size in (1, 7, 100, None):
        loss = OneVsAllEMULoss(mutation=mutation, block_size=block_size)(model, make_batch())
        torch.testing.assert_close(loss, whole)
        for left, right in zip(gradients(loss, model), gradients(whole, model)):
            torch.testing.assert_close(left, right)
        whole = OneVsAllEMULoss(mutation=mutation, block_size=NUM_NODES)(model, make_batch())


def test_mutating_all_alike_drops_components_of_the_query() -> None:
    model, batch = make_model(models.DistMult), make_batch()
    mutation = ImportanceMask(0.5)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    mask = mutation.plan(MutationContext(batch, model, query, 1, 4)).bank
    scores = query.masked_fill(mask, 0.0) @ model.entity_table().t()
    dropped = torch.nn.functional.cross_entropy(scores, batch.target_index)
    loss = OneVsAllEMULoss(alpha=0.0, beta=0.0, mutation=mutation, divide_by_negatives=False)(model, batch)
    torch.testing.assert_close(loss, dropped)


def test_large_scores_cost_no_digits() -> None:
    model, batch = make_model(models.TransE), make_batch()
    loss = OneVsAllEMULoss(mutation=ImportanceMask(0.5), block_size=5)
    with torch.no_grad():
        model.node_emb.weight.mul_(300.0)  # scores of some hundreds, whose exponentials are out of range
        single = models.TransE(NUM_NODES, NUM_RELATIONS, 4)
        single.load_state_dict(model.state_dict())
        torch.testing.assert_close(loss(single, batch).double(), loss(model, batch), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize('transform', [None, EMUNegatives(1, 0.5), EMUNegatives(5, 0.5, shared=False)], ids=str)
def test_own_mutation_goes_before_the_batch(transform: Any) -> None:
    model = make_model(models.DistMult)
    first = OneVsAllEMULoss(mutation=ImportanceMask(0.5))(model, make_batch(transform))
    assert first == OneVsAllEMULoss(mutation=ImportanceMask(0.5))(model, make_batch())


def test_mutation_of_the_batch() -> None:
    model = make_model(models.DistMult)
    on_batch = OneVsAllEMULoss()(model, make_batch(EMUNegatives(1, mutation=ImportanceMask(0.5))))
    assert on_batch == OneVsAllEMULoss(mutation=ImportanceMask(0.5))(model, make_batch())
    alone = OneVsAllEMULoss()(model, make_batch(EMUNegatives(1, 0.0)))
    assert alone == OneVsAllEMULoss(mutation=BernoulliMask(0.0))(model, make_batch())


def test_mutation_follows_the_step_of_the_batch() -> None:
    model, batch = make_model(models.DistMult), make_batch()
    criterion = OneVsAllEMULoss(0.0, 0.0, BernoulliMask(LinearSchedule(0.0, 1.0, 10)), divide_by_negatives=False)
    torch.testing.assert_close(criterion(model, batch), OneVsAllLoss()(model, batch))
    batch.step = 10  # All scores are those of the positive.
    torch.testing.assert_close(criterion(model, batch), torch.tensor(NUM_NODES).double().log())


# Gradients ###################################################################


@pytest.mark.parametrize('make', MODELS)
@pytest.mark.parametrize('criterion', [OneVsAllEMULoss(mutation=ImportanceMask(0.5), block_size=5),
                                       OneVsAllLoss(0.1, block_size=5)], ids=str)
def test_gradcheck(criterion: Any, make: Any) -> None:
    torch.manual_seed(1)
    model, batch = make(NUM_NODES, NUM_RELATIONS, 2, margin=2.0).double(), make_batch(size=6)
    # ImportanceMask follows the query: a step that does not change the order of |q| leaves the mask.
    assert torch.autograd.gradcheck(lambda *_: criterion(model, batch), list(model.parameters()))


@pytest.mark.parametrize('make', [models.DistMult, models.TransE])
def test_learned_masks_learn(make: Any) -> None:
    model, mutation = make_model(make), LearnedMask(4, 0.4).double()
    criterion = OneVsAllEMULoss(mutation=mutation)
    assert list(criterion.parameters()) == [mutation.logits]
    criterion(model, make_batch()).backward()
    assert mutation.logits.grad.abs().min() > 0


def test_model_learns() -> None:
    model, criterion = make_model(models.DistMult, 8), OneVsAllEMULoss(mutation=BernoulliMask(0.3))
    optimizer, batch = torch.optim.Adam(model.parameters(), lr=0.05), make_batch(size=50)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = criterion(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_whatever_backend_the_device_has() -> None:
    model, batch = make_model(models.TransE), make_batch()
    expected = OneVsAllEMULoss(mutation=ImportanceMask(0.5))(model, batch)
    with use_backend(None):
        loss = OneVsAllEMULoss(mutation=ImportanceMask(0.5))(model, batch)
    torch.testing.assert_close(loss, expected)
    for left, right in zip(gradients(loss, model), gradients(expected, model)):
        torch.testing.assert_close(left, right)


class NothingFromTheHost(TorchFunctionMode):
    r"""Refuses to make tensors of lists of numbers, for which the host of a GPU waits."""
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, Tensor.new_tensor), f'{func.__name__} copies from the host'
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('criterion', [OneVsAllLoss(0.1), OneVsAllEMULoss(mutation=BernoulliMask(0.5)),
                                       OneVsAllEMULoss(mutation=BernoulliMask(0.0))], ids=repr)
def test_nothing_is_copied_to_the_device(criterion: Any) -> None:
    model, batch = make_model(models.DistMult), make_batch()
    with NothingFromTheHost():
        criterion(model, batch).backward()
    with pytest.raises(AssertionError, match='new_tensor copies'), NothingFromTheHost():
        batch.head_index.new_tensor([1.0])


def test_no_tensor_of_all_scores_is_kept() -> None:
    model, batch = make_model(models.DistMult), make_batch()
    kept: list[int] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = OneVsAllEMULoss(mutation=BernoulliMask(0.5), block_size=3)(model, batch)
    assert math.isfinite(loss.detach()) and max(kept) < 20 * NUM_NODES


# The rest ####################################################################


@pytest.mark.parametrize('cls', [OneVsAllLoss, OneVsAllEMULoss])
def test_regularizer_is_added(cls: Any) -> None:
    model, batch = make_model(models.DistMult), make_batch(EMUNegatives(1, 0.0))
    penalty = L3Regularizer(0.1)
    torch.testing.assert_close(cls(regularizer=penalty)(model, batch) - cls()(model, batch), penalty(model))


@pytest.mark.parametrize('mutation', [BernoulliMask(0.5, shared=False), Mixup()], ids=str)
def test_refuses_masks_of_single_negatives(mutation: Any) -> None:
    with pytest.raises(ArgumentError, match=r'^mutation: .* (Bern|Mixup)'):
        OneVsAllEMULoss(mutation=mutation)(make_model(models.DistMult), make_batch())


@pytest.mark.parametrize('make, message', [
    (lambda: OneVsAllLoss(label_smoothing=1.5), r'^label_smoothing: .* got 1\.5'),
    (lambda: OneVsAllLoss(block_size=0), '^block_size: .* got 0'),
    (lambda: OneVsAllEMULoss(alpha=-1.0), r'^alpha: .* got -1\.0'),
    (lambda: OneVsAllEMULoss(beta=math.nan), '^beta: .* got nan'),
    (lambda: OneVsAllEMULoss(mutation=0.5), r'^mutation: expected .* got 0\.5'),
    (lambda: OneVsAllEMULoss(mutation=BernoulliMask), '^mutation: expected .* got <class'),
    (lambda: OneVsAllLoss(label_smoothing='x'), "^label_smoothing: .* got 'x'"),
    (lambda: OneVsAllEMULoss(alpha='x'), "^alpha: .* got 'x'"),
    (lambda: OneVsAllLoss(regularizer=1e-5), '^regularizer: expected a function .* got 1e-05'),
    (lambda: OneVsAllEMULoss(regularizer=L3Regularizer), '^regularizer: expected a function .* got <class'),
    (lambda: OneVsAllLoss()(make_model(models.DistMult).to('meta'), make_batch()),
     '^batch: it is on cpu, the model on meta'),
    (lambda: OneVsAllEMULoss(mutation=BernoulliMask(0.5))(make_model(models.DistMult).to('meta'), make_batch()),
     '^batch: it is on cpu, the model on meta'),
    (lambda: OneVsAllEMULoss()(make_model(models.DistMult), make_batch()), '^mutation: .*BernoulliMask'),
    (lambda: OneVsAllLoss()(models.DistMult(NUM_NODES + 1, NUM_RELATIONS, 4), make_batch()),
     '^model: num_nodes=13, but the data has 12 entities'),
])
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_other_losses_still_ask_for_negatives() -> None:
    with pytest.raises(ArgumentError, match='neg_index'):
        CrossEntropyLoss()(make_model(models.DistMult), make_batch())


def test_repr() -> None:
    assert str(OneVsAllLoss()) == 'OneVsAllLoss(label_smoothing=0.0)'
    assert str(OneVsAllEMULoss(mutation=ExactMask(0.5))) == (
        'OneVsAllEMULoss(alpha=0.11, beta=0.53, mutation=ExactMask(rate=0.5, shared=True, tied=False))')


def test_plans_that_do_not_fit_are_named() -> None:
    query, table, target = torch.randn(4, 8), torch.randn(6, 8), torch.arange(4)
    bank, index = torch.rand(3, 8) > 0.5, torch.tensor([0, 1, 2, 0])
    for plan, name in ((MaskPlan(bank[:, :1], index), 'bank'), (MaskPlan(bank.long(), index), 'bank'),
                       (MaskPlan(bank[:, :3], index), 'bank'), (MaskPlan(bank, index[:1]), 'index'),
                       (MaskPlan(bank, index - 1), 'index'), (MaskPlan(bank, index + 9), 'index'),
                       (MaskPlan(bank, index.view(4, 1)), 'index'), (MaskPlan(bank, index.float()), 'index')):
        with pytest.raises(ArgumentError, match=f'^plan.{name}: '):
            all_entities_cross_entropy(query, table, target, [(1.0, 0.5)], plan=plan)


@pytest.mark.parametrize('labels', [[(1.0, 0.0)], [(1.0, 0.3), (1.0, 0.0)]])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sums_over_many_entities_fit(dtype: torch.dtype, labels: list[tuple[float, float]]) -> None:
    torch.manual_seed(0)
    operands = [torch.randn(size, 100, dtype=dtype) for size in (4, 5000)]
    plan = MaskPlan(torch.rand(2, 100) > 0.5, torch.tensor([0, 1, 1, 0])) if len(labels) > 1 else None
    found = []
    for wanted in (dtype, torch.float64):
        query, table = (value.to(wanted).requires_grad_() for value in operands)
        loss = all_entities_cross_entropy(query, table, torch.arange(4), labels, plan=plan)
        gradients = torch.autograd.grad(loss, (query, table))
        assert gradients[0].dtype == wanted
        found.append((loss.double(), *(value.double() for value in gradients)))
    assert found[0][0].isfinite()
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=0.03, atol=0.03 * float(other.detach().abs().max()))


@pytest.mark.parametrize('make', MODELS)
@pytest.mark.parametrize('criterion', [OneVsAllLoss(regularizer=L3Regularizer(1e-2)),
                                       OneVsAllEMULoss(mutation=BernoulliMask(0.5), regularizer=L3Regularizer(1e-2))],
                         ids=lambda value: type(value).__name__)
def test_terms_of_the_loss(criterion: Any, make: Any) -> None:
    model, batch = make_model(make), make_batch()
    loss = criterion(model, batch)
    scorer = as_scorer(model)
    expected = scorer.score(scorer.query(batch.known_index, batch.rel_type, batch.side),
                            scorer.candidates(batch.target_index)).mean()
    torch.testing.assert_close(criterion.terms['positive_score'], expected.detach())
    torch.testing.assert_close(criterion.terms['loss_penalty'], criterion.regularizer(scorer, batch).detach())
    assert not any(value.requires_grad for value in criterion.terms.values()) and loss.requires_grad
