from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import sans
from benchmarks._contenders import generate
from benchmarks._record import read_result
from benchmarks.render_readme import TABLES, render
from pyg_emu import TripletLoader


def test_settings_are_those_of_the_recipes() -> None:
    found = {mode: sans.make_sampler(mode) for mode in sans.MODES}
    assert [found[mode].mode for mode in sans.MODES] == ['walk', 'khop']
    for sampler in found.values():
        assert (sampler.num_hops, sampler.walks, sampler.filtered, sampler.split) == (3, 1000, True, 'train')


@pytest.mark.parametrize('mode', sans.MODES)
def test_bytes_that_are_kept(mode: str) -> None:
    data = generate(40, 3, 200)
    sampler = sans.make_sampler(mode)
    batch = next(TripletLoader(data, 8).batches())
    sampler.sample(batch, 4)
    near = sampler.neighborhoods(batch)
    known = {(*row, side) for row in data.facts('train').tolist() for side in ('tail', 'head')}
    # Four bytes per neighbour and eight per neighbourhood. For each known answer among the neighbours (all but the
    # entity itself), eight bytes for the key, and eight for its position among the unknown ones after the first draw.
    facts = sum(head != tail for head, _, tail, _ in known)
    drawn = 1 + (sampler._state is not None and sampler._state.places._complement is not None)
    assert sans.kept_bytes(sampler) == 4 * near.entity.numel() + 8 * 41 + 8 * drawn * facts
    with pytest.raises(AssertionError):
        sans.kept_bytes(sans.make_sampler(mode))


def test_every_preparation_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    data, made, indices = generate(40, 3, 200), [], []
    make = sans.make_sampler

    def noted(mode: str) -> sans.SANSSampler:
        made.append(make(mode))
        indices.append(dict(data.__dict__.get('_cache') or {}))
        return made[-1]

    monkeypatch.setattr(sans, 'make_sampler', noted)
    arguments = sans.parse(['--smoke', '--out', 'folder'])
    arguments.repeats = 3
    found, last = sans.prepare('walk', data, arguments)
    assert len(made) == 3 and made[-1] is last and len({id(sampler) for sampler in made}) == 3
    assert not any(indices), 'the time must include the index of known triples'
    assert 0 < found['prepare_s'] <= found['slowest_prepare_s']


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    sans.main(['--smoke', '--out', str(tmp_path)])
    for mode, label in (('walk', '1,000 walks of 3 steps'), ('khop', '3 hops')):
        metrics = read_result(f'sans/{mode}', tmp_path)['metrics']
        assert metrics['label'] == label and 0 < metrics['mean_neighbors'] <= 39
        assert min(metrics[f'{name}_ms'] for name in ('sans', 'uniform', 'uniform_filtered')) > 0
    # The table contains all figures.
    lines = render(TABLES['sans'], tmp_path).splitlines()[2:4]
    assert [line.split(' | ')[0] for line in lines] == ['| 3 hops', '| 1,000 walks of 3 steps']
    assert not any('| - ' in line for line in lines)
    assert 'to the first negatives' in capsys.readouterr().out


@pytest.mark.parametrize('command', [['--smoke'], []])
def test_refuses(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('PYG_EMU_DATA', raising=False)
    with pytest.raises(SystemExit):
        sans.parse(command)
