from __future__ import annotations

from typing import Any, Callable, Collection, Literal, Optional, Sequence, Union

import pytest
import torch

from pyg_emu.experiments.values import conform, is_plain


@pytest.mark.parametrize('value, hint, expected', [
    (1, float, 1.0), (True, bool, True), (None, Optional[int], None), (3, Optional[int], 3),
    ('a', Literal['a', 'b'], 'a'), ((1, 2), Sequence[int], [1, 2]), (1, Union[float, Callable[[int], float]], 1.0),
    (2, Union[float, torch.Tensor], 2.0), (['train'], Collection[str], ['train']),
    ([0.9, 1], tuple[float, float], [0.9, 1.0]), ('all', Union[None, str, Sequence[str]], 'all'), (object, Any, object),
])
def test_conform(value: Any, hint: Any, expected: Any) -> None:
    found = conform(value, hint)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize('value, hint, facts', [
    (True, int, ['integer']), (1.0, int, ['integer']), ('1', float, ['number']), (0, bool, ['true or false']),
    ('maybe', bool, ['true or false']), (None, int, ['integer']), ('x', Optional[int], ['integer', 'null']),
    ('c', Literal['a', 'b'], ["'a', 'b'"]), (True, Literal[1, 2], ['1, 2']), (3, Sequence[int], ['list']),
    ('train', Collection[str], ['list']), ([0.9], tuple[float, float], ['list of 2']), (2**63, int, ['2^63']),
    (-2**63 - 1, Any, ['2^63']), ('x', Union[float, Callable[[int], float]], ['number']), (False, float, ['number']),
])
def test_conform_refuses(value: Any, hint: Any, facts: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        conform(value, hint)
    assert all(fact in str(caught.value) for fact in facts)


def test_what_yaml_can_write() -> None:
    assert all(map(is_plain, (None, True, 1, 1.5, 'a', [1, (2, )], {'a': [None]})))
    assert not any(map(is_plain, (float('nan'), torch.float32, {1: 2}, [object()], lambda: 1)))
