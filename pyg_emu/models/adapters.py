r"""Adapters that turn PyG's own KGE layers, unmodified, into scorers.

Each adapter factors the scores of one layer into queries and candidates. The scores are those of the layer's own
:meth:`forward`, and gradients reach the layer's own parameters: an adapter holds nothing but the layer.
"""
from __future__ import annotations

from typing import Any, Iterator, Literal, Optional

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data.data import BaseData
from torch_geometric.nn import kge

from pyg_emu.core.complex_rows import conjugate, multiply, unit
from pyg_emu.core.contract import Scorer, ScorerMixin, Side, is_scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import L1, L2, Dot


class LayerScorer(ScorerMixin):
    r"""Base class of the adapters. A subclass sets :attr:`interaction` and computes rows from the layer's tables.

    Args:
        model (torch_geometric.nn.kge.KGEModel): The layer.
    """
    def __init__(self, model: Any) -> None:
        self.model = model
        self.num_nodes = model.num_nodes
        self.num_relations = model.num_relations

    def entity_table(self) -> Tensor:
        return self.model.node_emb.weight

    def _candidates(self, index: Tensor) -> Tensor:
        return self.model.node_emb(index)

    def _device(self) -> Optional[torch.device]:
        return self.model.node_emb.weight.device

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        return self.model.rel_emb(rel_type)

    def embedding_weights(self) -> Iterator[Tensor]:
        for name in ('node_emb', 'node_emb_im', 'rel_emb', 'rel_emb_im'):
            if hasattr(self.model, name):
                yield getattr(self.model, name).weight

    def __call__(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        return self.model(head_index, rel_type, tail_index)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.model})'


class DistMultScorer(LayerScorer):
    r""":class:`torch_geometric.nn.DistMult`."""
    def __init__(self, model: kge.DistMult) -> None:
        super().__init__(model)
        self.interaction = Dot()
        self.sparse = model.node_emb.sparse

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return self.model.node_emb(known) * self.model.rel_emb(rel_type)


class TransEScorer(LayerScorer):
    r""":class:`torch_geometric.nn.TransE`, which normalises entity vectors in every :meth:`forward`."""
    def __init__(self, model: kge.TransE) -> None:
        super().__init__(model)
        if model.p_norm not in (1, 2):
            raise ArgumentError(f'model: TransE is scored with p_norm 1 or 2, got p_norm={model.p_norm}')
        self.interaction = L1() if model.p_norm == 1 else L2()

    def entity_table(self) -> Tensor:
        return self._normalise(self.model.node_emb.weight)

    def _candidates(self, index: Tensor) -> Tensor:
        return self._normalise(self.model.node_emb(index))

    def _normalise(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, p=self.model.p_norm, dim=-1)

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        entity, relation = self._candidates(known), self.model.rel_emb(rel_type)
        return entity + relation if side == 'tail' else entity - relation


class _ComplexScorer(LayerScorer):
    r"""Layers with separate tables of real and of imaginary parts, joined to rows
    :math:`[\mathrm{re}, \mathrm{im}]`."""
    complex_rows = True

    def entity_table(self) -> Tensor:
        return torch.cat([self.model.node_emb.weight, self.model.node_emb_im.weight], dim=-1)

    def _candidates(self, index: Tensor) -> Tensor:
        return torch.cat([self.model.node_emb(index), self.model.node_emb_im(index)], dim=-1)

    def _query(self, known: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        relation = self.relation_rows(rel_type, side)
        return multiply(self._candidates(known), relation if side == 'tail' else conjugate(relation))


class ComplExScorer(_ComplexScorer):
    r""":class:`torch_geometric.nn.ComplEx`."""
    def __init__(self, model: kge.ComplEx) -> None:
        super().__init__(model)
        self.interaction = Dot()

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        return torch.cat([self.model.rel_emb(rel_type), self.model.rel_emb_im(rel_type)], dim=-1)


class RotatEScorer(_ComplexScorer):
    r""":class:`torch_geometric.nn.RotatE`, which takes one :math:`L_2` norm over all real and imaginary parts."""
    def __init__(self, model: kge.RotatE) -> None:
        super().__init__(model)
        self.interaction = L2()
        self.offset = model.margin

    def relation_rows(self, rel_type: Tensor, side: Side) -> Tensor:
        return unit(self.model.rel_emb(rel_type))


_ADAPTERS: tuple[tuple[type, type[LayerScorer]], ...] = (
    (kge.TransE, TransEScorer),
    (kge.DistMult, DistMultScorer),
    (kge.ComplEx, ComplExScorer),
    (kge.RotatE, RotatEScorer),
)


#: Wrappers by module and name, and the attribute that holds the model: their modules may be slow to import, or absent.
_WRAPPERS = {
    ('torch.optim.swa_utils', 'AveragedModel'): 'module',
    ('torch.nn.parallel.data_parallel', 'DataParallel'): 'module',
    ('torch._dynamo.eval_frame', 'OptimizedModule'): '_orig_mod',
    ('lightning.fabric.wrappers', '_FabricModule'): '_forward_module',
    ('lightning_fabric.wrappers', '_FabricModule'): '_forward_module',
}


def unwrap(model: Any) -> Any:
    r"""Returns the model inside wrappers that leave scores and gradients as they are:
    :class:`torch.optim.swa_utils.AveragedModel`, :class:`torch.nn.DataParallel`, the module that :func:`torch.compile`
    returns, and Lightning Fabric's on a single device. Any other object is returned as it is, also
    :class:`torch.nn.parallel.DistributedDataParallel`, which averages gradients only in its own forward pass.

    Args:
        model (Any): The model.
    """
    while isinstance(model, torch.nn.Module):
        names = (_WRAPPERS.get((kind.__module__, kind.__qualname__)) for kind in type(model).__mro__)
        name = next((name for name in names if name is not None), None)
        if name is None:
            return model
        model = getattr(model, name)
    return model


def as_scorer(model: Any) -> Scorer:
    r"""Returns :obj:`model` as a :class:`~pyg_emu.Scorer`: itself if it is one, else, for PyG's
    :class:`~torch_geometric.nn.TransE`, :class:`~torch_geometric.nn.DistMult`, :class:`~torch_geometric.nn.ComplEx` and
    :class:`~torch_geometric.nn.RotatE`, a view of it with exactly the scores of its own :meth:`forward`.

    .. code-block:: python

        model = torch_geometric.nn.DistMult(data.num_nodes, data.num_relations, 100)
        scorer = as_scorer(model)
        scores = scorer.score_all(scorer.query(head_index, rel_type, 'tail'))  # (B, num_nodes)

    The view is stateless and costs microseconds: call this function wherever a model arrives instead of keeping its
    result. Wrappers such as :class:`torch.optim.swa_utils.AveragedModel` are removed first, see :func:`unwrap`: the
    model inside is scored by the operators of this package, with the wrapper's own weights (an average, for example)
    and without its forward pass (compiled code, replicas).

    .. note::

        The entity rows of PyG's TransE (normalised) and of its ComplEx and RotatE (joined from two tables) are
        computed from the whole tables in every step, and their gradient is dense even where the layer has
        :obj:`sparse=True`. The models of :mod:`pyg_emu.models` keep one table of ready rows: prefer them where speed
        or large tables matter.

    Args:
        model (torch.nn.Module): The model.

    Raises:
        ArgumentError: If :obj:`model` is neither a scorer nor one of those layers, or is a subclass of one of them that
            overrides :meth:`forward` and so may score differently.
    """
    model = unwrap(model)
    if not isinstance(model, type) and is_scorer(model):
        return model
    for layer, adapter in _ADAPTERS:
        if isinstance(model, layer):
            if type(model).forward is not layer.forward:  # type: ignore[attr-defined]
                raise ArgumentError(f"model: {type(model).__name__} overrides PyG's {layer.__name__}.forward and may "
                                    f'score differently; {_CONTRACT}')
            return adapter(model)
    if isinstance(model, type):
        raise ArgumentError(f'model: expected an object, got the class {model.__name__} itself; make one with '
                            f'{model.__name__}(...)')
    if isinstance(model, BaseData):
        raise ArgumentError(f'model: expected the model before the data, got a {type(model).__name__}')
    if hasattr(model, 'as_ranker'):
        raise ArgumentError(f'model: {type(model).__name__} reads a graph; rank and predict with '
                            'model.as_ranker(data), and train with NBFNetEMULoss()')
    if isinstance(getattr(model, 'module', None), torch.nn.Module):
        raise ArgumentError(f'model: {type(model).__name__} wraps another model and may score differently or average '
                            'gradients; rank and predict with model.module, and train on several devices with Trainer '
                            'inside of pyg_emu.process_group()')
    raise ArgumentError(f'model: {type(model).__name__} cannot be scored; {_CONTRACT}')


_CONTRACT = ('give it the methods of pyg_emu.core.contract.Scorer: query(known, rel_type, side), entity_table() and an '
             'interaction, from which pyg_emu.core.contract.ScorerMixin derives the rest')
