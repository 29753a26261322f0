r"""Labels of entities and relations: the ids of labels, and labels that differ but look the same."""
from __future__ import annotations

import difflib
import re
import unicodedata
from numbers import Integral
from typing import Any, Sequence

import pandas as pd

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import DataError

# The search for the most similar label compares with every candidate.
_MAX_SUGGESTION_LABELS = 20_000
# Characters of an unknown label that the message shows.
_SHOWN = 200
_INTEGER = re.compile('-?(0|[1-9][0-9]*)')
# Characters that are not displayed: soft hyphen, zero-width ones, marks of direction, byte order mark.
_INVISIBLE = re.compile('[\u00ad\u200b-\u200f\u2060\ufeff]')


def label_of(name: Any) -> Any:
    r"""The label that a caller means: an integer stands for the label that spells it, anything else for itself."""
    return str(int(name)) if isinstance(name, Integral) and not isinstance(name, bool) else name


def spelled(labels: Any) -> Any:
    r"""Labels among which integers are strings; arrays, columns and indices of pandas become lists, which places index.
    Others, and what is no sequence of labels, stay as they are.
    """
    if getattr(labels, 'ndim', None) == 1 and callable(getattr(labels, 'tolist', None)):
        labels = labels.tolist()
    if isinstance(labels, str) or not isinstance(labels, Sequence) or all(isinstance(each, str) for each in labels):
        return labels
    return [label_of(label) for label in labels]


def is_integer(label: Any) -> bool:
    r"""Whether a label spells an integer as Python prints it."""
    return isinstance(label, str) and _INTEGER.fullmatch(label) is not None


def unknown_label(kind: str, label: Any, labels: Sequence[str]) -> DataError:
    r"""The error for a label that does not exist, with the most similar one."""
    if not isinstance(label, str):
        return DataError(f'{kind} labels: expected a string or an integer, got {shown(label)} of type '
                         f'{type(label).__name__}')
    name = repr(label) if len(label) <= _SHOWN else f'{label[:_SHOWN]!r}... of {len(label)} characters'
    if len(label) > _SHOWN:  # the comparison takes the product of both lengths
        return DataError(f'there is no {kind} {name} among the {len(labels)} {kind} labels')
    near = labels
    if len(labels) > _MAX_SUGGESTION_LABELS:
        near = [other for other in labels if other[:2].lower() == label[:2].lower()][:_MAX_SUGGESTION_LABELS]
    near = [str(other) for other in near]
    match = difflib.get_close_matches(label, near, n=1)
    hint = f'; did you mean {match[0]!r}?' if match else ''
    hint += '; ids are given as a tensor' if label.isdecimal() else ''
    return DataError(f'there is no {kind} {name} among the {len(labels)} {kind} labels{hint}')


def near_duplicates(labels: Sequence[str]) -> list[list[str]]:
    r"""Groups of labels that are equal but for case, spaces, Unicode form (NFKC) and invisible characters.

    Args:
        labels (sequence of str): Distinct labels.

    Returns:
        Lists of two or more labels each, in the order of their first labels.
    """
    plain = pd.Series([_plain(label) for label in labels], dtype=object)
    repeated = plain.duplicated(keep=False).to_numpy()
    if not repeated.any():
        return []
    originals = pd.Series(list(labels), dtype=object)[repeated]
    return [list(group) for _, group in originals.groupby(plain[repeated], sort=False)]


def _plain(label: str) -> str:
    if not label.isascii():
        label = _INVISIBLE.sub('', unicodedata.normalize('NFKC', label))
        return ' '.join(unicodedata.normalize('NFKC', label.casefold()).split())
    return ' '.join(label.lower().split())
