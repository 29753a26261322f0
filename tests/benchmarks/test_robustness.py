from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.render_readme import TABLES, render
from benchmarks.robustness import PARTS, record

ROOT = Path(__file__).resolve().parent.parent.parent
pytest_plugins = ['pytester']


def test_parts_are_files_of_tests() -> None:
    found = {path.stem.removeprefix('test_') for path in (ROOT / 'tests' / 'robustness').glob('test_*.py')}
    assert found | {'brute_force'} == set(PARTS)
    for name, (folder, _) in PARTS.items():
        assert (ROOT / folder / f'test_{name}.py').is_file()


def test_records_become_a_table(tmp_path: Path) -> None:
    part = {'cases': 1234, 'seconds': 5.0, 'failures': {'KeyError': 2, 'Hang': 1}}
    paths = record({'files': part, 'unknown': part}, 0.25, 7, tmp_path)
    assert [path.name for path in paths] == ['files.json']
    row = render(TABLES['robustness'], tmp_path).splitlines()[2]
    assert [cell.strip() for cell in row.strip('|').split('|')][1:] == ['1,234', '0.250', '3', '5.000']


def test_report_counts_cases_and_failures(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeconftest('from tests.conftest import *\nfrom tests.robustness.conftest import cases\n')
    pytester.makepyfile(**{'tests/other/test_some': """
        def test_cases(cases):
            for number in range(cases.count(500)):
                with cases.attempt(number):
                    assert number != 3
        def test_plain(): pass
        def test_broken(): raise ValueError
    """})
    report = tmp_path / 'report.json'
    result = pytester.runpytest('--robustness-cases', '0.02', '--robustness-seed', '4', '--robustness-report', report)
    found = json.loads(report.read_text())['some']
    assert found['cases'] == 12
    assert found['failures'] == {'AssertionError': 1, 'test_broken (call)': 1}
    result.stdout.fnmatch_lines(['*--robustness-cases 0.02 --robustness-seed 4*'])
