from __future__ import annotations

import inspect
import io
import warnings
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import kge

from pyg_emu.core.contract import Scorer, ScorerMixin
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.interaction import Dot
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import CrossEntropyLoss, DeMixLoss, EMULoss, SelfAdversarialLoss
from pyg_emu.models import HAKE, RGCN, ComplEx, DistMult, RotatE, TransE
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.adversarial import DANSSampler
from pyg_emu.negatives.adversarial.game import Game
from pyg_emu.negatives.adversarial.networks import discriminator_loss, generator_loss
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.mutation.demix import DeMixMutation
from pyg_emu.negatives.sampling import NSCachingSampler, SharedNegativesSampler, UniformSampler
from pyg_emu.ops import use_backend
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.trainer import Trainer
from tests.negatives.adversarial.toy import NUM_NODES, NUM_RELATIONS, make_batch, make_data

WIDTH = 8


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


def make_model(cls: Any = DistMult, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return cls(NUM_NODES, NUM_RELATIONS, WIDTH, **arguments)


def make_sampler(model: Any = None, **arguments: Any) -> DANSSampler:
    sampler = DANSSampler(**arguments)
    sampler.begin(as_scorer(make_model() if model is None else model))
    return sampler


def weights(sampler: DANSSampler, name: str = 'generator') -> list[Tensor]:
    assert sampler._game is not None
    return [value.detach().clone() for value in getattr(sampler._game, name).parameters()]


def changed(before: list[Tensor], after: list[Tensor]) -> bool:
    return any(not left.equal(right) for left, right in zip(before, after))


# What is returned ############################################################


@pytest.mark.parametrize('arguments, num_negatives, ids, vectors', [
    ({}, 20, 10, 10), ({}, 4, 2, 2), ({}, 7, 5, 2), ({'pathways': 'entity'}, 20, 10, 10),
    ({'pathways': 'relation'}, 2, 1, 1), ({'from_entity': 3}, 8, 3, 5),
    ({'from_entity': 3, 'from_relation': 1}, 4, 0, 4),
])
@pytest.mark.parametrize('film', [True, False])
def test_numbers(arguments: dict[str, Any], num_negatives: int, ids: int, vectors: int, film: bool) -> None:
    batch = make_batch()
    found = make_sampler(film=film, **arguments).sample(batch, num_negatives)
    assert isinstance(found, Negatives) and found.vectors is not None
    assert found.index.shape == (10, ids) and found.vectors.shape == (10, vectors, WIDTH)
    assert found.mask is None and not found.vectors.requires_grad and bool(found.vectors.isfinite().all())
    assert float(found.vectors.abs().max()) <= 1.0


def test_pathways_come_in_order_and_are_those_of_the_generator() -> None:
    batch = make_batch()
    sampler = make_sampler(generator_steps=0, discriminator_steps=0, from_entity=2, from_relation=3, noise=0.0)
    vectors = sampler.sample(batch, 9).vectors
    game, model = sampler._game, sampler._scorer
    assert game is not None and model is not None and vectors is not None
    known = model.candidates(batch.known_index).detach()
    relation = model.relation_rows(batch.rel_type, 'tail').detach()  # type: ignore[attr-defined]
    product = torch.where(batch.corrupts_tail.unsqueeze(1), known * relation, known / relation)
    with torch.no_grad():
        # Without noise, all vectors of a pathway are the same for a triple.
        first = game.generator['entity'](known.unsqueeze(1).expand(-1, 2, -1), known)[0]
        second = game.generator['relation'](product.unsqueeze(1).expand(-1, 3, -1), product)[0]
    torch.testing.assert_close(vectors, torch.cat([first, second], dim=1), rtol=1e-4, atol=1e-4)


def test_noise_has_the_stated_deviation() -> None:
    game = Game(DANSSampler(pathways='entity', noise=0.3).settings, 50, torch.float32, torch.device('cpu'))
    seen: list[Tensor] = []
    game.generator['entity'].forward = (  # type: ignore[method-assign]
        lambda noise, condition: (seen.append(noise - condition.unsqueeze(1)) or noise, []))
    game.generate({'entity': torch.full((100, 50), 5.0)}, {'entity': 4}, torch.Generator().manual_seed(0))
    assert float(seen[0].std()) == pytest.approx(0.3, rel=0.02) and abs(float(seen[0].mean())) < 0.01


@pytest.mark.parametrize('cls', [DistMult, ComplEx, RotatE, TransE, HAKE, kge.DistMult, kge.TransE, kge.ComplEx,
                                 kge.RotatE])
def test_goes_with_every_model(cls: Any) -> None:
    model = make_model(cls)
    sampler = make_sampler(model)
    transform = EMUNegatives(8, 0.5, sampler=sampler)
    for corrupt in ('tail', 'head', 'both'):
        batch = transform(make_batch(corrupt=corrupt))
        assert batch.neg_vectors.shape == (10, 4, as_scorer(model).entity_table().size(1))
        loss = EMULoss()(model, batch)
        assert bool(loss.isfinite())
        loss.backward()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_types(dtype: torch.dtype) -> None:
    sampler = make_sampler(make_model().to(dtype))
    vectors = sampler.sample(make_batch(), 8).vectors
    assert vectors is not None and vectors.dtype == dtype
    assert weights(sampler)[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize('size', [1, 0])
def test_small_batches(size: int) -> None:
    sampler = make_sampler()
    batch = make_batch(10).take(torch.arange(size))
    for _ in range(3):
        found = sampler.sample(batch, 8, torch.Generator())
        assert found.index.shape == (size, 4) and found.vectors is not None and found.vectors.shape == (size, 4, WIDTH)
        assert bool(found.vectors.isfinite().all())


def test_batch_is_left_alone() -> None:
    batch = make_batch()
    before = {key: value.clone() for key, value in batch if isinstance(value, Tensor)}
    make_sampler().sample(batch, 8)
    assert set(before) == {key for key, value in batch if isinstance(value, Tensor)}
    assert all(batch[key].equal(value) for key, value in before.items())


# Who learns from what ########################################################


def test_the_model_gets_nothing_from_the_game_and_the_game_nothing_from_the_loss() -> None:
    model = make_model()
    sampler, before = make_sampler(model), [value.clone() for value in model.parameters()]
    batch = EMUNegatives(8, 0.0, sampler=sampler)(make_batch())
    assert all(value.grad is None and value.equal(old) for value, old in zip(model.parameters(), before))
    networks = weights(sampler), weights(sampler, 'discriminator')
    CrossEntropyLoss()(model, batch).backward()
    assert all(bool(value.grad.any()) for value in model.parameters())
    game = sampler._game
    assert game is not None
    for network, old in zip((game.generator, game.discriminator), networks):
        assert all(value.grad is None and value.equal(other) for value, other in zip(network.parameters(), old))


def test_generated_vectors_count_in_the_loss() -> None:
    model = make_model()
    batch = EMUNegatives(8, 0.0, sampler=make_sampler(model))(make_batch())
    scored = CrossEntropyLoss().score(model, batch)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    torch.testing.assert_close(scored.vanilla[:, 4:], torch.einsum('bd,bmd->bm', query, batch.neg_vectors))


def test_steps() -> None:
    sampler = make_sampler()
    for times in (1, 2):
        sampler.sample(make_batch(), 8)
        game = sampler._game
        assert game is not None
        counts = [{int(state['step']) for state in one.state.values()}
                  for one in (game.generator_optimizer, game.discriminator_optimizer)]
        assert counts == [{5 * times}, {times}]
    rates = [one.param_groups[0]['lr'] for one in (game.generator_optimizer, game.discriminator_optimizer)]
    assert rates == [1e-3, 1e-4]


@pytest.mark.parametrize('frozen', ['generator', 'discriminator'])
def test_steps_of_zero_freeze(frozen: str) -> None:
    sampler = make_sampler(**{f'{frozen}_steps': 0})
    sampler.sample(make_batch(), 8)
    before = {name: weights(sampler, name) for name in ('generator', 'discriminator')}
    sampler.sample(make_batch(), 8)
    assert {name: changed(value, weights(sampler, name)) for name, value in before.items()} == {
        name: name != frozen for name in before}


def test_a_step_follows_the_gradient_of_its_own_loss() -> None:
    # Against plain gradient descent on the stated losses, with copies of the networks.
    model = make_model().double()
    sampler = make_sampler(model, generator_steps=1, max_grad_norm=None, film_weight=0.1, generator_lr=0.5,
                           discriminator_lr=0.25)
    batch = make_batch()
    sampler.sample(batch, 8)
    game = sampler._game
    assert game is not None
    game.generator_optimizer = torch.optim.SGD(game.generator.parameters(), lr=0.5)
    game.discriminator_optimizer = torch.optim.SGD(game.discriminator.parameters(), lr=0.25)
    twin = Game(sampler.settings, WIDTH, torch.float64, torch.device('cpu'))
    twin.generator.load_state_dict(game.generator.state_dict())
    twin.discriminator.load_state_dict(game.discriminator.state_dict())
    condition = {name: torch.randn(6, WIDTH, dtype=torch.double) for name in ('entity', 'relation')}
    real, one = torch.randn(6, WIDTH, dtype=torch.double), {'entity': 1, 'relation': 1}
    game.play(condition, real, torch.Generator().manual_seed(3))

    stream = torch.Generator().manual_seed(3)
    vectors, modulation = twin.generate(condition, one, stream)
    loss = generator_loss([twin.discriminator(value.squeeze(1)).real for value in vectors.values()], modulation, 0.1)
    loss.backward()
    with torch.no_grad():
        for value in twin.generator.parameters():
            value -= 0.5 * value.grad  # type: ignore[operator]
    twin.discriminator.zero_grad()
    vectors, _ = twin.generate(condition, one, stream)
    judged = [twin.discriminator(value.detach().squeeze(1)) for value in vectors.values()]
    discriminator_loss(twin.discriminator(real).real, *judged).backward()
    with torch.no_grad():
        for value in twin.discriminator.parameters():
            value -= 0.25 * value.grad  # type: ignore[operator]
    for own, other in ((game.generator, twin.generator), (game.discriminator, twin.discriminator)):
        for value, expected in zip(own.parameters(), other.parameters()):
            torch.testing.assert_close(value, expected)
    assert float(game.terms['generator_loss']) == pytest.approx(float(loss.detach()))


def test_gradients_are_clipped() -> None:
    game = Game(DANSSampler(max_grad_norm=0.01).settings, WIDTH, torch.float32, torch.device('cpu'))
    norms: list[float] = []
    for optimizer in (game.generator_optimizer, game.discriminator_optimizer):
        values = optimizer.param_groups[0]['params']
        optimizer.step = lambda values=values: norms.append(float(torch.linalg.vector_norm(torch.stack(  # type: ignore
            [torch.linalg.vector_norm(value.grad) for value in values]))))
    game.play({name: torch.randn(6, WIDTH) for name in ('entity', 'relation')}, 5 + torch.randn(6, WIDTH), None)
    assert norms == pytest.approx([0.01] * 6, rel=1e-3)


# Learning ####################################################################


def make_game(**arguments: Any) -> tuple[Game, dict[str, Tensor], Tensor]:
    r"""A game in which real vectors lie around a point far from where the generator begins."""
    generator = torch.Generator().manual_seed(0)
    condition = {name: torch.randn(32, WIDTH, generator=generator) for name in ('entity', 'relation')}
    real = 0.6 + 0.2 * torch.randn(32, WIDTH, generator=generator)
    settings = DANSSampler(discriminator_lr=1e-2, **arguments).settings
    return Game(settings, WIDTH, torch.float32, torch.device('cpu')), condition, real


def test_discriminator_learns_to_tell_all_kinds_apart() -> None:
    game, condition, real = make_game(generator_steps=0)
    stream = torch.Generator().manual_seed(1)
    first = None
    for _ in range(60):
        game.play(condition, real, stream)
        first = first or {name: float(value) for name, value in game.terms.items()}
    assert first is not None and first['pathway_accuracy'] < 0.8
    assert float(game.terms['discriminator_accuracy']) > 0.97 and float(game.terms['pathway_accuracy']) > 0.97
    assert float(game.terms['discriminator_loss']) < 0.6 * first['discriminator_loss']


def test_generator_moves_towards_real_vectors() -> None:
    game, condition, real = make_game(generator_steps=1, discriminator_steps=2)
    stream = torch.Generator().manual_seed(1)

    def distance() -> float:
        with torch.no_grad():
            vectors, _ = game.generate(condition, {'entity': 1, 'relation': 1}, stream)
        return max(float((value.mean(dim=(0, 1)) - real.mean(0)).norm()) for value in vectors.values())

    before = distance()
    for _ in range(80):
        game.play(condition, real, stream)
    assert before > 1.0 and distance() < 0.5 * before


def test_monitors() -> None:
    sampler = make_sampler()
    assert sampler.terms == {}
    sampler.sample(make_batch(), 8)
    assert set(sampler.terms) == {'generator_loss', 'discriminator_loss', 'discriminator_accuracy', 'pathway_accuracy',
                                  'entity_spread', 'relation_spread', 'entity_diversity', 'relation_diversity'}
    assert all(value.dim() == 0 and not value.requires_grad for value in sampler.terms.values())
    alone = make_sampler(pathways='entity')
    alone.sample(make_batch(), 8)
    assert set(sampler.terms) - set(alone.terms) == {'pathway_accuracy', 'relation_spread', 'relation_diversity'}
    single = make_sampler(from_entity=1, from_relation=2, discriminator_steps=0)
    single.sample(make_batch(), 8)
    assert set(single.terms) == {'generator_loss', 'entity_spread', 'relation_spread', 'relation_diversity'}


def test_monitors_are_those_of_the_vectors_of_the_batch() -> None:
    model, batch = make_model(), make_batch()
    sampler = make_sampler(model, from_entity=2, from_relation=3, noise=0.5)
    vectors, real = sampler.sample(batch, 8).vectors, model.candidates(batch.target_index).detach()
    assert vectors is not None
    scale = float(real.std(0, correction=0).mean())
    for name, own in (('entity', vectors[:, :2]), ('relation', vectors[:, 2:])):
        spread, diversity = own.flatten(0, 1).std(0, correction=0).mean(), own.std(1, correction=0).mean()
        assert float(sampler.terms[f'{name}_spread']) == pytest.approx(float(spread) / scale, rel=1e-4)
        assert float(sampler.terms[f'{name}_diversity']) == pytest.approx(float(diversity) / scale, rel=1e-4)
    # Without noise, further vectors of a triple add nothing.
    same = make_sampler(model, noise=0.0)
    same.sample(batch, 8)
    assert float(same.terms['entity_diversity']) < 1e-5 < 0.1 < float(same.terms['entity_spread'])


def test_warns_once_of_a_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pyg_emu.negatives.adversarial.game.COLLAPSED_BATCHES', 7)
    sampler, healthy, batch = make_sampler(bound=1e-3), make_sampler(), make_batch()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(6):
            sampler.sample(batch, 4)
            healthy.sample(batch, 4)
            healthy.sample(batch, 4)
    with pytest.warns(UserWarning, match=r'7 batches.*0\.05.*generator_lr.*bound') as found:
        for _ in range(16):
            sampler.sample(batch, 4)
    assert len(found) == 1 and found[0].filename == __file__


@pytest.mark.parametrize('steps', [0, 3])
def test_collapses_are_counted_by_batch(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr('pyg_emu.negatives.adversarial.game.COLLAPSED_BATCHES', 7)
    sampler, batch = make_sampler(bound=1e-3, discriminator_steps=steps), make_batch()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(6):
            sampler.sample(batch, 4)
    with pytest.warns(UserWarning, match='7 batches'):
        sampler.sample(batch, 4)


def test_a_resumed_run_does_not_warn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pyg_emu.negatives.adversarial.game.COLLAPSED_BATCHES', 3)
    sampler, other, batch = make_sampler(bound=1e-3), make_sampler(bound=1e-3), make_batch()
    with pytest.warns(UserWarning, match='3 batches'):
        for _ in range(3):
            sampler.sample(batch, 4)
    other.load_state_dict(sampler.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(6):
            other.sample(batch, 4)


# Random numbers and state ####################################################


def test_same_seed_same_draws() -> None:
    def draw(seed: int = 0, stream: int = 0) -> list[Tensor]:
        sampler, generator = make_sampler(seed=seed), torch.Generator().manual_seed(stream)
        found = [sampler.sample(make_batch(), 8, generator) for _ in range(3)]
        return [value for one in found for value in (one.index, one.vectors)]

    first = draw()
    assert all(left.equal(right) for left, right in zip(first, draw()))
    assert not first[1].equal(draw(seed=1)[1]) and not first[1].equal(draw(stream=1)[1])
    assert not first[1].equal(first[3])
    drawn = make_sampler(make_model())
    state = torch.get_rng_state()
    drawn.sample(make_batch(), 8, torch.Generator())
    assert torch.get_rng_state().equal(state), 'drew from the global random stream'


def make_trainer(folder: Path, num_steps: int, seed: int = 0) -> tuple[Trainer, DANSSampler]:
    model = make_model(margin=0.0)
    sampler = DANSSampler(seed=seed, sampler=NSCachingSampler(4, 3))
    loader = TripletLoader(make_data(), 8, shuffle=True, seed=1, transform=EMUNegatives(8, 0.3, sampler=sampler))
    trainer = Trainer(model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.3), num_steps=num_steps,
                      checkpoint_every=2, evaluate_every=5, run_dir=folder, progress=False)
    return trainer, sampler


def test_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, own = make_trainer(tmp_path / 'whole', 10)
    result = whole.fit()
    make_trainer(tmp_path / 'cut', 4)[0].fit()
    resumed, other = make_trainer(tmp_path / 'cut', 10, seed=5)  # nothing may depend on how it began
    torch.manual_seed(99)
    again = resumed.fit(resume=True)
    for left, right in zip(whole.model.parameters(), resumed.model.parameters()):
        assert left.equal(right)
    for name in ('generator', 'discriminator'):
        assert not changed(weights(own, name), weights(other, name))
    column = 'transform.sampler.discriminator_accuracy'
    assert result.history[column].tolist()[-1] == again.history[column].tolist()[-1]


def test_history_holds_the_monitors(tmp_path: Path) -> None:
    trainer, sampler = make_trainer(tmp_path, 3)
    seen: list[float] = []
    sample = sampler._sample
    sampler._sample = lambda *args: (  # type: ignore[method-assign]
        sample(*args), seen.append(float(sampler.terms['generator_loss'])))[0]
    history = trainer.fit().history
    assert history['transform.sampler.generator_loss'].tolist() == pytest.approx([sum(seen) / 3])
    names = {f'transform.sampler.{name}' for name in sampler.terms}
    assert names <= set(history.columns) and len(names) == 8
    assert not {name for name in history.columns if name.startswith('criterion.')}


def test_trainer_gives_the_model_before_the_first_batch(tmp_path: Path) -> None:
    trainer, sampler = make_trainer(tmp_path, 1)
    trainer.fit()
    assert sampler._scorer is trainer.model
    parts = LearningParts(trainer.loader, trainer.model, trainer.criterion)
    assert parts.named['transform.sampler.sampler'] is sampler.sampler and not [*parts.parameters()]
    parts.check_processes()  # nothing depends on the rows of a process


def test_state_travels_without_code() -> None:
    sampler = make_sampler()
    empty: dict[str, Any] = sampler.state_dict()
    sampler.sample(make_batch(), 8)
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    other = make_sampler(seed=7, generator_lr=0.1)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict()['game']['generator'].keys() == sampler.state_dict()['game']['generator'].keys()
    torch.save(other.state_dict(), io.BytesIO())  # before there is a batch
    drawn = [one.sample(make_batch(), 8, torch.Generator().manual_seed(3)).vectors for one in (sampler, other)]
    assert not drawn[0].equal(drawn[1])  # with another learning rate
    assert other._game is not None and other._game.generator_optimizer.param_groups[0]['lr'] == 0.1
    other.load_state_dict(empty)
    first = other.sample(make_batch(), 8, torch.Generator().manual_seed(3)).vectors
    fresh = make_sampler(seed=7, generator_lr=0.1).sample(make_batch(), 8, torch.Generator().manual_seed(3)).vectors
    assert first is not None and fresh is not None and first.equal(fresh)


def test_a_state_is_not_shared() -> None:
    sampler, other = make_sampler(), make_sampler()
    sampler.sample(make_batch(), 8)
    other.load_state_dict(sampler.state_dict())
    other.sample(make_batch(), 8, torch.Generator().manual_seed(1))
    expected = weights(other)
    third = make_sampler()
    third.load_state_dict(sampler.state_dict())
    sampler.sample(make_batch(), 8)  # goes on
    third.sample(make_batch(), 8, torch.Generator().manual_seed(1))
    assert not changed(expected, weights(third))


@pytest.mark.parametrize('arguments, width, facts', [
    ({}, 4, ['width 4', 'width 8']), ({'film': False}, 8, ['film']), ({'pathways': 'entity'}, 8, ['entity']),
])
def test_state_of_something_else(arguments: dict[str, Any], width: int, facts: list[str]) -> None:
    sampler = make_sampler(DistMult(NUM_NODES, NUM_RELATIONS, width), **arguments)
    sampler.sample(make_batch(), 8)
    other = make_sampler()
    other.load_state_dict(sampler.state_dict())
    with pytest.raises(CheckpointError) as error:
        other.sample(make_batch(), 8)
    assert all(fact in str(error.value) for fact in facts)


def test_incomplete_states() -> None:
    with pytest.raises(CheckpointError, match='game'):
        DANSSampler().load_state_dict({})
    with pytest.raises(CheckpointError, match='discriminator, .*batches'):
        DANSSampler().load_state_dict({'game': {'generator': {}, 'generator_optimizer': {}}})


# Beside other parts ##########################################################


def test_ids_come_from_any_sampler() -> None:
    model, batch = make_model(), make_batch()
    for inner in (UniformSampler(filtered=True), NSCachingSampler(4, 3), SharedNegativesSampler(3, filtered=True)):
        sampler = make_sampler(model, sampler=inner)
        found = EMUNegatives(8, 0.3, sampler=sampler)(make_batch())
        alone = inner.sample(batch, 4, torch.Generator().manual_seed(0))
        assert found.neg_index.shape == (10, 4) and found.neg_vectors.shape == (10, 4, WIDTH)
        assert (found.neg_mask is None) == (alone.mask is None)
        if found.neg_mask is not None:
            assert found.neg_mask.shape == (10, 8) and bool(found.neg_mask[:, 4:].all())
        assert (found.shared_index is None) == (not isinstance(inner, SharedNegativesSampler))
        assert bool(EMULoss()(model, found).isfinite())


def test_known_facts_are_left_out_of_ids() -> None:
    head, tail = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    data = KGData(torch.stack([head, tail]), head, 4, 1)
    batch = Batch(head, head, tail, 'tail', num_nodes=4, num_relations=1, source=data)
    sampler = make_sampler(DistMult(4, 1, WIDTH), sampler=UniformSampler(filtered=True))
    assert set(sampler.sample(batch, 40, torch.Generator().manual_seed(0)).index.flatten().tolist()) == {3}


def test_emu_on_top_of_generated_vectors() -> None:
    model, criterion = make_model(), EMULoss(mutate_vectors=True)
    batch = EMUNegatives(8, 1.0, sampler=make_sampler(model))(make_batch())
    scored = criterion.score(model, batch)
    # A rate of one leaves nothing of any negative.
    torch.testing.assert_close(scored.mutated, scored.positive.unsqueeze(1).expand(-1, 8))
    assert not torch.allclose(scored.vanilla, scored.mutated)  # type: ignore[arg-type]


@pytest.mark.parametrize('make', [EMULoss, lambda: SelfAdversarialLoss(mutate=True), CrossEntropyLoss])
def test_emu_mutates_ids_and_leaves_vectors(make: Any) -> None:
    model, criterion = make_model(), make()
    batch = EMUNegatives(8, 0.5, sampler=make_sampler(model))(make_batch())
    scored = criterion.score(model, batch)
    if scored.mutated is not None and scored.vanilla is not None:
        assert scored.mutated[:, 4:].equal(scored.vanilla[:, 4:])
        assert not scored.mutated[:, :4].equal(scored.vanilla[:, :4])
    criterion(model, batch).backward()


def test_demix_refines_ids_beside_vectors() -> None:
    model, mutation = make_model(), DeMixMutation(warmup=0, mu=1)
    batch = EMUNegatives(8, sampler=make_sampler(model), mutation=mutation)(make_batch())
    mutation.update(batch, model)
    DeMixLoss()(model, batch).backward()


class Encoder(torch.nn.Module):
    r"""A model whose vectors are computed for each batch."""
    interaction, num_nodes, num_relations, offset, sparse = Dot(), NUM_NODES, NUM_RELATIONS, 0.0, False

    def __init__(self) -> None:
        super().__init__()
        self.inner = DistMult(NUM_NODES, NUM_RELATIONS, WIDTH)
        self.encoded: list[Any] = []

    def for_batch(self, batch: Batch) -> Scorer:
        self.encoded.append(torch.is_grad_enabled())
        return _Encoded(self.inner)

    def _needs_a_graph(self, *arguments: Any) -> Any:
        raise AssertionError('read vectors without for_batch')

    query = entity_table = candidates = score = score_all = embedding_weights = _needs_a_graph


class _Encoded(ScorerMixin):
    interaction, num_nodes, num_relations = Dot(), NUM_NODES, NUM_RELATIONS

    def __init__(self, inner: DistMult) -> None:
        self.inner = inner
        self.table = inner.node_emb.weight * 2

    def entity_table(self) -> Tensor:
        return self.table

    def _query(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return self.table[known] * self.inner.rel_emb(rel_type)

    def relation_rows(self, rel_type: Tensor, side: Any) -> Tensor:
        return self.inner.rel_emb(rel_type)


def test_reads_encoded_entities() -> None:
    model = Encoder()
    sampler = DANSSampler()
    sampler.begin(model)  # type: ignore[arg-type]
    vectors = sampler.sample(make_batch(), 8).vectors
    # With gradients: the loss may use the same entities later in the step.
    assert vectors is not None and vectors.shape == (10, 4, WIDTH) and model.encoded == [True]
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize('decoder', ['DistMult', 'ComplEx', 'RotatE'])
def test_goes_with_an_encoder(decoder: str, tmp_path: Path) -> None:
    def train(folder: str, num_steps: int) -> tuple[RGCN, list[Tensor]]:
        torch.manual_seed(0)
        model, sampler = RGCN(NUM_NODES, NUM_RELATIONS, 4, decoder=decoder), DANSSampler(generator_steps=1)
        encoded: list[Any] = []
        encode = model.encode
        model.encode = (  # type: ignore[method-assign]
            lambda *args: encoded.append(0) or encode(*args))  # type: ignore[func-returns-value]
        loader = TripletLoader(make_data(), 8, shuffle=True, transform=EMUNegatives(8, 0.3, sampler=sampler))
        Trainer(model, EMULoss(mutate_vectors=True), loader, torch.optim.Adam(model.parameters(), lr=0.1),
                num_steps=num_steps, run_dir=tmp_path / folder, progress=False).fit()
        assert 0 < len(encoded) <= num_steps  # the game and the loss read the same vectors
        return model, weights(sampler)

    model, networks = train('whole', 4)
    train('cut', 2)
    again, others = train('cut', 4)
    assert not changed(networks, others)
    assert all(value.equal(other) for value, other in zip(model.parameters(), again.parameters()))


# What a record of a run says #################################################


def test_repr_names_all_settings() -> None:
    given = {'pathways': 'entity', 'film': False, 'from_entity': 3, 'sampler': NSCachingSampler(7, 3),
             'film_weight': 0.125, 'noise': 0.25, 'generator_steps': 4, 'discriminator_steps': 6, 'generator_lr': 0.5,
             'discriminator_lr': 0.75, 'max_grad_norm': None, 'bound': 2.5, 'inverse_floor': 0.0625, 'seed': 9}
    assert {*given, 'from_relation'} == {*inspect.signature(DANSSampler).parameters}
    text = repr(DANSSampler(**given))  # type: ignore[arg-type]
    assert all(f'{name}={value!r}' in text for name, value in given.items()) and 'from_relation=None' in text


# Errors ######################################################################


@pytest.mark.parametrize('arguments, facts', [
    ({'pathways': 'none'}, ['pathways', "'both'", "'none'"]),
    ({'film': 1}, ['film', '1']),
    ({'from_entity': 0}, ['from_entity', '0']),
    ({'from_relation': 2, 'pathways': 'entity'}, ['from_relation', "'entity'"]),
    ({'sampler': UniformSampler}, ['sampler', 'UniformSampler']),
    ({'film_weight': -1.0}, ['film_weight', '-1']),
    ({'noise': float('nan')}, ['noise', 'nan']),
    ({'bound': 0}, ['bound', '0']),
    ({'inverse_floor': 0.0}, ['inverse_floor', '0.0']),
    ({'inverse_floor': None}, ['inverse_floor', 'None']),
    ({'generator_steps': -1}, ['generator_steps', '-1']),
    ({'discriminator_steps': 1.5}, ['discriminator_steps', '1.5']),
    ({'generator_lr': '1'}, ['generator_lr', '1']),
    ({'max_grad_norm': 0.0}, ['max_grad_norm', '0.0']),
    ({'seed': -1}, ['seed', '-1']),
])
def test_bad_arguments(arguments: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        DANSSampler(**arguments)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize('arguments, num_negatives, least', [
    ({}, 3, 'at least 4'), ({'pathways': 'relation'}, 1, 'at least 2'), ({'from_entity': 5, 'from_relation': 5}, 9,
                                                                         'at least 10')])
def test_too_few_negatives(arguments: dict[str, Any], num_negatives: int, least: str) -> None:
    with pytest.raises(ArgumentError, match=f'num_negatives: .*{least}.*got {num_negatives}'):
        make_sampler(**arguments).sample(make_batch(), num_negatives)


def test_without_a_model() -> None:
    with pytest.raises(ArgumentError, match=r'sampler\.begin\(as_scorer\(model\)\)'):
        DANSSampler().sample(make_batch(), 8)
    for wrong in (None, DistMult, torch.nn.Linear(2, 2)):
        with pytest.raises(ArgumentError, match='scorer: '):
            DANSSampler().begin(wrong)  # type: ignore[arg-type]


def test_a_model_of_another_width() -> None:
    sampler = make_sampler()
    sampler.sample(make_batch(), 8)
    sampler.begin(DistMult(NUM_NODES, NUM_RELATIONS, 5))
    with pytest.raises(ArgumentError, match='width 8.*width 5'):
        sampler.sample(make_batch(), 8)


def test_samplers_that_do_not_fit() -> None:
    model = make_model()
    inner = make_sampler(model)
    with pytest.raises(ArgumentError, match='sampler: .*with vectors'):
        make_sampler(model, sampler=inner).sample(make_batch(), 8)
    with pytest.raises(ArgumentError, match='num_negatives'):
        SharedNegativesSampler(3, make_sampler(model)).sample(make_batch(), 8)
    shared = SharedNegativesSampler(3, make_sampler(model, from_entity=1, pathways='entity'))
    with pytest.raises(ArgumentError, match='sampler: .*with vectors'):
        shared.sample(make_batch(), 1)


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    sampler = make_sampler(make_model().cuda())
    batch = make_batch().to('cuda')
    found = sampler.sample(batch, 8, torch.Generator('cuda').manual_seed(0))
    assert found.vectors is not None and found.vectors.is_cuda and bool(found.vectors.isfinite().all())
    assert weights(sampler)[0].is_cuda
