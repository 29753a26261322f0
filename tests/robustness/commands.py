r"""The command line in this process, for tests that call it a thousand times."""
from __future__ import annotations

import contextlib
import io
import warnings
from typing import NamedTuple

from pyg_emu.experiments.cli.main import main


class Outcome(NamedTuple):
    r"""What a command has come to."""
    code: int
    output: str
    errors: str

    @property
    def refused(self) -> bool:
        r"""Whether the command has refused its input, with one sentence."""
        return self.code == 2


def command(*arguments: str) -> Outcome:
    r"""Runs a command, and checks that it ends as each command has to: with exit code 0, or with 2 and one sentence."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        try:
            code = main(arguments)
        except SystemExit as leaving:  # of argparse
            code = leaving.code if isinstance(leaving.code, int) else 1
    outcome = Outcome(code, output.getvalue(), errors.getvalue())
    assert outcome.code in (0, 2), outcome
    assert 'Traceback' not in outcome.errors, outcome
    if outcome.refused:
        # argparse prints the usage before it, and warnings have lines of their own.
        last = outcome.errors.strip().splitlines()[-1]
        assert 'error: ' in last and last.partition('error: ')[2].strip(), outcome
    return outcome
