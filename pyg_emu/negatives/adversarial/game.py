r"""The game of DANS: the networks, their optimizers, and what tells whether the generator has collapsed or lost."""
from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict

from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.warn import warn
from pyg_emu.negatives.adversarial.networks import (
    Discriminator,
    Modulation,
    Pathway,
    Verdict,
    discriminator_loss,
    generator_loss,
)
from pyg_emu.negatives.adversarial.optimizers import load_optimizer, make_adam

#: Batches in a row with a small spread, or with a discriminator that is always right, after which there is a warning.
COLLAPSED_BATCHES = 100
#: What spread is small, relative to that of real vectors.
COLLAPSED_SPREAD = 0.05
_ENTRIES = ('generator', 'discriminator', 'generator_optimizer', 'discriminator_optimizer', 'collapsing', 'batches')


@dataclass(frozen=True)
class GameSettings:
    r"""What a game is played with; :class:`DANSSampler` documents each setting."""
    pathways: tuple[str, ...]
    film: bool
    film_weight: float
    noise: float
    bound: float
    generator_steps: int
    discriminator_steps: int
    generator_lr: float
    discriminator_lr: float
    max_grad_norm: Optional[float]
    seed: int


class Game:
    r"""The generator and the discriminator for entity vectors of one width.

    Args:
        settings (GameSettings): What it is played with.
        width (int): :math:`d`, the width of an entity row.
        dtype (torch.dtype): The type of the networks.
        device (torch.device): Their device.
    """
    def __init__(self, settings: GameSettings, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.settings = settings
        self.width = width
        # Initial weights come from the seed, on any device, and leave the global random stream where it was.
        with torch.random.fork_rng(devices=[]), torch.device('cpu'):
            torch.default_generator.manual_seed(settings.seed)
            generator = ModuleDict({name: Pathway(width, settings.film, settings.bound) for name in settings.pathways})
            discriminator = Discriminator(width)
        self.generator = generator.to(device, dtype)
        self.discriminator = discriminator.to(device, dtype)
        self.generator_optimizer = make_adam(self.generator.parameters(), settings.generator_lr)
        self.discriminator_optimizer = make_adam(self.discriminator.parameters(), settings.discriminator_lr)
        #: The monitors of the last batch, scalars on the device.
        self.terms: dict[str, Tensor] = {}
        # Batches in a row with a small spread, and with a discriminator that was always right, on the device; batches
        # in all.
        self._collapsing = torch.zeros((), dtype=torch.int64, device=device)
        self._beaten = torch.zeros((), dtype=torch.int64, device=device)
        self._batches = 0
        self._warned = False

    def fits(self, device: torch.device, dtype: torch.dtype) -> bool:
        r"""Whether the networks are on a device and of a type."""
        weight = next(self.discriminator.parameters())
        return weight.device == device and weight.dtype == dtype

    # Playing #################################################################

    def generate(self, condition: dict[str, Tensor], number: dict[str, int],
                 random: Optional[torch.Generator]) -> tuple[dict[str, Tensor], list[Modulation]]:
        r"""Generates vectors :obj:`(B, number, d)` from each pathway, equations 4 and 5.

        Args:
            condition (dict): The centers of each pathway's noise. shape: :obj:`(B, d)`.
            number (dict): Vectors of each pathway for each triple.
            random (torch.Generator, optional): The random stream.

        Returns:
            The vectors by pathway, and the modulations of all layers.
        """
        vectors, modulations = {}, []
        for name, pathway in self.generator.items():
            center = condition[name]
            shape = (center.size(0), number[name], self.width)
            noise = torch.randn(shape, generator=random, dtype=center.dtype, device=center.device)
            vectors[name], modulation = pathway(center.unsqueeze(1) + self.settings.noise * noise, center)
            modulations += modulation
        return vectors, modulations

    def play(self, condition: dict[str, Tensor], real: Tensor, random: Optional[torch.Generator]) -> None:
        r"""Trains the generator and then the discriminator on a batch.

        Args:
            condition (dict): The centers of each pathway's noise, detached. shape: :obj:`(B, d)`.
            real (torch.Tensor): The vectors of the predicted entities, detached. shape: :obj:`(B, d)`.
            random (torch.Generator, optional): The random stream.
        """
        one = dict.fromkeys(condition, 1)
        # Batches are also drawn where gradients are switched off.
        with torch.enable_grad():
            for _ in range(self.settings.generator_steps):
                vectors, modulations = self.generate(condition, one, random)
                fooled = [self.discriminator(fake.squeeze(1)).real for fake in vectors.values()]
                loss = generator_loss(fooled, modulations, self.settings.film_weight)
                self._step(self.generator, self.generator_optimizer, loss)
                self.terms['generator_loss'] = loss.detach()
            for _ in range(self.settings.discriminator_steps):
                with torch.no_grad():
                    vectors, _ = self.generate(condition, one, random)
                fakes = {name: fake.squeeze(1) for name, fake in vectors.items()}
                judged = self.discriminator(real).real, {name: self.discriminator(fake) for name, fake in fakes.items()}
                loss = discriminator_loss(judged[0], judged[1].get('entity'), judged[1].get('relation'))
                self._step(self.discriminator, self.discriminator_optimizer, loss)
                self.terms['discriminator_loss'] = loss.detach()
                self._judge(judged[0].detach(), judged[1])

    def _step(self, network: Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        # Only of these weights: neither those of the opponent nor those of the model get a gradient. The auxiliary head
        # has none where there is one pathway.
        parameters = list(network.parameters())
        for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
            parameter.grad = grad
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # Watching ################################################################

    @torch.no_grad()
    def _judge(self, real: Tensor, judged: dict[str, Verdict]) -> None:
        r"""Notes how well the discriminator does."""
        # There are more generated than real vectors, so that the sign of a logit would tell little at first.
        told = torch.cat([real > fake.real for fake in judged.values()])
        self.terms['discriminator_accuracy'] = told.to(real.dtype).mean()
        if len(judged) == 2:
            right = (judged['entity'].from_entity > 0), (judged['relation'].from_entity < 0)
            self.terms['pathway_accuracy'] = torch.cat(right).to(real.dtype).mean()

    def watch(self, vectors: dict[str, Tensor], real: Tensor) -> None:
        r"""Notes how widely the vectors of a batch are spread beside real ones, over the batch and within each triple,
        and warns once if the generator has collapsed or lost. Called once for each batch, without gradients.

        Args:
            vectors (dict): What was generated for the batch, by pathway. shape: :obj:`(B, K, d)`.
            real (torch.Tensor): The vectors of the predicted entities. shape: :obj:`(B, d)`.
        """
        if real.size(0) < 2:  # one vector has no spread
            return
        scale = _spread(real).clamp(min=torch.finfo(real.dtype).tiny)
        spreads = {name: _spread(fake.flatten(0, 1)) / scale for name, fake in vectors.items()}
        for name, spread in spreads.items():
            self.terms[f'{name}_spread'] = spread
            if vectors[name].size(1) > 1:
                self.terms[f'{name}_diversity'] = vectors[name].std(dim=1, correction=0).mean() / scale
        low = torch.stack([*spreads.values()]).min() < COLLAPSED_SPREAD
        self._collapsing = (self._collapsing + 1) * low
        if self.settings.generator_steps > 0 and self.settings.discriminator_steps > 0:
            self._beaten = (self._beaten + 1) * (self.terms['discriminator_accuracy'] >= 1.0)
        self._batches += 1
        if not self._warned and self._batches % COLLAPSED_BATCHES == 0:
            self._warn_if_needed()

    def _warn_if_needed(self) -> None:
        # Waits for the device, once in as many batches.
        collapsing, beaten = int(self._collapsing), int(self._beaten)
        if max(collapsing, beaten) < COLLAPSED_BATCHES:
            return
        self._warned = True
        if collapsing >= COLLAPSED_BATCHES:
            said = (f'the generator has collapsed: for {collapsing} batches, the spread of generated vectors was below '
                    f'{COLLAPSED_SPREAD} of that of real ones')
            remedy = 'lower generator_lr or generator_steps, raise film_weight'
        else:
            said = (f'the generator has lost: for {beaten} batches, the discriminator has rated all real vectors above '
                    'the generated ones')
            remedy = 'raise generator_lr or generator_steps, lower discriminator_lr'
        names = ('discriminator_accuracy', 'pathway_accuracy', *(f'{name}_spread' for name in self.settings.pathways))
        now = ', '.join(f'{name} {float(self.terms[name]):.3g}' for name in names if name in self.terms)
        warn(f'DANSSampler: {said} (now {now}); {remedy}, or raise bound if entity vectors have components '
             'beyond it')

    # State ###################################################################

    def state_dict(self) -> dict[str, Any]:
        r"""The weights, the optimizers and the monitors."""
        return {'generator': self.generator.state_dict(), 'discriminator': self.discriminator.state_dict(),
                'generator_optimizer': self.generator_optimizer.state_dict(),
                'discriminator_optimizer': self.discriminator_optimizer.state_dict(),
                'collapsing': self._collapsing, 'beaten': self._beaten, 'batches': self._batches,
                'warned': self._warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues from what :meth:`state_dict` returned. Learning rates are those of the settings.

        Raises:
            CheckpointError: If the state belongs to networks of another shape.
        """
        try:
            self.generator.load_state_dict(state['generator'])
            self.discriminator.load_state_dict(state['discriminator'])
            load_optimizer(self.generator_optimizer, state['generator_optimizer'])
            load_optimizer(self.discriminator_optimizer, state['discriminator_optimizer'])
        except (KeyError, RuntimeError, ValueError) as error:
            found = state['discriminator'].get('shared.0.weight')
            width = 'unknown width' if found is None else f'width {found.size(1)}'
            raise CheckpointError(f"the sampler's state holds networks for vectors of {width}, this run needs pathways "
                                  f'{", ".join(self.settings.pathways)} of width {self.width} with '
                                  f'film={self.settings.film}; continue with the same settings and model as before '
                                  f'({str(error).splitlines()[0]})') from error
        self._collapsing = state['collapsing'].to(self._collapsing, copy=True)
        self._batches = int(state['batches'])
        # Older versions counted neither batches that were lost nor warnings.
        self._beaten = state.get('beaten', torch.zeros_like(self._beaten)).to(self._beaten, copy=True)
        self._warned = bool(state.get('warned', False))


def check_state(state: Any) -> Optional[dict[str, Any]]:
    r"""Returns a copy of the state of a game, or :obj:`None` if there is none yet.

    Args:
        state (Any): The entry :obj:`game` of a sampler's state.

    Raises:
        CheckpointError: If it lacks an entry.
    """
    if state is None:
        return None
    missing = [name for name in _ENTRIES if name not in state]
    if missing:
        raise CheckpointError(f"the sampler's state lacks {', '.join(missing)}; give the result of state_dict()")
    return copy.deepcopy(dict(state))


def _spread(vectors: Tensor) -> Tensor:
    r"""The standard deviation of each component over the batch, the mean over components."""
    return vectors.std(dim=0, correction=0).mean()
