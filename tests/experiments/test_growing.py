r"""Runs that continue older ones with more facts, relations and entities."""
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyg_emu import embeddings, evaluate, extend, load_dataset, predict
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataWarning, RecipeError
from pyg_emu.data.io import write_vectors
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import open_run, run_recipe
from pyg_emu.training.checkpoint import load_checkpoint, model_fingerprint, save_checkpoint

SMALL = {'model': {'hidden_channels': 4}, 'negatives': {'num_negatives': 3}, 'batch_size': 40, 'num_steps': 6,
         'evaluate_every': 3}
#: Too small a step for any weight to change.
STILL = 'optimizer={name: adagrad, lr: 1e-30}'
pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


def recipe(folder: Path, *assignments: str) -> Recipe:
    return load_recipe({'dataset': str(folder), **SMALL}, [assignment_layer(assignments)])


@pytest.fixture
def run(graph_folder: Path, tmp_path: Path) -> Path:
    run_recipe(recipe(graph_folder), tmp_path / 'run', progress=False, device='cpu')
    return tmp_path / 'run'


@pytest.fixture
def larger(graph_folder: Path) -> Path:
    r"""The facts without those about e3, and facts of new entities and a new relation, which come first by label."""
    folder = graph_folder.parent / 'larger'
    shutil.copytree(graph_folder, folder)
    for path in folder.iterdir():
        path.write_text(''.join(line for line in path.read_text().splitlines(True) if 'e3\t' not in line.replace(
            '\n', '\t')))
    with open(folder / 'train.txt', 'a') as file:
        file.write('d0\tr0\te1\nd1\ta\td0\ne2\ta\td0\n')
    return folder


def grow(run: Path, data: Any, folder: str = 'new', *assignments: str, **options: Any) -> Any:
    own = {} if not assignments else {'recipe': load_recipe(
        {**load_recipe(run / 'recipe.yaml').to_dict(), 'dataset': str(data)}, [assignment_layer(assignments)])}
    return extend(run, str(data) if isinstance(data, Path) else data, run.parent / folder, progress=False,
                  device='cpu', **own, **options)


def test_old_rows_stay_and_new_ones_are_initialised(run: Path, larger: Path) -> None:
    old, before, _ = open_run(run, device='cpu')
    with pytest.warns(DataWarning, match="1 entities of the old run .*'e3'"):
        result = grow(run, larger, 'new', STILL)
    data, model = result.data, result.model
    assert data.entity_labels == [*before.entity_labels, 'd0', 'd1'] and data.relation_labels[-1] == 'a'
    for kind in ('entity', 'relation'):
        was, now = embeddings(old, before, kind), embeddings(model, data, kind)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(now.loc[was.index], was, check_exact=True)
    bound = model.init_bound
    new = embeddings(model, data).loc[['d0', 'd1']].to_numpy()
    assert (abs(new) <= bound).all() and len(np.unique(new)) == 8
    again = grow(run, larger, 'again', STILL)
    assert torch.equal(again.model.node_emb.weight, model.node_emb.weight)
    origin = json.loads((run.parent / 'new' / 'origin.json').read_text())
    assert origin['extends'] == str(run.resolve()) and origin['weights'] == 'best.pt'
    assert origin['entities'] == {'kept': 12, 'new': 2, 'without facts': 1}
    assert origin['relations'] == {'kept': 3, 'new': 1, 'without facts': 0}


def test_run_is_opened_and_continued(run: Path, larger: Path) -> None:
    result = grow(run, larger)
    folder = run.parent / 'new'
    model, data, found = open_run(folder, device='cpu')
    assert found.dataset == str(larger) and data.entity_labels == result.data.entity_labels
    assert evaluate(model, data)['mrr'] == result.test['mrr']
    assert set(predict(model, data, heads='d0', relations='a', k=14)['tail']) == set(data.entity_labels)
    assert open_run(folder, facts=False, device='cpu')[1].entity_labels == data.entity_labels
    # Steps begin anew, and a longer run continues the shorter one, by either call.
    assert result.train.steps == 6
    whole = grow(run, larger, 'whole', 'num_steps=12')
    longer = grow(run, larger, 'new', 'num_steps=9')
    longest = run_recipe(load_recipe({**found.to_dict(), 'num_steps': 12}), folder, progress=False, device='cpu')
    assert longer.train.steps == 9 and longest.train.steps == 12
    assert torch.equal(longest.model.node_emb.weight, whole.model.node_emb.weight)


def test_optimizer_of_old_rows(run: Path, larger: Path) -> None:
    held = load_checkpoint(run / 'last.pt')['optimizer']['state'][0]
    found = {}
    for state in ('keep', 'new'):
        grow(run, larger, state, STILL, optimizer_state=state)
        found[state] = load_checkpoint(run.parent / state / 'last.pt')['optimizer']['state'][0]
        assert found[state]['sum'].shape == (14, 4)
    # Squares are added to what was there.
    assert (found['keep']['sum'][:12] >= held['sum']).all() and not (found['new']['sum'][:12] >= held['sum']).all()
    assert torch.equal(found['keep']['sum'][12:], found['new']['sum'][12:])
    assert int(found['keep']['step']) == 6 + int(held['step']) and int(found['new']['step']) == 6
    with pytest.raises(CheckpointError, match="RowAdagrad.*(Adam|SGD).*optimizer_state='new'"):
        grow(run, larger, 'other', 'optimizer=adam')
    assert grow(run, larger, 'other', 'optimizer=adam', optimizer_state='new').train.steps == 6


@pytest.mark.parametrize('assignments', [
    ('model.reciprocal=true', 'model=RotatE'), ('model=RGCN', ), ('model.sparse=true', 'optimizer=sparse_adam'),
    ('model={name: NBFNet, num_layers: 2}', 'optimizer=adam'), ('model=HAKE', 'optimizer=adam'),
], ids=' '.join)
def test_models(graph_folder: Path, larger: Path, tmp_path: Path, assignments: tuple[str, ...]) -> None:
    own = ('loss=nbfnet_bce', ) if 'NBF' in assignments[0] else ()
    run_recipe(recipe(graph_folder, *assignments, *own), tmp_path / 'run', progress=False, device='cpu')
    result = grow(tmp_path / 'run', larger)
    assert result.train.steps == 6 and result.data.relation_labels == ['r0', 'r1', 'r2', 'a']
    # The entities of NBFNet are those of the graph.
    assert ('e3' in (result.data.entity_labels or [])) == ('NBF' not in assignments[0])
    model, data, _ = open_run(tmp_path / 'new', device='cpu')
    assert data.relation_labels == result.data.relation_labels and 0 < result.test['mrr'] <= 1
    state = load_checkpoint(tmp_path / 'new' / 'last.pt')
    assert state['optimizer']['state'].keys() == load_checkpoint(tmp_path / 'run' / 'last.pt')['optimizer'][
        'state'].keys()


@pytest.mark.parametrize('which', ['best', 'last'])
def test_rows_are_those_of_the_weights_asked_for(run: Path, larger: Path, which: Any) -> None:
    old, _, _ = open_run(run, which='last', device='cpu')
    best = load_checkpoint(run / 'best.pt')
    best['model'] = {name: torch.zeros_like(value) for name, value in best['model'].items()}
    save_checkpoint(run / 'best.pt', best, fingerprint=model_fingerprint(old))
    weight = grow(run, larger, 'new', STILL, which=which).model.node_emb.weight
    torch.testing.assert_close(weight[:12], old.node_emb.weight if which == 'last' else torch.zeros(12, 4))
    assert json.loads((run.parent / 'new' / 'origin.json').read_text())['weights'] == f'{which}.pt'


def test_vectors_of_new_entities(run: Path, larger: Path) -> None:
    vectors = pd.DataFrame(np.full((3, 4), 0.5), index=['d1', 'e1', 'far'])
    old, before, _ = open_run(run, device='cpu')
    with pytest.warns(DataWarning, match="1 of 2 .*'d0'"):
        result = grow(run, larger, 'new', STILL, vectors=vectors)
    found = embeddings(result.model, result.data)
    assert found.loc['d1'].tolist() == [0.5] * 4
    assert found.loc['e1'].tolist() == embeddings(old, before).loc['e1'].tolist()
    assert json.loads((run.parent / 'new' / 'origin.json').read_text())['vectors'] == 'given'


def test_graph_as_an_object(run: Path, larger: Path) -> None:
    data = load_dataset(larger)
    result = grow(run, data)
    assert data.entity_labels[0] == 'd0' and result.data.entity_labels[0] == 'e0'
    assert open_run(run.parent / 'new', data=result.data, device='cpu')[2].dataset == 'given'


def test_what_cannot_be_extended(run: Path, larger: Path, graph_folder: Path) -> None:
    with pytest.raises(RecipeError, match='run: .*missing'):
        grow(run.parent / 'missing', larger)
    with pytest.raises(ArgumentError, match='run_dir: '):
        grow(run, larger, 'run')
    with pytest.raises(RecipeError, match=r'hidden_channels: 8, not 4'):
        grow(run, larger, 'new', 'model.hidden_channels=8')
    with pytest.raises(ArgumentError, match='vectors: .*new entities'):
        grow(run, graph_folder, vectors=pd.DataFrame(np.ones((1, 4)), index=['e1']))
    assert not (run.parent / 'new').exists()
    run_recipe(recipe(larger), run.parent / 'other', progress=False, device='cpu')
    with pytest.raises(RecipeError, match='other .*initial weights'):
        grow(run, larger, 'other')
    grow(run, larger)
    shutil.copytree(run, run.parent / 'copy')
    with pytest.raises(RecipeError, match=r'extends: .*copy, not .*run'):
        grow(run.parent / 'copy', larger)
    known = json.loads((run / 'trained_on.json').read_text())
    (run / 'trained_on.json').write_text(json.dumps({key: known[key] for key in ('relations', 'entities')}))
    with pytest.raises(RecipeError, match='labels of the entities'):
        grow(run, larger)


def test_weights_and_vectors_of_a_new_run(graph_folder: Path, tmp_path: Path) -> None:
    vectors = pd.DataFrame(np.full((12, 4), 0.25), index=[f'e{number}' for number in range(12)])
    options: dict[str, Any] = {'vectors': vectors, 'progress': False, 'device': 'cpu'}
    result = run_recipe(recipe(graph_folder, STILL), tmp_path / 'run', **options)
    assert torch.equal(result.model.node_emb.weight, torch.full((12, 4), 0.25))
    assert json.loads((tmp_path / 'run' / 'origin.json').read_text()) == {'vectors': 'given'}
    # What is continued has vectors of its own.
    longer = run_recipe(recipe(graph_folder, STILL, 'num_steps=7'), tmp_path / 'run',
                        **{**options, 'vectors': vectors * 2})
    assert torch.equal(longer.model.node_emb.weight, result.model.node_emb.weight)
    with pytest.raises(ArgumentError, match='entities: .* 4 .* 3$'):
        run_recipe(recipe(graph_folder), **{**options, 'vectors': vectors.iloc[:, :3]})


def test_start_of_a_run_that_is_continued(graph_folder: Path, tmp_path: Path) -> None:
    vectors = pd.DataFrame(np.full((12, 4), 0.25), index=[f'e{number}' for number in range(12)])
    write_vectors(vectors, tmp_path / 'a.parquet')
    write_vectors(vectors, tmp_path / 'b.parquet')
    options: dict[str, Any] = {'progress': False, 'device': 'cpu'}

    def fit(run: str, steps: int = 6, **start: Any) -> None:
        run_recipe(recipe(graph_folder, STILL, f'num_steps={steps}'), tmp_path / run, **options, **start)

    fit('plain')
    fit('warm', vectors=tmp_path / 'a.parquet')
    fit('warm', 7, vectors=tmp_path / 'a.parquet')
    fit('warm', 8)
    for run, start, facts in (
        ('plain', {'vectors': tmp_path / 'a.parquet'}, ['plain', 'initial weights']),
        ('plain', {'relation_vectors': tmp_path / 'a.parquet'}, ['plain', 'initial weights']),
        ('plain', {'weights': tmp_path / 'warm' / 'last.pt'}, ['plain', 'initial weights']),
        ('warm', {'vectors': tmp_path / 'b.parquet'}, ['warm', 'b.parquet', 'a.parquet']),
        ('warm', {'weights': tmp_path / 'plain' / 'last.pt'}, ['warm', 'weights', 'last.pt', 'vectors', 'a.parquet']),
    ):
        with pytest.raises(RecipeError) as caught:
            fit(run, 9, **start)
        assert all(fact in str(caught.value) for fact in facts)
    run_recipe(recipe(graph_folder, STILL), tmp_path / 'plain', vectors=tmp_path / 'b.parquet', resume=False, **options)
    assert json.loads((tmp_path / 'plain' / 'origin.json').read_text()) == {'vectors': str(tmp_path / 'b.parquet')}
