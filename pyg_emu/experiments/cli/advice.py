r"""Advice of the package in the language of the command line."""
from __future__ import annotations

import ast
import re
from typing import Any

#: Python arguments that have a flag of their own, and the flag.
_FLAGS = {'require_splits': '--require-splits', 'resume': '--fresh', 'overwrite': '--overwrite', 'device': '--device',
          'other_facts': '--other-facts', 'num_steps': '--steps', 'batch_size': '--batch-size', 'projection': '--map',
          'patience': '--patience', 'optimizer_state': '--optimizer-state', 'table': '--table', 'query': '--query'}
#: Python arguments that are settings of a recipe: options of the readers of data, and others.
_READER = ('delimiter', 'header', 'comment', 'extra_files', 'fractions', 'seed', 'head', 'relation', 'tail', 'split',
           'weights', 'format', 'part', 'literals', 'blank_nodes', 'graphs', 'prefixes')
_SETTINGS = {**{name: f'dataset.{name}' for name in _READER}, 'graph': 'graph', 'sparse': 'model.sparse'}
_VALUE = r'(\((?:[^()]*)\)|\[[^\]]*\]|\'[^\']*\'|"[^"]*"|[\w.+-]*\w)'


def in_flags(message: str) -> str:
    r"""A message that names arguments of Python functions, such as :obj:`projection:` at its beginning,
    :obj:`require_splits=('train',)` or, without a value, :obj:`head=`, with flags in their place.

    Args:
        message (str): The message of an error or a warning.
    """
    message = re.sub(rf'\b({"|".join((*_FLAGS, *_SETTINGS))})=(?:{_VALUE}|(?=[\s,;]|$))', _flag, message)
    # The argument that is wrong comes first.
    named = '|'.join(name for name in _FLAGS if name != 'resume')
    message = re.sub(rf'^({named}): ', lambda found: f'{_FLAGS[found[1]]}: ', message)
    # A command has no tensors. Its ids are numbers, and it reads those as labels where the graph has labels.
    return message.replace('; ids are given as a tensor', '')


def _flag(match: re.Match) -> str:
    name, text = match[1], match[2]
    # `--set dataset.header=true` is in the language of the command line already.
    if match.string[:match.start()].endswith(('.', '-', '--set ')):
        return match[0]
    if text is None:
        return _FLAGS[name] if name in _FLAGS else f'--set {_SETTINGS[name]}='
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
    return f'{_FLAGS[name]} {value}' if name in _FLAGS else f'--set {_quoted(f"{_SETTINGS[name]}={_yaml(value)}")}'


def _yaml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_yaml, value))}]'
    return str(value).lower() if isinstance(value, bool) else 'null' if value is None else str(value)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r'[\w.=/+-]*', text) else f'"{text}"'
