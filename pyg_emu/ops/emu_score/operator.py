r"""Vanilla and mutated scores of many negatives in one pass."""
from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, ids_below, kind_of, on_device, shown, tensors
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot, Interaction, check_interaction
from pyg_emu.core.mapped_table import read_ahead
from pyg_emu.core.precision import without_autocast
from pyg_emu.core.sharded_table import ShardedTable, rows_of
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.emu_score import sharded, shared
from pyg_emu.ops.emu_score.torch import mixed
from pyg_emu.ops.interop import promoted, uncompiled
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan

_DOT = Dot()


class EMUScores(NamedTuple):
    r"""What :func:`emu_score` returns. Scores are :math:`\phi` alone, without a model's constant offset.

    Args:
        vanilla (torch.Tensor, optional): Scores of the negatives as they are. shape: :obj:`(B, N)`.
        mutated (torch.Tensor, optional): Scores of the mutated negatives. shape: :obj:`(B, N)`.
    """
    vanilla: Tensor | None
    mutated: Tensor | None


@uncompiled
def emu_score(
    query: Tensor,
    positive: Tensor,
    table: Tensor | ShardedTable,
    index: Tensor | SharedIndex,
    plan: Plan | None = None,
    *,
    interaction: Interaction = _DOT,
    vanilla: bool = True,
    sparse_grad: bool = False,
    backend: str | None = None,
) -> EMUScores:
    r"""Scores negatives and their mutations, equation 6 of the `"Optimal Embedding Guided Negative Sample Generation"
    <https://arxiv.org/abs/2504.03327>`_ paper:

    .. math::
        s_{bn} &= \phi(\mathbf{q}_b, \mathbf{z}^-_{bn}) \\
        \tilde{s}_{bn} &= \phi(\mathbf{q}_b,\; \lambda_{bn} \odot \mathbf{z}^+_b + (1 - \lambda_{bn}) \odot
        \mathbf{z}^-_{bn}),

    with negatives :math:`\mathbf{z}^-_{bn}` = :obj:`table[index[b, n]]`. For a :class:`~pyg_emu.ops.MixPlan`, the
    mutated negative is :math:`w_{bn} \mathbf{z}^-_{bn} + (1 - w_{bn}) \mathbf{z}'_{bn}`, where :math:`\mathbf{z}'` is
    the positive (equation 22) or, if the plan names partners, :obj:`table[plan.partner[b, n]]`. The fused backends
    (:obj:`"numba"`, :obj:`"triton"`) read each row of the table once for both scores and create no tensor of size
    :math:`B \times N \times d`, neither in the forward nor in the backward pass.

    Where chunks of triples share their negatives (a :class:`~pyg_emu.ops.SharedIndex`), scores that are dot products
    are computed as matrix products, with every backend: vanilla ones, those of one mask per triple, and those of a
    :class:`~pyg_emu.ops.MixPlan` without partners. Each set of negatives is then read once, see
    :mod:`pyg_emu.ops.emu_score.shared`. Other interactions and plans give every triple its own copy of the ids.

    The scores are differentiable with respect to :obj:`query`, :obj:`positive`, :obj:`table`, a floating-point
    :attr:`MaskPlan.bank` and :attr:`MixPlan.weight`; in the fused backends once, where a second derivative raises an
    :class:`~pyg_emu.core.errors.ArgumentError`.

    :obj:`query`, :obj:`positive` and :obj:`table` may differ in their floating-point type, as they do under
    :class:`torch.autocast`. They are promoted to a common type (:func:`torch.promote_types`), which is also that of the
    scores; a floating-point bank or weights follow. Gradients have the types of their operands.

    Where the rows of the table are divided among processes (a :class:`~pyg_emu.core.sharded_table.ShardedTable`), all
    of them call the operator with the same arguments, see :mod:`pyg_emu.ops.emu_score.sharded`.

    :func:`torch.compile` breaks the graph around this operator.

    Args:
        query (torch.Tensor): One query per triple. shape: :obj:`(B, interaction.query_width(d))`.
        positive (torch.Tensor): The positive candidate of each triple. shape: :obj:`(B, d)`.
        table (torch.Tensor or ShardedTable): The candidates. shape: :obj:`(V, d)`.
        index (torch.Tensor or SharedIndex): Row of each negative, in :obj:`[0, V)`; int64. shape: :obj:`(B, N)`. The
            range is checked on the CPU; on CUDA the check would make the device wait.
        plan (MaskPlan or MixPlan, optional): How negatives are mutated. (default: :obj:`None`, not at all)
        interaction (Interaction, optional): :math:`\phi`. One that the fused backends do not know is computed by
            :obj:`"torch"`. (default: :class:`~pyg_emu.core.interaction.Dot`)
        vanilla (bool, optional): Whether to return the vanilla scores, too. (default: :obj:`True`)
        sparse_grad (bool, optional): If true, the gradient of :obj:`table` is a coalesced
            :func:`torch.sparse_coo_tensor` with one row per entity that occurs in :obj:`index` or
            :obj:`plan.partner`; it costs nothing that grows with :obj:`V`. (default: :obj:`False`, a dense gradient)
        backend (str, optional): :obj:`"torch"`, :obj:`"numba"` or :obj:`"triton"`.
            (default: :obj:`None`, see :mod:`pyg_emu.ops.backend`)

    Returns:
        EMUScores: :obj:`vanilla` is :obj:`None` with :obj:`vanilla=False`, :obj:`mutated` is :obj:`None` without a
        plan.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype, device or range.
        BackendError: If the backend asked for cannot run here.
    """
    if isinstance(index, SharedIndex):
        index.check('index')
    tensors(query=query, positive=positive, table=rows_of(table), index=_ids(index))
    vanilla, sparse_grad = boolean('vanilla', vanilla), boolean('sparse_grad', sparse_grad)
    check_operands(query, positive, table, index, interaction)
    if plan is None and not vanilla:
        raise ArgumentError('vanilla: there is nothing to score with vanilla=False and without a plan')
    if isinstance(table, ShardedTable):
        plan = None if plan is None else checked_plan(plan, table.rows, tuple(index.shape), table.size(0))
        own = partial(emu_score, interaction=interaction, vanilla=vanilla, sparse_grad=sparse_grad, backend=backend)
        return EMUScores(*sharded.run(query, positive, table, index, plan, vanilla, own))
    read_ahead(_ids(index), table)
    query, positive, table = promoted(query, positive, table)
    if plan is not None:
        plan = checked_plan(plan, table, tuple(index.shape), table.size(0))
    module = load_backend('emu_score', table, backend, interaction=interaction)
    if isinstance(index, SharedIndex):
        if shared.are_products(interaction, plan):
            # Operands have the type that the scores are to have; autocast would choose another one.
            with without_autocast(table):
                return EMUScores(*shared.run(query, positive, table, index, plan, vanilla, sparse_grad))
        index = index.expand()
    return EMUScores(*module.run(query, positive, table, index, plan, interaction, vanilla, sparse_grad))


def _ids(index: Tensor | SharedIndex) -> Tensor:
    return index.index if isinstance(index, SharedIndex) else index


def check_operands(query: Tensor, positive: Tensor, table: Any, index: Tensor | SharedIndex,
                   interaction: Interaction) -> None:
    r"""Raises an error if the operands do not fit together, see :func:`emu_score`."""
    if table.dim() != 2 or not table.is_floating_point():
        raise ArgumentError(f'table: expected floating-point numbers of shape (V, d), got {kind_of(table)}')
    check_interaction(interaction, table)
    ids = _ids(index)
    if ids.dim() != 2 or ids.dtype != torch.int64:
        raise ArgumentError(f'index: expected int64 entity ids of shape (B, N), got {kind_of(ids)}')
    size, width = index.shape[0], table.size(1)
    for name, value, columns in (('positive', positive, width), ('query', query, interaction.query_width(width))):
        if tuple(value.shape) != (size, columns):
            raise ArgumentError(f'{name}: expected shape {(size, columns)}, to go with index of shape '
                                f'{tuple(index.shape)}, table of shape {tuple(table.shape)} and interaction '
                                f"'{interaction.name}', got {tuple(value.shape)}")
        if not value.is_floating_point():
            raise ArgumentError(f'{name}: expected floating-point numbers, got {value.dtype}')
        on_device(name, value, table.device, 'table')
    on_device('index', ids, table.device, 'table')
    ids_below('index', ids, table.size(0), 'rows of table')


def mutate(positive: Tensor, negative: Tensor, plan: Plan, partner: Tensor | None = None) -> Tensor:
    r"""The mutated candidates, equation 6, or 22 for a :class:`~pyg_emu.ops.MixPlan`.

    Vectors of different floating-point types are promoted to a common one.

    Args:
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        negative (torch.Tensor): The negatives. shape: :obj:`(B, N, d)`.
        plan (MaskPlan or MixPlan): How they are mixed.
        partner (torch.Tensor, optional): The vectors of :attr:`MixPlan.partner <pyg_emu.ops.MixPlan>`, where the plan
            has partners. shape: :obj:`(B, N, d)`. (default: :obj:`None`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N, d)`.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype, device or range, or if one of :obj:`partner` and the
            plan's partners is missing.
    """
    tensors(positive=positive, negative=negative, optional=('partner', ), partner=partner)
    if negative.dim() != 3 or not negative.is_floating_point():
        raise ArgumentError(f'negative: expected floating-point numbers of shape (B, N, d), got {kind_of(negative)}')
    shape = tuple(negative.shape)
    for name, value, expected in (('positive', positive, shape[::2]), ('partner', partner, shape)):
        if value is None:
            continue
        if tuple(value.shape) != expected or not value.is_floating_point():
            raise ArgumentError(f'{name}: expected floating-point numbers of shape {expected}, to go with negative of '
                                f'shape {shape}, got {kind_of(value)}')
        on_device(name, value, negative.device, 'negative')
    named = isinstance(plan, MixPlan) and plan.partner is not None
    if named != (partner is not None):
        raise ArgumentError(f'partner: expected the vectors of plan.partner, of shape {shape}, got None'
                            if partner is None else
                            f'partner: expected None for a plan without partners, got {kind_of(partner)}')
    vectors = promoted(positive, negative, *(() if partner is None else (partner, )))
    plan = checked_plan(plan, vectors[1].flatten(0, 1), shape[:2], None)
    return mixed(vectors[0], vectors[1], plan, *vectors[2:])


def checked_plan(plan: Plan, table: Tensor, shape: tuple[int, ...], num_rows: int | None) -> Plan:
    r"""The plan, with its floating-point tensors in the type of the table.

    Args:
        plan (MaskPlan or MixPlan): The plan.
        table (torch.Tensor): Vectors of the width, type and device that the plan has to go with.
        shape (tuple of int): :obj:`(B, N)`.
        num_rows (int, optional): The number of entities that partners are chosen from, if it is known.
    """
    if not isinstance(plan, (MaskPlan, MixPlan)):
        raise ArgumentError(f'plan: expected a MaskPlan, a MixPlan or None, got {shown(plan)}')
    tensors(optional=('plan.label', 'plan.partner', 'plan.slot'),
            **{f'plan.{name}': value for name, value in plan._asdict().items()})
    if plan.label is not None:
        if tuple(plan.label.shape) != shape or not plan.label.is_floating_point():
            raise ArgumentError(f'plan.label: expected floating-point numbers of shape {shape}, '
                                f'got {kind_of(plan.label)}')
        on_device('plan.label', plan.label, table.device, 'table')
    if isinstance(plan, MixPlan):
        weight, partner = plan.weight, plan.partner
        if tuple(weight.shape) != shape or not weight.is_floating_point():
            raise ArgumentError(f'plan.weight: expected floating-point numbers of shape {shape}, got {kind_of(weight)}')
        on_device('plan.weight', weight, table.device, 'table')
        if partner is not None:
            if tuple(partner.shape) != shape or partner.dtype != torch.int64:
                raise ArgumentError(f'plan.partner: expected int64 entity ids of shape {shape}, got {kind_of(partner)}')
            on_device('plan.partner', partner, table.device, 'table')
            ids_below('plan.partner', partner, num_rows, 'rows of table')
        if plan.slot is not None:
            if tuple(plan.slot.shape) != shape or plan.slot.dtype != torch.int64 or partner is None:
                raise ArgumentError(f'plan.slot: expected int64 columns of shape {shape}, beside plan.partner, '
                                    f'got {kind_of(plan.slot)}' + (' without partners' if partner is None else ''))
            on_device('plan.slot', plan.slot, table.device, 'table')
        return plan._replace(weight=weight.to(table.dtype))
    bank = plan.bank
    if bank.dim() != 2 or bank.size(1) != table.size(1) or not (bank.dtype == torch.bool or bank.is_floating_point()):
        raise ArgumentError(f'plan.bank: expected torch.bool or floating-point numbers of shape (M, {table.size(1)}), '
                            f'got {kind_of(bank)}')
    if tuple(plan.index.shape) not in (shape, shape[:1]) or plan.index.dtype not in (torch.int64, torch.int32):
        shapes = ' or '.join(dict.fromkeys(map(str, (shape, shape[:1]))))
        raise ArgumentError(f'plan.index: expected int64 or int32 of shape {shapes}, got {kind_of(plan.index)}')
    on_device('plan.bank', bank, table.device, 'table')
    on_device('plan.index', plan.index, table.device, 'table')
    ids_below('plan.index', plan.index, bank.size(0), 'masks in plan.bank')
    return plan if bank.dtype == torch.bool else plan._replace(bank=bank.to(table.dtype))
