from __future__ import annotations

import inspect
from typing import Any, Callable

import pytest
import torch

from pyg_emu.core.errors import DataWarning
from pyg_emu.core.warn import warn


def function_of(module: str, body: str, **names: Any) -> Callable[[], None]:
    scope: dict[str, Any] = {'__name__': module, **names}
    exec(f'def function():\n    {body}', scope)
    return scope['function']


def test_warnings_point_at_the_first_line_outside_of_the_package() -> None:
    inner = function_of('pyg_emu.data.io.tables', 'warn("strange", DataWarning)', warn=warn, DataWarning=DataWarning)
    # PyTorch runs some functions of the package: decorated ones, modules, the transforms of a loader.
    inner = function_of('pyg_emu.data.graph', 'inner()', inner=torch.no_grad()(inner))
    with pytest.warns(DataWarning, match='strange') as told:
        line = inspect.stack()[0].lineno + 1
        inner()
    assert [(each.filename, each.lineno) for each in told] == [(__file__, line)]


@pytest.mark.parametrize('module', ['pyg_emu_models', 'torchvision.ops', '__main__'])
def test_packages_of_others_are_outside(module: str) -> None:
    other = function_of(module, 'warn("strange")', warn=warn)
    with pytest.warns(UserWarning, match='strange') as told:
        other()
    assert [(each.filename, each.lineno) for each in told] == [('<string>', 2)]


def test_a_stack_without_a_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pyg_emu.core.warn._is_inside', lambda module: True)
    with pytest.warns(UserWarning, match='strange'):
        warn('strange')
