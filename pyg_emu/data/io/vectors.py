r"""Vectors by label as files for other programs, and from files."""
from __future__ import annotations

import json
import os
import warnings
from functools import partial
from pathlib import Path
from typing import IO, Any, Callable, Union

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import file_path, instance, one_of
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.core.files import atomic_write, reason
from pyg_emu.data.io.frames import require

#: The formats of :func:`write_vectors`, and the endings of files that stand for them.
FORMATS = {'parquet': ('.parquet', ), 'safetensors': ('.safetensors', ), 'word2vec': ('.txt', '.vec', '.w2v'),
           'projector': ('', )}


def format_of(argument: str, path: Union[str, os.PathLike], format: Union[None, str] = None) -> str:
    r"""Returns the format of a file by its ending, and checks that its package is installed.

    Args:
        argument (str): The name of the argument, for messages.
        path (str or os.PathLike): The file, or the folder of the TensorBoard projector.
        format (str, optional): The format, whatever the ending. (default: :obj:`None`)

    Raises:
        ArgumentError: If the ending stands for no format, or a package is missing.
    """
    found = Path(file_path(argument, path))
    if format is None:
        fitting = [name for name, endings in FORMATS.items() if found.suffix.lower() in endings]
        if not fitting:
            raise ArgumentError(f'{argument}: expected a file that ends in .parquet, .safetensors, .txt or .vec '
                                f'(word2vec), or a folder (the TensorBoard projector), got {str(path)!r}')
        format = fitting[0]
    one_of('format', format, FORMATS)
    package = {'parquet': 'pyarrow', 'safetensors': 'safetensors'}.get(format)
    if package is not None:
        require(package, f'{argument}: {found}', 'choose a file that ends in .txt (word2vec)')
    return format


def write_vectors(vectors: pd.DataFrame, path: Union[str, os.PathLike], format: Union[None, str] = None) -> Path:
    r"""Writes vectors with their labels. Each file is written completely or not at all.

    * :obj:`"parquet"`: a column of labels as text, named as the index, and a column for each component;
    * :obj:`"safetensors"`: a tensor :obj:`vectors`, and the list of labels as JSON in the metadata :obj:`labels`;
    * :obj:`"word2vec"`: the text format of word2vec: the numbers of rows and components, then a label and its numbers
      on each line. Labels must not contain white space;
    * :obj:`"projector"`: a folder with :obj:`vectors.tsv` and :obj:`metadata.tsv`, as projector.tensorflow.org loads
      them, and :obj:`projector_config.pbtxt` for :obj:`tensorboard --logdir`.

    Args:
        vectors (pandas.DataFrame): The vectors by label, as :func:`~pyg_emu.embeddings` returns them.
        path (str or os.PathLike): The file, or the folder of the projector.
        format (str, optional): The format. (default: :obj:`None`, by the ending)

    Raises:
        ArgumentError: If the format is unknown, or needs a package that is not installed.
        DataError: If a label cannot be written in this format.
        CheckpointError: If the file cannot be written.
    """
    instance('vectors', vectors, pd.DataFrame)
    format = format_of('path', path, format)
    found = Path(path).expanduser()
    if format == 'projector':
        return _write_projector(vectors, found)
    writers: dict[str, Callable[[pd.DataFrame, IO[bytes]], Any]] = {
        'parquet': _write_parquet, 'safetensors': _write_safetensors, 'word2vec': _write_word2vec}
    if format == 'word2vec':
        _refuse_labels(vectors.index, r'\s', 'the word2vec text format', 'white space')
    atomic_write(found, partial(writers[format], vectors))
    return found


def read_vectors(path: Union[str, os.PathLike], format: Union[None, str] = None) -> pd.DataFrame:
    r"""Reads vectors with their labels, from a file as :func:`write_vectors` writes it.

    Args:
        path (str or os.PathLike): The file, in one of these formats:

            * Parquet: the first column of text holds the labels, all others hold components;
            * safetensors: a tensor :obj:`vectors`, and the list of labels as JSON in the metadata :obj:`labels`;
            * the text format of word2vec: the numbers of rows and components, then a label and its numbers on each
              line.

        format (str, optional): The format. (default: :obj:`None`, by the ending)

    Returns:
        pandas.DataFrame: A row for each label.

    Raises:
        ArgumentError: If the format is unknown, or needs a package that is not installed.
        DataError: If the file cannot be read as vectors; names the line of a text file.
    """
    format = format_of('path', path, format)
    found = Path(path).expanduser()
    if format == 'projector':
        raise ArgumentError('path: expected a file in Parquet, safetensors or the text format of word2vec, got '
                            f'{found}')
    readers = {'parquet': _read_parquet, 'safetensors': _read_safetensors, 'word2vec': _read_word2vec}
    try:
        return readers[format](found)
    except OSError as error:
        raise DataError(f'{found}: cannot be read ({reason(error)}); expected a file of vectors') from error


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path, engine='pyarrow')
    except ValueError as error:  # of pyarrow
        raise DataError(f'{path}: not a Parquet file ({reason(error)})') from error
    text = [number for number in range(table.shape[1]) if not pd.api.types.is_numeric_dtype(table.dtypes.iloc[number])]
    if not text and isinstance(table.index, pd.RangeIndex):
        raise DataError(f'{path}: expected a column of labels, got only columns of numbers')
    if text:
        name = table.columns[text[0]]
        table = table.iloc[:, [number for number in range(table.shape[1]) if number != text[0]]].set_axis(
            pd.Index(table[name], name=name), axis=0)
    return table


def _read_safetensors(path: Path) -> pd.DataFrame:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), 'np') as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            if 'vectors' not in names or 'labels' not in metadata:
                raise DataError(f'{path}: expected a tensor vectors, and labels in the metadata, got the tensors '
                                f'{", ".join(names) or "(none)"} and the metadata {", ".join(metadata) or "(none)"}')
            rows, labels = file.get_tensor('vectors'), json.loads(metadata['labels'])
    except (SafetensorError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{path}: not a safetensors file of vectors ({reason(error)})') from error
    if not isinstance(labels, list) or rows.ndim != 2 or len(labels) != len(rows):
        size = len(labels) if isinstance(labels, list) else 'no list of'
        raise DataError(f'{path}: expected a label for each row of vectors, got {size} labels and vectors of shape '
                        f'{rows.shape}')
    return pd.DataFrame(rows, index=pd.Index(labels, dtype=object, name=metadata.get('kind')))


def _read_word2vec(path: Path) -> pd.DataFrame:
    with open(path, 'rb') as file:
        sizes = file.readline().split()
        if len(sizes) != 2 or not all(size.isdigit() for size in sizes) or min(map(int, sizes)) < 1:
            raise DataError(f'{path}:1: expected the numbers of vectors and components, as in the text format of '
                            f'word2vec, got {b" ".join(sizes)[:80].decode(errors="replace")!r}')
        count, width = map(int, sizes)
        with warnings.catch_warnings():
            warnings.simplefilter('error', pd.errors.ParserWarning)  # of fields that are left out
            try:
                table = pd.read_csv(
                    file, sep=' ', header=None, names=range(width + 2), index_col=False, quoting=3, engine='c',
                    encoding='utf-8', na_filter=False, skip_blank_lines=False,
                    dtype={0: object, **dict.fromkeys(range(1, width + 1), np.float32), width + 1: object})
            except (ValueError, pd.errors.ParserWarning) as error:  # also those of UTF-8
                raise DataError(f'{_bad_line(path, width)} ({reason(error)})') from error
    # Some programs end lines in a space.
    if not table[width + 1].isin(['', np.nan]).all():
        raise DataError(_bad_line(path, width))
    if len(table) != count:
        raise DataError(f'{path}: expected {count} vectors, as the first line says, got {len(table)}')
    labels = pd.Index(table[0], dtype=object, name='label')
    return pd.DataFrame(table[list(range(1, width + 1))].to_numpy(), index=labels)


def _bad_line(path: Path, width: int) -> str:
    expected = f'expected a label and {width} numbers, separated by spaces'
    with open(path, encoding='utf-8', errors='surrogateescape', newline='\n') as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip('\r\n').removesuffix(' ').split(' ')
            try:
                if number > 1 and len([float(field) for field in fields[1:]]) != width:
                    raise ValueError
                line.encode()
            except ValueError:
                return f'{path}:{number}: {expected}, got {fields[0][:40]!r} and {len(fields) - 1} others'
    return f'{path}: {expected} on each line'


def _write_parquet(vectors: pd.DataFrame, file: IO[bytes]) -> None:
    # Parquet names columns by text. Labels are text, too, so that they are told from components.
    table = vectors.set_axis([str(name) for name in vectors.columns], axis=1)
    table.index = vectors.index.map(str).astype(object).rename(str(vectors.index.name or 'label'))
    table.reset_index().to_parquet(file, index=False, engine='pyarrow')


def _write_safetensors(vectors: pd.DataFrame, file: IO[bytes]) -> None:
    from safetensors.numpy import save

    labels = json.dumps([str(label) for label in vectors.index])
    metadata = {'labels': labels, 'kind': str(vectors.index.name or 'label')}
    file.write(save({'vectors': np.ascontiguousarray(vectors.to_numpy())}, metadata))


def _write_word2vec(vectors: pd.DataFrame, file: IO[bytes]) -> None:
    file.write(f'{len(vectors)} {vectors.shape[1]}\n'.encode())
    file.write(vectors.to_csv(sep=' ', header=False, lineterminator='\n', quoting=3).encode())


def _write_projector(vectors: pd.DataFrame, folder: Path) -> Path:
    _refuse_labels(vectors.index, r'[\t\r\n]', 'a line of metadata.tsv', 'tabs and line breaks')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f'cannot make the folder {folder} ({reason(error)}); choose another one') from error
    name = vectors.index.name or 'label'
    config = (f'embeddings {{\n  tensor_name: "{name}"\n  tensor_path: "vectors.tsv"\n'
              '  metadata_path: "metadata.tsv"\n}\n')
    metadata = ''.join(f'{label}\n' for label in vectors.index)
    for file, text in (('vectors.tsv', vectors.to_csv(sep='\t', header=False, index=False, lineterminator='\n')),
                       ('metadata.tsv', metadata), ('projector_config.pbtxt', config)):
        atomic_write(folder / file, partial(_write_text, text))
    return folder


def _write_text(text: str, file: IO[bytes]) -> None:
    file.write(text.encode())


def _refuse_labels(labels: pd.Index, pattern: str, where: str, what: str) -> None:
    text = pd.Series([str(label) for label in labels], dtype=object)
    wrong = text.str.contains(pattern) | (text == '')
    if wrong.any():
        raise DataError(f'the label {text[wrong].iloc[0]!r} cannot be written to {where}; expected labels without '
                        f'{what}; write .parquet or .safetensors, which hold any label')
