r"""Advice of the package in the language of the command line."""
from __future__ import annotations

import ast
import re
from typing import Any

#: Python arguments that have a flag of their own, and the flag.
_FLAGS = {'require_splits': '--require-splits', 'resume': '--fresh', 'overwrite': '--overwrite', 'device': '--device',
          'other_facts': '--other-facts', 'num_steps': '--steps', 'batch_size': '--batch-size',
          'patience': '--patience'}
#: Options of the readers of data, which are settings of a recipe.
_READER = ('delimiter', 'header', 'comment', 'extra_files', 'fractions', 'seed', 'head', 'relation', 'tail', 'split',
           'weights', 'format', 'part', 'literals', 'blank_nodes', 'graphs', 'prefixes')
_VALUE = r'(\((?:[^()]*)\)|\[[^\]]*\]|\'[^\']*\'|"[^"]*"|[\w.+-]*\w)'


def in_flags(message: str) -> str:
    r"""A message whose advice names arguments of Python functions, such as :obj:`require_splits=('train',)`, with flags
    in their place.

    Args:
        message (str): The message of an error.
    """
    return re.sub(rf'\b({"|".join((*_FLAGS, *_READER))})={_VALUE}', _flag, message)


def _flag(match: re.Match) -> str:
    name, text = match[1], match[2]
    # `--set dataset.header=true` is in the language of the command line already.
    if match.string[:match.start()].endswith(('.', '-', '--set ')):
        return match[0]
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return match[0]
    if name == 'resume':
        return '--fresh' if value is False else match[0]
    if name in ('overwrite', 'other_facts'):
        return _FLAGS[name] if value is True else match[0]
    if name == 'require_splits':
        return f'--require-splits {",".join(value)}'
    return f'{_FLAGS[name]} {text}' if name in _FLAGS else f'--set {_quoted(f"dataset.{name}={_yaml(value)}")}'


def _yaml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_yaml, value))}]'
    return str(value).lower() if isinstance(value, bool) else 'null' if value is None else str(value)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r'[\w.=/+-]*', text) else f'"{text}"'
