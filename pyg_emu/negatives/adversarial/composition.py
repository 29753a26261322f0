r"""The composition of a known entity and a relation as an entity row: the centers of equation 5 of DANS."""
from __future__ import annotations

import torch
from torch import Tensor

from pyg_emu.core.complex_rows import conjugate, multiply
from pyg_emu.core.contract import Scorer, ScorerMixin
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import ComplexModulus, ModulusPhase
from pyg_emu.data.batch import Batch


def entity_relation_rows(scorer: Scorer, known: Tensor, batch: Batch, floor: float) -> Tensor:
    r"""The rows :math:`\mathbf{e}_h \otimes \mathbf{e}_r` of a batch where the tail is predicted, and
    :math:`\mathbf{e}_t \otimes \mathbf{e}_r^{-1}` where the head is.

    * For dot products (DistMult, ComplEx), it is this product, of complex numbers where rows are complex. An inverse is
      :math:`\bar r / \max(|r|^2, \text{floor}^2)`, which is exact for all components of at least :obj:`floor` and never
      larger than :obj:`1 / floor`. Models with an attribute :obj:`reciprocal = True`, such as
      :class:`~pyg_emu.models.Reciprocal`, need none: their relation rows of heads are those of the inverse relation.
    * For distances, it is the row at which the query is, that is, the best candidate there could be: :math:`h + r` and
      :math:`t - r` for TransE, :math:`h \circ r` and :math:`t \circ \bar r` for RotatE, which is the product above, and
      the modulus and the phase that HAKE asks for.
    * For other interactions, it is the product, if relation rows are as wide as entity rows.

    Args:
        scorer (Scorer): The model.
        known (torch.Tensor): The rows of the known entities. shape: :obj:`(B, d)`.
        batch (Batch): The batch.
        floor (float): The least modulus of which an exact inverse is taken.

    Raises:
        ArgumentError: If the model has no relation rows of the width of an entity row.
    """
    interaction = scorer.interaction
    if isinstance(interaction, ModulusPhase):
        modulus, weight, phase = scorer.query(batch.known_index, batch.rel_type, batch.side).chunk(3, dim=-1)
        return torch.cat([modulus * inverse(weight, floor), phase / interaction.phase_scale], dim=-1)
    if interaction.distance_order is not None or isinstance(interaction, ComplexModulus):
        return scorer.query(batch.known_index, batch.rel_type, batch.side)
    own = getattr(type(scorer), 'relation_rows', None)
    if own is None or own is ScorerMixin.relation_rows:
        raise ArgumentError(f"scorer: {type(scorer).__name__} has no relation_rows(rel_type, side), from which DANS "
                            f"makes the vectors of its relation pathway; implement it, or give pathways='entity'")
    relation: Tensor = scorer.relation_rows(batch.rel_type, batch.side)  # type: ignore[attr-defined]
    if relation.shape != known.shape:
        raise ArgumentError(f'scorer: the relation rows of {type(scorer).__name__} have shape {tuple(relation.shape)}, '
                            f'and the product with entity rows of shape {tuple(known.shape)} needs the same one; give '
                            "pathways='entity'")
    rows_are_complex = bool(getattr(scorer, 'complex_rows', False))
    if not getattr(scorer, 'reciprocal', False):
        back = complex_inverse(relation, floor) if rows_are_complex else inverse(relation, floor)
        relation = torch.where(batch.corrupts_tail.unsqueeze(1), relation, back)
    return multiply(known, relation) if rows_are_complex else known * relation


def inverse(values: Tensor, floor: float) -> Tensor:
    r"""The inverse :math:`1 / r` of each component, and :math:`r / \text{floor}^2` where :math:`|r|` is less than
    :obj:`floor`: continuous, and at most :obj:`1 / floor`.

    Args:
        values (torch.Tensor): :math:`r`, of any shape.
        floor (float): The least modulus of which an exact inverse is taken.
    """
    return values / values.square().clamp(min=floor**2)


def complex_inverse(rows: Tensor, floor: float) -> Tensor:
    r"""The inverse of each complex component, as :func:`inverse` takes that of real ones.

    Args:
        rows (torch.Tensor): Rows :math:`[\mathrm{re}, \mathrm{im}]`. shape: :obj:`(..., 2d)`.
        floor (float): The least modulus of which an exact inverse is taken.
    """
    re, im = rows.chunk(2, dim=-1)
    square = (re.square() + im.square()).clamp(min=floor**2)
    return conjugate(rows) / torch.cat([square, square], dim=-1)
