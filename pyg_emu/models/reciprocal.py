r"""Head prediction with reciprocal relations."""
from __future__ import annotations

import copy
from typing import Any, ClassVar, Iterator, Literal, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import same_length_ids
from pyg_emu.core.contract import Scorer, ScorerMixin, Side, for_batch, for_graph, is_scorer
from pyg_emu.core.errors import ArgumentError


class Reciprocal(ScorerMixin, torch.nn.Module):
    r"""Reciprocal relations from the `"Canonical Tensor Decomposition for Knowledge Base Completion"
    <https://arxiv.org/abs/1806.07297>`_ paper. The heads of :math:`(?, r, t)` are predicted as the tails of
    :math:`(t, r^{-1}, ?)`. The reciprocal relation :math:`r^{-1}` has id :math:`r + R` and its own parameters.

    .. code-block:: python

        model = Reciprocal(ComplEx(num_nodes, 2 * num_relations, 100))

    The two directions of a triple have different scores. :meth:`forward` returns the score of the tail.

    Args:
        model (torch.nn.Module): A :class:`~pyg_emu.Scorer` with :math:`2R` relations.

    Raises:
        ArgumentError: If :obj:`model` is not a scorer, or its number of relations is odd.
    """
    #: Whether the relation rows of heads belong to inverse relations, and are not those of tails.
    reciprocal = True
    #: Recipes wrap a model by its key `reciprocal`.
    recipe_name: ClassVar[Optional[str]] = None

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        if not is_scorer(model) or not isinstance(model, torch.nn.Module):
            raise ArgumentError(f'model: expected a pyg_emu.core.contract.Scorer, got {type(model).__name__}')
        if model.num_relations % 2 != 0:
            raise ArgumentError('model: expected an even number of relations, twice that of the data, got '
                                f'num_relations={model.num_relations}')
        self.model = model
        self.num_nodes = model.num_nodes
        self.num_relations = model.num_relations // 2
        self.interaction = model.interaction
        self.offset = model.offset
        self.sparse = model.sparse
        self.complex_rows = getattr(model, 'complex_rows', False)

    def for_batch(self, batch: Any) -> Scorer:
        r"""See :func:`~pyg_emu.core.contract.for_batch`."""
        return self._over(for_batch(self.model, batch))

    def for_graph(self, data: Any) -> Scorer:
        r"""See :func:`~pyg_emu.core.contract.for_graph`."""
        return self._over(for_graph(self.model, data))

    def _over(self, scorer: Scorer) -> Scorer:
        if scorer is self.model:
            return self
        view = copy.copy(self)
        view.__dict__['_modules'] = {**self._modules, 'model': scorer}
        return view

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return self.model.query(known, rel_type if side == 'tail' else rel_type + self.num_relations, 'tail')

    def entity_table(self) -> Tensor:
        return self.model.entity_table()

    def _candidates(self, index: Tensor) -> Tensor:
        return self.model.candidates(index)

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        if isinstance(side, str):
            own = rel_type if side == 'tail' else rel_type + self.num_relations
        else:
            own = torch.where(side, rel_type, rel_type + self.num_relations)
        return self.model.relation_rows(own, 'tail')  # type: ignore[operator]

    def embedding_weights(self) -> Iterator[Tensor]:
        return self.model.embedding_weights()

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        same_length_ids(head_index=(head_index, self.num_nodes), rel_type=(rel_type, self.num_relations),
                        tail_index=(tail_index, self.num_nodes))
        return self.triple_score(head_index, rel_type, tail_index)

    def reset_parameters(self, *args: Any, **kwargs: Any) -> None:
        r"""Resets all learnable parameters of the wrapped model, with the arguments that its own method takes."""
        self.model.reset_parameters(*args, **kwargs)  # type: ignore[operator]

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.model})'
