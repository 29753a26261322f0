from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.evaluation import analysis
from pyg_emu.evaluation.analysis import (
    candidate_vectors,
    deviation_angles,
    masked_cosines,
    negative_negative_cosines,
    positive_negative_cosines,
    principal_axes,
)
from pyg_emu.losses import EMULoss
from pyg_emu.models import HAKE, DistMult
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.mutation import LinearSchedule, Mixup
from pyg_emu.ops import use_backend


@pytest.mark.parametrize('cls', [DistMult, HAKE])
@pytest.mark.parametrize('transform', [EMUNegatives(6, 0.4), EMUNegatives(6, 0.4, shared=False),
                                       EMUNegatives(6, mutation=Mixup()), EMUNegatives(6, 0.0)])
def test_vectors_are_those_that_a_loss_scores(cls: Any, transform: EMUNegatives) -> None:
    torch.manual_seed(0)
    data = KGData(torch.randint(15, (2, 20)), torch.randint(2, (20, )), 15, 2)
    model = cls(15, 2, 4).double()
    batch = next(iter(TripletLoader(data, 20, transform=transform, corrupt='both')))
    assert batch.generator is not None
    vectors = candidate_vectors(model, _seeded(batch))
    with use_backend('torch'):
        scored = EMULoss().score(model, _seeded(batch))
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    torch.testing.assert_close(model.score(query, vectors.positive), scored.positive)
    torch.testing.assert_close(model.score(query, vectors.vanilla), scored.vanilla)
    assert (vectors.mutated is None) == (scored.mutated is None) == (transform.mutation is None)
    if vectors.mutated is not None:
        torch.testing.assert_close(model.score(query, vectors.mutated), scored.mutated)
        assert not vectors.mutated.requires_grad


def _seeded(batch: Batch) -> Batch:
    assert batch.generator is not None
    batch.generator.manual_seed(7)
    return batch


def test_vectors_are_those_of_the_batchs_step() -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), 3, 1)
    loader = TripletLoader(data, 1, transform=EMUNegatives(4, LinearSchedule(0.0, 1.0, 1)))
    for step, batch in zip(range(2), loader.batches()):
        vectors = candidate_vectors(DistMult(3, 1, 2), batch)
        assert (vectors.mutated is None) == (step == 0)
    assert vectors.mutated is not None and vectors.mutated.equal(vectors.positive.unsqueeze(1).expand(-1, 4, -1))


def test_vectors_that_a_batch_gives_itself() -> None:
    data = KGData(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 0]), 4, 1)
    batch = next(iter(TripletLoader(data, 2, transform=EMUNegatives(4, 0.5))))
    batch.neg_vectors = torch.randn(2, 3, 2, dtype=torch.double)
    model = DistMult(4, 1, 2)
    query = model.query(batch.known_index, batch.rel_type, batch.side)
    for given in (batch, None):
        if given is None:  # vectors alone
            batch.neg_index = None
        vectors = candidate_vectors(model, _seeded(batch))
        with use_backend('torch'):
            scored = EMULoss().score(model, _seeded(batch))
        torch.testing.assert_close(model.score(query, vectors.vanilla), scored.vanilla)
        assert (vectors.mutated is None) == (scored.mutated is None) == (given is None)
        if vectors.mutated is not None:
            torch.testing.assert_close(model.score(query, vectors.mutated), scored.mutated)
    assert vectors.vanilla.shape == (2, 3, 2)
    batch.neg_vectors = torch.randn(2, 3, 5)
    with pytest.raises(ArgumentError, match='neg_vectors: .* 2.* 5 '):
        candidate_vectors(model, batch)


def test_batch_without_negatives() -> None:
    batch = Batch(head_index=torch.tensor([0]), rel_type=torch.tensor([0]), tail_index=torch.tensor([1]), num_nodes=2)
    with pytest.raises(ArgumentError, match='neg_index'):
        candidate_vectors(DistMult(2, 1, 2), batch)


def test_cosines_by_hand() -> None:
    positive = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    negative = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [-2.0, 0.0]], [[1.0, 1.0], [0.0, -1.0], [1.0, 0.0]]])
    half = 0.5**0.5
    torch.testing.assert_close(positive_negative_cosines(positive, negative),
                               torch.tensor([[1.0, 0.0, -1.0], [half, -1.0, 0.0]]))
    # The pairs (0, 1), (0, 2) and (1, 2).
    torch.testing.assert_close(negative_negative_cosines(negative),
                               torch.tensor([[0.0, -1.0, 0.0], [-half, half, 0.0]]))
    other = -negative
    # The pairs (0, 1), (0, 2), (1, 0), (1, 2), (2, 0) and (2, 1).
    torch.testing.assert_close(negative_negative_cosines(negative, other),
                               torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [half, -half, half, 0.0, -half, 0.0]]))
    with pytest.raises(ArgumentError, match=r'right: .*\(2, 3, 2\).*\(2, 2, 2\)'):
        negative_negative_cosines(negative, negative[:, :2])


def test_angles_by_hand() -> None:
    positive = torch.tensor([[1.0, 1.0]])
    negative = torch.tensor([[[2.0, 1.0], [1.0, 3.0], [2.0, 2.0], [0.0, 1.0], [5.0, 1.0]]])
    expected = torch.tensor([[math.pi / 2, math.pi / 4, math.pi, 0.0]])
    torch.testing.assert_close(deviation_angles(positive, negative), expected, atol=1e-3, rtol=0)


def test_principal_axes_by_hand() -> None:
    # Four points on a cross about (5, 7), turned by 45 degrees: 3 along (1, 1), 1 along (-1, 1).
    half = 0.5**0.5
    first, second = torch.tensor([half, half]), torch.tensor([-half, half])
    points = torch.tensor([5.0, 7.0]) + torch.stack([3 * first, -3 * first, second, -second])
    found = principal_axes(points)
    torch.testing.assert_close(found.center, torch.tensor([5.0, 7.0]))
    torch.testing.assert_close(found.variances, torch.tensor([4.5, 0.5]))
    torch.testing.assert_close((found.axes @ torch.stack([first, second]).t()).abs(), torch.eye(2))
    assert float(found.isotropy) == pytest.approx(1 / 9)
    torch.testing.assert_close(found.project(points).abs(), torch.tensor([[3.0, 0], [3, 0], [0, 1], [0, 1]]),
                               atol=1e-5, rtol=0)
    # Seen from elsewhere, the distance of the centre adds up: (3, 4) has length 5.
    moved = principal_axes(points, center=torch.tensor([2.0, 3.0]))
    assert float(moved.variances.sum()) == pytest.approx(5.0 + 25.0)
    batched = principal_axes(torch.stack([points, 2 * points]), 1)
    torch.testing.assert_close(batched.variances, torch.tensor([[4.5], [18.0]]))
    common = principal_axes(torch.stack([points, points]), center=torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(common.variances, moved.variances.expand(2, 2))
    assert common.center.shape == (2, 2)
    with pytest.raises(ArgumentError, match='num_axes: .*1 to 2.* 4 .* 2 .* 3$'):
        principal_axes(points, 3)


def test_masked_cosines_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, '_BLOCK', 10)
    a, b = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 2.0, 2.0])
    found = masked_cosines(a, b, 2, 50, torch.Generator().manual_seed(0))
    assert found.cosine.shape == found.first_kept.shape == (50, )
    assert found.unmasked == pytest.approx(11 / 15) and found.share == pytest.approx(2 / 3)
    # (1, 2, 0), (1, 0, 2) or (0, 2, 2): scalar products 11, 3 and 8 with A, whose length is 5.
    expected = {round(11 / (5 * 5**0.5), 4): True, round(3 / (5 * 5**0.5), 4): True, round(8 / (5 * 8**0.5), 4): False}
    pairs = {(round(cosine, 4), kept) for cosine, kept in zip(found.cosine.tolist(), found.first_kept.tolist())}
    assert pairs == set(expected.items())
    assert masked_cosines(a, b, 3, 4).cosine.tolist() == pytest.approx([11 / 15] * 4)
    assert found.center_of_proof == pytest.approx(11 / 15 * 1.5**0.5)
    assert found.center_expected == pytest.approx(11 / 15 / 1.5**0.5) and found.center_of_statement == found.unmasked


def test_masked_cosines_refuses() -> None:
    with pytest.raises(ArgumentError, match=r'b: .*\(2,\).*\(3,\)'):
        masked_cosines(torch.ones(2), torch.ones(3), 1)
    with pytest.raises(ArgumentError, match='num_kept: .*1 to 2.* 3$'):
        masked_cosines(torch.ones(2), torch.ones(2), 3)
    with pytest.raises(ArgumentError, match="mask: .*'exact'.*'bernoulli'.* 'Exact'$"):
        masked_cosines(torch.ones(2), torch.ones(2), 1, mask='Exact')  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='num_samples: .* 1.* 0$'):
        masked_cosines(torch.ones(2), torch.ones(2), 1, 0)
    with pytest.raises(ArgumentError, match='generator: .*Generator.* 3$'):
        masked_cosines(torch.ones(2), torch.ones(2), 1, generator=3)  # type: ignore[arg-type]


@pytest.mark.parametrize('count', [2.7, True, 0, None])
def test_counts_are_positive_integers(count: Any) -> None:
    with pytest.raises(ArgumentError, match='num_kept: '):
        masked_cosines(torch.ones(4), torch.ones(4), count)
    with pytest.raises(ArgumentError, match='num_axes: '):
        principal_axes(torch.ones(4, 4), count)


@pytest.mark.parametrize('positive, negative', [((3, 4), (1, 5, 4)), ((1, 4), (3, 5, 4)), ((3, 1), (3, 5, 4)),
                                                ((4, ), (3, 5, 4)), ((3, 4), (5, 4))])
def test_shapes_are_not_broadcast(positive: Any, negative: Any) -> None:
    for function in (positive_negative_cosines, deviation_angles):
        with pytest.raises(ArgumentError, match='negative: '):
            function(torch.ones(positive), torch.ones(negative))
    with pytest.raises(ArgumentError, match=r'center: .*\(3, 4\).*\(1,\)'):
        principal_axes(torch.ones(3, 5, 4), center=torch.ones(1))
    with pytest.raises(ArgumentError, match=r'left: .*\(3, 4\)'):
        negative_negative_cosines(torch.ones(3, 4))
