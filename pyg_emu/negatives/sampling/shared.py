r"""Negatives that the triples of a chunk share."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import positive_integer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.shared_index import SharedIndex, expanded
from pyg_emu.data.batch import Batch
from pyg_emu.negatives.contract import Negatives, Sampler, check_sampler
from pyg_emu.negatives.sampling.filtered import FilteredSampler, random_below


class SharedNegativesSampler(FilteredSampler):
    r"""One set of negatives for each chunk of a batch, as in the `"PyTorch-BigGraph: A Large-scale Graph Embedding
    System" <https://arxiv.org/abs/1903.12287>`_ and the `"DGL-KE: Training Knowledge Graph Embeddings at Scale"
    <https://arxiv.org/abs/2004.08532>`_ papers.

    The vectors of a set are gathered once for its chunk. The scores of dot products (DistMult, ComplEx) are then matrix
    products, those mutated with one mask per triple included, and the entity table receives one gradient per id of a
    set instead of one per triple and negative. Other interactions, masks per negative and mixtures with partners train
    as with negatives of their own and gain nothing.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=1024, sampler=SharedNegativesSampler(chunk_size=250))

    Chunks are neighbouring rows of the batch, which :obj:`shuffle=True` puts in random order. A chunk may predict heads
    in some rows and tails in others, since candidates for both are entities. :obj:`batch.neg_index` reads as ids
    :obj:`(B, N)` as always, for mutations and losses that look at ids; :attr:`Batch.shared_index
    <pyg_emu.Batch.shared_index>` holds each set once.

    Args:
        chunk_size (int, optional): Triples of a chunk; the last one of a batch may be smaller. (default: :obj:`250`)
        sampler (Sampler, optional): The source of ids. Each id of a set is drawn from it for a random triple of the
            chunk, regardless of the end that this triple predicts. A sampler that learns keeps learning. (default:
            :obj:`None`, uniform over all entities, with replacement)
        filtered (bool, optional): If set to :obj:`True`, a candidate is masked out for those triples of the chunk with
            which it would make a known fact. Such a triple has fewer than :math:`N` negatives; :attr:`num_exhausted`
            counts those that have none. (default: :obj:`False`)
        split (str, optional): The split whose facts are known: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or
            :obj:`"all"`. (default: :obj:`"train"`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if :obj:`sampler` returns something else
            than one id per triple, or the batch has no :obj:`source` and known facts are to be left out.
    """
    def __init__(self, chunk_size: int = 250, sampler: Optional[Sampler] = None, filtered: bool = False,
                 split: str = 'train') -> None:
        super().__init__(filtered, split)
        self.chunk_size = int(positive_integer('chunk_size', chunk_size))
        self.sampler = check_sampler('sampler', sampler)

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        size = batch.head_index.numel()
        num_sets = -(-size // self.chunk_size)
        if self.sampler is None:
            index = torch.randint(batch.num_nodes, (num_sets, num_negatives), generator=generator, device=batch.device)
            counts = None
        else:
            index, counts = self._drawn(self.sampler, batch, num_sets, num_negatives, generator)
        shared = SharedIndex(index, self.chunk_size, size)
        mask = None if counts is None else shared.per_row(counts)
        if not self.filtered:
            return Negatives(shared, mask)
        facts = self._known_facts(batch)
        unknown = ~facts.is_known(shared.expand(), batch.known_index, batch.rel_type, batch.corrupts_tail)
        mask = unknown if mask is None else mask & unknown
        self._count_exhausted(mask.any(1))
        return Negatives(shared, mask)

    def _drawn(self, sampler: Sampler, batch: Batch, num_sets: int, num_negatives: int,
               generator: Optional[torch.Generator]) -> tuple[Tensor, Optional[Tensor]]:
        r"""Ids from another sampler, and where they count, both :obj:`(num_sets, num_negatives)`."""
        first = torch.arange(num_sets, device=batch.device).unsqueeze(1) * self.chunk_size
        length = (batch.head_index.numel() - first).clamp(max=self.chunk_size)
        row = (first + random_below(length.expand(-1, num_negatives), generator)).flatten()
        found = sampler.sample(batch.take(row), 1, generator)
        if not isinstance(found, Negatives) or found.vectors is not None or found.index.shape != (row.numel(), 1):
            given = f'of shape {tuple(found.index.shape)}' if isinstance(found, Negatives) else type(found).__name__
            raise ArgumentError(f'sampler: {sampler} returned negatives {given}'
                                f'{" with vectors" if getattr(found, "vectors", None) is not None else ""}; chunks '
                                f'share ids, expected pyg_emu.Negatives with an index of shape {(row.numel(), 1)}')
        shape = (num_sets, num_negatives)
        return expanded(found.index).view(shape), None if found.mask is None else found.mask.view(shape)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(chunk_size={self.chunk_size}, sampler={self.sampler}, '
                f'filtered={self.filtered}, split={self.split!r})')
