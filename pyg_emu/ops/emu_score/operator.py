r"""Vanilla and mutated scores of many negatives in one pass."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyg_emu.core.arguments import ids_below, kind_of, on_device
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot, Interaction
from pyg_emu.ops.backend import load_backend
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


def emu_score(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
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

    with negatives :math:`\mathbf{z}^-_{bn}` = :obj:`table[index[b, n]]`, and, for a :class:`~pyg_emu.ops.MixPlan`, the
    scalar of equation 22 in the mask's place. The fused backends (:obj:`"numba"`, :obj:`"triton"`) read each row of
    the table once for both scores and hold no tensor of size :math:`B \times N \times d`, neither forward nor back.

    The scores are differentiable with respect to :obj:`query`, :obj:`positive`, :obj:`table`, a floating-point
    :attr:`MaskPlan.bank` and :attr:`MixPlan.weight`; in the fused backends once.

    Args:
        query (torch.Tensor): One query per triple. shape: :obj:`(B, interaction.query_width(d))`.
        positive (torch.Tensor): The positive candidate of each triple. shape: :obj:`(B, d)`.
        table (torch.Tensor): The candidates. shape: :obj:`(V, d)`.
        index (torch.Tensor): Row of each negative, in :obj:`[0, V)`; int64. shape: :obj:`(B, N)`. The range is checked
            on the CPU; on CUDA the check would make the device wait.
        plan (MaskPlan or MixPlan, optional): How negatives are mutated. (default: :obj:`None`, not at all)
        interaction (Interaction, optional): :math:`\phi`. (default: :class:`~pyg_emu.core.interaction.Dot`)
        vanilla (bool, optional): Whether the vanilla scores are wanted too. (default: :obj:`True`)
        sparse_grad (bool, optional): If true, the gradient of :obj:`table` is a coalesced
            :func:`torch.sparse_coo_tensor` with one row per entity that occurs in :obj:`index`; it costs nothing that
            grows with :obj:`V`. (default: :obj:`False`, a dense gradient)
        backend (str, optional): :obj:`"torch"`, :obj:`"numba"` or :obj:`"triton"`.
            (default: :obj:`None`, see :mod:`pyg_emu.ops.backend`)

    Returns:
        EMUScores: :obj:`vanilla` is :obj:`None` if it is not wanted, :obj:`mutated` is :obj:`None` without a plan.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype, device or range.
        BackendError: If the backend asked for cannot run here.
    """
    _check_operands(query, positive, table, index, interaction)
    if plan is not None:
        _check_plan(plan, table, index)
    elif not vanilla:
        raise ArgumentError('vanilla: there is nothing to score with vanilla=False and without a plan')
    module = load_backend('emu_score', table, backend)
    return EMUScores(*module.run(query, positive, table, index, plan, interaction, vanilla, sparse_grad))


def _check_operands(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, interaction: Interaction) -> None:
    if not isinstance(interaction, Interaction):
        raise ArgumentError(f'interaction: expected an instance of Interaction, got {interaction!r}')
    if table.dim() != 2 or not table.is_floating_point():
        raise ArgumentError(f'table: expected floating-point numbers of shape (V, d), got {kind_of(table)}')
    if index.dim() != 2 or index.dtype != torch.int64:
        raise ArgumentError(f'index: expected int64 entity ids of shape (B, N), got {kind_of(index)}')
    size, width = index.size(0), table.size(1)
    if interaction.name in ('modulus', 'modulus_phase') and width % 2 != 0:
        raise ArgumentError(f"table: interaction '{interaction.name}' needs an even number of columns, got {width}")
    for name, value, columns in (('positive', positive, width), ('query', query, interaction.query_width(width))):
        if tuple(value.shape) != (size, columns):
            raise ArgumentError(f'{name}: expected shape {(size, columns)}, to go with index of shape '
                                f'{tuple(index.shape)}, table of shape {tuple(table.shape)} and interaction '
                                f"'{interaction.name}', got {tuple(value.shape)}")
        if value.dtype != table.dtype:
            raise ArgumentError(f'{name}: expected {table.dtype} as in table, got {value.dtype}')
        on_device(name, value, table.device, 'table')
    on_device('index', index, table.device, 'table')
    ids_below('index', index, table.size(0), 'rows of table')


def _check_plan(plan: Plan, table: Tensor, index: Tensor) -> None:
    shape = tuple(index.shape)
    if isinstance(plan, MixPlan):
        weight = plan.weight
        if tuple(weight.shape) != shape or weight.dtype != table.dtype:
            raise ArgumentError(f'plan.weight: expected {table.dtype} of shape {shape}, got {kind_of(weight)}')
        on_device('plan.weight', weight, table.device, 'table')
        return
    if not isinstance(plan, MaskPlan):
        raise ArgumentError(f'plan: expected a MaskPlan, a MixPlan or None, got {type(plan).__name__}')
    bank = plan.bank
    if bank.dim() != 2 or bank.size(1) != table.size(1) or bank.dtype not in (torch.bool, table.dtype):
        raise ArgumentError(f'plan.bank: expected torch.bool or {table.dtype} of shape (M, {table.size(1)}), '
                            f'got {kind_of(bank)}')
    if tuple(plan.index.shape) not in (shape, shape[:1]) or plan.index.dtype not in (torch.int64, torch.int32):
        raise ArgumentError(f'plan.index: expected int64 or int32 of shape {shape} or {shape[:1]}, '
                            f'got {kind_of(plan.index)}')
    on_device('plan.bank', bank, table.device, 'table')
    on_device('plan.index', plan.index, table.device, 'table')
    ids_below('plan.index', plan.index, bank.size(0), 'masks in plan.bank')
