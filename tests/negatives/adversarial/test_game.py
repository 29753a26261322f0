from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.negatives.adversarial import DANSSampler
from pyg_emu.negatives.adversarial.game import Game

WIDTH = 3


def make_game(**settings: Any) -> Game:
    return Game(DANSSampler(**settings).settings, WIDTH, torch.float32, torch.device('cpu'))


def drawn(number: int = 8) -> tuple[dict[str, Tensor], Tensor]:
    r"""Vectors of both pathways and real ones, with spreads of about one."""
    return {name: torch.randn(number, 1, WIDTH) for name in ('entity', 'relation')}, torch.randn(number, WIDTH)


@pytest.fixture(autouse=True)
def few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr('pyg_emu.negatives.adversarial.game.COLLAPSED_BATCHES', 4)


def silently(game: Game, times: int, scale: float = 1.0, accuracy: float = 0.9) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        watch(game, times, scale, accuracy)


def watch(game: Game, times: int, scale: float = 1.0, accuracy: float = 0.9) -> None:
    for _ in range(times):
        vectors, real = drawn()
        game.terms['discriminator_accuracy'] = torch.tensor(accuracy)
        game.watch({name: scale * value for name, value in vectors.items()}, real)


def test_spread_and_diversity_by_hand() -> None:
    game = make_game(discriminator_steps=0)
    # The real ones have a deviation of 2; those of G_E one of sqrt(2.75) in all, and of 1 and 0 within a triple.
    game.watch({'entity': torch.tensor([[[0.0], [2.0]], [[4.0], [4.0]]]), 'relation': torch.tensor([[[1.0]], [[2.0]]])},
               torch.tensor([[1.0], [5.0]]))
    assert {name: float(value) for name, value in game.terms.items()} == pytest.approx({
        'entity_spread': 2.75**0.5 / 2, 'entity_diversity': 0.25, 'relation_spread': 0.25})


def test_a_batch_of_one_triple_tells_nothing() -> None:
    game = make_game()
    silently(game, 3, scale=1e-3)
    before = dict(game.terms)
    game.watch({'entity': torch.randn(1, 3, WIDTH), 'relation': torch.randn(1, 3, WIDTH)}, torch.randn(1, WIDTH))
    assert game.terms == before
    with pytest.warns(UserWarning, match='collapsed'):
        watch(game, 1, scale=1e-3)


def test_a_spread_that_recovers_is_no_collapse() -> None:
    game = make_game()
    silently(game, 3, scale=1e-3)
    silently(game, 1)
    silently(game, 3, scale=1e-3)
    expected = r'4 batches.*0\.05.*discriminator_accuracy 0\.9.*entity_spread.*bound'
    with pytest.warns(UserWarning, match=expected) as found:
        watch(game, 9, scale=1e-3)
    assert len(found) == 1


def test_one_pathway_that_collapses_is_enough() -> None:
    game = make_game(discriminator_steps=0)
    with pytest.warns(UserWarning, match='collapsed'):
        for _ in range(4):
            vectors, real = drawn()
            game.watch({**vectors, 'relation': 0.01 * vectors['relation']}, real)


def test_a_discriminator_that_is_always_right() -> None:
    game = make_game()
    silently(game, 3, accuracy=1.0)
    silently(game, 1, accuracy=0.99)
    silently(game, 3, accuracy=1.0)
    expected = '4 batches.*discriminator.*discriminator_accuracy 1,.*discriminator_lr'
    with pytest.warns(UserWarning, match=expected) as found:
        watch(game, 9, accuracy=1.0)
    assert len(found) == 1


@pytest.mark.parametrize('frozen', ['generator', 'discriminator'])
def test_a_frozen_network_cannot_lose(frozen: str) -> None:
    silently(make_game(**{f'{frozen}_steps': 0}), 9, accuracy=1.0)


def test_state_holds_what_was_counted_and_said() -> None:
    game, other, told = make_game(), make_game(), make_game()
    silently(game, 3, accuracy=1.0)
    other.load_state_dict(game.state_dict())
    with pytest.warns(UserWarning, match='4 batches'):
        watch(other, 1, accuracy=1.0)
    told.load_state_dict(other.state_dict())
    silently(told, 8, scale=1e-3, accuracy=1.0)


def test_states_of_older_versions() -> None:
    game, other = make_game(), make_game()
    silently(game, 3, scale=1e-3, accuracy=1.0)
    state = {name: value for name, value in game.state_dict().items() if name not in ('beaten', 'warned')}
    other.load_state_dict(state)
    silently(other, 1, accuracy=1.0)
    with pytest.warns(UserWarning, match='lost'):
        watch(other, 4, accuracy=1.0)
