r"""The examples of graphs with one relation."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from examples import lightgcn, link_prediction

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


@pytest.mark.parametrize('example, epochs, random', [(lightgcn, (1, 8), 0.04), (link_prediction, (1, 25), 0.07)])
def test_example_learns(example: Any, epochs: tuple[int, int], random: float,
                        capsys: pytest.CaptureFixture[str]) -> None:
    short, longer = (example.main(epochs=number)['mrr'] for number in epochs)
    assert short < longer and random < longer <= 1.0
    assert f'{longer:.4f}' in capsys.readouterr().out
    assert example.main(epochs=1, uniform=True)['mrr'] != short
    assert len(Path(example.__file__).read_text().splitlines()) <= 100


def test_only_items_are_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    class Loader(lightgcn.TripletLoader):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                drawn.append(batch.neg_index)
                yield batch

    monkeypatch.setattr(lightgcn, 'TripletLoader', Loader)
    metrics = lightgcn.main(epochs=1)
    assert drawn and all(bool((index >= lightgcn.USERS).all()) for index in drawn)
    assert metrics.ranked()['competitors'].max() < lightgcn.ITEMS


def test_links_of_both_directions_do_not_compete() -> None:
    data = link_prediction.parts()
    # Each link of training is there in both directions, those of the test in one.
    assert data.num_facts('train') == 2 * (254 - 2 * 25) and data.num_facts('test') == 25
    assert data.edge_weight is not None and data.edge_weight.max() > 10
    metrics = link_prediction.main(epochs=1)
    assert metrics.info['filtered by'].endswith(f'{data.num_facts("all")} given facts')
