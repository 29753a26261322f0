r"""Explanations against all paths there are, and the answer that a rule makes obvious."""
from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.models import RGCN
from pyg_emu.models.nbfnet.explanation import draw_paths, explain
from pyg_emu.models.nbfnet.model import NBFNet


def family() -> KGData:
    facts = torch.tensor([[0, 0, 1], [1, 0, 2], [0, 1, 3], [3, 1, 2], [0, 2, 2], [2, 1, 4], [1, 1, 3]])
    return KGData(facts[:, [0, 2]].t().contiguous(), facts[:, 1].contiguous(),
                  entity_labels=['ann', 'bob', 'cleo', 'dan', 'eve'],
                  relation_labels=['parent', 'friend', 'grandparent']).with_inverse_relations()


@pytest.mark.parametrize('side', ['tail', 'head'])
@pytest.mark.parametrize('shortcut', [True, False])
@pytest.mark.parametrize('concat_hidden', [True, False])
def test_finds_the_heaviest_of_all_paths(concat_hidden: bool, shortcut: bool, side: str) -> None:
    data = family()
    torch.manual_seed(3)
    model = NBFNet(3, 8, 3, shortcut=shortcut, concat_hidden=concat_hidden).double()
    start, goal = (0, 2) if side == 'tail' else (2, 0)
    source, target = data.edge_index
    mask = (data.edge_type != 2) & (data.edge_type != 5)  # the only grandparents are those in question
    weights = [torch.ones(source.numel(), dtype=torch.float64, requires_grad=True) for _ in range(3)]
    score = model.score(data, torch.tensor([start]), torch.tensor([2]), torch.tensor([[goal]]), side,  # type: ignore[arg-type]
                        edge_mask=mask, edge_weights=weights)
    gradients = torch.stack(torch.autograd.grad(score.sum(), weights))

    expected: dict[tuple[int, ...], float] = {}
    for first in range(3):
        walks: list[list[int]] = [[]]
        for layer in range(first, 3):
            walks = [[*walk, edge] for walk in walks for edge in range(source.numel())
                     if mask[edge] and source[edge] == (target[walk[-1]] if walk else start)
                     and source[edge] != goal and target[edge] != start]
            for walk in walks:
                if target[walk[-1]] == goal and (shortcut or concat_hidden or layer == 2):
                    weight = float(sum(gradients[first + i, edge] for i, edge in enumerate(walk)))
                    expected[tuple(walk)] = max(expected.get(tuple(walk), float('-inf')), weight)
    paths = explain(model, data, 'ann', 'grandparent', 'cleo', 100, beam_width=100, side=side)  # type: ignore[arg-type]
    assert len(expected) > 3
    assert paths['weight'].tolist() == pytest.approx(sorted(expected.values(), reverse=True), rel=1e-9, abs=1e-12)
    assert paths.attrs['score'] == pytest.approx(score.item())
    assert not any('grandparent' in name for edges in paths['edges'] for _, name, _ in edges)
    best = explain(model, data, 0, 2, 2, 2, side=side)  # type: ignore[arg-type]
    assert best['path'].tolist() == paths['path'].tolist()[:2]
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_reads_and_draws(tmp_path: Path) -> None:
    data = family()
    torch.manual_seed(0)
    # One component, all relation vectors 1 but for `parent`, 3: the heaviest path goes over parents.
    model = NBFNet(3, 1, 2, aggregate='sum', shortcut=False, layer_norm=False, dependent=False, num_mlp_layers=1,
                   act=None)
    with torch.no_grad():
        for layer in model.layers:
            layer.linear.weight.copy_(torch.tensor([[0.0, 1.0]]))
            layer.linear.bias.zero_()
            layer.relation.weight.fill_(1.0)[0] = 3.0
        model.query.weight.fill_(1.0)
        model.mlp[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.mlp[0].bias.zero_()
    paths = explain(model, data, 'ann', 'grandparent', 'cleo')
    assert paths['path'].tolist() == ['ann -[parent]-> bob -[parent]-> cleo', 'ann -[friend]-> dan -[friend]-> cleo']
    # Walks of two edges weigh 9 and 1, and each of their two factors has the walk's weight for a gradient.
    assert paths['weight'].tolist() == [18.0, 2.0]
    assert paths.attrs['score'] == 10.0
    assert paths['edges'][0] == [('ann', 'parent', 'bob'), ('bob', 'parent', 'cleo')]
    back = explain(model, data, 'ann', 'grandparent', 'cleo', side='head')
    # Inverse relations weigh alike here, and equals stand in the order of their edges.
    assert back['weight'].tolist() == [2.0, 2.0]
    assert back['path'][0] == 'cleo -[parent^-1]-> bob -[parent^-1]-> ann'
    draw_paths(paths, tmp_path / 'paths.svg')
    drawing = (tmp_path / 'paths.svg').read_text()
    assert drawing.startswith('<?xml') and len(drawing) > 2000
    # A dollar is no formula.
    paths['edges'] = [[(f'{start}$_$', f'${name}', f'{{{end}$^$') for start, name, end in edges]
                      for edges in paths['edges']]
    draw_paths(paths, tmp_path / 'dollars.svg')
    nothing = explain(NBFNet(3, 4, 1), data, 'ann', 'parent', 'eve')
    assert isinstance(nothing, pd.DataFrame) and len(nothing) == 0
    draw_paths(nothing, tmp_path / 'nothing.svg')


def test_bad_arguments_are_named() -> None:
    data, model = family(), NBFNet(3, 4, 1)
    for arguments, name in [((5, 0, 1), 'head'), ((True, 0, 1), 'head'), ((0, 3, 1), 'relation'),
                            ((0, 0, 1.5), 'tail')]:
        with pytest.raises(ArgumentError, match=f'^{name}: '):
            explain(model, data, *arguments)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='^beam_width: '):
        explain(model, data, 0, 0, 1, beam_width=0)
    with pytest.raises(ArgumentError, match='^num_paths: .*2.5'):
        explain(model, data, 0, 0, 1, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='^side: '):
        explain(model, data, 0, 0, 1, side='both')  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='model, graph: .* KGData and NBFNet'):
        explain(data, model, 0, 0, 1)
    with pytest.raises(ArgumentError, match='NBFNet.* RGCN'):
        explain(RGCN(5, 3, 4), data, 0, 0, 1)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    pd.testing.assert_frame_equal(explain(averaged, data, 'ann', 'grandparent', 'cleo'),
                                  explain(model, data, 'ann', 'grandparent', 'cleo'))
    with pytest.raises(DataError, match='bob'):
        explain(model, data, 'bobb', 0, 1)
