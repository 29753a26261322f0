r"""The command :obj:`pyg-emu recipes`."""
from __future__ import annotations

import argparse
from typing import Any

from pyg_emu.experiments.recipe import load_recipe, packaged_recipes, packaged_text


def add_recipes(commands: Any) -> None:
    r"""Adds the command to the parser."""
    recipes = commands.add_parser('recipes', help='list and show the packaged recipes')
    recipes.set_defaults(command=_recipes)
    what = recipes.add_subparsers(dest='what', required=True, metavar='list|show')
    what.add_parser('list', help='names and descriptions')
    show = what.add_parser('show', help='print a recipe')
    show.add_argument('name', metavar='NAME')
    show.add_argument('--resolved', action='store_true', help='with its base and all defaults written out')


def _recipes(options: argparse.Namespace) -> None:
    if options.what == 'show':
        print(load_recipe(options.name).to_yaml() if options.resolved else packaged_text(options.name), end='')
        return
    found = packaged_recipes()
    width = max(map(len, found))
    for name, description in found.items():
        print(f'{name:<{width}}  {description}')
