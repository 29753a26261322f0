r"""Sparse indices of facts: known tails of :math:`(h, r)`, known heads of :math:`(r, t)`, and sorted edges.

Filters, neighbour samplers, ranking and message passing share these two structures, so each is built only once.
"""
from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Literal, NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor
from torch_geometric.index import Index

from pyg_emu.core.arguments import non_negative_integer, tensors
from pyg_emu.core.contract import Side
from pyg_emu.core.entries import entries
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.ops.searchsorted import searchsorted

_INT64_MAX = 2**63 - 1
# Patterns are numbered where keys would be larger.
_LARGEST_KEY = _INT64_MAX
# 2^64 divided by the golden ratio as a signed integer, for Fibonacci hashing.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
# For fewer look-ups, binary search is faster than checking the filter first.
_FILTER_FROM = 4096
# The filter is built once this share of the keys has been looked up: writing a key to it costs a fraction of a search,
# and it takes more memory than the keys.
_FILTER_SHARE = 1 / 16
# The number of facts that are processed at a time, so that building an index needs little memory beside its result.
_CHUNK = 2**22


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    r"""Creates ordinary tensors inside of :func:`torch.inference_mode`. Cached indices outlive the block in which they
    are built, and autograd does not accept inference tensors.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


class Stamp(NamedTuple):
    r"""The inputs that cached indices were built from: tensors, their version counters, and sizes."""
    tensors: tuple[Optional[weakref.ref[Tensor]], ...]
    versions: tuple[int, ...]
    sizes: tuple[Any, ...]

    @classmethod
    def of(cls, tensors: Sequence[Optional[Tensor]], sizes: Sequence[Any]) -> Stamp:
        # Inference tensors cannot be modified outside of inference mode and have no version counter.
        versions = (-1 if value is None or value.is_inference() else value._version for value in tensors)
        references = (None if value is None else weakref.ref(value) for value in tensors)
        return cls(tuple(references), tuple(versions), tuple(sizes))

    def matches(self, other: Stamp) -> bool:
        r"""Returns whether the tensors are the same objects and unmodified, and the sizes are equal."""
        same = (a is b if a is None or b is None else a() is b() for a, b in zip(self.tensors, other.tensors))
        return self.versions == other.versions and self.sizes == other.sizes and all(same)


class Ragged(NamedTuple):
    r"""Concatenated rows of different lengths. Row :obj:`i` is :obj:`index[ptr[i]:ptr[i + 1]]`.

    Args:
        ptr (torch.Tensor): The position of the first element of each row. shape: :obj:`(B + 1,)`, int64.
        index (torch.Tensor): The entity ids, in ascending order within each row. shape: :obj:`(ptr[-1],)`, int64.
    """
    ptr: Tensor
    index: Tensor  # type: ignore[assignment]


class EdgeOrder(NamedTuple):
    r"""Edges sorted by a key. Edges with equal keys keep their order in :obj:`edge_index`.

    Args:
        ptr (torch.Tensor): The edges with key :obj:`k` are at the positions :obj:`ptr[k]:ptr[k + 1]`.
            shape: :obj:`(K + 1,)`, int64.
        source (torch.Tensor): The source nodes. shape: :obj:`(E,)`, int64.
        target (torch.Tensor): The target nodes. shape: :obj:`(E,)`, int64.
        relation (torch.Tensor): The edge types. shape: :obj:`(E,)`, int64.
        edge_id (torch.Tensor): The column of each edge in :obj:`edge_index`. shape: :obj:`(E,)`, int64.
    """
    ptr: Tensor
    source: Tensor
    target: Tensor
    relation: Tensor
    edge_id: Tensor

    @classmethod
    @ordinary_tensors()
    def build(cls, edge_index: Tensor, edge_type: Tensor, key: Literal['target', 'source', 'relation'], num_nodes: int,
              num_edge_types: int) -> EdgeOrder:
        r"""Sorts edges.

        Args:
            edge_index (torch.Tensor): The sources and targets. shape: :obj:`(2, E)`, int64 or int32.
            edge_type (torch.Tensor): The edge types. shape: :obj:`(E,)`, int64 or int32.
            key (str): :obj:`"target"`, :obj:`"source"` or :obj:`"relation"`.
            num_nodes (int): The number of nodes, which is the number of keys for targets and sources.
            num_edge_types (int): The number of edge types, which is the number of keys for relations.

        Raises:
            ArgumentError: If :obj:`key` is unknown.
        """
        columns = {'source': edge_index[0], 'target': edge_index[1], 'relation': edge_type}
        if key not in columns:
            raise ArgumentError(f"key: expected 'target', 'source' or 'relation', got {key!r}")
        size = num_edge_types if key == 'relation' else num_nodes
        ordered, perm = Index(columns[key].long().contiguous(), dim_size=size).sort(stable=True)
        found = {name: ordered.as_tensor() if name == key else column[perm].long()
                 for name, column in columns.items()}
        return cls(ordered.get_indptr(), found['source'], found['target'], found['relation'], perm)

    @ordinary_tensors()
    def to(self, device: Union[int, str, torch.device], non_blocking: bool = False) -> EdgeOrder:
        r"""Returns a copy with all tensors on :obj:`device`."""
        return EdgeOrder(*(value.to(device, non_blocking=non_blocking) for value in self))


class FactIndex:
    r"""Known tails of :math:`(h, r)`, known heads of :math:`(r, t)`, and membership of triples, based on one sorted
    array.

    A *pattern* is a query for one side: :math:`p = h R + r` for tails and :math:`p = (V + t) R + r` for heads, with
    :math:`V` entities and :math:`R` relations. The key of a fact with answer :math:`x` is :math:`p V + x`. Where
    :math:`2 V^2 R` exceeds 64 bits, as on WikiKG90M, :math:`p` is replaced by its rank among the patterns that occur,
    which takes eight more bytes for each of them and one more binary search. The keys of both sides form one ascending
    array. The known answers of a pattern are a contiguous range of this array, found by binary search. The memory does
    not depend on the number of possible patterns.

    Args:
        facts (torch.Tensor): The facts, with columns head, relation and tail. Duplicates are removed.
            shape: :obj:`(F, 3)`, int64.
        num_nodes (int): The number of entities :math:`V`.
        num_relations (int): The number of relations :math:`R`.

    Raises:
        DataError: If facts have the wrong shape or dtype or are out of range, or if :math:`2 V R` or :math:`2 F V` do
            not fit into 64 bits.
    """
    @ordinary_tensors()
    def __init__(self, facts: Tensor, num_nodes: int, num_relations: int) -> None:
        tensors(facts=facts)
        if facts.dim() != 2 or facts.size(1) != 3:
            raise DataError(f'facts: expected shape (F, 3) with columns head, relation, tail, got {tuple(facts.shape)}')
        if facts.dtype != torch.int64:
            raise DataError(f'facts: expected int64, got {facts.dtype}; use facts.long()')
        self._build([facts.unbind(1)], num_nodes, num_relations)

    @classmethod
    @ordinary_tensors()
    def of_columns(cls, parts: Sequence[Sequence[Tensor]], num_nodes: int, num_relations: int) -> FactIndex:
        r"""Returns an index of facts in several parts. Besides the index, it needs memory for a few million facts only.

        Args:
            parts (sequence): The heads, relations and tails of each part. shape: three tensors :obj:`(F_i,)`, int64 or
                int32.
            num_nodes (int): The number of entities :math:`V`.
            num_relations (int): The number of relations :math:`R`.

        Raises:
            DataError: As for :class:`FactIndex`.
        """
        for column in (column for part in parts for column in part):
            if column.dtype not in (torch.int64, torch.int32):
                raise DataError(f'facts: expected int64, got {column.dtype}; use facts.long()')
        out = cls.__new__(cls)
        out._build(parts, num_nodes, num_relations)
        return out

    def _build(self, parts: Sequence[Sequence[Tensor]], num_nodes: int, num_relations: int) -> None:
        # An empty graph has no entities. Products of integers of NumPy overflow without an error.
        num_nodes = non_negative_integer('num_nodes', num_nodes)
        num_relations = non_negative_integer('num_relations', num_relations)
        _check_sizes(num_nodes, num_relations, sum(part[0].numel() for part in parts))
        for number, part in enumerate(parts):
            _check_ids(part, num_nodes, num_relations, sum(other[0].numel() for other in parts[:number]))
        self.num_nodes = num_nodes
        self.num_relations = num_relations
        keys, self._numbers = _sorted_keys(parts, num_nodes, num_relations, both=True)
        #: The keys of both sides in ascending order: first known tails, then known heads. shape: :obj:`(2F,)`.
        self.keys = _without_repeats(keys)
        self._forget()

    def _forget(self) -> None:
        r"""Drops what is derived from the keys on first use."""
        self._complement: Optional[Tensor] = None
        self._filter: Optional[Tensor] = None
        self._looked_up = 0
        self._max_known: Optional[int] = None
        self._head_share: Optional[Tensor] = None
        self._relation_counts: Optional[Tensor] = None

    @property
    def num_facts(self) -> int:
        r"""The number of distinct facts."""
        return self.keys.numel() // 2

    @property
    def device(self) -> torch.device:
        r"""The device of the index."""
        return self.keys.device

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(num_facts={self.num_facts}, num_nodes={self.num_nodes}, '
                f'num_relations={self.num_relations})')

    @ordinary_tensors()
    def to(self, device: Union[int, str, torch.device], non_blocking: bool = False) -> FactIndex:
        r"""Returns a copy of the index on :obj:`device`."""
        out = self.__class__.__new__(self.__class__)
        out.__dict__.update(self.__dict__)
        out.keys = self.keys.to(device, non_blocking=non_blocking)
        if self._numbers is not None:
            out._numbers = self._numbers.to(device, non_blocking=non_blocking)
        if self._complement is not None:
            out._complement = self._complement.to(device, non_blocking=non_blocking)
        if self._head_share is not None:
            out._head_share = self._head_share.to(device, non_blocking=non_blocking)
        if self._relation_counts is not None:
            out._relation_counts = self._relation_counts.to(device, non_blocking=non_blocking)
        out._filter = None  # Used on the CPU only, and fast to build.
        return out

    def pattern(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Returns the numbers :math:`p` of patterns, or :obj:`-1` if an id is out of range. shape: :obj:`(B,)`.

        Args:
            known (torch.Tensor): The known entities: heads to query tails, tails to query heads. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): The queried side: :obj:`"tail"`, :obj:`"head"`, or a boolean tensor of shape
                :obj:`(B,)` that is :obj:`True` for tails.

        Raises:
            ArgumentError: If :obj:`side` is invalid.
        """
        known, rel_type = known.long(), rel_type.long()  # Numbers of patterns exceed 32 bits.
        if isinstance(side, Tensor):
            if side.dtype != torch.bool:
                raise ArgumentError(f'side: expected a boolean tensor that is True for tails, got {side.dtype}')
            row = torch.where(side, known, known + self.num_nodes)
        elif side == 'tail':
            row = known
        elif side == 'head':
            row = known + self.num_nodes
        else:
            raise ArgumentError(f"side: expected 'tail', 'head' or a boolean tensor, got {side!r}")
        # Without this check, an id out of range would result in the number of another pattern.
        valid = (known >= 0) & (known < self.num_nodes) & (rel_type >= 0) & (rel_type < self.num_relations)
        return torch.where(valid, row * self.num_relations + rel_type, -1)

    def base(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Returns the first possible key of each pattern: its key with the answer 0. It is negative if an id is out of
        range and, for numbered patterns, if the pattern has no facts. shape: :obj:`(B,)`.

        Args:
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): As in :meth:`pattern`.
        """
        number = self.pattern(known, rel_type, side)
        if self._numbers is not None:
            place = searchsorted(self._numbers, number)
            last = max(self._numbers.numel() - 1, 0)
            # Without facts, no pattern has a number.
            found = self._numbers[place.clamp(max=last)] == number if self._numbers.numel() > 0 else number < -1
            number = torch.where(found, place, -1)
        return number * self.num_nodes

    def unpacked(self, key: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the patterns of keys, as :meth:`pattern` numbers them, and the answers.

        Args:
            key (torch.Tensor): Some of :attr:`keys`. shape: :obj:`(...)`.

        :rtype: two :class:`torch.Tensor` of shape :obj:`(...)`, int64.
        """
        row = torch.div(key, max(self.num_nodes, 1), rounding_mode='floor')
        answer = key - row * self.num_nodes
        return row if self._numbers is None else self._numbers[row], answer

    def bounds(self, known: Tensor, rel_type: Tensor, side: Side) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the ranges of :attr:`keys` that contain the facts of each pattern, without synchronization.

        Args:
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): As in :meth:`pattern`.

        Returns:
            The :meth:`base` of the patterns, and the starts and ends of their ranges. shape: :obj:`(B,)` each. The
            answers are the keys minus the base.
        """
        base = self.base(known, rel_type, side)
        edges = searchsorted(self.keys, torch.stack([base, base + self.num_nodes]))
        return base, edges[0], edges[1]

    def count(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Returns the number of known answers of each pattern. See :meth:`bounds` for the arguments.
        shape: :obj:`(B,)`.
        """
        _, start, end = self.bounds(known, rel_type, side)
        return end - start

    @property
    def relation_counts(self) -> Tensor:
        r"""The numbers of distinct heads, of distinct tails, and of facts of each relation. They are counted once.
        shape: :obj:`(3, num_relations)`, int64.
        """
        if self._relation_counts is None:
            with ordinary_tensors():
                self._relation_counts = self._count_relations()
        return self._relation_counts

    def _count_relations(self) -> Tensor:
        counts = self.keys.new_zeros(3, self.num_relations)
        # Patterns (h, r) precede (r, t), and both are sorted, so distinct patterns are counted without another sort.
        for end, keys in enumerate(self.keys.tensor_split(2)):
            before = self.keys.new_tensor(-1)
            for chunk in keys.split(_CHUNK):
                if chunk.numel() == 0:
                    break
                pattern, _ = self.unpacked(chunk)
                first = torch.ones_like(chunk, dtype=torch.bool)
                first[0] = pattern[0] != before
                torch.ne(pattern[1:], pattern[:-1], out=first[1:])
                before = pattern[-1].clone()
                relation = pattern % self.num_relations
                counts[end] += torch.bincount(relation[first], minlength=self.num_relations)
                if end == 0:
                    counts[2] += torch.bincount(relation, minlength=self.num_relations)
        return counts

    def distinct_ends(self) -> tuple[Tensor, Tensor]:
        r"""Returns the numbers of distinct heads and distinct tails in the facts of each relation.

        :rtype: two :class:`torch.Tensor` of shape :obj:`(num_relations,)`, int64.
        """
        return self.relation_counts[0], self.relation_counts[1]

    @property
    def head_share(self) -> Tensor:
        r"""The probability of Bernoulli sampling that the head is replaced, for each relation:
        :math:`\mathrm{tph} / (\mathrm{tph} + \mathrm{hpt})`, the mean numbers of tails per head and of heads per tail;
        one half for a relation without facts. shape: :obj:`(num_relations,)`.
        """
        if self._head_share is None:
            with ordinary_tensors():
                # With H distinct heads, T distinct tails and F facts, tph is F / H and hpt is F / T.
                heads, tails = self.distinct_ends()
                self._head_share = torch.where(heads > 0, tails / (heads + tails), 0.5)
        return self._head_share

    def known(self, known: Tensor, rel_type: Tensor, side: Side) -> Ragged:
        r"""Returns the known tails of each :math:`(h, r)`, or the known heads of each :math:`(r, t)`, in ascending
        order.

        The row of a pattern without facts, or with an id out of range, is empty.

        Args:
            known (torch.Tensor): The known entities: heads to query tails, tails to query heads. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): The queried side: :obj:`"tail"`, :obj:`"head"`, or a boolean tensor of shape
                :obj:`(B,)` that is :obj:`True` for tails.
        """
        base, start, end = self.bounds(known, rel_type, side)
        count = end - start
        ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        # Absent patterns have no results, so one offset per row maps positions in the result to positions in the keys.
        row = torch.repeat_interleave(count)
        place = torch.arange(row.numel(), device=row.device) + (start - ptr[:-1])[row]
        return Ragged(ptr, self.keys[place] - base[row])

    def contains(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Returns whether each triple is a fact, which is false if an id is out of range. The arguments broadcast.

        Args:
            head_index (torch.Tensor): The heads, int64.
            rel_type (torch.Tensor): The relations, int64.
            tail_index (torch.Tensor): The tails, int64.

        :rtype: :class:`torch.Tensor`, boolean, of the broadcast shape.
        """
        key = self.base(head_index, rel_type, 'tail') + tail_index
        return self._has(key) & (tail_index >= 0) & (tail_index < self.num_nodes)

    def is_known(self, candidates: Tensor, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Returns whether each candidate is a known answer of its row's pattern, which is false for ids out of range.

        Args:
            candidates (torch.Tensor): The entity ids. shape: :obj:`(B, N)`, int64.
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): As in :meth:`known`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, N)`, boolean.
        """
        base = self.base(known, rel_type, side)
        return self._has(base.unsqueeze(1) + candidates) & (candidates >= 0) & (candidates < self.num_nodes)

    def _has(self, key: Tensor) -> Tensor:
        if self.keys.numel() == 0:
            return torch.zeros_like(key, dtype=torch.bool)
        if key.device.type != 'cpu' or key.numel() < _FILTER_FROM:
            return self._bisect(key)
        # Binary search causes about twenty cache misses per key, and the filter only one. Few keys pass the filter. On
        # a GPU, this is not faster, and selecting these keys would synchronize with the host.
        self._looked_up += key.numel()
        if self._filter is None:
            if self._looked_up < _FILTER_SHARE * self.keys.numel():
                return self._bisect(key)
            size = 1 << (8 * self.keys.numel()).bit_length()
            with ordinary_tensors():
                found = torch.zeros(size, dtype=torch.bool, device=self.device)
                for chunk in self.keys.split(_CHUNK):
                    found[self._slot(chunk, size)] = True
                self._filter = found
        flat = key.reshape(-1)
        found = self._filter.index_select(0, self._slot(flat, self._filter.numel()))
        place = found.nonzero().squeeze(1)
        found.index_copy_(0, place, self._bisect(flat.index_select(0, place)))
        return found.view(key.shape)

    def _bisect(self, key: Tensor) -> Tensor:
        place = searchsorted(self.keys, key).clamp_(max=self.keys.numel() - 1)
        return entries(self.keys, place) == key

    @staticmethod
    def _slot(key: Tensor, size: int) -> Tensor:
        # The highest bits of the product depend on all bits of the key. The mask removes the copies of the sign bit.
        return (key * _GOLDEN).bitwise_right_shift_(64 - (size.bit_length() - 1)).bitwise_and_(size - 1)

    @property
    def max_known(self) -> int:
        r"""The maximum number of known answers over all patterns. If it is less than :obj:`num_nodes`, every pattern
        has at least one negative. It is read from the device once and cached.
        """
        if self._max_known is None:
            largest, last, run = 0, -1, 0
            for chunk in self.keys.split(_CHUNK):
                if chunk.numel() == 0:
                    break
                pattern = torch.div(chunk, self.num_nodes, rounding_mode='floor')
                patterns, counts = torch.unique_consecutive(pattern, return_counts=True)
                if last >= 0 and int(patterns[0]) == last:  # The answers of a pattern may be in two chunks.
                    counts[0] += run
                largest = max(largest, int(counts.max()))
                last, run = int(patterns[-1]), int(counts[-1])
            self._max_known = largest
        return self._max_known

    def unknown(self, rank: Tensor, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""Returns the entities at position :obj:`rank` among those that are NOT known answers, in ascending order.

        With known answers :math:`k_0 < k_1 < \ldots`, the entity at position :math:`u` is :math:`u` plus the number of
        :math:`i` with :math:`k_i - i \leq u`. The values :math:`k_i - i` do not decrease, neither within a pattern nor
        between patterns, so one binary search over the values of all patterns finds it. The result is exact, without
        rejection sampling.

        Args:
            rank (torch.Tensor): The positions, from 0 to the number of unknown answers of the pattern (exclusive).
                Larger positions return an arbitrary valid entity. shape: :obj:`(B, N)`, int64.
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): As in :meth:`known`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, N)`.
        """
        base, start, _ = self.bounds(known, rel_type, side)
        if self._complement is None:
            self._complement = self._build_complement()
        below = searchsorted(self._complement, rank + base.unsqueeze(1), right=True)
        return (rank + below - start.unsqueeze(1)).clamp_(min=0, max=self.num_nodes - 1)

    @ordinary_tensors()
    def _build_complement(self) -> Tensor:
        found = torch.empty_like(self.keys)
        for start in range(0, self.keys.numel(), _CHUNK):
            keys = self.keys[start:start + _CHUNK]
            place = torch.arange(start, start + keys.numel(), device=keys.device)
            # The position of the first key of each key's pattern.
            pattern = torch.div(keys, self.num_nodes, rounding_mode='floor')
            first = searchsorted(self.keys, pattern.mul_(self.num_nodes))
            torch.sub(keys, place.sub_(first), out=found[start:start + keys.numel()])
        return found


def sorted_facts(parts: Sequence[Sequence[Tensor]], num_nodes: int, num_relations: int) -> Iterator[Tensor]:
    r"""Yields facts in ascending order of head, relation and tail, with repeated ones, some millions at a time.

    Args:
        parts (sequence): As in :meth:`FactIndex.of_columns`.
        num_nodes (int): The number of entities.
        num_relations (int): The number of relations.

    :rtype: iterator of :class:`torch.Tensor` of shape :obj:`(F_i, 3)`, int64.
    """
    _check_sizes(num_nodes, num_relations, sum(part[0].numel() for part in parts))
    every, numbers = _sorted_keys(parts, num_nodes, num_relations, both=False)
    for keys in every.split(_CHUNK):
        row = torch.div(keys, max(num_nodes, 1), rounding_mode='floor')
        pattern = row if numbers is None else numbers[row]
        head = torch.div(pattern, max(num_relations, 1), rounding_mode='floor')
        yield torch.stack([head, pattern - head * num_relations, keys - row * num_nodes], dim=1)


def _sorted_keys(parts: Sequence[Sequence[Tensor]], num_nodes: int, num_relations: int,
                 both: bool) -> tuple[Tensor, Optional[Tensor]]:
    r"""The keys of known tails in ascending order, and after them, for both sides, those of known heads. Beside them,
    the patterns that occur if keys hold their ranks.
    """
    def sorted_values(packed: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        count = sum(part[0].numel() for part in parts)
        values = torch.empty(2 * count if both else count, dtype=torch.int64,
                             device=parts[0][0].device if parts else None)
        filled = 0
        for part in parts:
            for chunks in zip(*(column.split(_CHUNK) for column in part)):
                head, relation, tail = (chunk.long() for chunk in chunks)
                own = slice(filled, filled + head.numel())
                values[:count][own] = packed(head * num_relations + relation, tail)
                if both:
                    values[count:][own] = packed((tail + num_nodes) * num_relations + relation, head)
                filled = own.stop
        # All values for tails are smaller than those for heads.
        for half in (values[:count], values[count:]):
            if half.device.type == 'cpu':
                half.numpy().sort()  # In place, unlike torch.sort, which also returns the order.
            else:
                half.copy_(half.sort().values)
        return values

    if 2 * num_nodes * num_nodes * num_relations <= _LARGEST_KEY:
        return sorted_values(lambda pattern, answer: pattern * num_nodes + answer), None
    numbers = _without_repeats(sorted_values(lambda pattern, answer: pattern))
    return sorted_values(lambda pattern, answer: searchsorted(numbers, pattern) * num_nodes + answer), numbers


def _without_repeats(keys: Tensor) -> Tensor:
    r"""Ascending keys without repeated ones, in the same memory where that is possible."""
    if keys.device.type != 'cpu' or keys.numel() == 0:
        return torch.unique_consecutive(keys)
    written, last = 0, -1
    for chunk in keys.split(_CHUNK):
        first = torch.ones_like(chunk, dtype=torch.bool)
        first[0] = int(chunk[0]) != last
        torch.ne(chunk[1:], chunk[:-1], out=first[1:])
        last = int(chunk[-1])
        kept = chunk[first]
        keys[written:written + kept.numel()] = kept  # Never ahead of what has been read.
        written += kept.numel()
    repeats = keys.numel() - written
    # A copy would take more memory than few repeats do.
    return keys[:written].clone() if repeats * 8 > keys.numel() else keys[:written]


def _check_sizes(num_nodes: int, num_relations: int, num_facts: int) -> None:
    if num_nodes < 0 or num_relations < 0:
        raise DataError(f'num_nodes, num_relations: expected numbers >= 0, got {num_nodes} and {num_relations}')
    # The largest numbers are those of the last pattern for heads and, with numbered patterns, of the last key.
    if 2 * num_nodes * num_relations > _INT64_MAX or 2 * num_facts * num_nodes > _INT64_MAX:
        raise DataError('num_nodes, num_relations, facts: expected 2 * num_nodes * num_relations and 2 * num_nodes * '
                        f'(number of facts) of at most 2^63 - 1, because keys have 64 bits, got {num_nodes}, '
                        f'{num_relations} and {num_facts}')


def _check_ids(columns: Sequence[Tensor], num_nodes: int, num_relations: int, before: int) -> None:
    r"""Refuses ids out of range in heads, relations and tails, after :obj:`before` other facts."""
    if columns[0].numel() == 0:
        return
    low, high = torch.stack([torch.stack(torch.aminmax(column)).long() for column in columns], dim=1).tolist()
    for number, (name, bound) in enumerate((('head', num_nodes), ('relation', num_relations), ('tail', num_nodes))):
        if low[number] < 0 or high[number] >= bound:
            column = columns[number]
            row = int(((column < 0) | (column >= bound)).nonzero()[0])
            raise DataError(f'facts: expected a {name} in [0, {bound - 1}] '
                            f'({"num_relations" if number == 1 else "num_nodes"}={bound}), got '
                            f'{int(column[row])} in fact {before + row}')
