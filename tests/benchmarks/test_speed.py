from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks import _contenders as contenders
from benchmarks import speed
from benchmarks._contenders import (
    BOUNDS,
    CONTENDERS,
    MODELS,
    Setting,
    contenders_of,
    eager_score,
    generate,
    soft_label_cross_entropy,
)
from benchmarks._record import read_result
from pyg_emu import EMULoss
from pyg_emu.losses.functional import uls_cross_entropy


@pytest.mark.parametrize('name', MODELS)
def test_eager_scores_are_the_models_own(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name](10, 3, 4).double()
    query, candidates = torch.randn(5, model.node_emb.weight.size(1)).double(), model.node_emb.weight.expand(5, -1, -1)
    expected = model.interaction(query.unsqueeze(1), candidates)
    torch.testing.assert_close(eager_score(name, query, candidates), expected)


@pytest.mark.parametrize('label', [0.0, 0.53])
def test_eager_loss_is_ours(label: float) -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(5), torch.randn(5, 7)
    torch.testing.assert_close(soft_label_cross_entropy(positive, negative, label),
                               uls_cross_entropy(positive, negative, label))


@pytest.mark.parametrize('name', [name for name in (*contenders_of('distmult'), 'sparse_vanilla')
                                  if name not in BOUNDS])
def test_contenders_train(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A step without an update, or without a draw, would be too fast.
    losses = []
    backward = torch.Tensor.backward

    def watched(self: torch.Tensor, *arguments: Any, **options: Any) -> None:
        losses.append(float(self.detach()))
        backward(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, 'backward', watched)
    model = 'transe' if name == 'sparse_vanilla' else 'distmult'
    step = CONTENDERS[name](Setting(model, generate(20, 2, 60), batch_size=30, num_negatives=4, channels=8))
    for _ in range(40):
        step()
    assert len(losses) == 40 and sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_shared_contender_trains_on_shared_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = EMULoss.forward

    def watched(self: EMULoss, model: Any, batch: Any) -> torch.Tensor:
        seen.append(batch.shared_index)
        return forward(self, model, batch)

    monkeypatch.setattr(EMULoss, 'forward', watched)
    setting = Setting('distmult', generate(20, 2, 60), batch_size=30, num_negatives=4, channels=8, chunk_size=7)
    CONTENDERS['emu_triple'](setting)()
    assert seen[0].chunk_size == 7 and seen[0].shape == (30, 4)


def test_generated_facts() -> None:
    data = generate(30, 4, 200, 20, seed=1)
    assert [data.num_facts(split) for split in ('train', 'valid', 'test')] == [200, 20, 20]  # type: ignore[arg-type]
    assert data.facts('all').equal(generate(30, 4, 200, 20, seed=1).facts('all'))
    assert not data.facts('train').equal(generate(30, 4, 200, 20, seed=2).facts('train'))


def test_take_turns() -> None:
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) for name in 'ab'}
    times = speed.take_turns(steps, rounds=2, turn_s=1e-9)  # type: ignore[arg-type]
    assert ''.join(calls) == 'aabb' + 'aabb' * 2  # Two warm-up steps, and one untimed step at the start of each turn.
    assert [len(values) for values in times.values()] == [2, 2]


def test_exponents() -> None:
    rows = [{'axis': axis, 'value': value, 'contender': 'vanilla', 'ms': 3.0 * value**power}
            for axis, power in (('channels', 0.5), ('entities', 0.25)) for value in (10_000, 1_000_000, 5_000_000)]
    (name, entry), = speed.exponents_of(rows, 'channels').items()
    assert name == 'exponent in channels, vanilla' and entry['value'] == pytest.approx(0.5) and entry['kept']
    entities = speed.exponents_of(rows, 'entities')
    assert entities['exponent in entities, vanilla']['value'] == pytest.approx(0.25)
    assert entities['5e6 over 1e6 entities, vanilla'] == {'value': pytest.approx(5**0.25), 'at_most': 1.5, 'kept': True}


def test_ratios() -> None:
    medians = {'vanilla': 10.0, 'emu_triple': 12.0, 'emu_negative': 13.0, 'eager_emu_triple': 150.0,
               'eager_emu_negative': 150.0, 'pykeen_vanilla': 100.0, 'composed_vanilla': 15.0,
               'composed_emu_triple': 24.0, 'composed_emu_negative': 19.5, 'six_matrix_products': 2.0,
               'one_embedding_bag': 3.0}
    found = {name: (round(entry['value'], 3), entry.get('kept'))
             for name, entry in speed.step_ratios(medians, 'distmult').items()}
    assert found == {
        'emu over vanilla, mask per triple': (1.2, True),
        'emu over vanilla, mask per negative': (1.3, False),
        'eager emu over emu, mask per triple': (12.5, True),
        'eager emu over emu, mask per negative': (11.538, False),
        'composed emu over emu, mask per triple': (2.0, True),
        'composed emu over emu, mask per negative': (1.5, None),
        'composed vanilla over vanilla': (1.5, None),
        'emu over six matrix products': (6.0, None),
        'emu over one embedding_bag': (4.0, None),
        'pykeen vanilla over emu, mask per triple': (8.333, False),
    }
    medians = {**medians, 'sparse_vanilla': 400.0}
    assert speed.step_ratios(medians, 'transe')['sparse vanilla over vanilla'] == {'value': 40.0}


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(['--smoke', '--models', 'distmult', '--out', str(tmp_path)])
    for part in speed.PARTS:
        result = read_result(f'speed/{part}', tmp_path)
        assert result['metrics']['rows'] and result['metrics']['ratios']
        assert len(pd.read_csv(tmp_path / 'speed' / f'{part}.csv')) == len(result['metrics']['rows'])
    rows = read_result('speed/steps', tmp_path)['metrics']['rows']
    assert {row['contender'] for row in rows} == set(contenders_of('distmult'))
    demix = read_result('speed/demix', tmp_path)['metrics']
    for row in demix['rows']:
        assert row['negatives'] == 4 and 0 < row['refresh_share_ms'] < row['refresh_ms']
        entry = demix['ratios'][f'demix over self-adversarial, refresh included, {row["model"]}']
        assert entry['value'] == pytest.approx((row['demix_ms'] + row['refresh_share_ms']) / row['self_adversarial_ms'])
    shared = read_result('speed/shared', tmp_path)['metrics']
    assert [(row['model'], row['negatives'], row['contender']) for row in shared['rows']] == [
        (model, negatives, name) for model in ('distmult', 'complex') for negatives in (4, 6)
        for name in ('own', 'shared')]
    assert shared['ratios']['complex']['own over shared, 6 negatives']['value'] == pytest.approx(
        shared['rows'][-2]['ms'] / shared['rows'][-1]['ms'])
    assert (tmp_path / 'speed' / 'speed.png').stat().st_size > 10_000
    assert {path.name for path in (tmp_path / 'speed').iterdir()} == {
        'speed.png', *(f'{part}{suffix}' for part in speed.PARTS for suffix in ('.csv', '.json'))}
    assert 'at least 12' in capsys.readouterr().out


def test_smoke_results_are_not_recorded() -> None:
    with pytest.raises(SystemExit):
        speed.parse(['--smoke'])


def test_incidence_products_are_transe(monkeypatch: pytest.MonkeyPatch) -> None:
    # The positive and one negative of each of two facts, h + r - t.
    found: list[torch.Tensor] = []
    monkeypatch.setattr(contenders, 'soft_label_cross_entropy',
                        lambda *scores: (found.extend(scores[:2]), scores[0].sum())[1])  # type: ignore[func-returns-value]
    setting = Setting('transe', generate(20, 2, 60), batch_size=30, num_negatives=4, channels=8)
    batch, model = next(setting.batches()), setting.make_model()
    CONTENDERS['sparse_vanilla'](setting)()
    expected = model.triple_score(batch.head_index, batch.rel_type, batch.tail_index) - model.offset
    torch.testing.assert_close(found[0].detach(), expected.detach())
    assert found[1].shape == (30, 4)
