r"""Negatives from Markov chains that follow the scores of the model."""
from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Optional

import torch
from torch import Tensor
from torch_geometric.utils import remove_self_loops, to_undirected

from pyg_emu.core.arguments import non_negative, non_negative_integer, random_seed
from pyg_emu.core.contract import Scorer, check_scorer, for_batch
from pyg_emu.core.entries import entries
from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.warn import warn
from pyg_emu.data.batch import Batch
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import FilteredSampler, draw_unknown, random_below, redraw
from pyg_emu.negatives.sampling.nscaching import first_of_equals
from pyg_emu.ops import emu_score

#: Batches that may be drawn before the model is known.
_PATIENCE = 10


class MCNSSampler(FilteredSampler):
    r"""Negatives from Markov chains, as in the `"Understanding Negative Sampling in Graph Representation Learning"
    <https://arxiv.org/abs/2005.09863>`_ paper (MCNS). Negatives are distributed as positives are, but sub-linearly:

    .. math::
        p_n(x \mid h, r) \propto p_d(x \mid h, r)^{\alpha}, \qquad p_d(x \mid h, r) \propto \mathrm{e}^{s(h, r, x)}

    for tails, and likewise for heads. The second part is the paper's self-contrast approximation: the model itself
    estimates the distribution of positives. The softmax of the scores replaces the inner products of the paper, because
    scores of link prediction are not inner products of two entities.

    The Metropolis-Hastings algorithm draws from it. A chain at :math:`x` moves to a proposal :math:`y \sim q` with
    probability

    .. math::
        \min\left(1, \frac{p_n(y)\, q(x)}{p_n(x)\, q(y)}\right), \qquad
        q(y) = \frac{1}{2 V} + \frac{[y \in \mathcal{N}(e)]}{2\, |\mathcal{N}(e)|}

    Half of the proposals are neighbours, and half are uniform. The paper takes the neighbours of the chain's current
    state. Here, they are those of the known entity :math:`e` in the undirected graph of the training facts, the hard
    negatives of :class:`SANSSampler`. They do not depend on the state, so that all proposals of a batch are scored in
    one pass. If an entity has no neighbours, all proposals are uniform.

    There is one chain for each entity and side. It starts at a random entity and continues from batch to batch, also if
    the relation changes. The chains are part of :meth:`state_dict`. The negatives of a triple are the states of its
    chain after :obj:`burn_in` moves and each of the :obj:`num_negatives` moves that follow. A rejected proposal repeats
    the last state, so negatives repeat more often than independent draws. If several triples of a batch have the same
    known entity and side, their chains start from the same state, and the chain of the first triple is kept.

    The sampler reads the model when it draws. :class:`~pyg_emu.Trainer` passes it the model before the first batch. In
    a loop of your own, call :meth:`update` as shown, once or in each step. Without a model, all scores count as equal,
    and the sampler warns once after ten such batches:

    .. code-block:: python

        sampler = MCNSSampler()
        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(sampler=sampler))
        for batch in loader:
            sampler.update(batch, as_scorer(model))
            criterion(model, batch).backward()

    Args:
        alpha (float, optional): The exponent :math:`\alpha`, in the paper between zero and one; zero makes negatives
            uniform. (default: :obj:`0.75`)
        burn_in (int, optional): Moves of a chain before the first negative of a triple. (default: :obj:`10`)
        filtered (bool, optional): See :class:`FilteredSampler`. The distribution :math:`p_n` is then zero for known
            answers. If the state of a chain is a known answer of the next relation, uniform draws replace it until the
            first unknown proposal. (default: :obj:`True`)
        split (str, optional): The split whose facts are known. Neighbours are always those of the training facts.
            (default: :obj:`"train"`)
        seed (int, optional): Seed of the first states. Everything else is drawn from the stream of the batch. (default:
            :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if the batch has no :obj:`source`.
    """
    learns_from_vectors: ClassVar[bool] = True

    def __init__(
        self,
        alpha: float = 0.75,
        burn_in: int = 10,
        filtered: bool = True,
        split: str = 'train',
        seed: int = 0,
    ) -> None:
        super().__init__(filtered, split)
        self.alpha = float(non_negative('alpha', alpha))
        self.burn_in = non_negative_integer('burn_in', burn_in)
        self.seed = random_seed('seed', seed)
        self._chains: Optional[_Chains] = None
        self._loaded: Optional[Tensor] = None
        self._scorer: Optional[Scorer] = None
        # Batches drawn without a model, or None once there was one.
        self._unguided: Optional[int] = 0

    def states(self, batch: Batch) -> Tensor:
        r"""The current states of the chains of a batch. shape: :obj:`(B,)`."""
        chains = self._prepare(batch)
        return chains.state[chains.row(batch)].long()

    @torch.no_grad()
    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        self._warn_if_unguided()
        chains = self._prepare(batch)
        row, known = chains.row(batch), batch.known_index
        moves = self.burn_in + num_negatives
        proposal, density = chains.propose(known, moves, generator)
        state = chains.state[row].long().unsqueeze(1)
        # The weight p_n / q decides alone, as a proposal does not depend on the state.
        entity = torch.cat([state, proposal], dim=1)
        weight = self._log_target(batch, entity)
        weight -= torch.cat([chains.density(known, state), density], dim=1).log().to(weight.dtype)
        if self.filtered:
            index = self._known_facts(batch)
            wrong = index.is_known(entity, known, batch.rel_type, batch.corrupts_tail)
            weight = weight.masked_fill(wrong, -torch.inf)
        noise = torch.empty(moves, row.numel(), dtype=weight.dtype, device=row.device).exponential_(generator=generator)
        place = _walk(weight.t().contiguous(), noise).t()
        chains.write(row, entity.gather(1, place[:, -1:]).squeeze(1))
        place = place[:, self.burn_in:]
        entity = entity.gather(1, place)
        if not self.filtered:
            return Negatives(entity)
        relation, tails = batch.rel_type, batch.corrupts_tail

        def anyone(row: Any, number: int) -> Tensor:
            return draw_unknown(index, known[row], relation[row], tails[row], number, generator)

        return self._negatives(index, batch, redraw(entity, wrong.gather(1, place), anyone))

    def _log_target(self, batch: Batch, entity: Tensor) -> Tensor:
        r"""The logarithm of :math:`p_n` up to a constant of the row. shape: that of :obj:`entity`."""
        if self._scorer is None or self.alpha == 0.0 or entity.numel() == 0:
            return torch.zeros(entity.shape, device=entity.device)
        scorer = for_batch(self._scorer, batch)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        score = emu_score(query, scorer.candidates(batch.target_index), scorer.entity_table(), entity,
                          interaction=scorer.interaction).vanilla
        assert score is not None
        return score.to(torch.promote_types(score.dtype, torch.float32)) * self.alpha

    def begin(self, scorer: Scorer) -> None:
        r"""Gives the sampler the model that it reads when it draws.

        Args:
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
        """
        check_scorer('scorer', scorer)
        self._unguided = None
        self._scorer = scorer

    def update(self, batch: Batch, scorer: Scorer) -> None:
        r"""Gives the sampler the model that it reads when it next draws.

        Args:
            batch (Batch): The batch.
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
        """
        Batch.of(batch)
        self.begin(scorer)

    def _warn_if_unguided(self) -> None:
        if self._unguided is None:
            return
        self._unguided += 1
        if self._unguided == _PATIENCE:
            warn(f'MCNSSampler: {_PATIENCE} batches were drawn without a model, so that all scores count as '
                 'equal; call sampler.update(batch, as_scorer(model)), or train with Trainer, which gives it '
                 'the model')

    def _prepare(self, batch: Batch) -> _Chains:
        train = self._facts(batch, 'train')
        held = self._chains
        # A new index is built whenever its facts change or move.
        if held is not None and held.train is train:
            return held
        shape = (2 * train.num_nodes, )
        if held is not None and held.state.shape == shape:
            state = held.state.to(train.device)
        elif self._loaded is not None:
            if self._loaded.shape != shape:
                raise CheckpointError(f"the sampler's state holds {self._loaded.numel()} chains, this graph has "
                                      f'{shape[0]}, one for each entity and side')
            state = self._loaded.to(train.device, copy=True)
        else:
            generator = torch.Generator(train.device).manual_seed(self.seed)
            state = torch.randint(train.num_nodes, shape, generator=generator, device=train.device, dtype=torch.int32)
        assert batch.source is not None
        near = _neighbors(batch.source.facts('train'), train.num_nodes)
        self._loaded = None
        self._chains = _Chains(train, near, state)
        return self._chains

    def state_dict(self) -> dict[str, Any]:
        r"""The states of the chains, as a tensor of shape :obj:`(2 * num_nodes,)`: those of tails first."""
        return {'chains': self._loaded if self._chains is None else self._chains.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues with the chains of another sampler.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete or, when next sampling, belongs to another graph.
        """
        if 'chains' not in state:
            raise CheckpointError("the sampler's state lacks chains")
        self._chains = None
        self._loaded = None if state['chains'] is None else state['chains'].clone()

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(alpha={self.alpha}, burn_in={self.burn_in}, filtered={self.filtered}, '
                f'split={self.split!r})')


class _Chains(NamedTuple):
    r"""The chains of a graph.

    Args:
        train (FactIndex): The training facts.
        near (FactIndex): The undirected graph, as facts of relation 0: the tails of an entity are its neighbours.
        state (torch.Tensor): The current states, those for tails of each entity and then those for heads. shape:
            :obj:`(2V,)`, int32.
    """
    train: FactIndex
    near: FactIndex
    state: Tensor

    def row(self, batch: Batch) -> Tensor:
        r"""The chains of a batch. shape: :obj:`(B,)`."""
        return torch.where(batch.corrupts_tail, batch.known_index, batch.known_index + self.train.num_nodes)

    def write(self, row: Tensor, state: Tensor) -> None:
        r"""Stores new states; the first of those for the same chain counts."""
        if row.numel() == 0:
            return
        order, first = first_of_equals(row)
        # All writes to a chain are of the same value, so that their order does not matter.
        self.state.index_copy_(0, order, state[first].int())

    def propose(self, known: Tensor, number: int, generator: Optional[torch.Generator]) -> tuple[Tensor, Tensor]:
        r"""Proposals and their probabilities :math:`q`, each of shape :obj:`(B, number)`."""
        shape = (known.numel(), number)
        base, start, end = (value.unsqueeze(1) for value in self.near.bounds(known, torch.zeros_like(known), 'tail'))
        place = start + random_below((end - start).expand(shape), generator)
        if self.near.num_facts > 0:
            near = entries(self.near.keys, place.clamp_(max=self.near.keys.numel() - 1)) - base
        else:
            near = place
        far = torch.randint(self.train.num_nodes, shape, generator=generator, device=known.device)
        half = torch.rand(shape, generator=generator, device=known.device) < 0.5
        proposal = torch.where(half & (end > start), near, far)
        return proposal, self.density(known, proposal)

    def density(self, known: Tensor, entity: Tensor) -> Tensor:
        r"""The probability :math:`q` of each :obj:`entity` :obj:`(B, K)`, in double precision."""
        relation = torch.zeros_like(known)
        size = self.near.count(known, relation, 'tail').unsqueeze(1)
        far, near = 1.0 / self.train.num_nodes, 1.0 / size.clamp(min=1).double()
        found = self.near.is_known(entity, known, relation, 'tail')
        return torch.where(size > 0, 0.5 * (far + found * near), far)


def _neighbors(facts: Tensor, num_nodes: int) -> FactIndex:
    edges = to_undirected(remove_self_loops(facts[:, [0, 2]].t())[0], num_nodes=num_nodes)
    return FactIndex(torch.stack([edges[0], torch.zeros_like(edges[0]), edges[1]], dim=1), num_nodes, 1)


def _walk(weight: Tensor, noise: Tensor) -> Tensor:
    r"""Where chains stand after each move.

    Args:
        weight (torch.Tensor): Logarithms of :math:`p_n / q` of the first states, and then of the proposals. shape:
            :obj:`(moves + 1, B)`.
        noise (torch.Tensor): Exponential variates, :math:`-\log u` of uniform ones. shape: :obj:`(moves, B)`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(moves, B)`: places in the first dimension of :obj:`weight`.
    """
    moves, size = noise.shape
    place = torch.zeros(moves, size, dtype=torch.int64, device=weight.device)
    # u < w(y) / w(x) is log w(x) < log w(y) - log u. Nothing moves to a proposal of weight zero.
    enough = weight[1:] + noise
    current, at = weight[0], torch.zeros(size, dtype=torch.int64, device=weight.device)
    for move in range(moves):
        accepted = current < enough[move]
        current = torch.where(accepted, weight[move + 1], current)
        at = torch.where(accepted, move + 1, at)
        place[move] = at
    return place
