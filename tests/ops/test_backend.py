from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.core.interaction import Dot
from pyg_emu.ops import MaskPlan, SoftLabels, emu_loss, emu_score, last_backend, rank_counts, use_backend
from pyg_emu.ops import backend as backends
from pyg_emu.ops.random_words import random_words


def score(dtype: torch.dtype = torch.float32, backend: str | None = None) -> str | None:
    r"""Runs the operator once and returns the backend that was used."""
    query = torch.ones(1, 2, dtype=dtype)
    scores = emu_score(query, query, torch.ones(2, 2, dtype=dtype), torch.zeros(1, 1, dtype=torch.int64),
                       backend=backend)
    assert scores.vanilla is not None and scores.vanilla.item() == 2.0
    return last_backend('emu_score')


def test_device_and_dtype_decide() -> None:
    assert score() == 'numba'
    assert score(torch.float64) == 'numba'
    # Half precision on the CPU is supported by the reference only.
    assert score(torch.bfloat16) == 'torch'


def test_order_of_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, 'torch')
    assert score() == 'torch'
    with use_backend('numba'):
        assert score() == 'numba'
        assert score(backend='torch') == 'torch'
        with use_backend(None):
            assert score() == 'torch'
        assert score() == 'numba'
    assert score() == 'torch'


def test_block_is_left_on_errors() -> None:
    with pytest.raises(RuntimeError, match='inside'):
        with use_backend('torch'):
            raise RuntimeError('inside')
    assert score() == 'numba'


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="^backend: .*'torch', 'numba', 'triton'.*'cuda'"):
        score(backend='cuda')
    with pytest.raises(ArgumentError, match="^name: .*'cuda'"):
        with use_backend('cuda'):
            pass
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, 'numb')
    with pytest.raises(ArgumentError, match="PYG_EMU_BACKEND: .*'numb'"):
        score()


def test_requests_that_cannot_be_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(BackendError, match='float32.*float64.*torch.bfloat16'):
        score(torch.bfloat16, 'numba')
    with use_backend('numba'), pytest.raises(BackendError, match="^emu_score: .*'numba'.*torch.bfloat16"):
        score(torch.bfloat16)
    with pytest.raises(BackendError, match="^emu_score: .*'triton'"):
        score(backend='triton')
    meta = torch.empty(1, device='meta')
    with pytest.raises(BackendError, match="^emu_score: .*'numba'.*CPU.*meta"):
        backends.load_backend('emu_score', meta, 'numba')
    with pytest.raises(BackendError, match='emu_nothing .*torch'):
        backends.load_backend('emu_nothing', torch.empty(1), 'torch')


def test_a_choice_for_all_operators_leaves_out_those_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    query, table = torch.ones(1, 2), torch.ones(3, 2)
    with pytest.raises(BackendError, match='^rank_counts: .*no triton implementation'):
        rank_counts(query, table, torch.tensor([0]), interaction=Dot(), backend='triton')
    with use_backend('triton'):
        rank_counts(query, table, torch.tensor([0]), interaction=Dot())
    assert last_backend('rank_counts') == 'numba'
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, 'triton')
    rank_counts(query, table, torch.tensor([0]), interaction=Dot())
    assert last_backend('rank_counts') == 'numba'


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = backends._exists
    monkeypatch.setattr(backends, '_exists', lambda module: module != 'numba' and exists(module))
    assert score() == 'torch'
    with pytest.raises(BackendError, match="'numba'.*pip install numba"):
        score(backend='numba')


def test_numba_is_not_imported_before_it_is_needed() -> None:
    code = ('import sys, torch, pyg_emu.ops; '
            'assert "numba" not in sys.modules and "triton" not in sys.modules')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2])


def test_concurrent_calls() -> None:
    query, table = torch.randn(20, 8), torch.randn(30, 8)
    index = torch.randint(30, (20, 10))
    expected = emu_score(query, query, table, index, backend='torch').vanilla
    assert expected is not None
    found: list[bool] = []

    def work() -> None:
        for _ in range(20):
            other = emu_score(query, query, table, index, backend='numba').vanilla
            found.append(other is not None and torch.allclose(other, expected, atol=1e-4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


@pytest.mark.parametrize('backend', ['torch', 'numba'])
def test_operands_say_where_to_compute(backend: str) -> None:
    torch.manual_seed(0)
    query, table = (torch.randn(size, 16, requires_grad=True) for size in (3, 9))
    index, target = torch.randint(9, (3, 4)), torch.arange(3)
    plan = MaskPlan(torch.rand(2, 16) > 0.5, torch.tensor([0, 1, 1]))

    def results() -> list[Tensor]:
        scores = emu_score(query, table[:3], table, index, plan, interaction=Dot(), vanilla=True, backend=backend)
        loss = emu_loss(query, table[:3], table, index, labels=SoftLabels(), backend=backend)[0]
        counts = rank_counts(query, table, target, interaction=Dot(), backend=backend)
        words = random_words((3, ), torch.Generator().manual_seed(0), backend=backend)
        return [scores.vanilla, scores.mutated, *torch.autograd.grad(loss, (query, table)), *counts, words]

    expected = results()
    torch.set_default_device('meta')
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = results()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected):
        assert torch.equal(one, other)
