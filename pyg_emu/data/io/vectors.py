r"""Vectors by label as files for other programs."""
from __future__ import annotations

import json
import os
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
    r"""Writes vectors with their labels. Files are complete or not there at all.

    * :obj:`"parquet"`: a column of labels, named as the index, and a column for each component;
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


def _write_parquet(vectors: pd.DataFrame, file: IO[bytes]) -> None:
    # Parquet names columns by text.
    table = vectors.set_axis([str(name) for name in vectors.columns], axis=1)
    table.rename_axis(str(table.index.name or 'label')).reset_index().to_parquet(file, index=False, engine='pyarrow')


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
