r"""Losses of NBFNet on a batch. Facts of the batch leave the graph, and mutation acts on final node features."""
from __future__ import annotations

from typing import Any, ClassVar, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import ids_below
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.losses.base import LinkPredictionLoss, ScoredBatch, check_relations, with_negatives
from pyg_emu.losses.baselines import BCELoss
from pyg_emu.losses.emu import EMUBCELoss
from pyg_emu.models.adapters import unwrap
from pyg_emu.ops import MixPlan, mutate


class _NBFNetScores(LinkPredictionLoss):
    r"""Scores a batch of :class:`~pyg_emu.TripletLoader` with an :class:`~pyg_emu.NBFNet`."""
    #: Only models that read a graph can be trained so.
    reads_graph: ClassVar[bool] = True

    def score(self, model: Any, batch: Batch) -> ScoredBatch:
        r"""Scores the positives and the negatives of a batch over the graph that the batch came from, less the edges of
        :meth:`~pyg_emu.NBFNet.training_mask`.

        Raises:
            ArgumentError: If the model reads no graph, or the batch has no graph, no negatives, or negatives that are
                vectors.
        """
        batch, model = with_negatives(batch), unwrap(model)
        if not getattr(model, 'reads_graph', False):
            name = type(self).__name__
            raise ArgumentError(f'model: {type(model).__name__} reads no graph; {name} is a loss for NBFNet, and '
                                f'{name.removeprefix("NBFNet")} is one for models with entity vectors')
        if batch.neg_vectors is not None or batch.neg_index is None:
            raise ArgumentError('batch.neg_vectors: NBFNet has no entity vectors, so its negatives are ids; expected '
                                'only neg_index')
        if batch.source is None:
            raise ArgumentError('batch.source: NBFNet passes messages on the graph of the batch, and it is None; set '
                                'batch.source = data, or take batches from TripletLoader')
        if not batch.source.has_inverse_relations:
            raise ArgumentError('batch.source: NBFNet passes messages along edges in both directions, but this graph '
                                'has no inverse relations; make the loader with data.with_inverse_relations()')
        check_relations(model, batch)
        known, rel_type, side = batch.known_index, batch.rel_type, batch.side
        candidates = _candidates(batch)
        # Processes that share a batch hide the same edges.
        whole = batch if batch.whole is None else batch.whole
        mask = model.training_mask(batch.source, whole.known_index, whole.rel_type, _candidates(whole), whole.side)
        encoding = model.encode(batch.source, known, rel_type, side, edge_mask=mask)
        hidden = encoding.at(candidates)
        plan = self.plan(batch, model, encoding.query, batch.neg_index.size(1), hidden.size(-1))
        scores = model.score_features(hidden, encoding.query)
        mutated = None
        if plan is not None:
            partners = plan.partner if isinstance(plan, MixPlan) else None
            if partners is not None:
                ids_below('plan.partner', partners, batch.source.num_nodes, 'entities')
            features = mutate(hidden[:, 0], hidden[:, 1:], plan, None if partners is None else encoding.at(partners))
            mutated = model.score_features(features, encoding.query)
        vanilla = scores[:, 1:] if plan is None or self.needs_vanilla else None
        return ScoredBatch(scores[:, 0], vanilla, mutated, batch.neg_mask, None if plan is None else plan.label,
                           batch.weight)


class NBFNetEMULoss(_NBFNetScores, EMUBCELoss):
    r""":class:`~pyg_emu.EMUBCELoss` for :class:`~pyg_emu.NBFNet` (section 4.6 and Table 15 of the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper).

    Mutation acts on the hidden part of the candidates' final features; the query part is the same for all candidates of
    a query. Vanilla and mutated features go through the same scoring network. The rate of Table 15 is an argument of
    the transform, as are its masks: one for every negative, with exactly :math:`n_P` ones (footnote 2). NBFNet leaves
    known facts out of the negatives (:obj:`filtered=True`). The paper does not state how mutated negatives are
    weighted. Here, both terms use the self-adversarial weights of their own scores.

    .. code-block:: python

        negatives = EMUNegatives(32, mutation_rate=0.94, mask='exact', shared=False,
                                 sampler=UniformSampler(filtered=True))
        loader = TripletLoader(data.with_inverse_relations(), batch_size=64, corrupt='both', transform=negatives)
        criterion = NBFNetEMULoss()

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`1.0`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives. (default: :obj:`0.25`)
        adversarial_temperature (float, optional): See :func:`~pyg_emu.losses.functional.uls_binary_cross_entropy`.
            NBFNet trains with 0.5 on FB15k-237 and with 1 on WN18RR. (default: :obj:`0.5`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is negative, infinite or NaN, or the temperature is not positive;
            when called, see :meth:`score`.
    """
    def __init__(self, alpha: float = 1.0, beta: float = 0.25, adversarial_temperature: Optional[float] = 0.5) -> None:
        super().__init__(alpha, beta, adversarial_temperature)


class NBFNetBCELoss(_NBFNetScores, BCELoss):
    r""":class:`~pyg_emu.losses.BCELoss` for :class:`~pyg_emu.NBFNet`, the loss it was published with.

    Args:
        adversarial_temperature (float, optional): As in :class:`NBFNetEMULoss`. (default: :obj:`0.5`)

    Raises:
        ArgumentError: If the temperature is not positive; when called, see :meth:`score`.
    """
    #: Negatives are not mutated, and there is no argument :obj:`mutate`.
    mutates: ClassVar[bool] = False

    def __init__(self, adversarial_temperature: Optional[float] = 0.5) -> None:
        super().__init__(adversarial_temperature=adversarial_temperature)


def _candidates(batch: Batch) -> Tensor:
    r"""The positives and the negatives. shape: :obj:`(B, 1 + N)`."""
    assert batch.neg_index is not None
    return torch.cat([batch.target_index.unsqueeze(1), batch.neg_index], dim=1)
