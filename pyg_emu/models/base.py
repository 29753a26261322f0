r"""The base class of the embedding models in this package."""
from __future__ import annotations

from typing import ClassVar, Iterator, Optional

import torch
from torch import Tensor
from torch.nn import Embedding
from torch.nn import functional as F
from torch_geometric.nn.kge import KGEModel

from pyg_emu.core.arguments import boolean, non_negative, positive_integer, same_length_ids
from pyg_emu.core.contract import ScorerMixin, Side
from pyg_emu.core.memory import check_fits, memory_reported
from pyg_emu.core.row_gradients import look_up


class KGEScorer(ScorerMixin, KGEModel):
    r"""Base class of :class:`torch_geometric.nn.kge.KGEModel` models that factor into queries and candidates
    (:class:`~pyg_emu.Scorer`). Subclasses set :attr:`interaction` and :attr:`offset` and implement :meth:`_query`.

    A model has an entity table :attr:`node_emb` and a relation table :attr:`rel_emb`. The rows of complex models are
    :math:`[\mathrm{re}, \mathrm{im}]`: all real parts, then all imaginary parts, :obj:`2 * hidden_channels` values in
    total.

    Both tables are initialized uniformly in :math:`\pm (\gamma + 2) / d`. This follows the training setup of the
    `"RotatE" <https://arxiv.org/abs/1902.10197>`_ paper, which the EMU experiments use.

    .. code-block:: python

        from pyg_emu.core.interaction import L1

        class MyTransE(KGEScorer):  # margin - |h + r - t|
            interaction = L1()

            def __init__(self, num_nodes, num_relations, hidden_channels, margin=24.0, sparse=False):
                super().__init__(num_nodes, num_relations, hidden_channels, margin=margin, sparse=sparse)
                self.offset = self.margin

            def _query(self, known, rel_type, side):  # known entities: heads if side is 'tail', else tails
                entity, relation = self.node_emb(known), self.rel_emb(rel_type)
                return entity + relation if side == 'tail' else entity - relation

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations in the graph.
        hidden_channels (int): The hidden embedding size :math:`d`.
        node_width (int, optional): The width of an entity row. (default: :obj:`hidden_channels`)
        rel_width (int, optional): The width of a relation row. (default: :obj:`hidden_channels`)
        margin (float, optional): :math:`\gamma`. (default: :obj:`24.0`)
        sparse (bool, optional): If set to :obj:`True`, gradients w.r.t. the embedding tables are row-sparse.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If a size is not a positive integer, or :obj:`margin` is negative, infinite or NaN.
    """
    #: Recipes cannot name this class itself.
    recipe_name: ClassVar[Optional[str]] = None

    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        *,
        node_width: Optional[int] = None,
        rel_width: Optional[int] = None,
        margin: float = 24.0,
        sparse: bool = False,
    ) -> None:
        sizes = {'num_nodes': num_nodes, 'num_relations': num_relations, 'hidden_channels': hidden_channels}
        sizes = {name: positive_integer(name, value) for name, value in sizes.items()}
        num_nodes, num_relations, hidden_channels = sizes.values()
        node_width, rel_width = (hidden_channels if width is None else positive_integer(name, width) for name, width in
                                 (('node_width', node_width), ('rel_width', rel_width)))
        non_negative('margin', margin)
        sparse = boolean('sparse', sparse)
        # The tables of KGEModel have the wrong width for complex models and a normal initialization. The meta device
        # avoids their memory and does not advance the random generator.
        with torch.device('meta'):
            super().__init__(num_nodes, num_relations, hidden_channels, sparse)
        self.margin = float(margin)
        self.sparse = sparse
        sizes.update(node_width=node_width, rel_width=rel_width)
        task, remedy = f'a model of {", ".join(f"{n}={size}" for n, size in sizes.items())}', 'lower hidden_channels'
        if torch.get_default_device().type == 'cpu':
            floats = num_nodes * node_width + num_relations * rel_width
            check_fits(floats * torch.get_default_dtype().itemsize, task, remedy)
        with memory_reported(task, remedy):
            self.node_emb = _empty_table(num_nodes, node_width, sparse)
            self.rel_emb = _empty_table(num_relations, rel_width, sparse)
        self.reset_parameters()

    @property
    def init_bound(self) -> float:
        r""":math:`(\gamma + 2) / d`, the bound of the initial embeddings."""
        return (self.margin + 2.0) / self.hidden_channels

    def reset_parameters(self, generator: Optional[torch.Generator] = None) -> None:
        r"""Initializes both tables uniformly in :math:`\pm (\gamma + 2) / d`.

        Args:
            generator (torch.Generator, optional): The random generator. (default: :obj:`None`, PyTorch's default
                generator)
        """
        with torch.no_grad():
            for weight in self.embedding_weights():
                weight.uniform_(-self.init_bound, self.init_bound, generator=generator)

    def entity_table(self) -> Tensor:
        return self.node_emb.weight

    def _candidates(self, index: Tensor) -> Tensor:
        # Only a lookup through the embedding layer, not indexing, gives row-sparse gradients with sparse=True.
        return self.node_emb(index)

    def _device(self) -> Optional[torch.device]:
        return self.node_emb.weight.device

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        return self.rel_emb(rel_type)

    def relation_parameters(self, rows: Tensor) -> Tensor:
        r"""Returns the rows of :attr:`rel_emb` that give these :meth:`relation_rows`. A class that overrides one of the
        two overrides the other.

        Args:
            rows (torch.Tensor): Rows as :meth:`relation_rows` returns them. shape: :obj:`(n, d_r)`.
        """
        return rows

    def embedding_weights(self) -> Iterator[Tensor]:
        yield self.node_emb.weight
        yield self.rel_emb.weight

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        self._check_triples(head_index, rel_type, tail_index)
        return self.triple_score(head_index, rel_type, tail_index)

    def _check_triples(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> None:
        same_length_ids(head_index=(head_index, self.num_nodes), rel_type=(rel_type, self.num_relations),
                        tail_index=(tail_index, self.num_nodes))

    def loss(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Returns the binary cross-entropy with one random negative for each triplet, as PyG's own training loops
        expect.

        The losses in :mod:`pyg_emu.losses` use many negatives and support mutation, so prefer them.
        """
        self._check_triples(head_index, rel_type, tail_index)
        positive = self(head_index, rel_type, tail_index)
        negative = self(*self.random_sample(head_index, rel_type, tail_index))
        scores = torch.cat([positive, negative])
        target = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)])
        return F.binary_cross_entropy_with_logits(scores, target)


class _Table(Embedding):
    r"""An embedding layer whose look-ups may have row-sparse gradients beside an operator with a dense one."""
    def forward(self, index: Tensor) -> Tensor:
        return look_up(self.weight, index, self.sparse)


def _empty_table(rows: int, width: int, sparse: bool) -> Embedding:
    return _Table.from_pretrained(torch.empty(rows, width), freeze=False, sparse=sparse)


def materialise(model: torch.nn.Module) -> bool:
    r"""Gives memory on the CPU to parameters on the device meta; returns whether there were any."""
    found = False
    for part in model.modules():
        for name, value in [*part.named_parameters(recurse=False)]:
            if value.is_meta:
                setattr(part, name, torch.nn.Parameter(torch.empty_like(value, device='cpu'), value.requires_grad))
                found = True
    return found
