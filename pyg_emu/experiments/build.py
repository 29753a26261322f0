r"""From a checked section to the object that it describes."""
from __future__ import annotations

import functools
from importlib import import_module
from typing import Any, Callable, Mapping

from pyg_emu.core.errors import PygEmuError, RecipeError
from pyg_emu.experiments.names import NESTED, SECTIONS
from pyg_emu.experiments.sections import class_of, name_in, signature


def build(kind: str, value: Mapping[str, Any], **given: Any) -> Any:
    r"""Makes the object that a checked section describes.

    Args:
        kind (str): A key of :obj:`~pyg_emu.experiments.names.SECTIONS`.
        value (dict): What :func:`~pyg_emu.experiments.sections.check_section` returned.
        **given (optional): Arguments that the program supplies. Those that the class does not take are left out.

    Raises:
        RecipeError: If the class refuses an argument; names the section.
    """
    section = SECTIONS[kind]
    make = class_of(kind, value)
    arguments = {key: option for key, option in value.items() if key != 'name' or not section.named}
    for key, inner in NESTED.items():
        if isinstance(arguments.get(key), dict):
            arguments[key] = build(inner, arguments[key])
    known = signature(make)
    reciprocal = section.reciprocal and arguments.pop('reciprocal', False)
    if reciprocal:
        given['num_relations'] *= 2
    arguments |= {key: option for key, option in given.items() if key in known}
    try:
        made = make(**arguments)
        return import_module('pyg_emu.models').Reciprocal(made) if reciprocal else made
    except RecipeError:
        raise
    except (PygEmuError, ValueError, TypeError) as error:
        raise RecipeError(f'{kind}: {error}') from error
    except Exception as error:  # PyTorch, for sizes that do not fit into memory; a constructor of the user's own
        told = str(error).splitlines()[0] if str(error) else 'no message'
        raise RecipeError(f'{kind}: {name_in(kind, value)} cannot be made with these settings '
                          f'({type(error).__name__}: {told})') from error


def fused_by_default(model: Mapping[str, Any], optimizer: Mapping[str, Any], graph: bool = False,
                     device: Any = 'cpu') -> dict[str, Any]:
    r"""The arguments that make an optimiser of PyTorch take its fastest step, where a recipe leaves that open and the
    gradients are dense. By default it makes several passes over each table on a CPU. With :obj:`graph`, the arguments
    without which Adam refuses to be captured in a CUDA graph are included.

    Args:
        model (dict): The checked section.
        optimizer (dict): The checked section.
        graph (bool, optional): Whether steps are captured. (default: :obj:`False`)
        device (str or torch.device, optional): Where the parameters are. (default: :obj:`"cpu"`)
    """
    cls = class_of('optimizer', optimizer)
    known = signature(cls)
    held = {'capturable': True} if graph and 'capturable' in known else {}
    chosen = any(optimizer.get(key) is not None for key in ('fused', 'foreach'))
    if model.get('sparse') or chosen or 'fused' not in known:
        return held
    return {'fused': True, **held} if _has_fused_step(cls, device) else held


@functools.cache
def _has_fused_step(cls: Callable[..., Any], device: Any) -> bool:
    r"""Whether an optimiser can take a fused step on a device. The answer depends on the version of PyTorch, and it is
    known only after a step: 2.11 fuses Adagrad on a CPU alone.
    """
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        cls([parameter], lr=0.1, fused=True).step()
    except (RuntimeError, TypeError, ValueError):
        return False
    return True
