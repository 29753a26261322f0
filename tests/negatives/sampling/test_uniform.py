from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data import index as index_module
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.sampling import UniformSampler

NUM_NODES = 6


def make_batch(facts: list[tuple[int, int, int]], side: object = 'tail') -> Batch:
    head, relation, tail = torch.tensor(facts).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, 2)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=2, source=source)  # type: ignore[arg-type]


facts_strategy = st.lists(st.tuples(st.integers(0, NUM_NODES - 1), st.integers(0, 1), st.integers(0, NUM_NODES - 1)),
                          min_size=1, max_size=50)
DRAWS = [UniformSampler._draw_ranked, UniformSampler._draw_rejected]


@pytest.mark.parametrize('draw', DRAWS)
@given(facts_strategy, st.integers(0, 2**31), st.booleans())
def test_both_ways_of_drawing_avoid_all_facts(draw: object, facts: list[tuple[int, int, int]], seed: int,
                                              with_filter: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = torch.rand(len(facts), generator=generator) < 0.5
    batch = make_batch(facts, side)
    assert batch.source is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, '_FILTER_FROM', 0 if with_filter else 10**9)
        entity = draw(batch.source.fact_index('train'), batch, 20, generator)  # type: ignore[operator]
    for (h, r, t), is_tail, row in zip(facts, side.tolist(), entity.tolist()):
        known = {x for x in range(NUM_NODES) if ((h, r, x) if is_tail else (x, r, t)) in facts}
        assert set(row) <= set(range(NUM_NODES))
        assert len(known) == NUM_NODES or not known & set(row)


@pytest.mark.parametrize('draw', DRAWS)
def test_filtered_draws_are_uniform_over_what_is_left(draw: object) -> None:
    # 0, 1 and 4 are known tails: 2, 3 and 5 have to come equally often. A chi-square test with 2 degrees of freedom
    # exceeds 13.8 once in a thousand; the seed is fixed.
    batch = make_batch([(0, 0, 0), (0, 0, 1), (0, 0, 4)])
    assert batch.source is not None
    entity = draw(batch.source.fact_index('train'), batch, 10_000,  # type: ignore[operator]
                  torch.Generator().manual_seed(0))
    counts = entity.flatten().bincount(minlength=NUM_NODES)
    assert counts[[0, 1, 4]].sum() == 0
    left = counts[[2, 3, 5]].double()
    assert float(((left - 10_000) ** 2 / 10_000).sum()) < 13.8


def test_unfiltered_draws_are_uniform_over_all() -> None:
    batch = make_batch([(0, 0, 0), (0, 0, 1)])
    counts = UniformSampler().sample(batch, 30_000, torch.Generator().manual_seed(0)).index.flatten().bincount()
    assert float(((counts - 10_000.) ** 2 / 10_000).sum()) < 20.5  # 5 degrees of freedom, once in a thousand


def test_pattern_without_negatives_is_masked_and_counted() -> None:
    full = [(0, 0, tail) for tail in range(NUM_NODES)]
    sampler = UniformSampler(filtered=True)
    negatives = sampler.sample(make_batch([*full, (1, 0, 2)]), 4, torch.Generator().manual_seed(0))
    assert negatives.mask is not None and negatives.mask.is_contiguous()
    assert negatives.mask.tolist() == [[False] * 4] * NUM_NODES + [[True] * 4]
    assert 2 not in negatives.index[-1].tolist()
    assert sampler.num_exhausted == NUM_NODES
    sampler.sample(make_batch([*full, (1, 0, 2)]), 4, torch.Generator())
    assert sampler.num_exhausted == 2 * NUM_NODES


def test_mask_is_left_out_where_no_pattern_is_exhausted() -> None:
    sampler = UniformSampler(filtered=True)
    assert sampler.sample(make_batch([(0, 0, tail) for tail in range(5)]), 4).mask is None
    assert sampler.num_exhausted == 0


def test_split_decides_what_is_known() -> None:
    batch = make_batch([(0, 0, tail) for tail in range(4)])
    assert batch.source is not None
    batch.source.valid_edge_index, batch.source.valid_edge_type = torch.tensor([[0], [4]]), torch.tensor([0])
    drawn = UniformSampler(filtered=True).sample(batch, 50, torch.Generator().manual_seed(0)).index
    assert set(drawn.flatten().tolist()) == {4, 5}
    drawn = UniformSampler(filtered=True, split='all').sample(batch, 50, torch.Generator().manual_seed(0)).index
    assert set(drawn.flatten().tolist()) == {5}


def test_update_learns_nothing() -> None:
    batch = make_batch([(0, 0, 1)])
    sampler = UniformSampler()
    before = dict(vars(sampler))
    assert sampler.update(batch, None) is None and vars(sampler) == before  # type: ignore[func-returns-value, arg-type]


def test_clear_errors() -> None:
    with pytest.raises(ArgumentError, match="split: .* got 'dev'"):
        UniformSampler(split='dev')
    with pytest.raises(ArgumentError, match="split: .*filtered=True.*'all'"):
        UniformSampler(split='all')
    batch = make_batch([(0, 0, 1)])
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source: UniformSampler'):
        UniformSampler(filtered=True).sample(batch, 1)
    batch = make_batch([(0, 0, 1)])
    assert isinstance(batch.source, KGData)
    batch.source.fact_index('train')
    batch.source.to('meta')
    with pytest.raises(ArgumentError, match='batch: .* cpu, .* meta'):
        UniformSampler(filtered=True).sample(batch, 1)


@pytest.mark.gpu
def test_draws_on_the_gpu() -> None:
    batch = make_batch([(0, 0, 0), (0, 0, 1), (0, 0, 4)], torch.tensor([True, True, False])).to('cuda')
    assert batch.source is not None
    batch.source.to('cuda')
    negatives = UniformSampler(filtered=True).sample(batch, 1000, torch.Generator('cuda').manual_seed(0))
    assert negatives.index.is_cuda
    assert set(negatives.index[:2].flatten().tolist()) == {2, 3, 5}
    assert set(negatives.index[2].tolist()) == {1, 2, 3, 4, 5}
    assert isinstance(negatives.index, Tensor)
