from __future__ import annotations

import pandas as pd
import pytest

from pyg_emu.core.errors import ArgumentError
from pyg_emu.training import TrainResult


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
