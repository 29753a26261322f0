from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training import TrainResult
from pyg_emu.training.history import History
from pyg_emu.training.run_state import Progress, _check_values, _progress


def result(**columns: list[float]) -> TrainResult:
    history = pd.DataFrame({'step': [10, 20, 30], 'loss': [3.0, 2.0, 1.0], **columns})
    best = None if not columns else 20
    return TrainResult(30, best, None if best is None else 0.5, {}, history, 12.3, False)


def test_a_result_plots_its_history() -> None:
    pytest.importorskip('matplotlib')
    figure = result(valid_mrr=[0.1, 0.5, float('nan')], valid_mr=[9.0, 8.0, 7.0]).plot()
    loss, mrr = figure.axes
    assert loss.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0] and loss.get_ylabel() == 'loss'
    # Where a metric is missing, its line has no point; the best step is marked.
    assert mrr.lines[0].get_xdata().tolist() == [10, 20] and list(mrr.lines[1].get_xdata()) == [20, 20]
    assert result(valid_mr=[9.0, 8.0, 7.0]).plot('mr').axes[1].get_ylabel() == 'validation mr'
    assert len(result().plot().axes) == 1
    with pytest.raises(ArgumentError) as caught:
        result(valid_mr=[9.0, 8.0, 7.0]).plot('hits@10')
    assert 'mr' in str(caught.value) and 'hits@10' in str(caught.value)


def test_a_result_shows_itself_in_a_notebook() -> None:
    shown = result(valid_mrr=[0.1, 0.5, 0.4])._repr_html_()
    assert '30 steps' in shown and 'step 20: 0.5000' in shown and '<table' in shown
    assert 'best' not in result()._repr_html_()


@pytest.mark.parametrize(('name', 'value'), [
    ('best_metric', torch.tensor([])), ('step', True), ('step', None), ('reported', []), ('metric', 3),
    ('mode', 1), ('stale', 'x')])
def test_an_entry_of_another_type_is_named(name: str, value: Any) -> None:
    good = asdict(Progress(step=3, best_step=2, best_metric=0.5, metric='mrr'))
    assert _progress(good, Path('last.pt')) == Progress(**good)
    with pytest.raises(CheckpointError) as caught:
        _progress({**good, name: value}, Path('last.pt'))
    assert 'last.pt' in str(caught.value) and f'run.{name}' in str(caught.value)


def test_a_state_without_its_moments_is_named() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adagrad([weight])
    state = optimizer.state_dict()
    _check_values(state, Path('last.pt'))
    state['state'][0]['sum'] = None
    with pytest.raises(CheckpointError, match=r'last\.pt.*optimizer\.state\.0\.sum'):
        _check_values(state, Path('last.pt'))
    # SGD without momentum notes that it has none, and other optimisers may note anything.
    _check_values({'state': {0: {'momentum_buffer': None, 'mine': 'text'}}}, Path('last.pt'))


def test_a_history_without_steps_is_refused() -> None:
    history = History()
    history.append({'step': 1, 'loss': 0.5})
    state = history.state_dict()
    again = History()
    again.load_state_dict(state)
    assert again.rows == history.rows
    state['present'] = torch.zeros_like(state['present'])
    with pytest.raises(CheckpointError, match='step'):
        again.load_state_dict(state)
