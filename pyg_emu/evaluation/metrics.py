r"""Ranks under a tie policy and the metrics computed from them: over both sides, per side and per kind of relation."""
from __future__ import annotations

import difflib
import html
import math
import re
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Iterable, Iterator, Literal, Mapping, Optional, Sequence, TypeVar, Union, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import (
    ids_in,
    is_number,
    kind_of,
    non_negative_integer,
    on_device,
    one_of,
    positive_integer,
    positive_integers,
    shown,
    tensors,
)
from pyg_emu.core.drawing import new_figure
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.relations import RELATION_KINDS

T = TypeVar('T')
Tie = Literal['realistic', 'optimistic', 'pessimistic']
TIES = ('realistic', 'optimistic', 'pessimistic')

#: Whether higher (``"max"``) or lower (``"min"``) values of a metric are better. The names omit :math:`k`, the number
#: of negatives and the group.
DIRECTIONS: dict[str, Literal['max', 'min']] = {
    'mrr': 'max', 'mr': 'min', 'hits': 'max', 'ndcg': 'max', 'amri': 'max', 'loss': 'min',
}


@dataclass(frozen=True)
class Ranks:
    r"""The ranks of a number of targets, starting at one.

    Args:
        greater (torch.Tensor): The number of competitors with a higher score. shape: :obj:`(B,)`, int64.
        equal (torch.Tensor): The number of competitors with exactly the same score. shape: :obj:`(B,)`, int64.
        candidates (torch.Tensor): The number of competitors. shape: :obj:`(B,)`, int64.
    """
    greater: Tensor
    equal: Tensor
    candidates: Tensor

    @property
    def optimistic(self) -> Tensor:
        r"""The rank if the target is placed first among all candidates with the same score."""
        return self.greater + 1

    @property
    def pessimistic(self) -> Tensor:
        r"""The rank if the target is placed last among all candidates with the same score."""
        return self.greater + self.equal + 1

    @property
    def realistic(self) -> Tensor:
        r"""The mean of both, which is the expected rank if ties are broken at random. dtype: float64."""
        return self.greater + self.equal.double() / 2 + 1

    def of(self, tie: Tie) -> Tensor:
        r"""Returns the ranks under a tie policy as float64.

        Raises:
            ArgumentError: If the policy is unknown.
        """
        if tie not in TIES:
            raise ArgumentError(f'tie: expected one of {", ".join(map(repr, TIES))}, got {tie!r}')
        return getattr(self, tie).double()

    def select(self, index: Tensor) -> Ranks:
        r"""Returns the ranks selected by :obj:`index` (positions or a boolean mask)."""
        return Ranks(self.greater[index], self.equal[index], self.candidates[index])

    @classmethod
    def concatenate(cls, parts: Iterable[Ranks]) -> Ranks:
        r"""Concatenates ranks."""
        columns = zip(*((part.greater, part.equal, part.candidates) for part in parts))
        return cls(*(torch.cat(column) for column in columns))

    def __len__(self) -> int:
        return self.greater.numel()


class Metrics(Mapping[str, Any]):
    r"""The metrics of an evaluation. It is a mapping from names to values and prints as a table.

    .. code-block:: python

        metrics['mrr'], metrics['hits@10']    # both sides
        metrics['tail.mrr']                   # triples whose tail was predicted
        metrics['1-N.mrr'], metrics['1-N.head.hits@10']  # per kind of relation, see relation_kinds()
        metrics.by('relation')                # a DataFrame with a row for each relation
        metrics.ranked()                      # a DataFrame with a row for each rank

    The metrics are

    * :obj:`"mrr"`: mean reciprocal rank;
    * :obj:`"mr"`: mean rank;
    * :obj:`"hits@k"`: the fraction of ranks that are at most :math:`k`, for each value in :obj:`ks`;
    * :obj:`"ndcg@k"`: the normalised discounted cumulative gain with the target as the only relevant answer, for the
      largest value in :obj:`ks`. It is the mean of :math:`1 / \log_2(1 + \mathrm{rank})`, or of zero if the rank is
      greater than :math:`k`;
    * :obj:`"amri"`: the adjusted mean rank index of
      `"On the Ambiguity of Rank-Based Evaluation" <https://arxiv.org/abs/2002.06914>`_,
      :math:`1 - (\mathrm{MR} - 1) / \mathbb{E}[\mathrm{MR} - 1]`, with the expectation over random scores. Perfect
      ranks give one, random ranks give zero. It is NaN if no target has a competitor;
    * :obj:`"hits@10 (50 negatives)"`: see :func:`expected_hits`; only if :obj:`num_negatives` is given;
    * :obj:`"count"`: the number of ranks.

    Groups without ranks are omitted.

    Args:
        ranks (dict): The :class:`Ranks` of all triples for each predicted side (:obj:`"tail"`, :obj:`"head"`) and of
            relations (:obj:`"relation"`), which metrics over both sides include only if nothing else is ranked.
        tie (str, optional): The tie policy: :obj:`"realistic"`, :obj:`"optimistic"` or :obj:`"pessimistic"`.
            (default: :obj:`"realistic"`)
        ks (tuple of int, optional): The values of :math:`k` for Hits@k. (default: :obj:`(1, 3, 10)`)
        kinds (torch.Tensor or dict, optional): The kind of each triple's relation, as a position in
            :obj:`RELATION_KINDS`, or -1 if unknown. If the sides rank different triples, pass a dictionary with the
            kinds for each side. shape: :obj:`(B,)`. (default: :obj:`None`, no metrics per kind)
        num_negatives (int, optional): If given, adds the expected Hits@10 against this number of random negatives.
            (default: :obj:`None`)
        info (dict, optional): A description of the evaluation for the title of the table, as plain values. (default:
            :obj:`None`)
        facts (dict, optional): The ranked facts of each side, in the order of the ranks, with columns head, relation
            and tail. shape: :obj:`(B, 3)`. (default: :obj:`None`)
        labels (tuple, optional): The labels of the entities and of the relations, each :obj:`None` if there are none.
            (default: :obj:`(None, None)`)
        by (str, optional): :obj:`"relation"` adds the group :obj:`"macro"`, the mean over relations instead of facts,
            and the table of :meth:`by` to what is printed and to :meth:`to_dict`. It needs :obj:`facts`.
            (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument has an invalid type or value.
        DataError: If there are no ranks.
    """
    def __init__(self, ranks: Mapping[str, Ranks], tie: Tie = 'realistic', ks: Sequence[int] = (1, 3, 10),
                 kinds: Union[None, Tensor, Mapping[str, Tensor]] = None, num_negatives: Optional[int] = None,
                 info: Optional[Mapping[str, Any]] = None, *, facts: Optional[Mapping[str, Tensor]] = None,
                 labels: tuple[Optional[list[str]], Optional[list[str]]] = (None, None),
                 by: Optional[Literal['relation']] = None) -> None:
        ks = positive_integers('ks', ks)
        one_of('tie', tie, TIES)
        if not isinstance(ranks, Mapping) or not all(isinstance(part, Ranks) for part in ranks.values()):
            raise ArgumentError('ranks: expected a dictionary with the Ranks of each side, such as the attribute ranks '
                                f'of what evaluate() returns, got {shown(ranks)}')
        for name, value in (('kinds', kinds), ('info', info)):
            fits = isinstance(value, Mapping) or (name == 'kinds' and isinstance(value, Tensor))
            if value is not None and not fits:
                raise ArgumentError(f'{name}: expected a dictionary, got {shown(value)}')
        if num_negatives is not None:
            num_negatives = positive_integer('num_negatives', num_negatives)
        _check_kinds(kinds, ranks)
        _check_facts(facts, ranks)
        if not isinstance(labels, tuple) or len(labels) != 2:
            raise ArgumentError(f'labels: expected the labels of entities and of relations, got {shown(labels)}')
        if not any(len(part) for part in ranks.values()):
            raise DataError('ranks: expected at least one rank, got none')
        #: The ranks of all triples, by side.
        self.ranks = dict(ranks)
        #: The tie policy.
        self.tie = tie
        #: The description of the evaluation.
        self.info = dict(info or {})
        #: The metrics of each group by name: ``"both"``, the sides and the kinds of relations.
        self.groups: dict[str, dict[str, float]] = {}
        self._settings = tie, sorted(set(ks)), num_negatives
        for group, part in _groups(ranks, kinds):
            if len(part) > 0:
                self.groups[group] = _summarise(part, *self._settings)
        #: The ranked facts, by side, in the order of the ranks; :obj:`None` if they are not known.
        self.facts = None if facts is None else dict(facts)
        self._labels = labels
        self._by_relation: Optional[pd.DataFrame] = None
        if by is not None:
            one_of('by', by, ('relation', ))
            self._by_relation = self.by(by)
            macro = self._by_relation[list(self.groups['both'])].drop(columns='count').mean()
            self.groups['macro'] = {str(name): float(value) for name, value in macro.items()}
            self.groups['macro']['count'] = len(self._by_relation)

    def __getitem__(self, name: str) -> Any:
        group, _, metric = name.rpartition('.')
        values = self.groups.get(group or 'both', {})
        if metric not in values:
            raise KeyError(f'no metric {name!r}; groups: {", ".join(self.groups)}; '
                           f'metrics: {", ".join(self.groups["both"])}')
        return values[metric]

    def __iter__(self) -> Any:
        return iter(self.groups['both'])

    def __len__(self) -> int:
        return len(self.groups['both'])

    def to_dict(self) -> dict[str, Any]:
        r"""Returns all metrics as plain values for JSON: the metrics over both sides by name, a dictionary for each
        other group, and the description of the evaluation under :obj:`"info"`. NaN becomes :obj:`None`.
        """
        groups = {group: {name: None if isinstance(value, float) and math.isnan(value) else value
                          for name, value in values.items()} for group, values in self.groups.items()}
        found = {**groups.pop('both'), **groups, 'info': {**self.info, 'tie': self.tie}}
        if self._by_relation is not None:
            rows = self._by_relation.astype(object).where(self._by_relation.notna(), None).to_dict('index')
            found['relations'] = {str(relation): values for relation, values in rows.items()}
        return found

    def by(self, what: Literal['relation'] = 'relation') -> pd.DataFrame:
        r"""Returns a :class:`pandas.DataFrame` with a row for each relation that has ranks, the most frequent first:
        the metrics over both sides, those of each side (:obj:`"tail.mrr"`), and :obj:`"count"`. The index holds the
        labels of the relations, or their ids if there are none.

        Args:
            what (str, optional): :obj:`"relation"`. (default: :obj:`"relation"`)

        Raises:
            ArgumentError: If the ranked facts are not known.
        """
        one_of('what', what, ('relation', ))
        facts = self._known_facts()
        parts = {}
        for side, part in self.ranks.items():
            if len(part) > 0:
                values = {'relation': facts[side][:, 1], **_per_rank(part, *self._settings)}
                parts[side] = pd.DataFrame({name: value.cpu().numpy() for name, value in values.items()})
        tables = [_means(pd.concat(_entity_sides(parts).values()).groupby('relation'))]
        tables += [_means(part.groupby('relation')).add_prefix(f'{side}.') for side, part in parts.items()]
        table = pd.concat(tables, axis=1)
        counts = [str(name) for name in table if str(name).rpartition('.')[2] == 'count']
        table = table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))
        table = table.sort_values('count', ascending=False, kind='stable')
        labels = self._labels[1]
        return table if labels is None else table.set_axis(pd.Index([labels[int(number)] for number in table.index],
                                                                    dtype=object, name='relation'))

    def ranked(self) -> pd.DataFrame:
        r"""Returns a :class:`pandas.DataFrame` with a row for each rank: :obj:`head`, :obj:`relation`, :obj:`tail`
        (labels, or ids if there are none), the predicted :obj:`side`, the :obj:`rank`, and the number of
        :obj:`competitors`. It shows which facts were ranked if :obj:`max_triples` or :obj:`candidates` left some out.

        Raises:
            ArgumentError: If the ranked facts are not known.
        """
        tables = []
        for side, facts in self._known_facts().items():
            columns = facts.cpu().numpy().T
            names = [column if labels is None else pd.array(labels, dtype=object).take(column)
                     for column, labels in zip(columns, (*self._labels, self._labels[0]))]
            ranks = self.ranks[side]
            tables.append(pd.DataFrame({
                'head': names[0], 'relation': names[1], 'tail': names[2], 'side': side,
                'rank': ranks.of(self.tie).cpu().numpy(), 'competitors': ranks.candidates.cpu().numpy()}))
        return pd.concat(tables, ignore_index=True)

    def _known_facts(self) -> dict[str, Tensor]:
        if self.facts is None:
            raise ArgumentError('facts: expected the ranked facts of each side, as evaluate() gives them, got None')
        return self.facts

    def to_frame(self) -> pd.DataFrame:
        r"""Returns a :class:`pandas.DataFrame` with one row for each group and one column for each metric."""
        frame = pd.DataFrame.from_dict(self.groups, orient='index')
        return frame.astype({'count': int})

    def plot(self, metric: str = 'mrr') -> Any:
        r"""Plots a metric of both sides and of each side, and of each kind of relation. Requires matplotlib.

        Args:
            metric (str, optional): The metric. (default: :obj:`"mrr"`)

        :rtype: :class:`matplotlib.figure.Figure`

        Raises:
            ArgumentError: If there is no such metric; names those that there are.
        """
        one_of('metric', metric, [*self.groups['both']])
        kinds = [kind for kind in RELATION_KINDS if kind in self.groups]
        figure = new_figure('plot()', 7.0 if kinds else 3.5, 3.0)
        places = figure.subplots(1, 2 if kinds else 1, sharey=True, squeeze=False)[0]
        sides = [name for name in ('both', 'tail', 'head', 'relation', 'macro') if name in self.groups]
        bars = places[0].bar(sides, [self.groups[side][metric] for side in sides], color='C7')
        places[0].bar_label(bars, fmt='%.3g', padding=2)
        places[0].set(ylabel=metric)
        places[0].margins(y=0.12)
        shown = [side for side in self.ranks if any(f'{kind}.{side}' in self.groups for kind in kinds)]
        for number, side in enumerate(shown):
            width = 0.8 / len(shown)
            values = [self.groups.get(f'{kind}.{side}', {}).get(metric, math.nan) for kind in kinds]
            across = [place + (number - (len(shown) - 1) / 2) * width for place in range(len(kinds))]
            places[1].bar(across, values, width, label=side)
        if kinds:
            places[1].set_xticks(range(len(kinds)), kinds)
            places[1].set(xlabel='kind of relation')
            places[1].legend(fontsize=9)
        return figure

    def __str__(self) -> str:
        return '\n'.join(part if isinstance(part, str) else part.to_string() for part in self._parts())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks."""
        return '\n'.join(f'<p>{html.escape(part)}</p>' if isinstance(part, str) else part.to_html()
                         for part in self._parts())

    def _parts(self) -> Iterator[Union[str, pd.DataFrame]]:
        r"""Yields headings and tables of formatted text."""
        yield ', '.join([*(f'{key}: {value}' for key, value in self.info.items()), f'ties: {self.tie}'])
        frame = self.to_frame()
        order = [name for name in ('both', 'tail', 'head', 'relation', 'macro') if name in frame.index]
        sides, kinds = frame.loc[order], frame.drop(index=order)
        yield _render(sides.T)
        if len(kinds) > 0:
            yield 'by kind of relation (1-1, 1-N, N-1, N-N) and predicted side'
            yield _render(kinds)
        if self._by_relation is not None:
            yield 'by relation; macro is the mean of these rows'
            yield _render(self._by_relation[list(self.groups['both'])])


def plain_numbers(metrics: Any, metric: Optional[str] = None) -> dict[str, float]:
    r"""Returns the numbers of a validation by name, without the metrics of groups but the one that is asked for.

    Args:
        metrics (Metrics or dict): The return value of a validation function. A dictionary may hold one for each group.
        metric (str, optional): A metric that may be one of a group, such as :obj:`"macro.mrr"`. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`metrics` is of another type.
    """
    if not isinstance(metrics, Mapping):
        raise ArgumentError("validate: expected it to return Metrics or a dictionary such as {'mrr': 0.3}, got an "
                            f'object of type {type(metrics).__name__}')
    found = metrics.to_dict() if isinstance(metrics, Metrics) else metrics
    group, _, name = (metric or '').rpartition('.')
    of_group = found.get(group)
    if isinstance(of_group, Mapping) and name in of_group:
        # NaN is None in the dictionary of Metrics.
        found = {**found, str(metric): math.nan if of_group[name] is None else of_group[name]}
    # Metrics of other libraries are tensors or arrays of one number and no dimension.
    plain = {str(key): value.item() if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0 else value
             for key, value in found.items()}
    return {key: float(value) for key, value in plain.items() if is_number(value)}


def metric_names(by: Optional[str] = None, sides: Union[str, Sequence[str]] = ('tail', 'head'),
                 ks: Sequence[int] = (1, 3, 10), num_negatives: Optional[int] = None) -> tuple[list[str], list[str]]:
    r"""Returns the metrics that :func:`~pyg_emu.evaluate` computes with some arguments, and the groups that it may
    have them for beside the whole; a kind of relations without facts has none.

    Args:
        by (str, optional): See :func:`~pyg_emu.evaluate`. (default: :obj:`None`)
        sides (str or sequence of str, optional): Likewise. (default: :obj:`("tail", "head")`)
        ks (sequence of int, optional): Likewise. (default: :obj:`(1, 3, 10)`)
        num_negatives (int, optional): Likewise. (default: :obj:`None`)
    """
    sides = (sides, ) if isinstance(sides, str) else sides
    names = ['mrr', 'mr', *(f'hits@{k}' for k in sorted(set(ks))), f'ndcg@{max(ks, default=0)}', 'amri']
    names += [] if num_negatives is None else [f'hits@10 ({num_negatives} negatives)']
    kinds = [*RELATION_KINDS, *(f'{kind}.{side}' for kind in RELATION_KINDS for side in sides)]
    return names, [*sides, *([] if by is None else ['macro']), *kinds]


def metric_mode(metric: str, mode: Optional[str] = None) -> Literal['max', 'min']:
    r"""Returns whether higher (:obj:`"max"`) or lower (:obj:`"min"`) values of a metric are better.

    Args:
        metric (str): The name, such as :obj:`"mrr"`, :obj:`"tail.mr"` or :obj:`"hits@10 (50 negatives)"`.
        mode (str, optional): The direction, required for metrics that are not in :obj:`DIRECTIONS`. (default:
            :obj:`None`)

    Raises:
        ArgumentError: If the direction of the metric is unknown and not given, or differs from the given one.
    """
    if not isinstance(metric, str):
        raise ArgumentError(f"metric: expected a name such as 'mrr', got {shown(metric)}")
    if mode is not None:
        one_of('mode', mode, ('max', 'min'))
    known = DIRECTIONS.get(metric.rpartition('.')[2].partition('@')[0].strip())
    if known is None and mode is None:
        raise ArgumentError(f"metric: there is no metric {metric!r}{_similar_metric(metric)} a metric of your own "
                            "needs mode='max' if higher values are better, or mode='min'")
    if known is not None and mode is not None and mode != known:
        better = 'lower' if known == 'min' else 'higher'
        raise ArgumentError(f'mode: expected {known!r} or None, because {better} values of {metric} are better, got '
                            f'{mode!r}')
    return known if known is not None else cast(Literal['max', 'min'], mode)


def _similar_metric(metric: str) -> str:
    r"""A hint at the known metric that a name resembles, with the group and the :math:`k` of the name."""
    group, dot, name = metric.rpartition('.')
    k = re.search(r'[1-9][0-9]*', name)
    names = [f'{known}@{k[0] if k else 10}' if known in ('hits', 'ndcg') else known for known in DIRECTIONS]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f'; did you mean {group + dot + near[0]!r}? Otherwise,' if near else ';'


def expected_hits(rank: Tensor, num_candidates: Union[int, Tensor], k: int = 10, num_negatives: int = 50) -> Tensor:
    r"""Returns the expected Hits@k among :math:`n` entities: the probability that a target ranks among the first
    :math:`k` of itself and :math:`n - 1` entities drawn uniformly with replacement from its competitors,

    .. math::
        \sum_{i < k} \binom{n - 1}{i} p^i (1 - p)^{n - 1 - i}, \qquad p = \frac{\mathrm{rank} - 1}{\mathrm{candidates}}.

    Papers on inductive link prediction report this value as "Hits@10 against 50 negatives", estimated from a single
    draw. As in these papers, the target is one of the 50 entities.

    Args:
        rank (torch.Tensor): The ranks among all competitors. shape: :obj:`(B,)`.
        num_candidates (int or torch.Tensor): The number of competitors, or that of each target. shape: :obj:`(B,)`.
        k (int, optional): The value of :math:`k`. (default: :obj:`10`)
        num_negatives (int, optional): The number of entities :math:`n`. (default: :obj:`50`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(B,)`, float64.

    Raises:
        ArgumentError: If :obj:`k` or :obj:`num_negatives` is not positive, the shapes differ, a number of competitors
            is negative, or a rank is out of range.
    """
    k, num_negatives = positive_integer('k', k), positive_integer('num_negatives', num_negatives)
    tensors(rank=rank)
    if rank.is_complex() or rank.dtype == torch.bool:
        raise ArgumentError(f'rank: expected real numbers, got {kind_of(rank)}')
    if isinstance(num_candidates, Tensor) and num_candidates.dim() > 0:
        ids_in('num_candidates', num_candidates, None)
        if num_candidates.shape != rank.shape:
            raise ArgumentError(f'num_candidates: expected an integer, or integers of the shape of rank, '
                                f'{tuple(rank.shape)}, got {kind_of(num_candidates)}')
        candidates = num_candidates.to(rank.device).double()
    elif isinstance(num_candidates, (Tensor, Integral)):
        number = num_candidates.item() if isinstance(num_candidates, Tensor) else num_candidates
        candidates = torch.tensor(float(non_negative_integer('num_candidates', number)), dtype=torch.float64,
                                  device=rank.device)
    else:
        raise ArgumentError(f'num_candidates: expected an integer, or a tensor of integers of the shape of rank, '
                            f'{tuple(rank.shape)}, got {shown(num_candidates)}')
    # A target without competitors ranks first.
    p = (rank.double() - 1) / candidates.clamp(min=1)
    if not bool(((p >= 0) & (p <= 1)).all()):  # NaN neither
        raise ArgumentError('rank: expected ranks between 1 and the number of competitors plus one')
    draws = num_negatives - 1
    terms = [_combinations(draws, i) * p**i * (1 - p)**(draws - i) for i in range(min(k, draws + 1))]
    return torch.stack(terms).sum(0)


def _combinations(draws: int, chosen: int) -> float:
    try:
        return float(math.comb(draws, chosen))
    except OverflowError as error:
        raise ArgumentError(f'k, num_negatives: {chosen} of {draws} can be chosen in more ways than a float64 holds; '
                            'choose a smaller k or fewer negatives') from error


def _check_kinds(kinds: Any, ranks: Mapping[str, Ranks]) -> None:
    if kinds is None:
        return
    for side, part in ranks.items():
        found = kinds if isinstance(kinds, Tensor) else kinds.get(side)
        expected = f'kinds: expected the kind of each relation, integers of shape ({len(part)},), for the side {side!r}'
        if not isinstance(found, Tensor):
            raise ArgumentError(f'{expected}, got {shown(found)}')
        if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool or (
                tuple(found.shape) != (len(part),)):
            raise ArgumentError(f'{expected}, got {kind_of(found)}')
        on_device('kinds', found, part.greater.device, 'ranks')


def _check_facts(facts: Any, ranks: Mapping[str, Ranks]) -> None:
    if facts is None:
        return
    for side, part in ranks.items():
        found = facts.get(side) if isinstance(facts, Mapping) else None
        if not isinstance(found, Tensor) or tuple(found.shape) != (len(part), 3):
            raise ArgumentError(f'facts: expected the ranked facts of shape ({len(part)}, 3) for the side {side!r}, '
                                f'got {kind_of(found) if isinstance(found, Tensor) else shown(found)}')


def _entity_sides(parts: Mapping[str, T]) -> Mapping[str, T]:
    r"""The sides that rank entities, or relations where nothing else is ranked."""
    return {side: part for side, part in parts.items() if side != 'relation'} or parts


def _groups(ranks: Mapping[str, Ranks],
            kinds: Union[None, Tensor, Mapping[str, Tensor]]) -> Iterable[tuple[str, Ranks]]:
    yield 'both', Ranks.concatenate(_entity_sides(ranks).values())
    yield from ranks.items()
    if kinds is None:
        return
    by_side = {side: kinds if isinstance(kinds, Tensor) else kinds[side] for side in ranks}
    for number, kind in enumerate(RELATION_KINDS):
        parts = {side: part.select(by_side[side] == number) for side, part in ranks.items()}
        yield kind, Ranks.concatenate(_entity_sides(parts).values())
        for side, part in parts.items():
            yield f'{kind}.{side}', part


def _per_rank(ranks: Ranks, tie: Tie, ks: Sequence[int], num_negatives: Optional[int]) -> dict[str, Tensor]:
    r"""What the metrics are the means of, with a value for each rank; for :obj:`amri`, the expected rank minus one."""
    rank = ranks.of(tie)
    values = {'mrr': rank.reciprocal(), 'mr': rank}
    values |= {f'hits@{k}': (rank <= k).double() for k in ks}
    values[f'ndcg@{ks[-1]}'] = torch.where(rank <= ks[-1], 1 / torch.log2(1 + rank), 0.0)
    # All ranks are equally likely for random scores, so a random rank beats half of the competitors.
    values['amri'] = ranks.candidates.double() / 2
    if num_negatives is not None:
        values[f'hits@10 ({num_negatives} negatives)'] = expected_hits(rank, ranks.candidates, 10, num_negatives)
    return values


def _summarise(ranks: Ranks, tie: Tie, ks: Sequence[int], num_negatives: Optional[int]) -> dict[str, float]:
    values = _per_rank(ranks, tie, ks, num_negatives)
    means = {name: value.mean() for name, value in values.items()}
    means['amri'] = 1 - (values['mr'] - 1).sum() / values['amri'].sum()
    return {**{name: float(value) for name, value in means.items()}, 'count': len(ranks)}


def _means(groups: Any) -> pd.DataFrame:
    r"""The metrics of groups of rows, see :func:`_per_rank`."""
    means = groups.mean()
    means['amri'] = 1 - (means['mr'] - 1) / means['amri'].where(means['amri'] > 0)
    return means.assign(count=groups.size())


def _render(frame: pd.DataFrame) -> pd.DataFrame:
    def show(name: str, value: float) -> str:
        return f'{int(value):,}' if name == 'count' else f'{value:,.1f}' if name == 'mr' else f'{value:.4f}'

    across = 'count' in frame.index
    rows = frame.T if across else frame
    text = pd.DataFrame({name: [show(str(name), value) for value in rows[name]] for name in rows}, index=rows.index)
    return text.T if across else text
