r"""Functions of which there is a first derivative, and no second one.

A backward pass that autograd does not see, such as that of a kernel, has no derivative of its own. With
:obj:`create_graph=True`, autograd takes its result for a constant, and a gradient penalty or a Hessian loses its
second-order part without a word. :func:`torch.autograd.function.once_differentiable` speaks up only where the incoming
gradient requires one itself, which that of a scalar loss does not.
"""
from __future__ import annotations

import functools
from typing import Any, Callable

import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError


def first_order(name: str, remedy: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    r"""Decorates the :meth:`backward` of a :class:`torch.autograd.Function`, so that a second derivative raises an
    error. A first one with :obj:`create_graph=True` is what it is without. Inputs that the result depends on have to be
    saved with :obj:`ctx.save_for_backward`.

    .. code-block:: python

        class Scores(torch.autograd.Function):
            @staticmethod
            @first_order("emu_score with backend 'numba'", "take backend='torch'")
            def backward(ctx, grad):
                ...

    Args:
        name (str): The function, as a user knows it.
        remedy (str): What to do for a second derivative.
    """
    def decorated(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def run(ctx: Any, *grads: Any) -> Any:
            # A backward pass runs with gradients if it is to be differentiated, and only then. A compiler, which
            # follows it beforehand, refuses second derivatives itself.
            if not torch.is_grad_enabled() or torch.compiler.is_compiling():
                return backward(ctx, *grads)
            once = _Unpacked(ctx)
            with torch.no_grad():
                found = backward(once, *(grad.detach() if isinstance(grad, Tensor) else grad for grad in grads))
            message = (f'create_graph: {name} is differentiable once, and a second derivative was asked for, as those '
                       f'of gradient penalties and Hessians; {remedy}')
            # What the result is a function of: autograd.grad() comes by only where a path leads to its inputs.
            sources = [value for value in (*grads, *once.saved_tensors)
                       if isinstance(value, Tensor) and value.requires_grad]
            found = found if isinstance(found, tuple) else (found, )
            return tuple(_Refusal.apply(message, value, *sources) if isinstance(value, Tensor) else value
                         for value in found)

        return run

    return decorated


class _Unpacked:
    r"""A context whose saved tensors are read once, as activation checkpointing allows."""
    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self.saved_tensors: tuple[Any, ...] = ctx.saved_tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


class _Refusal(torch.autograd.Function):
    r"""The same values, dense or sparse, which cannot be differentiated by what they are a function of."""
    @staticmethod
    def forward(ctx: Any, message: str, value: Tensor, *sources: Tensor) -> Tensor:
        ctx.message = message
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise ArgumentError(ctx.message)
