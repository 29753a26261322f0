r"""Interactions that are defined outside of the package: through every operator and on every backend, they give what
their own formula gives.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import pytest
import torch
from torch import Tensor

from pyg_emu import EMULoss, EMUNegatives, KGData, OneVsAllEMULoss, TripletLoader, evaluate, predict
from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.losses.functional import uls_cross_entropy
from pyg_emu.negatives.mutation import MutationContext
from pyg_emu.ops import MaskPlan, MixPlan, Plan, emu_score, last_backend, rank_counts, score_entities, use_backend
from pyg_emu.ops import backend as backends

NUM_NODES, NUM_RELATIONS, WIDTH = 9, 2, 4


@dataclass(frozen=True)
class WeightedL3(Interaction):
    r""":math:`-\|c (\mathbf{q} - \mathbf{x})\|_3`."""
    scale: float = 1.0

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -torch.linalg.vector_norm(self.scale * (query - candidates), ord=3, dim=-1)


@dataclass(frozen=True)
class Gated(Interaction):
    r""":math:`\sum_k a_k \tanh(x_k) + b_k x_k`, with queries :math:`[\mathbf{a}, \mathbf{b}]`."""
    query_parts: ClassVar[int] = 2

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        a, b = query.chunk(2, dim=-1)
        return (a * candidates.tanh() + b * candidates).sum(dim=-1)


class Rolled(Dot):
    r"""A bilinear form that is built upon the dot product, whose kernels and matrix product would ignore its matrix."""
    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return (query * candidates.roll(1, dims=-1)).sum(dim=-1)


class Cubic(Interaction):
    r"""States a fact by which all entities are scored without a vector for each pair."""
    distance_order: ClassVar[Optional[float]] = 3.0

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -torch.linalg.vector_norm(query - candidates, ord=3, dim=-1)


INTERACTIONS = [WeightedL3(0.7), Gated(), Rolled(), Cubic()]


class Model(ScorerMixin, torch.nn.Module):
    r"""The smallest model around an interaction; queries need not be as wide as candidates."""
    def __init__(self, interaction: Interaction, sparse: bool = False) -> None:
        super().__init__()
        self.interaction = interaction
        self.num_nodes, self.num_relations, self.sparse = NUM_NODES, NUM_RELATIONS, sparse
        self.entities = torch.nn.Parameter(torch.randn(NUM_NODES, WIDTH, dtype=torch.float64))
        self.relations = torch.nn.Parameter(torch.randn(NUM_RELATIONS, interaction.query_width(WIDTH),
                                                        dtype=torch.float64))

    def entity_table(self) -> Tensor:
        return self.entities

    def _query(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        relation = self.relations[rel_type]
        repeats = relation.size(-1) // WIDTH
        return self.entities[known].repeat(1, repeats) * (relation if side == 'tail' else relation.flip(-1))


@pytest.fixture(params=['automatic', 'torch', 'triton'])
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    r"""Numba by automatic choice, the reference by name, and Triton by automatic choice, as on a GPU."""
    if request.param == 'triton':
        pytest.importorskip('triton')
        monkeypatch.setenv('TRITON_INTERPRET', '1')
        monkeypatch.setattr(backends, '_preferred', lambda device: 'triton')
    with use_backend('torch' if request.param == 'torch' else None):
        yield request.param


@pytest.fixture(params=INTERACTIONS, ids=lambda interaction: interaction.name)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return Model(request.param)


def facts() -> KGData:
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(high, (40, ), generator=generator) for high in (NUM_NODES, NUM_RELATIONS, NUM_NODES)]
    head, relation, tail = torch.unique(torch.stack(columns), dim=1)
    return KGData(torch.stack([head, tail]), relation, NUM_NODES, NUM_RELATIONS)


def mixed(positive: Tensor, negative: Tensor, other: Optional[Tensor], plan: Plan) -> Tensor:
    r"""Equation 6 or 22, slot by slot."""
    rows = []
    for b in range(negative.size(0)):
        for n in range(negative.size(1)):
            if isinstance(plan, MixPlan):
                partner = positive[b] if other is None else other[b, n]
                rows.append(plan.weight[b, n] * negative[b, n] + (1 - plan.weight[b, n]) * partner)
            else:
                mask = plan.bank[plan.index[b] if plan.index.dim() == 1 else plan.index[b, n]].to(negative.dtype)
                rows.append(mask * positive[b] + (1 - mask) * negative[b, n])
    return torch.stack(rows).view_as(negative)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('sparse_grad', [False, True])
def test_operator(model: Model, setting: str, sparse_grad: bool, dtype: torch.dtype) -> None:
    interaction, generator = model.interaction, torch.Generator().manual_seed(1)
    index = torch.randint(NUM_NODES, (3, 5), generator=generator)
    partner = torch.randint(NUM_NODES, (3, 5), generator=generator)
    weight = torch.rand(3, 5, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    bank = torch.rand(6, WIDTH, generator=generator) < 0.5
    query = torch.randn(3, interaction.query_width(WIDTH), generator=generator, dtype=torch.float64)
    positive = torch.randn(3, WIDTH, generator=generator, dtype=torch.float64)
    leaves = [value.detach().to(dtype).requires_grad_() for value in (query, positive, model.entities)]
    query, positive, table = leaves
    plans: list[Plan] = [MaskPlan(bank, torch.tensor([1, 5, 0])), MaskPlan(bank, index % 6), MixPlan(weight),
                         MixPlan(weight, partner)]
    for plan in plans:
        scores = emu_score(query, positive, table, index, plan, interaction=interaction, sparse_grad=sparse_grad)
        assert last_backend('emu_score') == 'torch'
        other = table[partner] if isinstance(plan, MixPlan) and plan.partner is not None else None
        vanilla = interaction(query.unsqueeze(1), table[index])
        mutated = interaction(query.unsqueeze(1), mixed(positive, table[index], other, plan))
        assert scores.vanilla is not None and scores.mutated is not None
        torch.testing.assert_close(list(scores), [vanilla, mutated])
        found, expected = (torch.autograd.grad((one + two.square()).sum(), [*leaves, weight], allow_unused=True,
                                               materialize_grads=True)
                           for one, two in (scores, (vanilla, mutated)))
        torch.testing.assert_close([value.to_dense() for value in found], list(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shared', [True, False])
def test_loss_of_a_batch(model: Model, setting: str, shared: bool) -> None:
    data = facts()
    batch = next(iter(TripletLoader(data, 6, shuffle=True, transform=EMUNegatives(5, 0.5, shared=shared))))
    state = batch.generator.get_state()
    loss = EMULoss(0.2, 0.4)(model, batch)
    batch.generator.set_state(state)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    positive, negative = model.entities[batch.target_index], model.entities[batch.neg_index]
    plan = batch.mutation.plan(MutationContext(batch, model, query, 5, WIDTH))
    own = model.interaction(query, positive)
    mutated = model.interaction(query.unsqueeze(1), mixed(positive, negative, None, plan))
    expected = uls_cross_entropy(own, mutated, 0.4, batch.neg_mask) / 5
    expected = expected + 0.2 * uls_cross_entropy(own, model.interaction(query.unsqueeze(1), negative),
                                                  mask=batch.neg_mask)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


class Halves:
    r"""One mask for all triples, whatever the width of queries: half of the components from the positive."""
    def plan(self, context: MutationContext) -> MaskPlan:
        bank = (torch.arange(context.width) % 2 == 0).unsqueeze(0)
        return MaskPlan(bank, torch.zeros(context.query.size(0), dtype=torch.int64))


@pytest.mark.parametrize('block_size', [None, 4])
def test_loss_against_all_entities(model: Model, setting: str, block_size: Optional[int]) -> None:
    batch = next(iter(TripletLoader(facts(), 6)))
    loss = OneVsAllEMULoss(0.2, 0.4, Halves(), block_size=block_size)(model, batch)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    positive, size = model.entities[batch.target_index], batch.target_index.numel()
    every = torch.arange(NUM_NODES).expand(size, -1)
    negative = model.entities[every[every != batch.target_index.unsqueeze(1)].view(size, -1)]
    own = model.interaction(query, positive)
    plan = Halves().plan(MutationContext(batch, model, query, 1, WIDTH))
    mutated = model.interaction(query.unsqueeze(1), mixed(positive, negative, None, plan))
    expected = uls_cross_entropy(own, mutated, 0.4) / (NUM_NODES - 1)
    expected = expected + 0.2 * uls_cross_entropy(own, model.interaction(query.unsqueeze(1), negative))
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


def test_ranking_and_prediction(model: Model, setting: str) -> None:
    data = facts()
    metrics = evaluate(model, data, split='train')
    assert last_backend('rank_counts') == 'torch'
    triples = data.facts('train').tolist()
    known = {tuple(triple) for triple in triples}
    reciprocal = []
    with torch.no_grad():
        for head, relation, tail in triples:
            for side, given, target in (('tail', head, tail), ('head', tail, head)):
                query = model.query(torch.tensor([given]), torch.tensor([relation]), side)  # type: ignore[arg-type]
                scores = model.interaction(query, model.entities)
                facts_of = [(given, relation, e) if side == 'tail' else (e, relation, given) for e in range(NUM_NODES)]
                rivals = [float(scores[e]) for e in range(NUM_NODES) if e != target and facts_of[e] not in known]
                reciprocal.append(1.0 / (1 + sum(score > float(scores[target]) for score in rivals)))
        torch.testing.assert_close(model.score_all(query)[0], scores)
    assert metrics['mrr'] == pytest.approx(sum(reciprocal) / len(reciprocal))
    best = predict(model, data, heads=given if side == 'tail' else None, tails=None if side == 'tail' else given,
                   relations=relation, k=NUM_NODES)
    assert last_backend('rank_counts') == 'torch'
    assert best['head'].tolist() == scores.argsort(descending=True).tolist()
    assert best['score'].tolist() == pytest.approx(scores.sort(descending=True).values.tolist())


def test_a_request_by_name_is_refused(model: Model) -> None:
    query = model.query(torch.tensor([0]), torch.tensor([0]), 'tail')
    index, name = torch.tensor([[0, 1]]), type(model.interaction).__name__
    calls = [lambda **kwargs: emu_score(query, model.entities[:1], model.entities, index,
                                        interaction=model.interaction, **kwargs),
             lambda **kwargs: score_entities(query, model.entities, interaction=model.interaction, **kwargs),
             lambda **kwargs: rank_counts(query, model.entities, torch.tensor([0]), interaction=model.interaction,
                                          **kwargs)]
    for call in calls:
        with pytest.raises(BackendError, match=f'numba.*{name}'):
            call(backend='numba')
        with use_backend('numba'), pytest.raises(BackendError, match=name):
            call()
    pytest.importorskip('triton')
    with pytest.raises(BackendError, match=f'triton.*{name}'):
        emu_score(query.float(), model.entities[:1].float(), model.entities.float(), index,
                  interaction=model.interaction, backend='triton')


def test_facts_on_the_class() -> None:
    # A formula of its own inherits neither a name nor what is true of another formula.
    assert (Rolled.name, Rolled.matrix_product) == ('Rolled', False)
    assert (Dot.name, Dot.matrix_product) == ('dot', True)
    assert Cubic.distance_order == 3.0 and Cubic().query_width(6) == 6
    assert type('Other', (L1, ), {'__call__': L2.__call__}).distance_order is None  # type: ignore[attr-defined]
    assert Gated().query_width(6) == 12
    with pytest.raises(ArgumentError, match=r'query: .*\(1, 8\).*Gated.*\(1, 4\)'):
        emu_score(torch.ones(1, 4), torch.ones(1, 4), torch.ones(2, 4), torch.zeros(1, 1, dtype=torch.int64),
                  interaction=Gated())


@pytest.mark.parametrize('interaction', [Dot(), L1(), L2(), ComplexModulus(), ModulusPhase()],
                         ids=lambda interaction: interaction.name)
def test_kernels_agree_with_the_facts(interaction: Interaction) -> None:
    from pyg_emu.ops.emu_score.numba_terms import TERMS
    query_parts, parts, _, norm = TERMS[type(interaction)].layout(None)
    assert (query_parts, parts, norm) == (interaction.query_parts, interaction.parts, interaction.has_norm)


def test_trained_parameters_of_an_interaction() -> None:
    # Autograd reaches them through the operator; where blocks are scored anew, they would be left out in silence.
    weight = torch.ones(WIDTH, dtype=torch.float64, requires_grad=True)

    class Learned(Interaction):
        def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
            return (weight * query * candidates).sum(dim=-1)

    torch.manual_seed(0)
    learned = Model(Learned())
    batch = next(iter(TripletLoader(facts(), 6, transform=EMUNegatives(5, 0.5))))
    (grad, ) = torch.autograd.grad(EMULoss()(learned, batch), weight)
    assert grad.abs().sum() > 0
    with pytest.raises(ArgumentError, match='interaction: Learned'):
        OneVsAllEMULoss(mutation=Halves())(learned, batch)
