from __future__ import annotations

import pytest

from benchmarks._progress import RunsBar


def test_remaining_time_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr('tqdm.std.time', lambda: clock[0])
    with RunsBar('a table', {'short': 100, 'long': 1000, 'other': 300}, {'long': 200, 'other': 300}) as bar:
        assert 'a table' in str(bar) and '500/1.40k' in str(bar) and '0 of 3 runs' in str(bar)
        clock[0] = 10.0
        bar.reach('short', 50)
        # Five steps per second without the steps of earlier calls, so 850 remain.
        assert '[00:10<02:50, 5.00step/s' in str(bar)
        clock[0] = 20.0
        bar.finish('short')
        assert '[00:20<02:40, 5.00step/s' in str(bar) and '1 of 3 runs' in str(bar)
        clock[0] = 60.0
        bar.reach('long', 900)
        # 800 steps in a minute. The latest ones, at 17 per second, do not determine the estimate.
        assert '<00:07, 13.3step/s' in str(bar)
        bar.drop('long')
        assert '1.30k/1.30k [01:00<00:00' in str(bar)
        assert bar.left == 2


def test_a_run_that_ends_early_or_goes_back() -> None:
    with RunsBar('a table', {'a': 100, 'b': 100}, {'a': 500}) as bar:
        assert '100/200' in str(bar)  # The recipe was longer before.
        bar.reach('a', 40)
        assert ' 40.0/200' in str(bar)
        bar.finish('a')
        bar.finish('b')
        assert '200/200' in str(bar) and '2 of 2 runs' in str(bar) and bar.left == 0
