r"""A page as one HTML file that needs no network: style, scripts and data are part of it."""
from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Any

from pyg_emu import __version__
from pyg_emu.experiments.report.content import Page

#: Letters from which on a text may fill more than a line.
_LONG = 16


def render(page: Page) -> bytes:
    r"""Returns the file. All text of the page is escaped, and the browser runs no script but the two that belong to the
    page, and loads nothing.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), _own('page.js')]
    # The browser compares the digest with what stands between the tags, where line breaks are line feeds.
    scripts = ['\n'.join(script.splitlines()) for script in scripts]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters['breakable'] = _breakable
    text = environment.from_string(_own('page.html')).render(
        page=page, version=__version__, style=_own('page.css'), scripts=scripts,
        digests=' '.join(f"'sha256-{_digest(script)}'" for script in scripts))
    # Labels may hold halves of surrogate pairs, which no encoding has.
    return text.encode('utf-8', 'backslashreplace')


def _breakable(text: str) -> Any:
    r"""Escaped text whose lines may break after marks that join the words of labels, if it is long."""
    from markupsafe import Markup, escape
    if len(text) < _LONG:
        return escape(text)
    return Markup('<wbr>').join(re.split(r'(?<=[_/.:,-])(?=\w)', text))


def _own(name: str) -> str:
    return resources.files('pyg_emu.experiments.report').joinpath(name).read_text(encoding='utf-8')


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
