r"""What a mutation is, and how its rate is given."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol, Union, runtime_checkable

import torch
from torch import Tensor

from pyg_emu.core.arguments import is_number
from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops.plan import Plan

#: The share of a candidate's components that is taken FROM THE POSITIVE (the paper's :math:`n_P / d`): a number in
#: :obj:`[0, 1]`, or a function from the step to one.
Rate = Union[float, Callable[[int], float]]


@runtime_checkable
class Mutation(Protocol):
    r"""How negative candidates are mixed with the positive of their triple."""
    def plan(
        self,
        query: Tensor,
        num_negatives: int,
        width: int,
        generator: Optional[torch.Generator] = None,
        step: int = 0,
    ) -> Optional[Plan]:
        r"""Draws the mixing of one batch.

        Args:
            query (torch.Tensor): The queries of the batch; the plan has their device and floating-point type.
                shape: :obj:`(B, d_q)`.
            num_negatives (int): :obj:`N`.
            width (int): :obj:`d`, the width of a candidate row.
            generator (torch.Generator, optional): The random stream. (default: :obj:`None`, PyTorch's own)
            step (int, optional): The number of batches drawn so far, for schedules. (default: :obj:`0`)

        Returns:
            MaskPlan or MixPlan, optional: :obj:`None` if nothing is mutated in this step.
        """


@dataclass(frozen=True)
class LinearSchedule:
    r"""A rate that goes from :obj:`start` to :obj:`end` in :obj:`steps` equal steps and stays there.

    Args:
        start (float): The rate at step 0.
        end (float): The rate from step :obj:`steps` on.
        steps (int): The number of steps in between.

    Raises:
        ArgumentError: If a rate is not in :obj:`[0, 1]` or :obj:`steps` is not positive.
    """
    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        check_rate(self.start, 'start')
        check_rate(self.end, 'end')
        if not is_number(self.steps) or not self.steps >= 1:
            raise ArgumentError(f'steps: expected at least 1, got {self.steps!r}')

    def __call__(self, step: int) -> float:
        done = min(max(step / self.steps, 0.0), 1.0)
        return (1.0 - done) * self.start + done * self.end


def check_rate(rate: Any, name: str = 'rate') -> float:
    r"""Returns :obj:`rate`, or raises :class:`~pyg_emu.core.errors.ArgumentError` if it is not a number in
    :obj:`[0, 1]`."""
    if not is_number(rate) or not 0.0 <= rate <= 1.0:
        raise ArgumentError(f'{name}: expected the share of components taken from the positive, a number in [0, 1], '
                            f'got {rate!r}')
    return float(rate)


def rate_at(rate: Rate, step: int) -> float:
    r"""The rate at a step."""
    return check_rate(rate(step), f'rate at step {step}') if callable(rate) else float(rate)
