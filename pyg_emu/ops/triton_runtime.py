r"""Shared helpers of Triton kernels."""
from __future__ import annotations

import functools
from typing import Any


@functools.cache
def mend_interpreter() -> None:
    r"""Patches Triton's interpreter, which runs kernels on the CPU for tests, to support loop bounds that were loaded.

    The interpreter converts an array of one element to an integer, which NumPy 2.4 and later reject. Compiled kernels
    are not affected.
    """
    from triton.runtime import interpreter

    patch = getattr(interpreter, '_patch_lang_tensor', None)
    if patch is None:
        return

    def mended(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = mended
