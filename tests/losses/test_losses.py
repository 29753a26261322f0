from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Batch as Collated
from torch_geometric.data import Data
from torch_geometric.nn import kge

from pyg_emu import models
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import (
    BCELoss,
    CrossEntropyLoss,
    EMUBCELoss,
    EMULoss,
    LinkPredictionLoss,
    MarginLoss,
    OneVsAllLoss,
    SelfAdversarialLoss,
)
from pyg_emu.losses.regularizers import L3Regularizer
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import LinearSchedule, Mixup, MutationContext
from pyg_emu.ops import MaskPlan, use_backend

LOSSES: dict[str, Any] = {
    'EMULoss': EMULoss,
    'EMUBCELoss': EMUBCELoss,
    'CrossEntropyLoss': CrossEntropyLoss,
    'BCELoss': BCELoss,
    'SelfAdversarialLoss': SelfAdversarialLoss,
    'MarginLoss': MarginLoss,
}
NUM_NODES, NUM_RELATIONS = 12, 3


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    # The operator has tests of its own; here its kernels would only be compiled for many types.
    with use_backend('torch'):
        yield


class SecondComponent:
    r"""Takes the second of two components from the positive."""
    def plan(self, context: MutationContext) -> MaskPlan:
        return MaskPlan(torch.tensor([[False, True]]), torch.zeros(context.query.size(0), dtype=torch.int64))


def three_entities() -> tuple[models.DistMult, Batch]:
    r"""e0 = (1, 2), e1 = (1/2, -1), e2 = (1, 1), one relation (2, 1), the triple (0, 0, 2) with negatives 0 and 1."""
    model = models.DistMult(3, 1, 2).double()
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[1.0, 2.0], [0.5, -1.0], [1.0, 1.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[2.0, 1.0]]))
    batch = Batch(head_index=torch.tensor([0]), rel_type=torch.tensor([0]), tail_index=torch.tensor([2]), num_nodes=3,
                   side='tail', step=0, neg_index=torch.tensor([[0, 1]]))
    batch.mutation = SecondComponent()
    return model, batch


def make_batch(side: str = 'both', seed: int = 0, **arguments: Any) -> Batch:
    generator = torch.Generator().manual_seed(9)
    data = KGData(torch.randint(NUM_NODES, (2, 50), generator=generator),
                  torch.randint(NUM_RELATIONS, (50, ), generator=generator), NUM_NODES, NUM_RELATIONS)
    arguments.setdefault('num_negatives', 6)
    transform = EMUNegatives(**arguments)
    return next(iter(TripletLoader(data, 20, seed=seed, corrupt=side, transform=transform)))  # type: ignore[arg-type]


# By hand #####################################################################
# q = (2, 2): s+ = 4, vanilla scores 6 and -1; mutated, e0 = (1, 1) scores 4 and e1 = (1/2, 1) scores 3.


def test_emu_loss_by_hand() -> None:
    model, batch = three_entities()
    scored = EMULoss().score(model, batch)
    assert scored.positive.tolist() == [4.0]
    assert scored.vanilla.tolist() == [[6.0, -1.0]] and scored.mutated.tolist() == [[4.0, 3.0]]
    # lse(4, 4, 3) = 4.8619948: 0.8619948 + 0.53 (0.8619948 + 1.8619948) = 2.3057093, over N = 2.
    # lse(4, 6, -1) = 6.1277309: 2.1277309, times 0.11.
    loss = EMULoss(alpha=0.11, beta=0.53)(model, batch)
    assert float(loss.detach()) == pytest.approx(2.3057093 / 2 + 0.11 * 2.1277309, abs=1e-6)
    undivided = EMULoss(alpha=0.11, beta=0.53, divide_by_negatives=False)(model, batch)
    assert float(undivided.detach()) == pytest.approx(2.3057093 + 0.11 * 2.1277309, abs=1e-6)


def test_emu_gradient_flows_to_the_positive_by_hand() -> None:
    model, batch = three_entities()
    EMULoss(alpha=0.0, beta=0.0, divide_by_negatives=False)(model, batch).backward()
    # p = softmax(4, 4, 3) = (0.4223188, 0.4223188, 0.1553624); the loss is -log p_0.
    # e2 is the positive, weight p_0 - 1 on both components, and lends its second component to both negatives.
    # e0 is the negative of weight p_1 with its first component, and the head: q = e0 * (2, 1).
    first, second = -0.5776812, -0.5776812 + 0.4223188 + 0.1553624
    entities, relations = model.node_emb.weight.grad, model.rel_emb.weight.grad
    assert entities[2].tolist() == pytest.approx([2 * first, 2 * second], abs=1e-6)
    assert entities[1].tolist() == pytest.approx([2 * 0.1553624, 0.0], abs=1e-6)
    # The gradient of q is the weighted sum of the candidates, that of the relation e0 = (1, 2) times it.
    by_query = -0.5776812 * 1 + 0.4223188 * 1 + 0.1553624 * 0.5
    assert relations[0].tolist() == pytest.approx([by_query, 0.0], abs=1e-6)


def test_emu_bce_by_hand() -> None:
    model, batch = three_entities()
    # bce(4, 1) = 0.0181499; bce(4, 0.25) = 4.0181499 - 1, bce(3, 0.25) = 3.0485874 - 0.75, each of weight 1/2;
    # vanilla: bce(6, 0) = 6.0024757, bce(-1, 0) = 0.3132617.
    expected = (0.0181499 + (3.0181499 + 2.2985874) / 2) / 2 + (0.0181499 + (6.0024757 + 0.3132617) / 2) / 2
    assert float(EMUBCELoss(alpha=1.0, beta=0.25)(model, batch).detach()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('loss, expected', [
    (CrossEntropyLoss(), 2.1277309),
    (CrossEntropyLoss(mutate=True), 0.8619948),
    # lse = 6.1277309; labels 0.7 + 0.1 and 0.1, 0.1
    (CrossEntropyLoss(label_smoothing=0.3), 0.8 * 2.1277309 + 0.1 * 0.1277309 + 0.1 * 7.1277309),
    (MarginLoss(2.0), (4 + 0) / 2),
    (MarginLoss(2.0, mutate=True), (2 + 1) / 2),
    (MarginLoss(2.0, mutate=True, alpha=0.5), (2 + 1) / 2 + 0.5 * (4 + 0) / 2),
    # weights softmax(6, -1) and, with T = 2, softmax(3, -0.5) = (0.9706878, 0.0293122); only the first is within reach
    (MarginLoss(2.0, adversarial_temperature=1.0), 0.9990889 * 4),
    (MarginLoss(2.0, adversarial_temperature=2.0), 0.9706878 * 4),
    (BCELoss(), (0.0181499 + (6.0024757 + 0.3132617) / 2) / 2),
    (SelfAdversarialLoss(0.0), (0.0181499 + (6.0024757 + 0.3132617) / 2) / 2),
    # weights softmax(6, -1) = (0.9990889, 0.0009111)
    (SelfAdversarialLoss(), (0.0181499 + 0.9990889 * 6.0024757 + 0.0009111 * 0.3132617) / 2),
    # scores 1; 3, -4 with weights softmax(1.5, -2)
    (SelfAdversarialLoss(0.5, margin=-3.0), (0.3132617 + 0.9706878 * 3.0485874 + 0.0293122 * 0.0181499) / 2),
    # mutated scores 1; 1, 0 with weights softmax(0.5, 0), then half of the line above
    (SelfAdversarialLoss(0.5, margin=-3.0, mutate=True, alpha=0.5),
     (0.3132617 + 0.6224593 * 1.3132617 + 0.3775407 * 0.6931472) / 2
     + 0.5 * (0.3132617 + 0.9706878 * 3.0485874 + 0.0293122 * 0.0181499) / 2),
], ids=str)
def test_baselines_by_hand(loss: LinkPredictionLoss, expected: float) -> None:
    assert float(loss(*three_entities()).detach()) == pytest.approx(expected, abs=1e-6)


# Against the formulas ########################################################


@pytest.mark.parametrize('side', ['tail', 'head', 'both'])
@pytest.mark.parametrize('make', [models.TransE, models.DistMult, models.ComplEx, models.RotatE, kge.TransE,
                                  kge.RotatE], ids=lambda make: f'{make.__module__}.{make.__name__}')
def test_vanilla_scores_are_the_models_own(make: Any, side: str) -> None:
    torch.manual_seed(0)
    model, batch = make(NUM_NODES, NUM_RELATIONS, 4).double(), make_batch(side)
    scored = EMULoss().score(model, batch)
    torch.testing.assert_close(scored.positive, model(batch.head_index, batch.rel_type, batch.tail_index))
    tails = batch.corrupts_tail
    for slot in range(6):
        negative = batch.neg_index[:, slot]
        head = torch.where(tails, batch.head_index, negative)
        tail = torch.where(tails, negative, batch.tail_index)
        torch.testing.assert_close(scored.vanilla[:, slot], model(head, batch.rel_type, tail))


def test_without_mutation_unbounded_label_smoothing_is_left() -> None:
    torch.manual_seed(0)
    model, batch = models.TransE(NUM_NODES, NUM_RELATIONS, 4).double(), make_batch(mutation_rate=0.0)
    scored = EMULoss().score(model, batch)
    assert scored.mutated is None
    logs = torch.cat([scored.positive.unsqueeze(1), scored.vanilla], dim=1).log_softmax(1)
    smoothed = -(logs[:, 0] + 0.53 * logs[:, 1:].sum(1)).mean() / 6
    plain = F.cross_entropy(logs, torch.zeros(20, dtype=torch.int64))
    torch.testing.assert_close(EMULoss()(model, batch), smoothed + 0.11 * plain)
    torch.testing.assert_close(CrossEntropyLoss()(model, batch), plain)


def test_alpha_zero_scores_no_vanilla_negatives() -> None:
    model, batch = models.DistMult(NUM_NODES, NUM_RELATIONS, 4), make_batch()
    assert EMULoss(alpha=0.0).score(model, batch).vanilla is None
    assert CrossEntropyLoss(mutate=True).score(model, batch).vanilla is None
    assert CrossEntropyLoss().score(model, batch).mutated is None
    assert EMULoss(alpha=0.1).score(model, batch).vanilla is not None


def test_temperature_weighs_binary_terms_as_self_adversarial_ones() -> None:
    torch.manual_seed(0)
    model, batch = models.RotatE(NUM_NODES, NUM_RELATIONS, 4).double(), make_batch(mutation=Mixup())

    def same(one: LinkPredictionLoss, other: LinkPredictionLoss) -> None:
        losses = []
        for criterion in (one, other):
            batch.generator.manual_seed(0)
            losses.append(criterion(model, batch))
        torch.testing.assert_close(*losses)
        assert not torch.allclose(losses[0], BCELoss()(model, batch))

    # One multiplies scores by its temperature, the other divides by it.
    same(SelfAdversarialLoss(0.25), BCELoss(adversarial_temperature=4.0))
    same(SelfAdversarialLoss(0.25, mutate=True, alpha=0.3), EMUBCELoss(0.3, 0.0, adversarial_temperature=4.0))


def test_mutation_follows_the_step_of_the_batch() -> None:
    model, batch = models.DistMult(NUM_NODES, NUM_RELATIONS, 4), make_batch(mutation_rate=LinearSchedule(0.0, 1.0, 10))
    assert batch.step == 0 and EMULoss().score(model, batch).mutated is None
    batch.step = 10
    scored = EMULoss().score(model, batch)
    torch.testing.assert_close(scored.mutated, scored.positive.unsqueeze(1).expand(-1, 6))


def test_masked_slots_have_no_say() -> None:
    torch.manual_seed(0)
    model, batch = models.RotatE(NUM_NODES, NUM_RELATIONS, 4).double(), make_batch(mutation_rate=0.0)
    batch.neg_mask = torch.arange(6).expand(20, 6) < 4
    fewer = make_batch(mutation_rate=0.0)
    fewer.neg_index = batch.neg_index[:, :4]
    for name, cls in LOSSES.items():
        criterion = EMULoss(divide_by_negatives=False) if name == 'EMULoss' else cls()
        torch.testing.assert_close(criterion(model, batch), criterion(model, fewer))
    for criterion in (CrossEntropyLoss(label_smoothing=0.2), CrossEntropyLoss(confidence_penalty=0.2)):
        torch.testing.assert_close(criterion(model, batch), criterion(model, fewer))


@pytest.mark.parametrize('name', LOSSES)
def test_regularizer_is_added(name: str) -> None:
    model, batch = models.DistMult(NUM_NODES, NUM_RELATIONS, 4).double(), make_batch(mutation_rate=0.0)
    penalty = L3Regularizer(0.1)
    difference = LOSSES[name](regularizer=penalty)(model, batch) - LOSSES[name]()(model, batch)
    torch.testing.assert_close(difference, penalty(model))


# Gradients ###################################################################


# Not SelfAdversarialLoss: its weights are detached, so its gradient is not that of its value.
@pytest.mark.parametrize('criterion', [EMULoss(), EMUBCELoss(), CrossEntropyLoss(mutate=True), BCELoss(mutate=True),
                                       MarginLoss(mutate=True, alpha=0.3)], ids=str)
@pytest.mark.parametrize('make', [models.DistMult, models.RotatE])
def test_gradcheck(criterion: LinkPredictionLoss, make: Any) -> None:
    torch.manual_seed(1)
    model, batch = make(NUM_NODES, NUM_RELATIONS, 2, margin=2.0).double(), make_batch(num_negatives=3)

    def loss(*_: Tensor) -> Tensor:
        batch.generator.manual_seed(0)  # the same masks in every evaluation
        return criterion(model, batch)

    assert torch.autograd.gradcheck(loss, list(model.parameters()))


@pytest.mark.parametrize('shared', [True, False])
def test_sparse_gradients_equal_dense_ones(shared: bool) -> None:
    torch.manual_seed(0)
    sparse = models.ComplEx(NUM_NODES, NUM_RELATIONS, 4, sparse=True).double()
    dense = models.ComplEx(NUM_NODES, NUM_RELATIONS, 4).double()
    dense.load_state_dict(sparse.state_dict())
    for model in (sparse, dense):
        EMULoss()(model, make_batch(tied=True, shared=shared)).backward()
    for left, right in zip(sparse.parameters(), dense.parameters()):
        assert left.grad.is_sparse
        torch.testing.assert_close(left.grad.to_dense(), right.grad)


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('layer', [kge.TransE, kge.DistMult, kge.ComplEx, kge.RotatE])
def test_pygs_own_layers_learn(name: str, layer: Any) -> None:
    torch.manual_seed(0)
    model = layer(NUM_NODES, NUM_RELATIONS, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for step in range(15):
        optimizer.zero_grad()
        loss = LOSSES[name]()(model, make_batch(seed=step % 3, num_negatives=8))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < sum(losses[:3])


def test_whatever_backend_the_device_has() -> None:
    torch.manual_seed(0)
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 16)
    expected = EMULoss()(model, make_batch())
    with use_backend(None):
        torch.testing.assert_close(EMULoss()(model, make_batch()), expected)


def test_same_seed_same_loss() -> None:
    torch.manual_seed(0)
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 16)
    first, again, other = (EMULoss()(model, make_batch(seed=seed)) for seed in (4, 4, 5))
    assert first == again and first != other


def test_mixup_takes_the_place_of_masks() -> None:
    torch.manual_seed(0)
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 4).double()
    batch = make_batch(mutation=Mixup(), side='tail')
    scored = EMULoss().score(model, batch)
    # A dot product is linear, so the mixed score lies between those of the negative and of the positive.
    positive = scored.positive.unsqueeze(1).expand_as(scored.vanilla)
    weight = (scored.mutated - positive) / (scored.vanilla - positive)
    assert ((weight > 0) & (weight < 1))[batch.neg_index != batch.tail_index.unsqueeze(1)].all()


# Bad input ###################################################################


@pytest.mark.parametrize('value', [-0.1, float('nan'), float('inf'), 'x'])
@pytest.mark.parametrize('cls, name', [(EMULoss, 'alpha'), (EMULoss, 'beta'), (EMUBCELoss, 'alpha'),
                                       (EMUBCELoss, 'beta'), (EMUBCELoss, 'adversarial_temperature'),
                                       (BCELoss, 'adversarial_temperature'),
                                       (MarginLoss, 'adversarial_temperature'),
                                       (SelfAdversarialLoss, 'temperature'), (MarginLoss, 'margin'),
                                       (CrossEntropyLoss, 'label_smoothing')])
def test_refuses_arguments(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f'^{name}: .*got {value!r}'):
        cls(**{name: value})


def test_refuses_a_regularizer_that_is_none() -> None:
    with pytest.raises(ArgumentError, match='^regularizer: expected a function .*, got 1e-05'):
        EMULoss(regularizer=1e-5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='^regularizer: expected a function .*, got <class'):
        EMULoss(regularizer=L3Regularizer)  # type: ignore[arg-type]


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 'x'])
def test_refuses_a_margin_that_is_no_number(value: Any) -> None:
    with pytest.raises(ArgumentError, match=f'^margin: expected a finite number, got {value!r}'):
        SelfAdversarialLoss(margin=value)


@pytest.mark.parametrize('nodes, relations, message', [
    (NUM_NODES - 1, NUM_RELATIONS, 'num_nodes=11, but the data has 12 entities; make the model with num_nodes=12'),
    (NUM_NODES, NUM_RELATIONS - 1, 'num_relations=2, but the data has 3 relations'),
])
def test_refuses_models_that_are_too_small(nodes: int, relations: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        EMULoss()(models.DistMult(nodes, relations, 4), make_batch())
    EMULoss()(models.DistMult(NUM_NODES + 1, NUM_RELATIONS + 1, 4), make_batch())  # room to spare is fine


def test_refuses_relations_of_a_batch_made_by_hand() -> None:
    head_index, rel_type, tail_index = torch.tensor([[0, 1], [0, NUM_RELATIONS], [2, 3]])
    plain = Data(head_index=head_index, rel_type=rel_type, tail_index=tail_index, num_nodes=NUM_NODES)
    with pytest.raises(ArgumentError, match=r'batch.rel_type: expected ids in \[0, 2\] .*num_relations=3\), got 3'):
        EMULoss()(models.DistMult(NUM_NODES, NUM_RELATIONS, 4), EMUNegatives(2)(plain))


@pytest.mark.parametrize('criterion', [EMULoss(), MarginLoss(), OneVsAllLoss()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize('collated', [False, True])
def test_refuses_a_batch_without_relations_for_several(criterion: Any, collated: bool) -> None:
    plain = Data(head_index=torch.tensor([0, 1]), tail_index=torch.tensor([2, 3]), num_nodes=NUM_NODES)
    batch = EMUNegatives(2)(plain).to('cpu')
    if collated:
        batch = Collated.from_data_list([batch])
    with pytest.raises(ArgumentError, match='batch: rel_type is missing, and the model has num_relations=3; set rel_t'):
        criterion(models.DistMult(NUM_NODES, NUM_RELATIONS, 4), batch)
    criterion(models.DistMult(NUM_NODES, 1, 4), batch)
    batch.rel_type = torch.zeros(2, dtype=torch.int64)
    criterion(models.DistMult(NUM_NODES, NUM_RELATIONS, 4), batch)


def test_refuses_a_batch_on_another_device() -> None:
    with pytest.raises(ArgumentError, match=r"it is on cpu, the model on meta; move the data by data.to\('meta'\)"):
        EMULoss()(models.DistMult(NUM_NODES, NUM_RELATIONS, 4).to('meta'), make_batch())


def test_refuses_batches_without_negatives() -> None:
    batch = next(iter(TripletLoader(make_batch().source, 5)))
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 4)
    with pytest.raises(ArgumentError, match='neg_index'):
        EMULoss()(model, batch)
    with pytest.raises(ArgumentError, match='SimpleNamespace'):
        EMULoss()(model, SimpleNamespace(neg_index=batch.head_index))  # type: ignore[arg-type]


def test_takes_plain_data_with_negatives() -> None:
    batch, model = make_batch(mutation_rate=0.0), models.DistMult(NUM_NODES, NUM_RELATIONS, 4)
    torch.testing.assert_close(EMULoss()(model, Data.from_dict(batch.to_dict())), EMULoss()(model, batch))


def test_repr() -> None:
    assert str(EMULoss()) == 'EMULoss(alpha=0.11, beta=0.53, divide_by_negatives=True)'


def test_confidence_penalty() -> None:
    model, batch = three_entities()
    # e0 r = (2, 2) meets (1, 1), the positive, and (1, 2) and (1/2, -1).
    scores = torch.tensor([[4.0, 6.0, -1.0]], dtype=torch.double)
    entropy = torch.distributions.Categorical(logits=scores).entropy()
    plain, penalised = CrossEntropyLoss()(model, batch), CrossEntropyLoss(confidence_penalty=0.3)(model, batch)
    torch.testing.assert_close(plain, F.cross_entropy(scores, torch.tensor([0])))
    torch.testing.assert_close(penalised, plain - 0.3 * entropy.squeeze())
    mutated = CrossEntropyLoss(confidence_penalty=0.3, mutate=True)(model, batch)
    assert not torch.allclose(mutated, penalised)


@pytest.mark.parametrize('value', [-0.1, float('nan'), float('inf')])
def test_confidence_penalty_out_of_range(value: float) -> None:
    with pytest.raises(ArgumentError, match='confidence_penalty: expected a finite number >= 0'):
        CrossEntropyLoss(confidence_penalty=value)


@pytest.mark.parametrize('cls', [MarginLoss, SelfAdversarialLoss])
def test_vanilla_weight_goes_with_mutation(cls: Any) -> None:
    with pytest.raises(ArgumentError, match='alpha: .*mutate=True, got 0.1'):
        cls(alpha=0.1)
    with pytest.raises(ArgumentError, match='alpha: expected a finite number >= 0'):
        cls(mutate=True, alpha=-1.0)
    # Without a mutation both terms are about the same negatives.
    model, batch = models.TransE(NUM_NODES, NUM_RELATIONS, 4).double(), make_batch(mutation_rate=0.0)
    torch.testing.assert_close(cls(mutate=True, alpha=0.5)(model, batch), 1.5 * cls()(model, batch))


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('name', ['EMULoss', 'EMUBCELoss', 'SelfAdversarialLoss', 'MarginLoss'])
def test_alpha_may_change_during_training(name: str, fused: bool) -> None:
    options = {'mutate': True} if name in ('SelfAdversarialLoss', 'MarginLoss') else {}
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 4)
    found = []
    for alpha in (0.5, 0.0):
        criterion = LOSSES[name](alpha=alpha, **options)
        criterion.fused, criterion.alpha = fused, 0.5
        found.append(criterion(model, make_batch(seed=3)))
        assert 'loss_vanilla' in criterion.terms
        criterion.alpha = 0.0
        criterion(model, make_batch(seed=3))
        assert 'loss_vanilla' not in criterion.terms
    torch.testing.assert_close(*found)


@pytest.mark.parametrize('name', ['EMULoss', 'CrossEntropyLoss', 'BCELoss'])
@pytest.mark.parametrize('backend', ['torch', 'numba'])
def test_half_precision_trains(name: str, backend: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model = models.DistMult(NUM_NODES, NUM_RELATIONS, 4).to(dtype)
        with use_backend(None if backend == 'numba' else backend):
            LOSSES[name]()(model, make_batch()).backward()
        assert model.node_emb.weight.grad is not None and model.node_emb.weight.grad.dtype == dtype
        assert bool(model.node_emb.weight.grad.isfinite().all()) and not model.node_emb.weight.grad.is_sparse


def test_row_sparse_gradients_in_float16_are_refused_on_the_cpu() -> None:
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 4, sparse=True).half()
    with pytest.raises(ArgumentError, match='model: .*float16.*bfloat16.*sparse=False'):
        EMULoss()(model, make_batch())
    with torch.no_grad():
        assert EMULoss()(model, make_batch()).isfinite()
    EMULoss()(model.bfloat16(), make_batch()).backward()


def test_gradients_of_scores_are_dense() -> None:
    model = models.DistMult(NUM_NODES, NUM_RELATIONS, 4)
    with use_backend(None):
        scored = EMULoss().score(model, make_batch())
    (-scored.positive.mean()).backward()
    assert model.node_emb.weight.grad is not None and not model.node_emb.weight.grad.is_sparse


@pytest.mark.parametrize('criterion', [CrossEntropyLoss(), BCELoss(), SelfAdversarialLoss(), MarginLoss()], ids=repr)
def test_labels_without_mutation_are_refused(criterion: LinkPredictionLoss) -> None:
    class Labelled(Mixup):
        gives_labels = True

    batch = make_batch()
    batch.mutation = Labelled()
    with pytest.raises(ArgumentError, match='mutate=True'):
        criterion(models.DistMult(NUM_NODES, NUM_RELATIONS, 4), batch)
