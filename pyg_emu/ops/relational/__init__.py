r"""Relational message passing: messages along edges, combined and aggregated, without a row of features per edge."""
from pyg_emu.ops.relational.operator import (
    AGGREGATES,
    MESSAGES,
    Aggregate,
    Boundary,
    BoundaryRows,
    EdgeOrders,
    Edges,
    Message,
    message_count,
    relational_conv,
)

__all__ = [
    'AGGREGATES',
    'MESSAGES',
    'Aggregate',
    'Boundary',
    'BoundaryRows',
    'EdgeOrders',
    'Edges',
    'Message',
    'message_count',
    'relational_conv',
]
