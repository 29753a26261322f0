r"""Evaluation mode of a model for the duration of a block, also when several threads share the model."""
from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Iterator, NamedTuple, Optional

from torch.nn import Module


class _Hold(NamedTuple):
    r"""The mode a module had before the first of :obj:`holders` blocks put it into evaluation mode."""
    module: Module
    training: bool
    holders: int


_lock = threading.Lock()
# By the id of a module, which the entry keeps alive. Modules are counted one by one, since two models may share some.
_held: dict[int, _Hold] = {}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    r"""Puts a model into evaluation mode and restores the mode of each of its submodules afterwards.

    Threads may enter with the same model at the same time: the modes are saved when the first thread enters and
    restored when the last one leaves. Training the model in another thread meanwhile is not supported, because a module
    has one mode for all threads; evaluate a copy (:func:`copy.deepcopy`) in this case.

    Args:
        model (Any): A :class:`torch.nn.Module`, a bound method of one, or an object that holds one in its attribute
            :obj:`model`. Anything else has no mode and is left alone.
    """
    module = _module_of(model)
    if module is None:
        yield
        return
    parts = list(module.modules())
    with _lock:
        for part in parts:
            hold = _held.get(id(part), _Hold(part, part.training, 0))
            _held[id(part)] = hold._replace(holders=hold.holders + 1)
    try:
        with _lock:
            module.eval()
        yield
    finally:
        with _lock:
            for part in parts:
                hold = _held[id(part)]
                if hold.holders > 1:
                    _held[id(part)] = hold._replace(holders=hold.holders - 1)
                else:
                    del _held[id(part)]
                    part.training = hold.training


def _module_of(model: Any) -> Optional[Module]:
    holders = (model, getattr(model, 'model', None), getattr(model, '__self__', None))
    return next((holder for holder in holders if isinstance(holder, Module)), None)
