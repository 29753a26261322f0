from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Optional

import pandas as pd
import pytest

from benchmarks import accuracy
from benchmarks._record import read_result, write_result
from benchmarks.accuracy import label
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe


@pytest.mark.parametrize('settings, wanted', [
    ([], 'DistMult, EMU, rate 0.61, one mask per triple, 12,000 steps'),
    (['negatives.shared=false', 'num_steps=5'], 'DistMult, EMU, rate 0.61, one mask per negative, 5 steps'),
    (['negatives.mask=block', 'schedule=cosine'],
     'DistMult, EMU, rate 0.61, one block mask per triple, cosine schedule, 12,000 steps'),
    (['negatives.mutation_rate={start: 0.6, end: 0.1, steps: 9}'],
     'DistMult, EMU, rate 0.6 to 0.1, one mask per triple, 12,000 steps'),
    (['negatives.mutation_rate=0.0', 'loss.regularizer={name: n3, weight: 1e-3}'],
     'DistMult, unbounded label smoothing alone + N3 0.001, 12,000 steps'),
    (['loss={name: cross_entropy, label_smoothing: 0.1, regularizer: {name: l3, weight: 0.5}}', 'optimizer.lr=0.2'],
     'DistMult, uniform + label smoothing 0.1 + L3 0.5, 12,000 steps'),
    (['loss={name: cross_entropy, confidence_penalty: 0.3}'],
     'DistMult, uniform + confidence penalty 0.3, 12,000 steps'),
    (['optimizer={name: adam, lr: 0.001}'],
     'DistMult, EMU, rate 0.61, one mask per triple, Adam at 0.001, 12,000 steps'),
    (['loss.name=one_vs_all_emu'], 'DistMult, EMU, rate 0.61, one mask per triple, against all entities, 12,000 steps'),
    (['loss={name: self_adversarial, temperature: 0.5, regularizer: {name: l3, weight: 0.1}}'],
     'DistMult, uniform + self-adversarial at 0.5 + L3 0.1, 12,000 steps'),
    (['loss={name: bce}', 'batch_size=500'], 'DistMult, uniform + BCE, batches of 500 with 256, 12,000 steps'),
    (['loss={name: demix, temperature: 1.0}', 'negatives.mutation={name: demix}'],
     'DistMult, DeMix + self-adversarial at 1, 12,000 steps'),
    (['negatives.mutation={name: demix}'], 'DistMult, EMU with DeMix, 12,000 steps'),
    (['negatives.mutation={name: learned, width: 100}'], 'DistMult, EMU, learned masks, 12,000 steps'),
    (['negatives.mutation={name: block, rate: 0.25, shared: false}'],
     'DistMult, EMU, rate 0.25, one block mask per negative, 12,000 steps'),
    (['batch_size=8192', 'negatives.sampler=shared_negatives', 'negatives.num_negatives=2048'],
     'DistMult, EMU, rate 0.61, one mask per triple, on shared negatives, batches of 8,192 with 2,048, 12,000 steps'),
])
def test_labels_tell_recipes_apart(settings: list[str], wanted: str) -> None:
    assert label(load_recipe('distmult-fb15k237-emu', [assignment_layer(settings)])) == wanted


@pytest.mark.parametrize('name, wanted', [
    ('nbfnet-fb237-v1', 'NBFNet, EMU'), ('nbfnet-fb237-v1-bce', 'NBFNet, uniform + BCE')])
def test_losses_of_nbfnet_are_told_apart(name: str, wanted: str) -> None:
    assert label(load_recipe(name)).startswith(wanted)


def test_classes_of_a_user_have_captions() -> None:
    recipe = load_recipe('distmult-fb15k237-emu')
    assert label(replace(recipe, loss={'name': 'mine.Loss'})) == 'DistMult, uniform + mine.Loss, 12,000 steps'
    mutated = replace(recipe, negatives={**recipe.negatives, 'mutation': {'name': 'mine.Mask'}})
    assert label(mutated) == 'DistMult, EMU, mine.Mask, 12,000 steps'


def test_label_of_the_baseline() -> None:
    assert label(load_recipe('distmult-fb15k237-uniform')) == 'DistMult, uniform + L3 1e-05, 12,000 steps'


@pytest.mark.parametrize('settings, uniform, emu', [
    ('sampler.name=sans', 'SANS by walks of 3 steps + L3 1e-05',
     'EMU, rate 0.61, one mask per triple, on SANS by walks of 3 steps'),
    ('sampler={name: sans, mode: khop, num_hops: 2}', 'SANS of 2 hops + L3 1e-05',
     'EMU, rate 0.61, one mask per triple, on SANS of 2 hops'),
    ('sampler.name=nscaching', 'NSCaching + L3 1e-05', 'EMU, rate 0.61, one mask per triple, on NSCaching'),
    ('mutation={name: mixup}', None, 'Mixup'),
])
def test_label_names_where_negatives_come_from(settings: str, uniform: Optional[str], emu: str) -> None:
    # The loss of the baseline mutates nothing.
    for name, wanted in (('uniform', uniform), ('emu', emu)) if uniform else (('emu', emu), ):
        recipe = load_recipe(f'distmult-fb15k237-{name}', [assignment_layer([f'negatives.{settings}'])])
        assert label(recipe) == f'DistMult, {wanted}, 12,000 steps'


def test_curve_holds_what_improved_and_the_end() -> None:
    history = pd.DataFrame({'step': range(1, 7), 'seconds': range(6), 'valid_mrr': [0.3, 0.2, 0.3, 0.4, 0.1, 0.4]})
    assert [point['step'] for point in accuracy.improvements(history)] == [1, 4, 6]


def test_a_name_stands_for_one_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = load_recipe('distmult-umls-emu')
    write_result('a/b-seed0', {'label': 'EMU', 'recipe': recipe.to_dict(), 'recipe_hash': recipe.hash()},
                 folder=tmp_path)
    monkeypatch.setattr(accuracy, 'RESULTS', tmp_path)
    monkeypatch.setattr(accuracy, 'read_result', partial(read_result, folder=tmp_path))
    accuracy.run('distmult-umls-emu', assignment_layer([]), 'a', 'b', False)
    for setting in ('num_steps=7', 'loss.alpha=0.7'):
        with pytest.raises(RecipeError, match='a/b-seed0 was recorded with another recipe'):
            accuracy.run('distmult-umls-emu', assignment_layer([setting]), 'a', 'b', False)


def test_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="'loss.alpha'"):
        accuracy.main(['distmult-umls-emu', '--set', 'loss.alph=1'])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt('stopped.')

    monkeypatch.setattr(accuracy, 'run', interrupted)
    with pytest.raises(SystemExit, match='distmult-umls-emu, seed 3: .*stopped'):
        accuracy.main(['distmult-umls-emu', '--seeds', '3'])
