r"""What all samplers share."""
from __future__ import annotations

from typing import Any, ClassVar, Optional

import torch

from pyg_emu.core.arguments import positive_integer
from pyg_emu.core.contract import Negatives, Scorer


class BaseSampler:
    r"""Base class of samplers: checks the arguments of :meth:`sample` and learns nothing from the model."""
    #: Recipes cannot name this class itself.
    recipe_name: ClassVar[Optional[str]] = None
    #: Whether :meth:`update` reads entity vectors, which a model that reads a graph has none of.
    learns_from_vectors: ClassVar[bool] = False

    def sample(self, batch: Any, num_negatives: int, generator: Optional[torch.Generator] = None) -> Negatives:
        r"""Draws candidates for the unknown end of each triple.

        Args:
            batch (KGData): A batch of :class:`~pyg_emu.TripletLoader`.
            num_negatives (int): Candidates per triple, at least 1.
            generator (torch.Generator, optional): The random stream, on the batch's device.
                (default: :obj:`batch.generator`, or PyTorch's global one)

        :rtype: :class:`~pyg_emu.Negatives` of shape :obj:`(B, num_negatives)`.

        Raises:
            ArgumentError: If :obj:`num_negatives` is not a positive integer.
        """
        positive_integer('num_negatives', num_negatives)
        return self._sample(batch, num_negatives, batch.generator if generator is None else generator)

    def _sample(self, batch: Any, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        raise NotImplementedError

    def update(self, batch: Any, scorer: Scorer) -> None:
        r"""Learns from the current model; called once a step, before the loss. Does nothing unless overridden."""

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'
