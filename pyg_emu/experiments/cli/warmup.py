r"""The command :obj:`pyg-emu warmup`."""
from __future__ import annotations

import argparse
from typing import Any

from pyg_emu.experiments.cli.options import Formatter
from pyg_emu.experiments.layers import Layer, assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe

_WARMUP = """\
Compile the kernels of recipes in advance, so that the first training step does not have to. Two steps and a ranking run
on generated facts. Only the compiled kernels are kept. Kernels that are already compiled are not compiled again.

examples:
  pyg-emu warmup                                   # the common models, with and without EMU, and NBFNet
  pyg-emu warmup rotate-fb15k237-emu
  pyg-emu warmup my-recipe.yaml --set model.sparse=true
"""
#: What is compiled when no recipe is named.
COMMON = ('distmult-umls-uniform', 'distmult-umls-emu', 'complex-fb15k237-emu', 'transe-fb15k237-emu',
          'rotate-fb15k237-emu', 'nbfnet-umls')
_ENTITIES, _RELATIONS, _FACTS = 80, 4, 400


def add_warmup(commands: Any) -> None:
    r"""Adds the command to the parser."""
    warmup = commands.add_parser('warmup', help='compile kernels in advance', description=_WARMUP,
                                 formatter_class=Formatter)
    warmup.set_defaults(command=_warmup)
    warmup.add_argument('recipes', metavar='NAME|PATH', nargs='*', help=f'recipes (default: {", ".join(COMMON)})')
    warmup.add_argument('--set', metavar='KEY=VALUE', action='append', default=[],
                        help='any setting of a recipe; may be repeated')
    warmup.add_argument('--quiet', action='store_true', help='show no progress bar')


def _warmup(options: argparse.Namespace) -> None:
    names = options.recipes or COMMON
    recipes = {name: _short(load_recipe(name, [assignment_layer(options.set), _STEPS])) for name in names}
    import time

    from tqdm.auto import tqdm

    from pyg_emu.experiments.runs import run_recipe
    data, start = _facts(), time.perf_counter()
    with tqdm(recipes.items(), unit='recipe', disable=options.quiet) as bar:
        for name, recipe in bar:
            bar.set_description(name)
            run_recipe(recipe, data=data, device='cpu', progress=False)
    print(f'kernels of {len(recipes)} recipe{"" if len(recipes) == 1 else "s"} are compiled '
          f'({time.perf_counter() - start:.0f} s)')


#: Two steps: gradients that accumulate take another way in the second one.
_STEPS = Layer({'num_steps': 2, 'evaluate_every': 2})


def _short(recipe: Recipe) -> Recipe:
    from dataclasses import replace
    negatives, mutation = recipe.negatives, recipe.negatives.get('mutation')
    if isinstance(mutation, dict) and 'warmup' in mutation:  # the two steps have to mix
        negatives = {**negatives, 'mutation': {**mutation, 'warmup': 0}}
    # Rankings may name entities of the recipe's data and need metrics of their settings.
    return replace(recipe, negatives=negatives, inference=None, patience=None, graph=False, storage='memory',
                   evaluation={}, validation={}, metric='mrr')


def _facts() -> Any:
    r"""Facts of which every split has some. Kernels depend on types and widths, not on numbers of entities."""
    import torch

    from pyg_emu.data.graph import KGData
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (torch.randint(_ENTITIES, (2, count), generator=generator),
                torch.randint(_RELATIONS, (count, ), generator=generator))

    (edge_index, edge_type), valid, test = draw(_FACTS), draw(20), draw(20)
    return KGData(edge_index, edge_type, _ENTITIES, _RELATIONS, valid_edge_index=valid[0], valid_edge_type=valid[1],
                  test_edge_index=test[0], test_edge_type=test[1])
