r"""What a browser makes of the text of a page, for tests."""
from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Optional

_VOID = {'meta', 'input', 'wbr', 'img', 'br', 'link'}


class Parsed(HTMLParser):
    r"""The elements of a page: tables by section, texts, figures, scripts.

    Args:
        path (Path): The page.
    """
    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, Optional[str]]]] = []
        self.scripts: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self._section, self._kind = '', ''
        self._cell: Optional[list[str]] = None
        self.feed(path.read_text(encoding='utf-8'))
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == 'section':
            self._section = found['id'] or ''
            self.tables[self._section], self.texts[self._section] = [], ''
        elif tag == 'table':
            self.tables[self._section].append([])
        elif tag == 'tr':
            self.tables[self._section][-1].append([])
        elif tag in ('td', 'th'):
            self._cell = []
        elif tag == 'script':
            self._kind = found.get('type') or ''
            self.scripts += [''] if self._kind == '' else []

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f'{tag} in {self._section}'
        if tag in ('td', 'th') and self._cell is not None:
            self.tables[self._section][-1][-1].append(''.join(self._cell))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == 'script':
            if self._kind == '':
                self.scripts[-1] += data
            else:
                self.figures.append(json.loads(data))
        elif self._cell is not None:
            self._cell.append(data)
        elif self._section and self._open and self._open[-1] in ('p', 'dd', 'dt', 'figcaption'):
            self.texts[self._section] += f'{data} '

    def table(self, section: str, number: int = 0) -> list[dict[str, str]]:
        r"""The rows of a table by the titles of its columns."""
        columns, *rows = self.tables[section][number]
        return [dict(zip(columns, row)) for row in rows]
