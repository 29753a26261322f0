r"""The folder of one run: its files' names, how they are written, and the versions of what wrote them."""
from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import atomic_write, reason

#: The distributions whose versions decide what a run computes.
_DISTRIBUTIONS = ('torch', 'torch_geometric', 'numba', 'numpy', 'triton', 'torch_scatter', 'pyg_emu')


class RunFolder:
    r"""A folder that holds everything one run writes, and that evaluation, prediction and resumption read.

    Args:
        path (str or Path): The folder. It is made by :meth:`prepare`, not before.
    """
    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        self.recipe = self.path / 'recipe.yaml'
        self.versions = self.path / 'versions.json'
        self.history = self.path / 'history.csv'
        self.metrics = self.path / 'metrics.json'
        self.last = self.path / 'last.pt'
        self.best = self.path / 'best.pt'
        self.tensorboard = self.path / 'tensorboard'

    def prepare(self, needed: int = 0) -> None:
        r"""Makes the folder and finds out, before any work is done, whether the run's files will fit in it.

        Args:
            needed (int, optional): Bytes that the run's largest moment will take. (default: :obj:`0`)

        Raises:
            CheckpointError: If the folder cannot be made or written to, or has too little space left.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f'cannot make the run folder {self.path} ({reason(error)}); choose a folder '
                                  f'that can be written to') from error
        probe = self.path / '.probe'
        # An empty file can be made on a full disk; one with content cannot.
        atomic_write(probe, lambda file: file.write(bytes(65536)))
        probe.unlink()
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise CheckpointError(f'the run folder {self.path} has {free / 2**20:,.0f} MiB free, but the checkpoints '
                                  f'of this model need {needed / 2**20:,.0f} MiB; free some space or choose another '
                                  f'folder')

    def clear(self) -> None:
        r"""Removes what an earlier run wrote, so that a new one does not mix with it. Foreign files stay."""
        for path in (self.history, self.metrics, self.versions, self.last, self.best):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.tensorboard, ignore_errors=True)

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        r"""Writes :obj:`content` atomically and readably."""
        text = json.dumps(content, indent=2, allow_nan=True) + '\n'
        atomic_write(path, lambda file: file.write(text.encode()))

    def update_metrics(self, content: Mapping[str, Any]) -> None:
        r"""Merges :obj:`content` into :obj:`metrics.json`."""
        known = json.loads(self.metrics.read_text()) if self.metrics.exists() else {}
        self.write_json(self.metrics, {**known, **content})

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({str(self.path)!r})'


def versions(device: Optional[str] = None) -> dict[str, Any]:
    r"""What a result depends on besides the recipe: versions, machine and, from a git checkout, the commit.

    Args:
        device (str, optional): The device trained on. (default: :obj:`None`)
    """
    found: dict[str, Any] = {'python': platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    found['platform'] = platform.platform()
    found['cpu'] = _cpu_name()
    found['cores'] = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    if device is not None:
        import torch
        found['device'] = device
        found['threads'] = torch.get_num_threads()
        if device.startswith('cuda'):
            found['gpu'] = torch.cuda.get_device_name(device)
            found['cuda'] = torch.version.cuda
    found['commit'] = _commit()
    return found


def _cpu_name() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> Optional[str]:
    package = Path(__file__).resolve().parents[1]
    # Installed into site-packages, the package may lie below some unrelated repository.
    if not (package.parent / '.git').exists():
        return None
    try:
        described = subprocess.run(['git', 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*'],
                                   cwd=package, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
