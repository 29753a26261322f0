from __future__ import annotations

from pathlib import Path

import pytest

from examples import quickstart

pytest.importorskip('pykeen', reason='UMLS is loaded from PyKEEN')


def test_quickstart_learns(capsys: pytest.CaptureFixture[str]) -> None:
    short, longer = quickstart.main(epochs=1)['mrr'], quickstart.main(epochs=6)['mrr']
    # With 135 entities, a random order has a mean reciprocal rank of about 0.04.
    assert 0.04 < short < longer <= 1.0
    assert longer > 0.3
    assert f'{longer:.3f}' in capsys.readouterr().out


def test_quickstart_without_emu_differs() -> None:
    assert quickstart.main(epochs=1, uniform=True)['mrr'] != quickstart.main(epochs=1)['mrr']


def test_quickstart_is_short() -> None:
    assert len(Path(quickstart.__file__).read_text().splitlines()) <= 90
