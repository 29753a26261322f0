r"""The base class of samplers."""
from __future__ import annotations

from typing import ClassVar, Optional

import torch

from pyg_emu.core.arguments import positive_integer, shown
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.memory import memory_reported
from pyg_emu.data.batch import Batch
from pyg_emu.negatives.contract import LearningPart, Negatives


class BaseSampler:
    r"""Base class of samplers. Checks the arguments of :meth:`sample`; a subclass implements :meth:`_sample`.

    A subclass that learns overrides methods of :class:`~pyg_emu.LearningPart`.
    """
    #: Recipes cannot name this class itself.
    recipe_name: ClassVar[Optional[str]] = None
    #: Whether :meth:`update` reads entity vectors, which a model that reads a graph has none of.
    learns_from_vectors: ClassVar[bool] = False

    def sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator] = None) -> Negatives:
        r"""Draws candidates for the unknown end of each triple.

        Args:
            batch (Batch): The positive triples.
            num_negatives (int): Candidates per triple, at least 1.
            generator (torch.Generator, optional): The random stream, on the batch's device.
                (default: :obj:`batch.generator`, or PyTorch's global one)

        :rtype: :class:`~pyg_emu.Negatives` of shape :obj:`(B, num_negatives)`.

        Raises:
            ArgumentError: If :obj:`num_negatives` is not a positive integer, or :obj:`batch` is unusable.
        """
        num_negatives = positive_integer('num_negatives', num_negatives)
        batch = Batch.of(batch)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ArgumentError(f'generator: expected a torch.Generator, got {shown(generator)}')
        with memory_reported(f'a sample of num_negatives={num_negatives} for {batch.head_index.numel()} triples',
                             f'choose smaller numbers in {self!r}, num_negatives or batch_size'):
            return self._sample(batch, num_negatives, batch.generator if generator is None else generator)

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        raise NotImplementedError

    update = LearningPart.update  # Does nothing unless overridden.

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'
