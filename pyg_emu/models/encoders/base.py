r"""The base class of models whose entity vectors are computed from a graph, once in each step."""
from __future__ import annotations

import copy
import weakref
from typing import Any, Literal, NamedTuple, Optional

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_emu.core.contract import Scorer, ScorerMixin
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.checks import check_sizes
from pyg_emu.data.graph import KGData


class GraphEncoder(ScorerMixin, torch.nn.Module):
    r"""Base class of encoders. A subclass implements :meth:`_encoded`, which encodes the entities, and, where a
    training step encodes another graph than all training facts, :meth:`_encoded_for_step`.

    It is used as any other model: losses, and all parts of a run that read vectors, ask :meth:`for_batch` for the
    scorer of a step; :func:`~pyg_emu.evaluate` and :func:`~pyg_emu.predict` ask :meth:`for_graph`, once in each call.
    """
    def __init__(self) -> None:
        super().__init__()
        self._held: Optional[_Held] = None

    def _encoded(self, data: KGData) -> tuple[Scorer, Tensor]:
        r"""Encodes the entities from all training facts.

        Args:
            data (KGData): The checked graph.

        Returns:
            A new scorer, which looks vectors up, and the vectors. shape: :obj:`(num_nodes, d)`.
        """
        raise NotImplementedError

    def _encoded_for_step(self, data: KGData, generator: Optional[torch.Generator]) -> tuple[Scorer, Tensor]:
        r"""Encodes the entities for a step in training mode, see :meth:`_encoded`."""
        return self._encoded(data)

    def for_graph(self, data: KGData) -> Scorer:
        r"""Returns a scorer whose entities are encoded from all training facts of a graph.

        Args:
            data (KGData): The graph.

        Raises:
            ArgumentError: If the graph has another number of entities, more relations, or is on another device.
        """
        self._check(data)
        return self._encoded(data)[0]

    def for_batch(self, batch: Batch) -> Scorer:
        r"""Returns the scorer of a training step. All who ask for it before the next step get the same one. In
        evaluation mode, entities are encoded as by :meth:`for_graph`.

        Args:
            batch (Batch): The batch. It needs a :obj:`source`, as the batches of :class:`~pyg_emu.TripletLoader` have.

        Raises:
            ArgumentError: As :meth:`for_graph`, or if the batch has no source.
        """
        batch = Batch.of(batch)
        data = batch.source
        if data is None:
            raise ArgumentError(f'batch.source: {type(self).__name__} encodes the entities from the training facts, '
                                'and the batch does not say of which graph; take batches from TripletLoader, or set '
                                'batch.source = data')
        if not self.training:
            return self.for_graph(data)
        whole = batch if batch.whole is None else batch.whole
        held = self._held
        if held is None or not held.serves(whole, self):
            self._check(data)
            # A part of the run may ask first and want no gradient; the loss that follows needs one.
            with torch.enable_grad():
                scorer, encoded = self._encoded_for_step(data, whole.generator)
            # Who keeps the scorer of one batch can ask it for that of the next.
            scorer.__dict__['for_batch'] = self.for_batch
            held = self._held = _Held(weakref.ref(whole), _versions(self), scorer)
            if encoded.requires_grad:
                # Its graph is freed by the backward pass.
                encoded.register_hook(self._drop)
        return held.scorer

    def _drop(self, grad: Tensor) -> None:
        self._held = None

    def _check(self, data: Any) -> None:
        if not isinstance(data, KGData):
            raise ArgumentError(f'data: expected a KGData, got an object of type {type(data).__name__}')
        check_sizes(self, data, equal=('num_nodes', ))
        device = self._device()
        if device is not None and data.device != device:
            raise ArgumentError(f'data: expected the device of the model, {device}, got {data.device}; call '
                                f'data.to({str(device)!r})')

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        out = self.__class__.__new__(self.__class__)
        memo[id(self)] = out
        for key, value in self.__dict__.items():
            out.__dict__[key] = None if key == '_held' else copy.deepcopy(value, memo)
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_held': None}

    def forward(self, data: KGData, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Computes the scores of triples, encoded by :meth:`for_graph`.

        Args:
            data (KGData): The graph.
            head_index (torch.Tensor): The heads. shape: :obj:`(B,)`, int64.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`, int64.
            tail_index (torch.Tensor): The tails. shape: :obj:`(B,)`, int64.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B,)`.
        """
        return self.for_graph(data)(head_index, rel_type, tail_index)  # type: ignore[operator]

    # The contract of scorers, which needs a graph #############################

    def entity_table(self) -> Tensor:
        raise self._needs_graph()

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        raise self._needs_graph()

    def _candidates(self, index: Tensor) -> Tensor:
        raise self._needs_graph()

    def _needs_graph(self) -> ArgumentError:
        return ArgumentError(f'model: {type(self).__name__} computes entity vectors from a graph; expected '
                             'model.for_graph(data) to score with, or a loss, evaluate or predict, which ask for it')


class _Held(NamedTuple):
    r"""The scorer of a step.

    Args:
        batch (weakref.ref): The batch of all processes.
        versions (tuple of int): How often each parameter had been changed.
        scorer (Scorer): The scorer.
    """
    batch: weakref.ref[Batch]
    versions: tuple[int, ...]
    scorer: Scorer

    def serves(self, batch: Batch, model: torch.nn.Module) -> bool:
        return self.batch() is batch and self.versions == _versions(model)


def _versions(model: torch.nn.Module) -> tuple[int, ...]:
    return tuple(value._version for value in model.parameters())
