r"""Rules for the combinations of classes in a recipe. They read attributes of the classes:

====================  =====================  ===========================================================================
attribute             of                     meaning (default)
====================  =====================  ===========================================================================
reads_graph           model, loss            works on a graph, not on a table of entity vectors (False)
learns_from_vectors   sampler, mutation      :meth:`update` reads entity vectors (False)
gives_labels          mutation               its plans hold labels (False)
uses_labels           loss                   it uses them (True, for a class that does not say)
mutates               loss                   mutates negatives as the batch says (True; the argument :obj:`mutate`, if
                                             the loss has it)
uses_negatives        loss                   compares with the negatives that a transform draws (True)
takes_row_sparse      optimizer              takes row-sparse gradients (tried out on a small table)
maps_state            optimizer              keeps the state of tables in memory-mapped files in such files (False)
row_sparse_only       optimizer, schedule    takes no dense gradients; for a schedule: when the model's gradients are
                                             row-sparse (False; True for what derives from PyTorch's SparseAdam)
dense_gradient        loss, regularizer,     adds a dense gradient even where the model's is row-sparse (False)
                      mutation
====================  =====================  ===========================================================================
"""
from __future__ import annotations

import difflib
from typing import Any, Callable, Mapping, Optional

from pyg_emu.experiments.names import class_names, fact, find_class
from pyg_emu.experiments.sections import class_of, reads_graph, without_defaults


def graph_obstacle(model: Mapping[str, Any], loss: Mapping[str, Any], negatives: Mapping[str, Any]) -> Optional[str]:
    r"""Why a loss, a sampler or a mutation does not go with a model, one of them reading a graph, or :obj:`None` if all
    do.

    Args:
        model (dict): The checked section.
        loss (dict): The checked section.
        negatives (dict): The checked section.
    """
    graph = reads_graph('model', model)
    if graph != reads_graph('loss', loss):
        fitting = [name for name in class_names('loss') if reads_graph('loss', name) == graph]
        what = 'reads a graph' if graph else 'has a vector for each entity'
        return (f'loss.name: {loss["name"]} does not go with {model["name"]}, which {what}; choose one of '
                f'{", ".join(fitting)}')
    for kind in ('sampler', 'mutation'):
        part, place = negatives.get(kind), f'negatives.{kind}'
        while graph and isinstance(part, Mapping):
            if fact(class_of(kind, part), 'learns_from_vectors', False):
                return (f'{place}: {part["name"]} learns from entity vectors, and {model["name"]} has none; choose '
                        f'another {kind}')
            part, place = part.get(kind), f'{place}.{kind}'  # a sampler that draws from another
    return None


def mutation_obstacle(loss: Mapping[str, Any], negatives: Mapping[str, Any]) -> Optional[str]:
    r"""Why a mutation does not go with a loss, because it would have no effect or gives labels, or :obj:`None` if it
    does. :func:`idle_settings` tells of masks that would have no effect.

    Args:
        loss (dict): The checked section.
        negatives (dict): The checked section.
    """
    mutation = negatives.get('mutation')
    if not isinstance(mutation, Mapping):
        return None
    if fact(class_of('mutation', mutation), 'gives_labels', False) and not fact(class_of('loss', loss), 'uses_labels',
                                                                                True):
        fitting = [name for name in class_names('loss') if fact(find_class('loss', name), 'uses_labels', True)
                   and not reads_graph('loss', name)]
        return (f'loss.name: {mutation["name"]} gives negatives labels, and {loss["name"]} does not use them; choose '
                f'one of {", ".join(fitting)}')
    if loss.get('mutate') is False:
        return (f'loss.mutate: {loss["name"]} mutates no negatives unless told to, and {mutation["name"]} would have '
                'no effect; expected true, got false')
    if not _mutates(loss):
        return (f'negatives.mutation: {loss["name"]} mutates no negatives, and {mutation["name"]} would have no '
                'effect; leave it out, or choose another loss')
    if isinstance(loss.get('mutation'), Mapping):
        return (f'negatives.mutation: loss.mutation, {loss["mutation"]["name"]}, takes its place; expected one of the '
                f'two, got {mutation["name"]} beside it')
    return None


def idle_settings(model: Mapping[str, Any], loss: Mapping[str, Any], negatives: Mapping[str, Any]) -> list[str]:
    r"""Tells of the settings of negatives that have no effect on a loss. A recipe may inherit them, or keep them for
    comparison with another loss, so that they are no obstacle. Defaults, also those of the model, are not among them,
    nor is what asks for the least: a mutation rate of 0, or one negative.

    Args:
        model (dict): The checked section.
        loss (dict): The checked section.
        negatives (dict): The checked section.
    """
    defaults = fact(class_of('model', model), 'recipe_defaults', {}).get('negatives', {})
    given = {key for key, value in without_defaults('negatives', negatives).items() if value != defaults.get(key)}
    told = []
    if not fact(class_of('loss', loss), 'uses_negatives', True):
        told += [f'negatives.{key}: {_shown(negatives[key])} has no effect, since {loss["name"]} compares with all '
                 'entities' for key in ('num_negatives', 'sampler') if key in given and negatives[key] != 1]
    if not _mutates(loss):
        why = f'since {loss["name"]} mutates no negatives' + ('; loss.mutate: true does' if 'mutate' in loss else '')
    elif isinstance(loss.get('mutation'), Mapping):
        why = f'since loss.mutation, {loss["mutation"]["name"]}, takes its place'
    else:
        return told
    masks = fact(class_of('negatives', negatives), 'replaces', {}).get('mutation', ())
    mutated = negatives.get('mutation') is None and negatives.get('mutation_rate') != 0
    return told + [f'negatives.{key}: {_shown(negatives[key])} has no effect, {why}'
                   for key in masks if mutated and key in given]


def metric_obstacle(metric: str, validation: Mapping[str, Any]) -> Optional[str]:
    r"""Why a metric cannot decide which step is best, or :obj:`None` if it can.

    Args:
        metric (str): The name.
        validation (dict): The checked section.
    """
    from pyg_emu.evaluation.metrics import metric_names

    options = {key: validation[key] for key in ('sides', 'ks', 'num_negatives') if key in validation}
    names, groups = metric_names('relation', **options)
    group, _, name = metric.rpartition('.')
    if name in names and (not group or group in groups):
        return None
    near = difflib.get_close_matches(metric, [*names, *(f'{one}.{other}' for one in groups for other in names)], n=1)
    return (f'metric: expected one of {", ".join(names)}, also of a group ({", ".join(groups)}), such as macro.mrr, '
            f'got {metric!r}' + (f'; did you mean {near[0]!r}?' if near else ''))


def sparse_obstacle(optimizer: Mapping[str, Any], loss: Mapping[str, Any], schedule: Mapping[str, Any],
                    negatives: Mapping[str, Any]) -> Optional[str]:
    r"""Why a model with row-sparse gradients cannot be trained so, or :obj:`None` if it can.

    Args:
        optimizer (dict): The checked section.
        loss (dict): The checked section.
        schedule (dict): The checked section.
        negatives (dict): The checked section.
    """
    for key in ('weight_decay', 'momentum'):
        if optimizer.get(key) and _takes_row_sparse(optimizer, without=(key, )):
            return (f'optimizer.{key}: it would change every row, but model.sparse asks for steps that change few; '
                    f'expected 0, got {optimizer[key]!r}')
    if (optimizer.get('fused') or optimizer.get('foreach')) and _takes_row_sparse(optimizer, ('fused', 'foreach')):
        return 'optimizer: PyTorch has no fused or foreach steps for the row-sparse gradients of model.sparse'
    if not _takes_row_sparse(optimizer):
        fitting = [name for name in class_names('optimizer') if _takes_row_sparse({'name': name})]
        return (f'optimizer.name: {optimizer["name"]} takes no row-sparse gradients, which model.sparse asks for; '
                f'choose one of {", ".join(fitting)}')
    if _row_sparse_only(class_of('optimizer', optimizer)):
        taker, instead = optimizer['name'], 'adagrad'
    elif _row_sparse_only(class_of('schedule', schedule)):
        taker, instead = f'the optimizer that schedule {schedule["name"]} changes to', 'another schedule'
    else:
        return None
    only = f'{taker} takes row-sparse gradients only'
    penalty = loss.get('regularizer')
    if isinstance(penalty, Mapping) and _is_dense('regularizer', penalty):
        others = [name for name in class_names('regularizer') if not _is_dense('regularizer', {'name': name})]
        return (f'loss.regularizer: the gradient of {penalty["name"]} is dense, and {only}; choose '
                f'{", ".join([*others, ""])}or {instead}')
    if _is_dense('loss', loss):
        return f'loss.name: the gradient of {loss["name"]} is dense, and {only}; choose {instead}'
    mutation = negatives.get('mutation')
    if isinstance(mutation, Mapping) and _is_dense('mutation', mutation):
        return f'negatives.mutation: the gradient of {mutation["name"]} is dense, and {only}; choose {instead}'
    return None


def dense_obstacle(model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> Optional[str]:
    r"""Why a model whose gradients are not row-sparse cannot be trained so, or :obj:`None` if it can.

    Args:
        model (dict): The checked section.
        optimizer (dict): The checked section.
    """
    if not _row_sparse_only(class_of('optimizer', optimizer)):
        return None
    remedy = 'give model.sparse: true, or choose adam' if 'sparse' in model else 'choose adam'
    return (f'optimizer.name: {optimizer["name"]} takes row-sparse gradients only, and those of {model["name"]} are '
            f'dense; {remedy}')


def storage_obstacle(model: Mapping[str, Any], optimizer: Mapping[str, Any], loss: Mapping[str, Any], graph: bool
                     ) -> Optional[str]:
    r"""Why entity rows and their optimiser state cannot be in memory-mapped files, or :obj:`None` if they can.

    Args:
        model (dict): The checked section.
        optimizer (dict): The checked section.
        loss (dict): The checked section.
        graph (bool): Whether steps are captured as CUDA graphs.
    """
    if not _has_rows(class_of('model', model)):
        fitting = [name for name in class_names('model') if _has_rows(find_class('model', name))]
        return (f'storage: {model["name"]} has no table of entity rows that could be in a memory-mapped file; choose '
                f'one of {", ".join(fitting)}, or storage: memory')
    if not model.get('sparse'):
        return ('model.sparse: expected true with storage: mmap, since a gradient of all rows would be in memory, got '
                f'{model.get("sparse", False)}')
    if not _maps_state(optimizer):
        fitting = [name for name in class_names('optimizer') if _maps_state({'name': name})]
        return (f'optimizer.name: {optimizer["name"]} does not keep its state in memory-mapped files, as storage: mmap '
                f'asks for; choose one of {", ".join(fitting)}')
    penalty = loss.get('regularizer')
    if isinstance(penalty, Mapping) and _is_dense('regularizer', penalty):
        others = [name for name in class_names('regularizer') if not _is_dense('regularizer', {'name': name})]
        return (f'loss.regularizer: the gradient of {penalty["name"]} is dense, and with storage: mmap it would be in '
                f'memory; choose {" or ".join(others)}')
    if _is_dense('loss', loss):
        return (f'loss.name: the gradient of {loss["name"]} is dense, and with storage: mmap it would be in memory; '
                'choose a loss of sampled negatives, such as emu')
    if graph:
        return 'graph: expected false with storage: mmap, which keeps entity rows on the CPU, got true'
    return None


def _shown(setting: Any) -> str:
    return str(setting['name'] if isinstance(setting, Mapping) and 'name' in setting else setting)


def _mutates(loss: Mapping[str, Any]) -> bool:
    return bool(loss.get('mutate', fact(class_of('loss', loss), 'mutates', True)))


def _has_rows(cls: Callable[..., Any]) -> bool:
    from pyg_emu.models.base import KGEScorer  # imports torch, which help texts do without

    return isinstance(cls, type) and issubclass(cls, KGEScorer)


def _maps_state(optimizer: Mapping[str, Any]) -> bool:
    return bool(fact(find_class('optimizer', optimizer['name']), 'maps_state', False))


def _is_dense(kind: str, section: Mapping[str, Any]) -> bool:
    return bool(fact(class_of(kind, section), 'dense_gradient', False))


def _row_sparse_only(cls: Callable[..., Any]) -> bool:
    import torch

    return bool(fact(cls, 'row_sparse_only', isinstance(cls, type) and issubclass(cls, torch.optim.SparseAdam)))


def _takes_row_sparse(optimizer: Mapping[str, Any], without: tuple[str, ...] = ()) -> bool:
    r"""Whether an optimiser takes row-sparse gradients. Where its class does not say, a step on a small table tells."""
    import torch

    cls = find_class('optimizer', optimizer['name'])
    stated = fact(cls, 'takes_row_sparse', None)
    if stated is not None:
        return bool(stated)
    table = torch.nn.Parameter(torch.zeros(2, 2))
    table.grad = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 2), (2, 2), check_invariants=False)
    options = {key: value for key, value in optimizer.items() if key != 'name' and key not in without}
    try:
        cls([table], **options).step()
    except Exception:  # each optimiser of PyTorch refuses in its own way
        return False
    return True
