r"""Training with entity rows and optimiser state in files takes the steps of training in memory, and survives kills."""
from __future__ import annotations

import errno
import os
import shutil
import types
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest
import torch

from pyg_emu import (
    DistMult,
    EMULoss,
    EMUNegatives,
    KGData,
    L3Regularizer,
    N3Regularizer,
    OneVsAllEMULoss,
    RotatE,
    RowAdagrad,
    RowAdam,
    SharedNegativesSampler,
    Trainer,
    TripletLoader,
    embeddings,
    evaluate,
    neighbors,
    predict,
    score,
)
from pyg_emu.core.errors import ArgumentError, CheckpointError, OutOfMemoryError
from pyg_emu.core.mapped_table import folder_of, is_mapped
from pyg_emu.models import Reciprocal, map_entities
from pyg_emu.models.mapped import mapped_tables
from pyg_emu.ops import use_backend
from pyg_emu.training import SwitchOptimizer
from pyg_emu.training.checkpoint import load_checkpoint, load_weights
from tests.robustness.faults import FaultyOs, Killed

NODES, RELATIONS, WIDTH = 12, 3, 4
#: The validation at each step: new bests and others, with a checkpoint and without.
SCORES = {2: 0.3, 4: 0.2, 6: 0.5, 8: 0.4, 9: 0.6}

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    'Adagrad': lambda values: RowAdagrad(values, lr=0.1),
    'Adagrad, initial sum': lambda values: RowAdagrad(values, lr=0.1, initial_accumulator_value=0.1, lr_decay=0.01),
    'Adam': lambda values: RowAdam([*values], lr=0.05),
}


@pytest.fixture(autouse=True)
def same_time_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr('pyg_emu.training.trainer.time', types.SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr('pyg_emu.training.run_folder._commit', lambda: None)
    monkeypatch.setattr('pyg_emu.core.files.os', FaultyOs())  # does not wait for the disk
    with use_backend('torch'):
        yield


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(0)
    return KGData(torch.randint(NODES, (2, 40), generator=generator), torch.randint(RELATIONS, (40, ),
                                                                                    generator=generator),
                  NODES, RELATIONS, valid_edge_index=torch.randint(NODES, (2, 8), generator=generator),
                  valid_edge_type=torch.randint(RELATIONS, (8, ), generator=generator))


def make_model(folder: Path | None, kind: Any = DistMult) -> Any:
    torch.manual_seed(0)
    if folder is None:
        return kind(NODES, RELATIONS, WIDTH, sparse=True)
    with torch.device('meta'):
        model = kind(NODES, RELATIONS, WIDTH, sparse=True)
    return map_entities(model, folder)


def make_trainer(scratch: Path | None, run_dir: Path | None = None, optimizer: str = 'Adagrad', kind: Any = DistMult,
                 transform: Any = None, criterion: Any = None, **options: Any) -> Trainer:
    model = make_model(scratch, kind)
    loader = TripletLoader(make_data(), 16, shuffle=True, transform=transform or EMUNegatives(4, mutation_rate=0.4))
    settings = {'num_steps': 9, 'evaluate_every': 2, 'checkpoint_every': 3, 'log_every': 2,
                'validate': lambda _: {'mrr': SCORES.get(trainer.step, 0.1)}, **options}
    trainer = Trainer(model, criterion or EMULoss(), loader, OPTIMIZERS[optimizer](model.parameters()),
                      run_dir=run_dir, progress=False, **settings)
    return trainer


def states(trainer: Trainer) -> dict[str, torch.Tensor]:
    r"""Weights and optimiser state by name."""
    found = dict(trainer.model.state_dict())
    for number, values in trainer.schedule.optimizer.state_dict()['state'].items():
        found |= {f'{number}.{key}': torch.as_tensor(value) for key, value in values.items()}
    return found


def assert_same(one: Trainer, other: Trainer) -> None:
    found, expected = states(one), states(other)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('options', [
    {}, {'max_grad_norm': 0.01}, {'kind': RotatE, 'criterion': EMULoss(regularizer=N3Regularizer(0.1))},
    {'kind': lambda nodes, relations, width, sparse: Reciprocal(DistMult(nodes, 2 * relations, width, sparse=sparse)),
     'transform': EMUNegatives(8, sampler=SharedNegativesSampler(5))}])
def test_steps_are_those_in_memory(tmp_path: Path, optimizer: str, options: dict[str, Any]) -> None:
    trained = []
    for scratch in (None, tmp_path):
        trainer = make_trainer(scratch, optimizer=optimizer, restore_best=False, **options)
        trainer.fit()
        trained.append(trainer)
    memory, mapped = trained
    assert_same(mapped, memory)
    (table, ) = mapped_tables(mapped.model)
    assert not torch.equal(table, make_trainer(None, **options).model.state_dict()[
        next(key for key in mapped.model.state_dict() if 'node_emb' in key)])
    assert table.grad is not None and table.grad.is_sparse
    moments = [value for value in mapped.optimizer.state[table].values() if torch.as_tensor(value).dim() == 2]
    assert moments and all(folder_of(value) == tmp_path for value in moments)
    # Relations are not in files, and nothing has a name.
    assert sum(map(is_mapped, mapped.model.parameters())) == 1 and [*tmp_path.iterdir()] == []


def test_steps_of_the_kernels_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pyg_emu.core.mapped_table._Waiting.look', lambda: True)  # rows are read ahead, too
    trained = []
    with use_backend(None):
        for scratch in (None, tmp_path):
            trainer = make_trainer(scratch, restore_best=False)
            trainer.fit()
            trained.append(trainer)
    assert_same(*trained)


def test_best_weights_without_a_run_folder(tmp_path: Path) -> None:
    scores = {'validate': lambda _: {'mrr': -float(trainer.step)}}  # the first one is the best
    found = []
    for scratch in (None, tmp_path):
        trainer = make_trainer(scratch, **scores)
        assert trainer.fit().best_step == 2
        found.append(trainer.model.state_dict())
    assert all(torch.equal(value, found[0][key]) for key, value in found[1].items())
    assert is_mapped(found[1]['node_emb.weight'])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_files_of_a_run(tmp_path: Path) -> None:
    memory, mapped = make_trainer(None, tmp_path / 'memory'), make_trainer(tmp_path, tmp_path / 'run')
    results = [trainer.fit() for trainer in (memory, mapped)]
    assert results[0].history.equals(results[1].history) and results[1].best_step == 9
    files = contents(tmp_path / 'run')
    last, best = (load_checkpoint(tmp_path / 'run' / f'{name}.pt') for name in ('last', 'best'))
    tables = [name for name in files if name.startswith('tables')]
    assert len(tables) == 2 and last['tables'] == best['tables']
    assert {Path(name).name for name in tables} == {'model.node_emb.weight.npy', 'optimizer.state.0.sum.npy'}
    assert {Path(name).parent.name for name in tables} == {last['tables']['folder']}
    # Of the entities, checkpoints hold no rows.
    assert not isinstance(last['model']['node_emb.weight'], torch.Tensor)
    # Others read the rows without this package.
    rows = np.load(tmp_path / 'run' / next(name for name in tables if 'node_emb' in name), mmap_mode='r')
    plain = load_checkpoint(tmp_path / 'memory' / 'last.pt')
    assert np.array_equal(rows, plain['model']['node_emb.weight'].numpy())
    # Any model reads them.
    for model in (make_model(None), make_model(tmp_path)):
        assert load_weights(tmp_path / 'run' / 'best.pt', model) == 9
        assert torch.equal(model.node_emb.weight, memory.model.node_emb.weight)


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('first, then', [(True, True), (True, False), (False, True)])
def test_resumed_runs_come_to_the_same_end(tmp_path: Path, optimizer: str, first: bool, then: bool) -> None:
    whole = make_trainer(None, tmp_path / 'whole', optimizer)
    whole.fit()
    cut = make_trainer(tmp_path if first else None, tmp_path / 'cut', optimizer, num_steps=5)
    cut.fit()
    resumed = make_trainer(tmp_path if then else None, tmp_path / 'cut', optimizer)
    resumed.fit(resume=True)
    assert_same(resumed, whole)
    assert len([*mapped_tables(resumed.model)]) == int(then)
    (value, ) = (value for key, value in resumed.optimizer.state[next(resumed.model.parameters())].items()
                 if key in ('sum', 'exp_avg'))
    assert is_mapped(value) == then
    # Tables that no checkpoint refers to are gone.
    left = {path.name for path in (tmp_path / 'cut' / 'tables').glob('*')}
    states = [load_checkpoint(tmp_path / 'cut' / f'{name}.pt') for name in ('last', 'best')]
    assert left == {state['tables']['folder'] for state in states if 'tables' in state}


def test_a_second_optimizer(tmp_path: Path) -> None:
    def make(scratch: Path | None, run_dir: Path, **options: Any) -> Trainer:
        return make_trainer(scratch, run_dir, schedule=SwitchOptimizer(at=0.5, sparse=True), **options)

    whole = make(None, tmp_path / 'whole')
    whole.fit()
    cut = make(tmp_path, tmp_path / 'cut', max_seconds=None, validate=lambda _: stop(cut))
    with pytest.raises(RuntimeError, match='stopped'):
        cut.fit()
    assert cut.step == 6 and isinstance(cut.schedule.optimizer, RowAdam)
    resumed = make(tmp_path, tmp_path / 'cut')
    resumed.fit(resume=True)
    assert_same(resumed, whole)


def stop(trainer: Trainer) -> dict[str, float]:
    if trainer.step == 6:
        raise RuntimeError('stopped')
    return {'mrr': SCORES.get(trainer.step, 0.1)}


def test_kills_at_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path, faulty: FaultyOs) -> None:
        with monkeypatch.context() as patch:
            patch.setattr('pyg_emu.core.files.os', faulty)
            make_trainer(tmp_path, folder).fit()

    counting = FaultyOs()
    run(tmp_path / 'whole', counting)
    expected = contents(tmp_path / 'whole')
    assert len(counting.calls) > 150
    folder = tmp_path / 'cut'
    # All those of a checkpoint with a new best, its tables first, and some of the others.
    cases = [(at, ('kill', 'torn', 'raise', 'short')[at % 4]) for at in (*range(70, 95), *range(3, 180, 21))]
    for at, kind in cases:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            run(folder, FaultyOs(at, kind))
        except (CheckpointError, Killed):  # and nothing else
            pass
        run(folder, FaultyOs())
        assert contents(folder) == expected, (at, kind)


def test_a_full_disk_leaves_no_half_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trainer(tmp_path, tmp_path / 'run', num_steps=3).fit()
    kept = contents(tmp_path / 'run')

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr('pyg_emu.training.tables.write_table', full)
        with pytest.raises(CheckpointError, match='No space left'):
            make_trainer(tmp_path, tmp_path / 'run').fit()
    assert {name for name in contents(tmp_path / 'run') if name.startswith('tables')} == {
        name for name in kept if name.startswith('tables')}


def test_damaged_and_missing_tables(tmp_path: Path) -> None:
    make_trainer(tmp_path, tmp_path / 'run').fit()
    (rows, ) = (tmp_path / 'run' / 'tables').rglob('*node_emb*')
    content = rows.read_bytes()
    rows.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for use in (lambda: make_trainer(tmp_path, tmp_path / 'run', num_steps=12).fit(),
                lambda: load_weights(tmp_path / 'run' / 'best.pt', make_model(None))):
        with pytest.raises(CheckpointError, match='node_emb.weight.npy.*damaged'):
            use()
    rows.unlink()
    with pytest.raises(CheckpointError, match='node_emb.weight.npy'):
        load_weights(tmp_path / 'run' / 'best.pt', make_model(None))


def test_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, memory, mapped = make_data(), make_model(None), make_model(tmp_path)
    for answer in (lambda model: evaluate(model, data, 'valid').to_dict(),
                   lambda model: evaluate(model, data, 'valid', candidates=[0, 1, 2, 3]).to_dict(),
                   lambda model: predict(model, data, heads=0, relations=1, k=5).to_dict(),
                   lambda model: score(model, data, data.facts('valid')).to_dict(),
                   lambda model: embeddings(model, data).to_dict(),
                   lambda model: neighbors(model, data, 3, k=4).to_dict()):
        assert answer(memory) == answer(mapped)
    # Vectors of all entities at once are an answer in memory.
    monkeypatch.setattr('pyg_emu.core.memory.installed_memory', lambda: 100)
    with pytest.raises(OutOfMemoryError, match='np.load'):
        embeddings(mapped, data)


def test_what_does_not_go_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path)

    def trainer(model: Any = model, criterion: Any = None, optimizer: Any = None, **options: Any) -> Trainer:
        loader = TripletLoader(make_data(), 16, transform=EMUNegatives(4))
        return Trainer(model, criterion or EMULoss(), loader, optimizer or RowAdagrad(model.parameters(), lr=0.1),
                       num_steps=2, progress=False, **options)

    for options, facts in (({'optimizer': torch.optim.SGD(model.parameters(), lr=0.1)}, 'optimizer: .*RowAdagrad.*SGD'),
                           ({'optimizer': torch.optim.Adam(model.parameters())}, 'optimizer: .*RowAdam.*Adam'),
                           ({'optimizer': RowAdagrad([model.rel_emb.weight], lr=0.1)}, 'optimizer: .*map_entities'),
                           ({'graph': True}, 'graph: .*False.*True')):
        with pytest.raises(ArgumentError, match=facts):
            trainer(**options)
    for criterion, facts in ((EMULoss(regularizer=L3Regularizer(0.1)), 'N3Regularizer'),
                             (OneVsAllEMULoss(), 'EMULoss')):
        with pytest.raises(ArgumentError, match=facts):
            trainer(criterion=criterion).fit()

    with pytest.raises(ArgumentError, match='optimizer: .*RowAdam.*Adam'):  # once the schedule has changed to it
        trainer(schedule=SwitchOptimizer(at=0.5)).fit()

    def dense(model: Any, batch: Any) -> torch.Tensor:
        return model.entity_table().sum()

    for make in (RowAdagrad, RowAdam):
        with pytest.raises(ArgumentError, match=r'dense gradient.*\(12, 4\)'):
            trainer(criterion=dense, optimizer=make([*model.parameters()], lr=0.1)).fit()
    monkeypatch.setattr('pyg_emu.models.mapped.current', lambda: (0, 2))
    with pytest.raises(ArgumentError, match='shard_entities'):
        map_entities(DistMult(NODES, RELATIONS, WIDTH, sparse=True), tmp_path)
    monkeypatch.setattr('pyg_emu.training.trainer.current', lambda: (0, 2))
    with pytest.raises(ArgumentError, match='shard_entities'):
        trainer().fit()
