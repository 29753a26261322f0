r"""NBFNet: a path-based model, the import of public checkpoints, and explanations of scores."""
from pyg_emu.models.nbfnet.explanation import draw_paths, explain
from pyg_emu.models.nbfnet.model import NBFNet
from pyg_emu.models.nbfnet.state import load_nbfnet_pyg_state_dict

__all__ = [
    'NBFNet',
    'draw_paths',
    'explain',
    'load_nbfnet_pyg_state_dict',
]
