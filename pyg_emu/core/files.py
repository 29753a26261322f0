r"""Atomic file writing."""
from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Callable, Union

from pyg_emu.core.errors import CheckpointError


def atomic_write(path: Union[str, Path], write: Callable[[IO[bytes]], Any]) -> None:
    r"""Writes a file atomically: a reader of :obj:`path` sees either the old or the new content.

    The content is written to a temporary file in the same folder, flushed to disk and renamed. If a step fails, the
    old file is unchanged.

    Args:
        path (str or Path): The file to write.
        write (callable): A function that writes the content to the open binary file it is given.

    Raises:
        CheckpointError: If the folder is not writable or the disk is full.
    """
    path = Path(path)
    # With a fixed name, the next write replaces the temporary file of a killed process.
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with open(temporary, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as a RuntimeError
        temporary.unlink(missing_ok=True)
        kept = 'the existing file is unchanged' if path.exists() else 'nothing was written'
        raise CheckpointError(f'cannot write {path} ({reason(error)}); {kept}. Free disk space, or choose a '
                              f'writable run folder') from error


def _sync_folder(folder: Path) -> None:
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    r"""Returns a one-line description of an error, preferably the message of the operating system."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
