r"""How operators stand beside :func:`torch.compile` and :class:`torch.autocast`."""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec('P')
T = TypeVar('T')


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    r"""Puts a graph break around an operator: :func:`torch.compile` calls it as it is and compiles what surrounds it.

    :func:`torch.compiler.disable` imports Dynamo, which takes seconds, when it decorates. This waits until somebody
    else has imported it, as nothing can be compiled before.

    Args:
        function (callable): The operator.
    """
    disabled: list[Callable[P, T]] = []

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if 'torch._dynamo' not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(cast('Callable[P, T]', torch.compiler.disable(function)))
        return disabled[0](*args, **kwargs)

    return run


def promoted(*tensors: Tensor) -> tuple[Tensor, ...]:
    r"""Floating-point tensors in the type that PyTorch's arithmetic would give to all of them together, as mixed types
    meet under :class:`torch.autocast`.

    Args:
        *tensors (torch.Tensor): Tensors; those that are of this type already are returned as they are.
    """
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return tuple(tensor if tensor.dtype == dtype else cast(Tensor, _Converted.apply(tensor, dtype))
                 for tensor in tensors)


class _Converted(torch.autograd.Function):
    r""":meth:`torch.Tensor.to`, for row-sparse gradients too."""
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = tensor.dtype
        return tensor.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None
