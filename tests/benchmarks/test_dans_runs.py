r"""Rows of the DANS paper: their values and recipes, the pre-trainings that they share, and tests of significance."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import _significance, dans_figures, dans_paper, dans_runs, reproduce
from benchmarks._record import read_result, read_results
from benchmarks._reproduction import entries
from benchmarks._significance import Sample, anova, blocked, dans_significance, holm, paired, welch
from benchmarks.papers import PAPERS, paper_of
from pyg_emu import load_dataset
from pyg_emu.experiments.layers import dump
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.training.run_folder import RunFolder


def test_tables_have_the_values_of_the_paper() -> None:
    rows = {(row.source, row.dataset, row.model, row.method): row.metrics for row in dans_paper.rows()}
    assert rows['DANS Table 2', 'UMLS', 'DistMult', 'DANS']['mrr'] == (0.724, 0.008)
    assert rows['DANS Table 2', 'WN18RR', 'RotatE', 'Self-adv']['hits@1'] == (0.058, 0.010)
    assert rows['DANS Table 2', 'NELL-995', 'ComplEx', 'MCNS']['ndcg@5'] == (0.264, 0.009)
    assert rows['DANS Table 3', 'UMLS', 'DistMult', 'KBGAN']['ndcg@5'] == (0.654, 0.004)
    assert rows['DANS Table 2', 'FB15k-237', 'ComplEx', 'DANS']['mrr'].mean is None
    # Table 3 repeats the row of Table 2.
    assert rows['DANS Table 3', 'WN18RR', 'DistMult', 'DANS'] == rows['DANS Table 2', 'WN18RR', 'DistMult', 'DANS']


@pytest.mark.parametrize('source', ['DANS Table 2', 'DANS Table 3', 'DANS Figure 2'])
def test_every_row_has_a_recipe(source: str) -> None:
    found = entries(source, 'dans')
    without = {entry.row.method for entry in found if entry.path is None}
    assert without == ({'CAKE', 'SMiLE'} if source == 'DANS Table 3' else set())
    for entry in found:
        assert entry.path is None or entry.path.is_file()
        plain = entry.row.method in ('SANS-RW', 'NSCaching', 'KBGAN')
        assert (entry.pretraining is None) == (plain or entry.path is None)
        assert entry.pretraining is None or entry.pretraining.is_file()


@pytest.mark.parametrize('path', sorted(dans_runs.RECIPES.glob('dans/UMLS/*.yaml')), ids=lambda path: path.stem)
def test_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    plain = recipe.model['name'] == 'DistMult'
    assert recipe.dataset == 'UMLS' and recipe.evaluation == {'ks': [1, 3, 5]} and recipe.loss['name'] == 'demix'
    assert recipe.num_steps == (20_000 if plain else 15_000 if 'pretraining' in path.stem else 5_000)
    assert recipe.optimizer['lr'] == (0.01 if 'pretraining' in path.stem else 0.001)


def test_rows_of_a_decoder_share_a_pretraining() -> None:
    found = [entry for entry in entries('DANS Table 2', 'dans') if entry.row.dataset == 'UMLS']
    assert len({entry.pretraining for entry in found}) == 3 and len({entry.path for entry in found}) == 15
    points = {entry.row.method: entry.path for entry in entries('DANS Figure 2', 'dans')
              if entry.row.dataset == 'UMLS'}
    assert points['Ns=20'] == points['lambda=1e-4'] == points['DANS'] != points['Ns=12']


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    r"""Puts DistMult on forty entities in place of the recipes and of UMLS."""
    random = np.random.default_rng(0)
    folder = tmp_path / 'data'
    folder.mkdir()
    facts = np.unique(random.integers(0, (40, 3, 40), (400, 3)), axis=0)
    random.shuffle(facts)
    for name, part in (('train', facts[:300]), ('valid', facts[300:320]), ('test', facts[320:340])):
        (folder / f'{name}.txt').write_text(''.join(f'e{h}\tr{r}\te{t}\n' for h, r, t in part))
    monkeypatch.setattr(reproduce, '_load', lambda name, bar: load_dataset(str(folder)))
    ks = {'ks': [1, 3, 5]}
    base = {'dataset': str(folder), 'model': {'name': 'DistMult', 'hidden_channels': 4}, 'batch_size': 50,
            'num_steps': 6, 'negatives': {'num_negatives': 3, 'mutation_rate': 0.0},
            'loss': {'name': 'demix', 'temperature': None},
            'evaluate_every': 2, 'evaluation': ks, 'validation': ks}
    # With a rate this small, no weight changes: what a run ends with is what it started from.
    slow = {'num_steps': 2, 'optimizer': {'name': 'sgd', 'lr': 1e-30}}
    for name, settings in (('distmult-pretraining', base), ('distmult-rand', {**base, **slow}),
                           ('distmult-dans', {**base, **slow, 'corrupt': 'both'})):
        (tmp_path / f'{name}.yaml').write_text(dump(settings))
    paper = replace(PAPERS['DANS'], recipe_path=lambda reading, row: tmp_path / f'distmult-{row.method.lower()}.yaml',
                    pretraining=lambda reading, row: tmp_path / 'distmult-pretraining.yaml')
    monkeypatch.setitem(PAPERS, 'DANS', paper)
    monkeypatch.setattr(reproduce, 'write_table', lambda *arguments: [])
    monkeypatch.setattr(reproduce, 'show', lambda *arguments: None)
    return tmp_path


def call(folder: Path, *arguments: str) -> int:
    return reproduce.main(['--paper', 'DANS', '--table', '2', '--dataset', 'UMLS', '--model', 'DistMult', *arguments,
                           '--out', str(folder / 'results'), '--runs', str(folder / 'runs')])


def test_runs_start_from_the_pretraining_of_their_seed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr('benchmarks.accuracy.run_recipe', lambda recipe, folder, **options: (
        ran.append((Path(folder).name, recipe.num_steps)) or run_recipe(recipe, folder, progress=False, **options)))
    assert call(small, '--method', 'Rand', 'DANS', '--seeds', '2') == 0
    # One pre-training for each seed, before the first method that starts from it.
    assert ran == [(f'distmult-{name}-seed{seed}', steps) for seed in (0, 1) for name, steps in
                   (('pretraining', 6), ('rand', 2), ('dans', 2))]
    results = {Path(result['name']).name: result['metrics'] for result in read_results('dans/**/*', small / 'results')}
    for seed in (0, 1):
        best = RunFolder(small / 'runs' / 'dans' / 'UMLS' / f'distmult-pretraining-seed{seed}').best
        first = results[f'distmult-pretraining-seed{seed}']
        for method in ('rand', 'dans'):
            metrics = results[f'distmult-{method}-seed{seed}']
            assert metrics['pretraining'] == {'run': f'distmult-pretraining-seed{seed}', 'step': first['best_step'],
                                              'sha256': hashlib.sha256(best.read_bytes()).hexdigest()}
            assert metrics['test'] == first['test'] and 'ndcg@5' in metrics['test']
    assert results['distmult-rand-seed0']['test'] != results['distmult-rand-seed1']['test']
    # Nothing is left to do; a shorter run has a pre-training that is shorter in proportion.
    ran.clear()
    assert call(small, '--method', 'Rand', '--seeds', '2') == 0 and ran == []
    assert call(small, '--method', 'Rand', '--steps', '1') == 0
    assert ran == [('distmult-pretraining-steps3-seed0', 3), ('distmult-rand-steps1-seed0', 1)]
    # With a pre-training of other settings, it and what started from it are run again.
    path = small / 'distmult-pretraining.yaml'
    path.write_text(path.read_text().replace('batch_size: 50', 'batch_size: 60'))
    reproduce.recipe_of.cache_clear()
    (small / 'results' / 'dans' / 'UMLS' / 'distmult-rand-seed0.json').unlink()
    ran.clear()
    assert call(small, '--method', 'Rand') == 0
    assert [name for name, _ in ran] == ['distmult-pretraining-seed0', 'distmult-rand-seed0']
    again = {name: read_result(f'dans/UMLS/distmult-{name}-seed0', small / 'results')['metrics']
             for name in ('pretraining', 'rand')}
    assert again['rand']['test'] == again['pretraining']['test'] != results['distmult-rand-seed0']['test']
    reproduce.recipe_of.cache_clear()


def test_tests_agree_with_scipy_on_raw_values() -> None:
    groups = np.random.default_rng(0).normal([0.0, 0.5, 1.0], 1.0, (6, 3)).T
    samples = [Sample(group.mean(), group.std(ddof=1), 6) for group in groups]
    assert anova(samples) == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert welch(samples[0], samples[1]) == pytest.approx(stats.ttest_ind(*groups[:2], equal_var=False).pvalue)
    assert paired(groups[0], groups[1]) == pytest.approx(stats.ttest_rel(*groups[:2]).pvalue)
    # By hand: 3 x 0.01 and 2 x 0.02 are 0.03 and 0.04; the last one is not below the one before.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert paired([0.5, 0.6], [0.4, 0.5]) >= 0.0 and paired([0.5, 0.5], [0.5, 0.5]) == 1.0
    # Of two methods, the analysis with blocks is the paired test. What a seed adds to all methods does not count.
    assert blocked(groups[:2]) == pytest.approx(stats.ttest_rel(*groups[:2]).pvalue)
    assert blocked(groups + np.arange(6)) == pytest.approx(blocked(groups)) and blocked(groups) < 1.0
    assert blocked([[0.5, 0.6], [0.5, 0.6]]) == 1.0
    with pytest.raises(ValueError, match=r'\[6, 5\]'):
        anova([samples[0], samples[1]._replace(seeds=5)])


def test_significance_is_over_the_seeds_that_all_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {'Rand': (0.70, 0.71, 0.69), 'Pop': (0.60, 0.62, 0.61), 'Self-adv': (0.72, 0.70, 0.71),
              'MCNS': (0.70, 0.70, 0.70), 'DANS': (0.72, 0.73, 0.72, 0.10)}

    def results(entry: Any, folder: Path) -> list[dict[str, Any]]:
        own = values[entry.row.method] if entry.row.model == 'DistMult' else ()
        return [{'seed': seed, 'metrics': {'test': {'mrr': mrr}}} for seed, mrr in enumerate(own)]

    monkeypatch.setattr(_significance, 'recorded', results)
    text, used = dans_significance(tmp_path)
    line = next(line for line in text.splitlines() if '| Pop |' in line)
    cells = [cell.strip() for cell in line.split('|')[1:-1]]
    p = holm([stats.ttest_rel(values['DANS'][:3], values[name]).pvalue for name in list(values)[:-1]])[1]
    assert cells == ['DistMult', 'Pop', '+0.044', '< 0.001', '+0.113', f'{p:.3f}', '3'] and len(used) == 16
    assert text.count('not run') == 8 and text.count('here p') == 1


def test_figure_2_from_recorded_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match='--figure 2'):
        dans_figures.main(['lines', '--out', str(tmp_path)])
    monkeypatch.setattr(dans_figures, 'recorded', lambda entry, folder: [
        {'metrics': {'test': {'mrr': 0.7}}}] if entry.row.dataset == 'UMLS' else [])
    dans_figures.main(['lines', '--out', str(tmp_path)])
    found = read_result('dans/figure-2', tmp_path)['metrics']['mrr']
    assert list(found) == ['UMLS'] and len(found['UMLS']) == len(dans_paper.ABLATION) + 10
    assert (tmp_path / 'dans' / 'figure-2.png').stat().st_size > 0


def test_figure_3_of_a_run(tmp_path: Path, small: Path) -> None:
    # Without noise, a pathway makes the same vector of a triple three times. The groups differ if they are of two.
    sampler = {'name': 'dans', 'from_entity': 3, 'from_relation': 1, 'noise': 0.0}
    settings = {'dataset': str(small / 'data'), 'model': {'name': 'DistMult', 'hidden_channels': 4}, 'num_steps': 2,
                'batch_size': 50, 'negatives': {'num_negatives': 8, 'mutation_rate': 0.0, 'sampler': sampler},
                'loss': {'name': 'demix', 'temperature': None}, 'evaluate_every': 2}
    run_recipe(load_recipe(settings), tmp_path / 'run', progress=False)
    groups, label, _ = dans_figures.vectors_of(tmp_path / 'run', 'r1')
    assert label == 'r1' and list(groups) == ['true tails', 'uniform', 'entity pathway', 'relation pathway']
    assert all(value.size(1) == 4 and value.isfinite().all() for value in groups.values())
    assert not torch.equal(groups['entity pathway'], groups['relation pathway'])
    dans_figures.main(['embeddings', '--run', str(tmp_path / 'run'), '--out', str(tmp_path)])
    assert (tmp_path / 'dans' / 'embeddings-run.png').stat().st_size > 0


def test_command_line_names_the_tables_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.parse(['--paper', 'DANS', '--table', '3']).source == 'DANS Table 3'
    assert reproduce.parse(['--paper', 'DANS', '--figure', '2']).source == 'DANS Figure 2'
    assert reproduce.parse(['--figure', '2']).source == 'Table 8'
    assert paper_of('DANS Figure 2').group == 'dans'
    with pytest.raises(SystemExit):
        reproduce.parse(['--paper', 'DANS', '--table', '8'])
    assert '2, 3' in capsys.readouterr().err
