from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.nn import RGCNConv

from pyg_emu import (
    DeMixNegatives,
    EMULoss,
    EMUNegatives,
    KGData,
    Trainer,
    TripletLoader,
    evaluate,
    load_dataset,
    predict,
)
from pyg_emu import models as exported
from pyg_emu.core.contract import Scorer, for_batch, for_graph
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.losses import CrossEntropyLoss, DeMixLoss, LpRegularizer, OneVsAllLoss
from pyg_emu.models import RGCN, DistMult, KGEScorer, Reciprocal
from pyg_emu.models.adapters import as_scorer
from pyg_emu.models.encoders import RGCNLayer
from pyg_emu.models.encoders.messages import MessageGraph
from pyg_emu.models.encoders.rgcn import DECODERS
from pyg_emu.negatives.contract import does
from pyg_emu.negatives.sampling import MCNSSampler, NSCachingSampler


@pytest.fixture(scope='module')
def nations() -> KGData:
    return load_dataset('Nations')


def make(data: KGData, **options: Any) -> RGCN:
    torch.manual_seed(0)
    return RGCN(data.num_nodes or 0, data.num_relations, 8, **{'dropout': 0.0, **options})


def batch_of(data: KGData, **options: Any) -> Batch:
    return next(iter(TripletLoader(data, batch_size=32, transform=EMUNegatives(num_negatives=4), **options)))


def test_the_table_is_that_of_pygs_layers(nations: KGData) -> None:
    model = make(nations).double().eval()
    both = nations.with_inverse_relations()
    x = model.decoder.node_emb.weight
    for number, layer in enumerate(model.layers):
        peer = RGCNConv(8, 8, 2 * nations.num_relations, num_bases=4).double()
        peer.load_state_dict(layer.state_dict())
        x = peer(x if number == 0 else x.relu(), both.edge_index, both.edge_type)
    scorer = model.for_graph(nations)
    torch.testing.assert_close(scorer.entity_table(), x)
    head, relation, tail = nations.facts('test')[:20].unbind(1)
    expected = (x[head] * model.decoder.rel_emb.weight[relation] * x[tail]).sum(1)
    torch.testing.assert_close(model(nations, head, relation, tail), expected)
    torch.testing.assert_close(model.for_graph(both).entity_table(), x)


@pytest.mark.parametrize('decoder', DECODERS)
def test_decoders_score_encoded_rows_as_they_score_their_own(nations: KGData, decoder: str) -> None:
    model = make(nations, decoder=decoder).double().eval()
    scorer = model.for_graph(nations)
    assert isinstance(scorer, Scorer) and isinstance(model, Scorer)
    plain = copy.deepcopy(model.decoder)
    with torch.no_grad():
        plain.node_emb.weight.copy_(scorer.entity_table())
    head, relation, tail = nations.facts('test')[:20].unbind(1)
    for side, known, target in (('tail', head, tail), ('head', tail, head)):
        query = scorer.query(known, relation, side)  # type: ignore[arg-type]
        expected = plain.score(plain.query(known, relation, side), plain.candidates(target))  # type: ignore[arg-type]
        torch.testing.assert_close(scorer.score(query, scorer.candidates(target)), expected)
        everyone = scorer.score_all(query).gather(1, target.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(everyone, expected)
    assert (model.offset, model.complex_rows, repr(model.interaction)) == (
        plain.offset, plain.complex_rows, repr(plain.interaction))


def test_every_shallow_model_is_a_decoder() -> None:
    shallow = {name for name in exported.__all__ if inspect.isclass(getattr(exported, name))
               and issubclass(getattr(exported, name), KGEScorer) and name != 'KGEScorer'}
    assert shallow == set(DECODERS)


def test_a_step_encodes_once_and_reaches_every_parameter(nations: KGData, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(nations)
    batch = batch_of(nations)
    calls = []
    encode = RGCN.encode
    monkeypatch.setattr(RGCN, 'encode', lambda self, *args: calls.append(args[0]) or encode(self, *args))
    with torch.no_grad():
        first = for_batch(model, batch)  # as a sampler asks
    loss = EMULoss(regularizer=lambda scorer, batch: scorer.entity_table().square().mean())(model, batch)
    assert for_batch(model, batch) is first and len(calls) == 1
    loss.backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in model.parameters())
    # Half of the facts pass messages, in both directions.
    assert calls[0].count.numel() == 2 * round(0.5 * nations.num_facts('train'))
    # What the backward pass has freed is not used again, nor what was encoded with other weights.
    EMULoss()(model, batch).backward()
    assert len(calls) == 2
    for_batch(model, batch)
    with torch.no_grad():
        model.decoder.node_emb.weight.add_(0.1)
    for_batch(model, batch)
    assert len(calls) == 4
    assert for_batch(first, batch_of(nations)) is not first
    assert len(calls) == 5


def test_gradients_of_a_loss_are_those_of_the_written_out_model(nations: KGData) -> None:
    model = make(nations, visible=1.0).double()
    batch = batch_of(nations)
    actual = torch.autograd.grad(OneVsAllLoss()(model, batch), list(model.parameters()))
    x = model.decoder.node_emb.weight
    both = nations.with_inverse_relations()
    for number, layer in enumerate(model.layers):
        weight = torch.einsum('rb,bio->rio', layer.comp, layer.weight)
        out = x @ layer.root + layer.bias
        for relation in range(2 * nations.num_relations):
            source, target = both.edge_index[:, both.edge_type == relation]
            count = torch.bincount(target, minlength=nations.num_nodes or 0).clamp(min=1).double()
            mean = torch.zeros_like(x).index_add(0, target, x[source]) / count.unsqueeze(1)
            out = out + mean @ weight[relation]
        x = out if number == 1 else out.relu()
    query = x[batch.known_index] * model.decoder.rel_emb.weight[batch.rel_type]
    expected = torch.autograd.grad(F.cross_entropy(query @ x.t(), batch.target_index), list(model.parameters()))
    for left, right in zip(actual, expected):
        torch.testing.assert_close(left, right)


def test_samples_follow_the_random_stream_of_the_run(nations: KGData) -> None:
    tables = []
    for seed in (1, 1, 2):
        model = make(nations)
        tables.append(for_batch(model, batch_of(nations, seed=seed)).entity_table())
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    model = make(nations, max_edges=100)
    assert for_batch(model, batch_of(nations)).entity_table().shape == (14, 8)
    # In evaluation mode, all facts pass messages.
    model.eval()
    torch.testing.assert_close(for_batch(model, batch_of(nations)).entity_table(),
                               for_graph(model, nations).entity_table())


def test_dropout_follows_the_random_stream_of_the_run(nations: KGData) -> None:
    tables = []
    for own, stream in ((1, 5), (2, 5), (1, 6)):
        model = make(nations, dropout=0.5, visible=1.0)
        batch = batch_of(nations)
        assert batch.generator is not None
        batch.generator.manual_seed(stream)
        torch.manual_seed(own)
        state = torch.get_rng_state()
        tables.append(for_batch(model, batch).entity_table())
        assert torch.get_rng_state().equal(state), 'drew from the global random stream'
    assert torch.equal(tables[0], tables[1]) and not torch.allclose(tables[0], tables[2])
    # In evaluation mode, nothing is left out and nothing drawn.
    before = batch.generator.get_state()  # type: ignore[union-attr]
    torch.testing.assert_close(for_batch(model.eval(), batch).entity_table(),
                               make(nations).eval().for_graph(nations).entity_table())
    assert batch.generator.get_state().equal(before)  # type: ignore[union-attr]


@pytest.mark.parametrize('dropout', [0.0, 0.25, 1.0])
def test_dropout_leaves_out_its_share(nations: KGData, dropout: float) -> None:
    # The first layer returns ones, and the last one what is left of them.
    model = make(nations, dropout=dropout, visible=1.0)
    first, last = model.layers
    with torch.no_grad():
        for value in (first.weight, first.root, last.weight):
            value.zero_()
        first.bias.fill_(1.0)
        last.root.copy_(torch.eye(8))
        last.bias.zero_()
    generator = torch.Generator().manual_seed(0)
    for stream in (generator, None):
        kept = torch.stack([model.encode(MessageGraph.of(nations), stream) for _ in range(200)]).detach()
        assert float((kept == 0.0).double().mean()) == pytest.approx(dropout, abs=0.01)
        if dropout < 1.0:
            assert kept[kept != 0.0].tolist() == pytest.approx([1.0 / (1.0 - dropout)] * int((kept != 0.0).sum()))


def test_ranking_and_prediction_encode_once(nations: KGData, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(nations, dropout=0.5)
    calls = []
    encode = RGCN.encode
    monkeypatch.setattr(RGCN, 'encode', lambda self, *args: calls.append(self.training) or encode(self, *args))
    metrics = evaluate(model, nations, split='test', batch_size=16, sides=('tail', 'head', 'relation'))
    assert calls == [False] and model.training
    scorer = model.eval().for_graph(nations)
    again = evaluate(scorer, nations, split='test', sides=('tail', 'head', 'relation'))
    assert again['mrr'] == pytest.approx(metrics['mrr'])
    assert again['relation.mrr'] == pytest.approx(metrics['relation.mrr'])
    calls.clear()
    frame = predict(model, nations, heads='usa', relations='embassy', k=3)
    assert len(calls) == 1
    assert frame['score'].tolist() == pytest.approx(predict(scorer, nations, 'usa', 'embassy', k=3)['score'].tolist())


@pytest.mark.parametrize('sampler', [None, NSCachingSampler(), MCNSSampler()], ids=['uniform', 'nscaching', 'mcns'])
def test_a_trainer_learns_and_resumes_bit_for_bit(nations: KGData, tmp_path: Path, sampler: Any) -> None:
    def trainer(folder: str, steps: int) -> Trainer:
        torch.manual_seed(1)
        model = make(nations, dropout=0.2, margin=0.0)
        loader = TripletLoader(nations, batch_size=400, shuffle=True,
                               transform=EMUNegatives(num_negatives=8, sampler=copy.deepcopy(sampler)))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        return Trainer(model, CrossEntropyLoss(), loader, optimizer, num_steps=steps, evaluate_every=20,
                       validate=lambda model: evaluate(model, nations, split='valid'),
                       restore_best=False, run_dir=tmp_path / folder, progress=False)

    whole = trainer('whole', 40)
    result = whole.fit()
    # Harder negatives take longer.
    assert result.best_metric is not None and result.best_metric > (0.45 if sampler is None else 0.3)
    trainer('parts', 20).fit()
    parts = trainer('parts', 40)
    parts.fit()
    for left, right in zip(whole.model.parameters(), parts.model.parameters()):
        assert torch.equal(left, right)


def test_reciprocal_relations_encode_too(nations: KGData) -> None:
    torch.manual_seed(0)
    model = Reciprocal(RGCN(14, 2 * nations.num_relations, 8, dropout=0.0))
    assert 0.0 < evaluate(model, nations, split='test')['mrr'] < 1.0
    EMULoss()(model, batch_of(nations)).backward()
    plain = Reciprocal(DistMult(14, 2 * nations.num_relations, 8))
    assert for_graph(plain, nations) is plain


def test_a_class_of_the_users_own_decodes(nations: KGData) -> None:
    class Half(DistMult):
        def _query(self, known: Any, rel_type: Any, side: Any) -> Any:
            return 0.5 * super()._query(known, rel_type, side)

    head, relation, tail = nations.facts('test')[:5].unbind(1)
    torch.testing.assert_close(2 * make(nations, decoder=Half).eval()(nations, head, relation, tail),
                               make(nations).eval()(nations, head, relation, tail))


def test_copies_and_pickles_hold_no_step(nations: KGData) -> None:
    model = make(nations)
    for_batch(model, batch_of(nations))
    assert copy.deepcopy(model)._held is None and model.__getstate__()['_held'] is None


def test_wrong_use_is_named(nations: KGData) -> None:
    model = make(nations)
    ids = torch.tensor([0])
    for call in (model.entity_table, lambda: model.query(ids, ids, 'tail'), lambda: model.candidates(ids)):
        with pytest.raises(ArgumentError, match='for_graph'):
            call()
    with pytest.raises(ArgumentError, match='source'):
        for_batch(model, Batch(ids, ids, ids, 'tail', num_nodes=14))
    other = load_dataset('UMLS')
    with pytest.raises(ArgumentError, match='135'):
        model.for_graph(other)
    for options, said in (({'decoder': 'Dist'}, 'DistMult'), ({'decoder': torch.nn.Linear}, 'decoder'),
                          ({'visible': 0.0}, 'visible'), ({'dropout': 2.0}, 'dropout'), ({'max_edges': 0}, 'max_edges'),
                          ({'num_bases': 2, 'num_blocks': 2}, 'num_blocks'), ({'num_layers': 0}, 'num_layers')):
        with pytest.raises(ArgumentError, match=said):
            make(nations, **options)
    with pytest.warns(UserWarning, match='dropout: 0.9 .*num_layers=1'):
        make(nations, num_layers=1, dropout=0.9)
    with pytest.raises(ArgumentError, match='graph'):
        Trainer(model, EMULoss(), TripletLoader(nations, transform=EMUNegatives(num_negatives=2)),
                torch.optim.SGD(model.parameters(), lr=0.1), num_steps=1, graph=True, progress=False).fit()


@pytest.mark.gpu
def test_a_gpu_computes_what_the_cpu_does(nations: KGData) -> None:
    model = make(nations, visible=1.0)
    batch = batch_of(nations)
    expected = torch.autograd.grad(OneVsAllLoss()(model, batch), list(model.parameters()))
    metrics = evaluate(model, nations, split='test')
    moved, on_gpu = copy.deepcopy(model).cuda(), copy.copy(nations).to('cuda')
    other = batch_of(on_gpu)
    for left, right in zip(torch.autograd.grad(OneVsAllLoss()(moved, other), list(moved.parameters())), expected):
        torch.testing.assert_close(left.cpu(), right, rtol=1e-3, atol=1e-5)
    assert evaluate(moved, on_gpu, split='test')['mrr'] == pytest.approx(metrics['mrr'], abs=1e-3)
    blocks = make(on_gpu, num_blocks=2).cuda()
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        own = copy.deepcopy(blocks)
        found.append(torch.autograd.grad(OneVsAllLoss()(own, batch_of(on_gpu, seed=3)), list(own.parameters())))
    assert all(torch.equal(left, right) for left, right in zip(*found)), 'deterministic'


def test_a_graph_with_other_relations_is_refused(nations: KGData) -> None:
    model = make(nations)
    edge_index, edge_type = nations.edge_index, nations.edge_type
    assert edge_type is not None
    fewer = KGData(edge_index, edge_type % 3, nations.num_nodes, 3)
    with pytest.raises(ArgumentError, match=f'num_relations={nations.num_relations}.* 3 relations'):
        model.for_graph(fewer)
    assert for_graph(model, KGData(edge_index, edge_type % 3, nations.num_nodes, nations.num_relations)) is not None


@pytest.mark.parametrize('options', [{'num_bases': 3}, {'num_blocks': 2}, {'num_blocks': 1}])
def test_layers_under_autocast(nations: KGData, options: dict[str, Any]) -> None:
    model = make(nations, **options)
    batch = batch_of(nations)
    model.eval()
    expected = CrossEntropyLoss()(model, batch)
    wanted = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = CrossEntropyLoss()(model, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)
    for one, other in zip(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True), wanted):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.dtype == torch.float32
            # Not component by component: the derivative of ReLU jumps where rounding changes a sign.
            assert float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0)) > 0.95


@pytest.mark.parametrize('options', [{'num_bases': 3}, {'num_blocks': 2}, {}])
def test_layers_without_a_bias_follow_one_another_under_autocast(nations: KGData, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layers = [RGCNLayer(8, 8, 2 * nations.num_relations, bias=False, **options) for _ in range(2)]
    graph, x = MessageGraph.of(nations), torch.randn(14, 8)
    expected = layers[1](layers[0](x, graph), graph)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = layers[1](layers[0](x, graph), graph)
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('transform, criterion', [
    (EMUNegatives(4, sampler=NSCachingSampler(cache_size=4, num_candidates=4)), EMULoss()),
    (DeMixNegatives(4, warmup=0), DeMixLoss())], ids=['NSCaching', 'DeMix'])
def test_parts_that_learn_in_a_loop_of_the_users_own(nations: KGData, transform: Any, criterion: Any) -> None:
    model = make(nations)
    part = transform.sampler if does(transform.sampler, 'update') else transform.mutation
    for _, batch in zip(range(2), TripletLoader(nations, batch_size=32, transform=transform)):
        part.update(batch, as_scorer(model))
        criterion(model, batch).backward()
    assert model.decoder.node_emb.weight.grad is not None


def test_penalties_act_on_encoded_rows(nations: KGData) -> None:
    model, batch = make(nations), batch_of(nations)
    criterion = EMULoss(regularizer=LpRegularizer(2.0, 0.5))
    criterion(model, batch)
    scorer = for_batch(model, batch)
    expected = 0.5 * (scorer.entity_table().square().sum() + model.decoder.rel_emb.weight.square().sum())
    torch.testing.assert_close(criterion.terms['loss_penalty'], expected.detach())
    with pytest.raises(AssertionError):
        torch.testing.assert_close(scorer.entity_table(), model.decoder.node_emb.weight)
