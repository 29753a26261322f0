r"""R-GCN: entity vectors encoded from the graph, scored by a shallow model."""
from __future__ import annotations

import copy
from typing import Any, Callable, ClassVar, Iterator, Optional, Union

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import is_number, one_of, positive_integer, share, shown
from pyg_emu.core.contract import Scorer, Side
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.memory import memory_reported
from pyg_emu.core.warn import warn
from pyg_emu.data.checks import check_sizes
from pyg_emu.data.graph import KGData
from pyg_emu.models.base import KGEScorer
from pyg_emu.models.complex import ComplEx
from pyg_emu.models.distmult import DistMult
from pyg_emu.models.encoders.base import GraphEncoder
from pyg_emu.models.encoders.layer import RGCNLayer
from pyg_emu.models.encoders.messages import MessageGraph
from pyg_emu.models.hake import HAKE
from pyg_emu.models.rotate import RotatE
from pyg_emu.models.transe import TransE

_DROPOUT = 0.2
# More layers than message passing can use, and few enough to create at once.
_MAX_LAYERS = 100
#: The models whose queries and scores a decoder may have, by name.
DECODERS: dict[str, Callable[..., KGEScorer]] = {
    'DistMult': DistMult, 'ComplEx': ComplEx, 'RotatE': RotatE, 'TransE': TransE, 'HAKE': HAKE}


class RGCN(GraphEncoder):
    r"""Relational graph convolutions that encode the entities, and a shallow model that scores what they return, as in
    the `"Modeling Relational Data with Graph Convolutional Networks" <https://arxiv.org/abs/1703.06103>`_ paper and, as
    base model of DANS, in the `"Diversified and Adaptive Negative Sampling on Knowledge Graphs"
    <https://arxiv.org/abs/2410.07592>`_ paper (equations 1 and 3).

    The entity table of the decoder is the input of the first :class:`~pyg_emu.models.encoders.RGCNLayer`; the output of
    the last one replaces it in queries and candidates. Messages pass along the training facts and their inverses. ReLU
    and dropout follow each layer but the last.

    It is used as any other model: losses encode a sampled subgraph in each step, and :func:`~pyg_emu.evaluate` and
    :func:`~pyg_emu.predict` encode all training facts, once in each call.

    .. code-block:: python

        model = RGCN(data.num_nodes, data.num_relations, 100, decoder='DistMult')
        for batch in TripletLoader(data, shuffle=True, transform=EMUNegatives(num_negatives=20)):
            criterion(model, batch).backward()
        evaluate(model, data)

    To score triples directly, encode first: :obj:`model.for_graph(data)` returns a :class:`~pyg_emu.Scorer`.

    **Training.** Messages of all facts would contain those that are to be predicted. In training mode, each step draws
    a share :obj:`visible` of at most :obj:`max_edges` training facts for the messages of all layers. The others stay
    hidden. With the default, these include at least half of the facts of the batch on average. Entities without a
    message are encoded by :math:`\mathbf{W}_0` from their own row, so negatives may be any entity. Facts and dropout
    are drawn from :obj:`batch.generator`, so that several processes encode the same vectors.

    **Penalties** of a loss, such as :class:`~pyg_emu.L3Regularizer`, act on the encoded entities of the step and on the
    relations of the decoder, not on the table that is the input of the first layer.

    Args:
        num_nodes (int): The number of nodes/entities in the graph.
        num_relations (int): The number of relations, without inverse ones.
        hidden_channels (int): The hidden embedding size of the decoder. Layers are as wide as a row of its entity
            table.
        decoder (str or type, optional): The shallow model: :obj:`"DistMult"`, :obj:`"ComplEx"`, :obj:`"RotatE"`,
            :obj:`"TransE"`, :obj:`"HAKE"`, or a class that derives from :class:`~pyg_emu.models.KGEScorer`.
            (default: :obj:`"DistMult"`)
        num_layers (int, optional): The number of layers. (default: :obj:`2`)
        num_bases (int, optional): The number of bases, see :class:`~pyg_emu.models.encoders.RGCNLayer`.
            (default: :obj:`4`, or :obj:`None` if :obj:`num_blocks` is given)
        num_blocks (int, optional): The number of blocks, see there. (default: :obj:`None`)
        dropout (float, optional): The dropout probability; between layers, so that one layer has none, and a warning
            is raised. (default: :obj:`0.2`)
        max_edges (int, optional): The number of training facts that a step samples from. (default: :obj:`30000`)
        visible (float, optional): The share of them that pass messages. (default: :obj:`0.5`)
        margin (float, optional): :math:`\gamma` of the decoder. (default: that of the decoder)

    Raises:
        ArgumentError: If an argument is outside of its domain; when scoring, if the model was not given a graph.
    """
    #: Sampled subgraphs have another size in each step, which a CUDA graph cannot replay.
    dynamic_shapes: ClassVar[bool] = True
    #: Weights of layers hold those of inverse relations after those of relations.
    relation_blocks: ClassVar[int] = 2

    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        decoder: Union[str, type] = 'DistMult',
        num_layers: int = 2,
        num_bases: Optional[int] = None,
        num_blocks: Optional[int] = None,
        dropout: float = _DROPOUT,
        max_edges: int = 30_000,
        visible: float = 0.5,
        margin: Optional[float] = None,
    ) -> None:
        super().__init__()
        num_layers = positive_integer('num_layers', num_layers)
        if num_layers > _MAX_LAYERS:
            raise ArgumentError(f'num_layers: expected at most {_MAX_LAYERS}, got {num_layers}')
        if num_bases is None and num_blocks is None:
            num_bases = 4
        own = {} if margin is None else {'margin': margin}
        made: KGEScorer = _decoder_class(decoder)(num_nodes, num_relations, hidden_channels, **own)
        self.decoder = made
        self.num_nodes = made.num_nodes
        self.num_relations = made.num_relations
        self.hidden_channels = made.hidden_channels
        self.interaction = made.interaction
        self.offset = made.offset
        self.complex_rows = made.complex_rows
        self.dropout = share('dropout', dropout)
        if num_layers == 1 and dropout not in (0.0, _DROPOUT):
            warn(f'dropout: {dropout} has no effect with num_layers=1, because it acts between layers; '
                 'expected 0, or more layers')
        self.max_edges = positive_integer('max_edges', max_edges)
        if not is_number(visible) or not 0.0 < visible <= 1.0:
            raise ArgumentError(f'visible: expected a share above 0 and at most 1, got {shown(visible)}')
        self.visible = visible
        width = made.node_emb.weight.size(1)
        task = f'{num_layers} layers with num_bases={num_bases}, num_blocks={num_blocks} and width {width}'
        with memory_reported(task, 'lower num_bases or hidden_channels'):
            self.layers = torch.nn.ModuleList(
                RGCNLayer(width, width, 2 * num_relations, num_bases, num_blocks) for _ in range(num_layers))

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters."""
        self.decoder.reset_parameters()
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def encode(self, graph: MessageGraph, generator: Optional[torch.Generator] = None) -> Tensor:
        r"""Encodes all entities.

        Args:
            graph (MessageGraph): The edges along which messages pass.
            generator (torch.Generator, optional): The random stream of dropout in training mode.
                (default: :obj:`None`, PyTorch's global one)

        :rtype: :class:`torch.Tensor` of shape :obj:`(num_nodes, d)`.
        """
        x = self.decoder.entity_table()
        for layer in self.layers:
            if layer is not self.layers[0]:
                x = _dropped(x.relu(), self.dropout if self.training else 0.0, generator)
            x = layer(x, graph)
        return x

    def _encoded(self, data: KGData) -> tuple[Scorer, Tensor]:
        encoded = self.encode(MessageGraph.of(data))
        return self._decode(encoded), encoded

    def _encoded_for_step(self, data: KGData, generator: Optional[torch.Generator]) -> tuple[Scorer, Tensor]:
        size = max(1, round(self.visible * min(self.max_edges, data.num_facts('train'))))
        encoded = self.encode(MessageGraph.sample(data, size, generator), generator)
        return self._decode(encoded), encoded

    def _decode(self, encoded: Tensor) -> KGEScorer:
        # A shallow copy of the decoder that looks up encoded rows in place of its table.
        view = copy.copy(self.decoder)
        view.__dict__['_modules'] = {**self.decoder._modules, 'node_emb': _Rows(encoded)}
        view.sparse = False
        return view

    def _check(self, data: Any) -> None:
        super()._check(data)
        # Inverse relations follow the relations of the graph, and their weights those of the model.
        check_sizes(self, data, equal=('num_relations', ))

    def _device(self) -> Optional[torch.device]:
        return self.decoder.node_emb.weight.device

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        return self.decoder.relation_rows(rel_type, side)

    def embedding_weights(self) -> Iterator[Tensor]:
        return self.decoder.embedding_weights()

    def extra_repr(self) -> str:
        return f'dropout={self.dropout}, max_edges={self.max_edges}, visible={self.visible}'


class _Rows(torch.nn.Module):
    r"""Encoded rows in place of an embedding."""
    sparse = False

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)


def _dropped(x: Tensor, rate: float, generator: Optional[torch.Generator]) -> Tensor:
    r"""Dropout from a random stream, which PyTorch's own has no argument for."""
    if generator is None or rate in (0.0, 1.0):
        return F.dropout(x, rate)
    return x * torch.empty_like(x).bernoulli_(1.0 - rate, generator=generator).div_(1.0 - rate)


def _decoder_class(decoder: Any) -> Callable[..., Any]:
    if isinstance(decoder, str):
        known = {name.lower(): made for name, made in DECODERS.items()}
        if decoder.lower() not in known:
            one_of('decoder', decoder, tuple(DECODERS))
        return known[decoder.lower()]
    if not isinstance(decoder, type) or not issubclass(decoder, KGEScorer):
        raise ArgumentError(f'decoder: expected one of {", ".join(DECODERS)}, or a class that derives from KGEScorer, '
                            f'got {shown(decoder)}')
    return decoder
