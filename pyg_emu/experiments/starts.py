r"""Where a new run starts from, if not from initial weights: weights of another run, and given vectors."""
from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Union

import torch
from torch.optim import Optimizer

from pyg_emu.core.errors import CheckpointError, RecipeError
from pyg_emu.data.graph import KGData
from pyg_emu.experiments.recipe import setting_differences
from pyg_emu.training.checkpoint import load_weights
from pyg_emu.training.run_folder import RunFolder, read_json
from pyg_emu.training.warm_start import Vectors, warm_start

#: The file of a run folder that names where the run started from.
ORIGIN = 'origin.json'


@dataclass(frozen=True)
class Start:
    r"""What happens to a new model before its first step. A run that is continued has a state of its own.

    Args:
        model (callable): :obj:`model(model, data)` changes weights.
        optimizer (callable, optional): :obj:`optimizer(optimizer, model)` changes the state of the optimiser.
            (default: :obj:`None`)
        origin (dict, optional): The content of :obj:`origin.json`, plain values.
    """
    model: Callable[[torch.nn.Module, KGData], Any]
    optimizer: Optional[Callable[[Optimizer, torch.nn.Module], Any]] = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def file(self) -> bytes:
        r"""Returns the content of :obj:`origin.json`."""
        return (json.dumps(self.origin, indent=2) + '\n').encode()


def start_from(weights: Optional[Union[str, Path]] = None, entities: Optional[Vectors] = None,
               relations: Optional[Vectors] = None) -> Optional[Start]:
    r"""Returns the start from weights of the same model, and then from given vectors; :obj:`None` without either.

    Args:
        weights (str or Path, optional): A checkpoint. (default: :obj:`None`)
        entities (pandas.DataFrame or str or os.PathLike, optional): See :func:`~pyg_emu.warm_start`.
            (default: :obj:`None`)
        relations (pandas.DataFrame or str or os.PathLike, optional): Likewise. (default: :obj:`None`)
    """
    given = {'weights': weights, 'vectors': entities, 'relation_vectors': relations}
    if all(value is None for value in given.values()):
        return None

    def begin(model: torch.nn.Module, data: KGData) -> None:
        if weights is not None:
            load_weights(weights, model)
        warm_start(model, data, entities, relations)

    return Start(begin, None, {name: source_text(value) for name, value in given.items() if value is not None})


def source_text(source: Any) -> str:
    r"""Returns the path of a file, or :obj:`"given"` for an object."""
    return str(Path(source).expanduser().resolve()) if isinstance(source, (str, os.PathLike)) else 'given'


def read_origin(folder: RunFolder) -> Optional[dict[str, Any]]:
    r"""Returns the :obj:`origin.json` of a run folder, or :obj:`None` if there is none.

    Raises:
        CheckpointError: If it cannot be read.
    """
    path = folder.path / ORIGIN
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f'{path} is not a JSON object; restore the file')
    return found


def check_origin(folder: RunFolder, start: Start) -> None:
    r"""Checks that the run in a folder started as a new run would now.

    Raises:
        RecipeError: If it started elsewhere; names the differences.
        CheckpointError: If :obj:`origin.json` cannot be read.
    """
    found = read_origin(folder)
    changed = ['it began with initial weights'] if found is None else setting_differences(start.origin, found)
    if changed:
        raise RecipeError(f'{folder.path} contains a run that started elsewhere ({"; ".join(changed)}); to continue '
                          'it, leave out what a new run starts from (weights, vectors); otherwise choose another run '
                          'folder, or start over with resume=False')
