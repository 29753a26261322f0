r"""Recipes that are written for the rows of a paper."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyg_emu.experiments.layers import dump

#: The folder of the recipes.
RECIPES = Path(__file__).resolve().parent / 'recipes'


@dataclass(frozen=True)
class Recipe:
    r"""A recipe to be written: its description, the file it is based on, and its changes."""
    description: str
    base: str
    settings: dict[str, Any]

    def text(self) -> str:
        r"""Returns the content of the file."""
        return dump({'description': self.description, 'base': self.base, **self.settings})
