r"""The scalar interactions :math:`\phi(\mathbf{q}, \mathbf{x})` that every shallow model is made of.

A score is :math:`s(h, r, t) = \gamma + \phi(\mathbf{q}, \mathbf{x})`, where the query :math:`\mathbf{q}` is built from
the known entity and the relation and the candidate :math:`\mathbf{x}` is one row of the entity table. Mutation
(equation 6 of `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_) acts on
:math:`\mathbf{x}` alone, so an interaction is all that a fused operator has to know about a model.

The formulas here are plain PyTorch: they are the reference that the fused operators are tested against.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interaction:
    r"""Base class of :math:`\phi(\mathbf{q}, \mathbf{x})`.

    Instances are immutable, compare by value and serve as cache keys for compiled kernels.
    """
    #: Name under which the kernels know the interaction.
    name: ClassVar[str]

    def query_width(self, width: int) -> int:
        r"""Number of query components that go with candidates of :obj:`width` components."""
        return width

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        r"""Returns :math:`\phi` over the last dimension, broadcasting over the others.

        Args:
            query (torch.Tensor): The queries. shape: :obj:`(..., query_width)`.
            candidates (torch.Tensor): The candidates. shape: :obj:`(..., width)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(...)`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Dot(Interaction):
    r""":math:`\sum_k q_k x_k` (DistMult; ComplEx on :math:`[\mathrm{re}, \mathrm{im}]`)."""
    name: ClassVar[str] = 'dot'

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return (query * candidates).sum(dim=-1)


@dataclass(frozen=True)
class L1(Interaction):
    r""":math:`-\|\mathbf{q} - \mathbf{x}\|_1` (TransE)."""
    name: ClassVar[str] = 'l1'

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -(query - candidates).abs().sum(dim=-1)


@dataclass(frozen=True)
class L2(Interaction):
    r""":math:`-\|\mathbf{q} - \mathbf{x}\|_2` (TransE; PyG's RotatE)."""
    name: ClassVar[str] = 'l2'

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -torch.linalg.vector_norm(query - candidates, dim=-1)


@dataclass(frozen=True)
class ComplexModulus(Interaction):
    r""":math:`-\sum_k |q_k - x_k|` with complex components (RotatE).

    Rows hold all real parts and then all imaginary parts: :math:`[\mathrm{re}, \mathrm{im}]`.
    """
    name: ClassVar[str] = 'modulus'

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        difference = query - candidates
        # vector_norm, unlike sqrt, has a finite (zero) subgradient where both parts vanish.
        parts = difference.unflatten(-1, (2, difference.size(-1) // 2))
        return -torch.linalg.vector_norm(parts, dim=-2).sum(dim=-1)


@dataclass(frozen=True)
class ModulusPhase(Interaction):
    r"""HAKE's two-part distance,

    .. math::
        -\lambda_m \|\mathbf{w} \odot \mathbf{x}_m - \mathbf{q}_m\|_2
        - \lambda_p \sum_k |\sin((q_{p,k} - c\, x_{p,k}) / 2)|.

    Candidates hold :math:`[\mathbf{x}_m, \mathbf{x}_p]`, queries :math:`[\mathbf{q}_m, \mathbf{w}, \mathbf{q}_p]`, so a
    query is half as wide again as a candidate.

    Args:
        modulus_weight (float): :math:`\lambda_m`. (default: :obj:`1.0`)
        phase_weight (float): :math:`\lambda_p`. (default: :obj:`1.0`)
        phase_scale (float): :math:`c`, radians per stored unit of phase. (default: :obj:`math.pi`)
    """
    name: ClassVar[str] = 'modulus_phase'
    modulus_weight: float = 1.0
    phase_weight: float = 1.0
    phase_scale: float = math.pi

    def query_width(self, width: int) -> int:
        return width // 2 * 3

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        query_modulus, weight, query_phase = query.chunk(3, dim=-1)
        modulus, phase = candidates.chunk(2, dim=-1)
        modulus_distance = torch.linalg.vector_norm(weight * modulus - query_modulus, dim=-1)
        phase_distance = ((query_phase - self.phase_scale * phase) / 2).sin().abs().sum(dim=-1)
        return -(self.modulus_weight * modulus_distance + self.phase_weight * phase_distance)
