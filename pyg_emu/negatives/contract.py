r"""What samplers and parts that learn offer to the transform and the trainer."""
from __future__ import annotations

import inspect
from typing import Any, Iterable, NamedTuple, Optional, Protocol, Union, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.core.contract import ScoredBatch, Scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.data.batch import Batch


class Negatives(NamedTuple):
    r"""Negative candidates of a batch: entity ids, vectors, or both.

    A sampler that generates vectors returns them as :obj:`vectors`, attached to its parameters if the loss is to train
    them (see :class:`LearningPart`) and detached if not:

    .. code-block:: python

        def sample(self, batch, num_negatives, generator=None):
            index = torch.empty(batch.head_index.numel(), 0, dtype=torch.int64, device=batch.device)  # no ids
            return Negatives(index, vectors=self.network(self.noise(batch, num_negatives)))

    Args:
        index (torch.Tensor or SharedIndex): Entity ids. shape: :obj:`(B, N)`, int64. A
            :class:`~pyg_emu.ops.SharedIndex` where chunks of rows share them.
        mask (torch.Tensor, optional): True where the candidate counts; ids first, then vectors. shape:
            :obj:`(B, N + M)`. (default: :obj:`None`, all count)
        vectors (torch.Tensor, optional): Candidate vectors, as wide as a row of the model's entity table. shape:
            :obj:`(B, M, d)`. (default: :obj:`None`)
    """
    index: Union[Tensor, SharedIndex]  # type: ignore[assignment]  # shadows tuple.index
    mask: Optional[Tensor] = None
    vectors: Optional[Tensor] = None


@runtime_checkable
class Sampler(Protocol):
    r"""A source of negative candidates. One that learns is a :class:`LearningPart`, too."""

    def sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator] = None) -> Negatives:
        r"""Draws candidates for the unknown end of each triple of :obj:`batch`."""


def check_sampler(name: str, value: Any) -> Optional[Sampler]:
    r"""Checks that a value is a sampler or :obj:`None`.

    Args:
        name (str): The name of the argument, for the message.
        value (Sampler, optional): The value to check.

    Raises:
        ArgumentError: If it is neither, or a class instead of an instance.
    """
    if value is None:
        return None
    # The method of a table draws rows.
    fits = isinstance(value, Sampler) and not isinstance(value, (type, pd.DataFrame, pd.Series))
    if fits:
        try:
            inspect.signature(value.sample).bind(None, 1, None)
        except TypeError:  # a method of another kind that shares the name
            fits = False
        except ValueError:  # no signature to be had
            pass
    if not fits:
        raise ArgumentError(f'{name}: expected an object with the method sample(batch, num_negatives, generator) of '
                            f'pyg_emu.Sampler, got {shown(value)}')
    return value


class LearningPart:
    r"""A part of training, beside the model, that learns: a learned mask, a cache of hard negatives, a generator.

    :class:`~pyg_emu.Trainer` finds the parts in the loader's transform (the transform itself, its :obj:`sampler` and
    its :obj:`mutation`, also inside a :class:`torch_geometric.transforms.Compose`), and the :obj:`mutation` of a loss,
    and treats all of them alike. Each
    method is optional, and a part need not derive from this class: a :class:`torch.nn.Module`, for example, already has
    :meth:`parameters` and its state.

    When training starts or is resumed, the trainer calls :meth:`begin`. In each step, it

    1. calls :meth:`update`, after the negatives were drawn and before the loss;
    2. computes the loss and its gradients, which reach the part's :meth:`parameters`;
    3. clips gradients, where :obj:`max_grad_norm` is set, and steps the model's optimiser and the part's own;
    4. calls :meth:`observe` with the scores of the batch.

    State is saved in checkpoints and restored on resumption, that of the part's own optimiser included.

    A part may have :obj:`terms`, a dictionary of detached scalars on the device that describe the last step, such as
    losses of its own. The history then contains their means. Their names begin with the name of the part, such as
    :obj:`"transform.sampler.generator_loss"`.
    """
    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        bases = cls.__mro__
        if torch.nn.Module in bases and bases.index(torch.nn.Module) > bases.index(LearningPart):
            raise ArgumentError(f'{cls.__name__}: expected torch.nn.Module before LearningPart among the base classes, '
                                'whose parameters() and state_dict() would hide those of the module')

    def parameters(self) -> Iterable[Tensor]:
        r"""The parameters that gradients of the loss train. Without :meth:`make_optimizer`, they have to be passed to
        the optimiser of the trainer.
        """
        return ()

    def make_optimizer(self) -> Optional[torch.optim.Optimizer]:
        r"""Returns an optimiser of the part's own for its :meth:`parameters`, called when training starts, or
        :obj:`None`. An adversary ascends the loss with an optimiser made with :obj:`maximize=True`.
        """
        return None

    def begin(self, scorer: Scorer) -> None:
        r"""Learns which model is trained, before the first batch is drawn. A part that reads the model as negatives are
        drawn keeps it; its weights are always the current ones.

        Args:
            scorer (Scorer): The model. Vectors of a batch are those of
                :func:`for_batch(scorer, batch) <pyg_emu.core.contract.for_batch>`.
        """

    def update(self, batch: Batch, scorer: Scorer) -> None:
        r"""Learns from the current model, before the loss.

        Args:
            batch (Batch): The batch, with negatives.
            scorer (Scorer): The model; of an encoder, with the entity vectors of this batch.
        """

    def observe(self, batch: Batch, scored: ScoredBatch) -> None:
        r"""Learns from the scores of the batch, after the step, such as from a reward.

        Args:
            batch (Batch): The batch, with negatives.
            scored (ScoredBatch): The scores that the loss was made of, detached.
        """

    def state_dict(self) -> dict[str, Any]:
        r"""Tensors and numbers from which :meth:`load_state_dict` continues."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        r"""Continues from what :meth:`state_dict` returned."""


def does(part: Any, name: str) -> bool:
    r"""Whether a part has a method of its own, other than one of :class:`~pyg_emu.LearningPart` that does nothing."""
    return callable(getattr(part, name, None)) and getattr(type(part), name, None) is not getattr(LearningPart, name)


def shared_parameters(parts: Iterable[Any]) -> list[Tensor]:
    r"""The parameters of parts that belong into the optimiser of the model: those of no part with an optimiser of its
    own, each once.

    Args:
        parts (iterable): The parts of a run.
    """
    shared: dict[Tensor, None] = {}
    own: set[Tensor] = set()
    for part in parts:
        if does(part, 'make_optimizer'):
            own.update(parameters_of(part))
        else:
            shared.update(dict.fromkeys(parameters_of(part)))
    return [value for value in shared if value not in own]


def parameters_of(part: Any) -> list[Tensor]:
    r"""The parameters of a part, or none."""
    return [*part.parameters()] if does(part, 'parameters') else []
