r"""Tests of the NBFNet benchmarks on a CPU with tiny sizes: training, recording, skipping and continuing runs."""
from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import nbfnet, nbfnet_fb15k237
from benchmarks._contenders import generate
from benchmarks._record import read_result
from benchmarks.nbfnet import CASES, HITS, METHODS
from benchmarks.render_readme import TABLES, render
from pyg_emu.experiments.recipe import Recipe


def recipe(name: str, method: str) -> Recipe:
    return nbfnet.recipe_of(name, method, nbfnet.parse([]), seed=2)


def test_recipes_are_the_published_settings() -> None:
    for name in CASES:
        for method in METHODS:
            found = recipe(name, method)
            assert (found.model['hidden_channels'], found.model['num_layers']) == (32, 6)
            assert found.model['aggregate'] == 'pna'
            assert found.optimizer == {'name': 'adam', 'lr': 5e-3}
            assert (found.batch_size, found.corrupt, found.negatives['num_negatives']) == (64, 'both', 32)
            assert found.seed == 2 and found.evaluation['num_negatives'] == 50
            wordnet = name == 'wn18rr-v1'
            assert found.model['dependent'] == found.model['remove_one_hop'] == (not wordnet)
            assert found.loss['adversarial_temperature'] == (1.0 if wordnet else 0.5)
    emu, bce = recipe('fb237-v1', 'emu'), recipe('fb237-v1', 'bce')
    assert (emu.loss['name'], emu.loss['alpha'], emu.loss['beta']) == ('nbfnet_emu', 1.0, 0.25)
    assert emu.negatives['mutation_rate'] == 0.94
    assert (bce.loss['name'], bce.negatives['mutation_rate']) == ('nbfnet_bce', 0.0)
    assert (emu.dataset, emu.inference) == ('fb237_v1', 'fb237_v1_ind')
    assert recipe('umls', 'emu').inference is None
    # 4,245 triples are 67 batches.
    assert (emu.num_steps, emu.evaluate_every) == (5 * 67, 67)


def test_small_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ['--smoke', '--out', str(tmp_path), '--only', 'umls', 'wn18rr-v1', '--seeds', '0', '1', '--method']
    nbfnet.main([*command, 'emu'])
    capsys.readouterr()
    nbfnet.main([*command, 'emu', 'bce'])
    lines = capsys.readouterr().out.splitlines()
    assert sum('recorded' in line for line in lines) == 4 and len(lines) == 8
    inductive = read_result('nbfnet/wn18rr-v1-emu-seed1', tmp_path)
    assert inductive['seed'] == 1
    metrics = inductive['metrics']
    assert metrics['test']['info']['filtered by'] == 'train' and 'WN18RR_v1_ind' in metrics['test']['info']['graph']
    assert metrics['steps'] == 1 and metrics['seconds'] > 0
    for name in ('mrr', 'hits@1', 'hits@3', 'hits@10', HITS):
        assert 0 <= metrics['test'][name] <= 1
    assert read_result('nbfnet/umls-bce-seed0', tmp_path)['metrics']['test']['info']['filtered by'] == 'all'
    table = render(TABLES['nbfnet'], tmp_path).splitlines()
    assert table[0] == '| NBFNet | MRR | Hits@1 | Hits@3 | Hits@10 | Hits@10 (50 negatives) | published | target |'
    assert [line.split(' | ')[0] for line in table[2:6]] == ['| umls, BCE', '| umls, EMU', '| wn18rr-v1, BCE',
                                                             '| wn18rr-v1, EMU']
    assert ' ± ' in table[5] and '| 0.948 | 0.930 |' in table[5] and '| - | - |' in table[2]


def test_budget_is_spent_and_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = nbfnet_fb15k237.parse(['--smoke', '--out', str(tmp_path), '--budget', '1s'])
    nbfnet_fb15k237.main(['--smoke', '--out', str(tmp_path), '--budget', '1s', '--method', 'emu', 'bce'])
    first = read_result('nbfnet_fb15k237/emu-seed0', tmp_path)['metrics']
    assert first['steps'] >= 1 and first['seconds'] / first['steps'] == pytest.approx(first['seconds_per_step'])
    assert first['epochs'] == pytest.approx(first['steps'] * 8 / 90)
    assert first['threads']['numba'] >= 1 and 'share' not in first
    assert '5 test facts' in first['label'] and first['test']['info']['triples'] == 5
    steps, spent = nbfnet_fb15k237.progress(tmp_path / 'runs' / 'emu-seed0')
    assert (steps, spent) == (first['steps'], first['seconds'])
    assert nbfnet_fb15k237.share_of_epoch(45, generate(30, 3, 90, 8), arguments) == 4.0

    capsys.readouterr()
    nbfnet_fb15k237.main(['--smoke', '--out', str(tmp_path), '--budget', '1s'])
    assert 'recorded' in capsys.readouterr().out
    nbfnet_fb15k237.main(['--smoke', '--out', str(tmp_path), '--budget', f'{2 * spent + 1:.1f}s'])
    second = read_result('nbfnet_fb15k237/emu-seed0', tmp_path)['metrics']
    assert second['steps'] > first['steps'] and second['seconds'] > first['seconds']


@pytest.mark.parametrize('module', [nbfnet, nbfnet_fb15k237])
def test_smoke_overwrites_no_results(module: object) -> None:
    with pytest.raises(SystemExit):
        module.parse(['--smoke'])  # type: ignore[attr-defined]
