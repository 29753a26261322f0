r"""Strategies that fill the bank of masks of equation 6."""
from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from typing import ClassVar, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, one_of, positive_integer
from pyg_emu.core.complex_rows import modulus
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.memory import memory_reported
from pyg_emu.negatives.mutation.base import MutationContext, Rate, check_rate, rate_at
from pyg_emu.ops.plan import MaskPlan


class MaskMutation(ABC):
    r"""Base class of mutations by masks :math:`\lambda_{\mathrm{EMU}} \in \{0, 1\}^d`, equation 6 of the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper:

    .. math::
        \tilde{\mathbf{z}} = \lambda \odot \mathbf{z}^+ + (1 - \lambda) \odot \mathbf{z}^-

    A subclass implements :meth:`bank`.

    A step draws at most :obj:`num_masks` new masks, which slots share at random: drawing
    :math:`B \times N \times d` bits would cost more than the scoring itself.

    Args:
        rate (float or callable): The share of components taken FROM THE POSITIVE, :math:`n_P / d`, or a function
            from the step to it, such as :class:`~pyg_emu.negatives.mutation.LinearSchedule`. Zero turns mutation off.
        shared (bool, optional): If :obj:`True`, all negatives of a triple share one mask. If :obj:`False`, every
            negative has its own mask, as in the paper. (default: :obj:`True`, which trains at least as well on
            FB15k-237 and costs less)
        tied (bool, optional): If :obj:`True`, rows are :math:`[\mathrm{re}, \mathrm{im}]`, and the two parts of a
            complex component share a bit. (default: :obj:`False`)
        num_masks (int, optional): The number of new masks per step. (default: :obj:`2048`)

    Raises:
        ArgumentError: If :obj:`rate` is not in :obj:`[0, 1]` or :obj:`num_masks` is no positive integer; when planning,
            if :obj:`tied` is set and rows have an odd width.
    """
    def __init__(self, rate: Rate, *, shared: bool = True, tied: bool = False, num_masks: int = 2048) -> None:
        super().__init__()
        self.rate = rate if callable(rate) and not isinstance(rate, type) else check_rate(rate)
        self.shared = boolean('shared', shared)
        self.tied = boolean('tied', tied)
        self.num_masks = positive_integer('num_masks', num_masks)

    @abstractmethod
    def bank(self, rate: float, size: int, width: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        r"""Draws masks.

        Args:
            rate (float): The share of ones, in :obj:`(0, 1]`.
            size (int): :obj:`M`, the number of masks.
            width (int): :obj:`d`, the number of bits of a mask, before tied bits are doubled.
            query (torch.Tensor): The queries, for their device and type. shape: :obj:`(B, d_q)`.
            generator (torch.Generator, optional): The random stream.

        :rtype: :class:`torch.Tensor` of shape :obj:`(M, d)`, true where the positive's component is taken.
        """

    def plan(self, context: MutationContext) -> Optional[MaskPlan]:
        r"""See :meth:`Mutation.plan() <pyg_emu.negatives.mutation.Mutation.plan>`."""
        query, generator = context.query, context.generator
        rate = rate_at(self.rate, context.step)
        if rate == 0.0:
            return None
        slots = (query.size(0), ) if self.shared else (query.size(0), context.num_negatives)
        size = min(math.prod(slots), self.num_masks)
        bank = self.bank(rate, size, self._bits(context.width), query, generator)
        if self.tied:
            bank = torch.cat([bank, bank], dim=1)
        return MaskPlan(bank, self._index(slots, size, query, generator))

    def _bits(self, width: int) -> int:
        if not self.tied:
            return width
        if width % 2 != 0:
            raise ArgumentError(f'tied: expected rows [re, im] of even width, got width {width}; use tied=False for '
                                'real models')
        return width // 2

    @staticmethod
    def _index(slots: tuple[int, ...], size: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        if size == math.prod(slots):
            return torch.arange(size, device=query.device).view(slots)  # A mask for each slot.
        return torch.randint(size, slots, generator=generator, device=query.device)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(rate={self.rate}, shared={self.shared}, tied={self.tied})'


class BernoulliMask(MaskMutation):
    r"""Takes each component from the positive independently, with probability :obj:`rate` (section 3.2).

    Probabilities are resolved to :math:`2^{-16}`. For the arguments see :class:`MaskMutation`.
    """
    def bank(self, rate: float, size: int, width: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        # Four 16-bit numbers from every 64-bit draw: three times as fast on a CPU as torch.rand.
        words = torch.empty(-(-size * width // 4), dtype=torch.int64, device=query.device)
        words.random_(-2**63, None, generator=generator)
        chances = words.view(torch.int16)[:size * width].view(size, width)
        return chances <= max(round(rate * 2**16), 1) - 1 - 2**15


class ExactMask(MaskMutation):
    r"""Takes exactly :math:`n_P = \mathrm{round}(\mathrm{rate} \cdot d)` components, in random places, from the
    positive (footnote 2). For the arguments see :class:`MaskMutation`.
    """
    def bank(self, rate: float, size: int, width: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        count = round(rate * width)
        # Marking the smaller part is the same draw and the cheaper selection.
        marks = count <= width // 2
        order = torch.rand(size, width, generator=generator, device=query.device)
        places = order.topk(count if marks else width - count, dim=1, sorted=False).indices
        bank = torch.full((size, width), not marks, dtype=torch.bool, device=query.device)
        return bank.scatter_(1, places, marks)


class BlockMask(MaskMutation):
    r"""Takes one contiguous block of :math:`n_P = \mathrm{round}(\mathrm{rate} \cdot d)` components from the
    positive. It starts at a random component and wraps around at the end. For the arguments see :class:`MaskMutation`.
    """
    def bank(self, rate: float, size: int, width: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        start = torch.randint(width, (size, 1), generator=generator, device=query.device)
        return (torch.arange(width, device=query.device) - start) % width < round(rate * width)


class ImportanceMask(MaskMutation):
    r"""Takes the :math:`n_P = \mathrm{round}(\mathrm{rate} \cdot d)` components that weigh most, or least, in the
    query from the positive: those with the largest, or smallest, :math:`|q_k|` (with :obj:`tied`, the largest or
    smallest complex modulus).

    There is one mask per triple. The components that remain from the negative decide the score if :obj:`first` is
    :obj:`"smallest"`, and hardly matter if it is :obj:`"largest"`.

    Args:
        rate (float or callable): The share of components taken FROM THE POSITIVE, :math:`n_P / d`, or a function
            from the step to it.
        first (str, optional): :obj:`"largest"` or :obj:`"smallest"`. (default: :obj:`"largest"`)
        tied (bool, optional): See :class:`MaskMutation`. (default: :obj:`False`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when planning, if queries and candidates differ in
            width, so that :math:`q_k` is not the weight of component :math:`k`.
    """
    def __init__(self, rate: Rate, first: str = 'largest', *, tied: bool = False) -> None:
        one_of('first', first, ('largest', 'smallest'))
        # Every triple has its own mask, so the bank is never too large.
        super().__init__(rate, shared=True, tied=tied, num_masks=sys.maxsize)
        self.first = first

    def plan(self, context: MutationContext) -> Optional[MaskPlan]:
        if context.query.size(1) != context.width:
            raise ArgumentError(f'mutation: ImportanceMask expects queries as wide as candidates ({context.width}), '
                                f'got queries of width {context.query.size(1)}')
        return super().plan(context)

    def bank(self, rate: float, size: int, width: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        query = query.detach()
        weight = modulus(query) if self.tied else query.abs()
        places = weight.topk(round(rate * width), dim=1, largest=self.first == 'largest', sorted=False).indices
        return torch.zeros_like(weight, dtype=torch.bool).scatter_(1, places, True)


class LearnedMask(MaskMutation, torch.nn.Module):
    r"""Masks drawn from learned probabilities, one logit per component, with straight-through gradients.

    The forward value of a mask is binary; its gradient is that of the probability. Pass :meth:`parameters` to the
    optimiser of the model, too:

    .. code-block:: python

        mutation = LearnedMask(width=model.entity_table().size(1))
        optimizer = torch.optim.Adam([*model.parameters(), *mutation.parameters()], lr=0.001)
        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(num_negatives=64, mutation=mutation))

    Args:
        width (int): :obj:`d`, the width of a candidate row.
        rate (float, optional): The probability that all components start from, in :obj:`(0, 1)`. (default: :obj:`0.3`)
        adversarial (bool, optional): If :obj:`True`, the logits ascend the loss that the model descends, and learn
            masks that make hard negatives. If :obj:`False`, they descend it, too. (default: :obj:`False`)
        shared (bool, optional): See :class:`MaskMutation`. (default: :obj:`True`)
        tied (bool, optional): See :class:`MaskMutation`. (default: :obj:`False`)
        num_masks (int, optional): See :class:`MaskMutation`. (default: :obj:`2048`)

    Raises:
        ArgumentError: If :obj:`width` is no positive integer or :obj:`rate` is not inside :obj:`(0, 1)`; when planning,
            if the rows have another width.
    """
    #: Logits have no rows.
    dense_gradient: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        rate: float = 0.3,
        *,
        adversarial: bool = False,
        shared: bool = True,
        tied: bool = False,
        num_masks: int = 2048,
    ) -> None:
        super().__init__(rate, shared=shared, tied=tied, num_masks=num_masks)
        if not 0.0 < check_rate(rate) < 1.0:
            raise ArgumentError(f'rate: expected a probability inside (0, 1) to start from, got {rate}')
        self.width = positive_integer('width', width)
        self.adversarial = boolean('adversarial', adversarial)
        with memory_reported(f'a mask of width={width}', 'expected the width of a row of the entity table'):
            self.logits = torch.nn.Parameter(torch.full((self._bits(width), ), math.log(rate / (1 - rate))))

    def bank(self, rate: float, size: int, width: int, query: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        if width != self.logits.numel():
            raise ArgumentError(f'mutation: LearnedMask was made for rows of width {self.width}, got '
                                f'{2 * width if self.tied else width}')
        chance = self.logits.sigmoid().to(query.dtype)
        hard = torch.rand(size, width, generator=generator, device=query.device, dtype=query.dtype) < chance
        # The value is exactly zero, and the gradient is that of the probability.
        soft = chance.detach() - chance if self.adversarial else chance - chance.detach()
        return hard.to(query.dtype) + soft

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(width={self.width}, shared={self.shared}, tied={self.tied})'
