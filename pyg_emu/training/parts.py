r"""The parts of a run that learn beside the model: found once, and treated alike in each step and checkpoint."""
from __future__ import annotations

from typing import Any, Iterator, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.contract import for_batch
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.contract import does, parameters_of
from pyg_emu.negatives.transform import parts_of


class LearningParts:
    r"""The criterion, its mutation if it has one of its own, and the parts of a loader's transform, see
    :class:`~pyg_emu.LearningPart`.

    Args:
        loader (Any): The loader.
        model (torch.nn.Module): The model.
        criterion (Any): The criterion.
    """
    def __init__(self, loader: Any, model: torch.nn.Module, criterion: Any) -> None:
        #: The parts by name.
        self.named = parts_of(loader, criterion)
        self.model = model
        self._updated = [part for part in self.named.values() if does(part, 'update')]
        self._observed = [part for part in self.named.values() if does(part, 'observe')]
        #: The optimisers of the parts' own, by the names of the parts.
        self.optimizers: dict[str, Optimizer] = {}

    def start(self, optimizer: Optimizer) -> None:
        r"""Makes the optimisers of the parts, checks that each trainable parameter has one, and lets the parts begin.

        Args:
            optimizer (torch.optim.Optimizer): The optimiser of the model.

        Raises:
            ArgumentError: If :obj:`make_optimizer` returns something else, or a parameter has no optimiser.
        """
        self.optimizers = {}
        for name, part in self.named.items():
            if not does(part, 'make_optimizer'):
                continue
            made = part.make_optimizer()
            if made is not None and not isinstance(made, Optimizer):
                raise ArgumentError(f'{name}: make_optimizer() of {type(part).__name__} returned an object of type '
                                    f'{type(made).__name__}; expected a torch.optim.Optimizer or None')
            if made is not None:
                self.optimizers[name] = made
        moved = {id(value) for one in (optimizer, *self.optimizers.values()) for group in one.param_groups
                 for value in group['params']}
        for name, part in self.named.items():
            idle = [value for value in parameters_of(part) if value.requires_grad and id(value) not in moved]
            if idle:
                raise ArgumentError(f'optimizer: {len(idle)} parameters of {type(part).__name__} ({name}) belong to no '
                                    'optimiser and would not be learned; pass its parameters() to the optimiser beside '
                                    'those of the model, give it make_optimizer(), or set requires_grad=False')
        for part in self.named.values():
            if does(part, 'begin'):
                part.begin(as_scorer(self.model))

    def check_processes(self) -> None:
        r"""Checks that the parts can learn in several processes.

        Raises:
            ArgumentError: If a part observes scores, of which each process only has those of its own rows.
        """
        if self._observed:
            names = ', '.join(type(part).__name__ for part in self._observed)
            raise ArgumentError(f'loader: {names} observes scores, but each of several processes scores only its own '
                                'rows; expected one process')

    def parameters(self) -> Iterator[Tensor]:
        r"""The parameters of all parts, each once."""
        yield from {id(value): value for part in self.named.values() for value in parameters_of(part)}.values()

    def update(self, batch: Batch) -> None:
        r"""Lets the parts learn from the model, before the loss."""
        if self._updated:
            scorer = for_batch(as_scorer(self.model), batch)
            for part in self._updated:
                part.update(batch, scorer)

    def observe(self, batch: Batch) -> None:
        r"""Lets the parts learn from the scores of a batch, after the step.

        Raises:
            ArgumentError: If the criterion left no scores.
        """
        if not self._observed:
            return
        scored = getattr(batch, 'scored', None)
        if scored is None:
            names = ', '.join(type(part).__name__ for part in self._observed)
            raise ArgumentError(f'criterion: {names} observes the scores of a batch, and the criterion left none in '
                                'batch.scored; use a LinkPredictionLoss, or set batch.scored in your own')
        for part in self._observed:
            part.observe(batch, scored)

    def terms(self) -> dict[str, Tensor]:
        r"""The terms of the last step of all parts that have an attribute :obj:`terms`, each under the name of its part
        and its own. Those of the criterion are not among them: the step knows them, weighted by its rows.
        """
        found: dict[str, Tensor] = {}
        for name, part in self.named.items():
            terms = None if name == 'criterion' else getattr(part, 'terms', None)
            if isinstance(terms, Mapping):
                found |= {f'{name}.{key}': value for key, value in terms.items()}
        return found

    def states(self) -> dict[str, Any]:
        r"""The parts that have a state, by name, their optimisers among them. The state of a module within another
        part belongs to that part.
        """
        within = {id(module) for part in self.named.values() if isinstance(part, torch.nn.Module)
                  for module in part.modules() if module is not part}
        states = {name: part for name, part in self.named.items()
                  if id(part) not in within and does(part, 'state_dict') and does(part, 'load_state_dict')}
        return {**states, **{f'{name}.optimizer': one for name, one in self.optimizers.items()}}
