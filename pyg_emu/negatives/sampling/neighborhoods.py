r"""Neighbourhoods in a graph: exact ones of a number of hops, and those that random walks find."""
from __future__ import annotations

from typing import Callable, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor
from torch_geometric.index import index2ptr
from torch_geometric.utils import remove_self_loops, to_undirected

from pyg_emu.core.entries import entries
from pyg_emu.core.errors import ArgumentError

# Pairs of entities that are worked on at a time: what bounds the memory of the searches.
_BLOCK = 2**24


class Neighborhoods(NamedTuple):
    r"""The neighbourhood of each entity, without itself: that of :obj:`i` is :obj:`entity[ptr[i]:ptr[i + 1]]`.

    Args:
        ptr (torch.Tensor): Where neighbourhoods begin. shape: :obj:`(V + 1,)`, int64.
        entity (torch.Tensor): Their entities, ascending within each; never empty, so that it can be read from.
            dtype: int32.
    """
    ptr: Tensor
    entity: Tensor

    def size(self, row: Tensor) -> Tensor:
        r"""Sizes of the neighbourhoods of :obj:`row` :obj:`(...)`. shape: :obj:`(...)`."""
        return self.ptr[row + 1] - self.ptr[row]

    def at(self, row: Tensor, place: Tensor) -> Tensor:
        r"""The entities at :obj:`place` :obj:`(B, N)` in the neighbourhoods of :obj:`row` :obj:`(B,)`; some entity
        where there is no such place. shape: :obj:`(B, N)`, int64.
        """
        place = (self.ptr[row].unsqueeze(1) + place).clamp_(max=self.entity.numel() - 1)
        return entries(self.entity, place).long()

    def find(self, row: Tensor, entity: Tensor) -> tuple[Tensor, Tensor]:
        r"""Whether each :obj:`entity` :obj:`(B,)` is in the neighbourhood of its :obj:`row` :obj:`(B,)`, and at which
        place.
        """
        start, end = self.ptr[row], self.ptr[row + 1]
        low, high = start, end
        # Bisection in all rows at once: keys of (row, entity) would need twice the memory of the entities.
        for _ in range(self.ptr.numel().bit_length()):
            middle = torch.div(low + high, 2, rounding_mode='floor')
            right = (low < high) & (self.entity[middle.clamp(max=self.entity.numel() - 1)] < entity)
            low, high = torch.where(right, middle + 1, low), torch.where(right, high, middle)
        found = (low < end) & (self.entity[low.clamp(max=self.entity.numel() - 1)] == entity)
        return found, low - start


class _Adjacency(NamedTuple):
    r"""Distinct neighbours in the undirected graph; an entity without one neighbours itself."""
    ptr: Tensor
    edge_index: Tensor

    @classmethod
    def of(cls, facts: Tensor, num_nodes: int) -> _Adjacency:
        edge_index, _ = remove_self_loops(facts[:, [0, 2]].t())
        alone = (torch.bincount(edge_index.flatten(), minlength=num_nodes) == 0).nonzero().squeeze(1)
        edge_index = to_undirected(torch.cat([edge_index, alone.expand(2, -1)], dim=1), num_nodes=num_nodes)
        return cls(index2ptr(edge_index[0], num_nodes), edge_index)


def k_hop_neighborhoods(facts: Tensor, num_nodes: int, num_hops: int, max_size: Optional[int] = None) -> Neighborhoods:
    r"""All entities within some hops. For a block of entities at a time, the bits of who is reached from which of them
    are merged along the edges, once a hop, on the CPU.

    Args:
        facts (torch.Tensor): Facts with columns head, relation, tail; taken as undirected. shape: :obj:`(F, 3)`.
        num_nodes (int): Number of entities :math:`V`.
        num_hops (int): Hops, at least 1.
        max_size (int, optional): The largest sum of all sizes to go on with; four bytes are held of each.
            (default: :obj:`None`, :math:`V^2` at most)

    Raises:
        ArgumentError: If the neighbourhoods are larger than :obj:`max_size` together.
    """
    adjacency = _Adjacency.of(facts.cpu(), num_nodes)
    neighbor, first = adjacency.edge_index[1].numpy(), adjacency.ptr[:-1].numpy()

    def search(row: Tensor) -> Tensor:
        column = np.arange(row.numel())
        bits = np.zeros((num_nodes, -(-row.numel() // 64)), dtype=np.uint64)
        # Row i holds from which of the block's entities i is reached, at first only from itself.
        bits[row.numpy(), column // 64] = np.left_shift(np.uint64(1), (column % 64).astype(np.uint64))
        for _ in range(num_hops):
            # No segment is empty, which reduceat would not understand: everyone has a neighbour.
            bits |= np.bitwise_or.reduceat(bits[neighbor], first, axis=0)
        reached = np.unpackbits(bits.view(np.uint8), axis=1, count=row.numel(), bitorder='little')
        return torch.from_numpy(reached).t().bool()

    near = _collect(search, num_nodes, torch.device('cpu'), max_size)
    return Neighborhoods(near.ptr.to(facts.device), near.entity.to(facts.device))


def walk_neighborhoods(facts: Tensor, num_nodes: int, length: int, num_walks: int,
                       generator: Optional[torch.Generator] = None) -> Neighborhoods:
    r"""The distinct entities that random walks from each entity visit. A step goes to each distinct neighbour with the
    same probability. All walks of a block of entities take their steps together.

    Args:
        facts (torch.Tensor): Facts with columns head, relation, tail; taken as undirected. shape: :obj:`(F, 3)`.
        num_nodes (int): Number of entities :math:`V`.
        length (int): Steps of a walk, at least 1.
        num_walks (int): Walks from each entity, at least 1. At most :obj:`4 * V * length * num_walks` bytes are kept.
        generator (torch.Generator, optional): The random stream.
    """
    adjacency = _Adjacency.of(facts, num_nodes)
    neighbor, first = adjacency.edge_index[1], adjacency.ptr[:-1]
    degree = adjacency.ptr.diff()

    def search(row: Tensor) -> Tensor:
        visited = torch.zeros(row.numel() * num_nodes, dtype=torch.bool, device=row.device)
        begin = torch.arange(row.numel(), device=row.device).mul_(num_nodes)
        for done in range(0, num_walks, max(_BLOCK // row.numel(), 1)):
            walks = min(num_walks - done, max(_BLOCK // row.numel(), 1))
            walk(row.repeat_interleave(walks), begin.repeat_interleave(walks), visited)
        return visited.view(-1, num_nodes)

    def walk(current: Tensor, begin: Tensor, visited: Tensor) -> None:
        for _ in range(length):
            choices = degree.index_select(0, current)
            step = (torch.rand(current.numel(), generator=generator, device=current.device) * choices).long()
            # Rounding may make the product as large as the degree.
            place = first.index_select(0, current) + torch.minimum(step, choices - 1)
            current = neighbor.index_select(0, place)
            visited.index_fill_(0, begin + current, True)

    return _collect(search, num_nodes, facts.device)


def _collect(search: Callable[[Tensor], Tensor], num_nodes: int, device: torch.device,
             max_size: Optional[int] = None) -> Neighborhoods:
    r"""Stores what a search reaches, :obj:`(C, V)` for :obj:`C` entities, without these entities themselves."""
    ends, entities, total = [torch.zeros(1, dtype=torch.int64, device=device)], [], 0
    for row in torch.arange(num_nodes, device=device).split(max(_BLOCK // max(num_nodes, 1), 1)):
        reached = search(row).contiguous()
        reached[torch.arange(row.numel(), device=device), row] = False
        place = reached.view(-1).nonzero().squeeze(1)
        ends.append(total + torch.searchsorted(place, torch.arange(1, row.numel() + 1, device=device) * num_nodes))
        entities.append((place % num_nodes).int())
        total += entities[-1].numel()
        if max_size is not None and total > max_size:
            done = (int(row[-1]) + 1) / num_nodes
            raise ArgumentError(f'the neighbourhoods of {done:.0%} of the {num_nodes} entities hold {total} entities, '
                                f'and max_size allows {max_size}: take fewer hops or random walks, or allow more (four '
                                f'bytes each)')
    if total == 0:
        entities.append(torch.zeros(1, dtype=torch.int32, device=device))
    return Neighborhoods(torch.cat(ends), torch.cat(entities))
