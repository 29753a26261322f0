r"""Relational message passing without materializing a feature vector for each edge."""
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
