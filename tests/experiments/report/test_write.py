from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_emu import evaluate
from pyg_emu.core.errors import ArgumentError, DataError, RecipeError
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.report import Report, write_report
from pyg_emu.experiments.report.entity_map import project
from pyg_emu.experiments.report.figures import shown_label
from pyg_emu.experiments.runs import open_run
from pyg_emu.ops import use_backend
from tests.experiments.report.conftest import ENTITIES, RELATIONS, train, write_graph
from tests.experiments.report.pages import Parsed

pytest.importorskip('plotly')



@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Leaves out plotly.js, which is nearly all of a page."""
    monkeypatch.setattr('plotly.offline.get_plotlyjs', lambda: '')


SECTIONS = ['summary', 'training', 'metrics', 'relations', 'hardest', 'map', 'data', 'settings']


def write(runs: Any, output: Path, **options: Any) -> tuple[Report, Parsed]:
    drawn = {} if isinstance(runs, list) else {'projection': 'pca'}
    with use_backend('torch'):
        report = write_report(runs, output, **{**drawn, 'progress': False, 'device': 'cpu', **options})
    return report, Parsed(report.path)


def test_a_page_holds_what_evaluation_says(trained: Path, tmp_path: Path) -> None:
    report, page = write(trained / 'emu', tmp_path / 'page.html', num_hardest=6, num_answers=3)
    assert report.left_out == {} and list(page.tables) == SECTIONS
    model, data, _ = open_run(trained / 'emu', device='cpu')
    with use_backend('torch'):
        metrics = evaluate(model, data)
    assert f'{metrics["mrr"]:.4f}' in page.texts['summary']

    sides = {row['']: row for row in page.table('metrics')}
    assert [row['MRR'] for row in sides.values()] == [f'{metrics[name]:.4f}'
                                                      for name in ('mrr', 'tail.mrr', 'head.mrr')]
    kinds = page.table('metrics', 1)
    assert {row['MRR'] for row in kinds} == {f'{values["mrr"]:.4f}' for name, values in metrics.groups.items()
                                             if name[0] in '1N'}
    by_relation = metrics.by('relation')
    rows = page.table('relations')
    assert [row['relation'] for row in rows] == list(by_relation.index) and {*RELATIONS} == {*by_relation.index}
    assert [row['MRR'] for row in rows] == [f'{value:.4f}' for value in by_relation['mrr']]
    counts = data.facts()[:, 1].bincount().tolist()
    assert [int(row['training facts']) for row in rows] == [counts[data.relation_id(row['relation'])] for row in rows]

    hardest = page.table('hardest')
    ranked = metrics.ranked().sort_values('rank', ascending=False, kind='stable').head(6)
    assert [float(row['rank']) for row in hardest] == ranked['rank'].tolist()
    assert [int(row['competitors']) for row in hardest] == ranked['competitors'].tolist()
    assert [(row['asked'], row['head'], row['relation'], row['tail']) for row in hardest] == list(
        ranked[['side', 'head', 'relation', 'tail']].itertuples(index=False, name=None))


def test_answers_instead_are_the_best_that_are_no_facts(trained: Path, tmp_path: Path) -> None:
    from pyg_emu import predict

    _, page = write(trained / 'emu', tmp_path / 'page.html', num_hardest=4, num_answers=2)
    model, data, _ = open_run(trained / 'emu', device='cpu')
    for row in page.table('hardest'):
        given = {f'{name}s': row[name] for name in ('head', 'relation', 'tail') if name != row['asked']}
        with use_backend('torch'):
            answers = predict(model, data, k=2, exclude_known=True, **given)
        assert row['answered instead'] == ''.join(answers[row['asked']]) and not any(answers['known'])


def test_figures_are_those_of_the_metrics_and_of_the_data(trained: Path, tmp_path: Path) -> None:
    _, page = write(trained / 'emu', tmp_path / 'page.html', num_hardest=1)
    model, data, _ = open_run(trained / 'emu', device='cpu')
    with use_backend('torch'):
        metrics = evaluate(model, data)
    traces = [trace for figure in page.figures for trace in figure['data']]
    found = {text: [trace for trace in traces if text in trace.get('hovertemplate', '')]
             for text in ('rank at most', '} ranks', 'in at least', '%{text}: %{x')}
    curves, bars = found['rank at most'], found['} ranks']
    assert [trace['name'][:5] for trace in curves] == ['tails', 'heads']
    for trace, side in zip(curves, ('tail', 'head')):
        ranks = metrics.ranks[side].realistic.numpy()
        assert trace['y'] == pytest.approx([(ranks <= value).mean() for value in trace['x']]) and trace['y'][-1] == 1.0
    for trace, side in zip(bars, ('tail', 'head'), strict=True):
        assert trace['y'] == [metrics.groups.get(f'{kind}.{side}', {}).get('mrr') for kind in trace['x']]
    (relations, ), (entities, ) = found['%{text}: %{x'], found['in at least']
    counts = data.facts()[:, 1].bincount().tolist()
    assert dict(zip(relations['text'], relations['x'])) == {
        shown_label(name): counts[data.relation_id(name)] for name in RELATIONS}
    degree = data.facts()[:, [0, 2]].flatten().bincount(minlength=len(ENTITIES)).numpy()
    assert entities['x'] == sorted({*degree.tolist()} - {0})
    assert entities['y'] == pytest.approx([(degree >= value).mean() for value in entities['x']])


def test_curves_are_the_history(trained: Path, tmp_path: Path) -> None:
    _, page = write(trained / 'emu', tmp_path / 'page.html')
    lines = (trained / 'emu' / 'history.csv').read_text().splitlines()
    rows = [dict(zip(lines[0].split(','), line.split(','))) for line in lines[1:]]
    traces = {trace['name']: trace for figure in page.figures for trace in figure['data'] if 'meta' in trace}
    assert {'loss', 'MRR', 'Hits@10', 'mean rank', 'best', 'grad_norm'} <= {*traces}
    assert traces['loss']['x'] == [2, 4] and traces['loss']['meta']['seconds'] == [float(row['seconds'])
                                                                                  for row in rows]
    assert traces['MRR']['y'] == [float(row['valid_mrr']) for row in rows]
    best = json.loads((trained / 'emu' / 'metrics.json').read_text())['best_step']
    assert traces['best']['x'] == [best]


def test_runs_are_compared(trained: Path, tmp_path: Path) -> None:
    report, page = write([trained / 'emu', trained / 'plain'], tmp_path / 'page.html')
    assert report.left_out == {} and list(page.tables) == ['summary', 'settings', 'training', 'metrics', 'relations',
                                                           'facts']
    metrics = {}
    for name in ('emu', 'plain'):
        model, data, _ = open_run(trained / name, device='cpu')
        with use_backend('torch'):
            metrics[name] = evaluate(model, data)
    assert [row['MRR'] for row in page.table('summary')] == [f'{found["mrr"]:.4f}' for found in metrics.values()]
    settings = {row['recipe']: (row['emu'], row['plain']) for row in page.table('settings')}
    assert settings['loss.name'] == ('emu', 'cross_entropy') and settings['seed'] == ('0', '1')
    assert 'batch_size' not in settings

    first = page.table('metrics')[0]
    assert (first['metric'], first['difference']) == ('MRR', f'{metrics["plain"]["mrr"] - metrics["emu"]["mrr"]:+.4f}')
    rows = page.table('relations')
    shares = [float(row['share']) for row in rows]
    assert sum(shares) == pytest.approx(metrics['plain']['mrr'] - metrics['emu']['mrr'], abs=5e-5)
    assert np.abs(shares).tolist() == sorted(np.abs(shares), reverse=True)
    tables = {name: found.by('relation') for name, found in metrics.items()}
    for row in rows:
        assert row['MRR, emu'] == f'{tables["emu"].at[row["relation"], "mrr"]:.4f}'
        assert row['MRR, plain'] == f'{tables["plain"].at[row["relation"], "mrr"]:.4f}'

    frames = {name: found.ranked() for name, found in metrics.items()}
    ratio = np.log(frames['emu']['rank'] / frames['plain']['rank']).abs()
    first = page.table('facts')[0]
    at = int(ratio.argmax())
    assert [float(first[f'rank, {name}']) for name in frames] == [frame['rank'][at] for frame in frames.values()]
    traces = [trace for figure in page.figures for trace in figure['data'] if 'meta' in trace]
    assert {trace['name'] for trace in traces} == {'emu', 'plain'}


def test_runs_on_different_facts_are_not_compared(trained: Path, tmp_path: Path) -> None:
    other = train(str(trained / 'graph' / 'train.txt'), tmp_path / 'other', 'dataset.fractions=[0.8, 0.1, 0.1]')
    report, page = write([trained / 'emu', other], tmp_path / 'page.html')
    assert 'emu and other' in page.texts['metrics'] and 'emu and other' in report.left_out['Facts']
    assert 'share' not in page.table('relations')[0]


def test_names_of_runs_tell_them_apart(trained: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(trained / 'emu', tmp_path / 'a' / 'emu'))
    _, page = write([trained / 'emu', first, first], tmp_path / 'page.html', max_triples=5)
    names = [row['run'] for row in page.table('summary')]
    assert names == [f'{trained.name}/emu', 'a/emu', 'a/emu (2)']
    assert 'All' in page.texts['settings']


def test_nbfnet_has_no_map(trained: Path, tmp_path: Path) -> None:
    run = train(str(trained / 'graph'), tmp_path / 'nbfnet', 'model={name: NBFNet, num_layers: 2}', 'num_steps=1',
                'loss=nbfnet_bce')
    report, page = write(run, tmp_path / 'page.html', max_triples=6, num_hardest=3)
    assert [*report.left_out] == ['Entities'] and 'NBFNet' in report.left_out['Entities']
    assert len(page.table('hardest')) == 3 and 'NBFNet' in page.texts['map']


def test_what_is_missing_is_said(trained: Path, tmp_path: Path) -> None:
    data = write_graph(tmp_path / 'graph', ('train', 'valid'))
    source = "{source: '" + str(data) + "', require_splits: [train, valid]}"
    run = train(str(data), tmp_path / 'run', f'dataset={source}')
    report, page = write(run, tmp_path / 'page.html')
    assert report.left_out == {} and 'validation' in page.texts['summary'] and 'valid split' in page.texts['metrics']
    with pytest.raises(DataError, match='test'):
        write(run, tmp_path / 'page.html', split='test')

    alone = write_graph(tmp_path / 'alone', ('train', ))
    source = "{source: '" + str(alone) + "', require_splits: [train]}"
    report, page = write(train(str(alone), tmp_path / 'last', f'dataset={source}'), tmp_path / 'page.html')
    assert {*report.left_out} == {'Metrics', 'Relations', 'Hardest facts'}
    assert 'without validation' in page.texts['summary']
    _, page = write(tmp_path / 'last', tmp_path / 'page.html', split='train')
    assert 'train split' in page.texts['metrics']


def test_data_that_is_gone(run: Path, tmp_path: Path, trained: Path) -> None:
    recipe = run / 'recipe.yaml'
    recipe.write_text(recipe.read_text().replace(str(trained / 'graph'), str(tmp_path / 'gone')))
    report, page = write(run, tmp_path / 'page.html')
    assert {*report.left_out} == {'Relations', 'Hardest facts', 'Data'} and 'gone' in report.left_out['Data']
    recorded = json.loads((run / 'metrics.json').read_text())['test']
    assert page.table('metrics')[0]['MRR'] == f'{recorded["mrr"]:.4f}'
    # The data in its new place.
    report, page = write(run, tmp_path / 'page.html', data=str(trained / 'graph'))
    assert report.left_out == {}
    with pytest.raises(DataError, match='nowhere'):
        write(run, tmp_path / 'page.html', data=str(tmp_path / 'nowhere'))


def test_a_run_without_its_data_is_compared(run: Path, trained: Path, tmp_path: Path) -> None:
    recipe = run / 'recipe.yaml'
    recipe.write_text(recipe.read_text().replace(str(trained / 'graph'), str(tmp_path / 'gone')))
    report, page = write([run, trained / 'plain'], tmp_path / 'page.html')
    assert {*report.left_out} == {'Relations', 'Facts'} and 'gone' in page.texts['summary']
    assert 'and plain' not in page.texts['metrics'] and {'run', 'plain'} <= {*page.table('metrics')[0]}


def test_a_graph_encoder_has_a_map(trained: Path, tmp_path: Path) -> None:
    run = train(str(trained / 'graph'), tmp_path / 'rgcn', 'model={name: RGCN, num_bases: 2}', 'num_steps=1')
    report, page = write(run, tmp_path / 'page.html', max_triples=6, num_hardest=3)
    assert report.left_out == {} and 'principal' in page.texts['map']


@pytest.mark.parametrize(('name', 'content', 'absent'), [
    ('history.csv', None, ['Training']), ('history.csv', 'step,loss\n', ['Training']),
    ('history.csv', 'step,loss\n1,x\n', ['Training']), ('best.pt', b'damaged', ['Hardest facts', 'Entities']),
    ('recipe.yaml', 'model: [', ['Hardest facts', 'Entities', 'Data']),
    ('recipe.yaml', None, ['Hardest facts', 'Entities', 'Data']), ('run.json', None, []), ('run.json', '[]', []),
    ('versions.json', None, []), ('metrics.json', '{"test": {"mrr": "x"}, "valid": 3}', []),
    ('trained_on.json', None, []), ('metrics.json', None, []),
])
def test_damaged_files(run: Path, tmp_path: Path, name: str, content: Any, absent: list[str]) -> None:
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    report, page = write(run, tmp_path / 'page.html', max_triples=4)
    assert {*absent} <= {*report.left_out} <= {*absent, 'Relations'}
    said = [*report.left_out.values(), *page.texts.values()]
    assert name == 'trained_on.json' or not absent and content is not None or any(name in text for text in said)


def test_a_run_that_was_interrupted(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / 'run.json').read_text())
    for changes, told in (({'num_steps': 50}, ['4', '50', 'continues']),
                          ({'num_steps': 50, 'patience': 1}, ['4 of 50: 1 ']),
                          ({'num_steps': 50, 'max_seconds': 0.0}, ['max_seconds'])):
        (run / 'run.json').write_text(json.dumps({**record, 'trainer': {**record['trainer'], **changes}}))
        metrics = json.loads((run / 'metrics.json').read_text())
        (run / 'metrics.json').write_text(json.dumps({**metrics, 'best_step': 2}))
        _, page = write(run, tmp_path / 'page.html', max_triples=4, num_hardest=1)
        assert all(text in page.texts['summary'] for text in told), changes
        assert ('continues' in page.texts['summary']) == ('continues' in told)


def test_a_map_limits_and_repeats_itself(trained: Path, tmp_path: Path) -> None:
    _, page = write(trained / 'emu', tmp_path / 'page.html', max_entities=7)
    _, data, _ = open_run(trained / 'emu', device='cpu')
    degree = data.facts()[:, [0, 2]].flatten().bincount(minlength=len(ENTITIES))
    points = {name: facts for figure in page.figures for trace in figure['data'] if 'customdata' in trace
              for name, facts in zip(trace['text'], trace['customdata'])}
    assert sorted(points.values()) == degree.sort(descending=True).values[:7].flip(0).tolist()
    rows = np.random.default_rng(0).normal(size=(12, 5))
    assert (project(rows, 'tsne') == project(rows, 'tsne')).all() and project(rows, 'pca').shape == (12, 2)
    assert np.isfinite(project(np.ones((8, 5)), 'tsne')).all()
    # Two groups that are far apart stay apart.
    groups = project(np.concatenate([rows, rows + 50.0]), 'tsne')
    distance = np.linalg.norm(groups[:, None] - groups[None], axis=2)
    assert distance[:12, :12].max() < distance[:12, 12:].max()


def test_without_labels(tmp_path: Path) -> None:
    from pyg_emu import load_dataset
    from pyg_emu.experiments.recipe import load_recipe
    from pyg_emu.experiments.runs import run_recipe
    data = load_dataset(str(write_graph(tmp_path / 'graph')))
    data.entity_labels = data.relation_labels = None
    recipe = load_recipe({'dataset': 'unlabelled', 'model': {'hidden_channels': 4}, 'num_steps': 1, 'batch_size': 50})
    with use_backend('torch'):
        run_recipe(recipe, tmp_path / 'run', data=data, progress=False, device='cpu')
    report, page = write(tmp_path / 'run', tmp_path / 'page.html', data=data, num_hardest=4)
    assert report.left_out == {} and all(row['head'].isdigit() for row in page.table('hardest'))
    assert {row['relation'] for row in page.table('relations')} == {'0', '1', '2', '3'}


def test_the_documented_snippet_runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = Path(__file__).resolve().parents[3] / 'docs' / 'report.md'
    snippet, = re.findall(r'^```python\n(.*?)^```', document.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)
    shutil.copytree(trained / 'emu', tmp_path / 'runs' / 'umls')
    shutil.copytree(trained / 'plain', tmp_path / 'runs' / 'umls-uniform')
    monkeypatch.chdir(tmp_path)
    with use_backend('torch'):
        exec(snippet, {})
    assert Parsed(tmp_path / 'runs' / 'umls' / 'report.html').texts['map'].startswith('t-SNE')
    assert 'MRR, umls-uniform' in Parsed(tmp_path / 'comparison.html').table('relations')[0]


@pytest.mark.parametrize(('options', 'told'), [
    ({'runs': []}, 'runs'), ({'runs': 3}, 'runs'), ({'runs': ['']}, 'runs'), ({'runs': b'x'}, 'runs'),
    ({'output': ''}, 'output'), ({'output': 'no/such/folder.html'}, 'no/such'), ({'output': '.'}, 'folder'),
    ({'split': 'all'}, 'split'), ({'which': 'first'}, 'which'), ({'projection': 'umap'}, 'umap'),
    ({'max_triples': 0}, 'max_triples'), ({'num_hardest': -1}, 'num_hardest'), ({'num_answers': 2.5}, 'num_answers'),
    ({'max_entities': True}, 'max_entities'), ({'other_facts': 'no'}, 'other_facts'),
    ({'progress': 1}, 'progress'), ({'device': 3}, 'device'),
    # Only the page about one run has these parts.
    *(({'runs': ['run', 'other'], name: value}, name) for name, value in
      (('num_hardest', 50), ('num_answers', 5), ('projection', 'tsne'), ('max_entities', 1000))),
    ({'projection': 'none', 'max_entities': 7}, 'max_entities'),
])
def test_wrong_arguments(options: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError) as caught:
        write_report(**{'runs': 'run', 'output': 'page.html', **options})
    assert told in str(caught.value)


def test_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(RecipeError) as caught:
            write_report(folder)
        assert str(folder) in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_without_plotly(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pyg_emu.experiments.report.write.find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match='plotly.*report'):
        write_report(trained / 'emu', tmp_path / 'page.html')


def test_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                 ) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ['--quiet', '--device', 'cpu', '--map', 'none', '--max-triples', '5', '--num-hardest', '2']
    with use_backend('torch'):
        assert main(['report', 'run', *flags]) == 0
        told = capsys.readouterr()
        assert told.out == f'{Path("run") / "report.html"}\n' and told.err.count('\n') == 1 and 'Entities' in told.err
        page = Parsed(run / 'report.html')
        assert len(page.table('hardest')) == 2 and page.table('metrics')[0]['ranks'] == '10'
        assert main(['report', 'run', 'run', '--output', 'both.html', *flags]) == 2
        assert 'several runs' in capsys.readouterr().err
        assert main(['report', 'run', 'run', '--output', 'both.html', '--quiet', '--max-triples', '5']) == 0
        assert Path('both.html').exists() and capsys.readouterr().out == 'both.html\n'
    assert main(['report', 'nowhere']) == 2
    assert 'nowhere' in capsys.readouterr().err
    assert main(['report', 'run', '--max-entities', '0']) == 2
    assert 'max_entities' in capsys.readouterr().err
