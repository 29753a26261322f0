r"""Settings that all tests share: cached kernels, one thread, the same examples in every run."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

# Before anything imports PyTorch or Numba, which read these once.
os.environ.setdefault('NUMBA_CACHE_DIR', str(Path(__file__).resolve().parent.parent / '.cache' / 'numba'))
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch
from hypothesis import settings

from tests.robustness.cases import case_count
from tests.robustness.report import Report

if not torch.cuda.is_available():
    # Triton's kernels then run on the CPU, slowly. Read when Triton is imported, by whomever.
    os.environ.setdefault('TRITON_INTERPRET', '1')

settings.register_profile('reproducible', deadline=None, derandomize=True, database=None)
settings.load_profile('reproducible')


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    r"""What ``-n auto`` means: a worker for each core, and none for a single file, which starts sooner without."""
    paths = [Path(argument.partition('::')[0]) for argument in config.args]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return 0 if cores == 1 or len(set(paths)) == 1 and paths[0].is_file() else cores


#: Random cases of each kind that are compared with independent references, of :obj:`--robustness-cases 1`.
REFERENCE_CASES = 600

#: The rooms whose tests compile kernels, and by what the kernels of an operator differ most.
_COMPILING = ('ops', 'models', 'negatives', 'losses', 'evaluation', 'training')
_KINDS = {'emu_score': 'interaction', 'rank_counts': 'interaction', 'relational': 'message'}


def _compiling_group(item: pytest.Item) -> Optional[str]:
    r"""The tests that compile the same kernels: of an operator, those of one kind; elsewhere, those of a file."""
    file = item.nodeid.partition('::')[0]
    if file.split('/')[1] not in _COMPILING:
        return None
    operator = item.path.parent.name
    params = item.callspec.params if hasattr(item, 'callspec') else {}
    kind = params.get(_KINDS.get(operator))
    return file if kind is None else f'{operator}-{getattr(kind, "name", kind)}'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--robustness-cases', type=float, default=0.01, metavar='SHARE',
                     help='the share of the cases of "make robustness" that are tried: above 0, 1 for all of them')
    parser.addoption('--robustness-seed', type=int, default=0, metavar='SEED', help='the seed that draws them')
    parser.addoption('--robustness-report', type=Path, metavar='FILE',
                     help='write the number of cases, seconds and failures to a JSON file')


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption('--robustness-report')
    if path is not None and not hasattr(config, 'workerinput'):  # workers report to the process that started them
        config.pluginmanager.register(Report(path))


def pytest_report_header(config: pytest.Config) -> str:
    return (f'robustness: a share of {config.getoption("--robustness-cases"):g} of the cases, '
            f'seed {config.getoption("--robustness-seed")}')


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'robustness_seed' in metafunc.fixturenames:
        first, share = (metafunc.config.getoption(f'--robustness-{name}') for name in ('seed', 'cases'))
        # Neighbouring seeds of a session draw other cases.
        number = case_count(REFERENCE_CASES, share)
        metafunc.parametrize('robustness_seed', range(REFERENCE_CASES * first, REFERENCE_CASES * first + number))


# First, since pytest-xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # One worker takes a whole group, or else two would compile the same kernels at once.
        group = _compiling_group(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker('gpu') and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))


@pytest.fixture
def graph_folder(tmp_path: Path) -> Path:
    r"""A folder :obj:`graph` of small random facts: 100 to train on, 15 for validation, the others for the test."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(high, (150, ), generator=generator) for high in (12, 3, 12)]
    facts = torch.unique(torch.stack(columns, 1), dim=0)
    facts = facts[torch.randperm(len(facts), generator=generator)].tolist()
    folder = tmp_path / 'graph'
    folder.mkdir()
    for split, rows in (('train', facts[:100]), ('valid', facts[100:115]), ('test', facts[115:])):
        lines = [f'e{head}\tr{relation}\te{tail}\n' for head, relation, tail in rows]
        (folder / f'{split}.txt').write_text(''.join(lines))
    return folder
