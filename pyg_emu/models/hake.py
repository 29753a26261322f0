r"""HAKE: entities in polar coordinates, with hierarchies as moduli."""
from __future__ import annotations

import math
from typing import Literal, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import non_negative, positive_integer
from pyg_emu.core.interaction import ModulusPhase
from pyg_emu.models.base import KGEScorer


class HAKE(KGEScorer):
    r"""The HAKE model from the `"Learning Hierarchy-Aware Knowledge Graph Embeddings for Link Prediction"
    <https://arxiv.org/abs/1911.09419>`_ paper, including the bias that its published experiments use:

    .. math::
        s(h, r, t) = \gamma - \lambda_m \| \mathbf{m}_h \odot (\mathbf{m}_r + \mathbf{b}_r) - \mathbf{m}_t \odot
        (1 - \mathbf{b}_r) \|_2 - \lambda_p\, \beta \sum_k |\sin((p_{h,k} + p_{r,k} - p_{t,k}) / 2)|,

    where :math:`\mathbf{m}_r` is the absolute value of the stored modulus, :math:`\mathbf{b}_r` is the stored bias
    clamped to :math:`[-\mathbf{m}_r, 1]`, and :math:`\beta = (\gamma + 2) / d` is the bound of the initial embeddings.
    As in the published experiments, and unlike in the paper's equations, the phase weight is multiplied by
    :math:`\beta`. Otherwise the sum over :math:`d` phases would be much larger than :math:`\gamma`. Stored phases are
    scaled such that :math:`\beta` stands for :math:`\pi`. Both weights are constants here, whereas the published
    experiments learn them.

    Entity rows are :math:`[\mathbf{m}, \mathbf{p}]` and relation rows are
    :math:`[\mathbf{p}, \mathbf{m}, \mathbf{b}]`. The factor of the candidate is :math:`(1 - \mathbf{b}_r)` for tails
    and :math:`(\mathbf{m}_r + \mathbf{b}_r)` for heads. Mutation replaces components of the modulus and of the phase
    independently, or both together with :obj:`tied=True`.

    The default values suit FB15k-237 with 1000 channels. On WN18RR, the paper uses :math:`\gamma = 6`, both weights
    0.5 and 500 channels.

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations in the graph.
        hidden_channels (int): The number of moduli and of phases, :math:`d`.
        margin (float, optional): :math:`\gamma`. (default: :obj:`9.0`)
        modulus_weight (float, optional): :math:`\lambda_m`. (default: :obj:`3.5`)
        phase_weight (float, optional): :math:`\lambda_p`. (default: :obj:`1.0`)
        sparse (bool, optional): If set to :obj:`True`, gradients w.r.t. the embedding tables are row-sparse.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If a size is not positive, or :obj:`margin` or a weight is negative.
    """
    interaction: ModulusPhase

    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        margin: float = 9.0,
        modulus_weight: float = 3.5,
        phase_weight: float = 1.0,
        sparse: bool = False,
    ) -> None:
        for name, weight in (('modulus_weight', modulus_weight), ('phase_weight', phase_weight)):
            non_negative(name, weight)
        hidden_channels = positive_integer('hidden_channels', hidden_channels)
        super().__init__(num_nodes, num_relations, hidden_channels, node_width=2 * hidden_channels,
                         rel_width=3 * hidden_channels, margin=margin, sparse=sparse)
        self.modulus_weight = modulus_weight
        self.phase_weight = phase_weight
        self.interaction = ModulusPhase(modulus_weight, phase_weight * self.init_bound, math.pi / self.init_bound)
        self.offset = self.margin

    def reset_parameters(self, generator: Optional[torch.Generator] = None) -> None:
        r"""Initializes entities and relation phases uniformly, relation moduli to one and relation biases to zero.

        Args:
            generator (torch.Generator, optional): The random generator. (default: :obj:`None`, PyTorch's default
                generator)
        """
        super().reset_parameters(generator)
        with torch.no_grad():
            _, modulus, bias = self.rel_emb.weight.chunk(3, dim=1)
            modulus.fill_(1.0)
            bias.zero_()

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        modulus, phase = self.node_emb(known).chunk(2, dim=-1)
        turn, scale, bias = self.rel_emb(rel_type).chunk(3, dim=-1)
        scale = scale.abs()
        bias = torch.maximum(bias.clamp(max=1.0), -scale)
        of_head, of_tail = scale + bias, 1.0 - bias
        unit = self.interaction.phase_scale
        # Both distances are symmetric, so a head is compared with t - r.
        if side == 'tail':
            return torch.cat([modulus * of_head, of_tail, unit * (phase + turn)], dim=-1)
        return torch.cat([modulus * of_tail, of_head, unit * (phase - turn)], dim=-1)
