from __future__ import annotations

import pytest

from pyg_emu.core.drawing import new_figure
from pyg_emu.core.errors import ArgumentError


def test_a_figure_shows_itself_without_pyplot() -> None:
    pytest.importorskip('matplotlib')
    formatters = pytest.importorskip('IPython.core.formatters')
    figure = new_figure('a test', 2.0, 1.0)
    figure.add_subplot().plot([1, 2])
    assert formatters.PNGFormatter()(figure).startswith(b'\x89PNG')


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pyg_emu.core.drawing.find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match='metrics.*matplotlib.*plots'):
        new_figure('metrics', 2.0, 1.0)
