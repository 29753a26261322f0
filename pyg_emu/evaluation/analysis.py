r"""Where negatives lie around their positive: similarities, angles, principal axes, and the theorem behind them.

These are the measurements of section 4.4 and of Figures 3, 4 and 6 of the `"Optimal Embedding Guided Negative Sample
Generation" <https://arxiv.org/abs/2504.03327>`_ paper, and the simulation of its Theorem 3.2.
"""
from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import positive_integer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.mutation import BernoulliMask, ExactMask, draw_plan
from pyg_emu.ops import MixPlan, mutate

# Components of masks that are drawn at a time.
_BLOCK = 2**24


class CandidateVectors(NamedTuple):
    r"""The vectors behind the scores of a batch.

    Args:
        positive (torch.Tensor): shape: :obj:`(B, d)`.
        vanilla (torch.Tensor): The negatives as they are. shape: :obj:`(B, N, d)`.
        mutated (torch.Tensor, optional): The mutated negatives, if the batch has a mutation. shape: :obj:`(B, N, d)`.
    """
    positive: Tensor
    vanilla: Tensor
    mutated: Optional[Tensor]


@torch.no_grad()
def candidate_vectors(model: Any, batch: Batch) -> CandidateVectors:
    r"""The vectors that a loss would score, mutated as it would.

    Args:
        model (torch.nn.Module): Any model that :func:`~pyg_emu.as_scorer` takes.
        batch (Batch): A batch that went through :class:`~pyg_emu.EMUNegatives`; choose it small, as all
            :obj:`B * N` vectors are returned.

    Raises:
        ArgumentError: If the batch has no negatives.
    """
    batch = Batch.of(batch)
    if batch.neg_index is None:
        raise ArgumentError('batch: neg_index is missing; give the loader transform=EMUNegatives(...), which draws '
                            'negatives')
    scorer = as_scorer(model)
    positive, vanilla = scorer.candidates(batch.target_index), scorer.candidates(batch.neg_index)
    plan, mutated = None, None
    if batch.mutation is not None:
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        plan = draw_plan(batch.mutation, batch, scorer, query, batch.neg_index.size(1), vanilla.size(2))
    if plan is not None:
        partner = scorer.candidates(plan.partner) if isinstance(plan, MixPlan) and plan.partner is not None else None
        mutated = mutate(positive, vanilla, plan, partner)
    return CandidateVectors(positive, vanilla, mutated)


def positive_negative_cosines(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Cosine similarities of each positive with its negatives (Figure 3). shape: :obj:`(B, N)`.

    Args:
        positive (torch.Tensor): shape: :obj:`(B, d)`.
        negative (torch.Tensor): shape: :obj:`(B, N, d)`.
    """
    return F.cosine_similarity(positive.unsqueeze(1), negative, dim=-1)


def negative_negative_cosines(left: Tensor, right: Optional[Tensor] = None) -> Tensor:
    r"""Cosine similarities of the negatives of each triple with one another (Figure 6).

    Args:
        left (torch.Tensor): shape: :obj:`(B, N, d)`.
        right (torch.Tensor, optional): Other negatives of the same triples, to compare every one of :obj:`left` with
            every one of; where the two are made of the same ids, such as vanilla and mutated ones, a pair of the same
            position is left out. shape: :obj:`(B, N, d)`. (default: :obj:`None`, each pair within :obj:`left` once)

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N (N - 1) / 2)`, or :obj:`(B, N (N - 1))` with :obj:`right`.

    Raises:
        ArgumentError: If :obj:`right` has another shape than :obj:`left`.
    """
    if right is not None and right.shape != left.shape:
        raise ArgumentError(f'right: expected the shape of left, {tuple(left.shape)}, got {tuple(right.shape)}')
    cosine = F.normalize(left, dim=-1) @ F.normalize(left if right is None else right, dim=-1).transpose(1, 2)
    ones = torch.ones(cosine.shape[1:], dtype=torch.bool, device=cosine.device)
    return cosine[:, ones.triu(1) if right is None else ~ones.tril().triu()]


def deviation_angles(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Angles between the deviations of negatives from their positive, :math:`\mathbf{z}^-_i - \mathbf{z}^+`, and that
    of the first of them, in radians (equation 8). shape: :obj:`(B, N - 1)`.

    Args:
        positive (torch.Tensor): shape: :obj:`(B, d)`.
        negative (torch.Tensor): shape: :obj:`(B, N, d)`.
    """
    deviation = negative - positive.unsqueeze(1)
    return F.cosine_similarity(deviation[:, :1], deviation[:, 1:], dim=-1).clamp(-1.0, 1.0).acos()


class PrincipalAxes(NamedTuple):
    r"""Where points spread most, about a centre.

    Args:
        center (torch.Tensor): shape: :obj:`(..., d)`.
        axes (torch.Tensor): Unit vectors, the direction of the largest spread first. shape: :obj:`(..., k, d)`.
        variances (torch.Tensor): Mean squared distances from the centre along each. shape: :obj:`(..., k)`.
    """
    center: Tensor
    axes: Tensor
    variances: Tensor

    def project(self, points: Tensor) -> Tensor:
        r"""Coordinates along the axes. shape: :obj:`(..., n, k)`."""
        return (points - self.center.unsqueeze(-2)) @ self.axes.transpose(-1, -2)

    @property
    def isotropy(self) -> Tensor:
        r"""The smallest of the variances over the largest: 1 if points spread alike along all of the axes, 0 if they
        lie on fewer. shape: :obj:`(...)`.
        """
        return self.variances[..., -1] / self.variances[..., 0]


def principal_axes(points: Tensor, num_axes: int = 2, center: Optional[Tensor] = None) -> PrincipalAxes:
    r"""Principal component analysis (Figure 4).

    Args:
        points (torch.Tensor): shape: :obj:`(..., n, d)`.
        num_axes (int, optional): :math:`k`. (default: :obj:`2`)
        center (torch.Tensor, optional): The centre, such as the true tail that negatives surround.
            (default: :obj:`None`, the mean of the points) shape: :obj:`(..., d)`.

    Raises:
        ArgumentError: If there are fewer points or dimensions than axes.
    """
    if not 1 <= num_axes <= min(points.shape[-2:]):
        raise ArgumentError(f'num_axes: expected 1 to {min(points.shape[-2:])}, as there are {points.size(-2)} points '
                            f'with {points.size(-1)} components, got {num_axes}')
    center = points.mean(-2) if center is None else center
    _, values, axes = torch.linalg.svd(points - center.unsqueeze(-2), full_matrices=False)
    return PrincipalAxes(center, axes[..., :num_axes, :], values[..., :num_axes].square() / points.size(-2))


class MaskedCosines(NamedTuple):
    r"""What :func:`masked_cosines` returns.

    Args:
        cosine (torch.Tensor): Cosines of the angles between A and masked B. shape: :obj:`(S,)`.
        first_kept (torch.Tensor): Whether the mask kept the first component, :math:`\lambda_1 = 1`. shape: :obj:`(S,)`.
        unmasked (float): :math:`\cos\theta_0`, of the angle between A and B.
        share (float): :math:`n_r / N`.
    """
    cosine: Tensor
    first_kept: Tensor
    unmasked: float
    share: float

    @property
    def center_of_statement(self) -> float:
        r""":math:`\cos\theta_0`, the centre that Theorem 3.2 states."""
        return self.unmasked

    @property
    def center_of_proof(self) -> float:
        r""":math:`\sqrt{N / n_r} \cos\theta_0`, the centre that its proof ends with (appendix C)."""
        return self.unmasked / math.sqrt(self.share)

    @property
    def center_expected(self) -> float:
        r""":math:`\sqrt{n_r / N} \cos\theta_0`: masks keep :math:`n_r / N` of the scalar product and
        :math:`\sqrt{n_r / N}` of the length of B.
        """
        return self.unmasked * math.sqrt(self.share)


def masked_cosines(a: Tensor, b: Tensor, num_kept: int, num_samples: int = 10_000,
                   generator: Optional[torch.Generator] = None,
                   mask: Literal['exact', 'bernoulli'] = 'exact') -> MaskedCosines:
    r"""The simulation of Theorem 3.2: the angle between A and :math:`\lambda \odot B`, with random masks
    :math:`\lambda`.

    Args:
        a (torch.Tensor): A. shape: :obj:`(N,)`.
        b (torch.Tensor): B. shape: :obj:`(N,)`.
        num_kept (int): :math:`n_r`, the number of ones in a mask.
        num_samples (int, optional): :math:`S`. (default: :obj:`10_000`)
        generator (torch.Generator, optional): The random stream. (default: :obj:`None`, PyTorch's own)
        mask (str, optional): :obj:`"exact"` (exactly :math:`n_r` ones, footnote 2) or :obj:`"bernoulli"` (as many on
            average, section 3.2). (default: :obj:`"exact"`)

    Raises:
        ArgumentError: If the vectors differ in size, :obj:`num_kept` is not in :obj:`[1, N]`, :obj:`num_samples` is no
            positive integer or :obj:`mask` is unknown.
    """
    if a.dim() != 1 or a.shape != b.shape:
        raise ArgumentError(f'b: expected a vector of the shape of a, got {tuple(b.shape)} and {tuple(a.shape)}')
    size = a.numel()
    if not 1 <= num_kept <= size:
        raise ArgumentError(f'num_kept: expected 1 to {size}, the number of components, got {num_kept}')
    if mask not in ('exact', 'bernoulli'):
        raise ArgumentError(f"mask: expected 'exact' or 'bernoulli', got {mask!r}")
    positive_integer('num_samples', num_samples)
    share = num_kept / size
    masks = ExactMask(share) if mask == 'exact' else BernoulliMask(share)
    columns = torch.stack([a * b, b * b], dim=1)
    cosines, first = [], []
    for block in torch.empty(num_samples, device='meta').split(max(_BLOCK // size, 1)):
        bank = masks.bank(share, block.numel(), size, a.unsqueeze(0), generator)
        product, square = (bank.to(a.dtype) @ columns).unbind(1)
        cosines.append(product / (square.sqrt() * torch.linalg.vector_norm(a)))
        first.append(bank[:, 0])
    return MaskedCosines(torch.cat(cosines), torch.cat(first), float(F.cosine_similarity(a, b, dim=0)), share)
