r"""Knowledge graph embedding models based on PyG's :class:`~torch_geometric.nn.kge.KGEModel`, parametrized as in the
EMU paper, R-GCN, which encodes entities for them, and NBFNet, which has no entity embeddings."""
from __future__ import annotations

from pyg_emu.models.base import KGEScorer
from pyg_emu.models.complex import ComplEx
from pyg_emu.models.distmult import DistMult
from pyg_emu.models.encoders.rgcn import RGCN
from pyg_emu.models.hake import HAKE
from pyg_emu.models.mapped import map_entities
from pyg_emu.models.nbfnet.model import NBFNet
from pyg_emu.models.nbfnet.state import load_nbfnet_pyg_state_dict
from pyg_emu.models.pykeen import from_pykeen_model
from pyg_emu.models.reciprocal import Reciprocal
from pyg_emu.models.rotate import RotatE
from pyg_emu.models.sharded import shard_entities
from pyg_emu.models.transe import TransE

__all__ = [
    'ComplEx',
    'DistMult',
    'HAKE',
    'KGEScorer',
    'NBFNet',
    'RGCN',
    'Reciprocal',
    'RotatE',
    'TransE',
    'from_pykeen_model',
    'load_nbfnet_pyg_state_dict',
    'map_entities',
    'shard_entities',
]
