r"""Public checkpoints score as in the architecture they were made with, written out here edge by edge."""
from __future__ import annotations

import re
from typing import Any, Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.errors import CheckpointError
from pyg_emu.data.graph import KGData
from pyg_emu.models.nbfnet.model import NBFNet
from pyg_emu.models.nbfnet.state import load_nbfnet_pyg_state_dict

WIDTH, LAYERS, RELATIONS, NODES = 6, 3, 3, 8


def graph() -> KGData:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(NODES - 1, (2, 20), generator=generator)
    return KGData(edge_index, torch.randint(RELATIONS, (20, ), generator=generator), NODES,
                  RELATIONS).with_inverse_relations()


def public_state(aggregate: str, dependent: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.5

    state = {'query.weight': draw(2 * RELATIONS, WIDTH)}
    columns = 13 * WIDTH if aggregate == 'pna' else 2 * WIDTH
    for i in range(LAYERS):
        state[f'layers.{i}.layer_norm.weight'] = draw(WIDTH)
        state[f'layers.{i}.layer_norm.bias'] = draw(WIDTH)
        if dependent:
            state[f'layers.{i}.relation_linear.weight'] = draw(2 * RELATIONS * WIDTH, WIDTH)
            state[f'layers.{i}.relation_linear.bias'] = draw(2 * RELATIONS * WIDTH)
        else:
            state[f'layers.{i}.relation.weight'] = draw(2 * RELATIONS, WIDTH)
        state[f'layers.{i}.linear.weight'] = draw(WIDTH, columns)
        state[f'layers.{i}.linear.bias'] = draw(WIDTH)
    state['mlp.0.weight'], state['mlp.0.bias'] = draw(2 * WIDTH, 2 * WIDTH), draw(2 * WIDTH)
    state['mlp.2.weight'], state['mlp.2.bias'] = draw(1, 2 * WIDTH), draw(1)
    return state


def public_scores(state: dict[str, Tensor], data: KGData, head: int, relation: int, aggregate: str,
                  dependent: bool) -> Tensor:
    r"""Scores of all tails of one question."""
    query = state['query.weight'][relation]
    boundary = torch.zeros(NODES, WIDTH)
    boundary[head] = query
    degree = torch.bincount(data.edge_index[1], minlength=NODES)
    scale = (degree + 1.0).log()
    scale = scale / scale.mean()
    x = boundary
    for i in range(LAYERS):
        if dependent:
            weight, bias = state[f'layers.{i}.relation_linear.weight'], state[f'layers.{i}.relation_linear.bias']
            vectors = [[float(weight[r * WIDTH + c] @ query + bias[r * WIDTH + c]) for c in range(WIDTH)]
                       for r in range(2 * RELATIONS)]
        else:
            vectors = state[f'layers.{i}.relation.weight'].tolist()
        updates = []
        for v in range(NODES):
            rows = [boundary[v]] + [x[u] * torch.tensor(vectors[r]) for u, target, r
                                    in zip(*data.edge_index.tolist(), data.edge_type.tolist()) if target == v]
            if aggregate == 'sum':
                updates.append(sum(rows))
                continue
            messages = torch.stack(rows)
            mean, square = messages.sum(0) / (degree[v] + 1), messages.square().sum(0) / (degree[v] + 1)
            std = (square - mean.square()).clamp(min=1e-6).sqrt()
            statistics = [mean, messages.max(0).values, messages.min(0).values, std]
            scalers = [1.0, float(scale[v]), 1 / max(float(scale[v]), 0.01)]
            updates.append(torch.tensor([float(statistic[c]) * scaler for c in range(WIDTH) for statistic in statistics
                                         for scaler in scalers]))
        out = torch.cat([x, torch.stack(updates)], dim=1) @ state[f'layers.{i}.linear.weight'].t()
        out = out + state[f'layers.{i}.linear.bias']
        out = F.layer_norm(out, (WIDTH, ), state[f'layers.{i}.layer_norm.weight'], state[f'layers.{i}.layer_norm.bias'])
        x = out.relu() + x
    feature = torch.cat([x, query.expand(NODES, -1)], dim=1)
    feature = (feature @ state['mlp.0.weight'].t() + state['mlp.0.bias']).relu()
    return (feature @ state['mlp.2.weight'].t() + state['mlp.2.bias']).squeeze(1)


@pytest.mark.parametrize('dependent', [True, False])
@pytest.mark.parametrize('aggregate', ['pna', 'sum'])
def test_scores_of_public_checkpoint(aggregate: str, dependent: bool) -> None:
    data, state = graph(), public_state(aggregate, dependent)
    model = NBFNet(RELATIONS, WIDTH, LAYERS, aggregate=aggregate, dependent=dependent)  # type: ignore[arg-type]
    # Besides parameters, checkpoints hold the graph, and what is not the model's.
    saved = {'model': {**state, 'fact_graph.edge_index': data.edge_index}, 'optimizer': {}}
    assert load_nbfnet_pyg_state_dict(model, saved) is model
    tails = model.score(data, torch.tensor([2, 0]), torch.tensor([1, 2]))
    heads = model.score(data, torch.tensor([2]), torch.tensor([1]), side='head')
    for scores, head, relation in ((tails[0], 2, 1), (tails[1], 0, 2), (heads[0], 2, 1 + RELATIONS)):
        expected = public_scores(state, data, head, relation, aggregate, dependent)
        assert expected.std() > 0.1
        torch.testing.assert_close(scores.detach(), expected, rtol=1e-5, atol=1e-5)


def torchdrug_state(state: dict[str, Tensor], prefix: str = 'model.') -> dict[str, Any]:
    r"""The state of TorchDrug's training task: its scoring network lies in a list of linear layers, and graphs and
    degrees lie beside the model."""
    names = {key: re.sub(r'^mlp\.(\d+)', lambda found: f'mlp.layers.{int(found[1]) // 2}', key) for key in state}
    return {**{f'{prefix}{names[key]}': value for key, value in state.items()},
            'graph': object(), 'fact_graph': torch.zeros(2, 2).to_sparse(), 'model.graph.edge_list': torch.zeros(3),
            'undirected_fact_graph.num_node': torch.tensor(8), 'degree_hr': torch.zeros(3), 'degree_tr': torch.zeros(3)}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    'plain': dict,
    'checkpoint': lambda state: {'model': state, 'optimizer': {}, 'epoch': 3},
    'module': lambda state: {f'module.{key}': value for key, value in state.items()},
    'model': lambda state: {f'model.{key}': value for key, value in state.items()},
    'module.model': lambda state: {'model': {f'module.model.{key}': value for key, value in state.items()}},
    'compiled': lambda state: {f'_orig_mod.{key}': value for key, value in state.items()},
    'lightning': lambda state: {'state_dict': {f'net.{key}': value for key, value in state.items()}, 'epoch': 3},
    'graphs': lambda state: {'model': {**state, 'graph.edge_index': torch.zeros(2, 1), 'fact_graph': None,
                                       'module.inductive_fact_graph.edge_type': torch.zeros(1)}},
    'torchdrug': lambda state: {'model': torchdrug_state(state), 'optimizer': {}},
    'torchdrug, distributed': lambda state: {'model': torchdrug_state(state, 'module.model.')},
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts_of_checkpoints(layout: str) -> None:
    state = public_state('pna', True)
    model = NBFNet(RELATIONS, WIDTH, LAYERS)
    assert load_nbfnet_pyg_state_dict(model, LAYOUTS[layout](state)) is model
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('options, wanted', [
    ({'num_layers': LAYERS + 2}, 'num_layers=3'),
    ({'num_layers': LAYERS - 2}, 'num_layers=3'),
    ({'aggregate': 'sum'}, "aggregate='pna'"),
    ({'dependent': False}, 'dependent=True'),
    ({'layer_norm': False}, 'layer_norm=True'),
    ({'num_mlp_layers': 3}, 'num_mlp_layers=2'),
    ({'num_relations': RELATIONS + 1}, f'num_relations={RELATIONS}'),
    ({'hidden_channels': WIDTH + 2}, f'hidden_channels={WIDTH}'),
    ({'out_channels': WIDTH + 2}, f'out_channels={WIDTH}'),
    ({'concat_hidden': True}, 'concat_hidden=False'),
])
def test_other_architectures_are_named(options: dict[str, Any], wanted: str, layout: str) -> None:
    r"""Following the advice of the message leads to a model that loads the checkpoint."""
    state = LAYOUTS[layout](public_state('pna', True))
    built = {'num_relations': RELATIONS, 'hidden_channels': WIDTH, 'num_layers': LAYERS}
    model = NBFNet(**{**built, **options})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_nbfnet_pyg_state_dict(model, state)
    message = str(caught.value)
    assert wanted in message and '\n' not in message
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    advice = {name: eval(value) for name, value in re.findall(r"(\w+)=(\d+|True|False|'\w+') \(the model", message)}
    load_nbfnet_pyg_state_dict(NBFNet(**{**built, **options, **advice}), state)


def test_several_differences_are_named_together() -> None:
    model = NBFNet(RELATIONS + 1, WIDTH, LAYERS + 3, aggregate='sum', layer_norm=False, dependent=False)
    with pytest.raises(CheckpointError) as caught:
        load_nbfnet_pyg_state_dict(model, public_state('pna', True))
    for wanted in ('num_layers=3', 'num_relations=3', "aggregate='pna'", 'layer_norm=True', 'dependent=True'):
        assert wanted in str(caught.value)


def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    state = public_state('sum', True)
    model = NBFNet(RELATIONS, WIDTH, LAYERS, aggregate='sum')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong: list[tuple[Any, list[str]]] = [
        ({key: value for key, value in state.items() if key != 'mlp.2.bias'}, ['missing mlp.2.bias']),
        ({**state, 'extra.weight': torch.zeros(1)}, ['unknown extra.weight']),
        ({**state, 'layers.0.linear.bias': torch.zeros(WIDTH + 1)}, ['layers.0.linear.bias', '(7,)', '(6,)']),
        ({**state, 'query.weight': 3.0}, ['query.weight']),
        ({**state, 5: torch.zeros(1)}, ['5']),
        ({**state, **{f'teacher.{key}': value for key, value in state.items()}}, ["''", "'teacher.'"]),
        ('model_epoch_20.pth', ['str', 'torch.load']),
        ({}, ['missing']),
    ]
    for given, facts in wrong:
        with pytest.raises(CheckpointError) as caught:
            load_nbfnet_pyg_state_dict(model, given)
        assert all(fact in str(caught.value) for fact in facts), caught.value
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
