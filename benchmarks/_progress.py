r"""A progress bar over several training runs."""
from __future__ import annotations

from typing import Mapping

from tqdm import tqdm


class RunsBar:
    r"""A progress bar over the training steps of several runs. It counts steps, because runs differ in length.

    Args:
        title (str): The title.
        lengths (Mapping[str, int]): The number of steps of each run, by name.
        taken (Mapping[str, int]): The number of steps of each run that are already complete.
    """
    def __init__(self, title: str, lengths: Mapping[str, int], taken: Mapping[str, int]) -> None:
        self._lengths = dict(lengths)
        self._taken = {name: min(taken.get(name, 0), length) for name, length in lengths.items()}
        self._finished: set[str] = set()
        # Step times differ between models, so the mean over all steps is a better estimate than the latest ones.
        self._bar = tqdm(total=sum(lengths.values()), initial=sum(self._taken.values()), smoothing=0.0, desc=title,
                         unit='step', unit_scale=True, dynamic_ncols=True)
        self._show()

    def __enter__(self) -> RunsBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    @property
    def left(self) -> int:
        r"""The number of unfinished runs."""
        return len(self._lengths) - len(self._finished)

    def reach(self, name: str, step: int) -> None:
        r"""Sets the current step of a run."""
        self._bar.update(step - self._taken[name])
        self._taken[name] = step

    def finish(self, name: str) -> None:
        r"""Marks a run as complete, even if it stopped before its last step."""
        self._finished.add(name)
        self.reach(name, self._lengths[name])
        self._show()

    def drop(self, name: str) -> None:
        r"""Removes the remaining steps of a run that will not be completed."""
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
