r"""DeMix on a graph of ten facts worked out by hand, against its definitions on random graphs, and its state."""
from __future__ import annotations

import copy
from typing import Any, Optional

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.interaction import Dot
from pyg_emu.data import Batch, KGData, TripletLoader
from pyg_emu.data import index as index_module
from pyg_emu.models import HAKE, ComplEx, DistMult, Reciprocal, RotatE, TransE
from pyg_emu.negatives import DeMixNegatives
from pyg_emu.negatives.mutation import DeMixMutation, Mutation, MutationContext, draw_plan
from pyg_emu.negatives.mutation.patterns import Patterns, PatternScores, score_facts
from pyg_emu.ops import MixPlan, emu_score, mutate, use_backend
from tests.reference import demix as reference


@pytest.fixture(autouse=True)
def _torch() -> Any:
    with use_backend('torch'):
        yield


# A graph of ten facts ########################################################

#: Scores are products of these three numbers.
ENTITIES = [1.0, 1.0, 2.0, 4.0, 6.0, 3.0, -2.0, 5.0, 0.0]
RELATIONS = [1.0, -1.0]
FACTS = [(0, 0, 1), (0, 0, 2), (0, 0, 4), (0, 0, 5), (1, 0, 2), (1, 0, 3), (3, 0, 2), (2, 1, 0), (2, 1, 3), (5, 1, 3)]


class Products(ScorerMixin):
    interaction = Dot()

    def __init__(self, entities: Tensor, relations: Tensor) -> None:
        self.entities, self.relations = entities, relations
        self.num_nodes, self.num_relations = len(entities), len(relations)

    def entity_table(self) -> Tensor:
        return self.entities

    def _query(self, known: Tensor, rel_type: Tensor, side: Any) -> Tensor:
        return self.entities[known] * self.relations[rel_type]


def graph(facts: Any = tuple(FACTS), num_nodes: int = len(ENTITIES), num_relations: int = len(RELATIONS)) -> KGData:
    columns = torch.tensor(facts).reshape(-1, 3).t()
    return KGData(columns[[0, 2]], columns[1], num_nodes, num_relations)


def scorer() -> Products:
    return Products(torch.tensor(ENTITIES).unsqueeze(1), torch.tensor(RELATIONS).unsqueeze(1))


def ten() -> Batch:
    r"""Four of the facts, the second of which predicts its head, with six negatives each; two of these do not count."""
    triples = torch.tensor([(0, 0, 4), (1, 0, 2), (1, 0, 3), (2, 1, 0)])
    negatives = torch.tensor([[6, 3, 7, 0, 2, 1], [5, 6, 2, 7, 0, 4], [3, 2, 3, 0, 1, 8], [0, 3, 6, 8, 1, 1]])
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[0, 5] = mask[3, 0] = False
    return Batch(*triples.t(), side=torch.tensor([True, False, True, True]), num_nodes=len(ENTITIES),
                 num_relations=len(RELATIONS), neg_index=negatives, neg_mask=mask, step=0, source=graph(),
                 generator=torch.Generator())


#: With delta_T = 1 and mu = 3. Facts (0, 0, ?) score 1, 2, 6 and 3: from 0 to 3 is marginal. Of (?, 0, 2), heads 0, 1
#: and 3 score 2, 2 and 8: from 1 to 4. The other two patterns have two facts.
MARGINAL = [[False, False, False, True, True, False], [False, False, True, False, True, False], [False] * 6,
            [False] * 6]
POOLS = {0: {1, 2, 5}, 1: {0, 1}}


def made(**options: Any) -> DeMixMutation:
    return DeMixMutation(**{'delta': 1.0, 'ramp_epochs': 1.0, 'warmup': 0, **options})


def planned(mutation: DeMixMutation, batch: Batch, model: Any, seed: int = 0, update: bool = True) -> Optional[Any]:
    assert batch.generator is not None and batch.neg_index is not None
    batch.generator.manual_seed(seed)
    if update:
        mutation.update(batch, model)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    return draw_plan(mutation, batch, model, query, batch.neg_index.size(1), model.entity_table().size(1))


def test_scores_of_ten_facts() -> None:
    patterns = Patterns.of(graph().fact_index())
    scores = PatternScores.of(patterns, scorer())
    sides = torch.tensor([True, True, True, True, True, False, False, False, False])
    known, relation = torch.tensor([[0, 1, 3, 2, 5, 2, 1, 3, 7], [0, 0, 0, 1, 1, 0, 0, 1, 0]])
    row = patterns.rows(known, relation, sides)
    assert scores.count[row].tolist() == [4, 2, 1, 2, 1, 3, 1, 2, 0]
    assert scores.low[row].tolist() == [1, 2, 8, -8, -12, 2, 1, -12, torch.inf]
    assert scores.mean[row].tolist() == [3, 3, 8, -5, -12, 4, 1, -10, -torch.inf]
    pools = [set(scores.pool[first:first + size].tolist()) for first, size in zip(scores.first[row], scores.size[row])]
    assert pools == [{1, 2, 5}, {2}, {2}, {3}, {3}, {0, 1}, {0}, {5}, set()]


def test_who_is_marginal() -> None:
    mutation, batch = made(), ten()
    mutation.update(batch, scorer())
    assert mutation.tolerance == 1.0
    score = torch.tensor(ENTITIES)[batch.neg_index] * torch.tensor([1.0, 2.0, 1.0, -2.0]).unsqueeze(1)
    found = mutation.is_marginal(score, batch.known_index, batch.rel_type, batch.side)
    expected = torch.tensor(MARGINAL)
    expected[0, 5] = True  # the mask is not asked
    assert torch.equal(found, expected)
    # Both ends of the range belong to it.
    ends = torch.tensor([[-0.01, 0.0, 3.0, 3.01]])
    known = torch.tensor([0])
    assert mutation.is_marginal(ends, known, known, 'tail').tolist() == [[False, True, True, False]]
    mutation.delta = 0.5
    assert mutation.is_marginal(ends, known, known, 'tail').tolist() == [[False, False, True, False]]


def test_partners_weights_and_labels() -> None:
    batch, seen = ten(), [[set() for _ in range(6)] for _ in range(4)]
    mutation = made()
    for seed in range(150):
        plan = planned(mutation, batch, scorer(), seed)
        assert isinstance(plan, MixPlan) and plan.partner is not None and plan.label is not None
        marginal = torch.tensor(MARGINAL)
        assert batch.neg_mask is not None and batch.neg_index is not None
        assert torch.equal(plan.label, torch.where(marginal, 1 - plan.weight, 0.0))
        assert ((plan.weight >= 0.5) & (plan.weight <= 1.0)).all()
        assert (plan.weight[batch.neg_mask] < 1.0).all()
        # What does not count stays as it is.
        assert (plan.weight[~batch.neg_mask] == 1.0).all()
        assert torch.equal(plan.partner[~batch.neg_mask], batch.neg_index[~batch.neg_mask])
        for row in range(4):
            for slot in range(6):
                seen[row][slot].add(int(plan.partner[row, slot]))
    true = {0: [6, 3, 7], 1: [5, 6, 7, 4], 2: [3, 2, 3, 0, 1, 8], 3: [3, 6, 8, 1, 1]}
    for row in range(4):
        for slot in range(6):
            own = int(batch.neg_index[row, slot])
            if not batch.neg_mask[row, slot]:
                assert seen[row][slot] == {own}
            elif MARGINAL[row][slot]:
                assert seen[row][slot] == POOLS[row]
            else:
                others = list(true[row])
                others.remove(own)  # the slot, not the entity
                assert seen[row][slot] == set(others)


def test_partners_are_uniform() -> None:
    wide = ten()
    wide.neg_index = wide.neg_index.repeat(1, 200)
    wide.neg_mask = wide.neg_mask.repeat(1, 200)
    plan = planned(made(), wide, scorer())
    assert plan is not None
    marginal = torch.tensor(MARGINAL).repeat(1, 200)
    for row, pool in POOLS.items():
        drawn = plan.partner[row][marginal[row]]
        assert stats.chisquare([int((drawn == entity).sum()) for entity in pool]).pvalue > 0.001
    drawn = plan.partner[0][~marginal[0] & wide.neg_mask[0]]
    assert stats.chisquare([int((drawn == entity).sum()) for entity in (6, 3, 7)]).pvalue > 0.001
    weight = plan.weight[wide.neg_mask]
    assert stats.kstest(weight.numpy(), 'uniform', (0.5, 0.5)).pvalue > 0.001


@pytest.mark.parametrize('alpha', [0.2, 2.0])
def test_weights_of_other_beta_distributions(alpha: float) -> None:
    wide = ten()
    wide.neg_index, wide.neg_mask = wide.neg_index.repeat(1, 200), None
    double = Products(*(value.double() for value in (scorer().entities, scorer().relations)))
    plan = planned(made(alpha=alpha), wide, double)
    expected = stats.beta(alpha, alpha)
    # The distribution function of max(b, 1 - b).
    assert stats.kstest(plan.weight.flatten().numpy(),
                        lambda w: expected.cdf(w) - expected.cdf(1 - w)).pvalue > 0.001
    half = planned(made(alpha=alpha), ten(), Products(*(v.half() for v in (scorer().entities, scorer().relations))))
    assert half.weight.dtype == torch.half and (half.weight >= 0.5).all()


def test_tiny_alpha_leaves_negatives() -> None:
    plan = planned(made(alpha=1e-6), ten(), scorer())
    torch.testing.assert_close(plan.weight, torch.ones(4, 6))


def test_mixed_vectors() -> None:
    batch, model = ten(), scorer()
    plan = planned(made(), batch, model)
    rows = mutate(model.candidates(batch.target_index), model.candidates(batch.neg_index), plan,
                  model.candidates(plan.partner))
    for row in range(4):
        for slot in range(6):
            weight = float(plan.weight[row, slot])
            by_hand = reference.mixed([ENTITIES[batch.neg_index[row, slot]]], [ENTITIES[plan.partner[row, slot]]],
                                      weight)
            assert rows[row, slot].tolist() == pytest.approx(by_hand)


def test_target_as_a_partner() -> None:
    # Of the head of (1, 0, 2), 0 and 1 may be partners, and 1 is the target.
    mutation = made(include_target=False)
    partners = {int(planned(mutation, ten(), scorer(), seed).partner[1, 2]) for seed in range(30)}
    assert partners == {0}
    # The tail 4 of (0, 0, 4) is in no pool: nothing changes.
    assert {int(planned(mutation, ten(), scorer(), seed).partner[0, 3]) for seed in range(60)} == POOLS[0]


def test_an_empty_pool_makes_true_negatives() -> None:
    # With mu = 1, the only fact (3, 0, 2) of its pattern is the target; its score is 8.
    batch = Batch(torch.tensor([3]), torch.tensor([0]), torch.tensor([2]), 'tail', num_nodes=9, num_relations=2,
                  neg_index=torch.tensor([[2, 0, 8]]), source=graph(), step=0, generator=torch.Generator())
    plan = planned(made(mu=1), batch, scorer())
    assert plan.label[0, 0] > 0 and int(plan.partner[0, 0]) == 2
    for seed in range(20):
        plan = planned(made(mu=1, include_target=False), batch, scorer(), seed)
        assert plan.label.tolist() == [[0, 0, 0]] and int(plan.partner[0, 0]) in (0, 8)
        assert int(plan.partner[0, 1]) in (2, 8)


def test_a_lone_true_negative_stays() -> None:
    batch = ten()
    batch.neg_mask = torch.zeros(4, 6, dtype=torch.bool)
    batch.neg_mask[:, 3] = True  # of the first row, a marginal one
    plan = planned(made(), batch, scorer())
    assert (plan.weight[1:] == 1).all() and torch.equal(plan.partner[1:], batch.neg_index[1:])
    assert plan.weight[0, 3] < 1 and int(plan.partner[0, 3]) in POOLS[0]
    single = ten()
    single.neg_index, single.neg_mask = single.neg_index[:, :1], None
    assert planned(made(), single, scorer()).weight.tolist() == [[1.0]] * 4


def test_without_mpne_only_true_negatives_are_mixed() -> None:
    plan = planned(made(mu=float('inf')), ten(), scorer())
    assert (plan.label == 0).all()
    assert (plan.weight[ten().neg_mask] < 1).all()
    others = [set(row.tolist()) for row in ten().neg_index]
    assert all(int(plan.partner[row, slot]) in others[row] for row in range(4) for slot in range(6))


def test_without_mixing_marginal_ones_are_positives() -> None:
    plan = planned(made(mix=False), ten(), scorer())
    assert torch.equal(plan.label, torch.tensor(MARGINAL).float())
    assert (plan.weight == 1).all() and torch.equal(plan.partner, ten().neg_index)


class Unmixed(DeMixMutation):
    r"""Has lambda' = 1."""
    def _weights(self, words: Tensor, context: MutationContext) -> Tensor:
        return torch.ones(words.shape)


def test_a_weight_of_one_leaves_plain_negatives() -> None:
    batch, model = ten(), scorer()
    plan = planned(Unmixed(1.0, ramp_epochs=1.0, warmup=0), batch, model)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    scores = emu_score(query, model.candidates(batch.target_index), model.entities, batch.neg_index, plan)
    assert torch.equal(scores.mutated, scores.vanilla) and (plan.label == 0).all()


# Random graphs, all models ###################################################

NODES, KINDS, WIDTH = 11, 3, 4
MODELS = {'TransE': lambda: TransE(NODES, KINDS, WIDTH, margin=3.0), 'DistMult': lambda: DistMult(NODES, KINDS, WIDTH),
          'ComplEx': lambda: ComplEx(NODES, KINDS, WIDTH), 'RotatE': lambda: RotatE(NODES, KINDS, WIDTH),
          'HAKE': lambda: HAKE(NODES, KINDS, WIDTH),
          'Reciprocal': lambda: Reciprocal(DistMult(NODES, 2 * KINDS, WIDTH))}


def random_case(seed: int, name: str = 'DistMult', size: int = 7, num: int = 5) -> tuple[Any, KGData, Batch]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = MODELS[name]().double()
    facts = torch.stack([torch.randint(high, (25, ), generator=generator) for high in (NODES, KINDS, 4)], 1)
    data = graph(facts.unique(dim=0).tolist(), NODES, KINDS)
    chosen = torch.randint(data.num_facts(), (size, ), generator=generator)
    batch = Batch(*data.facts()[chosen].t(), side=torch.rand(size, generator=generator) < 0.5, num_nodes=NODES,
                  num_relations=KINDS, step=0, source=data, generator=generator,
                  neg_index=torch.randint(NODES, (size, num), generator=generator),
                  neg_mask=torch.rand(size, num, generator=generator) < 0.8)
    return model, data, batch


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('include_target', [True, False])
@pytest.mark.parametrize('largest_key', [2**63 - 1, 0])
def test_agrees_with_the_definitions(name: str, include_target: bool, largest_key: int,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, '_LARGEST_KEY', largest_key)
    marginals = 0
    for seed in range(12):
        model, data, batch = random_case(seed, name)
        mutation = made(delta=0.3, mu=2, include_target=include_target)
        plan = planned(mutation, batch, model, seed)
        known: list[Any] = [tuple(fact) for fact in data.facts().tolist()]
        for row in range(batch.head_index.numel()):
            side = 'tail' if batch.side[row] else 'head'
            table = {}
            for entity in range(NODES):
                query = model.query(batch.known_index[row:row + 1], batch.rel_type[row:row + 1], side)
                table[entity] = float(model.score(query, model.candidates(torch.tensor([entity]))).detach())
            fact = (int(batch.head_index[row]), int(batch.rel_type[row]), int(batch.tail_index[row]))
            scores = {reference.completed(reference.pattern_of(fact, side), entity): score
                      for entity, score in table.items()}
            allowed = reference.partners(known, fact, side, batch.neg_index[row].tolist(),
                                         batch.neg_mask[row].tolist(), scores.__getitem__,
                                         reference.tolerance(0.3, 1.0, 1, 1.0), 2, include_target)
            for slot, (marginal, entities) in enumerate(allowed):
                weight, label = float(plan.weight[row, slot]), float(plan.label[row, slot])
                assert label == pytest.approx(1 - weight if marginal else 0.0)
                if entities:
                    assert int(plan.partner[row, slot]) in entities and 0.5 <= weight < 1.0
                else:
                    assert weight == 1.0 and int(plan.partner[row, slot]) == int(batch.neg_index[row, slot])
                marginals += marginal
    assert marginals > 10


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 1.0, 100.0]), st.sampled_from([1, 2, 3, float('inf')]),
       st.booleans())
def test_partners_share_the_pattern(seed: int, delta: float, mu: float, include_target: bool) -> None:
    with use_backend('torch'):
        model, data, batch = random_case(seed)
        plan = planned(made(delta=delta, mu=mu, include_target=include_target), batch, model, seed)
    assert ((plan.label >= 0) & (plan.label <= 0.5)).all()
    assert ((plan.weight >= 0.5) & (plan.weight <= 1)).all()
    index = data.fact_index()
    marginal = plan.label > 0
    known = index.is_known(plan.partner, batch.known_index, batch.rel_type, batch.side)
    assert known[marginal].all()
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    score = model.score(query, model.candidates(plan.partner))
    positives = index.known(batch.known_index, batch.rel_type, batch.side)
    for row in marginal.any(1).nonzero().squeeze(1).tolist():
        entities = positives.index[positives.ptr[row]:positives.ptr[row + 1]]
        mean = model.score(query[row:row + 1].expand(len(entities), -1), model.candidates(entities)).mean()
        assert (score[row][marginal[row]] <= mean + 1e-9).all()
    # The partners of all others are negatives of the same triple that count.
    for row, slot in (~marginal & batch.neg_mask).nonzero().tolist():
        assert int(plan.partner[row, slot]) in batch.neg_index[row][batch.neg_mask[row]].tolist()


@pytest.mark.parametrize('backend', ['torch', 'numba', 'triton'])
@pytest.mark.parametrize('name', ['TransE', 'DistMult', 'ComplEx', 'RotatE'])
def test_backends(name: str, backend: str) -> None:
    model, _, batch = random_case(3, name)
    model = model.float()
    plan = planned(made(delta=0.3, mu=2), batch, model)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    operands = query, model.candidates(batch.target_index), model.entity_table(), batch.neg_index
    expected = emu_score(*operands, plan, interaction=model.interaction, backend='torch').mutated
    with use_backend(backend):
        again = planned(made(delta=0.3, mu=2), batch, model)
        found = emu_score(*operands, again, interaction=model.interaction).mutated
    for one, other in zip(plan, again):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(found, expected)


def test_chunks_of_facts() -> None:
    for name in MODELS:
        model, data, _ = random_case(1, name)
        patterns = Patterns.of(data.fact_index())
        whole = score_facts(patterns, model)
        facts = sorted(map(tuple, data.facts().tolist()))
        assert whole.numel() == 2 * len(facts)
        for place, (head, relation, tail) in enumerate(facts):
            query = model.query(torch.tensor([head]), torch.tensor([relation]), 'tail')
            score = model.score(query, model.candidates(torch.tensor([tail])))
            torch.testing.assert_close(whole[place:place + 1], score.detach())
        for chunk in (1, 3, 1000):
            torch.testing.assert_close(score_facts(patterns, model, chunk), whole)


def test_equal_scores_leave_no_pool_empty() -> None:
    # Three times this number, divided by three, is less than it in single precision.
    model = Products(torch.full((NODES, 1), 0.7), torch.full((KINDS, 1), 0.3))
    scores = PatternScores.of(Patterns.of(random_case(0)[1].fact_index()), model)
    assert torch.equal(scores.size, scores.count)


# Epochs ######################################################################


def epochs(mutation: DeMixMutation, count: int) -> list[tuple[bool, float, int]]:
    r"""Of each batch: whether it is mixed, delta_T, and how often facts were scored so far."""
    model, found, calls = scorer(), [], 0
    plain = mutation._refresh

    def counted(scorer: Any) -> None:
        nonlocal calls
        calls += 1
        plain(scorer)

    mutation._refresh = counted  # type: ignore[method-assign]
    loader = TripletLoader(graph(), 4, shuffle=True, corrupt='both')
    for _ in range(count):
        for batch in loader:
            mutation.update(batch, model)
            found.append((mutation.active, mutation.tolerance, calls))
    return found


def test_warm_up_ramp_and_refresh_by_epoch() -> None:
    found = epochs(DeMixMutation(0.5, beta=1.5, ramp_epochs=2.0, warmup=2), 5)
    assert len(found) == 15
    assert [active for active, _, _ in found] == [False] * 6 + [True] * 9
    assert [delta for _, delta, _ in found[::3]] == [0.25, 0.5, 0.75, 0.75, 0.75]
    assert [calls for _, _, calls in found] == [0] * 6 + [1] * 3 + [2] * 3 + [3] * 3


def test_refresh_by_step() -> None:
    found = epochs(DeMixMutation(warmup=1, refresh_every=4), 4)
    assert [calls for _, _, calls in found] == [0] * 3 + [1] * 4 + [2] * 4 + [3]


def test_a_refresh_reads_the_current_model() -> None:
    mutation, model = made(refresh_every=1), scorer()
    planned(mutation, ten(), model)
    first = mutation.state_dict()['scores']
    model.relations = model.relations * 2
    planned(mutation, ten(), model)
    assert torch.equal(mutation.state_dict()['scores']['mean'], 2 * first['mean'])
    slow = made()
    planned(slow, ten(), scorer())
    planned(slow, ten(), model)
    assert torch.equal(slow.state_dict()['scores']['mean'], first['mean'])


def test_warm_up_draws_nothing() -> None:
    batch = ten()
    assert planned(made(warmup=1), batch, scorer(), seed=5) is None
    assert batch.generator is not None
    assert torch.equal(batch.generator.get_state(), torch.Generator().manual_seed(5).get_state())


def test_deterministic() -> None:
    first, again, other = (planned(made(), ten(), scorer(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first.weight, other.weight) and not torch.equal(first.partner, other.partner)


def test_parts_of_a_batch_have_their_rows_of_the_plan() -> None:
    batch, mutation = ten(), made()
    whole = planned(mutation, batch, scorer(), seed=3)
    own = planned(mutation, batch, scorer(), seed=3, update=False)
    assert all(torch.equal(a, b) for a, b in zip(whole, own))
    batch.generator.manual_seed(3)
    part = batch.part(slice(1, 3))
    query = scorer().query(part.known_index, part.rel_type, part.side)
    some = draw_plan(mutation, part, scorer(), query, 6, 1)
    assert all(torch.equal(value, other[1:3]) for value, other in zip(some, whole))


# State and errors ############################################################


def test_state_continues() -> None:
    batch, mutation = ten(), made(refresh_every=3)
    for seed in range(4):
        planned(mutation, batch, scorer(), seed)
    state = copy.deepcopy(mutation.state_dict())
    assert all(isinstance(value, (int, dict, type(None))) for value in state.values())
    again = made(refresh_every=3)
    again.load_state_dict(state)
    assert again.state_dict().keys() == state.keys() and again.state_dict()['scores'].keys() == state['scores'].keys()
    changed = scorer()
    changed.relations = changed.relations * 3
    for seed in range(5):
        ours, theirs = (planned(one, batch, changed, seed) for one in (mutation, again))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_state_of_other_facts() -> None:
    mutation = made()
    mutation.update(ten(), scorer())
    state = mutation.state_dict()
    with pytest.raises(CheckpointError, match='since'):
        made().load_state_dict({key: value for key, value in state.items() if key != 'since'})
    other = ten()
    other.source = graph(FACTS[:7])
    again = made()
    again.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r'\(12,\).*\(8,\)'):
        again.update(other, scorer())


def test_facts_that_change() -> None:
    batch, mutation = ten(), made()
    mutation.update(batch, scorer())
    batch.source = copy.copy(batch.source)
    batch.source.drop_indices()
    batch.source.edge_index = batch.source.edge_index.clone()
    assert planned(mutation, batch, scorer(), update=False) is not None  # the same facts in a new index
    batch.source = graph(FACTS[:7])
    with pytest.raises(ArgumentError, match='update'):
        planned(mutation, batch, scorer(), update=False)
    assert planned(mutation, batch, scorer()) is not None


def test_no_facts() -> None:
    batch, mutation = ten(), made()
    batch.source = KGData(torch.empty(2, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 9, 2)
    for include_target in (True, False):
        plan = planned(made(include_target=include_target), batch, scorer())
        assert (plan.label == 0).all()
    assert isinstance(mutation, Mutation)


@pytest.mark.parametrize('options, facts', [
    ({'delta': -1.0}, ['delta', '-1.0']), ({'beta': float('nan')}, ['beta', 'nan']), ({'mu': 0}, ['mu', '0']),
    ({'mu': float('nan')}, ['mu', 'nan']), ({'ramp_epochs': 0}, ['ramp_epochs', '0']),
    ({'alpha': 0.0}, ['alpha', '0.0']),
    ({'warmup': -1}, ['warmup', '-1']), ({'warmup': 1.5}, ['warmup', '1.5']), ({'refresh_every': 0}, ['refresh_every']),
    ({'include_target': 'yes'}, ['include_target', 'yes']), ({'mix': 1.5}, ['mix', '1.5']),
])
def test_arguments(options: dict[str, Any], facts: list[str]) -> None:
    for make in (DeMixMutation, DeMixNegatives):
        with pytest.raises(ArgumentError) as error:
            make(**options)
        assert all(fact in str(error.value) for fact in facts)


def test_misuse() -> None:
    batch, model = ten(), scorer()
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    with pytest.raises(ArgumentError, match='update'):
        planned(made(warmup=3), batch, model, update=False)
    mutation = made(warmup=3)
    mutation.update(batch, model)
    for options in ({'model': torch.nn.Linear(2, 2)}, {'num_negatives': 1}):
        context = MutationContext(**{'batch': batch, 'model': model, 'query': query, 'num_negatives': 6, 'width': 1,
                                     **options})
        with pytest.raises(ArgumentError, match='Scorer|sampled negatives'):
            mutation.plan(context)
    with pytest.raises(ArgumentError, match='refresh'):
        mutation.is_marginal(torch.zeros(4, 6), batch.known_index, batch.rel_type, batch.side)
    with pytest.raises(ArgumentError, match='scorer: .*Scorer'):
        mutation.update(batch, torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='data: .*KGData'):
        mutation.refresh('UMLS', model)  # type: ignore[arg-type]
    mutation.refresh(graph(), model)
    assert not mutation.is_marginal(torch.zeros(4, 6), batch.known_index, batch.rel_type, batch.side)[2:].any()
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source: .*DeMixMutation'):
        mutation.update(batch, model)
