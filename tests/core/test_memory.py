r"""Memory that is refused before it is taken."""
from __future__ import annotations

import os
import time

import pytest
import torch

from pyg_emu import models
from pyg_emu.core import memory
from pyg_emu.core.errors import OutOfMemoryError
from pyg_emu.core.memory import check_fits, installed_memory, is_out_of_memory, memory_reported


def test_limit_is_that_of_this_machine() -> None:
    limit = installed_memory()
    assert limit is not None and 2**26 < limit <= os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def test_limit_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip('resource')
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: (2**20, 2**30))
    assert installed_memory() == 2**20
    check_fits(2**20, 'a table', 'choose a smaller one')
    with pytest.raises(OutOfMemoryError, match=r'^a table needs 3\.0 GiB .* 0\.0 GiB .*; choose a smaller one$'):
        check_fits(3 * 2**30, 'a table', 'choose a smaller one')


def test_nothing_is_refused_where_the_limit_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, 'installed_memory', lambda: None)
    check_fits(10**30, 'a table', 'choose a smaller one')


@pytest.mark.parametrize('name', ['DistMult', 'ComplEx', 'TransE', 'RotatE', 'HAKE'])
def test_huge_models_are_refused_at_once(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(OutOfMemoryError, match=r'num_nodes=1000, .*hidden_channels=1000000000.* [34567],\d{3}\.\d GiB'
                       if name == 'DistMult' else r'hidden_channels=1000000000.*GiB'):
        getattr(models, name)(1000, 20, 10**9)
    assert time.monotonic() - began < 5.0
    with torch.device('meta'):
        assert getattr(models, name)(1000, 20, 10**9).node_emb.weight.is_meta


def test_failed_allocations_become_one_sentence() -> None:
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError('shapes differ'))
    with pytest.raises(OutOfMemoryError, match='^a table needs more memory .*; choose a smaller one$'):
        with memory_reported('a table', 'choose a smaller one'):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(RuntimeError, match='shapes differ'), memory_reported('a table', 'choose a smaller one'):
        raise RuntimeError('shapes differ')
