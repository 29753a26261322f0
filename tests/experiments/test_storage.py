r"""Runs whose entity rows are in memory-mapped files: the command line, run folders, and what is refused."""
from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from pyg_emu.core.errors import RecipeError
from pyg_emu.core.mapped_table import folder_of, is_mapped
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import open_run, run_recipe
from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint

SETTINGS: dict[str, Any] = {
    'model': {'name': 'DistMult', 'hidden_channels': 4, 'sparse': True}, 'storage': 'mmap', 'batch_size': 40,
    'num_steps': 6, 'evaluate_every': 3, 'negatives': {'num_negatives': 3}}
FLAGS = ['--dim', '4', '--negatives', '3', '--batch-size', '40', '--steps', '6', '--evaluate-every', '3', '--quiet',
         '--device', 'cpu', '--set', 'model.sparse=true']


@pytest.fixture(autouse=True)
def reference_backend() -> Any:
    with use_backend('torch'):
        yield


def call(*arguments: str) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        code = main(arguments)
    return code, out.getvalue(), error.getvalue()


def train(graph: Path, run: Path, *arguments: str) -> tuple[int, str, str]:
    return call('train', '--data', str(graph), '--run-dir', str(run), *FLAGS, *arguments)


def test_everything_of_a_run_folder(graph_folder: Path, tmp_path: Path) -> None:
    memory, mapped = tmp_path / 'memory', tmp_path / 'mapped'
    assert train(graph_folder, memory)[0] == 0
    assert train(graph_folder, mapped, '--storage', 'mmap')[0] == 0
    record = json.loads((mapped / 'run.json').read_text())
    assert record['storage'] == 'mmap' and 'tables' in record['files']
    data = open_run(memory)[1]
    head, relation = data.entity_labels[0], data.relation_labels[0]  # type: ignore[index]
    for command in (['evaluate', '--json'], ['evaluate', '--json', '--checkpoint', 'last'],
                    ['predict', '--head', head, '--relation', relation, '--csv'],
                    ['neighbors', '--entity', head, '--csv']):
        (code, told, _), (other_code, other, _) = (call(*command, '--run', str(run), '--device', 'cpu')
                                                   for run in (memory, mapped))
        assert code == other_code == 0 and told == other and told
    for run in (memory, mapped):
        assert call('export', '--run', str(run), '--output', str(run) + '.parquet')[0] == 0
    assert Path(f'{memory}.parquet').read_bytes() == Path(f'{mapped}.parquet').read_bytes()
    model, _, recipe = open_run(mapped)
    # Read where they are, and never changed.
    assert recipe.storage == 'mmap' and is_mapped(model.node_emb.weight) and folder_of(model.node_emb.weight) is None
    assert not is_mapped(model.rel_emb.weight) and not model.training and model.node_emb.weight.requires_grad
    with torch.no_grad():
        model.node_emb.weight.zero_()
    assert open_run(mapped)[0].node_emb.weight.any()


@pytest.mark.parametrize('first, then', [('memory', 'mmap'), ('mmap', 'memory'), ('mmap', 'mmap')])
def test_a_run_goes_on_with_either_storage(graph_folder: Path, tmp_path: Path, first: str, then: str) -> None:
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    assert train(graph_folder, whole)[0] == 0
    assert train(graph_folder, cut, '--storage', first, '--steps', '3')[0] == 0
    code, told, error = train(graph_folder, cut, '--storage', then)
    assert code == 0, error
    weights, expected = (open_run(run, which='last')[0].state_dict() for run in (cut, whole))
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert open_run(cut)[2].storage == then
    # The recipe of the folder is continued, with its storage.
    assert call('train', '--run-dir', str(cut), '--steps', '7', '--quiet', '--device', 'cpu')[0] == 0
    assert ('tables' in load_checkpoint(cut / 'last.pt')) == (then == 'mmap')
    assert train(graph_folder, cut, '--storage', 'memory', '--fresh')[0] == 0
    assert not (cut / 'tables').exists()


def test_weights_of_another_run(graph_folder: Path, tmp_path: Path) -> None:
    assert train(graph_folder, tmp_path / 'first', '--storage', 'mmap')[0] == 0
    recipe = load_recipe({'dataset': str(graph_folder), **SETTINGS, 'num_steps': 1})
    found = [run_recipe(recipe_of(recipe, storage), tmp_path / storage, weights=tmp_path / 'first' / 'best.pt',
                        device='cpu', progress=False).model.state_dict() for storage in ('memory', 'mmap')]
    assert all(torch.equal(value, found[0][key]) for key, value in found[1].items())


def recipe_of(recipe: Any, storage: str) -> Any:
    return load_recipe({**recipe.to_dict(), 'storage': storage})


@pytest.mark.parametrize('change, facts', [
    ({'model': {'name': 'DistMult', 'hidden_channels': 4}}, 'model.sparse: .*true.*False'),
    ({'model': {'name': 'NBFNet', 'num_layers': 2}, 'loss': 'nbfnet_emu', 'optimizer': {'name': 'adam', 'lr': 0.1}},
     'storage: NBFNet.*DistMult'),
    ({'model': {'name': 'RGCN', 'hidden_channels': 4}}, 'storage: RGCN.*DistMult'),
    ({'optimizer': {'name': 'sgd', 'lr': 0.1}}, 'optimizer.name: sgd .*adagrad.*sparse_adam'),
    ({'loss': {'name': 'emu', 'regularizer': {'name': 'l3', 'weight': 0.1}}}, 'loss.regularizer: .*l3.*n3'),
    ({'loss': {'name': 'one_vs_all_emu'}}, 'loss.name: .*one_vs_all_emu.*emu'),
    ({'graph': True}, 'graph: .*false.*true'), ({'storage': 'disk'}, "storage: .*'memory'.*'mmap'.*'disk'")])
def test_settings_that_do_not_go_together(change: dict[str, Any], facts: str) -> None:
    with pytest.raises(RecipeError, match=facts):
        load_recipe({'dataset': 'UMLS', **SETTINGS, **change})


def test_where_runs_do_not_go(graph_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe({'dataset': str(graph_folder), **SETTINGS})
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: run_recipe(recipe, device='cpu'), 'storage: .*run_dir'),
        (lambda: run_recipe(recipe, tmp_path / 'run', device='cpu', shard='entities'), "storage: .*shard='entities'")]
    for call_it, facts in refused:
        with pytest.raises(RecipeError, match=facts):
            call_it()
    monkeypatch.setattr('pyg_emu.experiments.runs.local_device', lambda _: torch.device('cuda:0'))
    with pytest.raises(RecipeError, match='storage: .*cpu.*cuda:0'):
        run_recipe(recipe, tmp_path / 'run')
    monkeypatch.undo()
    monkeypatch.setattr('pyg_emu.experiments.runs.current', lambda: (0, 2))
    with pytest.raises(RecipeError, match='storage: .*one process.*--shard entities'):
        run_recipe(recipe, tmp_path / 'run', device='cpu')
    assert not (tmp_path / 'run').exists()


def test_storage_decides_nothing() -> None:
    one, other = (load_recipe({'dataset': 'UMLS', **SETTINGS, 'storage': storage}) for storage in ('memory', 'mmap'))
    assert one.hash() == other.hash() and 'storage: mmap' in other.to_yaml()
    assert load_recipe(other.to_dict(), [Layer({'storage': 'memory'})]) == one
