r"""Graphs in other formats on the command line: a run is trained on one and evaluated on another."""
from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from pyg_emu.data.io import load_dataset, write_fact_store
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.cli.options import put_source
from pyg_emu.experiments.layers import Layer, read_layer
from pyg_emu.experiments.provenance import merged_source

FACTS = pd.DataFrame([(f'x:e{head}', f'x:r{relation}', f'x:e{(head + relation) % 12}') for head in range(12)
                      for relation in range(1, 5)], columns=['head', 'relation', 'tail'])
SPLIT = ['test' if number % 8 == 3 else 'valid' if number % 8 == 6 else 'train' for number in range(len(FACTS))]
TINY = ['--dim', '4', '--steps', '2', '--negatives', '2', '--quiet', '--device', 'cpu']

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


def database(path: Path) -> Path:
    connection = sqlite3.connect(path)
    FACTS.assign(split=SPLIT).to_sql('facts', connection, index=False)
    FACTS[:3].to_sql('few', connection, index=False)
    connection.close()
    return path


def triples(path: Path) -> Path:
    path.write_text(''.join(f'<{head}> <{relation}> <{tail}> .\n' for head, relation, tail in FACTS.values)
                    + '<x:e0> <x:name> "zero" .\n')
    return path


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(['data', *arguments, '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('sqlalchemy')
    pytest.importorskip('pyoxigraph')
    path = database(tmp_path / 'kg.db')
    monkeypatch.chdir(tmp_path)
    for source in ('sqlite:///kg.db', 'kg.db', str(path)):
        assert report(capsys, source, '--table', 'facts', '--set', 'dataset.split=split')['train_facts'] == 36
    found = report(capsys, 'kg.db', '--query', 'SELECT * FROM few', '--set', 'dataset.fractions=[1, 0, 0]')
    assert found['train_facts'] == 3
    found = report(capsys, str(triples(tmp_path / 'kg.nt')), '--set', 'dataset.prefixes={x: "x:"}')
    assert found['num_nodes'] == 12 and any('literals' in sentence for sentence in found['warnings'])
    for arguments, said in ((['kg.db'], '2 tables'), (['kg.db', '--table', 'fact'], "'facts'"),
                            (['kg.nt', '--table', 'facts'], "'table'"),
                            (['kg.nt', '--set', 'dataset.delimiter=","'], 'delimiter'),
                            (['kg.nt', '--set', 'dataset.literals=refuse'], 'kg.nt:49')):
        assert main(['data', *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count('\n') == 1


def test_a_run_on_a_database_and_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('sqlalchemy')
    pytest.importorskip('pyoxigraph')
    database(tmp_path / 'kg.db')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYG_EMU_BACKEND', 'torch')
    run = str(tmp_path / 'run')
    assert main(['train', '--data', 'sqlite:///kg.db', '--table', 'facts', '--set', 'dataset.split=split', '--run-dir',
                 run, *TINY]) == 0
    assert f'source: sqlite:///{tmp_path}/kg.db' in (tmp_path / 'run' / 'recipe.yaml').read_text()
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    capsys.readouterr()
    assert main(['evaluate', run, '--json', '--quiet']) == 0
    first = json.loads(capsys.readouterr().out)
    # The same facts in files of splits, whose reader has no use for the options of the run.
    for split in ('train', 'valid', 'test'):
        FACTS[[name == split for name in SPLIT]].to_json(f'{split}.jsonl', orient='records', lines=True)
    assert main(['evaluate', run, '--data', '.', '--json', '--quiet']) == 0
    second = json.loads(capsys.readouterr().out)
    assert second['mrr'] == pytest.approx(first['mrr']) and second['tail']['mr'] == first['tail']['mr']
    # Facts that are known already, in RDF.
    (tmp_path / 'known.nt').write_text('<x:e0> <x:r1> <x:e5> .\n')
    assert main(['predict', run, '--head', 'x:e0', '--relation', 'x:r1', '-k', '12', '--exclude-known', '--known-facts',
                 str(tmp_path / 'known.nt'), '--csv', '--quiet']) == 0
    assert 'x:e5' not in [line.split(',')[2] for line in capsys.readouterr().out.splitlines()[1:]]


def test_options_of_a_run_go_with_data_that_they_apply_to(tmp_path: Path) -> None:
    (tmp_path / 'a.nt').write_text('<x:a> <x:r> <x:b> .\n')
    (tmp_path / 'a.tsv').write_text('a\tr\tb\n')
    recorded = {'source': 'old.txt', 'delimiter': ';', 'head': 2, 'seed': 5, 'format': 'text'}
    assert merged_source(str(tmp_path / 'a.nt'), recorded) == {'source': str(tmp_path / 'a.nt'), 'head': 2, 'seed': 5}
    assert merged_source(str(tmp_path / 'a.tsv'), recorded)['delimiter'] == ';'
    assert merged_source(str(tmp_path / 'a.nt'), recorded, whole=True) == {
        'source': str(tmp_path / 'a.nt'), 'head': 2, 'fractions': (1.0, 0.0, 0.0)}
    recorded = {'source': 'sqlite:///a.db', 'table': 'facts', 'split': 'split'}
    assert merged_source('sqlite:///b.db', recorded, whole=True) == {**recorded, 'source': 'sqlite:///b.db'}
    assert merged_source(str(tmp_path / 'a.nt'), recorded) == str(tmp_path / 'a.nt')
    assert merged_source('UMLS', {'source': 'old.txt', 'delimiter': ';', 'header': True}) == 'UMLS'


COLUMNS = ['dataset.head=2', 'dataset.tail=0', 'dataset.fractions=[0.5, 0.25, 0.25]', 'dataset.seed=3']


def test_data_over_a_recipe_is_read_with_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('a.tsv', 'b.tsv'):
        FACTS.to_csv(name, sep='\t', header=False, index=False)
    sets = [part for assignment in COLUMNS for part in ('--set', assignment)]
    assert main(['train', '--data', 'a.tsv', *sets, '--run-dir', 'a', *TINY]) == 0
    options = {'head': 2, 'tail': 0, 'fractions': [0.5, 0.25, 0.25], 'seed': 3}
    assert read_layer(Path('a/recipe.yaml')).values['dataset'] == {**options, 'source': str(tmp_path / 'a.tsv')}
    moved = ['--data', 'b.tsv', '--set', 'dataset.seed=4']
    assert main(['train', '--recipe', 'a/recipe.yaml', *moved, '--run-dir', 'b', *TINY]) == 0
    moved_options = {**options, 'source': str(tmp_path / 'b.tsv'), 'seed': 4}
    assert read_layer(Path('b/recipe.yaml')).values['dataset'] == moved_options
    pytest.importorskip('optuna')
    assert main(['tune', '--recipe', 'a/recipe.yaml', *moved, '--study', 'study', '--trials', '1', '--quiet',
                 '--device', 'cpu']) == 0
    assert read_layer(Path('study/best.yaml')).values['dataset'] == moved_options


def test_graph_for_inference_over_a_recipe_is_read_with_its_options(tmp_path: Path) -> None:
    recipe, flags = {'dataset': 'UMLS', 'inference': {'source': 'old.txt', 'head': 2}}, Layer()
    FACTS.to_csv(tmp_path / 'a.tsv', sep='\t', header=False, index=False)
    put_source(flags, 'inference', str(tmp_path / 'a.tsv'), '--inference', recipe, Layer())
    assert flags.values == {'inference': {'source': str(tmp_path / 'a.tsv'), 'head': 2}}


def test_fact_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_dataset(FACTS.assign(split=SPLIT), split='split')
    store = str(write_fact_store(data, tmp_path / 'store'))
    assert report(capsys, store)['train_facts'] == 36
    run, again = str(tmp_path / 'run'), str(write_fact_store(data, tmp_path / 'again'))
    assert main(['train', '--data', store, '--run-dir', run, *TINY]) == 0
    capsys.readouterr()
    for arguments in ([], ['--data', again]):
        assert main(['evaluate', run, '--quiet', *arguments]) == 0
        assert 'mrr' in capsys.readouterr().out.lower()
    assert main(['data', store, '--set', 'dataset.header=true']) == 2
    assert "'header'" in capsys.readouterr().err
