r"""Facts on the device: the graph with its splits and indices, batches and their loader, and where graphs come
from."""
from pyg_emu.data.batch import Batch
from pyg_emu.data.candidates import RelationCandidates
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import EdgeOrder, FactIndex
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.data.loader import TripletLoader

__all__ = [
    'Batch',
    'EdgeOrder',
    'FactIndex',
    'KGData',
    'RelationCandidates',
    'TripletLoader',
    'load_dataset',
]
