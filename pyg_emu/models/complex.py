r"""ComplEx: relations as complex diagonal matrices."""
from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyg_emu.core.arguments import positive_integer
from pyg_emu.core.complex_rows import conjugate, multiply
from pyg_emu.core.interaction import Dot
from pyg_emu.models.base import KGEScorer


class ComplEx(KGEScorer):
    r"""The ComplEx model from the `"Complex Embeddings for Simple Link Prediction" <https://arxiv.org/abs/1606.06357>`_
    paper:

    .. math::
        s(h, r, t) = \mathrm{Re}(\langle \mathbf{e}_h, \mathbf{e}_r, \overline{\mathbf{e}}_t \rangle)

    Rows of both tables are :math:`[\mathrm{re}, \mathrm{im}]`, :obj:`2 * hidden_channels` wide. On these rows,
    :math:`\mathrm{Re}(\mathbf{q} \cdot \overline{\mathbf{x}})` is a real dot product. The query is
    :math:`\mathbf{e}_h \odot \mathbf{e}_r` for tails and :math:`\mathbf{e}_t \odot \overline{\mathbf{e}}_r` for heads.

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations in the graph.
        hidden_channels (int): The number of complex components.
        margin (float, optional): :math:`\gamma`, which only sets the range of the initial embeddings.
            (default: :obj:`24.0`)
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
        super().__init__(num_nodes, num_relations, hidden_channels, node_width=width, rel_width=width, margin=margin,
                         sparse=sparse)
        self.interaction = Dot()

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        entity, relation = self.node_emb(known), self.rel_emb(rel_type)
        return multiply(entity, relation if side == 'tail' else conjugate(relation))
