r"""Norm penalties on whole embedding tables, and on the vectors of a batch."""
from __future__ import annotations

from typing import Any, ClassVar, Optional, cast

import torch
from torch import Tensor

from pyg_emu.core.arguments import non_negative, shown
from pyg_emu.core.complex_rows import modulus
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.mapped_table import is_mapped
from pyg_emu.core.precision import at_least_single
from pyg_emu.core.sharded_table import ShardedTable
from pyg_emu.data.batch import Batch
from pyg_emu.losses.functional import mean_of_rows


class LpRegularizer(torch.nn.Module):
    r"""The :math:`p`-th powers of all embeddings, summed over the whole tables of entities and relations:

    .. math::
        w \left( \sum |\mathbf{E}|^p + \sum |\mathbf{R}|^p \right)

    The EMU paper's baselines use :math:`p = 3` (section G, "L3-norm"). The gradient is dense, also if the other
    gradients of the tables are row-sparse. For models that encode their entities, the penalty acts on the encoded rows
    (:class:`~pyg_emu.models.RGCN`) or on the tables of the network (:class:`~pyg_emu.models.GNNEncoder`).

    Args:
        p (float): :math:`p`, at least 1.
        weight (float): :math:`w`.

    Raises:
        ArgumentError: If :obj:`p` is below 1 or :obj:`weight` is negative or NaN.
    """
    #: The sum runs over whole tables.
    dense_gradient: ClassVar[bool] = True

    def __init__(self, p: float, weight: float) -> None:
        super().__init__()
        if non_negative('p', p) < 1.0:
            raise ArgumentError(f'p: expected a number >= 1, got {p}')
        self.p = p
        self.weight = non_negative('weight', weight)

    def forward(self, scorer: Scorer, batch: Optional[Batch] = None) -> Tensor:
        r"""The penalty.

        Args:
            scorer (Scorer): The model, see :func:`~pyg_emu.as_scorer`.
            batch (Batch, optional): The batch; not used, as the penalty is on whole tables. (default: :obj:`None`)

        :rtype: :class:`torch.Tensor`, a scalar.
        """
        if isinstance(scorer, type) or not callable(getattr(scorer, 'embedding_weights', None)):
            raise ArgumentError('scorer: expected a model with embedding_weights(), such as one of pyg_emu.models or '
                                f'as_scorer(model), got {shown(scorer)}')
        powers = [_power_sum(weight, self.p) for weight in scorer.embedding_weights()]
        return self.weight * torch.stack(powers).sum()

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(p={self.p}, weight={self.weight})'


class L3Regularizer(LpRegularizer):
    r"""The cubes of all embeddings, :class:`LpRegularizer` with :math:`p = 3`.

    Args:
        weight (float): :math:`w`. (1e-5 suits DistMult on FB15k-237.)

    Raises:
        ArgumentError: If :obj:`weight` is negative or NaN.
    """
    def __init__(self, weight: float) -> None:
        super().__init__(3.0, weight)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(weight={self.weight})'


class N3Regularizer(torch.nn.Module):
    r"""The nuclear 3-norm of the `"Canonical Tensor Decomposition for Knowledge Base Completion"
    <https://arxiv.org/abs/1806.07297>`_ paper: the cubed moduli of the head, the relation and the tail vector of each
    fact, summed over their components and averaged over the batch (by the weights of facts, if they have weights),

    .. math::
        \frac{w}{B} \sum_{(h, r, t)} \sum_k |e_{h,k}|^3 + |e_{r,k}|^3 + |e_{t,k}|^3,

    with complex components where the model's are. (The paper's definition has a factor of :math:`1/3`, which is left to
    :math:`w`.) RotatE's relations have moduli of one and add a constant. Where a model's gradients are row-sparse, the
    penalty's are, too: unlike :class:`L3Regularizer`, it suits large tables.

    Args:
        weight (float): :math:`w`. (1e-3 to 1e-1 suit ComplEx with 1-vs-all training.)

    Raises:
        ArgumentError: If :obj:`weight` is negative or NaN; when called, without a batch, or if the model does not offer
            its relation vectors.
    """
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = non_negative('weight', weight)

    def forward(self, scorer: Any, batch: Batch) -> Tensor:
        r"""The penalty.

        Args:
            scorer (Scorer): A model with :obj:`relation_rows(rel_type, side)`, such as those of :mod:`pyg_emu.models`
                and :func:`~pyg_emu.as_scorer` of PyG's.
            batch (Batch): The batch.

        :rtype: :class:`torch.Tensor`, a scalar.
        """
        batch = Batch.of(batch)
        if isinstance(scorer, type) or not hasattr(scorer, 'relation_rows'):
            raise ArgumentError(f'model: N3Regularizer needs the relation vectors of {type(scorer).__name__}; '
                                'implement relation_rows(rel_type, side), and set complex_rows where rows are [re, im]')
        # One lookup, for each brings a gradient of the whole table where gradients are dense.
        entities = scorer.candidates(torch.cat([batch.head_index, batch.tail_index]))
        relations = scorer.relation_rows(batch.rel_type, batch.side)
        is_complex = getattr(scorer, 'complex_rows', False)
        of_entities, of_relations = (_Cubes.apply(at_least_single(rows), is_complex) for rows in (entities, relations))
        rows = of_entities.view(2, -1).sum(0) + of_relations
        return self.weight * mean_of_rows(rows, batch.weight)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(weight={self.weight})'


def _power_sum(weight: Any, p: float) -> Tensor:
    if isinstance(weight, Tensor) and is_mapped(weight):
        raise ArgumentError('model: its entity rows are in a memory-mapped file, and the gradient of a penalty on '
                            'whole tables would be in memory; use N3Regularizer, a penalty on the rows of the batch')
    if isinstance(weight, ShardedTable):
        return weight.sum(_power_sum(weight.rows, p))
    return cast(Tensor, _PowerSum.apply(weight, p))


class _PowerSum(torch.autograd.Function):
    r""":math:`\sum |w|^p`. Value and gradient share the one factor :math:`\mathrm{sign}(w) |w|^{p - 1}`, so that
    nothing but products of neighbouring numbers is computed for the usual, whole :math:`p`: autograd's own would
    cost several times as much.
    """
    @staticmethod
    def forward(ctx: Any, weight: Tensor, p: float) -> Tensor:
        factor = _signed_power(weight, p)
        ctx.save_for_backward(weight, factor)
        ctx.p = p
        # Cubes of a whole table overflow float16.
        return torch.dot(at_least_single(factor).flatten(), at_least_single(weight).flatten())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weight, factor = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative
            factor = _signed_power(weight, ctx.p)
        return factor * (ctx.p * grad), None


def _signed_power(weight: Tensor, p: float) -> Tensor:
    r""":math:`\mathrm{sign}(w) |w|^{p - 1}`."""
    if p == 2.0:
        return weight
    return weight.abs().mul_(weight) if p == 3.0 else weight.abs().pow_(p - 1.0).mul_(weight.sign())


class _Cubes(torch.autograd.Function):
    r""":math:`\sum_k |x_{b,k}|^3` of each row. The moduli serve value and gradient, :math:`3 |x_{b,k}| x_{b,k}`, which
    needs no case for zero.
    """
    @staticmethod
    def forward(ctx: Any, rows: Tensor, is_complex: bool) -> Tensor:
        moduli = _moduli(rows, is_complex)
        ctx.save_for_backward(rows, moduli)
        ctx.is_complex = is_complex
        return (moduli.square() * moduli).sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, moduli = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative
            moduli = _moduli(rows, ctx.is_complex)
        slope = moduli * (3 * grad).unsqueeze(-1)
        return (rows.unflatten(-1, (-1, slope.size(-1))) * slope.unsqueeze(-2)).flatten(-2), None


def _moduli(rows: Tensor, is_complex: bool) -> Tensor:
    return modulus(rows) if is_complex else rows.abs()
