r"""Gathers what the robustness tests have tried and found in one file, for :mod:`benchmarks.robustness`."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

#: The property of a test that :class:`~tests.robustness.cases.Cases` reports under.
PROPERTY = 'robustness'


class Report:
    r"""A plugin of pytest. Tests that do not count cases of their own count as one case.

    Args:
        path (Path): The JSON file to write: part to cases, seconds and failures by kind. A part is a file of tests.
    """
    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = Path(report.nodeid.partition('::')[0]).stem.removeprefix('test_')
        part = self.parts.setdefault(name, {'cases': 0, 'seconds': 0.0, 'failures': {}})
        part['seconds'] += report.duration
        found = dict(report.user_properties).get(PROPERTY) if report.when == 'teardown' else None
        if report.when == 'teardown' and not report.skipped:
            part['cases'] += found['cases'] if found else 1
        kinds: dict[str, int] = found['failures'] if found else {}
        if report.failed and not kinds:
            kinds = {f'{report.nodeid.partition("::")[2]} ({report.when})': 1}
        for kind, number in kinds.items():
            part['failures'][kind] = part['failures'].get(kind, 0) + number

    def pytest_sessionfinish(self) -> None:
        parts = {name: part for name, part in self.parts.items() if part['cases'] or part['failures']}
        self.path.write_text(json.dumps(parts, indent=2) + '\n', encoding='utf-8')
