r"""TransE: relations as translations."""
from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyg_emu.core.arguments import is_number, shown
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import L1, L2
from pyg_emu.models.base import KGEScorer


class TransE(KGEScorer):
    r"""The TransE model from the `"Translating Embeddings for Modeling Multi-Relational Data"
    <https://proceedings.neurips.cc/paper/2013/file/1cecc7a77928ca8133fa24680a88d2f9-Paper.pdf>`_ paper, with the score
    of the EMU experiments:

    .. math::
        s(h, r, t) = \gamma - \| \mathbf{e}_h + \mathbf{e}_r - \mathbf{e}_t \|_p

    Unlike in :class:`torch_geometric.nn.TransE`, entity embeddings are not normalized. :math:`\gamma` cancels in a
    softmax, but affects losses of individual scores (binary cross-entropy, self-adversarial).

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations in the graph.
        hidden_channels (int): The hidden embedding size.
        margin (float, optional): :math:`\gamma`. (default: :obj:`24.0`)
        p_norm (int, optional): :math:`p`, 1 or 2. (default: :obj:`1`)
        sparse (bool, optional): If set to :obj:`True`, gradients w.r.t. the embedding tables are row-sparse.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`p_norm` is neither 1 nor 2, a size is not positive or :obj:`margin` is negative.
    """
    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        margin: float = 24.0,
        p_norm: int = 1,
        sparse: bool = False,
    ) -> None:
        if not is_number(p_norm) or p_norm not in (1, 2):
            raise ArgumentError(f'p_norm: expected 1 or 2, got {shown(p_norm)}')
        super().__init__(num_nodes, num_relations, hidden_channels, margin=margin, sparse=sparse)
        self.p_norm = p_norm
        self.interaction = L1() if p_norm == 1 else L2()
        self.offset = self.margin

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        # The distance is symmetric, so h + r - t is compared as h - (t - r) if the head is predicted.
        entity, relation = self.node_emb(known), self.rel_emb(rel_type)
        return entity + relation if side == 'tail' else entity - relation
