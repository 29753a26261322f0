r"""What :func:`as_scorer` takes and refuses; scores are tested in models/test_contract.py."""
from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import kge

from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot
from pyg_emu.models import DistMult
from pyg_emu.models.adapters import as_scorer, unwrap


class Tied(ScorerMixin, torch.nn.Module):
    r"""A user's own scorer: no relation, nothing of PyG."""
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.num_nodes, self.num_relations, self.interaction = 2, 1, Dot()

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return self.table[known]

    def entity_table(self) -> Tensor:
        return self.table

    def embedding_weights(self):  # type: ignore[no-untyped-def]
        yield self.table

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        return self.triple_score(head_index, rel_type, tail_index)


class Twice(kge.DistMult):
    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        return 2 * super().forward(head_index, rel_type, tail_index)


class Renamed(kge.DistMult):
    pass


def test_a_scorer_is_returned_as_it_is() -> None:
    for model in (DistMult(3, 1, 2), Tied()):
        assert as_scorer(model) is model
    scorer = as_scorer(kge.ComplEx(3, 1, 2))
    assert as_scorer(scorer) is scorer


def test_layers_are_left_alone() -> None:
    model = kge.RotatE(3, 1, 2)
    before = {**vars(model)}
    as_scorer(model).score_all(torch.zeros(1, 4))
    assert vars(model) == before


def test_reads_the_layer_as_it_is_now() -> None:
    model = kge.ComplEx(3, 1, 2)
    scorer = as_scorer(model)
    model.reset_parameters()
    assert torch.equal(scorer.entity_table(), torch.cat([model.node_emb.weight, model.node_emb_im.weight], dim=1))


def test_sparse_only_where_the_table_is_the_layers_own() -> None:
    assert as_scorer(kge.DistMult(3, 1, 2, sparse=True)).sparse
    assert not as_scorer(kge.DistMult(3, 1, 2)).sparse
    for layer in (kge.TransE, kge.ComplEx, kge.RotatE):
        assert not as_scorer(layer(3, 1, 2, sparse=True)).sparse


def test_offset_of_rotate_is_its_margin() -> None:
    assert as_scorer(kge.RotatE(3, 1, 2, margin=9.0)).offset == 9.0
    assert as_scorer(kge.TransE(3, 1, 2, margin=9.0)).offset == 0.0


def test_subclasses() -> None:
    assert as_scorer(Renamed(3, 1, 2)).num_nodes == 3
    with pytest.raises(ArgumentError, match="Twice overrides PyG's DistMult.forward"):
        as_scorer(Twice(3, 1, 2))


class Wrapper(torch.nn.Module):
    r"""May score in its own way, as far as anyone can tell."""
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


# As Lightning Fabric defines it, which need not be installed.
FabricModule = type('_FabricModule', (torch.nn.Module, ), {'__module__': 'lightning.fabric.wrappers'})


def in_fabric(layer: torch.nn.Module) -> torch.nn.Module:
    wrapped = FabricModule()
    wrapped._forward_module = layer
    return wrapped


@pytest.mark.parametrize('wrap', [torch.compile, torch.optim.swa_utils.AveragedModel, torch.nn.DataParallel, in_fabric,
                                  lambda layer: torch.compile(torch.optim.swa_utils.AveragedModel(layer))],
                         ids=['compile', 'average', 'data parallel', 'fabric', 'compiled average'])
@pytest.mark.parametrize('make', [kge.DistMult, DistMult])
def test_wrapped_models(wrap: Any, make: Any) -> None:
    layer = make(3, 2, 4)
    wrapped = wrap(layer)
    scorer, facts = as_scorer(wrapped), (torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 2]))
    own = as_scorer(layer)
    torch.testing.assert_close(scorer.triple_score(*facts), own.triple_score(*facts))  # type: ignore[attr-defined]
    scorer.triple_score(*facts).sum().backward()  # type: ignore[attr-defined]
    assert unwrap(wrapped).node_emb.weight.grad is not None
    assert isinstance(unwrap(wrapped), make) and unwrap(layer) is layer


def test_an_average_is_scored_by_its_own_weights() -> None:
    layer = kge.DistMult(3, 2, 4)
    average = torch.optim.swa_utils.AveragedModel(layer)
    average.update_parameters(layer)
    with torch.no_grad():
        layer.node_emb.weight.zero_()
    assert as_scorer(average).entity_table().abs().sum() > 0


def test_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ArgumentError, match='Wrapper .*model.module'):
        as_scorer(Wrapper(kge.DistMult(3, 2, 4)))
    with pytest.raises(ArgumentError, match=r'Linear cannot be scored; .*query.*entity_table.*interaction'):
        as_scorer(torch.nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match='p_norm 1 or 2, got p_norm=3'):
        as_scorer(kge.TransE(3, 1, 2, p_norm=3))
