r"""Settings that all tests share: cached kernels, one thread, the same examples in every run."""
from __future__ import annotations

import os
from pathlib import Path

# Before anything imports PyTorch or Numba, which read these once.
os.environ.setdefault('NUMBA_CACHE_DIR', str(Path(__file__).resolve().parent.parent / '.cache' / 'numba'))
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # Triton's kernels then run on the CPU, slowly. Read when Triton is imported, by whomever.
    os.environ.setdefault('TRITON_INTERPRET', '1')

settings.register_profile('reproducible', deadline=None, derandomize=True, database=None)
settings.load_profile('reproducible')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
