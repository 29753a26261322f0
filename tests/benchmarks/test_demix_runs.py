r"""Recipes of the rows of the DeMix paper: one for each row, and each of them loads."""
from __future__ import annotations

import math

import pytest

from benchmarks import demix_paper, demix_runs
from benchmarks._reproduction import entries
from benchmarks.papers import file_stem, paper_of
from benchmarks.reproduce import parse
from pyg_emu.experiments.recipe import load_recipe


def test_tables_have_the_values_of_the_paper() -> None:
    rows = {(row.source, row.dataset, row.model, row.method): row.metrics for row in demix_paper.rows()}
    assert rows['DeMix Table 2', 'FB15k-237', 'TransE', 'DeMix-Adv']['mrr'].mean == 0.318
    assert rows['DeMix Table 2', 'WN18RR', 'TransE', 'DeMix-Adv']['hits@10'].mean == 0.521
    assert rows['DeMix Table 3', 'FB15k-237', 'RotatE', 'CANS']['hits@3'].mean == 0.329
    assert rows['DeMix Table 3', 'WN18RR', 'RotatE', 'CANS']['mrr'].mean is None
    assert rows['DeMix Table 4', 'WN18RR', 'ComplEx', 'ESNS']['hits@10'].mean == 0.512
    assert rows['DeMix Table 6', 'FB15k-237', 'HAKE', '-AdaMix']['hits@1'].mean == 0.198
    assert rows['DeMix Table 4', 'UMLS', 'DistMult', 'Uniform']['mrr'].mean is None


@pytest.mark.parametrize('table', demix_paper.TABLES)
def test_every_row_has_a_recipe_that_loads(table: int) -> None:
    found = entries(f'DeMix Table {table}', 'demix')
    assert found
    for entry in found:
        recipe = load_recipe(entry.path)
        assert (recipe.dataset, recipe.model['name']) == (entry.row.dataset, entry.row.model)
        assert recipe.loss['name'] == 'demix'
        assert bool(recipe.negatives.get('mutation')) == (entry.row.method.startswith(('DeMix', '-')))


def test_rows_differ_from_their_baseline_in_their_negatives_only() -> None:
    base = load_recipe(demix_runs.RECIPES / 'demix' / 'FB15k-237' / 'transe-self-adv.yaml')
    ours = load_recipe(demix_runs.RECIPES / 'demix' / 'FB15k-237' / 'transe-demix-adv.yaml')
    assert (base.model, base.loss, base.optimizer, base.num_steps) == (ours.model, ours.loss, ours.optimizer,
                                                                       ours.num_steps)
    assert ours.negatives['num_negatives'] == base.negatives['num_negatives'] == 16
    without = load_recipe(demix_runs.RECIPES / 'demix' / 'FB15k-237' / 'hake-demix-no-mpne.yaml')
    assert math.isinf(without.negatives['mutation']['mu'])


def test_results_and_tables_have_a_folder_of_their_own() -> None:
    entry = entries('DeMix Table 2', 'demix')[0]
    assert entry.result(None, 1) == 'demix/FB15k-237/transe-uniform-seed1'
    assert file_stem('DeMix Table 2') == 'table-2' and file_stem('Table 8') == 'table-8'
    assert paper_of('Table 8').group == 'reproduction'


def test_command_line_names_the_tables_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(['--paper', 'DeMix', '--table', '2']).source == 'DeMix Table 2'
    assert parse(['--paper', 'DeMix', '--figure', '1']).reading == 'demix'
    with pytest.raises(SystemExit):
        parse(['--paper', 'DeMix', '--table', '8'])
    assert '2, 3, 4, 5, 6' in capsys.readouterr().err
