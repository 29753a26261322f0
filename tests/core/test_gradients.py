from __future__ import annotations

import pytest
import torch

from pyg_emu.core.gradients import clip_gradients, gradient_norm


@pytest.mark.parametrize('sparse', [False, True])
@pytest.mark.parametrize('max_norm', [0.5, 100.0])
def test_clipping_sparse_as_dense(sparse: bool, max_norm: float) -> None:
    torch.manual_seed(0)
    table = torch.nn.Embedding(5, 3, sparse=sparse)
    layer = torch.nn.Linear(3, 1)
    model = torch.nn.ModuleList([table, layer])
    layer(table(torch.tensor([1, 1, 4])).square()).sum().backward()
    twin = torch.nn.ModuleList([torch.nn.Embedding(5, 3), torch.nn.Linear(3, 1)])
    twin.load_state_dict(model.state_dict())
    twin[1](twin[0](torch.tensor([1, 1, 4])).square()).sum().backward()

    before = gradient_norm(value.grad for value in model.parameters())
    norm = clip_gradients(model.parameters(), max_norm)
    expected = torch.nn.utils.clip_grad_norm_(twin.parameters(), max_norm)
    assert norm == pytest.approx(float(expected)) and before == pytest.approx(float(expected))
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad.to_dense(), theirs.grad)


def test_clipping_without_gradients() -> None:
    assert clip_gradients(torch.nn.Linear(2, 2).parameters(), 1.0) is None
    assert gradient_norm([]) == 0.0
