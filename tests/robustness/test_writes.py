r"""A fault at each write of a run: whatever fails, the files agree, and the resumed run ends with the same bytes."""
from __future__ import annotations

import csv
import shutil
import types
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest
import torch

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, Trainer, TripletLoader
from pyg_emu.core.errors import CheckpointError
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.ops import use_backend
from pyg_emu.training.checkpoint import load_checkpoint
from pyg_emu.training.run_folder import RunFolder
from tests.robustness.cases import Cases
from tests.robustness.faults import KINDS, FaultyOs, Killed

#: The validation at each step: a new best comes with and without a checkpoint, and so do the others.
SCORES = {2: 0.3, 4: 0.2, 6: 0.5, 8: 0.4, 9: 0.6}


@pytest.fixture(autouse=True)
def same_time_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr('pyg_emu.training.trainer.time', types.SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr('pyg_emu.training.run_folder._commit', lambda: None)
    with use_backend('torch'):
        yield


def train(folder: Path, resume: Any = 'auto', evaluate_every: int = 2) -> Trainer:
    torch.manual_seed(0)
    edges = torch.randint(12, (2, 40))
    data = KGData(edges, torch.randint(3, (40, )), num_nodes=12, num_relations=3)
    model = DistMult(12, 3, 4)
    trainer = Trainer(model, EMULoss(), TripletLoader(data, 16, shuffle=True, transform=EMUNegatives(4)),
                      torch.optim.Adagrad(model.parameters(), lr=0.1), num_steps=9, evaluate_every=evaluate_every,
                      checkpoint_every=3, log_every=2, validate=lambda _: {'mrr': SCORES.get(trainer.step, 0.1)},
                      run_dir=folder, progress=False)
    trainer.fit(resume)
    return trainer


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_with(monkeypatch: pytest.MonkeyPatch, faulty: FaultyOs, run: Callable[[], Any]) -> Optional[BaseException]:
    with monkeypatch.context() as patch:
        patch.setattr('pyg_emu.core.files.os', faulty)
        try:
            run()
        except (CheckpointError, Killed) as error:  # and nothing else
            return error
    return None


def check_agreement(folder: Path, expected: dict[str, bytes]) -> None:
    r"""What a run has left names one best step, and no row that an undisturbed run would not have written."""
    run = RunFolder(folder)
    if not run.last.exists():
        assert not run.best.exists() and not run.history.exists()
        return
    state = load_checkpoint(run.last)
    best = state['run']['best_step']
    if best is not None:
        assert load_checkpoint(run.weights('best'))['step'] == best
    steps = state['history']['values'][:, 0].tolist() if state['history']['columns'] else []
    assert steps == [step for step in SCORES if step <= state['step']]
    if run.history.exists():
        lines = run.history.read_bytes().splitlines(keepends=True)
        assert expected['history.csv'].startswith(b''.join(line for line in lines if line.endswith(b'\n')))


def test_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: Cases) -> None:
    counting = FaultyOs()
    assert run_with(monkeypatch, counting, lambda: train(tmp_path / 'whole')) is None
    expected = contents(tmp_path / 'whole')
    assert set(expected) == {'last.pt', 'best.pt', 'history.csv', 'metrics.json', 'versions.json', 'run.json'}
    assert load_checkpoint(tmp_path / 'whole' / 'best.pt')['step'] == 9
    assert len(counting.calls) > 100 and {'open', 'write', 'fsync', 'replace', 'unlink'} <= set(counting.calls)
    everything = [(at, kind) for at in range(len(counting.calls)) for kind in KINDS]
    folder = tmp_path / 'cut'
    for at, kind in cases.chosen(everything, least=40):
        shutil.rmtree(folder, ignore_errors=True)
        with cases.attempt((at, kind, counting.calls[at])):
            faulty = FaultyOs(at, kind)
            error = run_with(monkeypatch, faulty, lambda: train(folder))
            # Cleaning up may fail without a word, and what is written in part is written on.
            assert error is not None or faulty.calls[at] == 'unlink'
            check_agreement(folder, expected)
            train(folder)
            assert contents(folder) == expected


def test_every_write_of_a_run_that_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: Cases) -> None:
    train(tmp_path / 'whole')
    train(tmp_path / 'old', evaluate_every=3)
    expected = contents(tmp_path / 'whole')
    folder = tmp_path / 'cut'

    def prepared() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / 'old', folder)
        return folder

    counting = FaultyOs()
    prepared()
    run_with(monkeypatch, counting, lambda: train(folder, resume=False))
    assert contents(folder) == expected
    # Up to the first step: what follows is the same as above.
    until = counting.calls.index('open', 60)
    for at, kind in cases.chosen([(at, kind) for at in range(until) for kind in ('raise', 'kill')], least=15):
        prepared()
        with cases.attempt((at, kind, counting.calls[at])):
            run_with(monkeypatch, FaultyOs(at, kind), lambda: train(folder, resume=False))
            if contents(folder)['run.json'] != contents(tmp_path / 'old')['run.json']:
                train(folder)  # the old run is being removed, or is gone: the new one is all there is to continue
            else:
                train(folder, resume=False)
            assert contents(folder) == expected


def test_every_write_of_a_recipe(tmp_path: Path, graph_folder: Path, monkeypatch: pytest.MonkeyPatch,
                                 cases: Cases) -> None:
    recipe = load_recipe({'dataset': str(graph_folder), 'model': {'hidden_channels': 4},
                          'negatives': {'num_negatives': 3}, 'batch_size': 40, 'num_steps': 4, 'evaluate_every': 2},
                         [assignment_layer(())])

    def train_recipe(folder: Path) -> None:
        run_recipe(recipe, folder, progress=False, device='cpu')

    train_recipe(tmp_path / 'whole')  # once before counting: the backends of all operators are known from then on
    shutil.rmtree(tmp_path / 'whole')
    counting = FaultyOs()
    assert run_with(monkeypatch, counting, lambda: train_recipe(tmp_path / 'whole')) is None
    expected = contents(tmp_path / 'whole')
    assert {'recipe.yaml', 'trained_on.json'} <= set(expected) and b'"test"' in expected['metrics.json']
    folder = tmp_path / 'cut'
    for at, kind in cases.chosen([(at, kind) for at in range(len(counting.calls)) for kind in KINDS], least=8):
        shutil.rmtree(folder, ignore_errors=True)
        with cases.attempt((at, kind, counting.calls[at])):
            run_with(monkeypatch, FaultyOs(at, kind), lambda: train_recipe(folder))
            train_recipe(folder)
            assert contents(folder) == expected


@pytest.mark.parametrize('at', range(8))
def test_rows_that_others_cut_are_mended(tmp_path: Path, at: int) -> None:
    train(tmp_path / 'whole')
    whole = (tmp_path / 'whole' / 'history.csv').read_bytes()
    path = tmp_path / 'whole' / 'history.csv'
    path.write_bytes(whole[:len(whole) * at // 8])
    train(tmp_path / 'whole')
    assert path.read_bytes() == whole
    assert [row['step'] for row in csv.DictReader(whole.decode().splitlines())] == [str(step) for step in SCORES]
