r"""Checkpoint files, which contain their format and model, are written atomically, and end with a digest.

Checkpoints are loaded with :obj:`weights_only=True`, so a file from an unknown source cannot run code.
"""
from __future__ import annotations

import os
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, Mapping, Optional, Union

import torch

from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import DIGEST_SIZE, Hashing, atomic_write, new_digest, open_regular, reason
from pyg_emu.core.mapped_table import read_in_order
from pyg_emu.training.tables import TABLES, read_tables

FORMAT = 'pyg_emu.training.checkpoint'
#: The version of the format, incremented if older versions of this package cannot read the file.
VERSION = 2

# The digest at the end of a file: a marker followed by hexadecimal digits.
_MARK = b'pyg_emu blake2b '
_TAIL = 2 + len(_MARK) + 2 * DIGEST_SIZE


def model_fingerprint(model: torch.nn.Module, recipe: Optional[str] = None) -> dict[str, Any]:
    r"""Returns the properties that a checkpoint and the model it is loaded into must have in common.

    Args:
        model (torch.nn.Module): The model.
        recipe (str, optional): The hash of the settings that affect training. (default: :obj:`None`)
    """
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {'model': _kind(model), 'shapes': shapes, 'recipe': recipe}


def save_checkpoint(path: Union[str, Path], state: Mapping[str, Any], *, fingerprint: Mapping[str, Any]) -> str:
    r"""Writes a checkpoint atomically. If the process is killed or the disk is full, an existing file is unchanged.

    Args:
        path (str or Path): The path of the file.
        state (dict): Tensors, numbers, strings, and dictionaries and lists of them.
        fingerprint (dict): The result of :func:`model_fingerprint`.

    Returns:
        The digest of the file, which is also at its end.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    # Equal strings become one object, so that the content of the file depends on the values only.
    content = _interned({'format': FORMAT, 'version': VERSION, 'fingerprint': fingerprint, 'state': state})
    digest = ''

    def write(file: IO[bytes]) -> None:
        nonlocal digest
        hashing = Hashing(file)
        torch.save(content, hashing)  # type: ignore[arg-type]
        digest = hashing.digest.hexdigest()
        # A comment at the end of a zip archive, which archive readers skip. Its length precedes it.
        comment = _MARK + digest.encode()
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack('<H', len(comment)) + comment)

    atomic_write(path, write)
    return digest


def load_checkpoint(path: Union[str, Path], *, expected: Optional[Mapping[str, Any]] = None,
                    map_location: Any = 'cpu') -> dict[str, Any]:
    r"""Loads a state written by :func:`save_checkpoint`.

    Args:
        path (str or Path): The path of the file.
        expected (dict, optional): The fingerprint that the checkpoint must have. A value of :obj:`None` in either of
            them matches everything. (default: :obj:`None`)
        map_location (optional): The device of the tensors. (default: :obj:`"cpu"`)

    Raises:
        CheckpointError: If the file does not exist, is truncated or damaged (even by a single bit), is not a checkpoint
            of this package, has a newer version, or belongs to another model or recipe.
    """
    path = Path(path)
    content, digest = _read(path, map_location)
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise CheckpointError(f'{path} is not a checkpoint of pyg_emu: it contains {_describe(content)}; expected a '
                              'file written by save_checkpoint, such as the last.pt or best.pt of a run folder')
    version = content.get('version')
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(f'{path}: expected a checkpoint format up to {VERSION}, got format {version}; upgrade '
                              'pyg_emu to read it')
    if version >= 2 and digest is None:
        raise _damaged(path, 'its digest is missing')
    fingerprint, state = content.get('fingerprint'), content.get('state')
    if not isinstance(state, dict) or not isinstance(fingerprint, dict) or not isinstance(fingerprint.get('shapes'),
                                                                                          dict):
        raise CheckpointError(f'{path} is not a checkpoint of pyg_emu: its state or fingerprint is missing; expected a '
                              'file written by save_checkpoint')
    fault = _fault(fingerprint)
    if fault is not None:
        raise CheckpointError(f'{path} is not a checkpoint of pyg_emu: {fault}; expected a file written by '
                              'save_checkpoint')
    if expected is not None:
        _compare(path, fingerprint, expected)
    return state


def verified_digest(path: Path) -> Optional[str]:
    r"""Returns the digest of a checkpoint after comparing it with the content, or :obj:`None` if the file was written
    by an older version without a digest.

    Raises:
        CheckpointError: If the file cannot be read or the digest does not match the content.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
            length, comment = tail[:2], tail[2:]
            if not comment.startswith(_MARK) or length != struct.pack('<H', len(comment)):
                return None
            file.seek(0)
            digest, left = new_digest(), size - _TAIL
            while left > 0:
                block = file.read(min(left, 1 << 22))
                if not block:
                    break
                digest.update(block)
                left -= len(block)
    except OSError as error:
        raise CheckpointError(f'cannot read the checkpoint {path} ({reason(error)}); expected a file written by '
                              'save_checkpoint') from error
    digest.update(b'\0\0')  # The length of the comment before the comment was added.
    found = comment[len(_MARK):].decode('ascii', errors='replace')
    if digest.hexdigest() != found:
        raise _damaged(path, f'expected the digest {found[:16]}..., got {digest.hexdigest()[:16]}...')
    return found


def load_weights(path: Union[str, Path], model: torch.nn.Module) -> int:
    r"""Loads the weights of a model from a checkpoint. All processes among which entities are divided have to call it.

    Args:
        path (str or Path): The :obj:`best.pt` or :obj:`last.pt` of a run folder.
        model (torch.nn.Module): A model of the same class and size as the saved one. On the device :obj:`"meta"`, it
            gets the tensors of the checkpoint themselves. Rows in memory-mapped files are then read where they are.

    Returns:
        The number of training steps of the weights.

    Raises:
        CheckpointError: See :func:`load_checkpoint`.
    """
    path = Path(path)
    state = load_checkpoint(path, expected=model_fingerprint(model))
    # Copied over one another, they would pass for each other.
    if path.name == 'last.pt' and 'run' not in state and 'metrics' in state:
        raise CheckpointError(f'{path} holds the best weights of a run, those of step {state.get("step")}, as a '
                              'best.pt does, and not the state of its last step; restore last.pt, or evaluate best.pt')
    if path.name == 'best.pt' and 'run' in state:
        raise CheckpointError(f'{path} holds the state of step {state.get("step")} of a run, as a last.pt does, and '
                              'not its best weights; restore best.pt, or evaluate last.pt')
    try:
        state = {**state, **read_tables({key: state[key] for key in ('model', TABLES) if key in state},
                                        path.parent / TABLES, model)}
        with read_in_order(*state['model'].values()):
            model.load_state_dict(state['model'], assign=any(value.is_meta for value in model.parameters()))
        return int(state['step'])
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f'{path} contains no weights of a {_kind(model)} ({reason(error)}); expected the last.pt '
                              'or best.pt of a run folder') from error


def _read(path: Path, map_location: Any) -> tuple[Any, Optional[str]]:
    r"""Returns the content of a file and its digest, if it has one."""
    try:
        with open_regular(path) as file:
            start = file.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f'cannot read the checkpoint {path} ({reason(error)}); expected a file written by '
                              f'save_checkpoint') from error
    if start != b'PK\x03\x04':  # torch.save writes zip archives.
        what = 'is empty' if size == 0 else f'is not a PyTorch file (it starts with {start!r})'
        raise CheckpointError(f'{path} {what}; expected a checkpoint written by pyg_emu')
    digest = verified_digest(path)
    try:
        if digest is None:
            # PyTorch does not verify the checksums of the archive.
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f'the checksum of {damaged} does not match')
        return torch.load(path, map_location=map_location, weights_only=True), digest
    except UnpicklingError as error:
        raise CheckpointError(f'{path} is damaged, or contains Python objects other than tensors and numbers, which '
                              'can run code when loaded; expected a checkpoint written by pyg_emu') from error
    except Exception as error:
        # A damaged or malicious archive may cause any error in zipfile, PyTorch or pickle.
        raise _damaged(path, f'{size:,} bytes; {reason(error)}') from error


def _damaged(path: Path, detail: str) -> CheckpointError:
    return CheckpointError(f'{path} is truncated or damaged ({detail}). Restore the file, use another checkpoint of '
                           'the run, or start over')


def _interned(value: Any) -> Any:
    r"""Returns a copy in which equal strings are one object, and each dictionary and list is a separate object."""
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, OrderedDict):
        copy: Any = OrderedDict((_interned(key), _interned(one)) for key, one in value.items())
        if hasattr(value, '_metadata'):  # The state of a module.
            copy._metadata = _interned(value._metadata)
        return copy
    if isinstance(value, Mapping):
        return {_interned(key): _interned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_interned(one) for one in value]
    if type(value) is tuple and value:
        return tuple(_interned(one) for one in value)
    return value


def _kind(model: torch.nn.Module) -> str:
    # The tables of different models have the same shapes, so a wrapper must name the model in it.
    inner, name = getattr(model, 'model', None), type(model).__name__
    return f'{name}({_kind(inner)})' if isinstance(inner, torch.nn.Module) else name


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        keys = ', '.join(repr(key) for key in list(content)[:4])
        return f'a dictionary with the keys {keys}{", ..." if len(content) > 4 else ""}'
    return f'an object of type {type(content).__name__}'


def _fault(fingerprint: Mapping[str, Any]) -> Optional[str]:
    r"""Returns what is wrong with a fingerprint, or :obj:`None`."""
    for name, shape in fingerprint['shapes'].items():
        if not isinstance(shape, (list, tuple)) or not all(type(size) is int for size in shape):
            return f'fingerprint.shapes holds no shape for {name!r:.50}'
    for key in ('model', 'recipe'):
        if not isinstance(fingerprint.get(key), (str, type(None))):
            return f'fingerprint.{key} is no text'
    return None


def _compare(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if None not in (found.get('model'), expected['model']) and found['model'] != expected['model']:
        raise CheckpointError(f'{path}: expected a checkpoint of a {expected["model"]}, as the model to load it into, '
                              f'got one of a {found["model"]}')
    theirs, ours = found['shapes'], expected['shapes']
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if theirs.get(name) != ours.get(name):
            raise CheckpointError(f'{path}: expected {_shape(ours, name)} for {name!r}, as in the model to load it '
                                  f'into, got {_shape(theirs, name)}; use the data and settings of the checkpoint')
    if None not in (found.get('recipe'), expected['recipe']) and found['recipe'] != expected['recipe']:
        raise CheckpointError(f'{path} was trained with another recipe: expected the hash {expected["recipe"]} of the '
                              f'current settings, got {found["recipe"]}; use the settings in the recipe.yaml of the '
                              'run folder, choose another run folder, or start over')


def _shape(shapes: Mapping[str, Any], name: str) -> str:
    return f'shape {tuple(shapes[name])}' if name in shapes else 'no such tensor'
