r"""The command line :obj:`pyg-emu`: its commands, its warnings and errors, and its exit codes.

Commands import their modules when they run, so that :obj:`--help` responds at once.
"""
from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from typing import Optional, Sequence, TextIO, Union

from pyg_emu import __version__
from pyg_emu.core.cores import limit_threads
from pyg_emu.core.errors import PygEmuError
from pyg_emu.core.files import reason
from pyg_emu.experiments.cli.advice import in_flags
from pyg_emu.experiments.cli.bench import add_bench
from pyg_emu.experiments.cli.data import add_data
from pyg_emu.experiments.cli.diff import add_diff
from pyg_emu.experiments.cli.evaluate import add_evaluate
from pyg_emu.experiments.cli.explain import add_explain
from pyg_emu.experiments.cli.options import Formatter, Parser, make_working_directory_importable, one_line
from pyg_emu.experiments.cli.predict import add_predict
from pyg_emu.experiments.cli.recipes import add_recipes
from pyg_emu.experiments.cli.report import add_report
from pyg_emu.experiments.cli.scores import add_scores
from pyg_emu.experiments.cli.train import add_train
from pyg_emu.experiments.cli.tune import add_tune
from pyg_emu.experiments.cli.vectors import add_vectors
from pyg_emu.experiments.cli.warmup import add_warmup

#: Where errors of the package itself are reported.
_REPORTS = 'the issue tracker of the project'

_OVERVIEW = """\
Train and use knowledge graph embeddings with embedding mutation (EMU).

examples:
  pyg-emu train --dataset UMLS --run-dir runs/umls
  pyg-emu evaluate --run runs/umls --split test
  pyg-emu predict --run runs/umls --head virus --relation causes -k 5
  pyg-emu score --run runs/umls --input facts.tsv
  pyg-emu calibrate --run runs/umls
  pyg-emu classify --run runs/umls
  pyg-emu export --run runs/umls --output entities.parquet
  pyg-emu neighbors --run runs/umls --entity virus
  pyg-emu tune --recipe distmult-umls-emu --study runs/tune/umls
  pyg-emu data path/to/folder
  pyg-emu diff runs/umls runs/umls-seed1
  pyg-emu report runs/umls
  pyg-emu recipes list
  pyg-emu warmup
  pyg-emu bench
"""
#: In the order in which --help lists them.
_COMMANDS = (add_train, add_evaluate, add_predict, add_explain, add_scores, add_vectors, add_tune, add_data, add_diff,
             add_report, add_warmup, add_bench, add_recipes)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    r"""Runs a command.

    Args:
        arguments (list of str, optional): The command and its flags. (default: those of the process)

    Returns:
        0; 2 if the input could not be used, after one line on standard error; 130 if it was interrupted; 1 after an
        error that this package did not foresee, whose traceback is in a file.
    """
    make_working_directory_importable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # labels that an ASCII terminal cannot show do not end the command
            stream.reconfigure(errors='backslashreplace')
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as leaving:  # after --help, or a usage error
        code = _flush()
        raise leaving if code is None else SystemExit(code) from None
    except OSError as error:  # of --help
        return _unwritten(error)
    limit_threads()
    code = _run(options)
    unwritten = _flush()
    return code if code != 0 or unwritten is None else unwritten


def _run(options: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            options.command(options)
        except PygEmuError as error:
            return _fail(in_flags(str(error)))
        except KeyboardInterrupt as error:
            print(one_line(f'{_speaker()}: {str(error) or "interrupted"}'), file=sys.stderr)
            return 130
        except OSError as error:  # a name that is too long, a folder that may not be read, a full disk
            unwritten = _flush()
            if unwritten is not None or isinstance(error, BrokenPipeError):
                return unwritten or 0
            name = '' if error.filename is None else f'{str(error.filename):.100}: '
            return _fail(f'{name}{error.strerror or error}')
        except Exception as error:
            if _is_out_of_memory(error):
                return _fail(f'there is not enough memory ({reason(error)}); choose a smaller batch size, fewer '
                             'negatives or fewer channels')
            return _unforeseen(error)
    return 0


def _flush() -> Optional[int]:
    r"""Writes what is left of the output. The exit code if it cannot be written, or :obj:`None`."""
    try:
        if sys.stdout is not None:  # as after `>&-`
            sys.stdout.flush()
        return None
    except OSError as error:
        # Python would try once more when it ends, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _unwritten(error)


def _unwritten(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):  # the reader, such as head, has seen enough
        return 0
    return _fail(f'the output cannot be written completely ({error.strerror or error})')


def _fail(message: str) -> int:
    print(one_line(f'{_speaker()}: error: {message}'), file=sys.stderr)
    return 2


def _is_out_of_memory(error: Exception) -> bool:
    return (isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError'
            or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)))


def _unforeseen(error: Exception) -> int:
    r"""The last resort: one line, and the traceback in a file."""
    import tempfile
    import traceback

    told = f'{type(error).__name__}: {error}'.splitlines()[0]
    try:
        with tempfile.NamedTemporaryFile('w', prefix='pyg-emu-', suffix='.log', delete=False, encoding='utf-8',
                                         errors='backslashreplace') as file:
            file.write(f'pyg-emu {__version__}, Python {sys.version}\n{" ".join(sys.argv)}\n\n')
            traceback.print_exception(error, file=file)
        where = f'the traceback is in {file.name}'
    except OSError:
        where = 'its traceback could not be written to a file'
    print(f'{_speaker()}: internal error: {told:.200}; {where}. Please report it, with this file, at {_REPORTS}',
          file=sys.stderr)
    return 1


def _show_warning(message: Union[Warning, str], category: type[Warning], filename: str, lineno: int,
                  file: Optional[TextIO] = None, line: Optional[str] = None) -> None:
    if not _speaker().endswith(']'):  # the first process warns of the same
        print(one_line(f'pyg-emu: warning: {in_flags(str(message))}'), file=sys.stderr)


def _speaker() -> str:
    r"""The prefix of messages. The processes of :obj:`torchrun` after the first one add their rank."""
    rank, world = (os.environ.get(name, '0') for name in ('RANK', 'WORLD_SIZE'))
    return 'pyg-emu' if rank == '0' or world in ('0', '1') else f'pyg-emu [process {rank}]'


def _parser() -> argparse.ArgumentParser:
    parser = Parser('pyg-emu', description=_OVERVIEW, formatter_class=Formatter)
    parser.add_argument('--version', action='version', version=f'pyg-emu {__version__}')
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')
    for add in _COMMANDS:
        add(commands)
    return parser
