r"""KBGAN: negatives that a second model picks, trained by the scores that they get."""
from __future__ import annotations

import copy
from typing import Any, Callable, ClassVar, NamedTuple, Optional, Union

import torch
from torch import Tensor

from pyg_emu import models
from pyg_emu.core.arguments import non_negative, positive_integer, positive_number, random_seed, share, shown
from pyg_emu.core.contract import ScoredBatch, Scorer, check_scorer
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.gradients import clip_gradients
from pyg_emu.core.warn import warn
from pyg_emu.data.batch import Batch
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.adversarial.optimizers import load_optimizer, make_adam, step_if
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import FilteredSampler
from pyg_emu.negatives.sampling.uniform import UniformSampler
from pyg_emu.ops import emu_score

#: Batches that may be drawn without observe().
_PATIENCE = 10
_ENTRIES = ('model', 'optimizer', 'baseline')


class KBGANSampler(FilteredSampler):
    r"""Negatives that a generator picks, `"KBGAN: Adversarial Learning for Knowledge Graph Embeddings"
    <https://arxiv.org/abs/1711.04071>`_.

    The generator is a second, smaller model. For each triple, :obj:`num_candidates` entities are drawn uniformly, and
    the generator's scores decide which of them become negatives:

    .. math::
        p_G(x \mid h, r) = \frac{\exp f_G(h, r, x)}{\sum_{x' \in C} \exp f_G(h, r, x')}

    for tails, and likewise for heads. The paper picks one. Here all negatives of a triple are picked independently from
    the same candidates, with replacement, so that :obj:`num_candidates` should exceed their number by far.

    The discriminator is the model that is trained. Its score of a negative is the reward, and the generator follows the
    policy gradient (REINFORCE)

    .. math::
        \nabla J = \mathbb{E}_{x \sim p_G}\, [(f_D(h, r, x) - b)\, \nabla \log p_G(x \mid h, r)]

    with an Adam optimizer of its own. The baseline :math:`b` is a running mean of rewards, which starts with that of
    the first batch. Where negatives are mutated, the reward is the score without mutation if the loss computes it, and
    that of the mutated negative if not. The paper first trains both models separately. By default, the generator starts
    with random weights. To start from a trained model, pass a function that returns it as :obj:`generator`.

    If a reward is NaN or infinite, as those of a model that diverges, the generator takes no step and the baseline
    stays as it was. If the generator's own scores are not finite, it takes no step either, and the choice among the
    candidates is uniform.

    :class:`~pyg_emu.Trainer` calls :meth:`begin` and :meth:`observe`. KBGAN trains in one process, because each of
    several processes would only see the rewards of its own rows. In a loop of your own:

    .. code-block:: python

        sampler = KBGANSampler()
        sampler.begin(as_scorer(model))
        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(5, sampler=sampler))
        for batch in loader:
            criterion(model, batch).backward()
            sampler.observe(batch, batch.scored)

    :attr:`terms` holds the monitors of the last batch: :obj:`reward` and :obj:`baseline`, and :obj:`entropy` of
    :math:`p_G` relative to that of a uniform choice; near zero, the generator always picks the same candidate.

    Args:
        generator (str or callable, optional): A model of :mod:`pyg_emu.models` by its name, or a function of the number
            of entities, the number of relations and :obj:`hidden_channels` that returns any model which
            :func:`~pyg_emu.as_scorer` takes. (default: :obj:`"DistMult"`)
        hidden_channels (int, optional): The hidden embedding size of the generator. (default: :obj:`50`)
        num_candidates (int, optional): Candidates of a triple. (default: :obj:`20`)
        lr (float, optional): The learning rate of the generator. (default: :obj:`1e-3`)
        baseline_decay (float, optional): The weight of the past in the running mean of rewards. (default: :obj:`0.9`)
        max_grad_norm (float, optional): The largest norm of the generator's gradient. (default: :obj:`None`, it is not
            clipped)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`False`)
        split (str, optional): The split whose facts are known. (default: :obj:`"train"`)
        seed (int, optional): Seed of the generator's initial weights. Everything else is drawn from the stream of the
            batch. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if :meth:`begin` was not called.
    """
    learns_from_vectors: ClassVar[bool] = True

    def __init__(
        self,
        generator: Union[str, Callable[..., Any]] = 'DistMult',
        hidden_channels: int = 50,
        num_candidates: int = 20,
        lr: float = 1e-3,
        baseline_decay: float = 0.9,
        max_grad_norm: Optional[float] = None,
        filtered: bool = False,
        split: str = 'train',
        seed: int = 0,
    ) -> None:
        super().__init__(filtered, split)
        self.generator = generator
        self._make = _maker(generator)
        self.hidden_channels = int(positive_integer('hidden_channels', hidden_channels))
        self.num_candidates = int(positive_integer('num_candidates', num_candidates))
        self.lr = float(non_negative('lr', lr))
        self.baseline_decay = float(share('baseline_decay', baseline_decay))
        self.max_grad_norm = None if max_grad_norm is None else float(positive_number('max_grad_norm', max_grad_norm,
                                                                                      'a positive number or None'))
        self.seed = random_seed('seed', seed)
        self._candidates = UniformSampler(filtered, split)
        self._scorer: Optional[Scorer] = None
        # Made for the first batch, whose device it takes.
        self._player: Optional[_Player] = None
        self._loaded: Optional[dict[str, Any]] = None
        self._drawn: Optional[_Drawn] = None
        #: The monitors of the last batch by name, detached scalars on the device.
        self.terms: dict[str, Tensor] = {}
        # Batches drawn since the last observe(), or None once that was said.
        self._unrewarded: Optional[int] = 0

    @property
    def model(self) -> Optional[Any]:
        r"""The generator, or :obj:`None` before the first batch."""
        return None if self._player is None else self._player.model

    def begin(self, scorer: Scorer) -> None:
        r"""Passes the model that is trained to the sampler, which makes a generator for its entities and relations.

        Args:
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
        """
        check_scorer('scorer', scorer)
        self._scorer = scorer

    @torch.no_grad()
    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        player = self._prepare(batch)
        self._warn_if_unrewarded()
        found = self._candidates._sample(batch, self.num_candidates, generator)
        candidates = found.index
        assert isinstance(candidates, Tensor)
        if candidates.size(0) == 0:
            return Negatives(candidates.new_empty(0, num_negatives))
        # A row with a score that is not finite has no softmax.
        chance = player.scores(batch, candidates).softmax(dim=1).nan_to_num(nan=1.0)
        place = torch.multinomial(chance, num_negatives, replacement=True, generator=generator)
        index = candidates.gather(1, place)
        self._drawn = _Drawn(candidates, place, index)
        self._exhausted = self._candidates._exhausted
        mask = None if found.mask is None else found.mask[:, :1].expand(-1, num_negatives).contiguous()
        return Negatives(index, mask)

    @torch.enable_grad()
    def observe(self, batch: Batch, scored: ScoredBatch) -> None:
        r"""Trains the generator by the scores of its negatives.

        Args:
            batch (Batch): The batch, with the negatives that were drawn last.
            scored (ScoredBatch): The scores of its negatives, ids first.

        Raises:
            ArgumentError: If the negatives of the batch are not those that were drawn last.
        """
        batch = Batch.of(batch)
        if not isinstance(scored, ScoredBatch):
            raise ArgumentError(f'scored: expected the ScoredBatch that a loss leaves in batch.scored, got '
                                f'{shown(scored)}')
        if batch.head_index.numel() == 0:
            return
        drawn, player = self._drawn, self._player
        if drawn is None or player is None or not drawn.are(batch.neg_index):
            raise ArgumentError('batch: KBGANSampler learns from the scores of the negatives that it drew last, and '
                                'this batch has others; call observe(batch, batch.scored) once for each batch, and '
                                'give the sampler to EMUNegatives itself, not to one that shares negatives')
        self._unrewarded = 0 if self._unrewarded is not None else None
        scores = scored.mutated if scored.vanilla is None else scored.vanilla
        assert scores is not None
        number = drawn.place.size(1)
        mask = None if scored.mask is None else scored.mask[:, :number]
        self._drawn = None
        self.terms = player.learn(player.scores(batch, drawn.candidates), drawn.place, scores[:, :number].detach(),
                                  mask, self.baseline_decay)

    def _warn_if_unrewarded(self) -> None:
        if self._unrewarded is None:
            return
        self._unrewarded += 1
        if self._unrewarded > _PATIENCE:
            self._unrewarded = None
            warn(f'KBGANSampler: {_PATIENCE} batches were drawn without a call of observe(), so that the '
                 'generator does not learn; call sampler.observe(batch, batch.scored) after each loss, or '
                 'train with Trainer, which does so')

    def _prepare(self, batch: Batch) -> _Player:
        scorer = self._scorer
        if scorer is None:
            raise ArgumentError('sampler: KBGANSampler picks negatives for a model, and has none; call '
                                'sampler.begin(as_scorer(model)) once before the first batch, or train with Trainer, '
                                'which does so')
        player, device = self._player, batch.device
        sizes = scorer.num_nodes, scorer.num_relations
        if player is not None and player.sizes != sizes:
            raise ArgumentError(f'sampler: the generator of this KBGANSampler has {player.sizes[0]} entities and '
                                f'{player.sizes[1]} relations, and the model {sizes[0]} and {sizes[1]}; use a new '
                                'sampler')
        if player is not None and player.device == device:
            return player
        state = self._loaded if player is None else copy.deepcopy(player.state_dict())
        with torch.random.fork_rng(devices=[]), torch.device('cpu'):
            torch.default_generator.manual_seed(self.seed)
            model = self._make(*sizes, self.hidden_channels, scorer.sparse)
        try:
            as_scorer(model)
        except ArgumentError as error:
            raise ArgumentError(f'generator: expected a function that makes a model ({error})') from error
        player = _Player(model.to(device), device, self.lr, self.max_grad_norm)
        if player.sizes != sizes:
            raise ArgumentError(f'generator: expected a model of {sizes[0]} entities and {sizes[1]} relations, got one '
                                f'of {player.sizes[0]} and {player.sizes[1]}')
        if state is not None:
            player.load_state_dict(state)
        self._player, self._loaded = player, None
        return player

    def state_dict(self) -> dict[str, Any]:
        r"""The weights of the generator, the state of its optimizer and the baseline."""
        return {'generator': self._loaded if self._player is None else self._player.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues with the generator of another sampler.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete or, when next sampling, belongs to another generator.
        """
        if 'generator' not in state:
            raise CheckpointError("the sampler's state lacks generator; give the result of state_dict()")
        own = state['generator']
        missing = [] if own is None else [name for name in _ENTRIES if name not in own]
        if missing:
            raise CheckpointError(f"the sampler's state lacks {', '.join(missing)}; give the result of state_dict()")
        self._player = self._drawn = None
        self._loaded = None if own is None else copy.deepcopy(dict(own))

    def __repr__(self) -> str:
        name = self.generator if isinstance(self.generator, str) else getattr(self.generator, '__name__', '...')
        return (f'{self.__class__.__name__}(generator={name}, hidden_channels={self.hidden_channels}, '
                f'num_candidates={self.num_candidates}, lr={self.lr}, baseline_decay={self.baseline_decay}, '
                f'max_grad_norm={self.max_grad_norm}, filtered={self.filtered}, split={self.split!r}, '
                f'seed={self.seed})')


class _Drawn(NamedTuple):
    r"""What was drawn for a batch: candidates :obj:`(B, C)`, the places among them that were picked :obj:`(B, N)`, and
    the ids there :obj:`(B, N)`.
    """
    candidates: Tensor
    place: Tensor
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index

    def are(self, index: Optional[Tensor]) -> bool:
        r"""Whether the negatives of a batch are those. A batch that was copied has equal ones."""
        if index is None or index.shape != self.index.shape:
            return False
        return index is self.index or torch.equal(index, self.index.to(index.device))


class _Player:
    r"""The generator, its optimizer and the baseline.

    Args:
        model (torch.nn.Module): The generator.
        device (torch.device): Its device.
        lr (float): Its learning rate.
        max_grad_norm (float, optional): The largest norm of its gradient.
    """
    def __init__(self, model: Any, device: torch.device, lr: float, max_grad_norm: Optional[float]) -> None:
        self.model = model
        self.device = device
        scorer = as_scorer(model)
        self.sizes = scorer.num_nodes, scorer.num_relations
        self.max_grad_norm = max_grad_norm
        self.optimizer: torch.optim.Optimizer = (torch.optim.SparseAdam(model.parameters(), lr=lr) if scorer.sparse
                                                 else make_adam(model.parameters(), lr))
        # NaN until the first reward.
        self.baseline = torch.full((), float('nan'), dtype=torch.float64, device=device)

    def scores(self, batch: Batch, index: Tensor) -> Tensor:
        r"""The generator's scores of candidates :obj:`(B, C)`."""
        scorer = as_scorer(self.model)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        found = emu_score(query, scorer.candidates(batch.target_index), scorer.entity_table(), index,
                          interaction=scorer.interaction, sparse_grad=scorer.sparse).vanilla
        assert found is not None
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def learn(self, scores: Tensor, place: Tensor, reward: Tensor, mask: Optional[Tensor],
              decay: float) -> dict[str, Tensor]:
        r"""Takes a step along the policy gradient, updates the baseline, and returns the monitors. Without a reward, or
        with numbers that are not finite, everything stays as it is.
        """
        counts = torch.ones_like(reward, dtype=torch.bool) if mask is None else mask
        number = counts.sum().clamp(min=1)
        mean = torch.where(counts, reward, 0.0).sum().double() / number
        baseline = torch.where(self.baseline.isnan(), mean, self.baseline)
        advantage = (reward - baseline).to(scores.dtype)
        finite = torch.where(counts, advantage, 0.0).isfinite().all() & scores.detach().isfinite().all()
        usable = counts.any() & finite & mean.isfinite()
        self.optimizer.zero_grad(set_to_none=True)
        # Zeros, since NaN times a gradient of zero is NaN.
        policy_loss(scores, place, torch.where(counts & usable, advantage, 0.0), 0.0, mask).backward()
        if self.max_grad_norm is not None:
            clip_gradients(self.model.parameters(), self.max_grad_norm)
        step_if(self.optimizer, usable)
        self.optimizer.zero_grad(set_to_none=True)
        self.baseline = torch.where(usable, decay * baseline + (1.0 - decay) * mean, self.baseline)
        chance = scores.detach().log_softmax(dim=1)
        most = torch.tensor(max(scores.size(1), 2), dtype=chance.dtype).log().item()
        return {'reward': mean, 'baseline': self.baseline, 'entropy': -(chance.exp() * chance).sum(1).mean() / most}

    def state_dict(self) -> dict[str, Any]:
        r"""The weights, the optimizer and the baseline."""
        return {'model': self.model.state_dict(), 'optimizer': self.optimizer.state_dict(), 'baseline': self.baseline}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues from what :meth:`state_dict` returned, with the learning rate of the settings."""
        try:
            self.model.load_state_dict(state['model'])
            load_optimizer(self.optimizer, state['optimizer'])
        except (KeyError, RuntimeError, ValueError) as error:
            shapes = ', '.join(f'{name} {tuple(value.shape)}' for name, value in state['model'].items())
            own = ', '.join(f'{name} {tuple(value.shape)}' for name, value in self.model.state_dict().items())
            raise CheckpointError(f"the sampler's state holds a generator of {shapes}, this run has one of {own}; "
                                  'continue with the same settings and graph as before') from error
        self.baseline = state['baseline'].to(self.baseline, copy=True)


def policy_loss(scores: Tensor, place: Tensor, reward: Tensor, baseline: Union[float, Tensor],
                mask: Optional[Tensor] = None) -> Tensor:
    r"""The scalar whose gradient is minus the policy gradient of REINFORCE: the mean over negatives of
    :math:`-(R - b) \log p_G`.

    Args:
        scores (torch.Tensor): The generator's scores of candidates. shape: :obj:`(B, C)`.
        place (torch.Tensor): The candidates that were picked. shape: :obj:`(B, N)`, int64.
        reward (torch.Tensor): :math:`R` of each of them. shape: :obj:`(B, N)`.
        baseline (float or torch.Tensor): :math:`b`, a scalar.
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N)`. (default: :obj:`None`, all
            count)
    """
    chance = scores.log_softmax(dim=1).gather(1, place)
    value = -(reward - baseline).to(chance.dtype) * chance
    if mask is None:
        return value.mean()
    return torch.where(mask, value, 0.0).sum() / mask.sum().clamp(min=1)


def _maker(generator: Any) -> Callable[[int, int, int, bool], Any]:
    r"""A function that makes a generator of a number of entities, of relations and of channels, with row-sparse
    gradients or not.
    """
    if isinstance(generator, str):
        known = {name: value for name, value in vars(models).items() if name in models.__all__
                 and isinstance(value, type) and issubclass(value, models.KGEScorer) and value is not models.KGEScorer}
        if generator not in known:
            raise ArgumentError(f'generator: expected one of {", ".join(known)}, or a function that makes a model, got '
                                f'{shown(generator)}')
        return lambda nodes, relations, channels, sparse: known[generator](nodes, relations, channels, sparse=sparse)
    if not callable(generator) or isinstance(generator, torch.nn.Module):
        raise ArgumentError('generator: expected the name of a model, or a function of the numbers of entities, '
                            f'relations and hidden channels that makes one, got {shown(generator)}')
    return lambda nodes, relations, channels, _: generator(nodes, relations, channels)
