from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pytest

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.loggers import CSVLogger, Logger, RunInfo, TensorBoardLogger, check_loggers


def info(*rows: Mapping[str, float]) -> RunInfo:
    return RunInfo('run', None, int(rows[-1]['step']) if rows else 0, 10, rows)


class Own:
    def start(self, run: RunInfo) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


def test_csv(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / 'history.csv')
    logger.start(info())
    logger.log(1, {'step': 1, 'loss': 0.5})
    logger.log(2, {'loss': 0.25})
    logger.close()
    assert logger.path.read_text() == 'step,loss\n1,0.5\n2,0.25\n'
    again = CSVLogger(logger.path)
    again.start(info({'step': 1, 'loss': 0.5}))
    again.log(2, {'loss': 0.125})
    assert logger.path.read_text() == 'step,loss\n1,0.5\n2,0.125\n'


def test_csv_takes_new_columns(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / 'history.csv')
    logger.start(info())
    logger.log(1, {'loss': 0.5})
    logger.log(2, {'loss': 0.25, 'mrr': 0.1})
    logger.log(3, {'mrr': 0.2})
    assert logger.path.read_text() == 'step,loss,mrr\n1,0.5,\n2,0.25,0.1\n3,,0.2\n'


@pytest.mark.parametrize('found', ['', 'step,loss\n1,0', 'step,loss\n1,0.5\n9,9.0\n'])
def test_csv_mends_what_others_have_changed(tmp_path: Path, found: str) -> None:
    logger = CSVLogger(tmp_path / 'history.csv')
    logger.start(info())
    logger.log(1, {'loss': 0.5})
    logger.path.write_text(found)
    logger.log(2, {'loss': 0.25})
    assert logger.path.read_text() == 'step,loss\n1,0.5\n2,0.25\n'


def test_csv_keeps_a_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / 'mine.csv').write_text('mine')
    with pytest.raises(CheckpointError, match=r'mine\.csv'):
        CSVLogger(tmp_path / 'mine.csv').start(info())
    assert (tmp_path / 'mine.csv').read_text() == 'mine'


def test_csv_that_cannot_be_written(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / 'missing' / 'history.csv')
    logger.start(info())
    with pytest.raises(CheckpointError, match=r'missing/history\.csv .*No such file'):
        logger.log(1, {'loss': 1.0})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()['scalars']}


def row(step: int) -> dict[str, float]:
    return {'step': step, 'loss': step / 4}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    for first, last in ((0, 3), (2, 4)):  # killed after step 3, whose checkpoint is of step 2
        logger = TensorBoardLogger(tmp_path)
        logger.start(info(*({'step': step, 'loss': step} for step in range(1, first + 1))))
        for step in range(first + 1, last + 1):
            logger.log(step, {'step': step, 'loss': step + 10 * first})
        logger.close()
    assert scalars(tmp_path) == {'loss': [(1, 1), (2, 2), (3, 23), (4, 24)]}


@pytest.mark.parametrize('logged', [(), (1, 2), (1, 3), (1, 2, 3)])
def test_tensorboard_gets_the_rows_it_lacks(logged: tuple[int, ...], tmp_path: Path) -> None:
    r"""Those before it was asked for, and one whose checkpoint was written when the run was killed."""
    pytest.importorskip('tensorboard')
    if logged:
        logger = TensorBoardLogger(tmp_path / 'run')
        logger.start(info())
        for step in logged:
            logger.log(step, row(step))
        logger.close()
    for _ in range(2):
        logger = TensorBoardLogger(tmp_path / 'run')
        logger.start(info(row(1), row(2), row(3)))
        logger.log(4, row(4))
        logger.close()
        assert scalars(tmp_path / 'run') == {'loss': [(step, step / 4) for step in (1, 2, 3, 4)]}


def test_tensorboard_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match='pip install tensorboard'):
        TensorBoardLogger(tmp_path)


def test_protocol(tmp_path: Path) -> None:
    own = Own()
    assert isinstance(own, Logger) and isinstance(CSVLogger(tmp_path), Logger)
    assert check_loggers((own, )) == [own]


@pytest.mark.parametrize('loggers, place', [([Own(), print], r'\[1\]'), ([Own], r'\[0\]'), ('csv', ''), (Own(), '')])
def test_what_is_no_logger(loggers: Any, place: str) -> None:
    with pytest.raises(ArgumentError, match=f'loggers{place}: '):
        check_loggers(loggers)
