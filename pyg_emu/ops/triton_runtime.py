r"""What Triton kernels share."""
from __future__ import annotations

import functools
from typing import Any


@functools.cache
def mend_interpreter() -> None:
    r"""Lets Triton's interpreter, which runs kernels on the CPU for tests, loop up to a number that was loaded.

    It turns an array of one element into a number, which NumPy refuses from 2.4 on. Compiled kernels are not concerned.
    """
    from triton.runtime import interpreter

    patch = getattr(interpreter, '_patch_lang_tensor', None)
    if patch is None:
        return

    def mended(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = mended
