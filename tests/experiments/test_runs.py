r"""Recipes run end to end, on a small generated graph in a folder of text files."""
from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from pyg_emu import KGData, RelationCandidates, load_dataset
from pyg_emu.core.errors import (
    ArgumentError,
    BackendError,
    CheckpointError,
    DataError,
    DivergenceError,
    RecipeError,
    RecipeWarning,
)
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.names import class_names
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import open_run, run_recipe
from pyg_emu.experiments.sections import reads_graph
from pyg_emu.training.checkpoint import load_checkpoint

SMALL = {'model': {'hidden_channels': 4}, 'negatives': {'num_negatives': 3}, 'batch_size': 40, 'num_steps': 6,
         'evaluate_every': 3}


@pytest.fixture
def folder(graph_folder: Path) -> Path:
    return graph_folder


def recipe(folder: Path, *assignments: str) -> Recipe:
    return load_recipe({'dataset': str(folder), **SMALL}, [assignment_layer(assignments)])


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


def test_settings_without_an_effect_are_told(folder: Path) -> None:
    with pytest.warns(RecipeWarning, match='negatives.mutation_rate.*cross_entropy'):
        run_recipe(recipe(folder, 'loss.name=cross_entropy', 'negatives.mutation_rate=0.6', 'num_steps=1'),
                   progress=False, test=False)


def test_run_and_open(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    result = run_recipe(recipe(folder), run, progress=False)
    assert result.train.steps == 6 and result.test is not None
    assert '6 steps' in result._repr_html_() and result.test._repr_html_() in result._repr_html_()
    metrics = json.loads((run / 'metrics.json').read_text())
    assert metrics['test']['mrr'] == result.test['mrr'] and metrics['valid'] == result.train.metrics
    assert load_recipe(run / 'recipe.yaml') == recipe(folder)
    model, data, found = open_run(run)
    assert found == recipe(folder) and not model.training
    # The best weights, ranked alike.
    assert evaluate(model, data, split='test')['mrr'] == result.test['mrr']
    assert evaluate(model, data, split='valid')['mrr'] == result.train.best_metric
    last, _, _ = open_run(run, which='last')
    assert torch.equal(last.node_emb.weight, load_checkpoint(run / 'last.pt')['model']['node_emb.weight'])


def test_graph_is_asked_for_by_the_recipe(folder: Path) -> None:
    with pytest.raises(BackendError, match='GraphedStep: .* CUDA .* cpu'):
        run_recipe(recipe(folder, 'graph=true'), device='cpu', progress=False)


def test_same_seed_same_result(folder: Path, tmp_path: Path) -> None:
    first = run_recipe(recipe(folder), tmp_path / 'a', progress=False)
    second = run_recipe(recipe(folder), progress=False)
    other = run_recipe(recipe(folder, 'seed=1'), progress=False)
    assert torch.equal(first.model.node_emb.weight, second.model.node_emb.weight)
    assert not torch.equal(first.model.node_emb.weight, other.model.node_emb.weight)


@pytest.mark.parametrize('assignments', [
    *[(f'model={name}', ) for name in class_names('model') if not reads_graph('model', name)],
    *[(f'loss={name}', ) for name in class_names('loss') if not reads_graph('loss', name)],
    *[('model={name: NBFNet, num_layers: 2}', f'loss={name}')
      for name in class_names('loss') if reads_graph('loss', name)],
    ('model={name: NBFNet, num_layers: 2}', 'negatives.mutation=mixup', 'negatives.sampler=sans', 'corrupt=alternate'),
    ('model={name: NBFNet, num_layers: 1, concat_hidden: true}', 'negatives.mutation={name: learned, width: 4}'),
    ('model={name: NBFNet, message: rotate, aggregate: sum, dependent: false, remove_one_hop: false}', ),
    *[(f'schedule={name}', ) for name in class_names('schedule')],
    ('optimizer=adam', ), ('optimizer={name: sgd, lr: 0.1}', ), ('model.sparse=true', ),
    ('model.sparse=true', 'optimizer=sparse_adam', 'schedule=switch'),
    ('loss.regularizer={weight: 1e-3}', ), ('negatives.sampler.filtered=true', ), ('negatives.mask=exact', ),
    ('negatives.mutation=mixup', ), ('negatives.mutation_rate={start: 0, end: 1, steps: 4}', ),
    ('negatives.mutation={name: learned, width: 4}', ), ('corrupt=both', ), ('validation.max_triples=5', ),
    ('evaluation={tie: pessimistic, ks: [1, 5]}', ), ('max_grad_norm=0.1', 'patience=1'),
], ids=' '.join)
@pytest.mark.filterwarnings('ignore:Sparse invariant checks')
def test_every_choice_trains(folder: Path, tmp_path: Path, assignments: tuple[str, ...]) -> None:
    whole = run_recipe(recipe(folder, *assignments), tmp_path / 'run', progress=False)
    assert whole.train.steps == 6 and 0.0 < whole.test['mrr'] <= 1.0
    assert whole.train.history['loss'].notna().all()
    # What was written is enough to go on from, and leads to the same weights.
    again = load_recipe(tmp_path / 'run' / 'recipe.yaml')
    assert again.hash() == recipe(folder, *assignments).hash()
    resumed = run_recipe(again, tmp_path / 'run', progress=False)
    assert same_weights(resumed.model, whole.model)


def test_metric_decides_which_step_is_best(folder: Path, tmp_path: Path) -> None:
    result = run_recipe(recipe(folder, 'metric=macro.mrr', 'patience=2'), tmp_path / 'run', progress=False).train
    model, data, _ = open_run(tmp_path / 'run')
    assert evaluate(model, data, 'valid', by='relation')['macro.mrr'] == result.best_metric
    assert result.metrics['macro.mrr'] == result.best_metric == result.history['valid_macro.mrr'].max()


def test_candidates_of_relations_are_recorded(folder: Path, tmp_path: Path) -> None:
    seen = '{seen: train}'
    made = recipe(folder, f'evaluation.candidates={seen}', f'validation.candidates={seen}',
                  f'negatives.sampler={{name: candidate, candidates: {seen}}}')
    result = run_recipe(made, tmp_path / 'run', progress=False)
    model, data, found = open_run(tmp_path / 'run')
    assert found == made and found.evaluation['candidates'] == {'seen': 'train'}
    expected = evaluate(model, data, candidates=RelationCandidates.seen(data))
    assert result.test is not None and result.test['mrr'] == expected['mrr'] != evaluate(model, data)['mrr']
    assert result.test.info['candidates'] == 'by relation'
    with pytest.raises(RecipeError, match='evaluation.candidates.*1.5'):
        recipe(folder, 'evaluation.candidates=1.5')


@pytest.mark.parametrize('setting, told', [
    ('candidates=[e99]', "'e99'"), ('candidates={tails: {r9: [e1]}}', "'r9'"),
    ('known_facts=missing.tsv', 'missing.tsv'),
])
def test_bad_settings_of_the_last_ranking_are_found_before_training(folder: Path, tmp_path: Path, setting: str,
                                                                    told: str) -> None:
    with pytest.raises(DataError, match=told):
        run_recipe(recipe(folder, f'evaluation.{setting}'), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run' / 'history.csv').exists()
    # Of recipes that were not read, load_recipe() has checked nothing.
    with pytest.raises(ArgumentError, match='max_triples'):
        run_recipe(replace(recipe(folder), evaluation={'max_triples': -1}), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run' / 'history.csv').exists()


def test_learned_masks_are_learned_and_saved(folder: Path, tmp_path: Path) -> None:
    learned = 'negatives.mutation={name: learned, width: 4}'
    run_recipe(recipe(folder, learned), tmp_path / 'run', progress=False)
    logits = load_checkpoint(tmp_path / 'run' / 'last.pt')['parts']['transform.mutation']['logits']
    assert logits.unique().numel() > 1


def test_mutation_of_the_loss_is_learned_and_saved(folder: Path, tmp_path: Path) -> None:
    settings = ('loss=one_vs_all_emu', 'loss.mutation={name: learned, width: 4}')
    whole = run_recipe(recipe(folder, *settings), tmp_path / 'whole', progress=False)
    state = load_checkpoint(tmp_path / 'whole' / 'last.pt')['parts']['criterion']
    assert any(value.unique().numel() > 1 for value in state.values())
    run_recipe(recipe(folder, *settings, 'num_steps=3'), tmp_path / 'cut', progress=False)
    assert same_weights(run_recipe(recipe(folder, *settings), tmp_path / 'cut', progress=False).model, whole.model)
    again = load_checkpoint(tmp_path / 'cut' / 'last.pt')['parts']['criterion']
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_run_from_the_weights_of_another(folder: Path, tmp_path: Path) -> None:
    first = run_recipe(recipe(folder), tmp_path / 'first', progress=False)
    lower = recipe(folder, 'optimizer={name: sgd, lr: 1e-30}')  # Too small for any weight to change.
    start = {'weights': tmp_path / 'first' / 'best.pt', 'progress': False}
    second = run_recipe(lower, tmp_path / 'second', **start)
    assert second.train.steps == 6 and same_weights(second.model, first.model)
    assert not same_weights(run_recipe(lower, progress=False).model, first.model)
    # What is resumed has weights of its own, and has to have started from the same.
    longer = recipe(folder, 'optimizer={name: sgd, lr: 1e-30}', 'num_steps=7')
    third = run_recipe(longer, tmp_path / 'second', **start)
    assert same_weights(third.model, first.model)
    with pytest.raises(RecipeError, match='last.pt.*best.pt'):
        run_recipe(longer, tmp_path / 'second', weights=tmp_path / 'first' / 'last.pt', progress=False)
    with pytest.raises(CheckpointError, match='hidden_channels|shape|DistMult|node_emb'):
        run_recipe(recipe(folder, 'model.hidden_channels=3'), **start)


def test_longer_run_continues_a_shorter_one(folder: Path, tmp_path: Path) -> None:
    run_recipe(recipe(folder), tmp_path / 'run', progress=False)
    longer = run_recipe(recipe(folder, 'num_steps=12'), tmp_path / 'run', progress=False)
    whole = run_recipe(recipe(folder, 'num_steps=12'), progress=False)
    assert torch.equal(longer.model.node_emb.weight, whole.model.node_emb.weight)
    columns = ['step', 'loss', 'valid_mrr']
    pd.testing.assert_frame_equal(longer.train.history[columns], whole.train.history[columns], check_exact=True)


@pytest.mark.parametrize('loss', ['nbfnet_emu', 'nbfnet_bce'])
def test_nbfnet_goes_on_where_it_was_cut(folder: Path, tmp_path: Path, loss: str) -> None:
    settings = ('model={name: NBFNet, num_layers: 2}', f'loss={loss}', 'optimizer={name: adam, lr: 0.005}')
    cut = run_recipe(recipe(folder, *settings, 'num_steps=4', 'checkpoint_every=2'), tmp_path / 'run', progress=False)
    on = run_recipe(recipe(folder, *settings, 'num_steps=9', 'checkpoint_every=2'), tmp_path / 'run', progress=False)
    whole = run_recipe(recipe(folder, *settings, 'num_steps=9'), tmp_path / 'whole', progress=False)
    last = [load_checkpoint(tmp_path / name / 'last.pt')['model'] for name in ('run', 'whole')]
    assert cut.train.steps == 4 and last[0].keys() == last[1].keys()
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())
    assert on.test is not None and whole.test is not None
    # The cut run was evaluated after its fourth step, too, and may have kept that step as its best one.
    if on.train.best_step == whole.train.best_step:
        assert on.test['mrr'] == whole.test['mrr'] and same_weights(on.model, whole.model)


def test_run_with_other_settings_is_refused(folder: Path, tmp_path: Path) -> None:
    run_recipe(recipe(folder), tmp_path / 'run', progress=False)
    before = (tmp_path / 'run' / 'recipe.yaml').read_text()
    changed = r'other settings \(loss\.alpha: 0\.9, not 0\.11; seed: 1, not 0\).*resume=False'
    with pytest.raises(RecipeError, match=changed):
        run_recipe(recipe(folder, 'loss.alpha=0.9', 'seed=1'), tmp_path / 'run', progress=False)
    assert (tmp_path / 'run' / 'recipe.yaml').read_text() == before
    result = run_recipe(recipe(folder, 'seed=1'), tmp_path / 'run', resume=False, progress=False)
    assert open_run(tmp_path / 'run')[2].seed == 1 and result.train.steps == 6


@pytest.mark.parametrize('label', ['entity', 'relation'])
def test_run_is_not_continued_on_other_ids(folder: Path, tmp_path: Path, label: str) -> None:
    data = load_dataset(folder)
    run_recipe(recipe(folder), tmp_path / 'run', data=data, progress=False)
    before = (tmp_path / 'run' / 'trained_on.json').read_text()
    other = copy.copy(data)
    setattr(other, f'{label}_labels', getattr(data, f'{label}_labels')[::-1])
    told = {'entity': 'its 12 entities are not those of the run', 'relation': "its relation 0 is 'r2', but the model"}
    with pytest.raises(ArgumentError, match=rf'run contains a run on other data \({told[label]}.*\); choose another '
                                            'run folder, or start over with resume=False'):
        run_recipe(recipe(folder, 'num_steps=12'), tmp_path / 'run', data=other, progress=False)
    assert (tmp_path / 'run' / 'trained_on.json').read_text() == before
    assert run_recipe(recipe(folder), tmp_path / 'run', data=other, resume=False, progress=False).train.steps == 6


def test_data_without_validation_or_test() -> None:
    data = KGData(torch.randint(9, (2, 50)), torch.randint(2, (50, )), num_nodes=9, num_relations=2)
    settings = {'dataset': 'given', **SMALL}
    result = run_recipe(load_recipe(settings), data=data, progress=False)
    assert result.test is None and result.train.best_step is None
    for key, value in (('patience', 2), ('metric', 'hits@10')):
        with pytest.raises(RecipeError, match=f'^{key}: .*{key}={value}'):
            run_recipe(load_recipe({**settings, key: value}), data=data, progress=False)


def test_divergence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r'NaN .*last\.pt.*rate'):
        run_recipe(recipe(folder, 'optimizer={name: sgd, lr: 1e30}', 'num_steps=50'), tmp_path / 'run', progress=False)
    assert load_checkpoint(tmp_path / 'run' / 'last.pt')['step'] == 0


def test_bad_settings_are_found_before_the_data_is_read() -> None:
    for assignment, message in (('negatives.mutation_rate=2', 'negatives: '), ('loss.beta=-1', 'loss: beta')):
        with pytest.raises(RecipeError, match=message):
            run_recipe(load_recipe({'dataset': 'no such data'}, [assignment_layer([assignment])]))
    with pytest.raises(RecipeError, match='loss.name: emu .*NBFNet'):
        run_recipe(load_recipe({'dataset': 'no such data', 'model': 'NBFNet', 'loss': 'emu'}))


def test_open_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='missing; .*last.pt'):
        open_run(tmp_path / 'missing')
    with pytest.raises(ArgumentError, match="^which: .*'best'.*'last'.* 'first'$"):
        open_run(tmp_path, which='first')  # type: ignore[arg-type]


def test_open_what_an_earlier_version_trained(folder: Path, tmp_path: Path) -> None:
    trained = run_recipe(recipe(folder), tmp_path, progress=False)
    written = yaml.safe_load((tmp_path / 'recipe.yaml').read_text())
    written |= {'schedule': {'name': 'switch'}, 'optimizer': {'name': 'adagrad', 'eps': 1e-6}}
    written['evaluation'] = {'ks': [0]}
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(written))
    with pytest.raises(RecipeError, match='eps'):
        load_recipe(tmp_path / 'recipe.yaml')
    model, _, found = open_run(tmp_path)
    assert found.optimizer['eps'] == 1e-6 and same_weights(model, trained.model)


def test_open_with_data_of_another_size(folder: Path, tmp_path: Path) -> None:
    run_recipe(recipe(folder), tmp_path / 'run', progress=False)
    data: Any = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), num_nodes=2, num_relations=1)
    with pytest.raises(CheckpointError, match=r"best\.pt: .*\(2, 4\).*'node_emb\.weight'.* \(12, 4\)"):
        open_run(tmp_path / 'run', data=data)
    (tmp_path / 'run' / 'best.pt').write_bytes(b'PK\x03\x04')
    with pytest.raises(CheckpointError, match=r'best\.pt .*damaged'):
        open_run(tmp_path / 'run')


def test_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="device: 'no-such' "):
        run_recipe(recipe(folder), device='no-such')


@pytest.mark.parametrize(('key', 'value'), [
    ('facts', []), ('facts', {'train': {'number': 3}}), ('facts', {'valid': None}), ('relations', 'r'),
    ('relations', ['r', 'r']), ('relations', [1]), ('entities', 5), ('more', 1)])
def test_malformed_description_of_the_data_is_refused(folder: Path, tmp_path: Path, key: str, value: Any) -> None:
    run = tmp_path / 'run'
    run_recipe(recipe(folder), run, progress=False, test=False)
    path = run / 'trained_on.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    for use in (lambda: open_run(run), lambda: run_recipe(recipe(folder, 'num_steps=7'), run, progress=False)):
        with pytest.raises(CheckpointError, match=rf'trained_on\.json.*{key}'):
            use()
