r"""The package against :mod:`tests.reference.brute_force` on random cases.

A few cases run by default. The options :obj:`--robustness-cases` and :obj:`--robustness-seed` run more and others
(:mod:`tests.robustness.cases`). The name of a test ends in its seed.
"""
from __future__ import annotations

import math
from typing import Any, Callable, Iterator, Optional

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_emu import EMUBCELoss, EMULoss, KGData, evaluate, models
from pyg_emu.losses import BCELoss, CrossEntropyLoss, MarginLoss, SelfAdversarialLoss
from pyg_emu.models import NBFNet
from pyg_emu.ops import MaskPlan, MixPlan, use_backend
from tests.reference import brute_force as reference

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
MODELS = ('DistMult', 'ComplEx', 'TransE', 'RotatE')


# From this share of the cases on, every backend is compared. Its kernels are compiled for double precision, which takes
# minutes; tests of the operators compare backends with one another anyway.
ALL_BACKENDS_FROM = 0.5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'backend' in metafunc.fixturenames:
        few = metafunc.config.getoption('--robustness-cases') < ALL_BACKENDS_FROM
        metafunc.parametrize('backend', ['torch'] if few else ['torch', 'numba'], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def rng(robustness_seed: int) -> np.random.Generator:
    return np.random.default_rng(robustness_seed)


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values))


# Losses ######################################################################

# How each loss is made, and its value for one triple from the positive, vanilla and mutated scores.
Rows = Callable[[float, list[float], list[float]], float]


def losses(rng: np.random.Generator, slots: int) -> dict[str, tuple[Any, Rows]]:
    alpha, beta, temperature, gamma, smoothing = rng.uniform(0.05, 1.5, 5)
    smoothing = float(min(smoothing, 1.0))
    return {
        'EMULoss': (EMULoss(alpha, beta), lambda p, v, m: (reference.uls(p, m, beta) / slots
                                                           + alpha * reference.uls(p, v, 0.0))),
        'EMULoss, whole': (EMULoss(alpha, beta, divide_by_negatives=False),
                           lambda p, v, m: reference.uls(p, m, beta) + alpha * reference.uls(p, v, 0.0)),
        'EMUBCELoss': (EMUBCELoss(alpha, beta, temperature),
                       lambda p, v, m: (reference.binary(p, m, beta, temperature)
                                        + alpha * reference.binary(p, v, 0.0, temperature))),
        'EMUBCELoss, equal': (EMUBCELoss(alpha, beta), lambda p, v, m: (reference.binary(p, m, beta, None)
                                                                        + alpha * reference.binary(p, v, 0.0, None))),
        'CrossEntropyLoss': (CrossEntropyLoss(label_smoothing=smoothing),
                             lambda p, v, m: reference.smoothed(p, v, smoothing)),
        'BCELoss': (BCELoss(adversarial_temperature=temperature),
                    lambda p, v, m: reference.binary(p, v, 0.0, temperature)),
        'SelfAdversarialLoss': (SelfAdversarialLoss(temperature=1.0 / temperature),
                                lambda p, v, m: reference.binary(p, v, 0.0, temperature)),
        'MarginLoss': (MarginLoss(margin=gamma), lambda p, v, m: reference.margin(p, v, gamma)),
        'MarginLoss, mutated': (MarginLoss(margin=gamma, mutate=True), lambda p, v, m: reference.margin(p, m, gamma)),
    }


class Fixed:
    r"""A mutation whose plan is given."""
    def __init__(self, plan: Any) -> None:
        self._plan = plan

    def plan(self, *_: Any, **__: Any) -> Any:
        return self._plan


class Problem:
    r"""A model with random rows, and a batch of random triples, negatives, masks and mutations."""
    def __init__(self, rng: np.random.Generator, name: str) -> None:
        self.name = name
        self.margin, self.norm = float(rng.uniform(0.5, 6.0)), int(rng.integers(1, 3))
        num_nodes, num_relations, channels = rng.integers(2, 9), rng.integers(1, 4), rng.integers(1, 6)
        options = {'p_norm': self.norm} if name == 'TransE' else {}
        self.model = getattr(models, name)(int(num_nodes), int(num_relations), int(channels), margin=self.margin,
                                           **options).double()
        with torch.no_grad():
            for weight in self.model.embedding_weights():
                weight.copy_(tensor(rng.normal(size=tuple(weight.shape))))
        size, self.slots = int(rng.integers(1, 5)), int(rng.integers(1, 6))
        self.head, self.tail = rng.integers(0, num_nodes, (2, size))
        self.relation = rng.integers(0, num_relations, size)
        self.tail_side = rng.random(size) < 0.5
        self.negative = rng.integers(0, num_nodes, (size, self.slots))
        self.counts = rng.random((size, self.slots)) < 0.8 if rng.random() < 0.5 else np.ones((size, self.slots), bool)
        width = self.model.node_emb.weight.size(1)
        self.masks: Optional[np.ndarray] = None
        self.weights: Optional[np.ndarray] = None
        if rng.random() < 0.7:
            bank = rng.random((3, width)) < rng.random()
            index = rng.integers(0, 3, (size, self.slots) if rng.random() < 0.5 else (size,))
            self.masks = bank[index if index.ndim == 2 else np.repeat(index[:, None], self.slots, 1)]
            plan: Any = MaskPlan(tensor(bank), tensor(index))
        else:
            self.weights = rng.random((size, self.slots))
            plan = MixPlan(tensor(self.weights))
        side: Any = tensor(self.tail_side)
        if rng.random() < 0.3:
            self.tail_side[:] = rng.random() < 0.5
            side = 'tail' if self.tail_side[0] else 'head'
        self.batch = KGData(head_index=tensor(self.head), rel_type=tensor(self.relation), tail_index=tensor(self.tail),
                            num_nodes=int(num_nodes), num_relations=int(num_relations), side=side, step=0,
                            neg_index=tensor(self.negative))
        if not self.counts.all():
            self.batch.neg_mask = tensor(self.counts)
        self.batch.mutation = Fixed(plan)

    def value(self, rows: Rows) -> float:
        r"""The mean of the reference over the triples, from the rows that the model has now."""
        entities, relations = (weight.detach().numpy() for weight in self.model.embedding_weights())

        def score(head: np.ndarray, relation: int, tail: np.ndarray) -> float:
            return reference.score(self.name, head, relations[relation], tail, self.margin, self.norm,
                                   self.model.init_bound)

        total = 0.0
        for i, (head, relation, tail) in enumerate(zip(self.head, self.relation, self.tail)):
            positive = entities[tail if self.tail_side[i] else head]
            scores: list[list[float]] = [[], []]
            for slot in np.flatnonzero(self.counts[i]):
                vanilla = entities[self.negative[i, slot]]
                mutated = reference.mutate(positive, vanilla, None if self.masks is None else self.masks[i, slot],
                                           None if self.weights is None else self.weights[i, slot])
                for found, row in zip(scores, (vanilla, mutated)):
                    found.append(score(entities[head], relation, row) if self.tail_side[i]
                                 else score(row, relation, entities[tail]))
            total += rows(score(entities[head], relation, entities[tail]), *scores)
        return total / len(self.head)


# Their weights are constants for the gradient, so differences of the loss do not show it.
ADVERSARIAL = ('EMUBCELoss', 'BCELoss', 'SelfAdversarialLoss')


@pytest.mark.parametrize('name', MODELS)
def test_losses_and_their_gradients(name: str, backend: str, rng: np.random.Generator) -> None:
    problem = Problem(rng, name)
    if not problem.counts.any(1).all():
        problem.counts[:, 0] = True
        problem.batch.neg_mask = tensor(problem.counts)
    for kind, (criterion, rows) in losses(rng, problem.slots).items():
        loss = criterion(problem.model, problem.batch)
        if kind == 'SelfAdversarialLoss':
            shift = criterion.margin
            expected = problem.value(lambda p, v, m, rows=rows, shift=shift: rows(  # type: ignore[misc]
                p + shift, [value + shift for value in v], m))
        else:
            expected = problem.value(rows)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-9, abs=1e-11), kind
        if kind in ADVERSARIAL:
            continue
        tables = list(problem.model.embedding_weights())
        gradients = torch.autograd.grad(loss, tables)
        direction = [tensor(rng.normal(size=tuple(table.shape))) for table in tables]
        slope = sum(float((gradient * way).sum()) for gradient, way in zip(gradients, direction))
        step = 1e-6
        values = []
        for sign in (1, -2, 1):
            with torch.no_grad():
                for table, way in zip(tables, direction):
                    table.add_(way, alpha=sign * step)
            values.append(problem.value(rows))
        # Hinges and absolute values bend: a case that straddles a bend is no case.
        forward, backward = (values[0] - values[2]) / step, (values[2] - values[1]) / step
        if abs(forward - backward) < 1e-3 * (1 + abs(forward)):
            assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-5), kind


# Ranks and metrics ###########################################################


def random_data(rng: np.random.Generator, inverse: bool = False) -> KGData:
    num_nodes, num_relations = int(rng.integers(2, 10)), int(rng.integers(1, 4))

    def facts(most: int) -> tuple[Tensor, Tensor]:
        size = int(rng.integers(1, most))
        return tensor(rng.integers(0, num_nodes, (2, size))), tensor(rng.integers(0, num_relations, size))

    parts = {f'{split}edge_{kind}': value for split in ('', 'valid_', 'test_')
             for kind, value in zip(('index', 'type'), facts(25))}
    data = KGData(num_nodes=num_nodes, num_relations=num_relations, **parts)
    return data.with_inverse_relations() if inverse else data


def test_ranks_and_metrics(backend: str, rng: np.random.Generator) -> None:
    data = random_data(rng)
    num_nodes = int(data.num_nodes or 0)
    # Few values, so that there are ties; and infinite ones.
    values = rng.choice([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf], (2, num_nodes, data.num_relations, num_nodes))
    tables = {'tail': tensor(values[0]), 'head': tensor(values[1])}
    splits = [split for split in ('train', 'valid', 'test') if rng.random() < 0.5]
    known = {tuple(fact) for split in splits for fact in data.facts(split).tolist()}  # type: ignore[arg-type]
    candidates = sorted(rng.choice(num_nodes, int(rng.integers(1, num_nodes + 1)), replace=False).tolist())
    given = candidates if rng.random() < 0.5 else None
    split = str(rng.choice(['train', 'valid', 'test']))
    facts = [tuple(fact) for fact in data.facts(split).tolist()]  # type: ignore[arg-type]
    counts = {side: reference.ranks(
        lambda fact, side=side: float(tables[side][fact[0], fact[1], fact[2]] if side == 'tail'  # type: ignore[misc]
                                      else tables[side][fact[2], fact[1], fact[0]]),
        facts, known, side, range(num_nodes) if given is None else given) for side in ('tail', 'head')}
    if not any(counts.values()):
        pytest.skip('no fact of this case has its answer among the candidates')
    tie, num_negatives = str(rng.choice(['realistic', 'optimistic', 'pessimistic'])), int(rng.integers(1, 60))
    found = evaluate(lambda h, r, side: tables[side][h, r], data, split, tie=tie,  # type: ignore[arg-type]
                     ks=(1, 2, 5), num_negatives=num_negatives, candidates=given, filter_splits=splits,
                     batch_size=int(rng.integers(1, 6)))
    for side, expected in counts.items():
        ranks = found.ranks[side]
        assert list(zip(ranks.greater.tolist(), ranks.equal.tolist(), ranks.candidates.tolist())) == expected
    groups: dict[str, list[tuple[int, int, int]]] = {'both': counts['tail'] + counts['head'], **counts}
    train = {tuple(fact) for fact in data.facts('train').tolist()}
    for side, column in (('tail', 2), ('head', 0)):
        ranked = [fact for fact in facts if given is None or fact[column] in given]
        for fact, count in zip(ranked, counts[side]):
            kind = reference.relation_kind(train, fact[1])  # type: ignore[arg-type]
            if kind is not None:
                groups.setdefault(kind, []).append(count)
                groups.setdefault(f'{kind}.{side}', []).append(count)
    assert set(found.groups) == {group for group, part in groups.items() if part}
    for group, part in groups.items():
        for name, value in (reference.metrics(part, tie, (1, 2, 5), num_negatives) if part else {}).items():
            assert found[f'{group}.{name}'] == pytest.approx(value, rel=1e-9, abs=1e-11, nan_ok=True), (group, name)


@pytest.mark.parametrize('name', MODELS)
def test_ranks_of_models(name: str, backend: str, rng: np.random.Generator) -> None:
    data = random_data(rng)
    model = getattr(models, name)(data.num_nodes, data.num_relations, 3, margin=4.0).double()
    entities, relations = (weight.detach().numpy() for weight in model.embedding_weights())

    def score(fact: reference.Fact) -> float:
        head, relation, tail = fact
        return round(reference.score(name, entities[head], relations[relation], entities[tail],
                                     4.0, 1, model.init_bound), 9)

    facts = [tuple(fact) for fact in data.facts('test').tolist()]
    known = {tuple(fact) for fact in data.facts('all').tolist()}
    found = evaluate(model, data)
    for side in ('tail', 'head'):
        expected = reference.ranks(score, facts, known, side, range(data.num_nodes))  # type: ignore[arg-type]
        ranks = found.ranks[side]
        assert list(zip(ranks.greater.tolist(), ranks.equal.tolist(), ranks.candidates.tolist())) == expected


# NBFNet ######################################################################


def test_nbfnet(backend: str, rng: np.random.Generator) -> None:
    data = random_data(rng, inverse=True)
    options = {'message': str(rng.choice(['product', 'sum', 'rotate'])), 'num_layers': int(rng.integers(1, 4)),
               'aggregate': str(rng.choice(['sum', 'mean', 'max', 'min', 'pna'])),
               **{name: bool(rng.random() < 0.5) for name in ('shortcut', 'layer_norm', 'dependent',
                                                               'concat_hidden')}}
    model = NBFNet(data.num_relations, 4, num_mlp_layers=int(rng.integers(1, 4)),
                   out_channels=int(rng.choice([4, 3])), **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(tensor(rng.normal(size=tuple(value.shape)) * 0.7))
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    edges = list(zip(data.edge_index[0].tolist(), data.edge_type.tolist(), data.edge_index[1].tolist()))
    size = int(rng.integers(1, 4))
    known, relation = rng.integers(0, data.num_nodes, size), rng.integers(0, data.num_relations, size)
    tail_side = rng.random(size) < 0.5
    kept = rng.random(len(edges)) < 0.8 if rng.random() < 0.5 else np.ones(len(edges), bool)
    scores = model.score(data, tensor(known), tensor(relation), side=tensor(tail_side),
                         edge_mask=None if kept.all() else tensor(kept))
    for row in range(size):
        expected = reference.nbfnet(state, [edge for edge, stays in zip(edges, kept) if stays],
                                    int(data.num_nodes or 0), int(known[row]),
                                    int(relation[row]) + (0 if tail_side[row] else data.num_relations), options)
        # Deviations of nearly equal messages are roots of what is left when they cancel.
        np.testing.assert_allclose(scores[row].detach().numpy(), expected, rtol=1e-6, atol=1e-6, err_msg=str(options))
    assert all(math.isfinite(value) for value in scores.flatten().tolist())
