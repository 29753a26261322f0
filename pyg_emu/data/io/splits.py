r"""The splits of a graph: under which names they are known, and facts that come with or without them."""
from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.graph import SPLITS
from pyg_emu.data.io.splitting import split_facts

#: Names under which a split is known, the usual one first.
SPLIT_NAMES = {'train': ('train',), 'valid': ('valid', 'validation', 'dev', 'val'), 'test': ('test',)}


def by_split(source: Mapping[str, Any]) -> dict[str, Any]:
    r"""The values of :obj:`source` by the usual names of the splits that are its keys.

    Raises:
        ArgumentError: If a key is not a split, or names one again, or if there is no training split.
    """
    alias = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    strange = [key for key in source if key not in alias]
    parts = {alias[key]: part for key, part in source.items() if key in alias}
    if strange or 'train' not in parts or len(parts) < len(source):
        raise ArgumentError(f'expected the splits {SPLITS}, train among them, as keys, each once; got '
                            f'{tuple(source)!r}')
    return {split: parts[split] for split in SPLITS if split in parts}


def split_or_keep(facts: dict[str, Tensor], fractions: Optional[Sequence[float]],
                  seed: int) -> Mapping[str, Union[Tensor, np.ndarray]]:
    r"""Facts by split: those that come as :obj:`"all"` split at random, others as they are.

    Raises:
        ArgumentError: If :obj:`fractions` are given for facts that come with a split.
    """
    if 'all' in facts:
        assert fractions is not None
        return split_facts(facts['all'].cpu().numpy(), fractions, seed)
    if fractions is not None:
        raise ArgumentError(f'fractions: the facts come with a split already, got {fractions!r}; leave it out')
    return facts
