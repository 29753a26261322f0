r"""Text files of facts, in a folder or one file, to a :class:`~pyg_emu.KGData` and back."""
from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path
from typing import Collection, Optional, Sequence, Union

import pandas as pd

from pyg_emu.core.arguments import file_path, instance
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.columns import COLUMNS, Column
from pyg_emu.data.io.folders import find_splits, named_files, warn_of_unread_facts
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.readers import line_of, read_columns, unknown_relation
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS
from pyg_emu.data.io.tables import to_dataframe


def from_folder(
    folder: Union[str, os.PathLike],
    *,
    require_splits: Collection[str] = SPLITS,
    extra_files: Collection[str] = (),
    delimiter: Optional[str] = None,
    header: Optional[bool] = None,
    comment: Optional[str] = None,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Reads a folder of :obj:`train.txt`, :obj:`valid.txt` and :obj:`test.txt`: lines of head, relation and tail.

    Files may end in :obj:`.txt`, :obj:`.tsv` or :obj:`.csv`, and in :obj:`.gz` after that; :obj:`valid` may also be
    called :obj:`validation`, :obj:`dev` or :obj:`val`. A warning names other files of the folder that look like facts.
    Labels are kept as written. Ids follow the alphabetical (code point) order of the labels of all splits, so they do
    not depend on the order of lines.

    Args:
        folder (str or os.PathLike): The folder.
        require_splits (collection of str): Splits that have to be there and hold facts; :obj:`"train"` always does.
            (default: :obj:`("train", "valid", "test")`)
        extra_files (collection of str): Names of further files of the folder, whose facts are added to the training
            facts, such as :obj:`["facts.txt"]`. (default: :obj:`()`)
        delimiter (str, optional): The character between columns. (default: a comma in :obj:`.csv`, else a tab)
        header (bool, optional): Whether the first line of each file names the columns, which are then found by name:
            head, relation, tail, or usual synonyms (subject, predicate, object; source, target; h, r, t; ...).
            (default: :obj:`None`, whether it holds such names that do not occur as labels in other lines; a warning
            says so)
        comment (str, optional): Lines that begin with this are not read. (default: :obj:`None`)
        head (str or int, optional): The column of the heads: its name in the header, or its position from 0.
            (default: by name, or else 0)
        relation (str or int, optional): The column of the relations. (default: by name, or else 1)
        tail (str or int, optional): The column of the tails. (default: by name, or else 2)
        vocabulary (KGData, optional): A graph whose relations, and their ids, this one shares, while its entities are
            its own: the graph to infer on in the inductive setting. (default: :obj:`None`)
        entities (KGData, optional): A graph whose entities keep their ids, and whose relations are shared as with
            :obj:`vocabulary`, so that rows of embeddings belong to the same labels. Other entities get the ids after
            them, and a warning names them. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is outside of its domain.
        DataError: If a file is missing, empty or unreadable, or a line is not a fact; names file and line.
    """
    file_path('folder', folder)
    text = TextFormat(delimiter, header, comment, head, relation, tail)
    folder = Path(folder)
    collector = Collector(vocabulary, entities)
    found = find_splits(folder, require_splits)
    extra = named_files(folder, extra_files)
    for split, path in [*found.items(), *(('train', path) for path in extra)]:
        _add_file(collector, split, path, text)
    for split, path in found.items():
        if collector.count(split) == 0 and (split == 'train' or split in require_splits):
            raise DataError(f"{path}: the split '{split}' has no facts; expected lines of head, relation and tail")
    warn_of_unread_facts(folder, [*found.values(), *extra], text)
    return collector.finish()


def from_file(
    path: Union[str, os.PathLike],
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    *,
    delimiter: Optional[str] = None,
    header: Optional[bool] = None,
    comment: Optional[str] = None,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Reads one file of facts and splits them as :func:`~pyg_emu.data.io.tables.from_dataframe` does.

    Args:
        path (str or os.PathLike): The file.
        fractions (sequence of float): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): The same seed gives the same split. (default: :obj:`0`)
        delimiter, header, comment, head, relation, tail, vocabulary, entities: See :func:`from_folder`.

    Raises:
        ArgumentError: If an argument is outside of its domain.
        DataError: If the file is empty or unreadable, or a line is not a fact; names file and line.
    """
    file_path('path', path)
    if fractions is None:
        raise ArgumentError(f'fractions: expected the shares of train, valid and test, such as {DEFAULT_FRACTIONS}, '
                            'got None')
    path = Path(path)
    collector = Collector(vocabulary, entities)
    _add_file(collector, 'all', path, TextFormat(delimiter, header, comment, head, relation, tail))
    if collector.count('all') == 0:
        raise DataError(f'{path}: the file has no facts; expected lines of head, relation and tail')
    return collector.finish(fractions, seed)


def _add_file(collector: Collector, split: str, path: Path, text: TextFormat) -> None:
    columns = read_columns(path, text)
    bad = collector.add(split, columns)
    if bad is not None:
        line = line_of(path, text, bad, len(columns[0]))
        raise DataError(f'{path}:{line}: {unknown_relation(columns[1][bad], collector.relation_labels)}')


def to_folder(data: KGData, folder: Union[str, os.PathLike]) -> Path:
    r"""Writes :obj:`train.txt`, :obj:`valid.txt` and :obj:`test.txt`, tab-separated, as :func:`from_folder` reads them.

    A split without facts gets no file. Files are complete or not there at all. There is no header: where the first fact
    of a split looks like one, read the folder with :obj:`header=False`.

    Args:
        data (KGData): The graph. Where it has no labels, its ids serve as such.
        folder (str or os.PathLike): The folder, made where it does not exist.

    Raises:
        DataError: If a label cannot be written (it is empty, holds a tab, a line break or a null byte, or is no valid
            Unicode), or two entities have the same label, or the folder cannot be written.
    """
    instance('data', data, KGData)
    file_path('folder', folder)
    folder = Path(folder)
    table = to_dataframe(data)
    for column in COLUMNS:
        labels = pd.Series(table[column].unique(), dtype=object)
        bad = labels[labels.str.contains('[\t\r\n\x00]') | (labels == '')]
        if len(bad) > 0:
            raise DataError(f'the {column} label {bad.iloc[0]!r} cannot be written to a tab-separated file; expected '
                            f'text without tabs, line breaks and null bytes')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            part = table.loc[table['split'] == split, list(COLUMNS)]
            target = folder / f'{split}.txt'
            if len(part) > 0:
                _write(part, target)
            else:
                target.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        raise DataError(f'{folder}: a label is not valid Unicode text ({error}); expected text that UTF-8 can '
                        f'hold') from error
    except OSError as error:
        raise DataError(f'{folder}: cannot be written ({error.strerror})') from error
    return folder


def _write(part: pd.DataFrame, target: Path) -> None:
    # A label may begin with what would be taken for a byte order mark: a real one in front of it protects it.
    encoding = 'utf-8-sig' if str(part.iat[0, 0]).startswith('\ufeff') else 'utf-8'
    with tempfile.NamedTemporaryFile('w', encoding=encoding, newline='', dir=target.parent, prefix=f'.{target.name}.',
                                     delete=False) as handle:
        try:
            part.to_csv(handle, sep='\t', header=False, index=False, quoting=csv.QUOTE_NONE, lineterminator='\n')
            handle.flush()
            os.fsync(handle.fileno())
        except BaseException:
            os.unlink(handle.name)
            raise
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, target)
