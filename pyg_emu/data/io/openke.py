r"""Folders in the layout of OpenKE: files of ids, each of which begins with the number of its lines."""
from __future__ import annotations

import codecs
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.io.columns import COLUMNS, Column, chosen_columns
from pyg_emu.data.io.numbered import NumberedFacts, check_ids, labels_by_id
from pyg_emu.data.io.textfiles import Syntax, opened, records

#: The file of each split.
FILES = {'train': 'train2id.txt', 'valid': 'valid2id.txt', 'test': 'test2id.txt'}
_DICTIONARIES = ('entity2id.txt', 'relation2id.txt')
# The order of OpenKE itself, and the one of some who write its files.
_ORDERS = {'head, tail, relation': (0, 2, 1), 'head, relation, tail': (0, 1, 2)}


def read_openke(folder: Path, splits: Sequence[str], chosen: Sequence[Optional[Column]]) -> NumberedFacts:
    r"""Reads the facts of a folder with :obj:`entity2id.txt`, :obj:`relation2id.txt` and a file for each split.

    Where nothing is asked for, ids decide on the order of the columns: relations have smaller ids than most entities.
    Where both orders would do, it is OpenKE's own one (head, tail, relation), with a warning.

    Args:
        folder (Path): The folder.
        splits (sequence of str): The splits to read.
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`: positions from 0.

    Raises:
        ArgumentError: If an argument is not a position.
        DataError: If a file cannot be read, has another number of lines than it says, or holds an id without a label;
            names file and line.
    """
    entities, relations = (_dictionary(folder / name) for name in _DICTIONARIES)
    raw = {split: _numbers(folder / FILES[split]) for split in splits}
    order = _order(folder, raw, len(entities), len(relations), chosen)
    facts = {}
    for split, values in raw.items():
        facts[split] = values[:, order]
        # A line for the count comes before the facts.
        check_ids(facts[split], len(entities), len(relations), lambda row, split=split: _place(folder, split, row))
    return NumberedFacts(facts, entities, relations)


def _order(folder: Path, raw: dict[str, np.ndarray], num_entities: int, num_relations: int,
           chosen: Sequence[Optional[Column]]) -> list[int]:
    fitting = {name: order for name, order in _ORDERS.items()
               if all(_fits(values[:, order], num_entities, num_relations) for values in raw.values())}
    if any(column is not None for column in chosen):
        for role, column in zip(COLUMNS, chosen):
            if isinstance(column, str):
                raise ArgumentError(f'{role}: the files of OpenKE have no names of columns; expected a position from '
                                    f'0, got {column!r}')
        found = list(chosen_columns(_completed(chosen), None, 3, str(folder)).places)
        others = [name for name, order in fitting.items() if list(order) != found]
        if others and not all(_fits(values[:, found], num_entities, num_relations) for values in raw.values()):
            raise DataError(f'{folder}: head={found[0]}, relation={found[1]}, tail={found[2]} contradict the ids, of '
                            f'which some are too large; they fit the order {others[0]}; leave the arguments out')
        return found
    if len(fitting) > 1:
        warn(f'{folder}: the ids fit the orders {" and ".join(fitting)}; the columns are read as '
             f'{next(iter(fitting))}, as OpenKE writes them; pass head=0, relation=1, tail=2 to read the '
             'other one, or head=0, relation=2, tail=1 to confirm', DataWarning)
    return list(next(iter(fitting.values()), next(iter(_ORDERS.values()))))


def _completed(chosen: Sequence[Optional[Column]]) -> list[Column]:
    r"""The positions that were asked for, the others in the order of what is left over."""
    left = [position for position in range(3) if position not in chosen]
    # OpenKE's order: the tail before the relation.
    rest = {role: left.pop(0) for role, column in sorted(zip(COLUMNS, chosen), key=lambda pair: pair[0] == 'relation')
            if column is None and left}
    return [rest.get(role, 0) if column is None else column for role, column in zip(COLUMNS, chosen)]


def _fits(facts: np.ndarray, num_entities: int, num_relations: int) -> bool:
    return bool((facts < np.array([num_entities, num_relations, num_entities])).all())


def _place(folder: Path, split: str, row: int) -> str:
    numbers = [number for number, _ in _lines(folder / FILES[split])]
    return f'{folder / FILES[split]}:{numbers[row + 1]}'


def _lines(path: Path) -> list[tuple[int, str]]:
    return [(number, '\t'.join(fields)) for number, fields in records(path, Syntax('\t', quotes=False))]


def _counted(path: Path) -> list[tuple[int, str]]:
    r"""The lines of a file after the one that counts them.

    Raises:
        DataError: If the file cannot be read, or has another number of lines; names file and line.
    """
    lines = _lines(path)
    if not lines:
        raise DataError(f'{path}: the file is empty; expected the number of its lines, and the lines')
    (number, first), rest = lines[0], lines[1:]
    if not first.strip().isdecimal():
        raise DataError(f'{path}:{number}: expected the number of the lines that follow, as in the layout of OpenKE, '
                        f'got {first!r:.80}')
    if int(first) != len(rest):
        raise DataError(f'{path}:{number}: the first line says that {int(first)} lines follow, but there are '
                        f'{len(rest)}')
    return rest


def _dictionary(path: Path) -> list[str]:
    labels, ids = [], []
    for number, line in _counted(path):
        label, _, text = line.rstrip().rpartition('\t' if '\t' in line else ' ')
        if not label or not _is_id(text):
            raise DataError(f'{path}:{number}: expected a label and an id, got {line!r:.80}')
        labels.append(label)
        ids.append(int(text))
    return labels_by_id(ids, labels, str(path))


def _numbers(path: Path) -> np.ndarray:
    r"""The ids of a file of facts. shape: :obj:`(F, 3)`, int64"""
    with opened(path) as handle:
        first = handle.readline().removeprefix(codecs.BOM_UTF8).strip()
        try:
            values = pd.read_csv(handle, sep=r'\s+', header=None, dtype=np.int64).to_numpy()
        except (ValueError, OverflowError):  # anything but integers, no lines, lines of several lengths
            values = np.empty((0, 0), dtype=np.int64)
    if values.shape[1] == 3 and (values >= 0).all() and first.isdigit() and int(first) == len(values):
        return values
    rows = []
    for number, line in _counted(path):
        fields = line.split()
        if len(fields) != 3 or not all(map(_is_id, fields)):
            raise DataError(f'{path}:{number}: expected three ids, got {line!r:.80}')
        rows.append([int(field) for field in fields])
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
