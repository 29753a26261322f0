r"""RotatE: relations as rotations."""
from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from pyg_emu.core.arguments import positive_integer
from pyg_emu.core.complex_rows import conjugate, multiply, unit
from pyg_emu.core.contract import Side
from pyg_emu.core.interaction import ComplexModulus
from pyg_emu.models.base import KGEScorer


class RotatE(KGEScorer):
    r"""The RotatE model from the `"RotatE: Knowledge Graph Embedding by Relational Rotation in Complex Space"
    <https://arxiv.org/abs/1902.10197>`_ paper:

    .. math::
        s(h, r, t) = \gamma - \sum_k | e_{h,k}\, \mathrm{e}^{\mathrm{i} \theta_{r,k}} - e_{t,k} |

    The score sums the moduli of the complex components, unlike :class:`torch_geometric.nn.RotatE`, which takes one
    :math:`L_2` norm over all real and imaginary parts. Entity rows are :math:`[\mathrm{re}, \mathrm{im}]`,
    :obj:`2 * hidden_channels` wide. The relation table stores phases, scaled such that the bound
    :math:`(\gamma + 2) / d` of the initial embeddings stands for :math:`\pi`. One learning rate then suits both tables.

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations in the graph.
        hidden_channels (int): The number of complex components.
        margin (float, optional): :math:`\gamma`. (default: :obj:`24.0`)
        sparse (bool, optional): If set to :obj:`True`, gradients w.r.t. the embedding tables are row-sparse.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If a size is not positive or :obj:`margin` is negative.
    """
    complex_rows = True

    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        margin: float = 24.0,
        sparse: bool = False,
    ) -> None:
        width = 2 * positive_integer('hidden_channels', hidden_channels)
        super().__init__(num_nodes, num_relations, hidden_channels, node_width=width, margin=margin, sparse=sparse)
        self.interaction = ComplexModulus()
        self.offset = self.margin

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        # A rotation preserves the modulus, so |h r - t| equals |h - conj(r) t|.
        rotation = self.relation_rows(rel_type, side)
        return multiply(self.node_emb(known), rotation if side == 'tail' else conjugate(rotation))

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        return unit(self.rel_emb(rel_type) * (math.pi / self.init_bound))

    def relation_parameters(self, rows: Tensor) -> Tensor:
        re, im = rows.chunk(2, dim=-1)
        return torch.atan2(im, re) * (self.init_bound / math.pi)
