r"""The protocol of mutations, the plan of a batch, and rates."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol, Union, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import is_number
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan

#: The share of a candidate's components that is taken FROM THE POSITIVE (the paper's :math:`n_P / d`): a number in
#: :obj:`[0, 1]`, or a function from the step to one.
Rate = Union[float, Callable[[int], float]]


@dataclass(frozen=True)
class MutationContext:
    r"""All that a mutation can see of a step.

    Args:
        batch (Batch): The batch: triples, :obj:`side`, :obj:`neg_index` and :obj:`source`, the graph.
        model (Any): The model: a :class:`~pyg_emu.Scorer`, or an :class:`~pyg_emu.NBFNet`, which has no entity table.
        query (torch.Tensor): The queries of the batch. A plan has their device and floating-point type.
            shape: :obj:`(B, d_q)`.
        num_negatives (int): :math:`N`, the number of ids per triple that are mutated.
        width (int): :math:`d`, the width of a candidate row.
    """
    batch: Batch
    model: Any
    query: Tensor
    num_negatives: int
    width: int

    @property
    def index(self) -> Optional[Tensor]:
        r"""The ids of the negatives, or :obj:`None` for a loss against all entities. shape: :obj:`(B, N)`."""
        return self.batch.neg_index

    @property
    def generator(self) -> Optional[torch.Generator]:
        r"""The random stream, or :obj:`None` for PyTorch's global one."""
        return self.batch.generator

    @property
    def step(self) -> int:
        r"""The number of batches drawn before this one, for schedules."""
        return self.batch.step or 0


@runtime_checkable
class Mutation(Protocol):
    r"""A way to mix negative candidates with the positive of their triple, or with other entities.

    A mutation is any object with a method :meth:`plan`:

    .. code-block:: python

        class HalfWay:
            def plan(self, context):
                return MixPlan(context.query.new_full((context.query.size(0), context.num_negatives), 0.5))

        transform = EMUNegatives(mutation=HalfWay())

    A mutation that learns is a :class:`~pyg_emu.LearningPart`, too.
    """
    def plan(self, context: MutationContext) -> Optional[Plan]:
        r"""Draws the mixing of one batch.

        Args:
            context (MutationContext): The batch, its queries and the model.

        Returns:
            MaskPlan or MixPlan, optional: The plan, with a row for each row of :obj:`context.query`, or :obj:`None` if
            nothing is mutated in this step. Labels in the plan replace those that the loss gives to mutated negatives.
        """


def draw_plan(mutation: Optional[Mutation], batch: Batch, model: Any, query: Tensor, num_negatives: int,
              width: int) -> Optional[Plan]:
    r"""Draws the plan of a batch, as losses do.

    Where the batch is one process's part of another, the mutation plans for the whole batch, and the rows of the part
    are cut out: every process consumes the same random numbers, and every triple is mutated as in a single process.

    Args:
        mutation (Mutation, optional): The mutation, or :obj:`None`.
        batch (Batch): The batch.
        model (Any): The model, see :class:`MutationContext`.
        query (torch.Tensor): The queries of the batch. shape: :obj:`(B, d_q)`.
        num_negatives (int): :math:`N`.
        width (int): :math:`d`, the width of a candidate row.

    Raises:
        ArgumentError: If the mutation returns no plan, or one whose labels have another shape than :obj:`(B, N)`.
    """
    if mutation is None:
        return None
    whole, rows = batch.whole, batch.rows
    if whole is None or rows is None:
        return _checked(mutation, mutation.plan(MutationContext(batch, model, query, num_negatives, width)),
                        query.size(0), num_negatives)
    size = whole.head_index.numel()
    # Queries of other rows are zero: what is planned for those rows is thrown away.
    padded = F.pad(query, (0, 0, rows.start, size - rows.stop))
    plan = _checked(mutation, mutation.plan(MutationContext(whole, model, padded, num_negatives, width)), size,
                    num_negatives)
    return None if plan is None else plan.rows(rows)


def _checked(mutation: Mutation, plan: Optional[Plan], size: int, num_negatives: int) -> Optional[Plan]:
    if plan is None:
        return None
    if not isinstance(plan, (MaskPlan, MixPlan)):
        raise ArgumentError(f'mutation: {mutation!r} returned an object of type {type(plan).__name__}; expected a '
                            'MaskPlan, a MixPlan or None')
    if plan.label is not None and tuple(plan.label.shape) != (size, num_negatives):
        raise ArgumentError(f'plan.label: expected shape {(size, num_negatives)}, a label for each negative, got '
                            f'{tuple(plan.label.shape)} from {mutation!r}')
    return plan


@dataclass(frozen=True)
class LinearSchedule:
    r"""A rate that changes from :obj:`start` to :obj:`end` in :obj:`steps` equal steps and then stays constant.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, mutation_rate=LinearSchedule(0.1, 0.6, steps=1000))

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
            raise ArgumentError(f'steps: expected a number of at least 1, got {self.steps!r}')

    def __call__(self, step: int) -> float:
        done = min(max(step / self.steps, 0.0), 1.0)
        return (1.0 - done) * self.start + done * self.end


def check_rate(rate: Any, name: str = 'rate') -> float:
    r"""Returns :obj:`rate` as a float.

    Raises:
        ArgumentError: If it is not a number in :obj:`[0, 1]`.
    """
    if not is_number(rate) or not 0.0 <= rate <= 1.0:
        raise ArgumentError(f'{name}: expected the share of components taken from the positive, a number in [0, 1], '
                            f'got {rate!r}')
    return float(rate)


def rate_at(rate: Rate, step: int) -> float:
    r"""The rate at a step."""
    if not callable(rate):
        return float(rate)
    try:
        return check_rate(rate(step), f'rate at step {step}')
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # from inside of the function
        raise ArgumentError(f'rate: expected a function from the step to a share, such as LinearSchedule; {rate!r:.99} '
                            f'cannot be called with a step ({error})') from error
