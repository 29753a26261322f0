r"""Files that are written as a whole or not at all."""
from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Callable, Union

from pyg_emu.core.errors import CheckpointError


def atomic_write(path: Union[str, Path], write: Callable[[IO[bytes]], Any]) -> None:
    r"""Writes a file so that whoever opens :obj:`path`, at any time, sees the old content or the new, whole.

    The content goes to a temporary file in the same folder, reaches the disk, and then takes the name. Whatever fails
    on the way leaves the old file as it was.

    Args:
        path (str or Path): The file to write.
        write (callable): Is handed the open binary file.

    Raises:
        CheckpointError: If the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    # One fixed name: what a killed writer leaves behind is overwritten by the next one instead of piling up.
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
        kept = 'the file of that name is kept as it was' if path.exists() else 'nothing was written'
        raise CheckpointError(f'cannot write {path} ({reason(error)}); {kept}. Free some space, or choose another '
                              f'run folder that can be written to') from error


def _sync_folder(folder: Path) -> None:
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    r"""What an error says in one line: the system's own words where there are any."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
