r"""Tests that the notebooks run and contain their outputs."""
from __future__ import annotations

import base64
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / 'notebooks').glob('*.ipynb'))
#: Values of names in the first code cell of a notebook, for less training.
SHORTER: dict[str, dict[str, int]] = {
    '02_your_own_graph': {'STEPS': 20},
    '03_in_an_existing_loop': {'EPOCHS': 1, 'SEEDS': 1},
    '04_which_negatives': {'STEPS': 2, 'SEEDS': 1},
    '06_nbfnet_paths': {'UMLS_STEPS': 2},
    '08_outside_knowledge_graphs': {'STEPS': 1, 'SEEDS': 1},
}
# Text that reveals where a notebook was executed.
_PATH = re.compile(r'(?<![\w.~<])/(?:home|root|tmp|work|usr|Users|var|mnt|opt)/')


def cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'code']


def test_are_numbered() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f'{number + 1:02}_' for number in range(len(NOTEBOOKS))]
    assert len(NOTEBOOKS) >= 8


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip('matplotlib.pyplot')
    pytest.importorskip('pykeen', reason='UMLS comes with PyKEEN')
    pyplot.switch_backend('Agg')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.delenv('PYG_EMU_DATA', raising=False)
    namespace: dict[str, Any] = {'__name__': '__main__'}
    try:
        for number, cell in enumerate(cells(path)):
            exec(compile(''.join(cell['source']), f'{path.name}, code cell {number + 1}', 'exec'), namespace)
            if number == 0:
                shorter = SHORTER.get(path.stem, {})
                assert shorter.keys() <= namespace.keys()
                namespace |= shorter
    finally:
        pyplot.close('all')


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_was_executed(path: Path) -> None:
    code = cells(path)
    assert [cell['execution_count'] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell['outputs']]
    assert outputs and not any(output['output_type'] == 'error' for output in outputs)
    assert not any(output.get('name') == 'stderr' for output in outputs)
    images = [output['data']['image/png'] for output in outputs if 'image/png' in output.get('data', {})]
    assert all(len(base64.b64decode(''.join(image))) < 200_000 for image in images)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_says_nothing_of_the_machine(path: Path) -> None:
    text = re.sub(r'"image/png": "[^"]*"', '', path.read_text(encoding='utf-8'))
    assert not _PATH.search(text), _PATH.search(text)
