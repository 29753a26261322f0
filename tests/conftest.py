r"""Settings that all tests share: cached kernels, one thread, the same examples in every run."""
from __future__ import annotations

import os
from pathlib import Path

# Before anything imports PyTorch or Numba, which read these once.
os.environ.setdefault('NUMBA_CACHE_DIR', str(Path(__file__).resolve().parent.parent / '.cache' / 'numba'))
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
from hypothesis import settings

settings.register_profile('reproducible', deadline=None, derandomize=True, database=None)
settings.load_profile('reproducible')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
