from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor

from pyg_emu.core.contract import ScorerMixin
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.interaction import Dot
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.loader import TripletLoader
from pyg_emu.losses import EMULoss
from pyg_emu.models import DistMult
from pyg_emu.negatives import EMUNegatives
from pyg_emu.negatives.sampling import MCNSSampler
from pyg_emu.negatives.sampling.mcns import _walk
from pyg_emu.ops import use_backend
from pyg_emu.training.trainer import Trainer
from tests.negatives.sampling.shares import assert_shares

NUM_NODES = 8
# 0 has neighbours 1, 2 and 3; 4 has neighbour 5; 6 and 7 have none.
FACTS = [(0, 0, 1), (0, 0, 2), (3, 1, 0), (4, 1, 5)]
SCORES = [0.0, 1.0, 2.0, -1.0, 0.5, 3.0, -2.0, 1.5]


@pytest.fixture(autouse=True)
def reference_backend() -> Iterator[None]:
    with use_backend('torch'):
        yield


class Fixed(ScorerMixin):
    r"""Scores an entity by its number: :obj:`SCORES` for relation 0, the reverse for relation 1."""
    num_nodes, num_relations, interaction = NUM_NODES, 2, Dot()

    def _query(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return 1.0 - 2.0 * rel_type.unsqueeze(1)

    def entity_table(self) -> Tensor:
        return torch.tensor(SCORES).unsqueeze(1)


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(FACTS).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, 2)
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=2, source=source,
                 generator=torch.Generator().manual_seed(0))


def make_sampler(**arguments: Any) -> MCNSSampler:
    sampler = MCNSSampler(**arguments)
    sampler.begin(Fixed())
    return sampler


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('filtered', [False, True])
def test_long_run_distribution_is_the_target(alpha: float, filtered: bool) -> None:
    rows = [(0, 0, 1), (3, 1, 0), (4, 1, 5), (7, 0, 0)]
    side = torch.tensor([True, False, True, False])
    known = [{1, 2}, {3}, {5}, set()]  # of (0, 0, ?), (?, 1, 0), (4, 1, ?) and (?, 0, 0)
    batch = make_batch(rows * 8, side.repeat(8))
    index = make_sampler(alpha=alpha, filtered=filtered).sample(batch, 20_000).index
    index = index.view(8, 4, -1).transpose(0, 1).flatten(1)  # eight chains of each row
    for row, (_, relation, _), excluded, drawn in zip(range(4), rows, known, index):
        weight = torch.tensor([math.exp(alpha * (1 - 2 * relation) * score) for score in SCORES], dtype=torch.double)
        if filtered:
            weight[list(excluded)] = 0
        found = drawn.bincount(minlength=NUM_NODES).double() / drawn.numel()
        # The total variation distance. States of a chain depend on one another, so that it is no chi-square test;
        # 160,000 independent draws would be off by 0.002 on average.
        assert float((found - weight / weight.sum()).abs().sum() / 2) < 0.015, row
        if filtered:
            assert not set(drawn.tolist()) & excluded


def test_chains_are_those_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 5, generator=generator)
    weight[3, :2] = weight[0, 1] = -torch.inf
    uniform = torch.rand(8, 5, generator=generator)
    place = _walk(weight, -uniform.log())
    for column in range(5):
        at, expected = 0, []
        for move in range(1, 9):
            ratio = (weight[move, column] - weight[at, column]).exp() if weight[move, column] > -torch.inf else 0.0
            at = move if uniform[move - 1, column] < ratio else at
            expected.append(at)
        assert place[:, column].tolist() == expected


def test_proposals() -> None:
    batch, sampler = make_batch([(0, 0, 1), (4, 1, 5), (6, 0, 0)]), MCNSSampler()
    chains = sampler._prepare(batch)
    everyone = torch.arange(NUM_NODES).expand(3, -1)
    density = chains.density(batch.known_index, everyone)
    far = 0.5 / NUM_NODES
    assert density[0].tolist() == pytest.approx([far, *[far + 0.5 / 3] * 3, far, far, far, far])
    assert density[1].tolist() == pytest.approx([far] * 5 + [far + 0.5, far, far])
    assert density[2].tolist() == pytest.approx([1 / NUM_NODES] * NUM_NODES)
    proposal, given = chains.propose(batch.known_index, 20_000, torch.Generator().manual_seed(0))
    assert given.equal(density.gather(1, proposal))
    for row, expected in zip(proposal, density.tolist()):
        assert_shares(row, dict(enumerate(expected)))


def test_negatives_are_successive_states_after_the_burn_in() -> None:
    batch = make_batch([(0, 0, 1)])
    long = make_sampler(burn_in=0, filtered=False)
    whole = long.sample(batch, 30, torch.Generator().manual_seed(3)).index[0].tolist()
    late = make_sampler(burn_in=12, filtered=False)
    # Proposals are drawn for all moves at once, so that both chains are the same.
    assert late.sample(batch, 18, torch.Generator().manual_seed(3)).index[0].tolist() == whole[12:]
    assert long.states(batch).tolist() == late.states(batch).tolist() == whole[-1:]
    assert len(set(whole)) > 3 and any(a == b for a, b in zip(whole, whole[1:]))


def test_chains_go_on_from_batch_to_batch() -> None:
    class Steep(Fixed):
        def entity_table(self) -> Tensor:
            return 1e6 * torch.tensor(SCORES).unsqueeze(1)

    batch = make_batch([(0, 0, 1), (0, 0, 1), (0, 1, 3)], torch.tensor([True, False, True]))
    sampler = MCNSSampler(alpha=1.0, burn_in=200, filtered=False)
    sampler.begin(Steep())
    index = sampler.sample(batch, 4).index
    # Nothing moves away from the best entity, 5 for relation 0 and 6 for relation 1; the first triple decides.
    assert index.tolist() == [[5] * 4, [5] * 4, [6] * 4]
    assert sampler.states(batch).tolist() == [5, 5, 5]
    assert sampler.state_dict()['chains'][[0, NUM_NODES + 1]].tolist() == [5, 5]
    short = MCNSSampler(alpha=1.0, burn_in=0, filtered=False, seed=7)
    short.load_state_dict(sampler.state_dict())
    short.begin(Steep())
    assert short.sample(batch, 1).index.tolist()[:2] == [[5], [5]]


def test_state_that_became_known_is_replaced() -> None:
    batch = make_batch([(0, 0, 1)])
    sampler = make_sampler(burn_in=0)
    sampler._prepare(batch).state.fill_(1)
    drawn = torch.cat([sampler.sample(batch, 1, torch.Generator().manual_seed(seed)).index for seed in range(50)])
    assert not {1, 2} & set(drawn.flatten().tolist())


def test_without_a_model_all_scores_are_equal() -> None:
    batch, sampler = make_batch([(0, 0, 1)]), MCNSSampler(filtered=False)
    found = sampler.sample(batch, 40_000).index.flatten().bincount(minlength=NUM_NODES) / 40_000
    assert float((found - 1 / NUM_NODES).abs().sum() / 2) < 0.02


def test_warns_once_where_nobody_gives_the_model() -> None:
    batch, sampler = make_batch([(0, 0, 1)]), MCNSSampler()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(9):
            sampler.sample(batch, 3)
    with pytest.warns(UserWarning, match='10 batches .*update') as found:
        sampler.sample(batch, 3)
    assert len(found) == 1
    learning = MCNSSampler()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(20):
            sampler.sample(batch, 3)
        for _ in range(20):
            learning.sample(batch, 3)
            learning.update(batch, Fixed())


def test_reads_the_current_weights() -> None:
    batch = make_batch([(0, 0, 1)])
    model, sampler = DistMult(NUM_NODES, 2, 1), MCNSSampler(1.0, burn_in=300, filtered=False)
    sampler.begin(model)
    for best in (3, 6):
        with torch.no_grad():
            model.node_emb.weight.zero_()
            model.rel_emb.weight.fill_(1.0)
            model.node_emb.weight[0] = 100.0  # the query
            model.node_emb.weight[best] = 101.0
        assert sampler.sample(batch, 3).index.tolist() == [[best] * 3]


# State #######################################################################


def make_trainer(folder: Path, num_steps: int, seed: int = 0) -> tuple[Trainer, MCNSSampler]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    data = KGData(torch.randint(20, (2, 30), generator=generator), torch.randint(3, (30, ), generator=generator), 20, 3)
    model, sampler = DistMult(20, 3, 8, margin=0.0), MCNSSampler(seed=seed)
    loader = TripletLoader(data, 8, shuffle=True, seed=1, transform=EMUNegatives(5, sampler=sampler))
    trainer = Trainer(model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.5), num_steps=num_steps,
                      checkpoint_every=3, run_dir=folder, progress=False)
    return trainer, sampler


def test_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, own = make_trainer(tmp_path / 'whole', 20)
    whole.fit()
    make_trainer(tmp_path / 'cut', 9)[0].fit()
    resumed, other = make_trainer(tmp_path / 'cut', 20, seed=5)  # nothing may depend on how it began
    torch.manual_seed(99)
    resumed.fit(resume=True)
    for left, right in zip(whole.model.parameters(), resumed.model.parameters()):
        assert left.equal(right)
    assert own.state_dict()['chains'].equal(other.state_dict()['chains'])


def test_trainer_gives_the_model_before_the_first_batch(tmp_path: Path) -> None:
    trainer, sampler = make_trainer(tmp_path, 1)
    seen: list[Any] = []
    sample = sampler._sample
    sampler._sample = lambda *args: seen.append(sampler._scorer) or sample(*args)  # type: ignore[method-assign]
    trainer.fit()
    assert seen == [trainer.model]


def test_chains_stay_where_entities_do() -> None:
    batch, sampler = make_batch([(0, 0, 1)]), make_sampler()
    sampler.sample(batch, 5)
    before = sampler.state_dict()['chains'].clone()
    assert batch.source is not None
    batch.source.edge_index, batch.source.edge_type = torch.tensor([[0], [7]]), torch.tensor([1])
    assert sampler._prepare(batch).state.equal(before) and sampler._prepare(batch).near.num_facts == 2


def test_state_travels_without_code() -> None:
    batch = make_batch([(0, 0, 1)])
    sampler = make_sampler()
    sampler.sample(batch, 5)
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    other = make_sampler(seed=3)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict()['chains'].equal(sampler.state_dict()['chains'])  # before the graph is seen
    draws = [one.sample(batch, 5, torch.Generator().manual_seed(4)).index.tolist() for one in (sampler, other)]
    assert draws[0] == draws[1]


def test_state_of_something_else() -> None:
    other = MCNSSampler()
    other.load_state_dict({'chains': torch.zeros(6, dtype=torch.int32)})
    with pytest.raises(CheckpointError) as error:
        other.sample(make_batch([(0, 0, 1)]), 1)
    assert all(fact in str(error.value) for fact in (' 6 ', '16'))
    with pytest.raises(CheckpointError, match='chains'):
        other.load_state_dict({})


@pytest.mark.parametrize('arguments, facts', [
    ({'alpha': -1}, ['alpha', '-1']),
    ({'alpha': float('inf')}, ['alpha', 'inf']),
    ({'burn_in': -1}, ['burn_in', '-1']),
    ({'burn_in': True}, ['burn_in', 'True']),
    ({'burn_in': 1.5}, ['burn_in', '1.5']),
    ({'seed': 0.5}, ['seed', '0.5']),
])
def test_bad_arguments(arguments: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        MCNSSampler(**arguments)
    assert all(fact in str(error.value) for fact in facts)


def test_bad_model() -> None:
    for wrong in (None, DistMult, torch.nn.Linear(2, 2)):
        with pytest.raises(ArgumentError, match='scorer: '):
            MCNSSampler().begin(wrong)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match='scorer: '):
            MCNSSampler().update(make_batch([(0, 0, 1)]), wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    batch = make_batch([(0, 0, 1), (4, 1, 5)], torch.tensor([True, False])).to('cuda')
    assert batch.source is not None
    batch.source.to('cuda')
    sampler = MCNSSampler(0.0)
    sampler.begin(DistMult(NUM_NODES, 2, 4).cuda())
    index = sampler.sample(batch, 20_000, torch.Generator('cuda').manual_seed(0)).index
    assert index.is_cuda
    for row, left in zip(index.cpu(), ((0, 3, 4, 5, 6, 7), (0, 1, 2, 3, 5, 6, 7))):
        found = row.bincount(minlength=NUM_NODES).double() / row.numel()
        assert float((found[list(left)] - 1 / len(left)).abs().sum() / 2) < 0.02 and not set(row.tolist()) - set(left)
