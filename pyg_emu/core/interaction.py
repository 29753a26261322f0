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
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor

from pyg_emu.core.complex_rows import modulus
from pyg_emu.core.errors import ArgumentError


@dataclass(frozen=True)
class Interaction:
    r"""Base class of :math:`\phi(\mathbf{q}, \mathbf{x})`.

    Instances are immutable, compare by value and serve as cache keys for compiled kernels.

    An interaction of your own implements :meth:`__call__` and overrides the class attributes that differ from their
    defaults:

    .. code-block:: python

        @dataclass(frozen=True)
        class L3(Interaction):
            distance_order = 3.0

            def __call__(self, query, candidates):
                return -torch.linalg.vector_norm(query - candidates, ord=3, dim=-1)

    The fused kernels support only the interactions of this module. All others, including subclasses of these, run in
    PyTorch. Parameters that are trained belong in queries and candidates, not in the interaction.

    The attributes :attr:`matrix_product` and :attr:`distance_order` state a fact about the formula, so a subclass that
    overrides :meth:`__call__` does not inherit them; neither is :attr:`name` inherited.
    """
    #: Name in messages, and of the kernels of those interactions that have any. (default: the name of the class)
    name: ClassVar[str] = 'interaction'
    #: Number of equally wide parts of a candidate row, such as 2 for :math:`[\mathrm{re}, \mathrm{im}]`; the width of
    #: a row has to be a multiple of it.
    parts: ClassVar[int] = 1
    #: Number of parts of the same width in a query.
    query_parts: ClassVar[int] = 1
    #: Whether the score holds a square root of a sum, which a kernel has to keep for the gradient.
    has_norm: ClassVar[bool] = False
    #: Whether :math:`\phi` is the dot product :math:`\mathbf{q} \cdot \mathbf{x}`, so that the scores of all
    #: entities are one matrix product.
    matrix_product: ClassVar[bool] = False
    #: The :math:`p` of interactions :math:`-\|\mathbf{q} - \mathbf{x}\|_p`, which :func:`torch.cdist` computes for
    #: all entities without a vector for each pair.
    distance_order: ClassVar[Optional[float]] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if 'name' not in own:
            cls.name = cls.__name__
        if '__call__' in own:
            cls.matrix_product = own.get('matrix_product', False)
            cls.distance_order = own.get('distance_order')

    def query_width(self, width: int) -> int:
        r"""Number of query components that go with candidates of :obj:`width` components."""
        return width // self.parts * self.query_parts

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        r"""Returns :math:`\phi` over the last dimension, broadcasting over the others.

        Args:
            query (torch.Tensor): The queries. shape: :obj:`(..., query_width)`.
            candidates (torch.Tensor): The candidates. shape: :obj:`(..., width)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(...)`.
        """
        raise NotImplementedError


def check_interaction(interaction: Any, table: Tensor) -> None:
    r"""Checks that an interaction is one, and that the rows of a table can be divided into its parts.

    Args:
        interaction (Interaction): The argument :obj:`interaction`.
        table (torch.Tensor): The argument :obj:`table`. shape: :obj:`(V, d)`.

    Raises:
        ArgumentError: If either is not the case.
    """
    if not isinstance(interaction, Interaction):
        raise ArgumentError(f'interaction: expected an instance of Interaction, got {interaction!r}')
    if table.size(1) % interaction.parts != 0:
        raise ArgumentError(f"table: expected a multiple of {interaction.parts} columns for interaction "
                            f"'{interaction.name}', got {table.size(1)}")


@dataclass(frozen=True)
class Dot(Interaction):
    r""":math:`\sum_k q_k x_k` (DistMult; ComplEx on :math:`[\mathrm{re}, \mathrm{im}]`)."""
    name: ClassVar[str] = 'dot'
    matrix_product: ClassVar[bool] = True

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return (query * candidates).sum(dim=-1)


@dataclass(frozen=True)
class L1(Interaction):
    r""":math:`-\|\mathbf{q} - \mathbf{x}\|_1` (TransE)."""
    name: ClassVar[str] = 'l1'
    distance_order: ClassVar[Optional[float]] = 1.0

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -(query - candidates).abs().sum(dim=-1)


@dataclass(frozen=True)
class L2(Interaction):
    r""":math:`-\|\mathbf{q} - \mathbf{x}\|_2` (TransE; PyG's RotatE)."""
    name: ClassVar[str] = 'l2'
    has_norm: ClassVar[bool] = True
    distance_order: ClassVar[Optional[float]] = 2.0

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -torch.linalg.vector_norm(query - candidates, dim=-1)


@dataclass(frozen=True)
class ComplexModulus(Interaction):
    r""":math:`-\sum_k |q_k - x_k|` with complex components (RotatE).

    Rows hold all real parts and then all imaginary parts: :math:`[\mathrm{re}, \mathrm{im}]`.
    """
    name: ClassVar[str] = 'modulus'
    parts: ClassVar[int] = 2
    query_parts: ClassVar[int] = 2

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -modulus(query - candidates).sum(dim=-1)


@dataclass(frozen=True)
class ModulusPhase(Interaction):
    r"""HAKE's two-part distance,

    .. math::
        -\lambda_m \|\mathbf{w} \odot \mathbf{x}_m - \mathbf{q}_m\|_2
        - \lambda_p \sum_k |\sin((q_{p,k} - c\, x_{p,k}) / 2)|.

    Candidates hold :math:`[\mathbf{x}_m, \mathbf{x}_p]`, queries :math:`[\mathbf{q}_m, \mathbf{w}, \mathbf{q}_p]`, so a
    query is half as wide again as a candidate.

    Args:
        modulus_weight (float, optional): :math:`\lambda_m`. (default: :obj:`1.0`)
        phase_weight (float, optional): :math:`\lambda_p`. (default: :obj:`1.0`)
        phase_scale (float, optional): :math:`c`, radians per stored unit of phase. (default: :obj:`math.pi`)
    """
    name: ClassVar[str] = 'modulus_phase'
    parts: ClassVar[int] = 2
    query_parts: ClassVar[int] = 3
    has_norm: ClassVar[bool] = True
    modulus_weight: float = 1.0
    phase_weight: float = 1.0
    phase_scale: float = math.pi

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        query_modulus, weight, query_phase = query.chunk(3, dim=-1)
        modulus, phase = candidates.chunk(2, dim=-1)
        modulus_distance = torch.linalg.vector_norm(weight * modulus - query_modulus, dim=-1)
        phase_distance = ((query_phase - self.phase_scale * phase) / 2).sin().abs().sum(dim=-1)
        return -(self.modulus_weight * modulus_distance + self.phase_weight * phase_distance)
