r"""Mixup of negatives with their positive."""
from __future__ import annotations

import torch

from pyg_emu.core.arguments import positive_number
from pyg_emu.negatives.mutation.base import MutationContext
from pyg_emu.negatives.mutation.beta import beta_logits
from pyg_emu.ops.plan import MixPlan


class Mixup:
    r"""Mixup in place of mutation, equation 22 and Table 2 of the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper:

    .. math::
        \tilde{\mathbf{z}} = w\, \mathbf{z}^- + (1 - w)\, \mathbf{z}^+, \qquad w \sim \mathrm{Beta}(\alpha, \beta)

    with one draw per triple and negative. :math:`w` multiplies the NEGATIVE: the default
    :math:`\mathrm{Beta}(2, 1)`, whose mean is two thirds, keeps more of the negative than of the positive.

    Args:
        alpha (float, optional): :math:`\alpha`. (default: :obj:`2.0`)
        beta (float, optional): :math:`\beta`. (default: :obj:`1.0`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is not a positive number.
    """
    def __init__(self, alpha: float = 2.0, beta: float = 1.0) -> None:
        self.alpha = positive_number('alpha', alpha)
        self.beta = positive_number('beta', beta)

    def plan(self, context: MutationContext) -> MixPlan:
        r"""See :meth:`Mutation.plan() <pyg_emu.negatives.mutation.Mutation.plan>`."""
        query, generator = context.query, context.generator
        shape = (query.size(0), context.num_negatives)
        if self.beta == 1.0:
            # The distribution function is w^alpha. Drawing by its inverse is much cheaper than two gamma variates.
            uniform = torch.rand(shape, generator=generator, device=query.device, dtype=query.dtype)
            return MixPlan(uniform.pow_(1.0 / self.alpha))
        drawn = beta_logits(self.alpha, self.beta, shape, query.dtype, query.device, generator)
        return MixPlan(drawn.sigmoid().to(query.dtype))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(alpha={self.alpha}, beta={self.beta})'
