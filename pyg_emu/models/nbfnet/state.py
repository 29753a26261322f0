r"""Checkpoints of the public PyTorch Geometric implementation of NBFNet."""
from __future__ import annotations

from typing import Any, Mapping

import torch
from torch import Tensor

from pyg_emu.core.errors import CheckpointError
from pyg_emu.models.nbfnet.model import NBFNet

# The graph that the public implementation puts beside its parameters.
_NOT_PARAMETERS = ('graph.', 'fact_graph.', 'undirected_fact_graph.')


def load_nbfnet_pyg_state_dict(model: NBFNet, state: Mapping[str, Any]) -> NBFNet:
    r"""Loads the parameters of a public NBFNet-PyG checkpoint.

    The layouts agree: a relation's inverse is :math:`r + R`, query-dependent relation vectors have a row for each
    :obj:`relation * width + component`, and the columns of a linear layer on principal neighbourhood aggregation are
    :obj:`(component * 4 + statistic) * 3 + scaler` after those of the layer's input.

    .. code-block:: python

        state = torch.load('model_epoch_20.pth', map_location='cpu', weights_only=True)
        model = load_nbfnet_pyg_state_dict(NBFNet(237), state)

    Args:
        model (NBFNet): A model of the checkpoint's sizes; its parameters are overwritten.
        state (dict): The state of the model, or a checkpoint that holds it as :obj:`"model"`.

    :rtype: :class:`NBFNet`, the model itself.

    Raises:
        CheckpointError: If parameters are missing, unknown or of another shape; names them. The model is then as it
            was.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError('state: expected parameters by name, such as torch.load(path, weights_only=True), got an '
                              f'object of type {type(state).__name__}')
    inner = state.get('model')
    if isinstance(inner, Mapping):
        state = inner
    given = {key.removeprefix('module.'): value for key, value in state.items()}
    given = {key: value for key, value in given.items() if not key.startswith(_NOT_PARAMETERS)}
    wanted: dict[str, Tensor] = model.state_dict()
    missing = sorted(wanted.keys() - given.keys())
    unknown = sorted(given.keys() - wanted.keys())
    if missing or unknown:
        hint = _hint(missing, unknown)
        raise CheckpointError(f'state: missing {missing or "nothing"}, unknown {unknown or "nothing"}{hint}')
    for key, value in wanted.items():
        if not isinstance(given[key], Tensor) or given[key].shape != value.shape:
            shape = tuple(getattr(given[key], 'shape', ()))
            raise CheckpointError(f'state[{key!r}]: expected shape {tuple(value.shape)}, got {shape}; look for another '
                                  f'number of relations (inverse ones not counted), width or aggregate')
    with torch.no_grad():
        model.load_state_dict(given)
    return model


def _hint(missing: list[str], unknown: list[str]) -> str:
    for option, present, absent in (('dependent=False', '.relation.', '.relation_linear.'),
                                    ('dependent=True', '.relation_linear.', '.relation.')):
        if any(present in key for key in unknown) and any(absent in key for key in missing):
            return f'; build the model with {option}'
    if any('.layer_norm.' in key for key in missing + unknown):
        return f'; build the model with layer_norm={any(".layer_norm." in key for key in unknown)}'
    return '; build the model with as many layers as the checkpoint has'
