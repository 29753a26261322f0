r"""A model that reads a graph, trained on one graph and used on another with other entities and the same relations."""
from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import torch

from pyg_emu import KGData, evaluate, load_dataset, predict
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.evaluation.graphs import rank, ranker_of, reads_graph
from pyg_emu.experiments.provenance import TrainedOn, load_source, source_name
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import is_inductive, open_run, run_recipe
from pyg_emu.models import DistMult, NBFNet
from pyg_emu.training.checkpoint import load_checkpoint

# Fixed facts of a chain: 'next' leads to the neighbour, 'skip' past it, 'back' returns.
RELATIONS = {'back': (1, -1), 'next': (0, 1), 'skip': (0, 2)}


def write_chain(folder: Path, size: int, name: Callable[[int], str], relations: tuple[str, ...]) -> Path:
    r"""A ring of entities, whose every fifth fact is for validation and every other fifth for the test."""
    facts = [(name(place), relation, name((place + RELATIONS[relation][1]) % size))
             for place in range(size) for relation in relations]
    folder.mkdir()
    for split, rows in (('train', [fact for number, fact in enumerate(facts) if number % 5 > 1]),
                        ('valid', facts[::5]), ('test', facts[1::5])):
        (folder / f'{split}.txt').write_text(''.join('\t'.join(fact) + '\n' for fact in rows))
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_chain(tmp_path / 'one', 20, 'a{:02}'.format, ('back', 'next', 'skip'))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    # Without 'back', so that 'next' would be numbered 0 if it were read by itself, and is 1 in the other graph.
    return write_chain(tmp_path / 'other', 30, 'z{:02}'.format, ('skip', 'next'))


def settings(one: Path, other: Any = None, **more: Any) -> Any:
    return load_recipe({'dataset': str(one), 'model': {'name': 'NBFNet', 'hidden_channels': 8, 'num_layers': 3},
                        'negatives': {'num_negatives': 8}, 'batch_size': 16, 'num_steps': 30, 'evaluate_every': 10,
                        'inference': None if other is None else str(other), **more})


def test_train_on_one_graph_rank_over_another(one: Path, other: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    result = run_recipe(settings(one, other), run, progress=False)
    recorded = json.loads((run / 'metrics.json').read_text())
    info = recorded['test']['info']
    assert info['graph'] == 'training facts of other' and info['filtered by'] == 'train' and info['triples'] == 12
    assert info['ranked against'] == 'all entities, and 50 negatives in the row that says so'
    # Of 30 entities, drawing 50 with repetitions is the harder setting.
    assert 0.0 < recorded['test']['hits@10 (50 negatives)'] < recorded['test']['hits@10'] <= 1.0
    assert result.data.num_nodes == 20 and recorded['valid']['count'] == 24  # validated where it was trained
    table = str(result.test)
    assert 'graph: training facts of other' in table and 'hits@10 (50 negatives)' in table

    # The same by hand, with the relations numbered as in training.
    data = load_dataset(other, vocabulary=load_dataset(one)).with_inverse_relations()
    again = evaluate(result.model.as_ranker(data), data, filter_splits='train', num_negatives=50)
    assert {key: recorded['test'][key] for key in again} == dict(again)
    assert data.relation_labels == ['back', 'next', 'skip'] and load_dataset(other).relation_labels == ['next', 'skip']
    # Rings have no ends: what was learnt carries over, far above the mean reciprocal rank of chance (0.13).
    assert again['mrr'] > 0.3

    # Where it is used in the end has left no trace in the weights.
    plain = run_recipe(settings(one), tmp_path / 'plain', progress=False)
    weights = [load_checkpoint(folder / 'last.pt')['model'] for folder in (run, tmp_path / 'plain')]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert plain.test is not None and plain.test.info['graph'] == 'training facts of one'
    assert plain.test.info['filtered by'] == 'all' and 'hits@10 (50 negatives)' not in plain.test


def test_open_over_either_graph(one: Path, other: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    result = run_recipe(settings(one, other), run, progress=False)
    model, data, recipe = open_run(run)
    assert data.num_nodes == 20 and data.has_inverse_relations and not is_inductive(run, data)
    metrics = rank(model, data, 'valid', recipe.validation)
    assert metrics['mrr'] == result.train.best_metric

    _, inferred, _ = open_run(run, inference=True)
    model, named, _ = open_run(run, data=str(other))
    assert inferred.relation_labels == named.relation_labels == data.relation_labels
    assert torch.equal(inferred.edge_type, named.edge_type) and is_inductive(run, named)
    assert rank(model, named, 'test', {}, inductive=True).to_dict()['mrr'] == result.test['mrr']
    answers = predict(ranker_of(model, named), named, heads='z05', relations='next', k=3)
    assert answers['head'].tolist() == ['z05'] * 3 and answers['tail'].str.startswith('z').all()

    # The graph trained on may be gone by then.
    (one / 'train.txt').unlink()
    assert open_run(run, data=str(other))[1].num_nodes == 30
    # Data that was numbered on its own would give wrong scores without a word.
    with pytest.raises(ArgumentError, match="relation 0 .*'next'.*'back'"):
        open_run(run, data=load_dataset(other))
    labels = ['back', 'next', 'skip', 'more']
    more = KGData(inferred.edge_index, inferred.edge_type, relation_labels=labels)
    with pytest.raises(ArgumentError, match='4 relations.* 3'):
        open_run(run, data=more)


def test_unknown_relation_is_named_before_the_training(one: Path, other: Path, tmp_path: Path) -> None:
    with open(other / 'valid.txt', 'a') as file:
        file.write('z01\tnexd\tz02\n')
    with pytest.raises(DataError, match=r"other/valid\.txt:13: the relation 'nexd' is not .* 'next'.; rename it"):
        run_recipe(settings(one, other), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_settings_of_the_recipe_come_first(one: Path, other: Path) -> None:
    result = run_recipe(settings(one, other, num_steps=2, evaluation={'filter_splits': 'all', 'num_negatives': None}),
                        progress=False)
    assert result.test is not None and result.test.info['filtered by'] == 'all'
    assert not any('negatives' in name for name in result.test)


def test_data_without_labels(one: Path, tmp_path: Path) -> None:
    labelled = load_dataset(one)
    data = KGData(labelled.edge_index, labelled.edge_type, labelled.num_nodes, labelled.num_relations)
    run_recipe(settings(one, num_steps=2, patience=None), tmp_path / 'run', data=data, progress=False)
    assert open_run(tmp_path / 'run', data=data)[1].num_edges == 2 * data.num_edges
    assert not is_inductive(tmp_path / 'run', data)


def test_models_with_entity_vectors_are_left_as_they_are(one: Path, tmp_path: Path) -> None:
    model, data = DistMult(20, 3, 4), load_dataset(one)
    assert not reads_graph(model) and ranker_of(model, data) is model and reads_graph(NBFNet(3))
    assert 'graph' not in rank(model, data, 'test', {'num_negatives': 20}).info
    among = rank(model, data, 'test', {'num_negatives': 20, 'candidates': range(20)}).info
    assert among['ranked against'].startswith('all candidates, and 20 negatives')
    run_recipe(load_recipe({'dataset': str(one), 'num_steps': 2}), tmp_path / 'run', progress=False)
    _, data, _ = open_run(tmp_path / 'run')
    assert not data.has_inverse_relations and not is_inductive(tmp_path / 'run', data)


def test_entity_vectors_are_not_used_for_other_entities(one: Path, tmp_path: Path) -> None:
    run_recipe(load_recipe({'dataset': str(one), 'num_steps': 2}), tmp_path / 'run', progress=False)
    names = ('back', 'next', 'skip')
    again = write_chain(tmp_path / 'again', 20, 'a{:02}'.format, names)
    assert open_run(tmp_path / 'run', data=str(again))[1].entity_labels == load_dataset(one).entity_labels

    # As many entities, of other names: every answer would be about somebody else.
    strangers = write_chain(tmp_path / 'strangers', 20, 'x{:02}'.format, names)
    for other in (str(strangers), load_dataset(strangers)):
        with pytest.raises(ArgumentError, match='data: .*20.*entities'):
            open_run(tmp_path / 'run', data=other)
    data = load_dataset(one)
    bare = KGData(data.edge_index, data.edge_type, data.num_nodes, data.num_relations)
    assert open_run(tmp_path / 'run', data=bare)[1] is not None and not is_inductive(tmp_path / 'run', bare)


def test_run_with_entity_vectors_takes_over_a_folder(one: Path, other: Path, tmp_path: Path) -> None:
    run_recipe(settings(one, num_steps=1), tmp_path / 'run', progress=False, test=False)
    run_recipe(load_recipe({'dataset': str(other), 'num_steps': 2}), tmp_path / 'run', resume=False, progress=False)
    _, data, _ = open_run(tmp_path / 'run')  # the relations are those of the run that took over
    assert data.relation_labels == ['next', 'skip'] and not is_inductive(tmp_path / 'run', data)


def test_what_was_trained_on_is_remembered(one: Path, other: Path, tmp_path: Path) -> None:
    data = load_dataset(one)
    path = tmp_path / 'trained_on.json'
    assert TrainedOn.read(path) is None
    path.write_text(json.dumps(TrainedOn.of(data).to_dict()))
    known = TrainedOn.read(path)
    assert known == TrainedOn.of(data.with_inverse_relations()) and known.relations == ['back', 'next', 'skip']
    assert known.is_of(data) and not known.is_of(load_dataset(other))
    for text in ('{', '{"relation": []}', '[]'):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r'trained_on\.json cannot be read'):
            TrainedOn.read(path)


def test_sources(one: Path) -> None:
    assert load_source({'source': str(one), 'comment': '#'}).num_nodes == load_source(str(one)).num_nodes == 20
    assert source_name(str(one)) == source_name({'source': f'{one}/'}) == 'one'


def test_what_may_be_downloaded_is_read_by_one_process_first(one: Path, other: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    inside, read = [False], []

    @contextmanager
    def alone() -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    def load(source: Any, **options: Any) -> KGData:
        read.append((source_name(source), inside[0]))
        return load_source(source, **options)

    monkeypatch.setattr('pyg_emu.experiments.runs.first_alone', alone)
    monkeypatch.setattr('pyg_emu.experiments.runs.load_source', load)
    monkeypatch.setattr('pyg_emu.experiments.provenance.load_source', load)
    run_recipe(settings(one, other, num_steps=1), progress=False)
    assert read == [('one', True), ('other', True)]
