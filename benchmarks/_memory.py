r"""Peak memory of training steps, measured in a separate process for each contender.

.. code-block:: bash

    python -m benchmarks._memory --model distmult --contender emu_triple --negatives 256    # prints one line of JSON

The Linux kernel tracks the peak resident set size, which includes all allocations of PyTorch, Numba and NumPy. The
result is the increase of the peak after all code is loaded and compiled. It excludes embeddings, gradients and
optimizer state, which all contenders need.
"""
from __future__ import annotations

import argparse
import ctypes
import gc
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Callable, Sequence

from benchmarks._contenders import CONTENDERS, MODELS, Setting, generate
from benchmarks._record import ROOT

_STEPS = 3


def measure(model: str, contender: str, num_negatives: int, sizes: Sequence[str] = ()) -> int:
    r"""Measures the peak memory of a contender's steps in bytes, in a separate process.

    Args:
        model (str): The model.
        contender (str): One of :data:`~benchmarks._contenders.CONTENDERS`.
        num_negatives (int): The number of negatives per triple.
        sizes (Sequence[str]): Additional arguments of :func:`main`. (default: the sizes of FB15k-237)
    """
    command = [sys.executable, '-m', 'benchmarks._memory', '--model', model, '--contender', contender, '--negatives',
               str(num_negatives), *sizes]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])['peak_bytes'])


def peak_bytes(contender: str, setting: Setting) -> int:
    r"""Measures the peak memory of training steps in bytes in this process, which should be new."""
    tiny = Setting(setting.model, generate(10, 2, 40), batch_size=4, num_negatives=2, channels=setting.channels)
    step = CONTENDERS[contender](tiny)
    for _ in range(2):
        step()
    # Adagrad has one state tensor per table.
    held = 3 * sum(weight.nbytes for weight in setting.make_model().parameters())
    del step

    def steps() -> None:
        step = CONTENDERS[contender](setting)
        for _ in range(_STEPS):
            step()

    return max(peak_rise(steps) - held, 0)


def peak_rise(work: Callable[[], object]) -> int:
    r"""Measures by how many bytes a function increases the peak resident memory."""
    gc.collect()
    _return_free_memory()
    before = _resident('VmRSS')
    reset = _reset_peak()
    work()
    # Without a reset, the peak covers the whole process, which should have used little memory before.
    peak = _resident('VmHWM') if reset else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(peak - before, 0)


def _return_free_memory() -> None:
    try:
        ctypes.CDLL('libc.so.6').malloc_trim(0)
    except (OSError, AttributeError):  # The C library is not glibc.
        pass


def _reset_peak() -> bool:
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return False
    return True


def _resident(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'/proc/self/status: expected a line {field}, got none')


def main() -> None:
    r"""Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', choices=MODELS, default='distmult')
    parser.add_argument('--contender', choices=CONTENDERS, default='emu_triple')
    parser.add_argument('--negatives', type=int, default=256)
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--entities', type=int, default=14541)
    parser.add_argument('--relations', type=int, default=237)
    parser.add_argument('--facts', type=int, default=272115)
    arguments = parser.parse_args()
    data = generate(arguments.entities, arguments.relations, arguments.facts)
    setting = Setting(arguments.model, data, arguments.batch_size, arguments.negatives, arguments.channels)
    print(json.dumps({'peak_bytes': peak_bytes(arguments.contender, setting)}))


if __name__ == '__main__':
    main()
