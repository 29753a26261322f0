from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import large_graphs
from benchmarks._record import read_result, read_results
from benchmarks.render_readme import TABLES, render


def test_the_graph_has_the_shape_it_is_said_to_have() -> None:
    size = 20_000
    data = large_graphs.generate(size, 90_000, held_out=50)
    assert data.validate() and (data.num_nodes, data.num_relations) == (size, large_graphs.RELATIONS)
    assert [data.num_facts(split) for split in ('train', 'valid', 'test')] == [90_000, 50, 50]
    assert torch.equal(data.edge_index, large_graphs.generate(size, 90_000, held_out=50).edge_index)
    assert not torch.equal(data.edge_index, large_graphs.generate(size, 90_000, held_out=50, seed=1).edge_index)
    for end, power in ((0, 0.5), (1, 1.0)):
        count = torch.bincount(data.edge_index[end], minlength=size).sort(descending=True).values.double().numpy()
        # The slope over the ranks that have many facts, in groups, so that their order does not matter.
        rank = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256])
        mean = [count[first - 1:2 * first - 1].mean() for first in rank]
        assert np.polyfit(np.log(rank[2:]), np.log(mean[2:]), 1)[0] == pytest.approx(-power, abs=0.1)


def test_exponents_worked_out_by_hand() -> None:
    rows = [{'entities': size, 'channels': 4, 'adagrad_own_ms': 3.0 * size**0.5, 'ranking_s': 1e-6 * size**1.5,
             'facts': 5} for size in (100, 1000, 10_000)]
    found = large_graphs.exponents_of(rows)
    assert found['adagrad_own_ms'] == pytest.approx(0.5) and found['ranking_s'] == pytest.approx(1.5)
    assert found['beyond'] == ['ranking_s'] and 'facts' not in found


def test_smoke(tmp_path: Path) -> None:
    large_graphs.main(['--smoke', '--out', str(tmp_path), '--optimizers', 'adagrad'])
    rows = [result['metrics'] for result in read_results('large_graphs/d4-0*', tmp_path)]
    assert [row['entities'] for row in rows] == [60, 120] and rows[0]['facts'] == round(60 * 20_614_279 / 4_594_485)
    assert all(row[key] > 0 for row in rows for key in ('adagrad_own_ms', 'adagrad_shared_ms', 'ranking_s', 'peak_gib'))
    assert 'ranking_s' in read_result('large_graphs/d4-exponent', tmp_path)['metrics']
    text = render(TABLES['large-graphs'], tmp_path)
    assert '| 60, d = 4 |' in text and '| exponent, d = 4 |' in text
    with pytest.raises(SystemExit):
        large_graphs.main(['--smoke'])
