r"""EMU on top of every sampler, by composition."""
from __future__ import annotations

import inspect
from typing import Any, Iterator

import pytest
import torch

from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import EMULoss
from pyg_emu.models import DistMult
from pyg_emu.negatives import EMUNegatives, sampling
from pyg_emu.ops import use_backend

SAMPLERS = [value for value in map(vars(sampling).get, sampling.__all__)
            if inspect.isclass(value) and value is not sampling.BaseSampler]


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(0)
    return KGData(torch.randint(15, (2, 50), generator=generator), torch.randint(2, (50, ), generator=generator), 15, 2)


@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('corrupt', ['tail', 'head', 'both', 'alternate', 'bernoulli'])
@pytest.mark.parametrize('cls', SAMPLERS)
def test_emu_on_top(cls: type, corrupt: Any, filtered: bool) -> None:
    torch.manual_seed(0)
    data = make_data()
    options = {'data': data} if 'data' in inspect.signature(cls).parameters else {}
    sampler, model = cls(**options, filtered=filtered), DistMult(15, 2, 4)
    loader = TripletLoader(data, 25, shuffle=True, transform=EMUNegatives(6, 0.5, sampler=sampler), corrupt=corrupt)
    criterion, optimizer = EMULoss(alpha=0.5), torch.optim.Adagrad(model.parameters(), lr=0.1)
    losses = []
    for _ in range(6):
        for batch in loader:
            sampler.update(batch, model)
            scored = criterion.score(model, batch)
            assert scored.vanilla is not None and scored.mutated is not None
            # The vanilla scores are those of the sampler's candidates, and mutation moves them.
            tails = batch.corrupts_tail.unsqueeze(1)
            head = torch.where(tails, batch.head_index.unsqueeze(1), batch.neg_index)
            tail = torch.where(tails, batch.neg_index, batch.tail_index.unsqueeze(1))
            relation = batch.rel_type.unsqueeze(1).expand_as(head)
            torch.testing.assert_close(scored.vanilla, model(head, relation, tail))
            assert not torch.allclose(scored.vanilla, scored.mutated)
            optimizer.zero_grad()
            loss = criterion(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-2:]) < sum(losses[:2])
