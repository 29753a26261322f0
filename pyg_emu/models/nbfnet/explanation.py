r"""Explanations of the scores of a path-based model: the most important paths between the two entities of a triple."""
from __future__ import annotations

import operator
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional, Union

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import file_path, instance, one_of, positive_integer
from pyg_emu.core.drawing import new_figure
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.memory import memory_reported
from pyg_emu.core.modes import evaluating
from pyg_emu.models.adapters import unwrap
from pyg_emu.models.nbfnet.model import NBFNet


def explain(
    model: Any,
    graph: Any,
    head: Union[int, str],
    relation: Union[int, str],
    tail: Union[int, str],
    num_paths: int = 10,
    *,
    beam_width: int = 10,
    side: Literal['tail', 'head'] = 'tail',
) -> pd.DataFrame:
    r"""Returns the most important paths for the score of a triple, as in section 4.4 of the `"Neural Bellman-Ford
    Networks" <https://arxiv.org/abs/2106.06935>`_ paper.

    The importance of an edge in a layer is the gradient of the score with respect to a factor of one on its message.
    The weight of a path is the sum of the importances of its edges, where the :math:`i`-th edge of the path belongs to
    the :math:`i`-th layer after the path starts. Beam search over the layers finds the paths. A path visits neither end
    of the triple twice. The triple and its inverse are removed from the graph first.

    .. code-block:: python

        data = load_dataset('Nations').with_inverse_relations()
        paths = explain(model, data, 'usa', 'embassy', 'uk')
        print(paths[['weight', 'path']])
        draw_paths(paths).savefig('paths.png')

    Args:
        model (NBFNet): The model.
        graph (KGData): The graph, with inverse relations.
        head (int or str): The head, an id or a label. If labels are integers, an integer is a label.
        relation (int or str): The relation, an id or a label, not an inverse one.
        tail (int or str): The tail, an id or a label.
        num_paths (int, optional): The maximum number of paths. (default: :obj:`10`)
        beam_width (int, optional): The number of paths kept at each node. (default: :obj:`10`)
        side (str, optional): The predicted side. With :obj:`"tail"`, paths lead from the head to the tail; with
            :obj:`"head"`, from the tail to the head. (default: :obj:`"tail"`)

    Returns:
        pandas.DataFrame: One row per path, in descending order of weight, with the columns :obj:`weight`,
        :obj:`length`, :obj:`path` (readable) and :obj:`edges`, a list of (from, relation, to). The names of inverse
        relations end in :obj:`"^-1"`. The score is in :obj:`attrs['score']`. The frame is empty if no path is short
        enough.

    Raises:
        ArgumentError: If an id is out of range or a number is not positive.
        DataError: If a label is unknown.
    """
    model = unwrap(model)
    if not isinstance(model, NBFNet) or not hasattr(graph, 'entity_id'):
        raise ArgumentError('model, graph: expected an NBFNet and the KGData it reads, got objects of type '
                            f'{type(model).__name__} and {type(graph).__name__}')
    for name, value in (('num_paths', num_paths), ('beam_width', beam_width)):
        positive_integer(name, value)
    one_of('side', side, ('tail', 'head'))
    ends = [_id(name, value, graph, 'entity') for name, value in (('head', head), ('tail', tail))]
    rel_type = _id('relation', relation, graph, 'relation')
    start, goal = ends if side == 'tail' else ends[::-1]

    score, gradients, mask = _edge_gradients(model, graph, ends, rel_type, start, goal, side)
    source, target = graph.edge_index.cpu().numpy()
    usable = np.flatnonzero(mask.cpu().numpy() & (source != goal) & (target != start))
    search = _Beam(source, target, usable, gradients.cpu().numpy(), graph.num_nodes, beam_width)
    with memory_reported(f'a search of beam_width={beam_width}', 'choose a smaller beam_width'):
        found = search.paths(start, goal, any_layer=model.shortcut or model.concat_hidden)
    rows = [(weight, len(edges), [_step(graph, edge) for edge in edges]) for edges, weight in found[:num_paths]]
    frame = pd.DataFrame({
        'weight': [weight for weight, _, _ in rows],
        'length': [length for _, length, _ in rows],
        'path': [_readable(steps) for _, _, steps in rows],
        'edges': pd.Series([steps for _, _, steps in rows], dtype=object),
    })
    frame.attrs['score'] = score
    return frame


def draw_paths(paths: pd.DataFrame, file: Optional[Union[str, Path]] = None) -> Any:
    r"""Plots the result of :func:`explain`: one row per path, with arrows as thick as its weight. Requires matplotlib.

    .. code-block:: python

        draw_paths(explain(model, data, 'usa', 'embassy', 'uk'), 'paths.png')

    Args:
        paths (pandas.DataFrame): The paths.
        file (str or Path, optional): Where to save the plot. (default: :obj:`None`, not saved)

    :rtype: :class:`matplotlib.figure.Figure`
    """
    missing = [name for name in ('weight', 'length', 'edges') if name not in instance('paths', paths, pd.DataFrame)]
    if missing:
        raise ArgumentError(f'paths: expected the result of explain(), got a DataFrame without the column {missing[0]}')
    if file is not None:
        file_path('file', file)
    longest = max(paths['length'], default=1)
    figure = new_figure('draw_paths()', 3.0 * (longest + 1), 1.0 * max(1, len(paths)) + 0.5)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.5, longest + 0.5)
    axes.set_ylim(-len(paths) + 0.4, 0.6)
    largest = max(paths['weight'].abs(), default=0.0) or 1.0
    for row, (weight, edges) in enumerate(zip(paths['weight'], paths['edges'])):
        color = 'tab:blue' if weight >= 0 else 'tab:red'
        for place, (_, name, _) in enumerate(edges):
            arrow = {'arrowstyle': '->' if not name.endswith('^-1') else '<-', 'color': color,
                     'linewidth': 0.5 + 2.5 * abs(weight) / largest, 'shrinkA': 22, 'shrinkB': 22}
            axes.annotate('', (place + 1, -row), (place, -row), arrowprops=arrow)
            axes.text(place + 0.5, -row + 0.12, name.removesuffix('^-1'), ha='center', va='bottom', fontsize=7,
                      parse_math=False)
        for place, label in enumerate([edges[0][0], *(to for _, _, to in edges)]):
            axes.text(place, -row, label, ha='center', va='center', fontsize=8, parse_math=False,
                      bbox={'boxstyle': 'round', 'facecolor': 'white', 'edgecolor': color})
        axes.text(-0.45, -row + 0.25, f'{weight:.3g}', fontsize=7, color=color)
    if file is not None:
        try:
            figure.savefig(file)
        except (OSError, ValueError) as error:
            raise ArgumentError(f'file: {file} cannot be written ({error}); expected a path such as paths.png or '
                                'paths.pdf') from error
    return figure


def _edge_gradients(model: Any, graph: Any, ends: list[int], rel_type: int, start: int, goal: int,
                    side: str) -> tuple[float, Tensor, Tensor]:
    r"""Returns the score, its gradients :obj:`(num_layers, E)`, and the mask :obj:`(E,)` of the graph without the
    fact."""
    (source, target), edge_type = graph.edge_index, graph.edge_type
    fact = (source == ends[0]) & (target == ends[1]) & (edge_type == rel_type)
    inverse = (source == ends[1]) & (target == ends[0]) & (edge_type == rel_type + graph.num_relations)
    mask = ~(fact | inverse)
    dtype, device = model.query.weight.dtype, source.device
    weights = [torch.ones(source.numel(), dtype=dtype, device=device, requires_grad=True) for _ in model.layers]
    with evaluating(model), torch.enable_grad():
        known, asked = torch.tensor([start], device=device), torch.tensor([rel_type], device=device)
        score = model.score(graph, known, asked, torch.tensor([[goal]], device=device), side, edge_mask=mask,
                            edge_weights=weights)
        gradients = torch.autograd.grad(score.sum(), weights)
    return float(score.detach()), torch.stack(gradients), mask


class _State(NamedTuple):
    r"""The best walks that end at each node after a layer, their last edges and the slots of the walks they extend.

    All tensors have the shape :obj:`(V, beam_width)`. The values of empty slots are :math:`-\infty`.
    """
    value: np.ndarray
    edge: np.ndarray
    slot: np.ndarray


class _Beam:
    r"""Beam search over a graph with different edge weights in each layer."""
    def __init__(self, source: np.ndarray, target: np.ndarray, usable: np.ndarray, weights: np.ndarray, num_nodes: int,
                 width: int) -> None:
        self.source = source
        self.target = target
        self.usable = usable
        self.weights = weights
        self.num_nodes = num_nodes
        self.width = width

    def paths(self, start: int, goal: int, any_layer: bool) -> list[tuple[tuple[int, ...], float]]:
        r"""Returns paths as tuples of edge ids with their weights, in descending order of weight.

        A path may start at any layer, because each layer adds the boundary condition. With :obj:`any_layer`, it may
        also end at any layer, because shortcuts carry earlier outputs to the last layer or because the scoring network
        reads the outputs of all layers. Otherwise, it must end at the last layer.
        """
        best: dict[tuple[int, ...], float] = {}
        states: list[_State] = []
        for layer in range(len(self.weights)):
            value = states[-1].value.copy() if states else np.full((self.num_nodes, self.width), -np.inf)
            value[start, 0] = 0.0
            states.append(self._advance(value, layer))
            if any_layer or layer == len(self.weights) - 1:
                for slot in np.flatnonzero(states[-1].value[goal] > -np.inf):
                    edges = self._trace(states, start, goal, int(slot))
                    weight = float(states[-1].value[goal, slot])
                    best[edges] = max(best.get(edges, -np.inf), weight)
        # Paths of equal weight are sorted by their edges, so that the result does not depend on the order of discovery.
        return sorted(best.items(), key=lambda item: (-item[1], item[0]))

    def _advance(self, value: np.ndarray, layer: int) -> _State:
        edge, slot = np.nonzero(value[self.source[self.usable]] > -np.inf)
        edge = self.usable[edge]
        gain = value[self.source[edge], slot] + self.weights[layer, edge]
        order = np.lexsort((slot, edge, -gain, self.target[edge]))
        edge, slot, gain = edge[order], slot[order], gain[order]
        target = self.target[edge]
        rank = np.arange(target.size) - np.searchsorted(target, target)
        kept = rank < self.width
        place = (target[kept], rank[kept])
        state = _State(np.full((self.num_nodes, self.width), -np.inf), *(np.full((self.num_nodes, self.width), -1)
                                                                         for _ in range(2)))
        state.value[place], state.edge[place], state.slot[place] = gain[kept], edge[kept], slot[kept]
        return state

    def _trace(self, states: list[_State], start: int, goal: int, slot: int) -> tuple[int, ...]:
        edges: list[int] = []
        node = goal
        for state in reversed(states):
            edge, slot = int(state.edge[node, slot]), int(state.slot[node, slot])
            edges.append(edge)
            node = int(self.source[edge])
            if node == start:
                break
        return tuple(reversed(edges))


def _id(argument: str, value: Union[int, str], graph: Any, kind: Literal['entity', 'relation']) -> int:
    find, limit = (graph.entity_id, graph.num_nodes) if kind == 'entity' else (graph.relation_id, graph.num_relations)
    # If labels are integers, an integer is a label. Ids are passed as a tensor.
    is_label = isinstance(value, Integral) and not isinstance(value, bool) and graph.has_integer_labels(kind)
    if isinstance(value, str) or is_label:
        return find(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool):  # Booleans are integers in Python.
        number = -1
    if not 0 <= number < limit:
        raise ArgumentError(f'{argument}: expected a label or an id in [0, {limit}), got {value!r}')
    return number


def _step(graph: Any, edge: int) -> tuple[str, str, str]:
    source, target = (int(end) for end in graph.edge_index[:, edge])
    inverse, relation = divmod(int(graph.edge_type[edge]), graph.num_relations)
    entities, relations = graph.entity_labels, graph.relation_labels
    name = (str(relation) if relations is None else relations[relation]) + ('^-1' if inverse else '')
    ends = [str(end) if entities is None else entities[end] for end in (source, target)]
    return ends[0], name, ends[1]


def _readable(steps: list[tuple[str, str, str]]) -> str:
    return steps[0][0] + ''.join(f' -[{name}]-> {to}' for _, name, to in steps)
