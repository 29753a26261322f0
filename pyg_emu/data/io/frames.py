r"""Tables of results as files: text, or Parquet where pyarrow is installed."""
from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any, Callable, Optional, Union

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import file_path, instance
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.files import atomic_write


def _csv(separator: str) -> Callable[[pd.DataFrame, IO[bytes]], Any]:
    return lambda frame, file: file.write(frame.to_csv(index=False, sep=separator).encode('utf-8', 'surrogatepass'))


def _parquet(frame: pd.DataFrame, file: IO[bytes]) -> None:
    frame.to_parquet(file, index=False, engine='pyarrow')


def _json_lines(frame: pd.DataFrame, file: IO[bytes]) -> None:
    # pandas rounds numbers to 10 decimals.
    names = [str(name) for name in frame.columns]
    for row in zip(*(frame.iloc[:, place].tolist() for place in range(len(names)))):
        file.write(json.dumps(dict(zip(names, map(_value, row))), default=str).encode() + b'\n')


def _value(value: Any) -> Any:
    r"""What JSON can hold: numbers of NumPy as such, and null for what is missing or not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    missing = value is None or value is pd.NA or value is pd.NaT
    return None if missing or (isinstance(value, float) and not math.isfinite(value)) else value


_WRITERS: dict[str, Callable[[pd.DataFrame, IO[bytes]], Any]] = {
    '.csv': _csv(','), '.tsv': _csv('\t'), '.txt': _csv('\t'), '.jsonl': _json_lines, '.parquet': _parquet,
}


def check_table_path(argument: str, path: Union[str, os.PathLike]) -> Path:
    r"""Checks that a table can be written to a path, before the table is computed.

    Args:
        argument (str): The name of the argument, for messages.
        path (str or os.PathLike): The file. Its ending decides the format: :obj:`.csv`, :obj:`.tsv`, :obj:`.txt`
            (as :obj:`.tsv`), :obj:`.jsonl` or :obj:`.parquet`.

    Raises:
        ArgumentError: If the ending is another one, its format needs a package that is not installed, or the folder
            does not exist.
    """
    found = Path(file_path(argument, path)).expanduser()
    if found.suffix.lower() not in _WRITERS:
        raise ArgumentError(f'{argument}: expected a file that ends in {", ".join(_WRITERS)}, got {str(path)!r}')
    if found.suffix.lower() == '.parquet':
        require('pyarrow', f'{argument}: {found} in Parquet', 'choose a file that ends in .csv')
    if not found.parent.is_dir():
        raise ArgumentError(f'{argument}: the folder of {found} does not exist; make it, or choose another one')
    return found


def write_table(frame: pd.DataFrame, argument: str, path: Union[str, os.PathLike]) -> Path:
    r"""Writes a table without its index, completely or not at all.

    Args:
        frame (pandas.DataFrame): The table.
        argument (str): The name of the argument, for messages.
        path (str or os.PathLike): See :func:`check_table_path`.

    Raises:
        ArgumentError: See :func:`check_table_path`.
        CheckpointError: If the file cannot be written.
    """
    instance('frame', frame, pd.DataFrame)
    found = check_table_path(argument, path)
    writer = _WRITERS[found.suffix.lower()]
    atomic_write(found, lambda file: writer(pd.DataFrame(frame), file))
    return found


def require(package: str, purpose: str, otherwise: str, extra: Optional[str] = None) -> None:
    r"""Checks that an optional package is installed.

    Args:
        package (str): The name under which it is imported.
        purpose (str): What needs it, for the message.
        otherwise (str): What to do without it, for the message.
        extra (str, optional): The extra of this package that installs it. (default: :obj:`None`)

    Raises:
        ArgumentError: If it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        name = {'sklearn': 'scikit-learn'}.get(package, package)
        both = '' if extra is None else f' (or "pyg_emu[{extra}]")'
        raise ArgumentError(f'{purpose} needs the package {name}, which is not installed: pip install {name}{both}, or '
                            f'{otherwise}')
