r"""Weights of facts, from a column of a file or a table."""
from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import DataError
from pyg_emu.data.io.splitting import split_facts


def weight_numbers(values: Any, place: Callable[[int], str]) -> np.ndarray:
    r"""Returns a column of weights as numbers.

    Args:
        values (sequence): Numbers, or text.
        place (callable): Describes a row, for messages.

    Raises:
        DataError: If one is no finite number above 0; names the row.
    """
    column = pd.Series(values).reset_index(drop=True)
    numbers = pd.to_numeric(column, errors='coerce').to_numpy(dtype=np.float32, na_value=np.nan)
    wrong = ~((numbers > 0) & (numbers < np.inf))
    if column.dtype == bool:
        wrong[:] = True
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f'{place(row)}: expected a finite weight above 0, got {shown(column.tolist()[row])}')
    return numbers


def split_weighted(facts: np.ndarray, weights: np.ndarray, fractions: Sequence[float], seed: int
                   ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    r"""Splits facts and their weights, see :func:`~pyg_emu.data.io.splitting.split_facts`.

    Args:
        facts (numpy.ndarray): Heads, relations and tails. shape: :obj:`(F, 3)`, int64.
        weights (numpy.ndarray): Their weights. shape: :obj:`(F,)`.
        fractions (sequence of float): Shares of train, valid and test.
        seed (int): The seed of the split.
    """
    # Further columns go with the first three.
    parts = split_facts(np.column_stack([facts, np.arange(len(facts))]), fractions, seed)
    return ({split: part[:, :3] for split, part in parts.items()},
            {split: weights[part[:, 3]] for split, part in parts.items()})
