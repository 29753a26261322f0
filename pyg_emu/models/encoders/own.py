r"""Graph neural networks of PyG as encoders of entities."""
from __future__ import annotations

from typing import Any, Callable, ClassVar, Iterator, Literal, Optional

import torch
from torch import Tensor
from torch_geometric.nn.inits import glorot

from pyg_emu.core.arguments import kind_of, positive_integer, shown
from pyg_emu.core.contract import Scorer, ScorerMixin, Side
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot
from pyg_emu.data.graph import KGData
from pyg_emu.models.encoders.base import GraphEncoder

#: From a network and a graph to the vectors of all entities.
Encode = Callable[[Any, KGData], Tensor]


class GNNEncoder(GraphEncoder):
    r"""A graph neural network that encodes the entities, and their dot product as score: with one relation
    :math:`\mathbf{x}_h \cdot \mathbf{x}_t`, with several :math:`(\mathbf{x}_h \odot \mathbf{r}) \cdot \mathbf{x}_t`,
    as in :class:`~pyg_emu.DistMult`.

    It makes any network of PyG a model for losses, samplers, :func:`~pyg_emu.evaluate` and :func:`~pyg_emu.predict`.
    A step encodes all entities once, from the training facts.

    .. code-block:: python

        data = load_dataset({'train': train, 'val': val, 'test': test}, keep=('x', ))    # parts of RandomLinkSplit
        model = GNNEncoder(GCN(data.x.size(1), 64, num_layers=2), data.num_nodes)        # gnn(data.x, data.edge_index)
        model = GNNEncoder(LightGCN(data.num_nodes, 64, 2), data.num_nodes,
                           encode=lambda gnn, graph: gnn.get_embedding(graph.edge_index))

    The network gets the edges of the graph as they are: heads are sources and tails are targets. To pass messages in
    both directions, use :obj:`data.with_inverse_relations()` in the loader and in rankings.

    A network with dropout draws from PyTorch's global random stream. Several processes encode the same vectors only if
    this stream is the same in all of them: call :func:`torch.manual_seed` with the same seed in each.

    Penalties of a loss, such as :class:`~pyg_emu.L3Regularizer`, act on the embedding layers of the network and on the
    relations, not on the encoded entities.

    Args:
        encoder (torch.nn.Module): The network.
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int, optional): The number of relations, without inverse ones. (default: :obj:`1`)
        encode (callable, optional): :obj:`encode(encoder, data)` returns the vectors of all entities, of shape
            :obj:`(num_nodes, d)`, from a :class:`~pyg_emu.KGData`. (default: :obj:`encoder(data.x, data.edge_index)`)
        hidden_channels (int, optional): The width :math:`d` of the vectors; needed for several relations.
            (default: :obj:`None`, any width)

    Raises:
        ArgumentError: If an argument is outside of its domain; when encoding, if the vectors have another shape.
    """
    #: It takes a network, which a recipe cannot describe.
    recipe_name: ClassVar[Optional[str]] = None
    #: A network may compute anything, which a CUDA graph may not replay.
    dynamic_shapes: ClassVar[bool] = True

    def __init__(self, encoder: torch.nn.Module, num_nodes: int, num_relations: int = 1,
                 encode: Optional[Encode] = None, hidden_channels: Optional[int] = None) -> None:
        super().__init__()
        if not isinstance(encoder, torch.nn.Module):
            raise ArgumentError(f'encoder: expected a torch.nn.Module, got {shown(encoder)}')
        if encode is not None and (isinstance(encode, type) or not callable(encode)):
            raise ArgumentError('encode: expected a function of the encoder and a graph that returns vectors, got '
                                f'{shown(encode)}')
        self.encoder = encoder
        self.num_nodes = positive_integer('num_nodes', num_nodes)
        self.num_relations = positive_integer('num_relations', num_relations)
        self.interaction = Dot()
        self.encode = _features if encode is None else encode
        self.relations: Optional[torch.nn.Parameter] = None
        if hidden_channels is not None:
            hidden_channels = positive_integer('hidden_channels', hidden_channels)
        self.hidden_channels = hidden_channels
        if self.num_relations > 1:
            if hidden_channels is None:
                raise ArgumentError('hidden_channels: expected the width of the vectors, as there is one for each of '
                                    f'{num_relations} relations, got None')
            self.relations = torch.nn.Parameter(torch.empty(self.num_relations, hidden_channels))
            glorot(self.relations)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters."""
        if callable(getattr(self.encoder, 'reset_parameters', None)):
            self.encoder.reset_parameters()  # type: ignore[operator]
        if self.relations is not None:
            glorot(self.relations)

    def _encoded(self, data: KGData) -> tuple[Scorer, Tensor]:
        found = self.encode(self.encoder, data)
        width = self.hidden_channels  # None, too, of models saved before it was kept
        if not isinstance(found, Tensor) or found.dim() != 2 or not found.is_floating_point() or (
                found.size(0) != self.num_nodes or width not in (None, found.size(1))):
            got = kind_of(found) if isinstance(found, Tensor) else shown(found)
            raise ArgumentError(f'encode: expected vectors of shape ({self.num_nodes}, {width or "d"}), one for each '
                                f'entity, got {got}')
        return _Encoded(found, self), found

    def _device(self) -> Optional[torch.device]:
        first = next(self.parameters(), None)
        return None if first is None else first.device

    def embedding_weights(self) -> Iterator[Tensor]:
        for part in self.encoder.modules():
            if isinstance(part, torch.nn.Embedding):
                yield part.weight
        if self.relations is not None:
            yield self.relations

    def extra_repr(self) -> str:
        return f'num_nodes={self.num_nodes}, num_relations={self.num_relations}'


class _Encoded(ScorerMixin):
    r"""Encoded entities and the relations of a model."""
    def __init__(self, entities: Tensor, model: GNNEncoder) -> None:
        self.entities = entities
        self.model = model
        self.num_nodes, self.num_relations, self.interaction = model.num_nodes, model.num_relations, model.interaction

    def entity_table(self) -> Tensor:
        return self.entities

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        rows = self.entities[known]
        return rows if self.model.relations is None else rows * self.model.relations[rel_type]

    def _device(self) -> Optional[torch.device]:
        return self.entities.device

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        if self.model.relations is None:
            return self.entities.new_ones(rel_type.numel(), self.entities.size(1))
        return self.model.relations[rel_type]

    def embedding_weights(self) -> Iterator[Tensor]:
        return self.model.embedding_weights()

    def __call__(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        return self.triple_score(head_index, rel_type, tail_index)


def _features(encoder: Any, data: KGData) -> Tensor:
    if not isinstance(data.get('x'), Tensor):
        raise ArgumentError('encode: expected a function that makes vectors of a graph without features x; pass it, or '
                            "load the data with keep=('x', )")
    found: Tensor = encoder(data.x, data.edge_index)
    return found
