r"""The folder of a run: its files, the lock that protects them, and the order in which they are written.

:obj:`last.pt` defines the state of a run. It contains the rows of the history, the content of :obj:`metrics.json` and
the digest of :obj:`best.pt`. When a run is resumed, all other files are made consistent with it. A checkpoint is
written in this order:

1. the weights of a new best step, to :obj:`.best.pt.next`;
2. :obj:`last.pt`, with the digest of these weights;
3. :obj:`.best.pt.next` is renamed to :obj:`best.pt`;
4. the row of :obj:`history.csv`, then :obj:`metrics.json`.

Entity rows that are divided among processes or in memory-mapped files are written before, to a folder of
:obj:`tables`, to which 1 and 2 refer.

If the process is killed between 2 and 3, :meth:`RunFolder.settle` renames the file later, and :meth:`RunFolder.weights`
returns the correct file until then.
"""
from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Iterator, Literal, Mapping, Optional, Sequence, Union

from pyg_emu.core.distributed import current, on_first
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.files import FolderLock, atomic_write, read_bytes, reason, remove, rename
from pyg_emu.core.warn import warn
from pyg_emu.training.checkpoint import load_checkpoint, verified_digest
from pyg_emu.training.loggers import EVENTS_SUFFIX
from pyg_emu.training.tables import TABLES, remove_tables

#: Identifies a :obj:`run.json` of this package.
FORMAT = 'pyg_emu.training.run'

#: The distributions whose versions affect the results of a run.
_DISTRIBUTIONS = ('torch', 'torch_geometric', 'numba', 'numpy', 'triton', 'torch_scatter', 'pyg_emu')


class RunFolder:
    r"""A folder with all files of one run, used by evaluation, prediction and to resume training.

    :obj:`run.json` lists the files of the run. Other files are never modified or removed, unless :obj:`overwrite` is
    set.

    Args:
        path (str or Path): The folder, created when it is first locked.
        overwrite (bool, optional): Whether a new run may replace conflicting files: files of the user, or files of a
            run whose :obj:`last.pt` is missing or whose :obj:`run.json` is damaged. (default: :obj:`False`)
        files (dict, optional): Additional files of the run, from name to content. They are written when the run starts
            or resumes. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`path` is empty.
    """
    def __init__(self, path: Union[str, Path], overwrite: bool = False,
                 files: Optional[Mapping[str, bytes]] = None) -> None:
        if not isinstance(path, (str, Path)):
            raise ArgumentError(f'run_dir: expected a path, got {path!r}')
        if isinstance(path, str) and not path.strip():
            raise ArgumentError(f"run_dir: expected the path of a folder, got {path!r}; the working directory is '.'")
        self.path = Path(path)
        self.overwrite = overwrite
        self.files = dict(files or {})
        self.recipe = self.path / 'recipe.yaml'
        self.record = self.path / 'run.json'
        self.versions = self.path / 'versions.json'
        self.history = self.path / 'history.csv'
        self.metrics = self.path / 'metrics.json'
        self.last = self.path / 'last.pt'
        self.best = self.path / 'best.pt'
        self.staged = self.path / '.best.pt.next'
        self.tensorboard = self.path / 'tensorboard'
        #: Entity rows that are divided among processes or in memory-mapped files, see :mod:`pyg_emu.training.tables`.
        self.tables = self.path / TABLES
        #: Whether the run has such rows.
        self.has_tables = False
        # What run.json says of the run to resume: its files, and the backends of its operators.
        self._known: Sequence[str] = ()
        self._kept: dict[str, Any] = {}
        self._holds = 0
        self._lock: Optional[FolderLock] = None
        self._made: list[Path] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        r"""Locks the folder for this process (or for the first of several processes) and creates it if it does not
        exist. A nested :obj:`with` block of the same object has no effect.

        Raises:
            CheckpointError: If another process has locked the folder, or it cannot be created or written to.
        """
        if self._holds == 0:
            on_first(self._acquire)
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._holds == 0 and current()[0] == 0:
                self._release()

    def _acquire(self) -> None:
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f'cannot create the run folder {self.path} ({reason(error)}); choose a writable '
                                  'folder') from error
        self._made = missing
        lock = FolderLock(self.path)
        lock.acquire()
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        for folder in self._made:  # Removed if the run has not written any files.
            try:
                folder.rmdir()
            except OSError:
                break

    def prepare(self, needed: int = 0) -> None:
        r"""Creates the folder and checks that it is writable before any work is done.

        Args:
            needed (int, optional): The size of the run's files in bytes. (default: :obj:`0`)

        Raises:
            CheckpointError: If the folder cannot be created or written to, or the disk has too little free space.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f'cannot create the run folder {self.path} ({reason(error)}); choose a writable '
                                  'folder') from error
        probe = self.path / '.probe'
        # An empty file can be created even on a full disk.
        atomic_write(probe, lambda file: file.write(bytes(65536)))
        remove(probe)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise CheckpointError(f'the run folder {self.path} has {free / 2**20:,.0f} MiB free, but the checkpoints '
                                  f'of this model need {needed / 2**20:,.0f} MiB; free some space or choose another '
                                  f'folder')

    def open(self, resume: Union[bool, Literal['auto']], needed: int = 0) -> bool:
        r"""Prepares the folder for a run. The files of a run to resume stay as they are, and :meth:`describe` follows
        once its state is loaded: a run that is refused leaves them unchanged.

        Args:
            resume (bool or str): See :meth:`Trainer.fit() <pyg_emu.Trainer.fit>`.
            needed (int, optional): See :meth:`prepare`. (default: :obj:`0`)

        Returns:
            Whether there is a run to resume.

        Raises:
            CheckpointError: If :obj:`resume` is :obj:`True` and there is no run, if the folder contains files of the
                user or a run without its :obj:`last.pt`, or if it is not writable.
        """
        names = self._names()
        self.prepare(needed)
        self._sweep(names)
        own = self._own()
        if own is not None and own.get('clearing'):  # The process was killed while it removed files.
            self._clear(own['files'])
            own = {'files': [self.record.name]}
        known = own['files'] if own is not None else []
        foreign = [name for name in names if (self.path / name).exists() and name not in known]
        if foreign and not self.overwrite:
            raise CheckpointError(f'{self.path} contains {", ".join(foreign)}, which no run in this folder has '
                                  'written; choose another run folder, move the files, or replace them with '
                                  'overwrite=True')
        going_on = own is not None and self.last.exists() and self.last.name not in foreign and resume is not False
        if resume is True and not going_on:
            raise CheckpointError(f"cannot resume: {self.last} does not exist; pass the folder of an interrupted run, "
                                  "or resume='auto'")
        left = [path.name for path in (self.best, self.history) if path.exists()]
        if not going_on and left and resume is not False and not self.overwrite:
            raise CheckpointError(f'{self.last} is missing, but the folder contains {" and ".join(left)} of a run; '
                                  'restore last.pt, choose another run folder, or replace the run with resume=False')
        if not going_on:
            self._clear([*known, *foreign])
        self._known = known
        self._kept = {'backends': own['backends']} if going_on and own is not None and 'backends' in own else {}
        return going_on

    def describe(self, record: Mapping[str, Any], only_missing: bool = False) -> None:
        r"""Writes :obj:`run.json` and the additional files of the run. Called after :meth:`open`, and before any other
        file of a new run is written.

        Args:
            record (dict): The description of the run in :obj:`run.json`, without the list of files.
            only_missing (bool, optional): Whether files that exist stay as they are: they describe a run that takes no
                further step. (default: :obj:`False`)
        """
        names = self._names()
        files = [*names, *(name for name in self._known if name not in names)]
        if not (only_missing and self.record.exists()):
            self.write_record({'files': files, **record, **self._kept})
        for name, content in self.files.items():
            path = self.path / name
            if _content(path) != content and not (only_missing and path.exists()):
                atomic_write(path, partial(_write_bytes, content))

    def _names(self) -> list[str]:
        r"""Returns the names of all files that the run writes."""
        paths = (self.last, self.best, self.history, self.metrics, self.record, self.versions)
        return [*(path.name for path in paths), *([self.tables.name] if self.has_tables else []), *self.files]

    def _own(self) -> Optional[dict[str, Any]]:
        r"""Returns the content of :obj:`run.json`, or an equivalent for a run of an older version without this file, or
        :obj:`None` if there is no run.
        """
        found = read_json(self.record) if self.record.exists() else None
        if isinstance(found, dict) and found.get('format') == FORMAT and isinstance(found.get('files'), list):
            # Names only, so that the file cannot affect anything outside of the folder.
            return {**found, 'files': [name for name in map(str, found['files']) if Path(name).name == name]}
        if self.last.exists() and not self.record.exists():
            try:
                load_checkpoint(self.last)
            except CheckpointError:
                return None
            names = ('recipe.yaml', 'trained_on.json', 'versions.json', 'history.csv', 'metrics.json', 'last.pt',
                     'best.pt')
            return {'files': [name for name in names if (self.path / name).exists()]}
        return None

    def _clear(self, names: Sequence[str]) -> None:
        r"""Removes the files of a run. If the process is killed meanwhile, the next :meth:`open` removes the rest."""
        present = [name for name in names if (self.path / name).exists() and name != self.record.name]
        events = [*self.tensorboard.glob(f'*tfevents*{EVENTS_SUFFIX}')] if self.tensorboard.is_dir() else []
        if not present and not events and not self.staged.exists():
            return
        self.write_record({'files': [*present, self.record.name], 'clearing': True})
        for path in (*(self.path / name for name in present), self.staged, *events):
            if path != self.tables:
                remove(path)
        if self.tables.name in present:
            remove_tables(self.tables)
        if events:
            try:
                self.tensorboard.rmdir()
            except OSError:
                pass  # The folder contains files of the user.

    def _sweep(self, names: Sequence[str]) -> None:
        r"""Removes temporary files of killed processes. No other process writes to a locked folder."""
        ours = {*names, self.staged.name, '.probe'}
        for path in self.path.glob('.*.tmp'):
            parts = re.fullmatch(r'\.(.+)\.\d+-[0-9a-f]{8}\.tmp', path.name)
            if parts is not None and parts[1] in ours:
                remove(path)

    def write_record(self, content: Mapping[str, Any]) -> None:
        r"""Writes :obj:`run.json`."""
        self.write_json(self.record, {'format': FORMAT, **content})

    def update_record(self, content: Mapping[str, Any]) -> None:
        r"""Merges :obj:`content` into :obj:`run.json`."""
        known = read_json(self.record)
        self.write_json(self.record, {**(known if isinstance(known, dict) else {'format': FORMAT}), **content})

    def promote(self) -> None:
        r"""Renames the staged weights to :obj:`best.pt`."""
        rename(self.staged, self.best)

    def settle(self, step: Optional[int], digest: Optional[str], metrics: Mapping[str, Any], has_rows: bool) -> None:
        r"""Makes all files consistent with :obj:`last.pt` before the run is resumed.

        Args:
            step (int, optional): The step of the best weights, if there are any.
            digest (str, optional): The digest of the best weights, or :obj:`None` if :obj:`last.pt` was written by a
                version that did not record it.
            metrics (dict): The content of :obj:`metrics.json` at that time. Empty before the first evaluation.
            has_rows (bool): Whether the history has rows.

        Raises:
            CheckpointError: If the best weights are missing, damaged or of another step.
        """
        if step is not None:
            if digest is not None and self.staged.exists() and verified_digest(self.staged) == digest:
                self.promote()
            if not self.best.exists():
                raise CheckpointError(f'{self.best} is missing, but {self.last} refers to step {step} as the best '
                                      'step; restore the file, or start over with resume=False')
            if digest is not None and verified_digest(self.best) != digest:
                raise CheckpointError(f'{self.best} is not the file that {self.last} refers to (the weights of step '
                                      f'{step}); restore that file, or start over with resume=False')
        remove(self.staged)
        if not has_rows:
            remove(self.history)
            remove(self.metrics)
        found = read_json(self.metrics)
        if metrics and (not isinstance(found, dict) or any(found.get(key) != value for key, value in metrics.items())):
            self.write_json(self.metrics, metrics)

    def weights(self, which: Literal['best', 'last'] = 'best') -> Path:
        r"""Returns the path of the best or the last weights. Without validation, the last weights are the best. If
        :obj:`best.pt` is missing for another reason, raises a warning.

        Args:
            which (str, optional): :obj:`"best"` or :obj:`"last"`. (default: :obj:`"best"`)

        Raises:
            CheckpointError: If :obj:`last.pt` is required and cannot be read.
        """
        if which == 'last':
            return self.last
        if self.best.exists() and not self.staged.exists():
            return self.best
        if not self.last.exists():
            return self.best if self.best.exists() else self.last
        state = load_checkpoint(self.last)
        run = state.get('run')
        run = run if isinstance(run, dict) else {}
        digest, step = run.get('best_digest'), run.get('best_step')
        if digest is not None and self.staged.exists() and verified_digest(self.staged) == digest:
            return self.staged
        if self.best.exists():
            return self.best
        if step is not None:
            warn(f'{self.best} is missing, which contained the weights of step {step}, the best on the '
                 f'validation facts; using {self.last.name} with the weights of step {state.get("step")}')
        return self.last

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        r"""Writes :obj:`content` atomically as indented JSON."""
        text = json.dumps(content, indent=2, allow_nan=True) + '\n'
        atomic_write(path, lambda file: file.write(text.encode()))

    def update_metrics(self, content: Mapping[str, Any]) -> None:
        r"""Merges :obj:`content` into :obj:`metrics.json`.

        Raises:
            CheckpointError: If the file is not a JSON object or cannot be written.
        """
        known = read_json(self.metrics) if self.metrics.exists() else {}
        if not isinstance(known, dict):
            raise CheckpointError(f'{self.metrics} is not a JSON object; restore the file or remove it')
        self.write_json(self.metrics, {**known, **content})

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({str(self.path)!r})'


def _write_bytes(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _content(path: Path) -> Optional[bytes]:
    r"""Returns the content of a file, or :obj:`None` if it cannot be read."""
    try:
        return read_bytes(path)
    except OSError:
        return None


def read_json(path: Path) -> Any:
    r"""Returns the content of a JSON file, or :obj:`None` if it cannot be read."""
    try:
        return json.loads(read_bytes(path).decode())
    except (OSError, ValueError, RecursionError):
        return None


def versions(device: Optional[str] = None) -> dict[str, Any]:
    r"""Returns what affects a result besides the recipe: versions, the machine and, in a git checkout, the commit.

    Args:
        device (str, optional): The training device. (default: :obj:`None`)
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
    # If installed into site-packages, the package may be inside of an unrelated repository.
    if not (package.parent / '.git').exists():
        return None
    try:
        described = subprocess.run(['git', 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*'],
                                   cwd=package, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
