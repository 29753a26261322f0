r"""The file itself: what it may run and load, and what a browser makes of it."""
from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from pyg_emu.experiments.report import Report, write_report
from pyg_emu.ops import use_backend
from tests.experiments.report.conftest import ENTITIES
from tests.experiments.report.pages import Parsed

pytest.importorskip('plotly')

#: Names of the browser, in the order in which they are tried.
BROWSERS = ('chromium', 'chromium-browser', 'chromium-headless-shell', 'google-chrome', 'chrome')
SECTIONS = ['summary', 'training', 'metrics', 'relations', 'hardest', 'map', 'data', 'settings']

#: What a reader does with the page, and what the page answers.
ACTIONS = r"""
const say = (name, value) => document.body.setAttribute('data-' + name, JSON.stringify(value));
const section = document.querySelector('#relations');
const column = () => [...section.querySelectorAll('tbody tr')].map(row => row.cells[4].textContent);
say('before', column());
const heading = section.querySelectorAll('th')[4];
heading.querySelector('button').click();
say('descending', [heading.getAttribute('aria-sort'), column()]);
heading.querySelector('button').click();
say('ascending', [heading.getAttribute('aria-sort'), column()]);
const hardest = document.querySelector('#hardest');
const field = hardest.querySelector('input');
field.value = 'E3';
field.dispatchEvent(new Event('input'));
say('found', [...hardest.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.textContent));
const course = document.querySelector('figure.course .plot');
const steps = course.data[0].x;
document.querySelector('button[data-axis=seconds]').click();
say('axes', [steps, course.data[0].x, course.layout.xaxis.title.text]);
say('plots', [...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.main-svg').length > 0));
say('title', document.title);
"""


@pytest.fixture(scope='module')
def written(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    with use_backend('torch'):
        yield write_report(trained / 'emu', tmp_path_factory.mktemp('page') / 'page.html', progress=False, device='cpu',
                           num_answers=2)


def digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def test_a_page_needs_no_network_and_runs_its_own_scripts_alone(written: Report, trained: Path, tmp_path: Path
                                                                ) -> None:
    page = Parsed(written.path)
    assert list(page.tables) == SECTIONS
    tags = [tag for tag, _ in page.elements]
    assert not {*tags} & {'img', 'link', 'iframe', 'b', 'h3'} and tags.count('h1') == tags.count('style') == 1
    links = [attributes[name] for _, attributes in page.elements for name in ('src', 'href') if name in attributes]
    assert links == [f'#{name}' for name in SECTIONS]
    policy, = (attributes['content'] for _, attributes in page.elements if 'http-equiv' in attributes)
    assert policy is not None and "default-src 'none'" in policy and len(page.scripts) == 2
    assert re.findall(r"'sha256-([^']+)'", policy) == [digest(script) for script in page.scripts]
    # As text, labels are whole; in figures they are escaped, since plotly.js reads tags.
    assert {*ENTITIES} >= {row['head'] for row in page.table('hardest')}
    names = {name for figure in page.figures for trace in figure['data'] for name in trace.get('text') or ()}
    assert '&lt;img src=x onerror="document.title=\'entity\'"&gt;' in names
    assert not any(re.search(r'<(?!br>)', name) for name in names)
    with use_backend('torch'):
        again = write_report(trained / 'emu', tmp_path / 'again.html', progress=False, device='cpu', num_answers=2)
    assert again.path.read_bytes() == written.path.read_bytes()
    assert written._repr_html_().count('page.html') == 2


def test_a_browser_draws_sorts_and_filters(written: Report, tmp_path: Path) -> None:
    image = pytest.importorskip('PIL.Image')
    browser = next((path for path in map(shutil.which, BROWSERS) if path is not None), None)
    if browser is None:
        pytest.skip('needs Chromium')
    text = written.path.read_text(encoding='utf-8')
    # The page's own policy, and what the reader does.
    text = text.replace('script-src ', f"script-src 'sha256-{digest(ACTIONS)}' ")
    page, shot = tmp_path / 'page.html', tmp_path / 'page.png'
    page.write_text(text.replace('</body>', f'<script>{ACTIONS}</script></body>'), encoding='utf-8')
    done = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--virtual-time-budget=3000',
         '--window-size=1280,2000', '--host-resolver-rules=MAP * ~NOTFOUND', f'--user-data-dir={tmp_path / "profile"}',
         '--dump-dom', f'--screenshot={shot}', page.as_uri()], capture_output=True, text=True, timeout=250, check=True)
    body = re.search('<body[^>]*>', done.stdout)
    assert body is not None
    said = {name: json.loads(html.unescape(value)) for name, value in re.findall(r'data-(\w+)="([^"]*)"', body[0])}
    assert said['title'] == 'emu' and len(said['plots']) > 8 and all(said['plots'])
    values = sorted(said['before'], key=float)
    assert said['ascending'] == ['ascending', values] and said['descending'] == ['descending', values[::-1]]
    assert said['found'] and all('e3' in row for row in said['found'])
    steps, seconds, title = said['axes']
    assert steps == [2, 4] and 0.0 < seconds[0] < seconds[1] and title == 'seconds'

    with image.open(shot) as picture:
        assert picture.size == (1280, 2000)
        colors = {color: number for number, color in picture.convert('RGB').getcolors(2**24)}
    # Cards, text and curves in their colours.
    assert colors[255, 255, 255] > 5e5 and colors[0xf5, 0xf6, 0xf8] > 1e5 and len(colors) > 100
    assert colors[0x2f, 0x6f, 0xde] > 300 and colors[0x1f, 0x27, 0x33] > 300
