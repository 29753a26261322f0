r"""Recording and reading of benchmark results.

Each run is one JSON file under ``benchmarks/results`` with the command, the commit, the seed, the machine, the
versions, the date and the metrics. The files contain no local paths.

.. code-block:: python

    from benchmarks._record import read_results, write_result

    write_result('umls/distmult_emu_seed0', {'mrr': 0.9, 'seconds': 12.3}, seed=0)
    for result in read_results('umls/*'):
        print(result['name'], result['metrics']['mrr'])
"""
from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional, Sequence, Union

#: The root of the repository.
ROOT = Path(__file__).resolve().parent.parent
#: The folder of the results, one JSON file per run.
RESULTS = ROOT / 'benchmarks' / 'results'

_PACKAGES = ('torch', 'torch_geometric', 'numba', 'numpy', 'scipy', 'pandas', 'triton', 'torch_scatter', 'pykeen',
             'pyg_emu')
# Generated files. Rewriting them during a series of runs does not count as an uncommitted change of the code.
_NOT_CODE = (':!benchmarks/results', ':!*.md')
# The entries that hold settings of recipes, which may be infinite.
_SETTINGS = ('recipe', 'base', 'space', 'trials')
_INFINITIES = {'.inf': float('inf'), '-.inf': float('-inf')}
_ABSOLUTE_PATH = re.compile(r'(?<![\w./$}~])/(?!/)[^\s:,;=\'"]+')


def write_result(
    name: str,
    metrics: Mapping[str, Any],
    *,
    seed: Optional[int] = None,
    command: Union[str, Sequence[str], None] = None,
    folder: Union[str, Path] = RESULTS,
) -> Path:
    r"""Writes a result atomically and replaces an existing file of the same name.

    Args:
        name (str): The name of the file without suffix. A slash creates a subfolder.
        metrics (Mapping[str, Any]): The metrics: numbers, strings, and lists and mappings of them. NumPy and PyTorch
            values are converted. NaN and infinity raise an error, but for infinite settings of recipes.
        seed (int, optional): The seed of the run. (default: :obj:`None`)
        command (str or Sequence[str], optional): The command of the run. (default: the current command)
        folder (str or Path, optional): The output folder. (default: ``benchmarks/results``)

    Raises:
        ValueError: If a metric is NaN or infinite, or the name is outside the folder.
    """
    path = Path(folder) / f'{name}.json'
    if '..' in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f'name: expected a relative name inside the folder, got {name!r}')
    result = {
        'name': name,
        'command': command_line(command),
        'commit': git_commit(),
        'seed': seed,
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'machine': machine(),
        'versions': versions(),
        'metrics': _portable(metrics),
    }
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + '\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    # A temporary file in the same folder is renamed, so readers see either the old or the new result.
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    return path


def read_result(name: str, folder: Union[str, Path] = RESULTS) -> dict[str, Any]:
    r"""Reads the result :obj:`name`.

    Raises:
        FileNotFoundError: If the result does not exist.
    """
    return _read(Path(folder) / f'{name}.json')


def read_results(pattern: str = '**/*', folder: Union[str, Path] = RESULTS) -> list[dict[str, Any]]:
    r"""Reads all results whose name matches the glob :obj:`pattern`, sorted by name."""
    paths = sorted(Path(folder).glob(f'{pattern}.json'))
    return [_read(path) for path in paths]


def as_recorded(metrics: Mapping[str, Any]) -> Any:
    r"""Returns metrics as :func:`read_result` returns them."""
    return _with_infinities(json.loads(json.dumps(_portable(metrics))))


def _read(path: Path) -> Any:
    return _with_infinities(json.loads(path.read_text(encoding='utf-8')))


def lookup(values: Any, key: str) -> Any:
    r"""Returns the value of a key with dots for nested mappings, or :obj:`None` if there is none."""
    for part in key.split('.'):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def spread(values: Iterable[float]) -> tuple[float, float]:
    r"""Returns the mean and the sample standard deviation, which is zero for a single value."""
    numbers = list(values)
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0


def command_line(command: Union[str, Sequence[str], None] = None) -> str:
    r"""Returns the command as run from the root of the repository: the data folder is ``$PYG_EMU_DATA``, paths in the
    repository are relative, and other absolute paths are reduced to their last component.
    """
    if isinstance(command, str):
        return _without_paths(command)
    if command is None:
        spec = getattr(sys.modules['__main__'], '__spec__', None)
        start = ['python', '-m', spec.name.removesuffix('.__main__')] if spec else ['python', sys.argv[0]]
        command = [*start, *sys.argv[1:]]
    return ' '.join(_quote(_without_paths(str(argument))) for argument in command)


def git_commit() -> dict[str, Any]:
    r"""Returns the commit of the code and whether it has uncommitted changes. Without git or a history, as in a copy of
    the working tree, the environment variable ``PYG_EMU_COMMIT`` sets the commit.
    """
    try:
        commit = _git('rev-parse', 'HEAD').strip()
        dirty = bool(_git('status', '--porcelain', '--', '.', *_NOT_CODE).strip())
    except (OSError, subprocess.CalledProcessError):
        return {'hash': os.environ.get('PYG_EMU_COMMIT'), 'dirty': None}
    return {'hash': commit, 'dirty': dirty}


def machine() -> dict[str, Any]:
    r"""Returns the processor, the number of usable cores and of threads, the system and the GPU, if available."""
    import torch

    facts: dict[str, Any] = {
        'cpu': _cpu_model(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'threads': torch.get_num_threads(),
        'system': f'{platform.system()} {platform.machine()}',
        'gpu': None,
    }
    if torch.cuda.is_available():
        facts['gpu'] = torch.cuda.get_device_name()
        facts['cuda'] = torch.version.cuda
    return facts


def versions() -> dict[str, str]:
    r"""Returns the versions of Python and of the installed packages that may affect a result."""
    found = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str:
    return subprocess.run(['git', *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _cpu_model() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _without_paths(text: str) -> str:
    return _ABSOLUTE_PATH.sub(lambda match: _portable_path(match.group()), text)


def _portable_path(text: str) -> str:
    path = Path(text)
    data = os.environ.get('PYG_EMU_DATA')
    if data and path.is_relative_to(data):
        return str(Path('$PYG_EMU_DATA') / path.relative_to(data))
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    if (path / 'train.txt').is_file():
        return f'$PYG_EMU_DATA/{path.name}'
    return path.name or '/'


def _quote(argument: str) -> str:
    # shlex.quote would prevent the expansion of the variable.
    if argument.startswith('$PYG_EMU_DATA'):
        rest = argument.removeprefix('$PYG_EMU_DATA')
        return argument if shlex.quote(rest) in (rest, "''") else f'"{argument}"'
    return argument if '=$PYG_EMU_DATA' in argument else shlex.quote(argument)


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_infinities(_portable(entry)) if key in _SETTINGS else _portable(entry)
                for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(entry) for entry in value]
    if isinstance(value, (str, Path)):
        return _without_paths(str(value))
    if hasattr(value, 'tolist'):  # NumPy and PyTorch scalars and arrays.
        return value.tolist()
    return value


def _without_infinities(settings: Any) -> Any:
    r"""Settings with infinities written as in YAML, since JSON has none."""
    if isinstance(settings, dict):
        return {key: _without_infinities(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_infinities(value) for value in settings]
    return next((text for text, number in _INFINITIES.items() if settings == number), settings)


def _with_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_infinities(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_infinities(entry) for entry in value]
    return _INFINITIES.get(value, value) if isinstance(value, str) else value
