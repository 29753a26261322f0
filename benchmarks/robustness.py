r"""Runs all robustness tests and records their cases and failures.

.. code-block:: console

    python -m benchmarks.robustness                         # a new seed, all cases: at most 40 minutes on two cores
    python -m benchmarks.robustness --cases 0.1 --seed 3    # a tenth of the cases, with seed 3
    python -m benchmarks.robustness --tests tests/robustness/test_runs.py    # one file

Each part is a test file (:data:`PARTS`) with one result under ``benchmarks/results/robustness``. A case is
a damaged file, a recipe, a kill, a fault at a write, a step of the long run, or a comparison with a reference.
"""
from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Mapping

from benchmarks._record import RESULTS, ROOT, write_result

#: The files of tests, and what their cases are.
PARTS = {
    'files': ('tests/robustness', 'files of facts, mutated or generated'),
    'runs': ('tests/robustness', 'files of run folders: flipped bits, cuts, crafted content'),
    'checkpoints': ('tests/robustness', 'checkpoints: flipped bits and cuts'),
    'recipes': ('tests/robustness', 'recipes and flags'),
    'kills': ('tests/robustness', 'SIGKILLs, resumed to the same bytes'),
    'writes': ('tests/robustness', 'faults at writes, resumed to the same bytes'),
    'soak': ('tests/robustness', 'steps with flat memory'),
    'calls': ('tests/robustness', 'wrong calls of the public API'),
    'brute_force': ('tests/reference', 'comparisons with NumPy references'),
}
#: Seconds that one test may take, many of its cases being long.
_TIMEOUT = 2400


def main() -> int:
    r"""Runs the command line; returns the exit code of pytest."""
    parser = argparse.ArgumentParser(description='Run the tests of robustness in full and record the result.')
    parser.add_argument('--cases', type=float, default=1.0, metavar='SHARE', help='the share of the cases (default: 1)')
    parser.add_argument('--seed', type=int, help='the seed that draws them (default: a new one)')
    every = list(dict.fromkeys(path for path, _ in PARTS.values()))
    parser.add_argument('--tests', nargs='+', metavar='FILE', default=every,
                        help='these test files alone, such as those of a part that failed (default: all)')
    parser.add_argument('--workers', default='auto', help='processes of pytest (default: auto)')
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f'robustness: a share of {options.cases:g} of the cases, seed {seed}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.json'
        began = time.monotonic()
        code = subprocess.run([
            sys.executable, '-m', 'pytest', '-q', '-n', options.workers, '--dist', 'worksteal', f'--timeout={_TIMEOUT}',
            f'--robustness-cases={options.cases}', f'--robustness-seed={seed}', f'--robustness-report={report}',
            *options.tests], cwd=ROOT).returncode
        minutes = (time.monotonic() - began) / 60.0
        parts = json.loads(report.read_text(encoding='utf-8')) if report.exists() else {}
    record(parts, options.cases, seed)
    print(f'robustness: {sum(part["cases"] for part in parts.values()):,} cases in {minutes:.1f} min, seed {seed}: '
          f'{"clean" if code == 0 else "failures"}')
    return code


def record(parts: Mapping[str, Mapping[str, Any]], share: float, seed: int, folder: Path = RESULTS) -> list[Path]:
    r"""Writes one result for each part."""
    return [write_result(f'robustness/{name}', {
        'label': PARTS[name][1], 'share': share, 'cases': part['cases'], 'seconds': part['seconds'],
        'failed': sum(part['failures'].values()), 'failures': part['failures']}, seed=seed, folder=folder)
        for name, part in parts.items() if name in PARTS]


if __name__ == '__main__':
    sys.exit(main())
