r"""What Numba kernels share: cache, threads, threading layer, and what is said when they are compiled."""
from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
import torch

from pyg_emu.ops import numba_runtime as runtime

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif('PYTEST_XDIST_WORKER' not in os.environ, reason='needs several workers')
def test_one_worker_runs_all_tests_of_a_kernel(request: pytest.FixtureRequest) -> None:
    # pytest-xdist appends the group.
    assert request.node.nodeid.endswith('@tests/ops/test_numba_runtime.py')


def test_threads_follow_torch_and_are_restored() -> None:
    before, limit = torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS
    outside = numba.get_num_threads()
    try:
        for num_threads in (1, limit):
            torch.set_num_threads(num_threads)
            with runtime.parallel_section():
                assert numba.get_num_threads() == min(num_threads, limit)
            assert numba.get_num_threads() == outside
    finally:
        torch.set_num_threads(before)




def test_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def refuse(*args: object, cache: bool = False, **kwargs: object) -> object:
        if not cache:
            return njit(*args, **kwargs)

        def decorate(function: object) -> None:
            raise RuntimeError('cannot cache function: no locator available')

        return decorate

    monkeypatch.setattr(numba, 'njit', refuse)

    @runtime.jit()
    def twice(value: float) -> float:
        return value + value

    assert twice(2.0) == 4.0


def test_no_more_threads_than_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(runtime, 'usable_cores', lambda: 1)
    monkeypatch.setattr(runtime, 'adapt_waits', lambda regions: None)
    try:
        torch.set_num_threads(2)
        with runtime.parallel_section():
            assert numba.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


LAYER = """
import numba, torch
from pyg_emu.ops.row_update import row_adagrad_
row_adagrad_(torch.ones(4, 8), torch.zeros(4, 8), torch.arange(4), torch.ones(4, 8), 0.1, 1e-8, backend='numba')
print(numba.threading_layer(), numba.config.THREADING_LAYER)
"""


def run(code: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True, timeout=120,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), **environment})
    assert done.returncode == 0, done.stderr
    return done


def test_layer_is_the_users() -> None:
    assert run(LAYER, NUMBA_THREADING_LAYER='workqueue').stdout.split() == ['workqueue', 'workqueue']
    pytest.importorskip('numba.np.ufunc.omppool')
    assert run(LAYER, NUMBA_THREADING_LAYER='omp').stdout.split() == ['omp', 'omp']


def test_layer_that_runs_already_stays() -> None:
    pytest.importorskip('numba.np.ufunc.omppool')
    started = 'import numba; numba.config.THREADING_LAYER = "omp"; numba.get_num_threads()\n'
    assert run(started + LAYER).stdout.split()[0] == 'omp'


def test_compiling_announces_itself_and_the_cache_is_silent(tmp_path: Path) -> None:
    environment = {'NUMBA_CACHE_DIR': str(tmp_path)}
    first, second = run(LAYER, **environment), run(LAYER, **environment)
    assert first.stderr.count('row_update') == 1 and 'pyg-emu warmup' in first.stderr
    assert len(first.stderr.splitlines()) == 1
    assert second.stderr == ''


def test_kernels_of_others_are_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert numba.njit(lambda value: value + 1.0)(1.0) == 2.0
    assert not caplog.records


def test_cache_lies_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv('NUMBA_CACHE_DIR', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    if sys.platform == 'linux':
        assert runtime.cache_folder(Path(__file__)).parent == tmp_path / 'pyg_emu' / 'numba'
    monkeypatch.setenv('NUMBA_CACHE_DIR', str(tmp_path / 'mine'))
    assert runtime.cache_folder(Path(__file__)).parent == tmp_path / 'mine'


def test_processes_that_compile_at_once_keep_their_own_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def kernel() -> Any:
        # Line and file are those of one function, as in two processes.
        @runtime.jit()
        def twice(value: float) -> float:
            return value + value

        return twice

    monkeypatch.setattr(runtime, 'cache_folder', lambda source: tmp_path)
    one, other = (kernel()._cache._cache_file for _ in range(2))
    save = one._save_data

    def save_late(name: str, data: object) -> None:
        # The other process has read the index before this one wrote it, and writes its file first.
        with monkeypatch.context() as patch:
            patch.setattr(other, '_load_index', dict)
            other.save('float64', 'code for float64')
        save(name, data)

    monkeypatch.setattr(one, '_save_data', save_late)
    one.save('float32', 'code for float32')
    for key in ('float32', 'float64'):
        assert kernel()._cache._cache_file.load(key) in (None, f'code for {key}')
    assert kernel()._cache._cache_file.load('float64') == 'code for float64'


def test_modules_of_kernels_can_be_imported_without_a_compiler() -> None:
    # As debuggers and coverage tools ask for.
    run('import pyg_emu.ops.row_update.numba, pyg_emu.ops.rank_counts.numba', NUMBA_DISABLE_JIT='1')


def test_kernels_are_kept_in_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, 'cache_folder', lambda source: tmp_path / 'kept')
    monkeypatch.setattr(numba.config, 'CACHE_DIR', '')

    @runtime.jit()
    def thrice(value: float) -> float:
        return 3.0 * value

    assert thrice(2.0) == 6.0
    assert list((tmp_path / 'kept').rglob('*.nbi'))
    assert numba.config.CACHE_DIR == ''


CALLER = """
from pyg_emu.ops.numba_runtime import jit
from helpers import factor

@jit()
def scaled(value):
    return factor() * value

print(scaled(2.0))
"""
HELPERS = """
from pyg_emu.ops.numba_runtime import jit

@jit(forceinline=True)
def factor():
    return {factor}
"""


def test_kernels_are_compiled_anew_when_what_they_call_has_changed(tmp_path: Path) -> None:
    # Numba by itself looks at the module of the kernel only and would go on to answer 6.
    (tmp_path / 'caller.py').write_text(CALLER)
    for factor in (3.0, 4.0):
        (tmp_path / 'helpers.py').write_text(HELPERS.format(factor=factor))
        environment = {'NUMBA_CACHE_DIR': str(tmp_path / 'cache'), 'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}',
                       'PYTHONDONTWRITEBYTECODE': '1'}
        done = run('import caller', **environment)
        assert float(done.stdout) == 2.0 * factor
