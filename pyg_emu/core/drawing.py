r"""Figures of matplotlib that notebooks display."""
from __future__ import annotations

import io
from functools import partial
from importlib.util import find_spec
from typing import Any

from pyg_emu.core.errors import ArgumentError


def new_figure(purpose: str, width: float, height: float) -> Any:
    r"""Returns an empty :class:`matplotlib.figure.Figure`. It is freed when it is unused, needs no display, and shows
    itself in a notebook in which nothing has imported pyplot.

    Args:
        purpose (str): What needs it, for the message of the error.
        width (float): The width in inches.
        height (float): The height in inches.

    Raises:
        ArgumentError: If matplotlib is not installed.
    """
    if find_spec('matplotlib') is None:
        raise ArgumentError(f"{purpose} needs the package matplotlib, which is not installed; install the extra "
                            "'plots': pip install matplotlib")
    from matplotlib.figure import Figure
    figure: Any = Figure(figsize=(width, height), layout='constrained')
    figure._repr_png_ = partial(_png, figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=100)
    return buffer.getvalue()
