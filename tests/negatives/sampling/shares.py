r"""Whether draws follow a distribution."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor


def assert_shares(drawn: Tensor, expected: Mapping[int, float]) -> None:
    r"""A chi-square test that fails once in a thousand for random seeds; those of tests are fixed.

    Args:
        drawn (torch.Tensor): Entities, of any shape.
        expected (dict): Numbers in proportion to the probabilities of the entities that can be drawn.
    """
    share = torch.zeros(max(int(drawn.max()), *expected) + 1, dtype=torch.double)
    share[list(expected)] = torch.tensor(list(expected.values()), dtype=torch.double)
    counts = drawn.flatten().bincount(minlength=share.numel()).double()
    assert counts[share == 0].sum() == 0, f'drew {counts.nonzero().flatten().tolist()}, expected {sorted(expected)}'
    wanted = (share / share.sum() * drawn.numel())[share > 0]
    assert float(wanted.min()) > 5, 'too few draws for the test'
    freedom = len(expected) - 1
    if freedom > 0:
        # The approximation of Wilson and Hilferty.
        bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom))**0.5)**3
        assert float(((counts[share > 0] - wanted)**2 / wanted).sum()) < bound
