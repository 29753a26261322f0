r"""Neural Bellman-Ford Networks with fused relational message passing."""
from __future__ import annotations

from typing import Any, Callable, ClassVar, Literal, Mapping, NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from pyg_emu.core.arguments import boolean, ids_below, kind_of, one_of, positive_integer, shown, tensors
from pyg_emu.core.contract import Side
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.memory import memory_reported
from pyg_emu.models.nbfnet.layer import NBFNetLayer, degree_scale
from pyg_emu.ops.relational import AGGREGATES, MESSAGES, Aggregate, BoundaryRows, EdgeOrders, Message
from pyg_emu.ops.row_linear import row_linear

# The size in bytes of the node features of one layer during ranking. The features of a few layers exist at once.
_RANKER_FEATURES = 2**23
# More layers than message passing can use, and few enough to create at once.
_MAX_LAYERS = 1000


class Encoding(NamedTuple):
    r"""The result of :meth:`NBFNet.encode`: the two parts of the final feature of each node.

    Args:
        hidden (torch.Tensor): The part that differs between nodes. shape: :obj:`(B, V, hidden_width)`.
        query (torch.Tensor): The part shared by all nodes of a query. shape: :obj:`(B, hidden_channels)`.
    """
    hidden: Tensor
    query: Tensor

    def at(self, index: Tensor) -> Tensor:
        r"""Returns the hidden part of the selected nodes.

        Args:
            index (torch.Tensor): The node ids. shape: :obj:`(B, K)`, int64.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, K, hidden_width)`.
        """
        return self.hidden[torch.arange(index.size(0), device=index.device).unsqueeze(1), index]


class NBFNet(torch.nn.Module):
    r"""The model of the `"Neural Bellman-Ford Networks: A General Graph Neural Network Framework for Link Prediction"
    <https://arxiv.org/abs/2106.06935>`_ paper. It represents a pair of nodes by the paths between them (equations 4 and
    5). It has no entity embeddings, so it applies to graphs with unseen entities and the same relations.

    The graph is a :class:`~pyg_emu.KGData` with inverse relations. The inverse of relation :math:`r` is :math:`r + R`.
    Heads are predicted as the tails of :math:`(t, r + R, ?)`. The defaults are those of the paper for FB15k-237 and its
    inductive versions. For WN18RR, the paper uses :obj:`dependent=False, remove_one_hop=False`.

    If facts have weights (:obj:`graph.edge_weight`), they multiply messages.

    .. code-block:: python

        data = load_dataset('UMLS').with_inverse_relations()
        model = NBFNet(data.num_relations, hidden_channels=32, num_layers=6)
        scores = model.score(data, known, rel_type)           # (B, num_nodes)
        metrics = evaluate(model.as_ranker(data), data)

    Args:
        num_relations (int): The number of relations :math:`R`, without inverse ones.
        hidden_channels (int, optional): The width of the queries, of the boundary condition and of the input of each
            layer. (default: :obj:`32`)
        num_layers (int, optional): The number of layers. (default: :obj:`6`)
        out_channels (int, optional): The width of the output of the last layer. (default: :obj:`None`,
            :obj:`hidden_channels`)
        message (str, optional): :obj:`"product"` (DistMult), :obj:`"sum"` (TransE) or :obj:`"rotate"` (RotatE).
            (default: :obj:`"product"`)
        aggregate (str, optional): :obj:`"sum"`, :obj:`"mean"`, :obj:`"max"`, :obj:`"min"` or :obj:`"pna"`.
            (default: :obj:`"pna"`)
        shortcut (bool, optional): Whether to add the input of a layer to its output if their widths are equal.
            (default: :obj:`True`)
        layer_norm (bool, optional): Whether to use layer normalisation. (default: :obj:`True`)
        dependent (bool, optional): Whether the relation vectors of each layer are a linear function of the query
            (equation 15). Otherwise, they are a table. (default: :obj:`True`)
        concat_hidden (bool, optional): Whether the final feature contains the outputs of all layers instead of the last
            one. (default: :obj:`False`)
        num_mlp_layers (int, optional): The number of linear layers of the scoring network. (default: :obj:`2`)
        remove_one_hop (bool, optional): Which edges to remove during training, see :meth:`training_mask`: all direct
            edges between the pairs of a batch, or only the facts of the batch and their inverses. (default:
            :obj:`True`)
        act (str, callable or None, optional): The activation of the layers. (default: :obj:`"relu"`)
        bf16 (bool, optional): Whether linear layers run in bfloat16 by :func:`torch.autocast`. (default: :obj:`False`)
        checkpointing (bool, optional): Whether to recompute layers in the backward pass instead of keeping their
            intermediate results. (default: :obj:`False`)

    Raises:
        ArgumentError: If an argument has an invalid type or value.
    """
    #: Scores depend on a graph, so ranking and prediction use :meth:`as_ranker`.
    reads_graph: ClassVar[bool] = True
    #: Parameters of relations hold those of inverse ones after them.
    relation_blocks: ClassVar[int] = 2
    #: The default settings in a recipe: the published settings, with Table 15 of the EMU paper.
    recipe_defaults: ClassVar[Mapping[str, Any]] = {
        'negatives': {'num_negatives': 32, 'mutation_rate': 0.94, 'mask': 'exact', 'shared': False,
                      'sampler': {'name': 'uniform', 'filtered': True}},
        'loss': {'name': 'nbfnet_emu'},
        'optimizer': {'name': 'adam', 'lr': 5e-3},
        'batch_size': 64,
        'corrupt': 'both',
    }

    def __init__(
        self,
        num_relations: int,
        hidden_channels: int = 32,
        num_layers: int = 6,
        out_channels: Optional[int] = None,
        message: Message = 'product',
        aggregate: Aggregate = 'pna',
        shortcut: bool = True,
        layer_norm: bool = True,
        dependent: bool = True,
        concat_hidden: bool = False,
        num_mlp_layers: int = 2,
        remove_one_hop: bool = True,
        act: Union[str, Callable, None] = 'relu',
        bf16: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        out_channels = hidden_channels if out_channels is None else out_channels
        given = {'num_relations': num_relations, 'hidden_channels': hidden_channels, 'num_layers': num_layers,
                 'out_channels': out_channels, 'num_mlp_layers': num_mlp_layers}
        given = {name: positive_integer(name, value) for name, value in given.items()}
        num_relations, hidden_channels, num_layers, out_channels, num_mlp_layers = given.values()
        for name, value in given.items():
            if 'layers' in name and value > _MAX_LAYERS:
                raise ArgumentError(f'{name}: expected at most {_MAX_LAYERS}, got {value}')
        one_of('message', message, MESSAGES)
        one_of('aggregate', aggregate, AGGREGATES)
        for name, flag in (('shortcut', shortcut), ('layer_norm', layer_norm), ('dependent', dependent),
                           ('concat_hidden', concat_hidden), ('remove_one_hop', remove_one_hop), ('bf16', bf16),
                           ('checkpointing', checkpointing)):
            boolean(name, flag)
        if act is not None and not isinstance(act, str) and (isinstance(act, type) or not callable(act)):
            raise ArgumentError(f"act: expected a name such as 'relu', a function or None, got {shown(act)}")
        if isinstance(act, str):
            try:
                activation_resolver(act)
            except (ValueError, TypeError) as error:
                raise ArgumentError(f"act: expected the name of an activation, such as 'relu', got {act!r}") from error
        if message == 'rotate' and hidden_channels % 2 != 0:
            raise ArgumentError(f"hidden_channels: expected an even width for message 'rotate', got {hidden_channels}")
        self.num_relations = num_relations
        self.hidden_channels = hidden_channels
        self.shortcut = shortcut
        self.concat_hidden = concat_hidden
        self.remove_one_hop = remove_one_hop
        self.bf16 = bf16
        self.checkpointing = checkpointing
        #: The width of the hidden part of a final feature, which is the part that is mutated.
        self.hidden_width = out_channels + (hidden_channels * (num_layers - 1) if concat_hidden else 0)

        with memory_reported(f'a model of num_relations={num_relations}, hidden_channels={hidden_channels}, '
                             f'num_layers={num_layers}, out_channels={out_channels}, num_mlp_layers={num_mlp_layers}',
                             'choose fewer hidden_channels'):
            self.query = torch.nn.Embedding(2 * num_relations, hidden_channels)
            self.layers = torch.nn.ModuleList(
                NBFNetLayer(hidden_channels, width, 2 * num_relations, hidden_channels, message, aggregate, layer_norm,
                            dependent, act) for width in [hidden_channels] * (num_layers - 1) + [out_channels])
            width = self.hidden_width + hidden_channels
            mlp: list[torch.nn.Module] = []
            for _ in range(num_mlp_layers - 1):
                mlp += [torch.nn.Linear(width, width), torch.nn.ReLU()]
            self.mlp = torch.nn.Sequential(*mlp, torch.nn.Linear(width, 1))

    def reset_parameters(self) -> None:
        r"""Resets all parameters."""
        for module in self.children():
            reset(module)

    # Scores ##################################################################

    def query_relation(self, rel_type: Tensor, side: Side = 'tail') -> Tensor:
        r"""Returns the relation of each query: :math:`r` for tails, or :math:`r + R` for heads. shape: :obj:`(B,)`.

        Args:
            rel_type (torch.Tensor): The relations, in :obj:`[0, R)`. shape: :obj:`(B,)`.
            side (str or torch.Tensor, optional): The predicted side: :obj:`"tail"`, :obj:`"head"`, or a boolean tensor
                of shape :obj:`(B,)` that is :obj:`True` for tails. (default: :obj:`"tail"`)

        Raises:
            ArgumentError: If :obj:`side` is invalid.
        """
        if isinstance(side, Tensor):
            if side.dtype != torch.bool or side.shape != rel_type.shape:
                raise ArgumentError(f'side: expected torch.bool of shape {tuple(rel_type.shape)}, true for tails, got '
                                    f'{side.dtype} of shape {tuple(side.shape)}')
            return torch.where(side, rel_type, rel_type + self.num_relations)
        if not isinstance(side, str) or side not in ('tail', 'head'):
            raise ArgumentError(f"side: expected 'tail', 'head' or a boolean tensor, got {shown(side)}")
        return rel_type if side == 'tail' else rel_type + self.num_relations

    def encode(self, graph: Any, known: Tensor, rel_type: Tensor, side: Side = 'tail', *,
               edge_mask: Optional[Tensor] = None, edge_weights: Optional[Sequence[Tensor]] = None) -> Encoding:
        r"""Computes the representation of every node relative to the known entity of each query.

        Args:
            graph (KGData): The graph, with inverse relations.
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`, int64.
            rel_type (torch.Tensor): The relations, in :obj:`[0, R)`. shape: :obj:`(B,)`, int64.
            side (str or torch.Tensor, optional): The predicted side, see :meth:`query_relation`. (default:
                :obj:`"tail"`)
            edge_mask (torch.Tensor, optional): :obj:`True` for the edges to use, in the order of
                :obj:`graph.edge_index`. shape: :obj:`(E,)`, bool. (default: :obj:`None`, all edges)
            edge_weights (list of torch.Tensor, optional): A factor of each message, one tensor per layer, beside the
                weights of the facts if :obj:`graph.edge_weight` is given. shape: :obj:`(E,)` each.
                (default: :obj:`None`)

        Raises:
            ArgumentError: If the graph has no inverse relations or another number of relations than the model, if a
                tensor has the wrong shape or dtype, or, on the CPU, if an id is out of range.
        """
        edges = self._edges(graph)
        _check_ids('known', known, (None, ), graph.num_nodes, 'entities')
        _check_ids('rel_type', rel_type, tuple(known.shape), self.num_relations, 'relations')
        num_edges = edges.by_target.edge_id.numel()
        if edge_mask is not None and (tuple(edge_mask.shape) != (num_edges, ) or edge_mask.dtype != torch.bool):
            raise ArgumentError(f'edge_mask: expected torch.bool of shape {(num_edges, )}, got {kind_of(edge_mask)}')
        if edge_weights is not None and len(edge_weights) != len(self.layers):
            raise ArgumentError(f'edge_weights: expected a tensor for each of {len(self.layers)} layers, got '
                                f'{len(edge_weights)}')
        with self._autocast(known.device):
            return self._encode(edges, known, self.query_relation(rel_type, side), edge_mask,
                                self._message_weights(graph, edge_weights))

    def _message_weights(self, graph: Any, factors: Optional[Sequence[Tensor]]) -> Optional[Sequence[Tensor]]:
        r"""The weights of the messages of each layer: those of the facts, times further factors."""
        weight = getattr(graph, 'edge_weight', None)
        if weight is None:
            return factors
        weight = weight.to(self.query.weight.dtype)
        return [weight] * len(self.layers) if factors is None else [weight * factor for factor in factors]

    def _encode(self, edges: EdgeOrders, known: Tensor, relation: Tensor, edge_mask: Optional[Tensor],
                edge_weights: Optional[Sequence[Tensor]]) -> Encoding:
        query = self.query(relation)
        boundary = BoundaryRows(known, query)
        scale = degree_scale(edges, edge_mask, query.dtype) if self.layers[0].aggregate == 'pna' else None
        x = boundary.dense(edges.by_target.ptr.numel() - 1)
        outputs = []
        for number, layer in enumerate(self.layers):
            weight = None if edge_weights is None else edge_weights[number]
            arguments = (x, query, boundary, edges, scale, weight, edge_mask)
            if self.checkpointing and self.training and torch.is_grad_enabled():
                out = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                out = layer(*arguments)
            x = out + x if self.shortcut and out.shape == x.shape else out
            outputs.append(x)
        hidden = torch.cat(outputs, dim=-1) if self.concat_hidden else x
        return Encoding(hidden.transpose(0, 1), query)

    def score_features(self, hidden: Tensor, query: Tensor) -> Tensor:
        r"""Computes the scores of final features.

        Args:
            hidden (torch.Tensor): The hidden parts, optionally mutated. shape: :obj:`(B, K, hidden_width)`.
            query (torch.Tensor): The query parts. shape: :obj:`(B, hidden_channels)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, K)`.

        Raises:
            ArgumentError: If a tensor has the wrong shape.
        """
        tensors(hidden=hidden, query=query)
        if hidden.dim() != 3 or hidden.size(2) != self.hidden_width:
            raise ArgumentError(f'hidden: expected shape (B, K, {self.hidden_width}), got {tuple(hidden.shape)}')
        if tuple(query.shape) != (hidden.size(0), self.hidden_channels):
            raise ArgumentError(f'query: expected shape {(hidden.size(0), self.hidden_channels)}, to go with hidden of '
                                f'shape {tuple(hidden.shape)}, got {tuple(query.shape)}')
        with self._autocast(hidden.device):
            first = self.mlp[0]
            assert isinstance(first, torch.nn.Linear)
            # The first layer is applied to the two parts separately, because all candidates share the query part.
            own, shared = first.weight.split([self.hidden_width, self.hidden_channels], dim=1)
            out = row_linear(hidden, own) + row_linear(query, shared, first.bias).unsqueeze(1)
            for layer in list(self.mlp)[1:]:
                out = row_linear(out, layer.weight, layer.bias) if isinstance(layer, torch.nn.Linear) else layer(out)
            out = out.squeeze(-1)
        return out.float() if self.bf16 and out.dtype == torch.bfloat16 else out

    def score(self, graph: Any, known: Tensor, rel_type: Tensor, candidates: Optional[Tensor] = None,
              side: Side = 'tail', *, edge_mask: Optional[Tensor] = None,
              edge_weights: Optional[Sequence[Tensor]] = None) -> Tensor:
        r"""Computes the scores of candidate answers to queries.

        Args:
            graph (KGData): As in :meth:`encode`.
            known (torch.Tensor): As in :meth:`encode`. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): As in :meth:`encode`. shape: :obj:`(B,)`.
            candidates (torch.Tensor, optional): The entities to score. shape: :obj:`(B, K)`, int64.
                (default: :obj:`None`, all entities)
            side (str or torch.Tensor, optional): As in :meth:`encode`. (default: :obj:`"tail"`)
            edge_mask (torch.Tensor, optional): As in :meth:`encode`. (default: :obj:`None`)
            edge_weights (list of torch.Tensor, optional): As in :meth:`encode`. (default: :obj:`None`)

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, K)`, or :obj:`(B, V)`.

        Raises:
            ArgumentError: As in :meth:`encode`, or if :obj:`candidates` has the wrong shape or dtype or is out of
                range.
        """
        self._edges(graph)
        tensors(known=known, rel_type=rel_type)
        if candidates is not None:
            _check_ids('candidates', candidates, (known.numel(), None), graph.num_nodes, 'entities')
        encoding = self.encode(graph, known, rel_type, side, edge_mask=edge_mask, edge_weights=edge_weights)
        hidden = encoding.hidden if candidates is None else encoding.at(candidates)
        return self.score_features(hidden, encoding.query)

    def forward(self, graph: Any, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        r"""Computes the scores of triples by predicting their tails.

        Args:
            graph (KGData): As in :meth:`encode`.
            head_index (torch.Tensor): The heads. shape: :obj:`(B,)`, int64.
            rel_type (torch.Tensor): The relations, in :obj:`[0, R)`. shape: :obj:`(B,)`, int64.
            tail_index (torch.Tensor): The tails. shape: :obj:`(B,)`, int64.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B,)`.
        """
        return self.score(graph, head_index, rel_type, tail_index.unsqueeze(1)).squeeze(1)

    def training_mask(self, graph: Any, known: Tensor, rel_type: Tensor, candidates: Tensor,
                      side: Side = 'tail') -> Tensor:
        r"""Returns the edges to use for training on a batch, without the edges that would reveal its facts.

        With :attr:`remove_one_hop`, all edges between a known entity and any of its candidates are removed, regardless
        of relation and direction. This includes the negatives, because otherwise a direct edge would identify a
        negative. Without :attr:`remove_one_hop`, only the facts of the batch and their inverses are removed.

        Args:
            graph (KGData): As in :meth:`encode`.
            known (torch.Tensor): As in :meth:`encode`. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): As in :meth:`encode`. shape: :obj:`(B,)`.
            candidates (torch.Tensor): The entities to score, starting with the positive. shape: :obj:`(B, K)`.
            side (str or torch.Tensor, optional): As in :meth:`encode`. (default: :obj:`"tail"`)

        :rtype: :class:`torch.Tensor` of shape :obj:`(E,)`, :obj:`True` for the edges to use.

        Raises:
            ArgumentError: As in :meth:`score`.
        """
        self._edges(graph)
        num_nodes, num_types = graph.num_nodes, 2 * self.num_relations
        _check_ids('known', known, (None, ), num_nodes, 'entities')
        _check_ids('rel_type', rel_type, tuple(known.shape), self.num_relations, 'relations')
        _check_ids('candidates', candidates, (known.numel(), None), num_nodes, 'entities')
        source, target = graph.edge_index
        if candidates.numel() == 0:
            return torch.ones_like(source, dtype=torch.bool)
        edge = source * num_nodes + target
        if self.remove_one_hop:
            known = known.unsqueeze(1)
            wanted = torch.cat([known * num_nodes + candidates, candidates * num_nodes + known]).flatten()
        else:
            positive, relation = candidates[:, 0], self.query_relation(rel_type, side)
            inverse = (relation + self.num_relations) % num_types
            edge = edge * num_types + graph.edge_type
            wanted = torch.cat([(known * num_nodes + positive) * num_types + relation,
                                (positive * num_nodes + known) * num_types + inverse])
        wanted = wanted.sort().values
        # Binary search in the few removed edges, for each edge: no array of the size of the graph is sorted.
        place = torch.searchsorted(wanted, edge).clamp_(max=wanted.numel() - 1)
        return wanted[place] != edge

    def as_ranker(self, graph: Any, batch_size: Optional[int] = None) -> NBFNetRanker:
        r"""Returns the model as a score function over one graph, for :func:`~pyg_emu.evaluate` and
        :func:`~pyg_emu.predict`.

        Args:
            graph (KGData): The graph, with inverse relations. It may differ from the training graph.
            batch_size (int, optional): The number of queries encoded at a time. (default: :obj:`None`, chosen such that
                node features take at most 32 MiB, and at most 128)
        """
        if batch_size is not None and batch_size < 1:
            raise ArgumentError(f'batch_size: expected a positive number of queries, got {batch_size}')
        self._edges(graph)
        if batch_size is None:
            batch_size = max(1, min(128, _RANKER_FEATURES // (graph.num_nodes * self.hidden_channels)))
        return NBFNetRanker(self, graph, batch_size)

    def _edges(self, graph: Any) -> EdgeOrders:
        if not hasattr(graph, 'has_inverse_relations'):
            raise ArgumentError(f'graph: expected a KGData, which caches sorted edges, got {type(graph).__name__}; use '
                                'load_dataset to create one')
        if not graph.has_inverse_relations:
            raise ArgumentError('graph: expected a graph with inverse relations, because paths follow edges in both '
                                'directions; pass data.with_inverse_relations(), created once')
        if graph.num_relations != self.num_relations:
            raise ArgumentError(f'graph: expected {self.num_relations} relations as in the model, got '
                                f'{graph.num_relations}')
        return EdgeOrders.of(graph)

    def _autocast(self, device: torch.device) -> torch.autocast:
        if not self.bf16:
            # Keeps the autocast state of the caller.
            return torch.autocast(device.type, enabled=torch.is_autocast_enabled(device.type),
                                  dtype=torch.get_autocast_dtype(device.type))
        return torch.autocast(device.type, torch.bfloat16)

    def extra_repr(self) -> str:
        return (f'num_relations={self.num_relations}, shortcut={self.shortcut}, concat_hidden={self.concat_hidden}, '
                f'remove_one_hop={self.remove_one_hop}')


def _check_ids(name: str, ids: Any, shape: tuple[Optional[int], ...], limit: int, what: str) -> None:
    r"""Checks the dtype, shape and range of ids. :obj:`None` in :obj:`shape` stands for any size."""
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        raise ArgumentError(f'{name}: expected a tensor of int64 ids, got {getattr(ids, "dtype", ids)!r}')
    if ids.dim() != len(shape) or any(size not in (None, given) for size, given in zip(shape, ids.shape)):
        wanted = ', '.join('*' if size is None else str(size) for size in shape)
        raise ArgumentError(f'{name}: expected shape ({wanted}{"," if len(shape) == 1 else ""}), got '
                            f'{tuple(ids.shape)}')
    ids_below(name, ids, limit, what)


class NBFNetRanker:
    r"""A score function :obj:`(known, rel_type, side) -> (B, V)`; see :meth:`NBFNet.as_ranker`."""
    def __init__(self, model: NBFNet, graph: Any, batch_size: int) -> None:
        self.model = model
        self.graph = graph
        self.batch_size = batch_size
        self.num_nodes = graph.num_nodes
        self.num_relations = model.num_relations

    def __call__(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        if known.numel() == 0:
            return torch.empty(0, self.num_nodes, device=known.device)
        with torch.no_grad():
            parts = zip(known.split(self.batch_size), rel_type.split(self.batch_size))
            return torch.cat([self.model.score(self.graph, *part, side=side) for part in parts])

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.model.__class__.__name__}, num_nodes={self.num_nodes})'

