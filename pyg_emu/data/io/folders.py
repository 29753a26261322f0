r"""Which files of a folder hold which split, and which others hold facts that are not read."""
from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import AbstractSet as Set
from typing import Any, Collection, Optional, Sequence

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.io.detection import FORMATS, RDF_FORMATS, SUFFIXES, TABLE_FORMATS, head_of, plain_suffix
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.splits import SPLIT_NAMES
from pyg_emu.data.io.tablefiles import has_fact_columns
from pyg_emu.data.io.textfiles import records

# How many lines of another file are looked at.
_GLANCE = 3


def check_required(required: Any) -> None:
    r"""Checks the argument :obj:`require_splits`.

    Raises:
        ArgumentError: If it is not a collection of splits.
    """
    if (isinstance(required, str) or not isinstance(required, (Sequence, Set))
            or any(split not in tuple(SPLIT_NAMES) for split in required)):
        raise ArgumentError(f'require_splits: expected some of {tuple(SPLIT_NAMES)}, got {required!r}')


def find_splits(folder: Path, required: Collection[str], format: Optional[str] = None) -> dict[str, Path]:
    r"""The file of each split in :obj:`folder`, except those that are neither there nor :obj:`required`.

    Args:
        folder (Path): The folder.
        required (collection of str): The splits that have to be there, beside :obj:`"train"`.
        format (str, optional): The format of the files, which decides where a split has several.
            (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`required` is not a collection of splits.
        DataError: If the folder cannot be read, or a required split has no file, or a split has more than one.
    """
    check_required(required)
    names = file_names(folder)
    found: dict[str, Path] = {}
    for split, stems in SPLIT_NAMES.items():
        accepted = {stem + suffix + packed for stem in stems for suffix in SUFFIXES for packed in ('', '.gz')}
        files = [name for name in names if name.lower() in accepted]
        formats = [SUFFIXES[plain_suffix(name)] for name in files]
        if len(files) > 1 and format in formats:
            files = [name for name, each in zip(files, formats) if each == format]
        elif len(files) > 1 and formats.count('text') == 1:
            others = [name for name in files if name != files[formats.index('text')]]
            files = [files[formats.index('text')]]
            warn(f"{folder}: {files[0]} is read for the split '{split}', and {', '.join(others)} not; pass "
                 f'format= to choose', DataWarning)
        if len(files) > 1:
            raise DataError(f"{folder}: several files for the split '{split}' ({', '.join(files)}); keep one of them")
        if files:
            found[split] = folder / files[0]

    missing = [split for split in SPLIT_NAMES if split not in found and (split in required or split == 'train')]
    if missing:
        there = ', '.join(path.name for path in found.values()) or 'none of the three'
        message = (f"{folder}: no file for the split{'s' if len(missing) > 1 else ''} "
                   f"{' and '.join(repr(split) for split in missing)} (found: {there}); "
                   f"expected {', '.join(split + '.txt' for split in missing)} (or .tsv, .csv, .nt, .parquet, ..., "
                   f'also as .gz)')
        if 'train' in found:
            enough = tuple(split for split in found if split in required or split == 'train')
            message += f'. To do without, pass require_splits={enough!r}'
        raise DataError(message)
    return found


def check_extra_files(names: Any) -> None:
    r"""Checks the argument :obj:`extra_files`.

    Raises:
        ArgumentError: If it is not a collection of file names.
    """
    if isinstance(names, str) or not isinstance(names, (Sequence, Set)) or not all(
            isinstance(name, str) for name in names):
        raise ArgumentError(f'extra_files: expected a list of names such as ["facts.txt"], got {names!r}')


def named_files(folder: Path, names: Any) -> list[Path]:
    r"""The files of :obj:`folder` that a caller names.

    Raises:
        ArgumentError: If :obj:`names` is not a collection of file names.
        DataError: If there is no such file.
    """
    check_extra_files(names)
    there = file_names(folder)
    for name in names:
        if name not in there:
            raise DataError(f'{folder}: no file {name!r} (extra_files); its files are {", ".join(there)}')
    return [folder / name for name in names]


def warn_of_unread_facts(folder: Path, read: Collection[Path], text: TextFormat) -> None:
    r"""Warns of files in :obj:`folder` that look like facts and are not among those that are :obj:`read`."""
    unread = [name for name in file_names(folder)
              if folder / name not in read and not name.startswith('.') and _looks_like_facts(folder / name, text)]
    if unread:
        warn(f'{folder}: {", ".join(unread)} {"seems" if len(unread) == 1 else "seem"} to hold facts '
             f'and {"is" if len(unread) == 1 else "are"} not read; pass extra_files={unread!r} to train on '
             'these facts, too', DataWarning)


def file_names(folder: Path) -> list[str]:
    r"""The sorted names of the files of a folder.

    Raises:
        DataError: If the folder does not exist or cannot be read.
    """
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    except FileNotFoundError:
        raise DataError(f'{folder}: no such folder; expected one with train.txt, valid.txt and test.txt') from None
    except OSError as error:
        raise DataError(f'{folder}: the folder cannot be read ({error.strerror})') from error


def _looks_like_facts(path: Path, text: TextFormat) -> bool:
    suffix = plain_suffix(path.name)
    if suffix not in ('', *SUFFIXES):
        return False
    try:
        kind = head_of(path).kind
        format = kind if kind in FORMATS else SUFFIXES.get(suffix, 'text')
        if format in RDF_FORMATS:
            return True
        if format in TABLE_FORMATS:
            return has_fact_columns(path, format, text.chosen)
        rows = [row for _, row in islice(records(path, text.syntax_of(path)), _GLANCE)]
    except DataError:
        return False
    return len(rows) > 0 and (text.may_be_header(rows[0]) or all(len(row) == 3 and '' not in row for row in rows))
