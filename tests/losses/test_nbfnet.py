r"""NBFNet's losses: the formula, what is mutated, and that nothing of the batch is read off the graph."""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import EdgeOrder
from pyg_emu.data.loader import TripletLoader
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.losses.functional import uls_binary_cross_entropy
from pyg_emu.losses.nbfnet import NBFNetBCELoss, NBFNetEMULoss
from pyg_emu.models import DistMult
from pyg_emu.models.nbfnet import layer as nbfnet_layer
from pyg_emu.models.nbfnet.model import NBFNet
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import MutationContext
from pyg_emu.negatives.sampling import UniformSampler
from pyg_emu.ops import MixPlan, mutate
from pyg_emu.ops.relational import BoundaryRows, EdgeOrders


def chain(num_nodes: int = 12) -> KGData:
    r"""r0 leads to the next node and r1 to the one after it: r1 follows from r0 twice."""
    nodes = torch.arange(num_nodes)
    edge_index = torch.cat([torch.stack([nodes, (nodes + step) % num_nodes]) for step in (1, 2)], dim=1)
    return KGData(edge_index, torch.arange(2).repeat_interleave(num_nodes), num_nodes, 2).with_inverse_relations()


def loader(data: KGData, rate: float, corrupt: str = 'both') -> TripletLoader:
    negatives = EMUNegatives(4, mutation_rate=rate, sampler=UniformSampler(filtered=True))
    return TripletLoader(data, 8, shuffle=True, transform=negatives, corrupt=corrupt)  # type: ignore[arg-type]


@pytest.mark.parametrize('rate', [0.0, 0.5, 1.0])
def test_loss_is_the_formula(rate: float) -> None:
    data = chain()
    torch.manual_seed(0)
    model = NBFNet(2, 8, 2)
    batch = next(iter(loader(data, rate)))
    criterion = NBFNetEMULoss(alpha=0.7, beta=0.3, adversarial_temperature=0.5)
    state = batch.generator.get_state()
    loss = criterion(model, batch)

    candidates = torch.cat([batch.target_index.unsqueeze(1), batch.neg_index], dim=1)
    mask = model.training_mask(data, batch.known_index, batch.rel_type, candidates, batch.side)
    assert not mask.all()
    encoding = model.encode(data, batch.known_index, batch.rel_type, batch.side, edge_mask=mask)
    features = encoding.at(candidates)
    scores = model.score_features(features, encoding.query)
    mutated = features[:, 1:]
    if rate > 0:
        batch.generator.set_state(state)
        plan = batch.mutation.plan(MutationContext(batch, model, encoding.query, 4, model.hidden_width))
        mutated = mutate(features[:, 0], mutated, plan)
    expected = (uls_binary_cross_entropy(scores[:, 0], model.score_features(mutated, encoding.query), 0.3,
                                         adversarial_temperature=0.5)
                + 0.7 * uls_binary_cross_entropy(scores[:, 0], scores[:, 1:], adversarial_temperature=0.5))
    torch.testing.assert_close(loss, expected)
    if rate == 1.0:
        # Nothing is left of the negatives, so their mutated scores are the positive's.
        torch.testing.assert_close(model.score_features(mutated, encoding.query), scores[:, :1].expand(-1, 4))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_defaults_are_table_15() -> None:
    criterion = NBFNetEMULoss()
    assert (criterion.alpha, criterion.beta) == (1.0, 0.25)
    # That of NBFNet on FB15k-237, for both losses.
    assert criterion.adversarial_temperature == NBFNetBCELoss().adversarial_temperature == 0.5


def test_negatives_are_mixed_with_the_features_of_their_partners() -> None:
    class OnlyPartners:
        r"""In the place of each negative, the one as far from the other end."""
        def plan(self, context: MutationContext) -> MixPlan:
            assert context.index is not None
            return MixPlan(context.query.new_zeros(context.index.shape), context.index.flip(1))

    batch = next(iter(loader(chain(), 0.5)))
    batch.mutation = OnlyPartners()
    torch.manual_seed(0)
    scored = NBFNetEMULoss().score(NBFNet(2, 8, 2), batch)
    assert scored.vanilla is not None and not torch.allclose(scored.vanilla, scored.vanilla.flip(1))
    torch.testing.assert_close(scored.mutated, scored.vanilla.flip(1))


@pytest.mark.parametrize('criterion', [NBFNetEMULoss(), NBFNetBCELoss()], ids=['emu', 'bce'])
def test_learns_a_rule(criterion: torch.nn.Module) -> None:
    # The fact asked for is never in the graph: r1 has to be found as r0 twice. In the test graph the last nodes lack
    # it.
    data = chain(20)
    held_out = slice(34, 40)
    graph = KGData(torch.cat([data.edge_index[:, :34]], 1), data.edge_type[:34], 20, 2,
                   test_edge_index=data.edge_index[:, held_out], test_edge_type=data.edge_type[held_out])
    graph = graph.with_inverse_relations()
    torch.manual_seed(0)
    model = NBFNet(2, 8, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    before = evaluate(model.as_ranker(graph), graph)['mrr']
    batches = loader(graph, 0.5)
    for _ in range(12):
        for batch in batches:
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()
    after = evaluate(model.as_ranker(graph), graph)['mrr']
    assert after > max(0.7, before + 0.3)


def test_edges_are_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_by, build = [], EdgeOrder.build

    def counted(edge_index: torch.Tensor, edge_type: torch.Tensor, key: str, *sizes: int) -> EdgeOrder:
        sorted_by.append(key)
        return build(edge_index, edge_type, key, *sizes)

    monkeypatch.setattr(EdgeOrder, 'build', counted)
    data = chain()
    model, criterion = NBFNet(2, 4, 2), NBFNetEMULoss()
    for _ in range(2):
        for batch in loader(data, 0.5):
            criterion(model, batch).backward()
    evaluate(model.as_ranker(data), data, split='train')
    assert sorted(sorted_by) == ['relation', 'source', 'target']


@pytest.mark.parametrize('remove_one_hop', [True, False])
@pytest.mark.parametrize('mask', ['exact', 'bernoulli'])
def test_step_never_asks_the_device(monkeypatch: pytest.MonkeyPatch, mask: Any, remove_one_hop: bool) -> None:
    # Tensors of the device "meta" have shapes and no values: whatever would copy a value to the host fails on them.
    # Message passing has a test of its own, on a GPU; here are its shapes.
    def convolve(x: torch.Tensor, relation: torch.Tensor, edges: EdgeOrders, *, boundary: BoundaryRows,
                 edge_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        assert edge_mask.is_meta and edge_mask.numel() == edges.by_target.edge_id.numel()
        one = x.sum() + relation.sum() + boundary.value.sum()
        return one.expand(x.size(0), x.size(1), 4, x.size(2))

    monkeypatch.setattr(nbfnet_layer, 'relational_conv', convolve)
    monkeypatch.setattr(NBFNet, '_autocast', lambda self, device: nullcontext())  # which "meta" does not know
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda *_: False)
    negatives = EMUNegatives(4, mutation_rate=0.5, mask=mask, shared=False, sampler=UniformSampler(filtered=True))
    data = chain()
    whole = next(iter(TripletLoader(data, 8, transform=negatives, corrupt='both')))
    batch = whole.to('meta')
    batch.source, batch.generator = data.to('meta'), None  # there are no generators for "meta"
    with pytest.raises((RuntimeError, NotImplementedError)):
        batch.neg_index.sum().item()
    model = NBFNet(2, 8, 2, remove_one_hop=remove_one_hop).to('meta')
    loss = NBFNetEMULoss()(model, batch)
    loss.backward()
    assert loss.is_meta and all(value.grad is not None for value in model.parameters())


def test_batches_without_graph_or_negatives_are_named() -> None:
    data = chain()
    model = NBFNet(2, 8, 1)
    with pytest.raises(ArgumentError, match='transform=EMUNegatives'):
        NBFNetEMULoss()(model, next(iter(TripletLoader(data, 4))))
    batch = next(iter(loader(data, 0.5)))
    with pytest.raises(ArgumentError, match='^model: DistMult reads no graph; NBFNetBCELoss .*, and BCELoss'):
        NBFNetBCELoss()(DistMult(12, 2, 4), batch)
    without = Batch(batch.head_index, tail_index=batch.tail_index, num_nodes=batch.num_nodes, source=batch.source)
    with pytest.raises(ArgumentError, match='rel_type is missing, and the model has num_relations=2'):
        NBFNetEMULoss()(model, EMUNegatives(2)(without))
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source'):
        NBFNetEMULoss()(model, batch)
