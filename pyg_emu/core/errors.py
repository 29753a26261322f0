r"""The exceptions that this package raises. Each message names the error, its location and the expected value."""
from __future__ import annotations


class PygEmuError(Exception):
    r"""Base class of all errors. The command line prints the message without a traceback and exits with code 2."""


class DataError(PygEmuError, ValueError):
    r"""Raised for invalid triples, files or ids."""


class ArgumentError(PygEmuError, ValueError):
    r"""Raised for an argument outside its domain."""


class RecipeError(PygEmuError, ValueError):
    r"""Raised for an invalid recipe or command line flag."""


class CheckpointError(PygEmuError, RuntimeError):
    r"""Raised for a checkpoint that cannot be read or written, or that belongs to a different run."""


class DivergenceError(PygEmuError, ArithmeticError):
    r"""Raised if a loss or a score becomes NaN or infinite."""


class BackendError(PygEmuError, RuntimeError):
    r"""Raised if the requested operator backend is not available on this machine."""


class OutOfMemoryError(PygEmuError, MemoryError):
    r"""A computation that does not fit into the available memory, not even in the smallest parts."""


class ProcessError(PygEmuError, RuntimeError):
    r"""Raised if another process of a job has ended or cannot be reached."""


class RecipeWarning(UserWarning):
    r"""Warns about a setting of a recipe that has no effect."""


class DataWarning(UserWarning):
    r"""Warns about valid but suspicious data, such as duplicates, unseen entities or empty relations."""
