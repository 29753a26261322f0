r"""Complete training steps for comparison: this package, eager PyTorch, PyKEEN and PyG, on the same data and sizes.

Each factory returns a function that performs one step with everything in a user's training loop: triples from a
shuffled loader, negatives, masks, forward pass, backward pass and Adagrad. The eager steps are optimized: one gather
for all negatives, batched products, :obj:`torch.where`, PyTorch's fused optimizer, and no Python loop.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu import (
    ComplEx,
    CrossEntropyLoss,
    DeMixLoss,
    DistMult,
    EMULoss,
    EMUNegatives,
    KGData,
    RotatE,
    RowAdagrad,
    SharedNegativesSampler,
    TransE,
    TripletLoader,
)
from pyg_emu.losses import LinkPredictionLoss
from pyg_emu.negatives.mutation import DeMixMutation

MODELS: dict[str, Any] = {'distmult': DistMult, 'complex': ComplEx, 'transe': TransE, 'rotate': RotatE}
#: The mutation rate and the loss weights. They do not affect the running time.
RATE, ALPHA, BETA, LEARNING_RATE = 0.3, 0.11, 0.53, 0.1

Step = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    r"""The shared settings of a comparison.

    Args:
        model (str): One of :data:`MODELS`.
        data (KGData): The data.
        batch_size (int): The number of triples per step.
        num_negatives (int): The number of negatives per triple.
        channels (int): The number of components of an embedding, complex for complex models.
        sparse (bool): Whether the steps of this package use row-sparse gradients.
        chunk_size (int, optional): The number of triples that share their negatives in the steps of this package.
            (default: :obj:`None`, each triple has its own)
        seed (int): The seed of the embeddings and of the loader.
    """
    model: str
    data: KGData
    batch_size: int = 1000
    num_negatives: int = 256
    channels: int = 100
    sparse: bool = False
    chunk_size: int | None = None
    seed: int = 0

    def make_model(self, sparse: bool = False) -> Any:
        torch.manual_seed(self.seed)
        return MODELS[self.model](self.data.num_nodes, self.data.num_relations, self.channels, sparse=sparse)

    def batches(self, transform: Any = None) -> Iterator[KGData]:
        return TripletLoader(self.data, self.batch_size, shuffle=True, transform=transform, drop_last=True,
                             seed=self.seed).batches()


def ours(setting: Setting, masks: str, fused: bool = True) -> Step:
    r"""Returns a training step of this package.

    Args:
        setting (Setting): The settings.
        masks (str): :obj:`"none"` (uniform negatives and cross-entropy), :obj:`"negative"` (EMU with one mask per
            negative) or :obj:`"triple"` (EMU with one mask per triple). The masks of RotatE are tied.
        fused (bool, optional): Whether losses compute their gradients at once, or compose scores and cross-entropies
            as before. (default: :obj:`True`)
    """
    emu = masks != 'none'
    model = setting.make_model(setting.sparse)
    criterion: LinkPredictionLoss = EMULoss(ALPHA, BETA) if emu else CrossEntropyLoss()
    criterion.fused = fused
    sampler = None if setting.chunk_size is None else SharedNegativesSampler(setting.chunk_size)
    transform = EMUNegatives(setting.num_negatives, RATE if emu else 0.0, shared=masks != 'negative',
                             tied=setting.model == 'rotate', sampler=sampler)
    optimizer = RowAdagrad(model.parameters(), lr=LEARNING_RATE, fused=None if setting.sparse else True)
    batches = setting.batches(transform)

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        criterion(model, batch).backward()
        optimizer.step()

    return step


def refined(setting: Setting, demix: bool) -> Step:
    r"""Returns a training step of the DeMix paper: self-adversarial negatives, or these refined by DeMix after its
    warm-up. The scores of the facts are refreshed once an epoch, as in training.
    """
    model = setting.make_model()
    criterion = DeMixLoss()
    mutation = DeMixMutation(warmup=0) if demix else None
    transform = (EMUNegatives(setting.num_negatives, mutation_rate=0.0) if mutation is None else
                 EMUNegatives(setting.num_negatives, mutation=mutation))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batches = setting.batches(transform)

    def step() -> None:
        batch = next(batches)
        if mutation is not None:
            mutation.update(batch, model)
        optimizer.zero_grad()
        criterion(model, batch).backward()
        optimizer.step()

    return step


def eager(setting: Setting, masks: str) -> Step:
    r"""Returns the same training step in eager PyTorch. See :func:`ours` for :obj:`masks`."""
    model = setting.make_model()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=LEARNING_RATE, fused=True)
    batches = setting.batches()
    size, count, width = setting.batch_size, setting.num_negatives, model.node_emb.weight.size(1)
    bits = width // 2 if setting.model == 'rotate' else width

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        query = model.query(batch.known_index, batch.rel_type, batch.side)
        positive = model.node_emb(batch.target_index)
        ids = torch.randint(setting.data.num_nodes or 0, (size * count, ))
        rows = model.node_emb.weight.index_select(0, ids).view(size, count, width)
        positive_score = eager_score(setting.model, query, positive.unsqueeze(1)).squeeze(1)
        vanilla = soft_label_cross_entropy(positive_score, eager_score(setting.model, query, rows), 0.0)
        if masks == 'none':
            loss = vanilla
        else:
            mask = torch.rand(size, count if masks == 'negative' else 1, bits) < RATE
            if bits < width:
                mask = torch.cat([mask, mask], dim=2)
            mutated = torch.where(mask, positive.unsqueeze(1), rows)
            scores = eager_score(setting.model, query, mutated)
            loss = soft_label_cross_entropy(positive_score, scores, BETA) / count + ALPHA * vanilla
        loss.backward()
        optimizer.step()

    return step


def eager_score(model: str, query: Tensor, candidates: Tensor) -> Tensor:
    r"""Computes scores :obj:`(B, N)` of candidates :obj:`(B, N, d)` by the fastest PyTorch variant for each model."""
    if model in ('distmult', 'complex'):
        return torch.bmm(candidates, query.unsqueeze(2)).squeeze(2)
    if model == 'transe':
        return -torch.cdist(query.unsqueeze(1), candidates, p=1.0).squeeze(1)
    re, im = (query.unsqueeze(1) - candidates).chunk(2, dim=2)
    return -(re * re + im * im).sqrt().sum(2)


def soft_label_cross_entropy(positive: Tensor, negative: Tensor, label: float) -> Tensor:
    r"""Computes equation 21 of the EMU paper in plain PyTorch."""
    scores = torch.cat([positive.unsqueeze(1), negative], dim=1)
    if label == 0.0:
        return F.cross_entropy(scores, torch.zeros(scores.size(0), dtype=torch.int64))
    log_softmax = scores.log_softmax(1)
    return -(log_softmax[:, 0] + label * log_softmax[:, 1:].sum(1)).mean()


def pykeen(setting: Setting) -> Step:
    r"""Returns a training step of PyKEEN's training loop: DistMult, InfoNCE, basic sampler. PyKEEN's own code processes
    each batch. Its constraint and its regularizer are omitted, because this package has no counterpart. This makes
    PyKEEN faster.
    """
    from pykeen.losses import InfoNCELoss
    from pykeen.models import DistMult as PyKEENDistMult
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory

    data = setting.data
    factory = CoreTriplesFactory(data.facts('train').contiguous(), data.num_nodes, data.num_relations)
    model = PyKEENDistMult(triples_factory=factory, embedding_dim=setting.channels, loss=InfoNCELoss(),
                           entity_constrainer=None, regularizer=None, random_seed=setting.seed)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=LEARNING_RATE, fused=True)
    loop = SLCWATrainingLoop(model=model, triples_factory=factory, optimizer=optimizer, negative_sampler='basic',
                             negative_sampler_kwargs={'num_negs_per_pos': setting.num_negatives})
    loader = loop._create_training_data_loader(factory, sampler=None, batch_size=setting.batch_size, drop_last=True)

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()
    model.train()

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loop._forward_pass(batch, 0, setting.batch_size, setting.batch_size, 0.0, None)
        optimizer.step()
        model.post_parameter_update()

    return step


def pyg(setting: Setting) -> Step:
    r"""Returns a training step of PyG's own model, loss and :obj:`random_sample`, with one negative per triple."""
    from torch_geometric.nn import kge

    torch.manual_seed(setting.seed)
    layer = getattr(kge, MODELS[setting.model].__name__)
    model = layer(setting.data.num_nodes, setting.data.num_relations, setting.channels)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=LEARNING_RATE, fused=True)
    batches = setting.batches()

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        model.loss(batch.head_index, batch.rel_type, batch.tail_index).backward()
        optimizer.step()

    return step


def sparse_transe(setting: Setting) -> Step:
    r"""Returns a training step of vanilla TransE in the manner of the `"SparseTransX"
    <https://arxiv.org/abs/2502.16949>`_ paper: all differences :math:`\mathbf{h} + \mathbf{r} - \mathbf{t}` are one
    product of a sparse incidence matrix, with three entries for each triple, and the stacked tables.
    """
    model = setting.make_model()
    table = torch.nn.Parameter(torch.cat([model.node_emb.weight, model.rel_emb.weight]).detach())
    optimizer = torch.optim.Adagrad([table], lr=LEARNING_RATE, fused=True)
    batches, num_nodes = setting.batches(), setting.data.num_nodes or 0
    size, count = setting.batch_size, setting.num_negatives + 1
    ends, signs = torch.arange(0, 3 * size * count + 1, 3), torch.tensor([1.0, 1.0, -1.0]).repeat(size * count)

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        drawn = torch.randint(num_nodes, (size, count))
        tail = batch.corrupts_tail.unsqueeze(1)
        head, other = (torch.where(tail == kept, ids.unsqueeze(1), drawn)
                       for kept, ids in ((True, batch.head_index), (False, batch.tail_index)))
        head[:, 0], other[:, 0] = batch.head_index, batch.tail_index
        columns = torch.stack([head, (batch.rel_type + num_nodes).unsqueeze(1).expand(-1, count), other], dim=2)
        incidence = torch.sparse_csr_tensor(ends, columns.flatten(), signs, (size * count, table.size(0)),
                                            check_invariants=False)
        scores = -torch.sparse.mm(incidence, table).abs().sum(1).view(size, count)
        soft_label_cross_entropy(scores[:, 0], scores[:, 1:], 0.0).backward()
        optimizer.step()

    return step


def matrix_products(setting: Setting) -> Step:
    r"""Returns six matrix products that multiply as often as an EMU step: for two scores of each negative, and for the
    gradients of queries and negatives by each. It is a bound for comparison and no training step.
    """
    width = setting.make_model().node_emb.weight.size(1)
    left, right = torch.randn(setting.batch_size, width), torch.randn(width, setting.num_negatives)

    def step() -> None:
        for _ in range(6):
            torch.mm(left, right)

    return step


def embedding_bag(setting: Setting) -> Step:
    r"""Returns one pass over the rows of all negatives, which adds them up. It is a bound for comparison and no
    training step.
    """
    table = setting.make_model().node_emb.weight.detach()
    index = torch.randint(table.size(0), (setting.batch_size, setting.num_negatives))
    return lambda: F.embedding_bag(index, table, mode='sum')


#: Bounds for comparison, which do not train.
BOUNDS = {'six_matrix_products': matrix_products, 'one_embedding_bag': embedding_bag}

#: All contenders by name. PyKEEN supports DistMult only, and sparse incidence products support TransE only.
CONTENDERS: dict[str, Callable[[Setting], Step]] = {
    'vanilla': lambda setting: ours(setting, 'none'),
    'emu_triple': lambda setting: ours(setting, 'triple'),
    'emu_negative': lambda setting: ours(setting, 'negative'),
    'composed_vanilla': lambda setting: ours(setting, 'none', fused=False),
    'composed_emu_triple': lambda setting: ours(setting, 'triple', fused=False),
    'composed_emu_negative': lambda setting: ours(setting, 'negative', fused=False),
    'eager_vanilla': lambda setting: eager(setting, 'none'),
    'eager_emu_triple': lambda setting: eager(setting, 'triple'),
    'eager_emu_negative': lambda setting: eager(setting, 'negative'),
    'pykeen_vanilla': pykeen,
    'pyg_one_negative': pyg,
    'sparse_vanilla': sparse_transe,
    **BOUNDS,
}
#: The only model of contenders whose name begins in this way.
_ONLY = {'pykeen': 'distmult', 'sparse': 'transe'}


def contenders_of(model: str) -> list[str]:
    r"""Returns the names of the contenders that support :obj:`model`."""
    return [name for name in CONTENDERS if _ONLY.get(name.partition('_')[0], model) == model]


def generate(num_nodes: int, num_relations: int, num_facts: int, num_test: int = 0, seed: int = 0) -> KGData:
    r"""Generates triples with a skewed distribution as in real data: the density of an entity is proportional to the
    inverse square root of its rank. With :obj:`num_test`, generates as many test and validation triples.
    """
    random = np.random.default_rng(seed)
    count = num_facts + 2 * num_test

    def draw(size: int) -> Tensor:
        return torch.from_numpy((size * random.random(count)**2).astype(np.int64))

    edge_index, edge_type = torch.stack([draw(num_nodes), draw(num_nodes)]), draw(num_relations)
    held_out: dict[str, Any] = {}
    for number, split in enumerate(('valid', 'test') if num_test else ()):
        own = slice(num_facts + number * num_test, num_facts + (number + 1) * num_test)
        held_out[f'{split}_edge_index'] = edge_index[:, own].contiguous()
        held_out[f'{split}_edge_type'] = edge_type[own].clone()
    return KGData(edge_index[:, :num_facts].contiguous(), edge_type[:num_facts].clone(), num_nodes, num_relations,
                  **held_out)
