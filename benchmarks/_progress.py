r"""How far several trainings have come together, and how long they will still take."""
from __future__ import annotations

from typing import Mapping

from tqdm import tqdm


class RunsBar:
    r"""A bar over the training steps of several runs. Runs differ in length, so that a count of them tells no time.

    Args:
        title (str): Stands before the bar.
        lengths (Mapping[str, int]): The steps of each run that is to be made, by its name.
        taken (Mapping[str, int]): How many of them were taken earlier.
    """
    def __init__(self, title: str, lengths: Mapping[str, int], taken: Mapping[str, int]) -> None:
        self._lengths = dict(lengths)
        self._taken = {name: min(taken.get(name, 0), length) for name, length in lengths.items()}
        self._finished: set[str] = set()
        # Steps of one model take longer than those of another: their mean so far tells more than the latest ones.
        self._bar = tqdm(total=sum(lengths.values()), initial=sum(self._taken.values()), smoothing=0.0, desc=title,
                         unit='step', unit_scale=True, dynamic_ncols=True)
        self._show()

    def __enter__(self) -> RunsBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    @property
    def left(self) -> int:
        r"""How many runs are not finished."""
        return len(self._lengths) - len(self._finished)

    def reach(self, name: str, step: int) -> None:
        r"""A run has come to a step."""
        self._bar.update(step - self._taken[name])
        self._taken[name] = step

    def finish(self, name: str) -> None:
        r"""A run is complete, whether or not it took all of its steps."""
        self._finished.add(name)
        self.reach(name, self._lengths[name])
        self._show()

    def drop(self, name: str) -> None:
        r"""A run will not be made, or not to its end: nobody has to wait for its other steps."""
        self._lengths[name] = self._taken[name]
        self._bar.total = sum(self._lengths.values())
        self._bar.refresh()

    def write(self, text: str) -> None:
        r"""Prints a line above the bar."""
        self._bar.write(text)

    def _show(self) -> None:
        self._bar.set_postfix_str(f'{len(self._finished)} of {len(self._lengths)} runs')

    def __str__(self) -> str:
        return str(self._bar)
