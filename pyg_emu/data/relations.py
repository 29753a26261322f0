r"""Kinds of relations (1-1 to N-N), by how many heads and tails go together."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.data.index import FactIndex

#: Kinds of relations, by the ids that :func:`relation_kinds` gives them.
RELATION_KINDS = ('1-1', '1-N', 'N-1', 'N-N')
# What Bordes et al. (2013) call many: more than this many on average.
_MANY = 1.5


def bernoulli_sides(index: FactIndex, rel_type: Tensor, generator: Optional[torch.Generator] = None) -> Tensor:
    r"""Draws the end of each triple that is predicted, as in the `"TransH"
    <https://ojs.aaai.org/index.php/AAAI/article/view/8870>`_ paper: the head with probability
    :attr:`~pyg_emu.data.FactIndex.head_share`, so that the side with more answers is replaced more rarely and fewer
    negatives are facts.

    Args:
        index (FactIndex): The training facts.
        rel_type (torch.Tensor): Relations. shape: :obj:`(B,)`.
        generator (torch.Generator, optional): The random stream.

    Returns:
        True where the tail is predicted. shape: :obj:`(B,)`.
    """
    draw = torch.rand(rel_type.numel(), generator=generator, device=rel_type.device)
    return draw >= index.head_share[rel_type]


def relation_kinds(index: FactIndex) -> Tensor:
    r"""The kind of each relation, as in `"Translating Embeddings for Modeling Multi-relational Data"
    <https://papers.nips.cc/paper/5071>`_ (Bordes et al., 2013, Section 4.2): with the mean number of tails per head
    (tph) and of heads per tail (hpt), a side is "many" (N) from 1.5 on and "one" (1) below. 1-N: hpt < 1.5 <= tph.

    Args:
        index (FactIndex): The training facts. Duplicates count once.

    Returns:
        Positions in :obj:`RELATION_KINDS`; -1 for a relation without facts. shape: :obj:`(num_relations,)`, int64.
    """
    heads, tails, count = index.relation_counts
    many_tails, many_heads = count >= _MANY * heads, count >= _MANY * tails
    return torch.where(count > 0, 2 * many_heads.long() + many_tails.long(), -1)
