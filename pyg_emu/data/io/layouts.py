r"""Which layout a folder has, and what is read of it: files of splits, or what other libraries and papers expect."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Collection, NamedTuple, Optional

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import one_of
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.io import ogb, openke, pykeen
from pyg_emu.data.io.factfiles import FactFiles
from pyg_emu.data.io.folders import file_names
from pyg_emu.data.io.numbered import NumberedFacts
from pyg_emu.data.io.readers import line_of, read_columns
from pyg_emu.data.io.splits import SPLIT_NAMES
from pyg_emu.data.io.textfiles import Syntax, records

#: The layouts of folders and how they are called in messages.
LAYOUTS = {'splits': 'a file for each split', 'openke': 'the layout of OpenKE', 'ogb': 'the layout of OGB',
           'pykeen': 'the layout of PyKEEN', 'red-gnn': 'the layout of RED-GNN',
           'ultra': 'a layout of inductive data, as ULTRA reads it'}
#: Which graph of inductive data is read.
PARTS = ('train', 'inference')

_TEXT = ('delimiter', 'header', 'comment', 'head', 'relation', 'tail')
#: The arguments of :func:`~pyg_emu.data.io.files.from_folder` that apply to a layout, beside those that always do.
OPTIONS = {'openke': ('head', 'relation', 'tail'), 'ogb': (), 'pykeen': (), 'red-gnn': _TEXT,
           'ultra': ('part', *_TEXT)}

_RED_GNN = ('facts.txt', 'entities.txt', 'relations.txt', 'train.txt')
# The graph for training and the one for inference, by split: of ULTRA, also where validation is on the training graph
# (MTDEA); of ULTRA for the data of GraIL; of InGram; of ILPC.
_INDUCTIVE: tuple[dict[str, dict[str, str]], ...] = (
    {'train': {'train': 'transductive_train.txt', 'valid': 'transductive_valid.txt'},
     'inference': {'train': 'inference_graph.txt', 'valid': 'inf_valid.txt', 'test': 'inf_test.txt'}},
    {'train': {'train': 'train.txt', 'valid': 'valid.txt', 'test': 'test.txt'},
     'inference': {'train': 'train_ind.txt', 'valid': 'valid_ind.txt', 'test': 'test_ind.txt'}},
    {'train': {'train': 'train.txt'}, 'inference': {'train': 'msg.txt', 'valid': 'valid.txt', 'test': 'test.txt'}},
    {'train': {'train': 'train.txt'}, 'inference': {'train': 'inference.txt', 'valid': 'inference_validation.txt',
                                                    'test': 'inference_test.txt'}},
)


class Layout(NamedTuple):
    r"""What is read of a folder.

    Args:
        name (str): One of :obj:`LAYOUTS`.
        splits (dict): The file or folder of each split that is there; empty for :obj:`"splits"`, which
            :func:`~pyg_emu.data.io.folders.find_splits` finds.
    """
    name: str
    splits: dict[str, Path]

    def required(self, folder: Path, require_splits: Collection[str], part: Optional[str]) -> None:
        r"""Checks that the splits that have to be there are.

        Raises:
            DataError: If one is missing.
        """
        missing = [split for split in SPLIT_NAMES if split not in self.splits
                   and (split in require_splits or split == 'train')]
        if not missing:
            return
        there = tuple(split for split in self.splits if split in require_splits or split == 'train')
        message = (f'{folder}: {LAYOUTS[self.name]} has no facts for {" and ".join(map(repr, missing))} here (found: '
                   f'{", ".join(path.name for path in self.splits.values()) or "none"})')
        if 'train' in self.splits:
            message += f'; to do without, pass require_splits={there!r}'
        if self.name == 'ultra' and part != 'inference':
            message += ("; the facts to validate and test on are about the graph of part='inference'; pass "
                        "format='splits' if it is not such data")
        raise DataError(message)


def layout_of(folder: Path, asked: Optional[str] = None, extra_files: Collection[str] = (),
              part: Optional[str] = None) -> Layout:
    r"""The layout of a folder, by the names of its files.

    Args:
        folder (Path): The folder.
        asked (str, optional): The argument :obj:`format`; a format of files means :obj:`"splits"`.
            (default: :obj:`None`)
        extra_files (collection of str, optional): Files that the caller adds to the training facts: no layout has a
            meaning of its own for them. (default: :obj:`()`)
        part (str, optional): The argument :obj:`part`. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`part` is none, or does not apply.
        DataError: If the folder cannot be read, or does not have the layout that was asked for.
    """
    if part is not None:
        one_of('part', part, PARTS)
    names = file_names(folder)
    finders: dict[str, Callable[[], dict[str, Path]]] = {
        'openke': lambda: _there(folder, names, openke.FILES),
        'ogb': lambda: ogb.split_files(folder), 'pykeen': lambda: pykeen.factory_folders(folder),
        'red-gnn': lambda: _red_gnn_files(folder, names), 'ultra': lambda: _inductive_files(folder, names, part)}
    if asked in finders:
        found = finders[asked]()
        if not found:
            raise DataError(f'{folder}: does not have {LAYOUTS[asked]}, which format={asked!r} says; it has the files '
                            f'{", ".join(names[:10]) or "none"}')
        return _checked(Layout(asked, found), part)
    if asked is None:
        for name, find in finders.items():
            # Where there are files of splits, too, OpenKE's are not what is meant.
            if name == 'openke' and any(file.partition('.')[0].lower() == 'train' for file in names):
                continue
            found = find()
            if found and not {*_special(name)} & {*extra_files}:
                return _checked(Layout(name, found), part)
    return _checked(Layout('splits', {}), part)


def _checked(layout: Layout, part: Optional[str]) -> Layout:
    if part is not None and layout.name != 'ultra':
        raise ArgumentError(f'part: does not apply to {LAYOUTS[layout.name]}, which holds one graph; leave it out')
    return layout


def _special(name: str) -> list[str]:
    if name == 'red-gnn':
        return ['facts.txt']
    return [files['inference']['train'] for files in _INDUCTIVE] if name == 'ultra' else []


def _there(folder: Path, names: Collection[str], files: dict[str, str]) -> dict[str, Path]:
    return {split: folder / name for split, name in files.items() if name in names} if files['train'] in names else {}


def _red_gnn_files(folder: Path, names: Collection[str]) -> dict[str, Path]:
    if not all(name in names for name in _RED_GNN):
        return {}
    return _there(folder, names, {split: f'{split}.txt' for split in SPLIT_NAMES})


def _inductive_files(folder: Path, names: Collection[str], part: Optional[str]) -> dict[str, Path]:
    for files in _INDUCTIVE:
        if all(files[each]['train'] in names for each in PARTS):
            return _there(folder, names, files[part or 'train'])
    return {}


def delimiter_of(path: Path, options: FactFiles) -> str:
    r"""The character between columns, in layouts whose own readers split lines at any white space: a tab, if the first
    line has one, else a space.

    Args:
        path (Path): The file.
        options (FactFiles): The arguments of the caller, who may have said so.
    """
    if options.delimiter is not None:
        return options.delimiter
    _, first = next(records(path, Syntax('\t', quotes=False, comment=options.comment)), (0, ['', '']))
    return '\t' if len(first) > 1 else ' '


def read_red_gnn(folder: Path, files: dict[str, Path], options: FactFiles) -> NumberedFacts:
    r"""Reads :obj:`facts.txt` and :obj:`train.txt`, which both are training facts, and the other splits. Ids are the
    positions in :obj:`entities.txt` and :obj:`relations.txt`.

    Args:
        folder (Path): The folder.
        files (dict): The file of each split.
        options (FactFiles): How lines become facts.

    Raises:
        DataError: If a file cannot be read, a line is not a fact, or a label is not in the lists; names file and line.
    """
    entities, relations = (_listed(folder / name) for name in ('entities.txt', 'relations.txt'))
    parts: dict[str, list[np.ndarray]] = {}
    for split, path in [('train', folder / 'facts.txt'), *files.items()]:
        text = replace(options.text, delimiter=delimiter_of(path, options))
        columns = read_columns(path, text)
        ids = np.stack([pd.Index(labels, dtype=object).get_indexer(pd.Index(column, dtype=object))
                        for labels, column in zip((entities, relations, entities), columns)], axis=1)
        if (ids < 0).any():
            row, column = (int(index[0]) for index in np.nonzero(ids < 0))
            raise DataError(f'{path}:{line_of(path, text, row, len(ids))}: {columns[column][row]!r} is not in '
                            f'{"relations.txt" if column == 1 else "entities.txt"}')
        parts.setdefault(split, []).append(ids.astype(np.int64))
    return NumberedFacts({split: np.concatenate(facts) for split, facts in parts.items()}, entities, relations)


def _listed(path: Path) -> list[str]:
    labels: list[Any] = []
    known: dict[str, int] = {}
    for number, fields in records(path, Syntax('\t', quotes=False)):
        label = '\t'.join(fields).strip()
        if label in known:
            raise DataError(f'{path}:{number}: {label!r} is in line {known[label]}, too; expected each label once')
        known[label] = number
        labels.append(label)
    return labels
