r"""One layer of R-GCN."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot, zeros

from pyg_emu.core.arguments import boolean, instance, positive_integer, tensors
from pyg_emu.core.errors import ArgumentError
from pyg_emu.models.encoders.messages import MessageGraph
from pyg_emu.ops.basis_sum import basis_sum
from pyg_emu.ops.relation_blocks import block_sum


class RGCNLayer(torch.nn.Module):
    r"""The layer of the `"Modeling Relational Data with Graph Convolutional Networks"
    <https://arxiv.org/abs/1703.06103>`_ paper, with the messages of each relation averaged:

    .. math::
        \mathbf{x}'_v = \mathbf{W}_0 \mathbf{x}_v + \mathbf{b} + \sum_{r} \sum_{u \in \mathcal{N}_v^r}
        \frac{1}{|\mathcal{N}_v^r|} \mathbf{W}_r \mathbf{x}_u.

    The weights are :math:`\mathbf{W}_r = \sum_b a_{rb} \mathbf{V}_b` with :obj:`num_bases`, block-diagonal with
    :obj:`num_blocks`, and independent of one another without either. Parameters have the names and shapes of
    :class:`torch_geometric.nn.RGCNConv`, so that the two load each other's :meth:`state_dict`. Neither form creates a
    feature vector for each edge.

    Args:
        in_channels (int): The width of the input.
        out_channels (int): The width of the output.
        num_relations (int): The number of edge types.
        num_bases (int, optional): The number of bases. (default: :obj:`None`)
        num_blocks (int, optional): The number of blocks. (default: :obj:`None`)
        root_weight (bool, optional): Whether there is :math:`\mathbf{W}_0`. (default: :obj:`True`)
        bias (bool, optional): Whether there is :math:`\mathbf{b}`. (default: :obj:`True`)

    Raises:
        ArgumentError: If a number is not positive, both :obj:`num_bases` and :obj:`num_blocks` are given, or a width is
            no multiple of :obj:`num_blocks`.
    """
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        num_bases: Optional[int] = None,
        num_blocks: Optional[int] = None,
        root_weight: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        in_channels = positive_integer('in_channels', in_channels)
        out_channels = positive_integer('out_channels', out_channels)
        num_relations = positive_integer('num_relations', num_relations)
        num_bases, num_blocks = (None if number is None else positive_integer(name, number) for name, number in
                                 (('num_bases', num_bases), ('num_blocks', num_blocks)))
        if num_bases is not None and num_blocks is not None:
            raise ArgumentError(f'num_blocks: expected None beside num_bases={num_bases}, or num_bases=None, got '
                                f'{num_blocks}')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.num_bases = num_bases
        self.num_blocks = num_blocks
        if num_bases is not None:
            self.weight = Parameter(torch.empty(num_bases, in_channels, out_channels))
            self.comp = Parameter(torch.empty(num_relations, num_bases))
        elif num_blocks is not None:
            if in_channels % num_blocks != 0 or out_channels % num_blocks != 0:
                raise ArgumentError(f'num_blocks: expected a divisor of in_channels={in_channels} and '
                                    f'out_channels={out_channels}, got {num_blocks}')
            self.weight = Parameter(torch.empty(num_relations, num_blocks, in_channels // num_blocks,
                                                out_channels // num_blocks))
        else:
            self.weight = Parameter(torch.empty(num_relations, in_channels, out_channels))
        self.root = Parameter(torch.empty(in_channels, out_channels)) if boolean('root_weight', root_weight) else None
        self.bias = Parameter(torch.empty(out_channels)) if boolean('bias', bias) else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all parameters, as :class:`torch_geometric.nn.RGCNConv` does."""
        glorot(self.weight)
        if self.num_bases is not None:
            glorot(self.comp)
        glorot(self.root)
        zeros(self.bias)

    def forward(self, x: Tensor, graph: MessageGraph) -> Tensor:
        r"""Computes new features of all nodes.

        Args:
            x (torch.Tensor): The features. shape: :obj:`(V, in_channels)`.
            graph (MessageGraph): The edges and their weights.

        :rtype: :class:`torch.Tensor` of shape :obj:`(V, out_channels)`.

        Raises:
            ArgumentError: If an argument is of another type, shape or device, or the graph has more relations.
        """
        tensors(x=x)
        instance('graph', graph, MessageGraph)
        if x.dim() != 2 or x.size(1) != self.in_channels:
            raise ArgumentError(f'x: expected shape (V, {self.in_channels}), got {tuple(x.shape)}')
        if torch.is_autocast_enabled(x.device.type):
            # The features of a layer before this one may be narrower than the weights.
            x = x.to(self.weight.dtype)
        share = graph.weight_as(x)
        # A graph may have fewer relations than the layer.
        used = graph.edges.by_relation.ptr.numel() - 1
        if used > self.num_relations:
            raise ArgumentError(f'graph: expected at most {self.num_relations} edge types as in the layer, got {used}')
        if self.num_bases is not None:
            summed = basis_sum(x, self.comp[:used], graph.edges, share)
            out = summed.flatten(1) @ self.weight.flatten(0, 1)
        else:
            blocks = self.weight if self.num_blocks is not None else self.weight.unsqueeze(1)
            out = block_sum(x, blocks[:used], graph.edges, share)
        if self.root is not None:
            out = out + x @ self.root
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        decomposition = {'num_bases': self.num_bases, 'num_blocks': self.num_blocks}
        given = ''.join(f', {name}={value}' for name, value in decomposition.items() if value is not None)
        return f'{self.in_channels}, {self.out_channels}, num_relations={self.num_relations}{given}'
