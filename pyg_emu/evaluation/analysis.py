r"""The geometry of negatives around their positive: similarities, angles, principal axes and a simulated theorem.

The module computes the measurements of section 4.4 and of Figures 3, 4 and 6 of the
`"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper, and simulates its
Theorem 3.2.
"""
from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import instance, one_of, positive_integer, tensors
from pyg_emu.core.contract import for_batch
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.precision import without_autocast
from pyg_emu.data.batch import Batch
from pyg_emu.losses.base import as_candidates, with_negatives
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.mutation import BernoulliMask, ExactMask, draw_plan
from pyg_emu.ops import MixPlan, mutate

# The number of mask components that are drawn at a time.
_BLOCK = 2**24


class CandidateVectors(NamedTuple):
    r"""The candidate vectors of a batch.

    Args:
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        vanilla (torch.Tensor): The negatives without mutation. shape: :obj:`(B, N, d)`.
        mutated (torch.Tensor, optional): The mutated negatives, or :obj:`None` if the batch has no mutation. shape:
            :obj:`(B, N, d)`.
    """
    positive: Tensor
    vanilla: Tensor
    mutated: Optional[Tensor]


@torch.no_grad()
def candidate_vectors(model: Any, batch: Batch) -> CandidateVectors:
    r"""Returns the vectors that a loss would score for a batch, with the mutation of the batch.

    Vectors that the batch gives itself (:obj:`neg_vectors`) come after those of its ids, and are not mutated, as by a
    loss without :obj:`mutate_vectors`.

    Args:
        model (torch.nn.Module): Any model that :func:`~pyg_emu.as_scorer` accepts.
        batch (Batch): A batch transformed by :class:`~pyg_emu.EMUNegatives`. The result contains all :obj:`B * N`
            vectors, so the batch should be small.

    Raises:
        ArgumentError: If the batch has no negatives.
    """
    batch = with_negatives(batch)
    scorer = for_batch(as_scorer(model), batch)
    positive = scorer.candidates(batch.target_index)
    index = batch.target_index.new_empty(len(positive), 0) if batch.neg_index is None else batch.neg_index
    vanilla, mutated, plan = scorer.candidates(index), None, None
    if batch.mutation is not None and index.size(1) > 0:
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        plan = draw_plan(batch.mutation, batch, scorer, query, index.size(1), vanilla.size(2))
    if plan is not None:
        partner = scorer.candidates(plan.partner) if isinstance(plan, MixPlan) and plan.partner is not None else None
        mutated = mutate(positive, vanilla, plan, partner)
    if batch.neg_vectors is not None:
        vectors = as_candidates(batch.neg_vectors, positive)
        vanilla = torch.cat([vanilla, vectors], dim=1)
        mutated = None if mutated is None else torch.cat([mutated, vectors], dim=1)
    return CandidateVectors(positive, vanilla, mutated)


def positive_negative_cosines(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Returns the cosine similarities of each positive with its negatives (Figure 3). shape: :obj:`(B, N)`.

    Args:
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        negative (torch.Tensor): The negatives. shape: :obj:`(B, N, d)`.

    Raises:
        ArgumentError: If the shapes do not fit.
    """
    _check_negatives(positive, negative)
    return F.cosine_similarity(positive.unsqueeze(1), negative, dim=-1)


def negative_negative_cosines(left: Tensor, right: Optional[Tensor] = None) -> Tensor:
    r"""Returns the cosine similarities between the negatives of each triple (Figure 6).

    Args:
        left (torch.Tensor): The negatives. shape: :obj:`(B, N, d)`.
        right (torch.Tensor, optional): Other negatives of the same triples, such as mutated ones. Each negative of
            :obj:`left` is compared with each of :obj:`right`, except for the one at the same position, which belongs to
            the same entity. shape: :obj:`(B, N, d)`. (default: :obj:`None`, each pair within :obj:`left` once)

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N (N - 1) / 2)`, or :obj:`(B, N (N - 1))` with :obj:`right`.

    Raises:
        ArgumentError: If the shapes of :obj:`right` and :obj:`left` differ.
    """
    tensors(left=left, right=right, optional=('right', ))
    if left.dim() != 3:
        raise ArgumentError(f'left: expected negatives of shape (B, N, d), got {tuple(left.shape)}')
    if right is not None and right.shape != left.shape:
        raise ArgumentError(f'right: expected the shape of left, {tuple(left.shape)}, got {tuple(right.shape)}')
    with without_autocast(left):
        cosine = F.normalize(left, dim=-1) @ F.normalize(left if right is None else right, dim=-1).transpose(1, 2)
    ones = torch.ones(cosine.shape[1:], dtype=torch.bool, device=cosine.device)
    return cosine[:, ones.triu(1) if right is None else ~ones.tril().triu()]


def deviation_angles(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Returns the angles in radians between the deviation of each negative from its positive,
    :math:`\mathbf{z}^-_i - \mathbf{z}^+`, and the deviation of the first negative (equation 8). shape:
    :obj:`(B, N - 1)`.

    Args:
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        negative (torch.Tensor): The negatives. shape: :obj:`(B, N, d)`.

    Raises:
        ArgumentError: If the shapes do not fit.
    """
    _check_negatives(positive, negative)
    deviation = negative - positive.unsqueeze(1)
    return F.cosine_similarity(deviation[:, :1], deviation[:, 1:], dim=-1).clamp(-1.0, 1.0).acos()


def _check_negatives(positive: Any, negative: Any) -> None:
    tensors(positive=positive, negative=negative)
    if positive.dim() != 2 or negative.dim() != 3 or (
            tuple(positive.shape) != (negative.size(0), negative.size(2))):
        raise ArgumentError('negative: expected negatives (B, N, d) of positives (B, d), got '
                            f'{tuple(negative.shape)} and {tuple(positive.shape)}')


class PrincipalAxes(NamedTuple):
    r"""The axes of the largest variance of points around a centre.

    Args:
        center (torch.Tensor): The centre. shape: :obj:`(..., d)`.
        axes (torch.Tensor): Unit vectors in descending order of variance. shape: :obj:`(..., k, d)`.
        variances (torch.Tensor): The mean squared distance from the centre along each axis. shape: :obj:`(..., k)`.
    """
    center: Tensor
    axes: Tensor
    variances: Tensor

    def project(self, points: Tensor) -> Tensor:
        r"""Returns the coordinates of points along the axes. shape: :obj:`(..., n, k)`."""
        with without_autocast(points):
            return (points - self.center.unsqueeze(-2)) @ self.axes.transpose(-1, -2)

    @property
    def isotropy(self) -> Tensor:
        r"""The ratio of the smallest to the largest variance: 1 if the variance is the same along all axes, 0 if the
        points lie in a subspace of fewer dimensions. shape: :obj:`(...)`.
        """
        return self.variances[..., -1] / self.variances[..., 0]


def principal_axes(points: Tensor, num_axes: int = 2, center: Optional[Tensor] = None) -> PrincipalAxes:
    r"""Performs a principal component analysis (Figure 4).

    Args:
        points (torch.Tensor): The points. shape: :obj:`(..., n, d)`.
        num_axes (int, optional): The number of axes :math:`k`. (default: :obj:`2`)
        center (torch.Tensor, optional): The centre, such as the true tail of the negatives. shape: :obj:`(..., d)`, or
            one that broadcasts to it, such as :obj:`(d,)`. (default: :obj:`None`, the mean of the points)

    Raises:
        ArgumentError: If :obj:`num_axes` exceeds the number of points or dimensions, or a shape is wrong.
    """
    tensors(points=points, center=center, optional=('center', ))
    if points.dim() < 2:
        raise ArgumentError(f'points: expected shape (..., n, d), got {tuple(points.shape)}')
    if positive_integer('num_axes', num_axes) > min(points.shape[-2:]):
        raise ArgumentError(f'num_axes: expected 1 to {min(points.shape[-2:])} for {points.size(-2)} points with '
                            f'{points.size(-1)} components, got {num_axes}')
    shape = (*points.shape[:-2], points.size(-1))
    if center is not None:
        try:
            fits = center.shape[-1:] == shape[-1:] and torch.broadcast_shapes(center.shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ArgumentError(f'center: expected shape {shape}, or one that broadcasts to it, for points of shape '
                                f'{tuple(points.shape)}, got {tuple(center.shape)}')
    center = points.mean(-2) if center is None else center.expand(shape)
    _, values, axes = torch.linalg.svd(points - center.unsqueeze(-2), full_matrices=False)
    return PrincipalAxes(center, axes[..., :num_axes, :], values[..., :num_axes].square() / points.size(-2))


class MaskedCosines(NamedTuple):
    r"""The result of :func:`masked_cosines`.

    Args:
        cosine (torch.Tensor): The cosines of the angles between A and masked B. shape: :obj:`(S,)`.
        first_kept (torch.Tensor): Whether the mask keeps the first component, :math:`\lambda_1 = 1`. shape:
            :obj:`(S,)`.
        unmasked (float): The cosine of the angle between A and B, :math:`\cos\theta_0`.
        share (float): The fraction of kept components, :math:`n_r / N`.
    """
    cosine: Tensor
    first_kept: Tensor
    unmasked: float
    share: float

    @property
    def center_of_statement(self) -> float:
        r"""The centre stated in Theorem 3.2, :math:`\cos\theta_0`."""
        return self.unmasked

    @property
    def center_of_proof(self) -> float:
        r"""The centre at the end of the proof (appendix C), :math:`\sqrt{N / n_r} \cos\theta_0`."""
        return self.unmasked / math.sqrt(self.share)

    @property
    def center_expected(self) -> float:
        r"""The expected centre, :math:`\sqrt{n_r / N} \cos\theta_0`, because masks keep a fraction :math:`n_r / N` of
        the scalar product and :math:`\sqrt{n_r / N}` of the norm of B.
        """
        return self.unmasked * math.sqrt(self.share)


def masked_cosines(a: Tensor, b: Tensor, num_kept: int, num_samples: int = 10_000,
                   generator: Optional[torch.Generator] = None,
                   mask: Literal['exact', 'bernoulli'] = 'exact') -> MaskedCosines:
    r"""Simulates Theorem 3.2: the angle between A and :math:`\lambda \odot B` for random masks :math:`\lambda`.

    Args:
        a (torch.Tensor): The vector A. shape: :obj:`(N,)`.
        b (torch.Tensor): The vector B. shape: :obj:`(N,)`.
        num_kept (int): The number of ones in a mask, :math:`n_r`.
        num_samples (int, optional): The number of masks :math:`S`. (default: :obj:`10_000`)
        generator (torch.Generator, optional): The random generator. (default: :obj:`None`, PyTorch's default generator)
        mask (str, optional): :obj:`"exact"` (exactly :math:`n_r` ones, footnote 2) or :obj:`"bernoulli"` (:math:`n_r`
            ones in expectation, section 3.2). (default: :obj:`"exact"`)

    Raises:
        ArgumentError: If the vectors differ in size, :obj:`num_kept` is not in :obj:`[1, N]`, :obj:`num_samples` is not
            a positive integer, :obj:`mask` is unknown or :obj:`generator` is no generator.
    """
    tensors(a=a, b=b)
    if generator is not None:
        instance('generator', generator, torch.Generator)
    if a.dim() != 1 or a.shape != b.shape:
        raise ArgumentError(f'b: expected a vector of the same shape as a, {tuple(a.shape)}, got {tuple(b.shape)}')
    size = a.numel()
    num_kept = positive_integer('num_kept', num_kept)
    if num_kept > size:
        raise ArgumentError(f'num_kept: expected 1 to {size}, the number of components, got {num_kept}')
    one_of('mask', mask, ('exact', 'bernoulli'))
    num_samples = positive_integer('num_samples', num_samples)
    share = num_kept / size
    masks = ExactMask(share) if mask == 'exact' else BernoulliMask(share)
    columns = torch.stack([a * b, b * b], dim=1)
    cosines, first = [], []
    for block in torch.empty(num_samples, device='meta').split(max(_BLOCK // size, 1)):
        bank = masks.bank(share, block.numel(), size, a.unsqueeze(0), generator)
        with without_autocast(a):
            product, square = (bank.to(a.dtype) @ columns).unbind(1)
        cosines.append(product / (square.sqrt() * torch.linalg.vector_norm(a)))
        first.append(bank[:, 0])
    return MaskedCosines(torch.cat(cosines), torch.cat(first), float(F.cosine_similarity(a, b, dim=0)), share)
