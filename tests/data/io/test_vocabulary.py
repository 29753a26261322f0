r"""Labels get the ids that a plain dictionary over the sorted labels would give them."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_emu.core.errors import DataError
from pyg_emu.data.io.vocabulary import Vocabulary

# Readers refuse null bytes: pandas before 3 hashes no further.
LABELS = st.lists(st.text(st.characters(exclude_characters='\0'), max_size=3), max_size=20)


def column(labels: list[str]) -> np.ndarray:
    return np.array([*labels, None], dtype=object)[:-1]


@given(st.lists(st.tuples(LABELS, LABELS), max_size=4))
def test_ids_follow_the_sorted_labels(chunks: list[tuple[list[str], list[str]]]) -> None:
    vocabulary = Vocabulary()
    provisional = [vocabulary.add(column(first), column(second)) for first, second in chunks]
    labels, ids = vocabulary.finish()
    assert labels == sorted({label for chunk in chunks for part in chunk for label in part})
    for chunk, codes in zip(chunks, provisional):
        assert [[labels[i] for i in ids[code]] for code in codes] == list(chunk)


def test_numbers_in_text_stay_apart() -> None:
    vocabulary = Vocabulary()
    vocabulary.add(column(['1', '01', '1.0', 'nan', 'NaN', '10', '9']))
    assert vocabulary.finish()[0] == ['01', '1', '1.0', '10', '9', 'NaN', 'nan']


def test_fixed_labels_keep_their_ids_and_take_no_others() -> None:
    vocabulary = Vocabulary(['z', 'a'], closed=True)
    codes, = vocabulary.add(column(['a', 'b', 'z', 'a']))
    assert codes.tolist() == [1, -1, 0, 1]
    labels, ids = vocabulary.finish()
    assert labels == ['z', 'a'] and ids.tolist() == [0, 1]
    with pytest.raises(DataError, match="'a'"):
        Vocabulary(['a', 'b', 'a'])


def test_other_labels_come_after_those_given() -> None:
    vocabulary = Vocabulary(['z', 'b'])
    codes, = vocabulary.add(column(['a', 'b', 'y', 'z', 'a']))
    labels, ids = vocabulary.finish()
    assert labels == ['z', 'b', 'a', 'y'] and ids[codes].tolist() == [2, 1, 3, 0, 2]
