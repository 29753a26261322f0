r"""Runs that SIGKILL ends, again and again: resumed, they come to the same bytes as an undisturbed run."""
from __future__ import annotations

import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.cases import Cases
from tests.robustness.kills import CONFIGURATIONS, train

#: Kills of each configuration, of :obj:`make robustness`.
KILLS = 10
#: Those of an ordinary test run.
FEW = ('plain', )


def context() -> Any:
    r"""Processes from a server that has imported everything, so that a kill does not fall into imports."""
    made = multiprocessing.get_context('forkserver')
    made.set_forkserver_preload(['tests.robustness.kills', 'pyg_emu.experiments.runs', 'pyg_emu.models'])
    return made


def start(name: str, graph: Path, folder: Path) -> Any:
    process = context().Process(target=train, args=(name, str(graph), str(folder), str(folder) + '.errors'))
    process.start()
    return process


def finish(name: str, graph: Path, folder: Path) -> float:
    r"""Runs to the end; returns the seconds that it took."""
    began = time.monotonic()
    process = start(name, graph, folder)
    process.join()
    assert process.exitcode == 0, Path(f'{folder}.errors').read_text()
    return time.monotonic() - began


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.mark.parametrize('name', CONFIGURATIONS)
def test_kills(graph_folder: Path, tmp_path: Path, cases: Cases, name: str) -> None:
    if cases.share < 0.2 and name not in FEW:
        pytest.skip('takes a while: with --robustness-cases 0.2 and above')
    rng = cases.random()
    server = context().Process()  # does nothing, but the server has imported everything when it ends
    server.start()
    server.join()
    seconds = finish(name, graph_folder, tmp_path / 'whole')
    expected = contents(tmp_path / 'whole')
    folder, round_of_kills = tmp_path / 'cut0', 0
    left = cases.count(KILLS)
    while left > 0:
        process = start(name, graph_folder, folder)
        time.sleep(rng.uniform(0.0, seconds))
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:  # it has come to its end
            assert process.exitcode == 0, Path(f'{folder}.errors').read_text()
        else:
            left -= 1
            cases.tried += 1
        if process.exitcode == 0 or left == 0 or rng.random() < 0.3:  # else it is killed again where it goes on
            with cases.attempt((name, round_of_kills)):
                cases.tried -= 1  # kills are counted
                finish(name, graph_folder, folder)
                found = contents(folder)
                assert found.keys() == expected.keys(), (sorted(found), sorted(expected))
                assert found == expected, [one for one in found if found[one] != expected[one]]
            round_of_kills += 1
            folder = tmp_path / f'cut{round_of_kills}'
