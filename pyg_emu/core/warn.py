r"""Warnings that point at the line of the caller, however many functions of the package lie between."""
from __future__ import annotations

import sys
import warnings

# Packages whose frames are not the caller's. PyTorch's lie between where it decorates a function, calls a module, or
# iterates over a loader.
_INSIDE = frozenset(('pyg_emu', 'torch', 'torch_geometric'))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    r"""Warns of something at the line outside of the package that led to it.

    Args:
        message (str): The text.
        category (type, optional): The class of the warning. (default: :obj:`UserWarning`)
    """
    # Python 3.12 has skip_file_prefixes for this, Python 3.11 does not.
    level, frame = 2, sys._getframe(1)
    while _is_inside(str(frame.f_globals.get('__name__'))) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition('.')[0] in _INSIDE
