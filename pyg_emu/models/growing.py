r"""Which parameters of a model have a row for each entity or relation, and how such rows move to a larger model."""
from __future__ import annotations

import math
from typing import Any, Callable, Literal, Mapping, NamedTuple

import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.models.reciprocal import Reciprocal


class Sizes(NamedTuple):
    r"""The numbers of entities and relations of a model."""
    num_nodes: int
    num_relations: int


class Rows(NamedTuple):
    r"""What the first dimension of a parameter counts.

    Args:
        kind (str, optional): :obj:`"entity"`, :obj:`"relation"`, or :obj:`None` for a parameter whose size does not
            depend on the graph.
        blocks (int, optional): The number of blocks that follow one another, such as relations and inverse relations.
        width (int, optional): The number of adjacent rows of each entity or relation in a block.
    """
    kind: Literal['entity', 'relation', None]
    blocks: int = 1
    width: int = 1


def rows_by_name(make: Callable[[int, int], torch.nn.Module]) -> dict[str, Rows]:
    r"""Returns what the rows of each parameter and buffer of a model are, from the shapes that small models have.

    The number of blocks is the class attribute :attr:`relation_blocks` of the model, 1 if it has none, and twice as
    many in a :class:`~pyg_emu.models.Reciprocal`.

    Args:
        make (callable): Makes the model from the numbers of entities and relations.

    Raises:
        ArgumentError: If another dimension than the first depends on the graph, or it is not known which rows belong
            to which relation.
    """
    with torch.random.fork_rng(devices=[]):
        small = make(1, 1)
        one, nodes, relations = (_shapes(model) for model in (small, make(2, 1), make(1, 2)))
    blocks = _blocks_of(small)
    return {name: _rows(name, shape, nodes[name], relations[name], blocks, small) for name, shape in one.items()}


def carried(old: Tensor, new: Tensor, rows: Rows, before: Sizes, after: Sizes) -> Tensor:
    r"""Returns :obj:`new` with the rows of :obj:`old` in the places of the same entities and relations, which keep
    their ids.

    Args:
        old (torch.Tensor): A parameter of the smaller model, or a tensor of its shape.
        new (torch.Tensor): The same parameter of the larger model.
        rows (Rows): What the rows are.
        before (Sizes): The sizes of the smaller model.
        after (Sizes): The sizes of the larger model.
    """
    if rows.kind is None:
        return old.clone()
    least, most = ((before.num_nodes, after.num_nodes) if rows.kind == 'entity' else
                   (before.num_relations, after.num_relations))
    out = new.clone()
    views = [value.view(rows.blocks, size, rows.width, *value.shape[1:]) for value, size in ((old, least), (out, most))]
    views[1][:, :least] = views[0]
    return out


def grown_state(old: Mapping[str, Tensor], model: torch.nn.Module, rows: Mapping[str, Rows], before: Sizes,
                after: Sizes) -> dict[str, Tensor]:
    r"""Returns the state of a larger model, in which old entities and relations have the rows of a smaller one.

    Args:
        old (dict): The state of the smaller model.
        model (torch.nn.Module): The larger model, whose rows new entities and relations keep.
        rows (dict): The result of :func:`rows_by_name`.
        before (Sizes): The sizes of the smaller model.
        after (Sizes): The sizes of the larger model.
    """
    return {name: carried(old[name].to(value.device), value, rows[name], before, after)
            for name, value in model.state_dict().items()}


def _rows(name: str, shape: tuple[int, ...], more_nodes: tuple[int, ...], more_relations: tuple[int, ...], blocks: int,
          model: torch.nn.Module) -> Rows:
    by_node, by_relation = ([two - one for one, two in zip(shape, other)] for other in (more_nodes, more_relations))
    if not any(by_node) and not any(by_relation):
        return Rows(None)
    fixed = not any(by_node[1:]) and not any(by_relation[1:]) and not (by_node[0] and by_relation[0])
    if fixed and by_node[0] == shape[0] == 1:
        return Rows('entity')
    shared = math.gcd(by_relation[0], blocks)
    width = by_relation[0] // shared if shared else 0
    if fixed and by_relation[0] == shape[0] and (width == 1 or blocks > 1):
        return Rows('relation', shared, width)
    raise ArgumentError(f'model: {type(model).__name__}.{name} has shape {shape} for one entity and one relation, '
                        f'{more_nodes} for two entities and {more_relations} for two relations; expected a row for '
                        'each entity, or rows for each relation; if they are in several blocks, such as relations and '
                        'inverse relations, state the class attribute relation_blocks')


def _blocks_of(model: Any) -> int:
    if isinstance(model, Reciprocal):
        return 2 * _blocks_of(model.model)
    return int(getattr(type(model), 'relation_blocks', 1))


def _shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
