r"""Checkpoints: one file that says what it is, whose model it holds, and that is never half written.

A checkpoint is read with :obj:`weights_only=True`: opening a file from a stranger runs none of the stranger's code.
"""
from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Mapping, Optional, Union

import torch

from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import atomic_write

FORMAT = 'pyg_emu.training.checkpoint'
#: Raised by one whenever an older version of this package could not make sense of the file.
VERSION = 1


def model_fingerprint(model: torch.nn.Module, recipe: Optional[str] = None) -> dict[str, Any]:
    r"""What a checkpoint must have in common with the model it is loaded into.

    Args:
        model (torch.nn.Module): The model.
        recipe (str, optional): Hash of the settings that decide the course of training. (default: :obj:`None`)
    """
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {'model': _kind(model), 'shapes': shapes, 'recipe': recipe}


def save_checkpoint(path: Union[str, Path], state: Mapping[str, Any], *, fingerprint: Mapping[str, Any]) -> None:
    r"""Writes a checkpoint atomically: a kill or a full disk leaves the file that was there before.

    Args:
        path (str or Path): The file to write.
        state (dict): Tensors, numbers, strings, and dictionaries and lists of them.
        fingerprint (dict): What :func:`model_fingerprint` returns.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    content = {'format': FORMAT, 'version': VERSION, 'fingerprint': dict(fingerprint), 'state': dict(state)}
    atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Union[str, Path], *, expected: Optional[Mapping[str, Any]] = None,
                    map_location: Any = 'cpu') -> dict[str, Any]:
    r"""Reads the state that :func:`save_checkpoint` wrote.

    Args:
        path (str or Path): The file to read.
        expected (dict, optional): A fingerprint that the checkpoint's must agree with. Where either says :obj:`None`,
            it agrees with everything. (default: :obj:`None`)
        map_location (optional): Where the tensors go. (default: :obj:`"cpu"`)

    Raises:
        CheckpointError: If there is no such file, if it is truncated, no checkpoint of this package, or from a newer
            version of it, or if it belongs to another model or recipe.
    """
    path = Path(path)
    content = _read(path, map_location)
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise CheckpointError(f'{path} is not a checkpoint of pyg_emu: it holds {_describe(content)}. Expected a file '
                              f'written by save_checkpoint, such as the last.pt or best.pt of a run folder')
    version = content.get('version')
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(f'{path} has checkpoint format {version}, and this version of pyg_emu reads formats up '
                              f'to {VERSION}; upgrade pyg_emu to read it')
    if expected is not None:
        _compare(path, content['fingerprint'], expected)
    state: dict[str, Any] = content['state']
    return state


def load_weights(path: Union[str, Path], model: torch.nn.Module) -> int:
    r"""Loads the model out of a checkpoint.

    Args:
        path (str or Path): The :obj:`best.pt` or :obj:`last.pt` of a run folder.
        model (torch.nn.Module): A model of the class and size that was saved.

    Returns:
        The number of steps it was trained for.

    Raises:
        CheckpointError: As :func:`load_checkpoint` does.
    """
    state = load_checkpoint(path, expected=model_fingerprint(model))
    model.load_state_dict(state['model'])
    return int(state['step'])


def _read(path: Path, map_location: Any) -> Any:
    try:
        with open(path, 'rb') as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f'cannot read the checkpoint {path} ({error.strerror}); expected a file written by '
                              f'save_checkpoint') from error
    size = path.stat().st_size
    if start != b'PK\x03\x04':  # what torch.save writes is a zip archive
        what = 'is empty' if size == 0 else f'is no PyTorch file (it starts with {start!r})'
        raise CheckpointError(f'{path} {what}; expected a checkpoint written by pyg_emu')
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(f'{path} holds Python objects other than tensors and numbers; such files can run code '
                              f'when they are opened, and pyg_emu writes and reads none') from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f'{path} is truncated or damaged ({size:,} bytes; {str(error).splitlines()[0]}). Go back '
                              f'to another checkpoint of the run, or remove the file to start anew') from error


def _kind(model: torch.nn.Module) -> str:
    # Tables of different models have the same shapes, so that a wrapper has to say what is in it.
    inner, name = getattr(model, 'model', None), type(model).__name__
    return f'{name}({_kind(inner)})' if isinstance(inner, torch.nn.Module) else name


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        keys = ', '.join(repr(key) for key in list(content)[:4])
        return f'a dictionary with the keys {keys}{", ..." if len(content) > 4 else ""}'
    return f'an object of type {type(content).__name__}'


def _compare(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if None not in (found['model'], expected['model']) and found['model'] != expected['model']:
        raise CheckpointError(f'{path} holds a {found["model"]}, but the model to load it into is a '
                              f'{expected["model"]}')
    theirs, ours = found['shapes'], expected['shapes']
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if theirs.get(name) != ours.get(name):
            raise CheckpointError(f'{path} belongs to a model of another size: {name!r} has {_shape(theirs, name)}, '
                                  f'that of the model to load it into has {_shape(ours, name)}; '
                                  'take the data and the settings that it was trained with')
    if None not in (found['recipe'], expected['recipe']) and found['recipe'] != expected['recipe']:
        raise CheckpointError(f'{path} was trained by another recipe (its settings hash to {found["recipe"]}, the '
                              f'present ones to {expected["recipe"]}). Continue with the settings in the run folder\'s '
                              f'recipe.yaml, choose another run folder, or start over')


def _shape(shapes: Mapping[str, Any], name: str) -> str:
    return f'shape {tuple(shapes[name])}' if name in shapes else 'no such tensor'
