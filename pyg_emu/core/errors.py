r"""The exceptions a user of this package may meet. Each message names what is wrong, where, and what would be right."""
from __future__ import annotations


class PygEmuError(Exception):
    r"""Base class. The command line prints its message without a traceback and exits with code 2."""


class DataError(PygEmuError, ValueError):
    r"""Facts, files or ids that cannot be used."""


class ArgumentError(PygEmuError, ValueError):
    r"""An argument outside of its domain."""


class RecipeError(PygEmuError, ValueError):
    r"""A recipe or flag that cannot be understood."""


class CheckpointError(PygEmuError, RuntimeError):
    r"""A checkpoint that cannot be read, or that belongs to something else."""


class DivergenceError(PygEmuError, ArithmeticError):
    r"""A loss or a score that became NaN or infinite."""


class BackendError(PygEmuError, RuntimeError):
    r"""An operator backend that was asked for and cannot run here."""


class DataWarning(UserWarning):
    r"""Facts that are usable but suspicious: duplicates, unseen entities, empty relations."""
