r"""Import of checkpoints of public NBFNet implementations: NBFNet-PyG, and the original implementation on TorchDrug."""
from __future__ import annotations

import re
from typing import Any, Mapping

import torch
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.models.nbfnet.model import NBFNet

# The keys of the model state in checkpoints that also contain the optimiser state.
_CONTAINERS = ('model', 'state_dict', 'model_state_dict')
# Buffers of the training task: graphs (`graph`, `fact_graph`, `undirected_fact_graph`, ...) and node degrees.
_BUFFER = re.compile(r'(^|\.)(\w*graph|degree_hr|degree_tr)(\.|$)')
# TorchDrug numbers the linear layers of its scoring network 0, 1, 2. A `torch.nn.Sequential` also counts activations.
_TORCHDRUG_MLP = re.compile(r'^mlp\.layers\.(\d+)\.(weight|bias)$')


def load_nbfnet_pyg_state_dict(model: NBFNet, state: Mapping[str, Any]) -> NBFNet:
    r"""Loads the parameters of a public NBFNet checkpoint, from NBFNet-PyG or from the original implementation on
    TorchDrug.

    Both use the layout of this package. Relation :math:`r + R` is the inverse of :math:`r`. Query-dependent relation
    vectors have one row for each :obj:`relation * width + component`. The columns of a linear layer for principal
    neighborhood aggregation are :obj:`(component * 4 + statistic) * 3 + scaler`, after those of the layer's input.

    A prefix shared by all parameters, such as :obj:`"model."` or :obj:`"module."`, is removed. Graphs and node degrees
    of the training task are skipped.

    .. code-block:: python

        state = torch.load('model_epoch_20.pth', map_location='cpu', weights_only=True)
        model = load_nbfnet_pyg_state_dict(NBFNet(237), state)

    Args:
        model (NBFNet): A model of the same size as the checkpoint. Its parameters are overwritten.
        state (dict): The state of the model, or a checkpoint that contains it under the key :obj:`"model"`,
            :obj:`"state_dict"` or :obj:`"model_state_dict"`.

    :rtype: :class:`NBFNet`, the given model.

    Raises:
        CheckpointError: If parameters are missing, unknown or of the wrong shape. The message names the arguments that
            create a model with the architecture of the checkpoint. The model is unchanged in this case.
    """
    if not isinstance(model, NBFNet):
        raise ArgumentError(f'model: expected an NBFNet, got {shown(model)}')
    given = _parameters(state)
    wanted: dict[str, Tensor] = model.state_dict()
    missing = sorted(wanted.keys() - given.keys())
    unknown = sorted(given.keys() - wanted.keys())
    shapes = {key: tuple(getattr(given[key], 'shape', ())) for key in wanted.keys() & given.keys()}
    other = sorted(key for key, shape in shapes.items() if shape != tuple(wanted[key].shape))
    if missing or unknown or other:
        theirs, ours = _architecture(given), _architecture(wanted)
        options = [f'{name}={value!r} (the model has {ours[name]!r})' for name, value in theirs.items()
                   if name in ours and ours[name] != value]
        remedy = f'; create the model with {", ".join(options)}' if options else ''
        problems = [f'{what} {_shortened(keys)}' for what, keys in (('missing', missing), ('unknown', unknown)) if keys]
        problems += [f'{key!r} has shape {shapes[key]}, expected {tuple(wanted[key].shape)}' for key in other[:1]]
        raise CheckpointError(f'state: the parameters do not match the model: {", ".join(problems)}{remedy}')
    with torch.no_grad():
        model.load_state_dict({key: given[key] for key in wanted})
    return model


def _parameters(state: Any) -> dict[str, Any]:
    r"""Returns the parameters of a checkpoint by their names in :class:`NBFNet`."""
    if not isinstance(state, Mapping):
        raise CheckpointError('state: expected a dictionary of parameters, such as torch.load(path, weights_only=True),'
                              f' got an object of type {type(state).__name__}')
    for key in _CONTAINERS:
        inner = state.get(key)
        if isinstance(inner, Mapping):
            return _parameters(inner)
    if not all(isinstance(key, str) for key in state):
        raise CheckpointError('state: expected the names of parameters as keys, got '
                              f'{next(key for key in state if not isinstance(key, str))!r}')
    names = {key: value for key, value in state.items() if not _BUFFER.search(key)}
    prefixes = {key.removesuffix('query.weight') for key in names if re.search(r'(^|\.)query\.weight$', key)}
    prefixes = {prefix for prefix in prefixes if any(key.startswith(f'{prefix}layers.0.') for key in names)}
    if len(prefixes) > 1:
        raise CheckpointError(f'state: expected the parameters of one NBFNet, got several, under the prefixes '
                              f'{", ".join(map(repr, sorted(prefixes)))}; pass the parameters of one of them')
    prefix = prefixes.pop() if prefixes else ''
    return {_sequential(key.removeprefix(prefix)): value for key, value in names.items()}


def _sequential(key: str) -> str:
    found = _TORCHDRUG_MLP.match(key)
    return f'mlp.{2 * int(found[1])}.{found[2]}' if found else key


def _architecture(state: Mapping[str, Any]) -> dict[str, Any]:
    r"""Returns the arguments of :class:`NBFNet` that follow from the names and shapes of its parameters."""
    found: dict[str, Any] = {}
    shape = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    layers = {int(match[1]) for match in (re.match(r'layers\.(\d+)\.', key) for key in state) if match}
    linear = {int(match[1]) for match in (re.match(r'mlp\.(\d+)\.', key) for key in state) if match}
    if len(shape.get('query.weight', ())) == 2:
        num_types, width = shape['query.weight']
        found.update(num_relations=num_types // 2, hidden_channels=width)
    if layers:
        found['num_layers'] = max(layers) + 1
        found['layer_norm'] = any('.layer_norm.' in key for key in state)
        found['dependent'] = any('.relation_linear.' in key for key in state)
        last = shape.get(f'layers.{max(layers)}.linear.weight', ())
        if 'hidden_channels' in found and len(last) == 2:
            found['out_channels'] = last[0]
            factor, rest = divmod(last[1], found['hidden_channels'])
            # Sums, means and extrema have parameters of the same shape.
            if rest == 0 and factor in (2, 13):
                found['aggregate'] = 'pna' if factor == 13 else 'sum, mean, max or min'
    if linear:
        found['num_mlp_layers'] = max(linear) // 2 + 1
        first = shape.get('mlp.0.weight', ())
        if {'num_layers', 'out_channels'} <= found.keys() and len(first) == 2 and found['num_layers'] > 1:
            found['concat_hidden'] = first[1] > found['out_channels'] + found['hidden_channels']
    return found


def _shortened(keys: list[str]) -> str:
    shown = ', '.join(keys[:3])
    return shown if len(keys) <= 3 else f'{shown} and {len(keys) - 3} more'
