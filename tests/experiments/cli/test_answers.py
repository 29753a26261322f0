r"""The commands that answer, on one small run."""
from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pyg_emu import RelationCandidates, evaluate
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataWarning, RecipeError
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.runs import open_run

SMALL = ['--dim', '4', '--negatives', '3', '--batch-size', '40', '--steps', '6', '--evaluate-every', '6', '--quiet',
         '--device', 'cpu']


@pytest.fixture
def run(tmp_path: Path, graph_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    r"""A run of the graph in the folder :obj:`graph`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--data', 'graph', '--run-dir', 'run', *SMALL]) == 0
    capsys.readouterr()
    return 'run'


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> pd.DataFrame:
    assert main([*arguments, '--quiet', '--csv']) == 0
    return pd.read_csv(io.StringIO(capsys.readouterr().out))


def values(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, '--quiet', '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_candidates(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path('some.txt').write_text('e1\ne2\ne5\n')
    frame = table(capsys, 'predict', run, '--head', 'e3', '--relation', 'r0', '--candidates', 'some.txt')
    assert sorted(frame['tail']) == ['e1', 'e2', 'e5']
    assert values(capsys, 'evaluate', run, '--candidates', 'some.txt')['info']['candidates'] == '3 of 12 entities'

    model, data, _ = open_run(run, device='cpu')
    seen = RelationCandidates.seen(data)
    found = values(capsys, 'evaluate', run, '--seen-candidates')
    assert found['mrr'] == evaluate(model, data, candidates=seen)['mrr'] != evaluate(model, data)['mrr']
    frame = table(capsys, 'predict', run, '--tail', 'e3', '--relation', 'r0', '-k', '12', '--seen-candidates')
    heads = {data.entity_labels[head] for head, relation, _ in data.facts('train').tolist()
             if data.relation_labels[relation] == 'r0'}
    assert set(frame['head']) == heads

    Path('relations.txt').write_text('r2\nr0\n')
    frame = table(capsys, 'predict', run, '--head', 'e3', '--tail', 'e1', '--candidates', 'relations.txt')
    assert sorted(frame['relation']) == ['r0', 'r2']
    frame = table(capsys, 'neighbors', run, '--entity', 'e1', '--candidates', 'some.txt')
    assert sorted(frame['neighbor']) == ['e2', 'e5']

    Path('types.tsv').write_text('e1\tx\ne2\ty\ne1\tx\n')
    frame = table(capsys, 'predict', run, '--head', 'e3', '--relation', 'r0', '--types', 'types.tsv')
    types = RelationCandidates.of_types(data, {'e1': 'x', 'e2': 'y'})
    assert set(frame['tail']) == {data.entity_labels[place] for place in types.allowed(
        data.facts()[:1, 1] * 0 + data.relation_id('r0'), 'tail')[0].nonzero().flatten().tolist()}


@pytest.mark.parametrize('content, arguments, told', [
    ('e1\ne99\n', ['--candidates', 'file'], r"file:2: .*'e99'"),
    ('e1\te2\n', ['--candidates', 'file'], 'file:1: .* 2 '),
    ('', ['--candidates', 'file'], 'file: '),
    ('e1\n', ['--types', 'file'], 'file:1: .*type.* 1 '),
    ('e1\tx\ne2\ty\ne1\ty\n', ['--types', 'file'], "file:3: .*'y'.*'e1'.*'x'"),
    ('', ['--candidates', 'missing'], 'missing: '),
])
def test_bad_candidates(run: str, capsys: pytest.CaptureFixture[str], content: str, arguments: list[str],
                        told: str) -> None:
    Path('file').write_text(content)
    assert main(['evaluate', run, '--quiet', *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error) and error.count('\n') == 1


def test_relations_ranks_and_known_facts(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = values(capsys, 'evaluate', run, '--by', 'relation', '--ranks', 'ranks.csv')
    assert set(found['relations']) == {'r0', 'r1', 'r2'}
    assert found['macro']['mrr'] == pytest.approx(sum(row['mrr'] for row in found['relations'].values()) / 3)
    ranks = pd.read_csv('ranks.csv')
    assert ranks['rank'].rdiv(1).mean() == pytest.approx(found['mrr']) and len(ranks) == found['count']
    Path('known.tsv').write_text(''.join(f'e{number}\tr0\te1\n' for number in range(12)) + 'stranger\tr0\te1\n')
    assert main(['evaluate', run, '--quiet', '--json', '--known-facts', 'known.tsv']) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)['info']['filtered by'] == 'all + 12 given facts'
    assert "'stranger' (known.tsv:13)" in shown.err
    frame = table(capsys, 'predict', run, '--tail', 'e1', '--relation', 'r0', '-k', '12', '--known-facts', 'known.tsv')
    assert set(frame['known']) <= {'given', 'train', 'valid', 'test'} and len(frame) == 12
    assert main(['evaluate', run, '--quiet', '--ranks', 'ranks.xlsx']) == 2
    assert '--ranks' in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [['predict', '--head', 'e1', '--relation', 'r0'], ['score', '--input', 'a.tsv']])
def test_a_table_goes_to_one_place(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*arguments, '--run', 'run', '--output', 'b.tsv', '--csv'])
    error = capsys.readouterr().err
    assert '--csv' in error and '--output' in error and not Path('b.tsv').exists()


def test_relations_between_entities(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['evaluate', run, '--quiet', '--json', '--sides', 'relation']) == 0
    model, data, _ = open_run(run, device='cpu')
    expected = evaluate(model, data, sides=('relation',)).to_dict()
    assert json.loads(capsys.readouterr().out) == expected and expected['mr'] <= 3


def test_a_table_of_relations_in_the_run_folder(run: str) -> None:
    assert main(['train', '--data', 'graph', '--run-dir', 'other', *SMALL, '--set', 'evaluation.by=relation']) == 0
    recorded = json.loads(Path('other/metrics.json').read_text())
    assert set(recorded['test']['relations']) == {'r0', 'r1', 'r2'} and 'macro' in recorded['test']


def test_scores_probabilities_and_classes(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('sklearn')
    Path('facts.tsv').write_text('e1\tr0\te2\ne3\tr1\te4\n')
    frame = table(capsys, 'score', run, '--input', 'facts.tsv')
    model, data, _ = open_run(run, device='cpu')
    facts = torch.tensor([[data.entity_id(h), data.relation_id(r), data.entity_id(t)]
                          for h, r, t in (('e1', 'r0', 'e2'), ('e3', 'r1', 'e4'))])
    assert frame['score'].tolist() == pytest.approx(model(*facts.t()).tolist(), abs=1e-6)
    assert list(frame) == ['head', 'relation', 'tail', 'score']

    assert main(['calibrate', run, '--quiet', '--num-negatives', '3']) == 0
    assert 'run/calibration.json' in capsys.readouterr().out
    assert main(['score', run, '--input', 'facts.tsv', '--output', 'scored.csv', '--quiet']) == 0
    scored = pd.read_csv('scored.csv')
    assert scored['score'].tolist() == pytest.approx(frame['score'].tolist()) and 'predicted' in scored
    assert scored['probability'].between(0, 1).all()
    capsys.readouterr()
    assert main(['classify', run, '--quiet', '--json', '--output', 'decided.csv', '--negatives', 'facts.tsv']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['count'] == len(pd.read_csv('decided.csv')) == data.num_facts('test') + 2
    assert main(['classify', run, '--quiet', '--known-facts', 'facts.tsv']) == 0
    assert 'all relations' in capsys.readouterr().out
    assert main(['classify', run, '--quiet', '--known-facts', 'facts.tsv', '--negatives', 'facts.tsv']) == 2
    assert 'known_facts: ' in capsys.readouterr().err
    frame.assign(label=[1, 0]).drop(columns='score').to_csv('labelled.tsv', sep='\t', index=False)
    for command, flags, told in (('calibrate', ['--facts', 'labelled.tsv', '--split', 'valid'], 'split: '),
                                 ('calibrate', ['--negatives', 'facts.tsv', '--num-negatives', '1'], 'num_negatives: '),
                                 ('classify', ['--facts', 'labelled.tsv', '--split', 'test'], 'split: '),
                                 ('classify', ['--facts', 'labelled.tsv', '--num-negatives', '1'], 'num_negatives: ')):
        assert main([command, run, '--quiet', *flags]) == 2
        assert told in capsys.readouterr().err
    assert main(['classify', run, '--quiet', '--json', '--facts', 'labelled.tsv']) == 0
    assert json.loads(capsys.readouterr().out)['count'] == 2

    # Other weights are not judged by thresholds that were not made for them.
    assert main(['score', run, '--input', 'facts.tsv', '--checkpoint', 'last', '--quiet']) == 2
    assert main(['train', '--data', 'graph', '--run-dir', 'run', *SMALL, '--fresh', '--seed', '1']) == 0
    capsys.readouterr()
    assert main(['score', run, '--input', 'facts.tsv', '--quiet']) == 2
    assert 'calibration.json' in (error := capsys.readouterr().err) and 'calibrate' in error
    Path('run/calibration.json').unlink()
    for arguments, told in ((['--input', 'no.tsv'], 'no.tsv'), (['--input', 'facts.tsv', '--output', 'a.x'], 'a.x')):
        assert main(['score', run, *arguments, '--quiet']) == 2
        assert told in capsys.readouterr().err


def test_vectors_and_many_questions(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, data, _ = open_run(run, device='cpu')
    assert main(['export', run, '--output', 'vectors.txt', '--quiet']) == 0
    lines = Path('vectors.txt').read_text().splitlines()
    assert lines[0] == '12 4' and lines[1].split()[0] == data.entity_labels[0]
    assert [float(value) for value in lines[1].split()[1:]] == pytest.approx(model.entity_table()[0].tolist())
    assert main(['export', run, '--output', 'projector', '--kind', 'relation', '--quiet']) == 0
    assert len(Path('projector/metadata.tsv').read_text().splitlines()) == 3
    capsys.readouterr()
    frame = table(capsys, 'neighbors', run, '--entity', 'e1', 'e2', '-k', '3')
    assert frame['entity'].tolist() == ['e1'] * 3 + ['e2'] * 3
    Path('questions.tsv').write_text('e1\tr0\t?\n?\tr0\te1\ne1\t?\te2\n')
    assert main(['predict', run, '--input', 'questions.tsv', '--output', 'answers.csv', '-k', '2', '--quiet']) == 0
    answers = pd.read_csv('answers.csv')
    assert answers['question'].tolist() == [0, 0, 1, 1, 2, 2]
    single = table(capsys, 'predict', run, '--head', 'e1', '--relation', 'r0', '-k', '2')
    assert answers['tail'][:2].tolist() == single['tail'].tolist()
    for arguments, told in ((['predict', run, '--input', 'questions.tsv', '--head', 'e1'], '--input, --head'),
                            (['export', run, '--output', 'vectors.bin'], '--output'),
                            (['neighbors', run, '--entity', 'e99'], "'e99'")):
        assert main([*arguments, '--quiet']) == 2
        assert told in capsys.readouterr().err


def test_a_run_folder_stands_alone(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = (['predict', run, '--head', 'e1', '--relation', 'r0', '-k', '12', '--csv'],
                ['predict', run, '--head', 'e1', '--tail', 'e2', '--csv'],
                ['neighbors', run, '--entity', 'e1', '--csv'], ['export', run, '--output', 'vectors.txt'])
    before, whole = [], open_run(run, device='cpu')
    for command in commands:
        assert main([*command, '--quiet']) == 0
        before.append(capsys.readouterr().out)
    vectors = Path('vectors.txt').read_text()
    Path('graph').rename('gone')
    for command, expected in zip(commands, before):
        assert main([*command, '--quiet']) == 0
        shown = capsys.readouterr()
        assert 'warning' in shown.err and 'graph' in shown.err
        if command[0] == 'predict':
            ours, theirs = (pd.read_csv(io.StringIO(text)) for text in (shown.out, expected))
            assert ours['known'].isna().all() and theirs['known'].notna().any()
            pd.testing.assert_frame_equal(ours.drop(columns='known'), theirs.drop(columns='known'))
        else:
            assert shown.out == expected
    assert Path('vectors.txt').read_text() == vectors
    # Where facts are needed, their absence is an error, and so is an answer that would have to know them.
    for command, told in ((['evaluate', run], 'graph'), (['predict', run, '--head', 'e1', '--relation', 'r0',
                                                          '--exclude-known'], 'exclude_known')):
        assert main([*command, '--quiet']) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
    model, data, _ = open_run(run, facts=False, device='cpu')
    assert data.entity_labels == whole[1].entity_labels and data.relation_labels == whole[1].relation_labels
    assert data.num_facts('all') == 0 and torch.equal(model.node_emb.weight, whole[0].node_emb.weight)
    with pytest.raises(ArgumentError, match='facts'):
        open_run(run, data='gone', facts=False)


def test_labels_in_the_folder_are_those_of_the_rows(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path('run/trained_on.json')
    written = json.loads(path.read_text())
    assert written['entity_labels'] == [f'e{number}' for number in sorted(range(12), key=str)]
    labels = written['entity_labels']
    path.write_text(json.dumps({**written, 'entity_labels': [labels[1], labels[0], *labels[2:]]}))
    with pytest.raises(CheckpointError, match='trained_on.json: entity_labels'):
        open_run(run, facts=False)
    # Folders of earlier versions hold no labels of entities.
    old = {key: written[key] for key in ('relations', 'entities', 'facts')}
    path.write_text(json.dumps(old))
    assert open_run(run, device='cpu')[1].num_nodes == 12
    with pytest.raises(RecipeError, match='labels'):
        open_run(run, facts=False)
    assert main(['train', '--data', 'graph', '--run-dir', 'graphs', *SMALL, '--model', 'NBFNet', '--steps', '1',
                 '--set', 'model.num_layers=1']) == 0
    with pytest.raises(RecipeError, match='NBFNet'):
        open_run('graphs', facts=False)


def test_other_facts_are_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path('graph/test.txt').read_text().splitlines()
    Path('graph/test.txt').write_text('\n'.join(lines[1:]) + '\n')
    assert main(['evaluate', run, '--quiet']) == 2
    error = capsys.readouterr().err
    assert f'test ({len(lines) - 1} facts, the run had {len(lines)})' in error and '--other-facts' in error
    with pytest.raises(ArgumentError, match='other_facts=True'):
        open_run(run, device='cpu')
    with pytest.warns(DataWarning, match='test'):
        assert open_run(run, other_facts=True, device='cpu')[1].num_facts('test') == len(lines) - 1
    assert main(['predict', run, '--head', 'e1', '--relation', 'r0', '--quiet']) == 0
