r"""Tests of the NBFNet pieces of the GPU suite, beyond its smoke run."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_nbfnet
from benchmarks._contenders import generate
from benchmarks._gpu_pieces import Unfinished, Work
from benchmarks._record import read_result
from pyg_emu.experiments.build import build
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.ops.relational import EdgeOrders, relational_conv
from pyg_emu.training.interrupt import TrainingInterrupted


def test_contenders_compute_the_same() -> None:
    edges = EdgeOrders.of(generate(9, 2, 30).with_inverse_relations())
    x, relation = torch.randn(9, 2, 3), torch.randn(2, 4, 3)
    order = edges.by_target
    for aggregate in ('sum', 'pna'):
        found = gpu_nbfnet.plain(x, relation.transpose(0, 1), order.source, order.relation, order.target, aggregate)
        expected = relational_conv(x, relation, edges, aggregate=aggregate, backend='torch')  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected)


def test_states_are_packed_in_few_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_nbfnet, 'PART_BYTES', 4000)
    run = tmp_path / 'run'
    run.mkdir()
    contents = {'last.pt': bytes(range(25)), 'history.csv': b'step\n', 'empty': b'', 'best.pt': bytes(20)}
    for name, content in contents.items():
        (run / name).write_bytes(content)
    written = gpu_nbfnet.pack(run, tmp_path / 'packed')
    assert sorted((tmp_path / 'packed').iterdir()) == written and len(written) > 1
    sizes = [path.stat().st_size for path in written]
    assert set(sizes[:-1]) == {4000} and 0 < sizes[-1] <= 4000
    gpu_nbfnet.unpack(tmp_path / 'packed', tmp_path / 'again')
    assert {path.name: path.read_bytes() for path in (tmp_path / 'again').iterdir()} == contents


def test_full_run_goes_on_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, first, second = tmp_path / 'out', tmp_path / 'first', tmp_path / 'second'
    run_recipe, steps = gpu_nbfnet.run_recipe, []

    def interrupted(recipe, *arguments, **options):  # type: ignore[no-untyped-def]
        run_recipe(recipe, *arguments, **{**options, 'on_validation': stop})

    def stop(step: int, metrics: object) -> None:
        steps.append(step)
        raise TrainingInterrupted('stopped')

    monkeypatch.setattr(gpu_nbfnet, 'run_recipe', interrupted)
    with pytest.raises(Unfinished, match='step 1 of 4'):
        gpu_nbfnet.train('', Work('nbfnet_train_emu', out, smoke=True), runs=first)
    unfinished = read_result('nbfnet_train_emu_unfinished', out)['metrics']
    # The last checkpoint is from the step before the validation.
    assert steps == [2] and unfinished['steps'] == 1 and unfinished['of_steps'] == 4 and 'test' not in unfinished

    monkeypatch.setattr(gpu_nbfnet, 'run_recipe', run_recipe)
    gpu_nbfnet.pack(first / 'nbfnet-emu', second / 'state' / 'nbfnet-emu')
    gpu_nbfnet.train('', Work('nbfnet_train_emu', out, smoke=True), runs=second)
    finished = read_result('nbfnet_train_emu', out)['metrics']
    assert finished['steps'] == 4 and 0 < finished['test']['mrr'] <= 1
    assert [row['step'] for row in finished['history']] == [2, 4]
    assert not (out / 'nbfnet_train_emu_unfinished.json').exists()


def test_compiled_gathers_are_compared_with_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter(range(1, 99))
    monkeypatch.setattr(gpu_nbfnet, '_measure', lambda *_: {'ms': float(next(measured)), 'peak_gib': 0.0})
    path = gpu_nbfnet.relational(Work('compiled_nbfnet', tmp_path, smoke=True), compiled=True)
    metrics = read_result(path.stem, tmp_path)['metrics']
    assert len(metrics['cases']) == 16 and len(metrics['ratios']) == 8
    # The operator is measured first: forward, then both directions. Then the gathers are.
    assert metrics['ratios']['pna, float32, forward: compiled / ours'] == 3 / 1
    assert metrics['ratios']['pna, float32, forward and backward: compiled / ours'] == 4 / 2


def test_full_state_of_fb15k237_fits_into_eight_files_with_its_result() -> None:
    recipe = load_recipe('nbfnet-fb15k237')
    with torch.device('meta'):
        model = build('model', recipe.model, num_nodes=14_541, num_relations=237)
    weights = sum(value.nbytes for value in model.parameters())
    # The last weights, two moments of Adam for each, and the best weights.
    assert 4 * weights / gpu_nbfnet.PART_BYTES < 6
    assert gpu_nbfnet.PART_BYTES < 16 * 2**20
