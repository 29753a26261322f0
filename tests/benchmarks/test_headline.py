from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks import headline
from benchmarks._contenders import generate
from benchmarks._headline import CONTENDERS, DEFAULT, Ours, PyKEEN, Sizes
from benchmarks._record import read_result
from pyg_emu import evaluate

SIZES = Sizes(batch_size=16, num_negatives=4, channels=4, pairs=8)


def test_ours_is_the_packaged_recipe() -> None:
    data = generate(40, 3, 200, 20)
    for name, rate in (('emu', 0.61), ('uniform', 0.0)):
        contender = CONTENDERS[name][1](data, Sizes())
        assert isinstance(contender, Ours)
        assert contender.settings['negatives'].get('mutation_rate', 0.0) == rate
        assert contender.loader.transform.num_negatives == 256
        assert contender.loader.batch_size == 1000 and contender.model.node_emb.weight.shape == (40, 100)
        assert contender.optimizer.param_groups[0]['lr'] == 0.1
    assert (contender.criterion.regularizer.weight, type(contender.criterion).__name__) == (1e-5, 'CrossEntropyLoss')


@pytest.mark.parametrize('one_to_all', [False, True])
def test_our_ranking_reads_the_scores_of_pykeen(one_to_all: bool) -> None:
    data = generate(40, 3, 200, 20)
    contender = PyKEEN(data, SIZES, one_to_all=one_to_all)
    for _ in range(3):
        contender.step()
    scorer = contender.scorer()
    known, relation = torch.tensor([0, 5, 7]), torch.tensor([2, 0, 1])
    tails = contender.model.score_t(torch.stack([known, 2 * relation if one_to_all else relation], dim=1))
    torch.testing.assert_close(scorer.score_all(scorer.query(known, relation, 'tail')), tails)
    if one_to_all:  # Heads are the tails of the inverse relation.
        heads = contender.model.score_t(torch.stack([known, 2 * relation + 1], dim=1))
    else:
        heads = contender.model.score_h(torch.stack([relation, known], dim=1))
    torch.testing.assert_close(scorer.score_all(scorer.query(known, relation, 'head')), heads)


def test_looks_and_time() -> None:
    found = list(headline.looks(600.0))
    assert found[0] == 2.0 and found[-1] == 600.0
    assert all(later / earlier <= 1.15 + 1e-9 for earlier, later in zip(found, found[1:]))
    curve = [{'seconds': 2.0, 'mrr': 0.29}, {'seconds': 3.0, 'mrr': 0.30}, {'seconds': 4.0, 'mrr': 0.31}]
    assert headline.time_to(curve) == 3.0 and headline.time_to(curve[:1]) is None


@pytest.mark.parametrize('name', DEFAULT)
def test_goes_on_where_it_stopped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = generate(40, 3, 200, 20)
    # The clock is read once before and once after each step, so a step takes one second.
    ticks = count()
    monkeypatch.setattr(headline.time, 'perf_counter', lambda: float(next(ticks)))

    def run(folder: str) -> dict[str, Any]:
        arguments = headline.parse(['--smoke', '--out', str(tmp_path / folder), '--budget', '60s'])
        arguments.steps = 8
        return headline.run(name, data, arguments)

    whole = run('whole')
    assert [point['step'] for point in whole['curve']] == [2, 3, 4, 5, 6, 7, 8]
    assert [point['seconds'] for point in whole['curve']] == [2, 3, 4, 5, 6, 7, 8]
    looked = []

    def stop(*arguments: Any, **options: Any) -> Any:
        looked.append(arguments)
        if len(looked) == 4:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(headline, 'evaluate', stop)
        run('parts')
    parts = run('parts')
    assert parts['curve'][:3] == whole['curve'][:3] and parts['steps'] == 8 and parts['seconds'] == 8.0
    if name in ('emu', 'uniform'):  # PyKEEN's loader starts a new epoch.
        assert parts == whole
    # All steps are complete, so only the test triples are ranked with the best weights.
    again = run('parts')
    assert again['test'] == parts['test'] and again['curve'] == parts['curve']


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ['--smoke', '--out', str(tmp_path)]
    headline.main(command)
    frame = pd.read_csv(tmp_path / 'headline' / 'curves.csv')
    assert frame['label'].nunique() == 4
    assert (tmp_path / 'headline' / 'headline.png').stat().st_size > 10_000
    metrics = read_result('headline/pykeen-lcwa', tmp_path)['metrics']
    assert metrics['contender']['loop'] == 'LCWATrainingLoop' and metrics['settings']['threads'] == 1
    assert 0 < metrics['test']['mrr'] <= 1
    capsys.readouterr()
    headline.main(command)
    assert capsys.readouterr().out.count('already recorded') == 4


def test_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (['--smoke'], ['--data', 'x', '--only', 'nobody'], ['--data', 'x', '--budget', '0s']):
        with pytest.raises(SystemExit):
            headline.parse(command)
