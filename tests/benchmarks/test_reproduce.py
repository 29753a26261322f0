from __future__ import annotations

import os
import re
import shlex
import signal
import time
from pathlib import Path
from threading import Timer
from typing import Any, Callable

import numpy as np
import pandas as pd
import pytest

from benchmarks import reproduce
from benchmarks._record import RESULTS, read_result, read_results, write_result
from benchmarks._reproduction import entries, frame, markdown, recipe_of
from benchmarks.paper_runs import RECIPES
from benchmarks.render_readme import TABLES, render
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.experiments.tuning import load_space
from pyg_emu.losses import EMULoss
from pyg_emu.training.run_folder import RunFolder

STEPS = 4
ROW = ['--table', '8', '--dataset', 'FB15k-237', '--model', 'DistMult']
Call = Callable[..., int]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    r"""Runs the command on a graph of forty entities under the name FB15k-237."""
    random = np.random.default_rng(0)
    folder = tmp_path / 'data' / 'FB15k-237'
    folder.mkdir(parents=True)
    facts = np.unique(random.integers(0, (40, 3, 40), (400, 3)), axis=0)
    random.shuffle(facts)
    for name, part in (('train', facts[:300]), ('valid', facts[300:320]), ('test', facts[320:340])):
        lines = [f'e{head}\tr{relation}\te{tail}\n' for head, relation, tail in part]
        (folder / f'{name}.txt').write_text(''.join(lines))
    monkeypatch.setenv('PYG_EMU_DATA', str(tmp_path / 'data'))

    def run(*arguments: str) -> int:
        return reproduce.main([*arguments, '--steps', str(STEPS), '--out', str(tmp_path / 'results'),
                               '--runs', str(tmp_path / 'runs')])

    return run


def names(folder: Path) -> list[str]:
    return [result['name'].removeprefix('reproduction/tuned/FB15k-237/')
            for result in read_results('reproduction/tuned/**/*', folder / 'results')]


def fake(folder: Path, entry: Any, seed: int, mrr: float, **changes: Any) -> None:
    recipe = {**recipe_of(entry.path).to_dict(), 'seed': seed, **changes}
    metrics = {'test': {'mrr': mrr, 'hits@10': 0.5}, 'recipe': recipe}
    write_result(entry.result(None, seed), metrics, seed=seed, command='made', folder=folder)


def test_a_table_worked_out_by_hand(tmp_path: Path) -> None:
    found = [entry for entry in entries('Table 8', 'tuned') if entry.row.model == 'DistMult']
    uni, san, san_emu, emu = (entry for entry in found if entry.row.dataset == 'FB15k-237')
    for seed, mrr in enumerate((0.330, 0.334, 0.338)):
        fake(tmp_path, emu, seed, mrr)
    fake(tmp_path, uni, 0, 0.298)
    # Results of other settings do not belong to this row.
    fake(tmp_path, san, 0, 0.9, batch_size=7)
    fake(tmp_path, san_emu, 0, 0.9, loss={'name': 'emu', 'alpha': 0.5})
    lines = markdown(frame(found, tmp_path), 'Table 8', 'tuned').splitlines()
    assert lines[2] == ('| dataset | model | method | MRR paper | ours | difference | Hits@10 paper | ours '
                        '| difference | steps | seeds |')
    assert lines[4] == ('| FB15k-237 | DistMult | uni | 0.299 ± 0.001 | 0.298 | -0.001 | 0.476 ± 0.001 | 0.500 '
                        '| +0.024 | 30,000 | 1 |')
    assert lines[5] == ('| FB15k-237 | DistMult | SAN | 0.259 ± 0.001 | not run | - | 0.415 ± 0.001 | not run | - | - '
                        '| - |')
    assert '| SAN EMU |' in lines[6] and lines[6].count('not run') == 2
    assert lines[7] == ('| FB15k-237 | DistMult | uni EMU | 0.332 ± 0.001 | 0.334 ± 0.004 | +0.002 | 0.513 ± 0.001 '
                        '| 0.500 ± 0.000 | -0.013 | 30,000 | 3 |')
    assert lines[8].startswith('| WN18RR ') and lines[8].count('no recipe') == 2


def test_lost_cells_are_dashes_and_the_longest_runs_count(tmp_path: Path) -> None:
    found = entries('Table 10', 'tuned')
    caching = next(entry for entry in found if entry.row.model == 'TransE')
    fake(tmp_path, caching, 0, 0.25)
    fake(tmp_path, caching, 1, 0.9, num_steps=5)
    table = frame([caching], tmp_path)
    assert markdown(table, 'Table 10', 'tuned').splitlines()[4] == (
        '| FB15k-237 | TransE | NSCaching | - | 0.250 | - | 0.470 ± 0.002 | 0.500 | +0.030 | 30,000 | 1 |')
    assert frame([caching], tmp_path, steps=5)['mrr ours'].tolist() == [0.9]
    table = frame(entries('Table 3', 'tuned'), tmp_path)
    assert table['hits@1 paper'].tolist() == [0.321, 0.321, 0.326] and set(table['state']) == {'no recipe'}


def test_runs_what_is_missing_and_shares_trainings(call: Call, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*ROW, '--method', 'uni', 'uni_EMU', '--seeds', '2') == 0
    assert names(tmp_path) == [f'distmult-{run}-steps4-seed{seed}' for run in ('uni-emu', 'uni') for seed in (0, 1)]
    assert '± 0.001 | 0.' in capsys.readouterr().out
    csv = pd.read_csv(tmp_path / 'results' / 'reproduction' / 'table-8-tuned.csv')
    assert len(csv) == 48 and csv['seeds'].sum() == 4 and set(csv['state']) == {'run', 'not run', 'no recipe'}
    assert csv['dataset'].nunique() == 3
    text = (tmp_path / 'results' / 'reproduction' / 'table-8-tuned.md').read_text()
    assert text.count('| not run |') == 2 * 14 and text.count('| no recipe |') == 2 * 32

    # Table 13 contains the same runs and uses their results.
    before = read_results('reproduction/tuned/**/*', tmp_path / 'results')
    assert call('--table', '13', '--model', 'DistMult', '--method', 'EMU', 'without_EMU', '--seeds', '2') == 0
    assert read_results('reproduction/tuned/**/*', tmp_path / 'results') == before
    assert '| 4 | 2 |' in capsys.readouterr().out


def test_interrupted_and_continued(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = EMULoss.forward, []

    def interrupting(self: EMULoss, model: Any, batch: Any) -> Any:
        calls.append(batch.step)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, model, batch)

    monkeypatch.setattr(EMULoss, 'forward', interrupting)
    command = (*ROW, '--method', 'uni', 'uni_EMU', 'SAN_EMU')
    assert call(*command) == 130
    # The first row is complete, the second one stopped after three steps, and the third one was not started.
    assert names(tmp_path) == ['distmult-uni-steps4-seed0'] and len(calls) == 3
    assert call(*command) == 0
    assert len(calls) == 2 * STEPS and len(names(tmp_path)) == 3
    found = read_result('reproduction/tuned/FB15k-237/distmult-san-emu-steps4-seed0', tmp_path / 'results')['metrics']
    # The interrupted row ends with the same result as an uninterrupted one.
    whole = run_recipe(reproduce.load_recipe(found['recipe']), progress=False)
    assert whole.test is not None and found['test'] == whole.test.to_dict()


def test_a_recipe_that_has_changed_is_run_again(call: Call, tmp_path: Path) -> None:
    command = (*ROW, '--method', 'uni')
    assert call(*command) == 0
    name = 'reproduction/tuned/FB15k-237/distmult-uni-steps4-seed0'
    fresh = read_result(name, tmp_path / 'results')['metrics']
    # As if both were recorded before the batch size was increased.
    write_result(name, {**fresh, 'recipe': {**fresh['recipe'], 'batch_size': 7}}, seed=0, folder=tmp_path / 'results')
    recipe = tmp_path / 'runs' / 'tuned' / 'FB15k-237' / 'distmult-uni-steps4-seed0' / 'recipe.yaml'
    recipe.write_text(recipe.read_text().replace('batch_size: 1000', 'batch_size: 7'))
    assert call(*command) == 0
    again = read_result(name, tmp_path / 'results')['metrics']
    assert again['recipe'] == fresh['recipe'] and again['test'] == fresh['test']


def test_budget(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                capsys: pytest.CaptureFixture[str]) -> None:
    forward, calls, budgets = EMULoss.forward, [], []

    def slow(self: EMULoss, model: Any, batch: Any) -> Any:
        calls.append(batch.step)
        while len(calls) == 3 and not budgets[0].is_spent:  # The third step lasts until the budget is used.
            time.sleep(0.01)
        return forward(self, model, batch)

    class Noted(reproduce.Budget):
        def __init__(self, limit: Any) -> None:
            # By the real clock, the budget could be used before the third step.
            super().__init__(None if limit is None else 3600.0)
            self.limit = limit
            budgets.append(self)

        def __enter__(self) -> Any:
            super().__enter__()
            if self.limit is not None:
                Timer(0.0, lambda: (wait(lambda: len(calls) == 3), self._spend())).start()
            return self

    monkeypatch.setattr(EMULoss, 'forward', slow)
    monkeypatch.setattr(reproduce, 'Budget', Noted)
    command = (*ROW, '--method', 'uni', 'uni_EMU', 'SAN_EMU')
    assert call(*command, '--budget', '1m') == 0
    # The first row is complete. The second one stopped within the budget and saved its state.
    assert names(tmp_path) == ['distmult-uni-steps4-seed0'] and len(calls) == 3
    captured = capsys.readouterr()
    said = r'60 s .*FB15k-237, DistMult, SAN EMU, seed 0; 2 of 3 runs'
    assert re.search(said, captured.out + captured.err)
    assert call(*command) == 0
    assert len(calls) == 2 * STEPS and len(names(tmp_path)) == 3


def test_progress_is_that_of_steps(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []
    reached: list[tuple[str, int]] = []

    class Noted(reproduce.RunsBar):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            bars.append(arguments)

        def reach(self, name: str, step: int) -> None:
            reached.append((name.rpartition('/')[2], step))
            super().reach(name, step)

    def run(*arguments: str) -> int:
        bars.clear()
        reached.clear()
        return call(*ROW, *arguments)

    monkeypatch.setattr(reproduce, 'RunsBar', Noted)
    assert run('--method', 'uni') == 0
    (title, lengths, taken), = bars
    assert title == 'Table 8, tuned' and list(lengths.values()) == [STEPS] and list(taken.values()) == [0]
    assert reached == 2 * [('distmult-uni-steps4-seed0', STEPS)]  # At the last validation and at the end of the run.
    # A run that stopped after its third step and a validation, and a run that was not started.
    emu = 'reproduction/tuned/FB15k-237/distmult-uni-emu-steps4-seed0'
    folder = tmp_path / 'runs' / 'tuned' / 'FB15k-237' / 'distmult-uni-emu-steps4-seed0'
    folder.mkdir()
    (folder / 'metrics.json').write_text('{"steps": 3}')
    RunFolder(folder).write_record({'files': ['metrics.json', 'run.json']})
    assert run('--method', 'uni', 'uni_EMU', 'SAN') == 0
    (title, lengths, taken), = bars
    assert lengths == {emu: STEPS, emu.replace('uni-emu', 'san'): STEPS}
    assert taken == {emu: 3, emu.replace('uni-emu', 'san'): 0}
    # A run to be repeated has all of its steps left.
    result = tmp_path / 'results' / f'{emu}.json'
    result.write_text(result.read_text().replace('"batch_size": 1000', '"batch_size": 7'))
    assert run('--method', 'uni_EMU') == 0
    assert bars[0][1:] == ({emu: STEPS}, {emu: 0})


def wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.mark.parametrize('handler', [signal.default_int_handler, signal.SIG_IGN], ids=['foreground', 'background'])
def test_a_budget_interrupts_when_its_time_is_over(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with reproduce.Budget(0.05) as budget, pytest.raises(KeyboardInterrupt):
            time.sleep(30)
        assert budget.is_spent
        with reproduce.Budget(3600.0) as budget, reproduce.Budget(None) as endless:
            pass
        assert not budget.is_spent and not endless.is_spent
        assert budget._timer is not None and budget._timer.finished.is_set()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('command, complaint', [
    (['--table', '4'], r'--table: .*\b4\b'),
    (['--table', '8', '--model', 'HAKE'], '^--model: .*ComplEx, DistMult.*Table 8.*HAKE'),
    (['--table', '14', '--dataset', 'WN18RR'], '^--dataset: .*FB15k-237.*Table 14.*WN18RR'),
    (['--table', '8', '--budget', 'soon'], "--budget: .*90s.*'soon'"),
    (['--table', '8', '--seeds', '0'], r'--seeds: .*\b1\b.*\b0\b'),
    (['--figure', '4'], '--run: .*3, 4 or 6'),
    ([], '--table --figure'),
])
def test_refuses(command: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(command)
    assert re.search(complaint, capsys.readouterr().err + str(stopped.value), re.MULTILINE)


def test_a_dataset_that_is_not_there(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    load, asked = reproduce.load_dataset, []

    def missing(name: str) -> Any:
        asked.append(name)
        if name != 'FB15k-237':
            raise reproduce.DataError(f'{name} could not be downloaded')
        return load(name)

    monkeypatch.setattr(reproduce, 'load_dataset', missing)
    command = ('--table', '8', '--reading', 'paper', '--model', 'DistMult', '--method', 'uni', '--seeds', '2')
    assert call(*command) == 1
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count('WN18RR could not be downloaded') == 1
    # The data is requested once, and the available rows run with both seeds.
    assert asked == ['FB15k-237', 'WN18RR', 'YAGO3-10']
    found = read_results('reproduction/paper/**/*', tmp_path / 'results')
    assert [result['name'].rpartition('/')[2] for result in found] == [
        'distmult-uni-steps4-seed0', 'distmult-uni-steps4-seed1']


def test_rows_without_a_recipe(call: Call, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="^--reading: .*Table 8.*'tuned'.*paper.*reference-code"):
        call('--table', '8', '--dataset', 'WN18RR')
    with pytest.raises(SystemExit, match="^--reading: .*'paper'"):
        call('--table', '10', '--model', 'RotatE', '--reading', 'paper')
    assert call('--table', '8', '--dataset', 'WN18RR', '--render') == 0
    assert not (tmp_path / 'runs').exists()


def test_nbfnet(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                monkeypatch: pytest.MonkeyPatch) -> None:
    trained, smaller = [], ['model.hidden_channels=4', 'model.num_layers=2', 'negatives.num_negatives=4']

    def train(run: Any, data: Any, arguments: Any, reach: Any) -> str:
        trained.append(run.entry.path.stem)
        recipe = reproduce.load_recipe(run.entry.path, [reproduce.assignment_layer(['num_steps=4'])])
        small = reproduce.load_recipe(run.entry.path, [reproduce.assignment_layer([*smaller, 'num_steps=1'])])
        outcome = run_recipe(small, data=data, progress=False)
        write_result(run.result, {'test': outcome.test.to_dict(), 'recipe': recipe.to_dict()}, seed=0,
                     folder=arguments.out)
        return run.result

    monkeypatch.setattr(reproduce, 'train', train)
    assert call('--table', '3', '--reading', 'paper') == 0
    # Two of the three rows share a run.
    assert trained == ['nbfnet-uni', 'nbfnet-uni-emu']
    table = pd.read_csv(tmp_path / 'results' / 'reproduction' / 'table-3-paper.csv')
    assert table['state'].tolist() == ['run'] * 3 and table['hits@3 ours'].notna().all()
    assert table['mrr ours'][0] == table['mrr ours'][1] != table['mrr ours'][2]


def test_list_runs_nothing(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*ROW, '--list') == 0
    lines = capsys.readouterr().out.splitlines()
    recipe = (RECIPES / 'tuned' / 'FB15k-237' / 'distmult-uni.yaml').relative_to(reproduce.ROOT)
    assert lines[0] == f'FB15k-237, DistMult, uni: {recipe}; not run' and len(lines) == 4
    assert not (tmp_path / 'results').exists()


def test_figures(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call('--figure', '5', '--model', 'DistMult', '--method', 'uni', 'uni_EMU', 'one_vs_all') == 0
    assert call('--figure', '2', '--render') == 0
    folder = tmp_path / 'results' / 'reproduction'
    run = tmp_path / 'runs' / 'tuned' / 'FB15k-237' / 'distmult-uni-emu-steps4-seed0'
    for number in (3, 4, 6):
        assert call('--figure', str(number), '--run', str(run)) == 0
    stems = [f'figure-{number}-FB15k-237-{run.name}' for number in (3, 4, 6)]
    for stem in ('figure-2-tuned', 'figure-5-tuned', *stems):
        assert (folder / f'{stem}.png').stat().st_size > 5_000
    table = pd.read_csv(folder / 'figure-5-tuned.csv')
    assert table[table['model'] == 'DistMult']['state'].tolist() == ['run'] * 9
    # Mutation moves negatives towards their positive, and with one mask per triple also towards each other.
    cosines, plane, pairs = (read_result(f'reproduction/{stem}', tmp_path / 'results')['metrics'] for stem in stems)
    assert cosines['EMU']['mean'] > cosines['uniform']['mean'] + 0.1
    assert pairs['EMU, EMU']['mean'] > pairs['uniform, uniform']['mean'] + 0.1
    assert 0 < plane['uniform']['isotropy'] <= 1 and plane['EMU']['angle_mean'] > 0
    # Each figure is a line of its table.
    for number, figure, keys in ((3, cosines, ('uniform.mean', 'SANS.mean', 'EMU.mean')),
                                 (4, plane, ('uniform.isotropy', 'EMU.isotropy', 'uniform.angle_mean')),
                                 (6, pairs, ('uniform, uniform.mean', 'EMU, EMU.mean'))):
        line = render(TABLES[f'figure-{number}'], tmp_path / 'results').splitlines()[2]
        assert line.startswith('| FB15k-237: DistMult, EMU, rate 0.61, one mask per triple, 4 steps | ')
        assert '| - |' not in line
        for method, key in (key.split('.') for key in keys):
            value = figure[method][key]
            assert f'| {value:.{3 if abs(value) < 10 else 1}f} |' in line

    plain = run.with_name('distmult-uni-steps4-seed0')
    with pytest.raises(SystemExit, match='^--run .*mutation'):
        call('--figure', '3', '--run', str(plain))
    with pytest.raises(SystemExit, match='nowhere'):
        call('--figure', '3', '--run', str(tmp_path / 'nowhere'))


def test_pending_commands_can_be_run() -> None:
    text = (reproduce.ROOT / 'benchmarks' / 'PENDING.md').read_text()
    commands = [shlex.split(command) for command in re.findall(r'`python -m benchmarks\.([^`]+)`', text)]
    ours = [reproduce.parse(command[1:]) for command in commands if command[0] == 'reproduce']
    for arguments in ours:
        assert arguments.run is not None or any(entry.path for entry in reproduce.select(arguments))
    searches = [shlex.split(command) for command in re.findall(r'`python -m pyg_emu tune ([^`]+)`', text)]
    found = set()
    for command in searches:
        given = dict(zip(command[::2], command[1::2]))
        load_space(given['--search']).bound(reproduce.load_recipe(given['--recipe']))
        found.add(f'{given["--study"]}/best.yaml')
    assert len(found) == len(searches)
    others = [command for command in commands if command[0] == 'accuracy' and command[1] not in found]
    for command in others:
        settings = [value for flag, value in zip(command, command[1:]) if flag == '--set']
        assert settings and reproduce.load_recipe(command[1], [reproduce.assignment_layer(settings)])
    assert len(ours) > 10 and len(others) > 5


@pytest.mark.parametrize('path', sorted((RESULTS / 'reproduction').glob('table-*.md')), ids=lambda path: path.stem)
def test_recorded_tables_equal_their_results(path: Path) -> None:
    _, number, reading = path.stem.split('-', 2)
    source = f'Table {number}'
    table = frame(entries(source, reading), RESULTS)
    assert path.read_text(encoding='utf-8') == markdown(table, source, reading), (
        f'run python -m benchmarks.reproduce --table {number} --reading {reading} --render')
