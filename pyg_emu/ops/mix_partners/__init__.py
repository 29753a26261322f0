r"""The choice of partners that negatives are mixed with."""
from pyg_emu.ops.mix_partners.operator import PartnerPools, mix_partners

__all__ = [
    'PartnerPools',
    'mix_partners',
]
