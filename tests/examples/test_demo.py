from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.render_readme import TABLES, render
from examples import demo

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    r"""A ring: each of 20 entities is followed by the next, and precedes the one before."""
    facts = [line for i in range(20) for line in (f'e{i}\tnext\te{(i + 1) % 20}', f'e{(i + 1) % 20}\tprevious\te{i}')]
    for split, lines in {'train': facts, 'valid': facts[:6], 'test': facts[6:12]}.items():
        (tmp_path / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    return tmp_path


def run(folder: Path, *flags: str) -> pd.DataFrame:
    demo.main(['--data', str(folder), '--steps', '10', '--seeds', '2', '--batch-size', '10',
               '--out', str(folder / 'out'), *flags])
    return pd.read_csv(folder / 'out' / 'runs.csv')


def test_demo_compares_on_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = run(folder)
    assert history.groupby(['setting', 'seed'])['step'].max().to_dict() == {
        (label, seed): 10 for label in ('uniform negatives', 'EMU') for seed in (0, 1)
    }
    assert history['valid_mrr'].between(0, 1).all()
    assert (folder / 'out' / 'valid_mrr.png').read_bytes().startswith(b'\x89PNG')
    printed = capsys.readouterr().out
    for column in ('MRR', 'Hits@1', 'Hits@3', 'Hits@10', 'seconds', '±', '20 entities', '2 relations'):
        assert column in printed
    # The same seeds, the same course.
    times = ['seconds', 'steps_per_second']
    pd.testing.assert_frame_equal(run(folder).drop(columns=times), history.drop(columns=times))


def test_curve_begins_with_the_first_steps() -> None:
    assert demo.validation_steps(100) == [5, 7, 10, 15, 20, 30, 50, 70, 100]
    assert demo.validation_steps(2000)[8:] == [100, 150, 200, 300, 500, 700, 1000, 1500, 2000]
    assert demo.validation_steps(3) == [3]
    assert demo.validation_steps(6) == [5, 6]


def test_picture_has_a_logarithmic_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path, **options: drawn.append(figure))
    curve = pd.DataFrame({'step': [5, 10], 'seconds': [0.01, 1.0], 'valid_mrr': [0.1, 0.5]})
    demo.draw([demo.Run(demo.EMU, 0, {}, {}, 1.0, curve)], tmp_path / 'curve.png')
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == 'log'
    assert axes.lines[0].get_xdata().tolist() == [0.01, 1.0]


def test_strength_of_l3_is_chosen_on_validation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The strongest wipes the embeddings out, so that it cannot be the best, whatever the others do.
    monkeypatch.setattr(demo, 'L3_STRENGTHS', (1e3, 1e-6))
    history = run(folder, '--l3')
    assert set(history['setting']) == {'uniform negatives', 'uniform negatives, L3 1e-06', 'EMU'}


def test_table_worked_out_by_hand() -> None:
    runs = [demo.Run(demo.EMU, seed, {}, dict.fromkeys(demo.HITS, mrr), seconds, pd.DataFrame())
            for seed, (mrr, seconds) in enumerate([(0.25, 1.0), (0.75, 2.0)])]
    row = demo.table(runs).loc['EMU']
    metrics = dict.fromkeys(['MRR', 'Hits@1', 'Hits@3', 'Hits@10'], '0.500 ± 0.354')
    assert row.to_dict() == {**metrics, 'seconds': '1.5 ± 0.7'}


def test_recorded_runs_make_a_table(tmp_path: Path) -> None:
    metrics = dict.fromkeys(demo.HITS, 0.5)
    runs = [demo.Run(setting, 0, metrics, metrics, 1.0, pd.DataFrame()) for setting in (demo.UNIFORM, demo.EMU)]
    demo.record(runs, 'umls', steps=1, folder=tmp_path)
    lines = render(TABLES['demo'], tmp_path).splitlines()
    assert lines[2:4] == ['| EMU | 0.500 | 0.500 | 0.500 | 0.500 | 1.000 |',
                          '| uniform negatives | 0.500 | 0.500 | 0.500 | 0.500 | 1.000 |']


def test_a_run_depends_on_its_seed_alone(folder: Path) -> None:
    data = demo.load_dataset(str(folder))
    first = demo.train(data, demo.EMU, seed=1, steps=4, batch_size=10, progress=False)
    torch.manual_seed(99)
    second = demo.train(data, demo.EMU, seed=1, steps=4, batch_size=10, progress=False)
    assert first.test == second.test
    assert demo.train(data, demo.EMU, seed=2, steps=4, batch_size=10, progress=False).test != first.test
