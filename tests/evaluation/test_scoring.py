from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch_geometric.nn import DistMult, RotatE

import pyg_emu.models as models
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError, DivergenceError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.calibration import Calibration, best_thresholds, fit
from pyg_emu.evaluation.classification import calibrate, classify
from pyg_emu.evaluation.scoring import score

V, R = 10, 3


def make_data(labels: bool = True) -> KGData:
    generator = torch.Generator().manual_seed(0)
    edges, types = torch.randint(V, (2, 70), generator=generator), torch.randint(R, (70,), generator=generator)
    names: dict[str, Any] = {}
    if labels:
        names = {'entity_labels': [f'e{i}' for i in range(V)], 'relation_labels': [f'r{i}' for i in range(R)]}
    return KGData(edges[:, :30], types[:30], V, R, valid_edge_index=edges[:, 30:50], valid_edge_type=types[30:50],
                  test_edge_index=edges[:, 50:], test_edge_type=types[50:], **names)


@pytest.mark.parametrize('layer', [DistMult, RotatE, models.TransE])
def test_scores_are_those_of_forward(layer: Any) -> None:
    torch.manual_seed(0)
    data, model = make_data(), layer(V, R, 6).double()
    facts = data.facts('test')
    expected = model(*facts.t()).detach()
    frame = score(model, data, facts)
    torch.testing.assert_close(torch.tensor(frame['score'].to_numpy()), expected)
    assert frame['head'].tolist() == [f'e{head}' for head in facts[:, 0].tolist()]
    pd.testing.assert_frame_equal(score(model, data, frame), frame)
    pd.testing.assert_frame_equal(score(model, data, facts, batch_size=3), frame)
    labelled = score(model, data, frame.assign(label=np.arange(len(frame)) % 2 == 0))
    assert labelled['label'].tolist() == [number % 2 == 0 for number in range(len(frame))]


@pytest.mark.parametrize('batch_size', [None, 1, 4])
def test_functions_and_sides(batch_size: Any) -> None:
    data, calls = make_data(labels=False), []
    tables = {side: torch.rand(V, R, V, generator=torch.Generator().manual_seed(3)) + (side == 'head')
              for side in ('tail', 'head')}

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        calls.append(known.numel())
        return tables[side][known, rel_type]

    head, relation, tail = (facts := data.facts('all')).unbind(1)
    forward, backward = tables['tail'][head, relation, tail], tables['head'][tail, relation, head]
    for side, expected in (('tail', forward), ('head', backward), ('both', (forward + backward) / 2)):
        frame = score(model, data, facts, side=side, batch_size=batch_size)  # type: ignore[arg-type]
        assert frame['score'].tolist() == pytest.approx(expected.tolist())
        # A calibration scores by the side that it was fitted on.
        fitted = Calibration('platt', [1.0], [0.0], 0.5, [0.5] * R, side, 0.5)  # type: ignore[arg-type]
        again = score(model, data, facts, calibration=fitted, batch_size=batch_size)
        assert again['score'].equals(frame['score'])
    assert max(calls) <= (batch_size or 128) and frame['head'].tolist() == head.tolist()
    nbfnet = models.NBFNet(R, 4, 1)
    graph = data.with_inverse_relations()
    found = score(nbfnet.as_ranker(graph), graph, facts[:5])['score']
    assert found.tolist() == pytest.approx(nbfnet(graph, *facts[:5].t()).tolist(), abs=1e-5)
    with pytest.raises(DivergenceError, match=f'{int(head[0])}, {int(relation[0])}, {int(tail[0])}'):
        score(lambda known, *_: torch.full((len(known), V), torch.nan), data, facts)


@pytest.mark.parametrize('side', ['tail', 'head', 'both'])
def test_no_facts(side: Any) -> None:
    data = make_data()
    calibration = Calibration('platt', [1.0], [0.0], 0.0, [0.0] * R, side, 0.5)
    none = torch.empty(0, 3, dtype=torch.long)
    for model in (separable(data), models.TransE(V, R, 4)):
        for facts in (none, score(models.TransE(V, R, 4), data, data.facts())[:0]):
            frame = score(model, data, facts, side=side)
            assert list(frame) == ['head', 'relation', 'tail', 'score'] and frame.shape == (0, 4)
            assert frame['score'].dtype == np.float64
            decided = score(model, data, facts, calibration=calibration)
            assert decided.shape == (0, 6) and decided['predicted'].dtype == bool
    with pytest.raises(ArgumentError, match='num_relations'):
        score(models.TransE(V, R + 1, 4), data, none)


@pytest.mark.parametrize('seed', range(20))
def test_thresholds_equal_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 25))
    scores = generator.integers(0, 6, size).astype(float)
    truth, group = generator.random(size) < 0.5, generator.integers(0, 3, size) * 2
    names, found = best_thresholds(scores, truth, group)
    assert names.tolist() == sorted(set(group.tolist()))
    for name, threshold in zip(names, found):
        own, true = scores[group == name], truth[group == name]
        accuracy = {cut: ((own >= cut) == true).mean() for cut in (np.inf, *sorted(set(own), reverse=True))}
        # The highest of the best cuts: midway to what scores less, or above all of the group.
        cut = max(accuracy, key=accuracy.__getitem__)
        below = own[own < cut]
        expected = np.nextafter(own.max(), np.inf) if cut == np.inf else (cut + max(below, default=cut)) / 2
        assert threshold == expected


def separable(data: KGData) -> Any:
    r"""A model that scores facts of all splits above others, at another height for each relation."""
    index = data.fact_index('all')
    noise = torch.rand(V, R, V, generator=torch.Generator().manual_seed(1))

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        every = torch.arange(V)
        columns = (known.unsqueeze(1), rel_type.unsqueeze(1), every)
        fact = index.contains(*columns) if side == 'tail' else index.contains(*columns[::-1])
        return fact + noise[known, rel_type] * 0.9 + 10 * rel_type.unsqueeze(1)

    return model


@pytest.mark.parametrize('method', ['platt', 'isotonic'])
def test_from_calibration_to_classification(method: Any, tmp_path: Path) -> None:
    pytest.importorskip('sklearn')
    data = make_data()
    model = separable(data)
    calibration = calibrate(model, data, method=method, num_negatives=2)
    assert calibration.positive_share == pytest.approx(1 / 3)
    found = classify(model, data, calibration, num_negatives=2)
    # Thresholds tell apart what one threshold for all relations could not.
    assert found['accuracy'] > 0.9 and found['f1'] > 0.85
    assert found['count'] == 60 and found['positives'] == 20
    assert found.relations['count'].sum() == 60 and set(found.relations.index) == {'r0', 'r1', 'r2'}
    assert (found.relations['roc_auc'] == 1).all() and found['roc_auc'] < 1
    frame = found.facts
    known = data.fact_index('all').contains(*torch.tensor(
        [(data.entity_id(h), data.relation_id(r), data.entity_id(t)) for h, r, t in
         frame[['head', 'relation', 'tail']].itertuples(index=False)]).t())
    assert known.tolist() == frame['label'].tolist()  # drawn negatives are in no split
    assert found['accuracy'] == (frame['label'] == frame['predicted']).mean()
    assert found['brier'] == pytest.approx(((frame['probability'] - frame['label'])**2).mean())
    assert 'r1' in str(found) and found.to_dict()['relations']['r1']['count'] > 0

    path = tmp_path / 'calibration.json'
    calibration.save(path)
    assert Calibration.load(path) == calibration
    scored = score(model, data, frame, calibration=calibration)
    pd.testing.assert_frame_equal(scored[list(frame)], frame)
    order = scored.sort_values('score')['probability']
    assert order.is_monotonic_increasing and order.between(0, 1).all()


def test_probabilities_are_frequencies() -> None:
    pytest.importorskip('sklearn')
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20_000, generator=generator, dtype=torch.float64) * 5 + 100
    chance = torch.sigmoid(0.4 * (scores - 101))
    truth = torch.rand(20_000, generator=generator, dtype=torch.float64) < chance
    for method in ('platt', 'isotonic'):
        found = fit(scores, truth, torch.zeros(20_000, dtype=torch.int64), 1, method, 'tail')  # type: ignore[arg-type]
        assert (found.probability(scores) - chance).abs().mean() < 0.02
    assert fit(scores, truth, torch.zeros(20_000, dtype=torch.int64), 1, 'platt', 'tail').points == pytest.approx(
        [0.4], abs=0.02)


def test_fit_by_hand() -> None:
    pytest.importorskip('sklearn')
    # With two scores, a logistic curve goes through Platt's targets: 4 / 5 for three true facts, 1 / 4 for two false.
    scores, truth = torch.tensor([7.0, 7.0, 7.0, 3.0, 3.0]), torch.tensor([True, True, True, False, False])
    found = fit(scores, truth, torch.zeros(5, dtype=torch.int64), 1, 'platt', 'tail')
    assert found.probability(torch.tensor([7.0, 3.0])).tolist() == pytest.approx([0.8, 0.25], abs=1e-4)
    # Thresholds of two relations, and of both together, where 1 is a false positive or 10 a false negative.
    scores, truth = torch.tensor([0.0, 1.0, 10.0, 11.0]), torch.tensor([False, True, False, True])
    found = fit(scores, truth, torch.tensor([0, 0, 1, 1]), 3, 'isotonic', 'tail')
    assert found.thresholds == [0.5, 10.5, None] and found.threshold == 10.5


def test_classification_by_hand() -> None:
    pytest.importorskip('sklearn')
    data = KGData(torch.tensor([[0], [5]]), torch.tensor([0]), 6, 1)
    facts = pd.DataFrame({'head': range(5), 'relation': 0, 'tail': 5, 'label': [True, False, True, True, False]})
    calibration = Calibration('platt', [1.0], [-2.5], 2.5, [None], 'tail', 0.5)
    # Scores 4, 3, 2, 1 and 0, of which the first two are taken as true.
    found = classify(lambda known, *_: 4.0 - known.unsqueeze(1).expand(-1, 6), data, calibration, facts=facts)
    wrong = [1 / (1 + math.exp(sign * (value - 2.5))) for sign, value in ((1, 4), (-1, 3), (1, 2), (1, 1), (-1, 0))]
    assert found.to_dict() | {'relations': None} == pytest.approx({
        'accuracy': 2 / 5, 'precision': 1 / 2, 'recall': 1 / 3, 'f1': 2 / 5, 'roc_auc': 4 / 6,
        'average_precision': (1 + 2 / 3 + 3 / 4) / 3, 'brier': sum(value**2 for value in wrong) / 5, 'positives': 3,
        'count': 5, 'relations': None})


def test_false_facts_are_drawn_at_both_ends() -> None:
    pytest.importorskip('sklearn')
    data = make_data(labels=False)
    model, calibration = separable(data), Calibration('platt', [1.0], [0.0], 0.5, [0.5] * R, 'tail', 0.5)
    drawn = []
    for seed in (1, 1, 2):
        frame = classify(model, data, calibration, seed=seed).facts
        drawn.append(torch.tensor(frame[['head', 'relation', 'tail']].to_numpy()))
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(drawn[2])
    true, false = drawn[0].tensor_split(2)
    kept = true == false
    # In turn, the tail and the head are replaced; the other end and the relation stay.
    assert kept[:, 1].all() and kept[::2, 0].all() and kept[1::2, 2].all()
    assert not kept[::2, 2].any() and not kept[1::2, 0].any()
    # A fact whose question everybody answers has no false one.
    full = KGData(torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 0]), 3, 1,
                  test_edge_index=torch.tensor([[0, 1], [0, 2]]), test_edge_type=torch.tensor([0, 0]))
    found = classify(lambda known, *_: torch.rand(len(known), 3), full, Calibration(
        'platt', [1.0], [0.0], 0.5, [0.5], 'tail', 0.5)).facts
    assert found[['head', 'relation', 'tail']].values.tolist() == [[0, 0, 0], [1, 0, 2], [2, 0, 2]]


def test_negatives_of_your_own(tmp_path: Path) -> None:
    pytest.importorskip('sklearn')
    data = make_data()
    model, path = separable(data), tmp_path / 'negatives.tsv'
    false = calibrate_negatives(data)
    path.write_text(''.join(f'e{h}\tr{r}\te{t}\n' for h, r, t in false.tolist()))
    calibration = calibrate(model, data, negatives=path)
    assert calibration == calibrate(model, data, negatives=false)
    frame = score(model, data, torch.cat([data.facts('valid'), false])).drop(columns='score')
    frame['label'] = np.arange(len(frame)) < 20
    assert calibrate(model, data, facts=frame) == calibration
    assert classify(model, data, calibration, facts=frame)['count'] == len(frame)
    # A relation without labelled facts gets the threshold of all.
    only = frame[frame['relation'] == 'r0']
    found = calibrate(model, data, facts=only)
    assert [value is None for value in found.thresholds] == [False, True, True] and '1 of 3' in repr(found)
    assert found.decide(torch.tensor([found.threshold]), torch.tensor([2])).tolist() == [True]
    for scores, relations, told in ((torch.rand(5), torch.tensor([0]), r'scores: .*\(1,\).*\(5,\)'),
                                    (torch.rand(2, 1), torch.tensor([1, 2]), r'scores: .*\(2,\).*\(2, 1\)'),
                                    (torch.rand(2), torch.tensor([0, -1]), 'rel_type: -1 at position 1 '),
                                    (torch.rand(1), torch.tensor([3]), 'rel_type: 3 at position 0 .*3'),
                                    (torch.rand(1), torch.tensor([0.0]), 'rel_type: .*float'),
                                    ([0.5], [0], 'scores: ')):
        with pytest.raises(ArgumentError, match=told):
            found.decide(scores, relations)  # type: ignore[arg-type]


def test_known_facts_are_not_drawn_as_false_ones() -> None:
    pytest.importorskip('sklearn')
    data = make_data()
    model = separable(data)
    drawn = classify(model, data, num_negatives=4).facts
    given = drawn[~drawn['label']].drop_duplicates(['head', 'relation', 'tail'])[['head', 'relation', 'tail']].head(25)
    # Of what would be drawn, a part is known elsewhere.
    found = classify(model, data, num_negatives=4, known_facts=given).facts
    false = found[~found['label']]
    assert len(false) > 40 and len(false.merge(given)) == 0 < len(drawn[~drawn['label']].merge(given))
    assert not data.fact_index('all').contains(*torch.tensor(
        [(data.entity_id(h), data.relation_id(r), data.entity_id(t)) for h, r, t in
         false[['head', 'relation', 'tail']].itertuples(index=False)]).t()).any()
    assert calibrate(model, data, known_facts=given) != calibrate(model, data)
    calibration = calibrate(model, data, known_facts=given[:0])
    assert calibration == calibrate(model, data)
    for call, options in ((calibrate, {}), (classify, {'calibration': calibration})):
        with pytest.raises(ArgumentError, match='known_facts.*negatives'):
            call(model, data, negatives=given, known_facts=given, **options)
    assert classify(model, data, negatives=given, known_facts=given)['count'] == 20 + len(given)
    with pytest.raises(DataError, match=r'row \d+: .*known_facts'):
        calibrate(model, data, known_facts=given.assign(label=False))


def calibrate_negatives(data: KGData) -> Tensor:
    every = torch.cartesian_prod(torch.arange(V), torch.arange(R), torch.arange(V))
    return every[~data.fact_index('all').contains(*every.t())][::7]


@pytest.mark.parametrize('call, error, facts', [
    (lambda data, model: calibrate(model, data, 'dev'), ArgumentError, ['split', "'dev'"]),
    (lambda data, model: calibrate(model, data, method='beta'), ArgumentError, ['method', "'beta'", "'platt'"]),
    (lambda data, model: calibrate(model, data, num_negatives=0), ArgumentError, ['num_negatives', '0']),
    (lambda data, model: calibrate(model, data, facts=data.facts()), ArgumentError, ['facts', "'label'"]),
    (lambda data, model: calibrate(model, data, facts='a.tsv', negatives='b.tsv'), ArgumentError, ['facts, negatives']),
    *((lambda data, model, call=call, given=given, name=name, value=value: call(
        model, data, **{given: data.facts(), name: value}), ArgumentError, [f'{name}: ', f'None with {given}'])
      for call in (calibrate, lambda model, data, **rest: classify(model, data, calibrate(model, data), **rest))
      for given, names in (('facts', ('split', 'num_negatives', 'seed', 'known_facts')),
                           ('negatives', ('num_negatives', 'seed', 'known_facts')))
      for name, value in (('split', 'test'), ('num_negatives', 1), ('seed', 0), ('known_facts', 'a.tsv'))
      if name in names),
    (lambda data, model: calibrate(model, data, negatives=data.facts()[:0]), DataError, ['negatives', '20 true']),
    (lambda data, model: calibrate(model, data, negatives=score(model, data, data.facts()).assign(label=1)), DataError,
     ['negatives', 'row 0']),
    (lambda data, model: calibrate(model, make_data().subgraph(torch.arange(1))), (DataError, ArgumentError),
     ["'valid'"]),
    (lambda data, model: score(model, data, data.facts(), side='up'), ArgumentError, ['side', "'up'"]),
    (lambda data, model: score(model, data, data.facts(), calibration=0.5), ArgumentError, ['calibration', '0.5']),
    (lambda data, model: score(model, data, data.facts(), batch_size=0), ArgumentError, ['batch_size', '0']),
    (lambda data, model: score(model, data, 'missing.tsv'), DataError, ['missing.tsv']),
    (lambda data, model: score(model, data, data.facts(), calibration=Calibration(
        'platt', [1.0], [0.0], 0.0, [0.0] * 4, 'tail', 0.5)), ArgumentError, ['calibration', '3', '4']),
    (lambda data, model: score(model, data, data.facts(), side='head', calibration=Calibration(
        'platt', [1.0], [0.0], 0.0, [0.0] * 3, 'tail', 0.5)), ArgumentError, ['side', "'tail'", "'head'"]),
])
def test_bad_arguments(call: Any, error: Any, facts: list[str]) -> None:
    pytest.importorskip('sklearn')
    data = make_data()
    with pytest.raises(error) as caught:
        call(data, separable(data))
    assert all(fact in str(caught.value) for fact in facts), caught.value


@pytest.mark.parametrize('text', ['', '{}', '{"method": "platt"}', '[]', 'null'])
def test_damaged_files(tmp_path: Path, text: str) -> None:
    (tmp_path / 'calibration.json').write_text(text)
    with pytest.raises(CheckpointError, match='calibration.json'):
        Calibration.load(tmp_path / 'calibration.json')
    with pytest.raises(CheckpointError, match='missing.json'):
        Calibration.load(tmp_path / 'missing.json')
