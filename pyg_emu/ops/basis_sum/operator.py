r"""Message passing with relations that share a few bases, without a feature vector for each edge."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import instance, kind_of, on_device, tensors
from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled
from pyg_emu.ops.relational import EdgeOrders


@uncompiled
def basis_sum(x: Tensor, coefficient: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor] = None,
              backend: Optional[str] = None) -> Tensor:
    r"""Sums the features of the neighbours of each node once for each basis :math:`b`:

    .. math::
        \mathbf{y}_{vb} = \sum_{(u, r, v) \in \mathcal{E}} w_{(u, r, v)}\, a_{rb}\, \mathbf{x}_u.

    With the basis decomposition :math:`\mathbf{W}_r = \sum_b a_{rb} \mathbf{V}_b` (equation 3 of the `"Modeling
    Relational Data with Graph Convolutional Networks" <https://arxiv.org/abs/1703.06103>`_ paper), the messages of
    R-GCN are :math:`\sum_{(u, r, v)} w\, \mathbf{W}_r \mathbf{x}_u = \sum_b \mathbf{V}_b\, \mathbf{y}_{vb}`: the
    weights are multiplied once for each node instead of once for each edge or for each relation.

    The fused backend of the CPU reads the features of each edge once for all bases. On a GPU, bases are the rows of a
    batch of :func:`~pyg_emu.ops.relational_conv`. The output is differentiable once with respect to :obj:`x` and
    :obj:`coefficient`. Results are bitwise identical in every run and for any number of threads.

    Args:
        x (torch.Tensor): The node features. shape: :obj:`(V, D)`.
        coefficient (torch.Tensor): :math:`a`, the share of each basis in each relation. shape: :obj:`(R, B)`.
        edges (EdgeOrders): The graph, *e.g.*, :obj:`EdgeOrders.of(data)`.
        edge_weight (torch.Tensor, optional): :math:`w`, without gradient, in the order of :obj:`edge_index`. shape:
            :obj:`(E,)`. (default: :obj:`None`, ones)
        backend (str, optional): :obj:`"torch"`, :obj:`"numba"` or :obj:`"triton"`. (default: :obj:`None`, see
            :mod:`pyg_emu.ops.backend`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(V, B, D)`.

    Raises:
        ArgumentError: If a tensor has the wrong shape, dtype or device, or :obj:`edge_weight` requires a gradient.
        BackendError: If the requested backend is not available.
    """
    tensors(x=x, coefficient=coefficient)
    check_messages(x, edges, edge_weight)
    check_parameter('coefficient', coefficient, ('B',), x, edges)
    return load_backend('basis_sum', x, backend).run(x, coefficient, edges, edge_weight)


def check_messages(x: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor]) -> None:
    r"""Checks node features, a graph, and weights of its edges.

    Raises:
        ArgumentError: If a tensor has the wrong shape, dtype or device, or :obj:`edge_weight` requires a gradient.
    """
    tensors(x=x, optional=('edge_weight',), edge_weight=edge_weight)
    instance('edges', edges, EdgeOrders)
    if x.dim() != 2 or not x.is_floating_point():
        raise ArgumentError(f'x: expected a floating-point tensor of shape (V, D), got {kind_of(x)}')
    on_device('edges.by_target', edges.by_target.ptr, x.device, 'x')
    for name, order in (('by_target', edges.by_target), ('by_source', edges.by_source)):
        if order.ptr.numel() != x.size(0) + 1:
            raise ArgumentError(f'edges.{name}: expected {x.size(0)} nodes as in x, got {order.ptr.numel() - 1}')
    if edge_weight is None:
        return
    num_edges = edges.by_target.edge_id.numel()
    if tuple(edge_weight.shape) != (num_edges,):
        raise ArgumentError(f'edge_weight: expected shape {(num_edges,)}, got {tuple(edge_weight.shape)}')
    if edge_weight.requires_grad and torch.is_grad_enabled():
        raise ArgumentError('edge_weight: expected a tensor without gradient, got one that requires a gradient; pass '
                            'edge_weight.detach()')
    _check_like('edge_weight', edge_weight, x)


def check_parameter(name: str, value: Tensor, sizes: tuple[str, ...], x: Tensor, edges: EdgeOrders) -> None:
    r"""Checks a tensor with one entry for each relation.

    Args:
        name (str): Its name, for the message.
        value (torch.Tensor): The tensor.
        sizes (tuple of str): The names of its other sizes.
        x (torch.Tensor): The node features.
        edges (EdgeOrders): The graph.

    Raises:
        ArgumentError: If it has the wrong shape, dtype or device.
    """
    num_relations = edges.by_relation.ptr.numel() - 1
    if value.dim() != 1 + len(sizes) or value.size(0) != num_relations:
        raise ArgumentError(f'{name}: expected shape ({num_relations}, {", ".join(sizes)}) for {num_relations} edge '
                            f'types, got {tuple(value.shape)}')
    _check_like(name, value, x)


def _check_like(name: str, value: Tensor, x: Tensor) -> None:
    if value.dtype != x.dtype:
        raise ArgumentError(f'{name}: expected {x.dtype} like x, got {value.dtype}')
    on_device(name, value, x.device, 'x')
