from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyg_emu.experiments.tuning import plots
from pyg_emu.experiments.tuning.report import trials_frame
from pyg_emu.experiments.tuning.space import SearchSpace, load_space


def make_trial(space: SearchSpace, *values: Any) -> Any:
    course = {'outcome': 'complete', 'best_step': 2, 'steps': 4, 'seconds': 1.5}
    return SimpleNamespace(params=dict(zip([p.key for p in space.parameters], values)), value=0.3,
                           user_attrs={'course': course})


def test_choices_stay_what_they_are(tmp_path: Path) -> None:
    space = load_space({'loss.adversarial_temperature': {'choices': [None, 0.5, 1]},
                        'negatives.shared': {'choices': [True, False]}})
    trials = [make_trial(space, None, True), make_trial(space, 0.5, False), make_trial(space, 1, True)]
    frame = trials_frame(trials, space, 'mrr')
    assert list(map(repr, frame['loss.adversarial_temperature'])) == ['None', '0.5', '1']
    assert list(map(repr, frame['negatives.shared'])) == ['True', 'False', 'True']
    pytest.importorskip('matplotlib')
    paths = plots.draw(frame, space.parameters, 'mrr', {}, tmp_path)
    assert [path.name for path in paths] == ['history.png', 'slice-loss.adversarial_temperature.png',
                                             'slice-negatives.shared.png']


def test_no_trial_yet() -> None:
    space = load_space({'loss.alpha': {'low': 0.1, 'high': 1.0}, 'negatives.shared': {'choices': [True, False]}})
    frame = trials_frame([], space, 'mrr')
    assert len(frame) == 0 and list(frame)[-2:] == ['loss.alpha', 'negatives.shared']
