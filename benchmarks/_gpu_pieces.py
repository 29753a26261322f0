r"""What all pieces of the GPU suite do: they write results as they come, and end in time.

A GPU may be there for some minutes only, and then nothing on its machine is left. Therefore a piece writes what it has
measured to ``{name}_unfinished.json`` after each case. Its next call keeps these cases and measures the others.
"""
from __future__ import annotations

import multiprocessing
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from benchmarks._record import git_commit, machine, read_result, versions, write_result

#: The exit code of a piece that is to be run again, EX_TEMPFAIL of sysexits.h.
UNFINISHED = 75


class Unfinished(Exception):
    r"""A piece has used its time. What it measured is recorded, and its next call continues."""


class Work:
    r"""One call of a piece: where it writes, how long it may take, and what it has measured so far.

    Args:
        name (str): The name of the result.
        folder (Path): The folder of the results.
        smoke (bool): Whether sizes are tiny and the device is the CPU. (default: :obj:`False`)
        seconds (float, optional): The time after which no case is started. (default: :obj:`None`, no limit)
        again (bool): Whether to measure again what earlier calls have measured. (default: :obj:`False`)
        seed (int, optional): The seed to record. (default: :obj:`0`)
    """
    def __init__(self, name: str, folder: Path, smoke: bool = False, seconds: Optional[float] = None,
                 again: bool = False, seed: Optional[int] = 0) -> None:
        self.name, self.folder, self.smoke, self.again, self.seed = name, folder, smoke, again, seed
        self._end = None if seconds is None else time.monotonic() + seconds
        #: The measured cases.
        self.cases: dict[str, Any] = {} if again else self._earlier()

    @property
    def unfinished(self) -> str:
        r"""The name of the result before the piece is complete."""
        return f'{self.name}_unfinished'

    @property
    def left(self) -> Optional[float]:
        r"""The seconds that are left, at least zero, or :obj:`None` without a limit."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    @property
    def is_late(self) -> bool:
        r"""Whether no time is left."""
        return self.left == 0.0

    def measure(self, case: str, function: Callable[[], Any]) -> Any:
        r"""Returns a case, which is measured and written unless an earlier call did so.

        Raises:
            Unfinished: If no time is left to measure it.
        """
        if case not in self.cases:
            if self.is_late:
                raise Unfinished(f'{case}: no time left')
            self.add(case, function())
        return self.cases[case]

    def measure_all(self, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]],
                    processes: int) -> None:
        r"""Measures cases in several processes, for functions that are not timed. If a case fails, its error is
        recorded, and the others are measured.

        Args:
            function (callable): A function of a module.
            arguments (dict): The arguments by case.
            processes (int): The number of processes.

        Raises:
            Unfinished: If the time is over before all have returned.
        """
        missing = [(case, given) for case, given in arguments.items() if case not in self.cases]
        processes = min(processes, len(missing))
        if processes <= 1:
            for case, given in missing:
                self.measure(case, partial(_value, function, given))
            return
        # CUDA cannot be used in a fork. Leaving the context ends the processes.
        with multiprocessing.get_context('spawn').Pool(processes) as pool:
            found = pool.imap_unordered(partial(_call, function), missing, chunksize=1)
            for _ in missing:
                try:
                    self.add(*found.next(self.left))
                except multiprocessing.TimeoutError:
                    raise Unfinished(f'{len(arguments) - len(self.cases)} cases: no time left') from None

    def add(self, case: str, value: Any) -> None:
        r"""Adds a measured case and writes all of them."""
        self.cases[case] = value
        self.note({})

    def note(self, metrics: Mapping[str, Any]) -> Path:
        r"""Writes what is known before the piece is complete. The next call continues from the cases alone."""
        cases = {'cases': self.cases} if self.cases else {}
        return write_result(self.unfinished, {**metrics, **cases}, seed=self.seed, folder=self.folder)

    def finish(self, metrics: Mapping[str, Any]) -> Path:
        r"""Writes the result of the complete piece."""
        path = write_result(self.name, metrics, seed=self.seed, folder=self.folder)
        self._path(self.unfinished).unlink(missing_ok=True)
        return path

    @property
    def is_recorded(self) -> bool:
        r"""Whether the complete piece is recorded, and no call has begun to repeat it."""
        return self._path(self.name).exists() and not self._path(self.unfinished).exists()

    def _path(self, name: str) -> Path:
        return self.folder / f'{name}.json'

    def _earlier(self) -> dict[str, Any]:
        r"""The cases of an earlier call, if code, GPU and packages are the same. Those that failed are tried again."""
        if not self._path(self.unfinished).exists():
            return {}
        result = read_result(self.unfinished, self.folder)
        commit = git_commit()
        same = (commit['hash'] is not None and not commit['dirty'] and result['commit'] == commit
                and result['machine']['gpu'] == machine()['gpu'] and result['versions'] == versions())
        cases = result['metrics'].get('cases', {}) if same else {}
        return {case: value for case, value in cases.items() if not (isinstance(value, dict) and 'error' in value)}


def _call(function: Callable[..., Any], case: tuple[str, tuple[Any, ...]]) -> tuple[str, Any]:
    return case[0], _value(function, case[1])


def _value(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    try:
        return function(*given)
    except Exception as error:
        return {'error': f'{type(error).__name__}: {error}'[:500]}
