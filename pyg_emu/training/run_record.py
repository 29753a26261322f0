r"""A description of the actual parts of a run, which is the content of :obj:`run.json`."""
from __future__ import annotations

import inspect
import math
import re
from typing import Any, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.data.fingerprints import facts_entry
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.models.sharded import sharded_tables
from pyg_emu.negatives.transform import parts_of
from pyg_emu.ops.backend import last_backend
from pyg_emu.training.schedules import IMPLEMENTATION

#: The arguments of a model that select an implementation, with equal steps.
_MODEL_IMPLEMENTATION = ('sparse', 'checkpointing')
#: The packages whose models keep what they were made with.
_LIBRARIES = ('pyg_emu', 'torch', 'torch_geometric')
#: The operators whose backends are recorded.
_OPERATORS = ('emu_score', 'emu_loss', 'mix_partners', 'random_words', 'relational', 'basis_sum', 'rank_counts',
              'row_linear', 'row_update', 'searchsorted')


def describe_run(model: torch.nn.Module, criterion: Any, loader: Any, optimizer: Optimizer, schedule: Any,
                 settings: dict[str, Any], facts: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
    r"""Describes the parts of a run as plain values.

    Args:
        model (torch.nn.Module): The model.
        criterion (callable): The loss.
        loader (TripletLoader): The loader.
        optimizer (torch.optim.Optimizer): The optimiser, before its first step.
        schedule (Schedule): The schedule.
        settings (dict): The settings of the trainer.
        facts (dict, optional): The result of :func:`describe_facts`. (default: :obj:`None`, they are not described)
    """
    data = getattr(loader, 'data', None)
    sizes = {name: getattr(data, name, None) for name in ('num_nodes', 'num_relations')}
    weights = list(model.parameters())
    elsewhere = sum((table.num_rows - table.rows.size(0)) * table.rows.size(1) for table in sharded_tables(model))
    negatives = [part for part in parts_of(loader).values() if hasattr(part, 'sampler') or hasattr(part, 'mutation')]
    own_options = _options(model, of_libraries=False)
    return {
        'model': {'class': _class(model), 'parameters': sum(value.numel() for value in weights) + elsewhere,
                  'dtype': str(weights[0].dtype).removeprefix('torch.'), 'options': _options(model, of_libraries=True),
                  **({'own_options': own_options} if own_options else {})},
        'criterion': _described(criterion),
        'negatives': _described(negatives[0] if negatives else None),
        'optimizer': describe_optimizer(optimizer),
        'schedule': _described(schedule),
        'data': {**{name: size for name, size in sizes.items() if size is not None},
                 **({} if facts is None else {'facts': facts})},
        'trainer': {'batch_size': getattr(loader, 'batch_size', None), **settings},
    }


def describe_facts(loader: Any) -> Optional[dict[str, Any]]:
    r"""Describes the facts that a loader draws from by their number and fingerprint, in an entry for its split, or
    returns :obj:`None` for a loader without a :class:`~pyg_emu.KGData`. It sorts the facts once.

    Args:
        loader (TripletLoader): The loader.
    """
    data, split = getattr(loader, 'data', None), getattr(loader, 'split', None)
    if not isinstance(data, KGData) or split not in (*SPLITS, 'all'):
        return None
    return {split: facts_entry(data, split)}


def describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    r"""Describes an optimiser: its class and the options of its parameter groups, including PyTorch's defaults such as
    :obj:`fused` and :obj:`foreach`. The learning rate is the one before the first step.
    """
    groups = [{name: _plain(group.get('initial_lr', value) if name == 'lr' else value)
               for name, value in group.items() if name not in ('params', 'initial_lr')}
              for group in optimizer.param_groups]
    found: dict[str, Any] = {'class': _class(optimizer), 'options': groups[0]}
    if len(groups) > 1:
        found['groups'] = groups
    return found


def changed_parts(recorded: Any, record: Mapping[str, Any]) -> list[str]:
    r"""Names what decides the weights of a run and is not as it was begun: the options of the optimiser, the model, the
    loss and the negatives, and the clipping of gradients. No checkpoint tells, because it restores the options of the
    optimiser and holds none of the others.

    Args:
        recorded (Any): The content of :obj:`run.json`. What it lacks is not compared.
        record (dict): The result of :func:`describe_run` for the objects that the run is resumed with.
    """
    if not isinstance(recorded, Mapping):
        return []
    found = []
    own = record['optimizer']
    for number, (before, now) in enumerate(zip(_groups(recorded.get('optimizer'), own['class']),
                                               _groups(own, own['class']))):
        place = f'optimizer.{number}' if 'groups' in own else 'optimizer'
        found += _changes(f'{place}.', {name: now[name] for name in now if name not in IMPLEMENTATION}, before)
    model, begun = record['model'], recorded.get('model')
    found += _changes('model.', {'dtype': model['dtype']}, begun)
    found += _changes('model.', model['options'], begun.get('options') if isinstance(begun, Mapping) else None)
    found += _changes('', {'max_grad_norm': record['trainer']['max_grad_norm']}, recorded.get('trainer'))
    found += [f'{name}={record[name]}, not {recorded[name]}' for name in ('criterion', 'negatives')
              if name in recorded and not _alike(record[name], recorded[name])]
    return found


def changed_facts(recorded: Any, record: Mapping[str, Any]) -> list[str]:
    r"""Names the splits whose facts are not those that the run was begun with.

    Args:
        recorded (Any): The content of :obj:`run.json`. What it lacks is not compared.
        record (dict): The result of :func:`describe_run` for the objects that the run is resumed with.
    """
    begun = recorded.get('data') if isinstance(recorded, Mapping) else None
    before = begun.get('facts') if isinstance(begun, Mapping) else None
    if not isinstance(before, Mapping):
        return []
    found = []
    for split, now in record['data'].get('facts', {}).items():
        if isinstance(known := before.get(split), Mapping) and known != now:
            what = 'the same facts with other weights' if known.get('fingerprint') == now['fingerprint'] else (
                f'{now["number"]} facts, the run had {known.get("number")}')
            found.append(f'{split}: {what}')
    return found


def changed_options(recorded: Any, record: Mapping[str, Any]) -> list[str]:
    r"""Names the attributes of a model of one's own that are called like arguments of its constructor and are not as
    they were when the run was begun. Such an attribute may change in training or with the machine, so that it is no
    reason to refuse.

    Args:
        recorded (Any): The content of :obj:`run.json`. What it lacks is not compared.
        record (dict): The result of :func:`describe_run` for the objects that the run is resumed with.
    """
    begun = recorded.get('model') if isinstance(recorded, Mapping) else None
    return _changes('model.', record['model'].get('own_options', {}),
                    begun.get('own_options') if isinstance(begun, Mapping) else None)


def used_backends() -> dict[str, str]:
    r"""Returns the backend that each operator has last used in this process."""
    found = {name: last_backend(name) for name in _OPERATORS}
    return {name: backend for name, backend in found.items() if backend is not None}


def _changes(place: str, now: Mapping[str, Any], before: Any) -> list[str]:
    r"""Names the values that differ. Versions of this package and of PyTorch differ in the options they have."""
    known = before if isinstance(before, Mapping) else {}
    return [f'{place}{name}={value!r}, not {known[name]!r}' for name, value in now.items()
            if name in known and not _equal(value, known[name])]


def _options(model: torch.nn.Module, of_libraries: bool) -> dict[str, Any]:
    r"""The numbers and names that a model was made with, as far as it keeps them, and those of a model within it: of
    classes of this package, PyG and PyTorch, or of all others.
    """
    found: dict[str, Any] = {}
    counts = (type(model).__module__.partition('.')[0] in _LIBRARIES) == of_libraries
    for name in inspect.signature(type(model).__init__).parameters:
        try:
            value = getattr(model, name, None)
        except Exception:  # A property of this name may raise anything.
            continue
        if isinstance(value, torch.nn.Module):
            found |= {f'{name}.{key}': option for key, option in _options(value, of_libraries).items()}
        elif counts and isinstance(value, (bool, int, float, str)) and name not in _MODEL_IMPLEMENTATION:
            found[name] = value
    return found


def _groups(optimizer: Any, kind: str) -> list[Mapping[str, Any]]:
    r"""The options of the parameter groups of an optimiser of this class. Of another one, the checkpoint tells."""
    if not isinstance(optimizer, Mapping) or optimizer.get('class') != kind:
        return []
    groups = optimizer.get('groups', [optimizer.get('options')])
    return [group for group in groups if isinstance(group, Mapping)] if isinstance(groups, list) else []


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        if math.isnan(one) and math.isnan(other):
            return True
        return math.isclose(one, other, rel_tol=1e-6)  # A learning rate may be a tensor of less precision.
    return bool(one == other)


def _alike(one: Any, other: Any) -> bool:
    if any(isinstance(text, str) and '(' not in text for text in (one, other)):
        return True  # The name of a function tells no settings.
    # A seed decides how a part begins, and the checkpoint holds what came of it.
    return bool(_without_seeds(one) == _without_seeds(other))


def _without_seeds(text: Any) -> Any:
    return re.sub(r'\bseed=[^,)]*', '', text) if isinstance(text, str) else text


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _class(value: Any) -> str:
    return f'{type(value).__module__}.{type(value).__qualname__}'


def _described(value: Any) -> Optional[str]:
    if value is None:
        return None
    text = ' '.join(repr(value).split())
    if re.search(r' at 0x[0-9a-f]+', text):  # Memory addresses differ between runs.
        return getattr(value, '__qualname__', None) or _class(value)
    return text
