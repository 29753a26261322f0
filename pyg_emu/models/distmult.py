r"""DistMult: relations as diagonal matrices."""
from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyg_emu.core.interaction import Dot
from pyg_emu.models.base import KGEScorer


class DistMult(KGEScorer):
    r"""The DistMult model from the `"Embedding Entities and Relations for Learning and Inference in Knowledge Bases"
    <https://arxiv.org/abs/1412.6575>`_ paper:

    .. math::
        s(h, r, t) = \langle \mathbf{e}_h, \mathbf{e}_r, \mathbf{e}_t \rangle = \sum_k e_{h,k}\, e_{r,k}\, e_{t,k}

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations in the graph.
        hidden_channels (int): The hidden embedding size.
        margin (float, optional): :math:`\gamma`, which only sets the range of the initial embeddings.
            (default: :obj:`24.0`)
        sparse (bool, optional): If set to :obj:`True`, gradients w.r.t. the embedding tables are row-sparse.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If a size is not positive or :obj:`margin` is negative.
    """
    symmetric = True

    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        margin: float = 24.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(num_nodes, num_relations, hidden_channels, margin=margin, sparse=sparse)
        self.interaction = Dot()

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return self.node_emb(known) * self.rel_emb(rel_type)
