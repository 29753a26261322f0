r"""DANS: negatives from a generator that is trained against a discriminator, and ids beside them."""
from __future__ import annotations

from typing import Any, ClassVar, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import (
    boolean,
    non_negative,
    non_negative_integer,
    one_of,
    positive_integer,
    positive_number,
    random_seed,
    without_effect,
)
from pyg_emu.core.contract import Scorer, check_scorer, for_batch
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.batch import Batch
from pyg_emu.negatives.adversarial.composition import entity_relation_rows
from pyg_emu.negatives.adversarial.game import Game, GameSettings, check_state
from pyg_emu.negatives.contract import Negatives, Sampler, check_sampler
from pyg_emu.negatives.sampling.base import BaseSampler
from pyg_emu.negatives.sampling.uniform import UniformSampler

_PATHWAYS = {'both': ('entity', 'relation'), 'entity': ('entity', ), 'relation': ('relation', )}


class DANSSampler(BaseSampler):
    r"""Negatives from an adaptive two-way generator, `"Diversified and Adaptive Negative Sampling on Knowledge Graphs"
    <https://arxiv.org/abs/2410.07592>`_ (DANS).

    **Generator** (equations 4 to 8). To replace the tail of :math:`(h, r, t)`, two pathways generate vectors like those
    of entities:

    .. math::
        \mathbf{e}_{t'} = G_E(\epsilon), \quad \epsilon \sim N(\mathbf{e}_h, \sigma^2 I), \qquad
        \mathbf{e}_{t''} = G_R(\epsilon), \quad \epsilon \sim N(\mathbf{e}_h \otimes \mathbf{e}_r, \sigma^2 I)

    To replace the head, the same pathways start from :math:`\mathbf{e}_t` and :math:`\mathbf{e}_t \otimes
    \mathbf{e}_r^{-1}`. :func:`~pyg_emu.negatives.adversarial.composition.entity_relation_rows` states what the product
    and the inverse are for each kind of model. FiLM layers adapt each pathway to its center.

    **Discriminator** (equations 9 to 12). One head distinguishes the real vectors, those of the predicted entities,
    from generated ones. The other one distinguishes the two pathways.

    **Training** (section 3.4). For each batch, the generator takes :obj:`generator_steps` steps against the first head,
    and then the discriminator takes :obj:`discriminator_steps` steps with the loss of equation 14. The negatives of the
    batch are generated after that. All of it happens as the batch is drawn, with optimizers of the sampler's own (Adam,
    gradients clipped to :obj:`max_grad_norm`), on copies of the model's vectors: the model gets no gradient from the
    game. Generated vectors are :obj:`batch.neg_vectors`, detached, so that the generator gets none from the model's
    loss. Equation 13 prints :math:`\arg\max` over an expression that the generator has to minimise. The generator here
    plays the standard non-saturating game: it minimises :math:`-\log D_{Adv}` of what it generates, plus
    :obj:`film_weight` times the regularizer of that equation.

    Ids come from another :obj:`sampler`. A loss that mutates negatives mutates them. It mutates generated vectors only
    with :obj:`mutate_vectors`, see :class:`~pyg_emu.EMULoss`; otherwise their mutated scores are the plain ones.

    The sampler reads the model when it draws. :class:`~pyg_emu.Trainer` gives it the model before the first batch. In a
    loop of your own, do so once:

    .. code-block:: python

        sampler = DANSSampler()
        sampler.begin(as_scorer(model))
        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(20, sampler=sampler))
        for batch in loader:
            criterion(model, batch).backward()

    :attr:`terms` holds the monitors of the last batch, as scalars on the device; :class:`~pyg_emu.Trainer` writes their
    means into the history: :obj:`generator_loss`, :obj:`discriminator_loss`; :obj:`discriminator_accuracy`, how
    often the first head rates the real vector of a triple above a generated one, and :obj:`pathway_accuracy` of the
    second head (0.5 is chance); :obj:`entity_spread` and
    :obj:`relation_spread`, the standard deviation of generated vectors over the batch, relative to that of real ones;
    and, of a pathway that makes several vectors for each triple, :obj:`entity_diversity` and
    :obj:`relation_diversity`, the standard deviation of the vectors of one triple, relative to the same. The sampler
    warns once if, for 100 batches, a spread is below 0.05, or the discriminator accuracy is 1 while both are trained.

    Several processes draw the same whole batch, so that their networks stay equal.

    Args:
        pathways (str, optional): :obj:`"both"`, or :obj:`"entity"` or :obj:`"relation"` alone (:math:`G_E` and
            :math:`G_R` of the ablation). (default: :obj:`"both"`)
        film (bool, optional): Whether FiLM layers modulate the generator. (default: :obj:`True`)
        from_entity (int, optional): Vectors of :math:`G_E` for each triple. (default: :obj:`None`, a quarter of the
            negatives, or half of them if it is the only pathway)
        from_relation (int, optional): Vectors of :math:`G_R` for each triple. (default: :obj:`None`, likewise)
        sampler (Sampler, optional): The source of ids for the rest. (default: :obj:`None`,
            :class:`~pyg_emu.UniformSampler`)
        film_weight (float, optional): :math:`\lambda` of equation 13. (default: :obj:`1e-4`)
        noise (float, optional): :math:`\sigma`. (default: :obj:`0.01`)
        generator_steps (int, optional): Steps of the generator for each batch; 0 freezes it. (default: :obj:`5`)
        discriminator_steps (int, optional): Steps of the discriminator for each batch; 0 freezes it, and its loss and
            accuracies are not computed. (default: :obj:`1`)
        generator_lr (float, optional): The learning rate of the generator. (default: :obj:`1e-3`)
        discriminator_lr (float, optional): The learning rate of the discriminator. (default: :obj:`1e-4`)
        max_grad_norm (float, optional): The largest norm of the gradient of each of the two; :obj:`None` does not clip.
            (default: :obj:`1.0`)
        bound (float, optional): The largest component of a generated vector, the factor of the final tanh.
            (default: :obj:`1.0`)
        inverse_floor (float, optional): The smallest modulus of a component of a relation whose exact inverse is used.
            (default: :obj:`0.01`)
        seed (int, optional): Seed of the initial weights. Everything else is drawn from the stream of the batch.
            (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if :meth:`begin` was not called, there
            are fewer negatives than vectors to generate, or the model has no relation rows for the product.
    """
    #: Entity vectors are read as negatives are drawn.
    learns_from_vectors: ClassVar[bool] = True

    def __init__(
        self,
        pathways: str = 'both',
        film: bool = True,
        from_entity: Optional[int] = None,
        from_relation: Optional[int] = None,
        sampler: Optional[Sampler] = None,
        film_weight: float = 1e-4,
        noise: float = 0.01,
        generator_steps: int = 5,
        discriminator_steps: int = 1,
        generator_lr: float = 1e-3,
        discriminator_lr: float = 1e-4,
        max_grad_norm: Optional[float] = 1.0,
        bound: float = 1.0,
        inverse_floor: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.pathways = one_of('pathways', pathways, tuple(_PATHWAYS))
        self.film = boolean('film', film)
        given = {'entity': from_entity, 'relation': from_relation}
        for name, number in given.items():
            if number is None:
                continue
            given[name] = positive_integer(f'from_{name}', number)
            if name not in _PATHWAYS[pathways]:
                without_effect(f'pathways={pathways!r}', **{f'from_{name}': number})
        self.from_entity, self.from_relation = given.values()
        check_sampler('sampler', sampler)
        self.sampler = UniformSampler() if sampler is None else sampler
        limit = 1.0 if max_grad_norm is None else max_grad_norm
        for name, value in (('bound', bound), ('inverse_floor', inverse_floor), ('max_grad_norm', limit)):
            positive_number(name, value)
        self.inverse_floor = float(inverse_floor)
        #: What the game is played with.
        self.settings = GameSettings(
            pathways=_PATHWAYS[pathways], film=self.film, film_weight=float(non_negative('film_weight', film_weight)),
            noise=float(non_negative('noise', noise)), bound=float(bound),
            generator_steps=non_negative_integer('generator_steps', generator_steps),
            discriminator_steps=non_negative_integer('discriminator_steps', discriminator_steps),
            generator_lr=float(non_negative('generator_lr', generator_lr)),
            discriminator_lr=float(non_negative('discriminator_lr', discriminator_lr)),
            max_grad_norm=None if max_grad_norm is None else float(max_grad_norm), seed=random_seed('seed', seed))
        self._scorer: Optional[Scorer] = None
        # Made for the first batch, which shows the width of an entity row, also where a graph is needed to encode one.
        self._game: Optional[Game] = None
        self._loaded: Optional[dict[str, Any]] = None

    @property
    def terms(self) -> dict[str, Tensor]:
        r"""The monitors of the last batch by name, detached scalars on the device."""
        return {} if self._game is None else self._game.terms

    def begin(self, scorer: Scorer) -> None:
        r"""Gives the sampler the model that it reads when it draws.

        Args:
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
        """
        check_scorer('scorer', scorer)
        self._scorer = scorer

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        number = self.numbers(num_negatives)
        scorer = self._begun()
        index, mask = self._ids(batch, int(num_negatives) - sum(number.values()), generator)
        # With gradients, since the loss may use the same encoded entities.
        scorer = for_batch(scorer, batch)
        with torch.no_grad():
            known, real = scorer.candidates(batch.known_index), scorer.candidates(batch.target_index)
            condition = {'entity': known}
            if 'relation' in number:
                condition['relation'] = entity_relation_rows(scorer, known, batch, self.inverse_floor)
        game = self._prepare(real)
        dtype = torch.promote_types(real.dtype, torch.float32)
        condition = {name: condition[name].detach().to(dtype) for name in number}
        if real.size(0) > 0:
            rows = real.detach().to(dtype)
            game.play(condition, rows, generator)
            with torch.no_grad():
                vectors, _ = game.generate(condition, number, generator)
                game.watch(vectors, rows)
            made = torch.cat([*vectors.values()], dim=1).to(real.dtype)
        else:
            made = real.new_zeros(0, sum(number.values()), real.size(1))
        return Negatives(index, None if mask is None else F.pad(mask, (0, made.size(1)), value=True), made)

    def numbers(self, num_negatives: int) -> dict[str, int]:
        r"""Returns how many vectors each pathway generates for a triple, in the order in which they are returned.

        Args:
            num_negatives (int): Negatives of a triple, ids among them.

        Raises:
            ArgumentError: If there are fewer negatives than vectors.
        """
        positive_integer('num_negatives', num_negatives)
        names = self.settings.pathways
        given = {'entity': self.from_entity, 'relation': self.from_relation}
        number = {name: int(num_negatives) // (2 * len(names)) if given[name] is None else int(given[name] or 0)
                  for name in names}
        if min(number.values()) < 1 or sum(number.values()) > num_negatives:
            least = sum(number.values()) or 2 * len(names)
            raise ArgumentError('num_negatives: DANSSampler generates '
                                f'{" and ".join(f"{value} from {name}" for name, value in number.items())}; expected '
                                f'at least {least}, got {num_negatives}')
        return number

    def _ids(self, batch: Batch, number: int, generator: Optional[torch.Generator]) -> tuple[Any, Optional[Tensor]]:
        r"""Ids from the other sampler, and where they count."""
        size = batch.head_index.numel()
        if number == 0:
            return batch.head_index.new_empty(size, 0), None
        found = self.sampler.sample(batch, number, generator)
        if not isinstance(found, Negatives) or found.vectors is not None or tuple(found.index.shape) != (size, number):
            given = f'of shape {tuple(found.index.shape)}' if isinstance(found, Negatives) else type(found).__name__
            raise ArgumentError(f'sampler: {self.sampler} returned negatives {given}'
                                f'{" with vectors" if getattr(found, "vectors", None) is not None else ""}; expected '
                                f'pyg_emu.Negatives with an index of shape {(size, number)} and no vectors')
        return found.index, found.mask

    def _begun(self) -> Scorer:
        if self._scorer is None:
            raise ArgumentError('sampler: DANSSampler generates vectors from those of a model, and has none; call '
                                'sampler.begin(as_scorer(model)) once before the first batch, or train with Trainer, '
                                'which does so')
        return self._scorer

    def _prepare(self, rows: Tensor) -> Game:
        r"""The game for rows of entities, made or continued where it was not."""
        game, dtype = self._game, torch.promote_types(rows.dtype, torch.float32)
        if game is not None and game.width != rows.size(1):
            raise ArgumentError(f'sampler: the networks of this DANSSampler are for vectors of width {game.width}, and '
                                f'the model has vectors of width {rows.size(1)}; use a new sampler')
        if game is not None and game.fits(rows.device, dtype):
            return game
        state = self._loaded if game is None else check_state(game.state_dict())
        game = Game(self.settings, rows.size(1), dtype, rows.device)
        if state is not None:
            game.load_state_dict(state)
        self._game, self._loaded = game, None
        return game

    def state_dict(self) -> dict[str, Any]:
        r"""The weights of the networks, the state of their optimizers and the monitors."""
        return {'game': self._loaded if self._game is None else self._game.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues with the networks of another sampler.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete or, when next sampling, belongs to other networks.
        """
        if 'game' not in state:
            raise CheckpointError("the sampler's state lacks game; give the result of state_dict()")
        self._game, self._loaded = None, check_state(state['game'])

    def __repr__(self) -> str:
        game = self.settings
        return (f'{self.__class__.__name__}(pathways={self.pathways!r}, film={self.film}, '
                f'from_entity={self.from_entity}, from_relation={self.from_relation}, sampler={self.sampler}, '
                f'film_weight={game.film_weight}, noise={game.noise}, generator_steps={game.generator_steps}, '
                f'discriminator_steps={game.discriminator_steps}, generator_lr={game.generator_lr}, '
                f'discriminator_lr={game.discriminator_lr}, max_grad_norm={game.max_grad_norm}, bound={game.bound}, '
                f'inverse_floor={self.inverse_floor}, seed={game.seed})')
