from __future__ import annotations

import copy
import inspect
import io
import itertools
import math
import warnings
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor

from pyg_emu.core.contract import ScoredBatch
from pyg_emu.core.errors import ArgumentError, CheckpointError, DivergenceError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import CrossEntropyLoss, EMULoss
from pyg_emu.models import ComplEx, DistMult, TransE
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.adversarial import KBGANSampler
from pyg_emu.negatives.adversarial.kbgan import policy_loss
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling import SharedNegativesSampler
from pyg_emu.ops import use_backend
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.trainer import Trainer
from tests.negatives.adversarial.toy import NUM_NODES, NUM_RELATIONS, make_batch, make_data

WIDTH = 4


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


def make_model(**arguments: Any) -> DistMult:
    torch.manual_seed(0)
    return DistMult(NUM_NODES, NUM_RELATIONS, WIDTH, **arguments)


def make_sampler(model: Any = None, **arguments: Any) -> KBGANSampler:
    sampler = KBGANSampler(**{'hidden_channels': WIDTH, **arguments})
    sampler.begin(make_model() if model is None else model)
    return sampler


def observed(sampler: KBGANSampler, batch: Batch, reward: Tensor, mask: Tensor | None = None) -> None:
    sampler.observe(batch, ScoredBatch(torch.zeros(len(reward)), reward, None, mask))


# Drawing #####################################################################


@pytest.mark.parametrize('corrupt', ['tail', 'head', 'both'])
@pytest.mark.parametrize('num_negatives', [1, 7])
def test_picks_come_from_the_candidates(num_negatives: int, corrupt: str) -> None:
    batch, sampler = make_batch(corrupt=corrupt), make_sampler(num_candidates=3)
    found = sampler.sample(batch, num_negatives)
    assert isinstance(found, Negatives) and found.vectors is None and found.mask is None
    assert found.index.shape == (10, num_negatives) and found.index.dtype == torch.int64
    drawn = sampler._drawn
    assert drawn is not None and drawn.candidates.shape == (10, 3)
    for row, picked in enumerate(found.index.tolist()):
        assert set(picked) <= set(drawn.candidates[row].tolist())


def test_probabilities_are_a_softmax_of_the_generators_scores() -> None:
    batch, sampler = make_batch(1), make_sampler(num_candidates=4)
    number = 40_000
    sampler.sample(batch, number)
    drawn, model = sampler._drawn, sampler.model
    assert drawn is not None and model is not None
    candidates = drawn.candidates[0]
    known, relation = batch.known_index[0], batch.rel_type[0]
    scores = [float((model.node_emb.weight[known] * model.rel_emb.weight[relation]
                     * model.node_emb.weight[candidate]).sum().detach()) for candidate in candidates]
    total = sum(math.exp(score) for score in scores)
    shares = (drawn.place[0].bincount(minlength=4) / number).tolist()
    assert max(scores) - min(scores) > 0.1
    assert shares == pytest.approx([math.exp(score) / total for score in scores], abs=0.012)


def test_known_facts_are_left_out() -> None:
    head, tail = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    data = KGData(torch.stack([head, tail]), head, 4, 1)
    batch = Batch(head, head, tail, 'tail', num_nodes=4, num_relations=1, source=data)
    sampler = make_sampler(DistMult(4, 1, WIDTH), filtered=True)
    found = sampler.sample(batch, 40, torch.Generator().manual_seed(0))
    assert set(found.index.flatten().tolist()) == {3} and found.mask is None
    every = KGData(torch.stack([head.new_zeros(4), torch.arange(4)]), head.new_zeros(4), 4, 1)
    full = Batch(head, head, tail, 'tail', num_nodes=4, num_relations=1, source=every)
    found = sampler.sample(full, 5, torch.Generator().manual_seed(0))
    assert found.mask is not None and found.mask.shape == (3, 5) and not bool(found.mask.any())
    assert sampler.num_exhausted == 3
    # Nothing is learned from negatives that do not count.
    before = [value.clone() for value in sampler.model.parameters()]  # type: ignore[union-attr]
    full.neg_index = found.index
    observed(sampler, full, torch.ones(3, 5), found.mask)
    assert all(value.equal(old) for value, old in zip(sampler.model.parameters(), before))  # type: ignore[union-attr]


def test_small_batches() -> None:
    sampler = make_sampler()
    for size in (1, 0):
        batch = make_batch().take(torch.arange(size))
        batch.neg_index = sampler.sample(batch, 5, torch.Generator()).index
        assert batch.neg_index.shape == (size, 5)
        observed(sampler, batch, torch.ones(size, 5))


def test_same_seed_same_draws() -> None:
    def draw(seed: int = 0, stream: int = 0) -> list[list[list[int]]]:
        sampler, generator = make_sampler(seed=seed), torch.Generator().manual_seed(stream)
        found = []
        for _ in range(3):
            batch = make_batch()
            batch.neg_index = sampler.sample(batch, 8, generator).index
            observed(sampler, batch, batch.neg_index.float())
            found.append(batch.neg_index.tolist())
        return found

    first = draw()
    assert first == draw() and first != draw(seed=1) and first != draw(stream=1) and first[0] != first[1]
    sampler = make_sampler()
    state = torch.get_rng_state()
    sampler.sample(make_batch(), 8, torch.Generator())
    assert torch.get_rng_state().equal(state), 'drew from the global random stream'


# Learning ####################################################################


def test_policy_gradient_is_that_of_the_expected_reward() -> None:
    # Over all ways to pick two of three candidates, the estimate is the gradient of the expected reward, whatever the
    # baseline is.
    reward = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    scores = torch.tensor([[0.3, -0.2, 1.1]], dtype=torch.double, requires_grad=True)
    chance = scores.detach().softmax(1)[0]
    estimate = torch.zeros(1, 3, dtype=torch.double)
    for places in itertools.product(range(3), repeat=2):
        picked = torch.tensor([places])
        loss = policy_loss(scores, picked, reward[picked], baseline=0.7)
        grad, = torch.autograd.grad(-loss, scores)
        estimate += chance[picked].prod() * grad
    mean = float((chance * reward).sum())
    expected = [float(p) * (float(r) - mean) for p, r in zip(chance, reward)]  # d/ds_k of sum_j p_j r_j
    assert estimate[0].tolist() == pytest.approx(expected)


def test_policy_loss_by_hand() -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])
    place, reward = torch.tensor([[2, 0], [1, 1]]), torch.tensor([[3.0, 1.0], [-1.0, 4.0]])
    mask = torch.tensor([[True, True], [False, True]])
    terms = []
    for row in range(2):
        total = sum(math.exp(score) for score in scores[row].tolist())
        for column in range(2):
            chance = math.exp(float(scores[row, place[row, column]])) / total
            terms.append(-(float(reward[row, column]) - 0.5) * math.log(chance))
    assert float(policy_loss(scores, place, reward, 0.5)) == pytest.approx(sum(terms) / 4)
    assert float(policy_loss(scores, place, reward, 0.5, mask)) == pytest.approx(sum(terms[:2] + terms[3:]) / 3)


def test_a_step_follows_the_policy_gradient() -> None:
    batch, sampler = make_batch(), make_sampler()
    batch.neg_index = sampler.sample(batch, 5).index
    player, drawn = sampler._player, sampler._drawn
    assert player is not None and drawn is not None
    player.optimizer = torch.optim.SGD(player.model.parameters(), lr=0.5)
    twin = copy.deepcopy(player.model)
    reward = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    observed(sampler, batch, reward)
    query = twin.query(batch.known_index, batch.rel_type, batch.side)
    policy_loss(twin.score(query, twin.candidates(drawn.candidates)), drawn.place, reward, reward.mean()).backward()
    for value, other in zip(player.model.parameters(), twin.parameters()):
        assert bool(other.grad.any())
        torch.testing.assert_close(value, other - 0.5 * other.grad)


def test_baseline_is_a_running_mean() -> None:
    sampler, batch = make_sampler(baseline_decay=0.75), make_batch()
    expected = None
    for reward in (2.0, 6.0, -1.0):
        batch.neg_index = sampler.sample(batch, 5).index
        observed(sampler, batch, torch.full((10, 5), reward))
        expected = reward if expected is None else 0.75 * expected + 0.25 * reward
        assert float(sampler.terms['baseline']) == pytest.approx(expected)
        assert float(sampler.terms['reward']) == pytest.approx(reward)
    # Of the largest possible entropy, that of equal scores.
    assert sampler.model is not None
    with torch.no_grad():
        sampler.model.node_emb.weight.zero_()
    batch.neg_index = sampler.sample(batch, 5).index
    observed(sampler, batch, torch.ones(10, 5))
    assert float(sampler.terms['entropy']) == pytest.approx(1.0)


def test_learns_to_pick_what_brings_a_reward() -> None:
    sampler = make_sampler(generator=lambda *sizes: DistMult(*sizes, margin=0.0), num_candidates=6, lr=0.05)
    batch = make_batch(40)
    for step in range(60):
        batch.neg_index = sampler.sample(batch, 4).index
        good = batch.neg_index % 3 == 0
        if step == 0:
            before = float(good.float().mean())
        observed(sampler, batch, good.float())
    assert before < 0.5 and float(good.float().mean()) > 0.8
    assert 0.0 < float(sampler.terms['entropy']) < 0.9


def test_who_learns_from_what() -> None:
    model = make_model()
    sampler = make_sampler(model)
    batch = EMUNegatives(5, 0.0, sampler=sampler)(make_batch())
    before = [value.clone() for value in sampler.model.parameters()]  # type: ignore[union-attr]
    CrossEntropyLoss()(model, batch).backward()
    grads = [value.grad.clone() for value in model.parameters()]  # type: ignore[union-attr]
    assert batch.scored is not None and sampler.model is not None
    sampler.observe(batch, batch.scored)
    assert all(value.grad is not None and value.grad.equal(old) for value, old in zip(model.parameters(), grads))
    assert any(not value.equal(old) for value, old in zip(sampler.model.parameters(), before))
    assert all(value.grad is None for value in sampler.model.parameters())


@pytest.mark.parametrize('sparse', [False, True])
@pytest.mark.parametrize('generator', ['TransE', 'ComplEx', lambda *sizes: ComplEx(*sizes, sparse=False)])
def test_generators(generator: Any, sparse: bool) -> None:
    sampler = make_sampler(make_model(sparse=sparse), generator=generator)
    batch = make_batch()
    for _ in range(2):
        batch.neg_index = sampler.sample(batch, 5).index
        before = [value.clone() for value in sampler.model.parameters()]  # type: ignore[union-attr]
        observed(sampler, batch, batch.neg_index.float())
    assert sampler.model is not None and type(sampler.model).__name__ in (generator, 'ComplEx')
    assert sampler.model.sparse == (sparse and isinstance(generator, str))
    assert all(not value.equal(old) for value, old in zip(sampler.model.parameters(), before))


@pytest.mark.parametrize('sparse', [False, True])
def test_gradients_are_clipped(sparse: bool) -> None:
    def moved(max_grad_norm: float | None) -> float:
        sampler, batch = make_sampler(make_model(sparse=sparse), max_grad_norm=max_grad_norm), make_batch()
        batch.neg_index = sampler.sample(batch, 5, torch.Generator().manual_seed(0)).index
        player = sampler._player
        assert player is not None
        before = [value.detach().clone() for value in player.model.parameters()]
        player.optimizer = torch.optim.SGD(player.model.parameters(), lr=1.0)
        observed(sampler, batch, 100 * batch.neg_index.float())
        moves = [(value.detach() - old).flatten() for value, old in zip(player.model.parameters(), before)]
        return float(torch.cat(moves).norm())

    assert moved(0.25) == pytest.approx(0.25, rel=1e-3)
    assert moved(None) == pytest.approx(moved(1e6), rel=1e-3) and moved(None) > 1.0


def state_of(sampler: KBGANSampler) -> dict[str, Any]:
    state: dict[str, Any] = copy.deepcopy(sampler.state_dict()['generator'])
    moments = state['optimizer']['state'].items()
    return {**state['model'], 'baseline': state['baseline'],
            **{f'{number}.{name}': torch.as_tensor(value) for number, own in moments for name, value in own.items()}}


@pytest.mark.parametrize('sparse', [False, True])
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 1e300, None])
def test_nothing_is_learned_from_rewards_that_are_not_finite(bad: float | None, sparse: bool) -> None:
    sampler = make_sampler(make_model(sparse=sparse), lr=0.1, max_grad_norm=1.0)

    def learn(reward: Tensor, mask: Tensor | None = None) -> None:
        batch = make_batch()
        batch.neg_index = sampler.sample(batch, 5, torch.Generator().manual_seed(0)).index
        observed(sampler, batch, reward, mask)

    good = torch.arange(50.0, dtype=torch.double).view(10, 5)
    learn(good)
    for _ in range(2):
        before = state_of(sampler)
        if bad is None:
            learn(good, torch.zeros(10, 5, dtype=torch.bool))
        else:
            learn(torch.where(good == 7.0, bad, good))
            learn(torch.full((10, 5), 3e38))  # whose mean is not finite
        after = state_of(sampler)
        assert before.keys() == after.keys() and len(before) == 9
        for name, value in before.items():
            assert value.equal(after[name]), name
    learn(2.0 * good)
    after = state_of(sampler)
    assert all(bool(value.isfinite().all()) and not value.equal(after[name]) for name, value in before.items())


def test_rewards_that_do_not_count_may_be_anything() -> None:
    found = []
    for hidden in (math.nan, 0.0):
        sampler, batch = make_sampler(lr=0.1), make_batch()
        batch.neg_index = sampler.sample(batch, 5, torch.Generator().manual_seed(0)).index
        mask = torch.arange(50).view(10, 5) % 7 != 0
        observed(sampler, batch, torch.where(mask, batch.neg_index.float(), hidden), mask)
        found.append(state_of(sampler))
    assert all(bool(value.isfinite().all()) and value.equal(found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 1e30])
def test_a_generator_that_is_not_finite_picks_at_random(bad: float) -> None:
    batch, sampler = make_batch(1), make_sampler(num_candidates=4)
    sampler.sample(batch, 1)
    assert sampler.model is not None
    with torch.no_grad():
        sampler.model.node_emb.weight.fill_(bad)
        sampler.model.rel_emb.weight.fill_(1e30)
    batch.neg_index = sampler.sample(batch, 20_000, torch.Generator().manual_seed(0)).index
    drawn = sampler._drawn
    assert drawn is not None
    assert (drawn.place[0].bincount(minlength=4) / 20_000).tolist() == pytest.approx([0.25] * 4, abs=0.015)
    before = sampler.model.rel_emb.weight.clone()
    observed(sampler, batch, torch.randn(1, 20_000))
    assert sampler.model.rel_emb.weight.equal(before)


def test_the_trainer_tells_of_a_model_that_diverges(tmp_path: Path) -> None:
    trainer, sampler = make_trainer(tmp_path, 8)
    loss = trainer.criterion

    def diverging(model: DistMult, batch: Batch) -> Tensor:
        if batch.step == 3:
            with torch.no_grad():
                model.node_emb.weight.fill_(math.nan)
        return loss(model, batch)

    trainer.criterion = diverging
    trainer.checkpoint_every = trainer.evaluate_every = 8
    with pytest.raises(DivergenceError, match=r'step 4\b'):
        trainer.fit()
    # It went on to draw until the trainer read the loss.
    assert trainer.loader.step == 8 and sampler.model is not None
    assert all(bool(value.isfinite().all()) for value in sampler.model.parameters())


def test_reward_is_the_vanilla_score_if_there_is_one() -> None:
    model = make_model()
    for alpha, name in ((0.5, 'vanilla'), (0.0, 'mutated')):
        sampler = make_sampler(model)
        batch = EMUNegatives(5, 0.5, sampler=sampler)(make_batch())
        EMULoss(alpha=alpha)(model, batch)
        assert batch.scored is not None
        sampler.observe(batch, batch.scored)
        found = getattr(batch.scored, name)
        assert found is not None and float(sampler.terms['reward']) == pytest.approx(float(found.mean()), rel=1e-5)


def test_warns_once_where_nobody_rewards() -> None:
    sampler, batch = make_sampler(), make_batch()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(10):
            sampler.sample(batch, 3)
        learning = make_sampler()
        for _ in range(20):
            batch.neg_index = learning.sample(batch, 3).index
            observed(learning, batch, torch.ones(10, 3))
    with pytest.warns(UserWarning, match='10 batches .*observe') as found:
        for _ in range(20):
            sampler.sample(batch, 3)
    assert len(found) == 1


# State #######################################################################


def make_trainer(folder: Path, num_steps: int, seed: int = 0) -> tuple[Trainer, KBGANSampler]:
    model, sampler = make_model(margin=0.0), KBGANSampler(hidden_channels=WIDTH, seed=seed, filtered=True)
    loader = TripletLoader(make_data(), 8, shuffle=True, seed=1, transform=EMUNegatives(5, 0.3, sampler=sampler))
    trainer = Trainer(model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.3), num_steps=num_steps,
                      checkpoint_every=3, evaluate_every=5, run_dir=folder, progress=False)
    return trainer, sampler


def test_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, own = make_trainer(tmp_path / 'whole', 10)
    history = whole.fit().history
    make_trainer(tmp_path / 'cut', 6)[0].fit()
    resumed, other = make_trainer(tmp_path / 'cut', 10, seed=5)  # nothing may depend on how it began
    torch.manual_seed(99)
    resumed.fit(resume=True)
    assert own.model is not None and other.model is not None
    for left, right in zip([*whole.model.parameters(), *own.model.parameters()],
                           [*resumed.model.parameters(), *other.model.parameters()]):
        assert left.equal(right)
    assert float(own.terms['baseline']) == float(other.terms['baseline'])
    assert {f'transform.sampler.{name}' for name in ('reward', 'baseline', 'entropy')} <= set(history.columns)


def test_one_process(tmp_path: Path) -> None:
    trainer, _ = make_trainer(tmp_path, 1)
    with pytest.raises(ArgumentError, match='KBGANSampler'):
        LearningParts(trainer.loader, trainer.model, trainer.criterion).check_processes()


def test_state_travels_without_code() -> None:
    sampler, batch = make_sampler(), make_batch()
    batch.neg_index = sampler.sample(batch, 5).index
    observed(sampler, batch, batch.neg_index.float())
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    other = make_sampler(seed=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.save(other.state_dict(), io.BytesIO())  # before there is a batch
    for one in (sampler, other):
        batch = make_batch()
        batch.neg_index = one.sample(batch, 5, torch.Generator().manual_seed(4)).index
        observed(one, batch, batch.neg_index.float() - 3)
    assert all(left.equal(right) for left, right in zip(sampler.model.parameters(),  # type: ignore[union-attr]
                                                        other.model.parameters()))  # type: ignore[union-attr]


def test_states_of_something_else() -> None:
    sampler = make_sampler(hidden_channels=3)
    sampler.sample(make_batch(), 5)
    other = make_sampler()
    other.load_state_dict(sampler.state_dict())
    with pytest.raises(CheckpointError, match=r'\(12, 3\).*\(12, 4\)'):
        other.sample(make_batch(), 5)
    with pytest.raises(CheckpointError, match='generator'):
        other.load_state_dict({})
    with pytest.raises(CheckpointError, match='optimizer, baseline'):
        other.load_state_dict({'generator': {'model': {}}})


# Errors ######################################################################


@pytest.mark.parametrize('arguments, facts', [
    ({'generator': 'NBFNet'}, ['generator', 'DistMult', 'TransE', 'NBFNet']),
    ({'generator': 'distmlut'}, ['generator', 'distmlut']),
    ({'generator': DistMult(2, 2, 2)}, ['generator', 'DistMult']),
    ({'generator': 3}, ['generator', '3']),
    ({'hidden_channels': 0}, ['hidden_channels', '0']),
    ({'num_candidates': True}, ['num_candidates', 'True']),
    ({'lr': 'big'}, ['lr', 'big']),
    ({'lr': -1.0}, ['lr', '-1']),
    ({'baseline_decay': 1.5}, ['baseline_decay', '1.5']),
    ({'max_grad_norm': 0}, ['max_grad_norm', '0']),
    ({'max_grad_norm': float('inf')}, ['max_grad_norm', 'inf']),
    ({'max_grad_norm': 'x'}, ['max_grad_norm', "'x'"]),
    ({'filtered': 'no'}, ['filtered', 'no']),
    ({'seed': 0.5}, ['seed', '0.5']),
])
def test_bad_arguments(arguments: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        KBGANSampler(**arguments)
    assert all(fact in str(error.value) for fact in facts)


def test_repr_names_all_settings() -> None:
    given = {'hidden_channels': 7, 'num_candidates': 9, 'lr': 0.5, 'baseline_decay': 0.25, 'max_grad_norm': 2.5,
             'filtered': True, 'split': 'all', 'seed': 3}
    assert {*given, 'generator'} == {*inspect.signature(KBGANSampler).parameters}
    text = repr(KBGANSampler('TransE', **given))  # type: ignore[arg-type]
    assert all(f'{name}={value!r}' in text for name, value in given.items()) and 'generator=TransE' in text


def test_without_a_model() -> None:
    with pytest.raises(ArgumentError, match=r'sampler\.begin\(as_scorer\(model\)\)'):
        KBGANSampler().sample(make_batch(), 8)
    for wrong in (None, DistMult, torch.nn.Linear(2, 2)):
        with pytest.raises(ArgumentError, match='scorer: '):
            KBGANSampler().begin(wrong)  # type: ignore[arg-type]


def test_models_of_other_sizes() -> None:
    sampler = make_sampler()
    sampler.sample(make_batch(), 5)
    sampler.begin(TransE(NUM_NODES + 1, NUM_RELATIONS, WIDTH))
    with pytest.raises(ArgumentError, match='12 entities.*13'):
        sampler.sample(make_batch(), 5)
    with pytest.raises(ArgumentError, match='12 entities and 2 relations.*5 and 2'):
        make_sampler(generator=lambda *sizes: DistMult(5, 2, 4)).sample(make_batch(), 5)


def test_scores_of_other_negatives() -> None:
    model = make_model()
    sampler = make_sampler(model)
    batch = make_batch()
    with pytest.raises(ArgumentError, match='observe'):
        observed(sampler, batch, torch.ones(10, 5))
    batch.neg_index = sampler.sample(batch, 5).index
    with pytest.raises(ArgumentError, match='scored'):
        sampler.observe(batch, None)  # type: ignore[arg-type]
    copied = copy.copy(batch)
    copied.neg_index = batch.neg_index.clone()
    observed(sampler, copied, torch.ones(10, 5))
    with pytest.raises(ArgumentError, match='observe'):  # the same negatives twice
        observed(sampler, batch, torch.ones(10, 5))
    shared = EMUNegatives(5, 0.0, sampler=SharedNegativesSampler(4, sampler))(make_batch())
    CrossEntropyLoss()(model, shared)
    with pytest.raises(ArgumentError, match='shares negatives'):
        sampler.observe(shared, shared.scored)


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    sampler = make_sampler(make_model().cuda())
    batch = make_batch().to('cuda')
    batch.neg_index = sampler.sample(batch, 8, torch.Generator('cuda').manual_seed(0)).index
    observed(sampler, batch, batch.neg_index.float())
    assert sampler.model is not None and next(sampler.model.parameters()).is_cuda
