r"""Graph encoders: entity vectors computed from the training facts."""
from pyg_emu.models.encoders.base import GraphEncoder
from pyg_emu.models.encoders.layer import RGCNLayer
from pyg_emu.models.encoders.messages import MessageGraph
from pyg_emu.models.encoders.own import GNNEncoder
from pyg_emu.models.encoders.rgcn import RGCN

__all__ = [
    'GNNEncoder',
    'GraphEncoder',
    'MessageGraph',
    'RGCN',
    'RGCNLayer',
]
