r"""What a graph holds, and what looks wrong about it: the counts behind :meth:`~pyg_emu.KGData.report`."""
from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Iterator, Optional, Union

import pandas as pd
import torch
from torch import Tensor

from pyg_emu.data.labels import near_duplicates
from pyg_emu.data.relations import RELATION_KINDS, relation_kinds

if TYPE_CHECKING:
    from pyg_emu.data.graph import KGData, Split

_SPLITS: tuple[Split, ...] = ('train', 'valid', 'test')
# The share of held-out facts whose reverse is a training fact from which on a warning is due. Symmetric relations make
# some in most graphs: 15 % in UMLS, 35 % in WN18RR. Where every edge is stored in both directions it is nearly all.
_REVERSED_SHARE = 0.5
# How many times as many labels as another column make relations look like entities, where no label tells.
_FAR_MORE = 5
# What share of a relation's facts have to be there reversed for it to be called symmetric.
_SYMMETRIC_SHARE = 0.9
_EXAMPLES = 3
# The number of ids that are marked at a time.
_CHUNK = 2**22


class DataReport(dict[str, Any]):
    r"""Counts by name, and what looks wrong about them. Prints as a table.

    .. code-block:: python

        report = data.report()
        report['test_facts_reversed_in_train']
        report.warnings  # a sentence for each suspicious count

    The keys are

    * :obj:`num_nodes`, :obj:`num_relations`;
    * :obj:`isolated_entities`, which occur in no fact of any split, and :obj:`entities_without_facts` and
      :obj:`relations_without_facts`, which occur in no training fact;
    * for each split :obj:`{split}_facts`, :obj:`{split}_duplicates` (facts that repeat another one),
      :obj:`{split}_self_loops` and :obj:`{split}_reversed_pairs` (pairs of distinct facts :math:`(h, r, t)` and
      :math:`(t, r, h)`);
    * for validation and test :obj:`{split}_unseen_entities`, :obj:`{split}_facts_with_unseen_entities`,
      :obj:`{split}_unseen_relations`, :obj:`{split}_facts_in_train`, :obj:`{split}_facts_reversed_in_train` (facts
      :math:`(h, r, t)` whose reverse :math:`(t, r, h)` is a training fact), and :obj:`test_facts_in_valid`;
    * :obj:`symmetric_relations`, 90 % of whose training facts are there in both directions, and
      :obj:`relations_{kind}` for the kinds 1-1, 1-N, N-1 and N-N (:func:`~pyg_emu.data.relations.relation_kinds`);
    * :obj:`near_duplicate_entity_labels` and :obj:`near_duplicate_relation_labels`, the number of labels that differ
      from another one in nothing but case, spaces, Unicode form or invisible characters;
    * :obj:`labels_of_both_kinds`, labels of an entity and of a relation, and :obj:`suspicious_columns`, the number of
      columns that seem to be exchanged.
    """
    #: A sentence for each count that looks wrong.
    warnings: list[str]

    def __str__(self) -> str:
        return '\n'.join(part if isinstance(part, str) else part.to_string() for part in _parts(self))

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks."""
        return '\n'.join(part.to_html() if isinstance(part, pd.DataFrame) else f'<p>{html.escape(part)}</p>'
                         for part in _parts(self) if not isinstance(part, str) or part != '')

    def tables(self) -> tuple[pd.DataFrame, pd.Series]:
        r"""The counts with titles for people: a table with a column for each split, and the counts of the whole graph.
        A count that a split does not have is missing.
        """
        by_split = pd.DataFrame({split: [self.get(f'{split}_{name}') for name in _ROWS] for split in _SPLITS},
                                index=list(_ROWS.values()), dtype=object)
        return by_split, pd.Series({title: self[name] for name, title in _FURTHER.items()})

    def summary(self) -> str:
        r"""The report in two lines: the sizes, and the counts that look wrong."""
        facts = ', '.join(f'{self[f"{split}_facts"]} {split}' for split in _SPLITS)
        found = [f'{split} {_ROWS[name]}: {self[f"{split}_{name}"]}' for split in _SPLITS for name in _WRONG
                 if self.get(f'{split}_{name}')]
        found += [f'{_FURTHER[name]}: {self[name]}' for name in _WRONG if self.get(name)]
        return (f'data: {self["num_nodes"]} entities, {self["num_relations"]} relations; facts: {facts}\n'
                f'data: {"; ".join(found) if found else "nothing looks wrong"}')


def make_report(data: KGData) -> DataReport:
    r"""Counts everything that :class:`DataReport` lists.

    Args:
        data (KGData): A graph that :func:`~pyg_emu.data.checks.check_data` accepts.
    """
    report = DataReport(_counts(data))
    report.update(_shapes(data))
    report.warnings = suspicions(data, report)
    return report


def make_warnings(data: KGData) -> list[str]:
    r"""The warnings of :func:`make_report`, without the counts that none of them needs."""
    return suspicions(data, _counts(data))


def _counts(data: KGData) -> dict[str, Any]:
    r"""What warnings are made of."""
    train = data.columns('train')
    num_nodes = data.num_nodes or 0
    known_entity = _marked(num_nodes, train[0], train[2])
    known_relation = _marked(data.num_relations, train[1])
    used = _marked(num_nodes, *(data.columns(split)[end] for split in _SPLITS for end in (0, 2)))
    counts: dict[str, Any] = {'num_nodes': num_nodes, 'num_relations': data.num_relations}
    counts['isolated_entities'] = int((~used).sum())
    counts['entities_without_facts'] = int((~known_entity).sum())
    counts['relations_without_facts'] = int((~known_relation).sum())
    for split in _SPLITS:
        counts[f'{split}_facts'] = data.num_facts(split)
        counts[f'{split}_duplicates'] = counts[f'{split}_facts'] - data.fact_index(split).num_facts
        if split == 'train':
            continue
        head, relation, tail = data.facts(split).unbind(1)
        unseen = torch.cat([head, tail])
        unseen = unseen[~known_entity[unseen]]
        index = data.fact_index('train')
        counts[f'{split}_unseen_entities'] = unseen.unique().numel()
        counts[f'{split}_facts_with_unseen_entities'] = int((~(known_entity[head] & known_entity[tail])).sum())
        counts[f'{split}_unseen_relations'] = relation[~known_relation[relation]].unique().numel()
        counts[f'{split}_facts_in_train'] = int(index.contains(head, relation, tail).sum())
        counts[f'{split}_facts_reversed_in_train'] = int(
            (index.contains(tail, relation, head) & (head != tail)).sum())
    test = data.facts('test')
    counts['test_facts_in_valid'] = int(data.fact_index('valid').contains(*test.unbind(1)).sum())
    for kind, labels in (('entity', data.entity_labels), ('relation', data.relation_labels)):
        groups = [] if labels is None else near_duplicates(labels)
        counts[f'near_duplicate_{kind}_labels'] = sum(map(len, groups))
    shared, order = _column_order(data)
    counts['labels_of_both_kinds'] = shared
    counts['suspicious_columns'] = 0 if order is None else 2
    return counts


def _shapes(data: KGData) -> dict[str, int]:
    r"""What is not wrong, but worth knowing."""
    counts = {}
    for split in _SPLITS:
        head, _, tail = data.columns(split)
        counts[f'{split}_self_loops'] = int((head == tail).sum())
        counts[f'{split}_reversed_pairs'] = int(_has_reverse(data, split).sum()) // 2
    facts = _distinct(data, 'train')
    total = torch.bincount(facts[:, 1], minlength=data.num_relations)
    # A loop is its own reverse and says nothing.
    loops = torch.bincount(facts[facts[:, 0] == facts[:, 2], 1], minlength=data.num_relations)
    both = torch.bincount(facts[_has_reverse(data, 'train'), 1], minlength=data.num_relations)
    counts['symmetric_relations'] = int(((both > 0) & (both >= _SYMMETRIC_SHARE * (total - loops))).sum())
    kinds = relation_kinds(data.fact_index('train'))
    for number, name in enumerate(RELATION_KINDS):
        counts[f'relations_{name}'] = int((kinds == number).sum())
    return counts


def _marked(size: int, *ids: Tensor) -> Tensor:
    mark = torch.zeros(size, dtype=torch.bool, device=ids[0].device)
    for part in ids:
        for chunk in part.split(_CHUNK):  # Indexing with int32 makes a copy in int64.
            mark[chunk] = True
    return mark


def _distinct(data: KGData, split: Split) -> Tensor:
    r"""The distinct facts of a split, in the order of their keys."""
    index = data.fact_index(split)
    key = index.keys[:index.num_facts]
    pattern, tail = index.unpacked(key)
    head = torch.div(pattern, max(index.num_relations, 1), rounding_mode='floor')
    return torch.stack([head, pattern - head * index.num_relations, tail], dim=1)


def _has_reverse(data: KGData, split: Split) -> Tensor:
    head, relation, tail = _distinct(data, split).unbind(1)
    return data.fact_index(split).contains(tail, relation, head) & (head != tail)


def _column_order(data: KGData) -> tuple[int, Optional[tuple[str, str, str]]]:
    r"""How many labels are those of an entity and of a relation, and which columns seem to hold heads, relations and
    tails if not those that were read as such.

    Where a column that was read as entities was meant as relations, it has few labels, and the other two columns, not
    it and another one, share labels.
    """
    if data.entity_labels is None or data.relation_labels is None:
        return 0, None
    facts = [data.columns(split) for split in _SPLITS]
    head, tail = (_marked(data.num_nodes or 0, *(part[end] for part in facts)) for end in (0, 2))
    relation = _marked(data.num_relations, *(part[1] for part in facts))
    # The entity that each relation is called like.
    entity = pd.Index(data.entity_labels, dtype=object).get_indexer(pd.Index(data.relation_labels, dtype=object))
    both = int((entity >= 0).sum())
    alike = torch.from_numpy(entity[entity >= 0]).to(head.device)
    alike = alike[relation[torch.from_numpy(entity >= 0).to(head.device)]]
    shared = {'head': int(head[alike].sum()), 'tail': int(tail[alike].sum())}
    between, number = int((head & tail).sum()), int(relation.sum())
    for few, other, order in ((int(tail.sum()), 'head', ('head', 'tail', 'relation')),
                              (int(head.sum()), 'tail', ('relation', 'head', 'tail'))):
        overlaps = few <= number and shared[other] > between
        unrelated = between == 0 == max(shared.values()) and number >= _FAR_MORE * few
        if overlaps or unrelated:
            return both, order
    return both, None


# Sentences ###################################################################

def suspicions(data: KGData, counts: dict[str, Any]) -> list[str]:
    r"""A sentence for each count that looks wrong."""
    return [*_about_columns(data, counts), *_about_splits(counts), *_about_labels(data, counts)]


def _about_columns(data: KGData, counts: dict[str, Any]) -> Iterator[str]:
    order = _column_order(data)[1] if counts['suspicious_columns'] else None
    if order is None:
        return
    facts = torch.cat([data.facts(split) for split in _SPLITS])
    relations, others = (facts[:, column].unique().numel() for column in (1, order.index('relation')))
    read = ('head', 'relation', 'tail')
    yield (f'the columns look exchanged: {relations} distinct labels were read as relations, and {others} as '
           f'{read[order.index("relation")]}s; if the columns are {", ".join(order)}, pass '
           f'{", ".join(f"{name}={order.index(name)}" for name in read)}')


def _about_splits(counts: dict[str, Any]) -> Iterator[str]:
    for split in _SPLITS:
        num_facts = counts[f'{split}_facts']
        part = {key.removeprefix(f'{split}_'): value for key, value in counts.items() if key.startswith(f'{split}_')}
        if part['duplicates']:
            yield f"{part['duplicates']} of the {num_facts} {split} facts are duplicates"
        if part.get('unseen_entities'):
            subject = _counted(part['unseen_entities'], 'entity', 'entities')
            yield (f"{subject} of the {split} split {_have(part['unseen_entities'])} no training fact; "
                   f"{part['facts_with_unseen_entities']} of its {num_facts} facts are affected")
        if part.get('unseen_relations'):
            subject = _counted(part['unseen_relations'], 'relation', 'relations')
            yield f"{subject} of the {split} split {_have(part['unseen_relations'])} no training fact"
        if part.get('facts_in_train'):
            yield f"{part['facts_in_train']} of the {num_facts} {split} facts are training facts too"
        if part.get('facts_in_valid'):
            yield f"{part['facts_in_valid']} of the {num_facts} {split} facts are validation facts too"
        if part.get('facts_reversed_in_train', 0) >= _REVERSED_SHARE * max(num_facts, 1):
            yield (f"{part['facts_reversed_in_train']} of the {num_facts} {split} facts (h, r, t) are training facts "
                   'in reverse, (t, r, h): models with symmetric scores, such as DistMult, have trained on them')
    if counts['relations_without_facts']:
        yield (f"{counts['relations_without_facts']} of the {counts['num_relations']} relations have no training "
               f'fact')


def _about_labels(data: KGData, counts: dict[str, Any]) -> Iterator[str]:
    for kind, labels in (('entity', data.entity_labels), ('relation', data.relation_labels)):
        number = counts[f'near_duplicate_{kind}_labels']
        if number and labels is not None:
            groups = near_duplicates(labels)[:_EXAMPLES]
            yield (f'{number} {kind} labels differ from another one only in case, spaces, Unicode form or invisible '
                   f'characters: {"; ".join(", ".join(map(ascii, group[:_EXAMPLES])) for group in groups)}')


def _counted(number: int, one: str, many: str) -> str:
    return f'{number} {one if number == 1 else many}'


def _have(number: int) -> str:
    return 'has' if number == 1 else 'have'


# The table ###################################################################

def _parts(report: DataReport) -> Iterator[Union[str, pd.DataFrame]]:
    r"""Lines and a table."""
    yield f'{report["num_nodes"]} entities, {report["num_relations"]} relations'
    yield ''
    by_split, further = report.tables()
    yield by_split.where(by_split.notna(), '')
    yield ''
    width = max(map(len, further.index))
    for title, number in further.items():
        yield f'{title:<{width}}  {number}'
    yield ''
    yield from (f'warning: {sentence}' for sentence in report.warnings)
    if not report.warnings:
        yield 'no warnings'


_ROWS = {
    'facts': 'facts',
    'duplicates': 'duplicates',
    'self_loops': 'self-loops',
    'reversed_pairs': 'pairs (h, r, t), (t, r, h)',
    'facts_in_train': 'in train too',
    'facts_in_valid': 'in valid too',
    'facts_reversed_in_train': 'in train reversed',
    'unseen_entities': 'unseen entities',
    'facts_with_unseen_entities': 'facts with unseen entities',
    'unseen_relations': 'unseen relations',
}
_FURTHER = {
    **{f'relations_{kind}': f'relations of kind {kind}' for kind in RELATION_KINDS},
    'symmetric_relations': 'symmetric relations',
    'relations_without_facts': 'relations without a training fact',
    'entities_without_facts': 'entities without a training fact',
    'isolated_entities': 'entities without any fact',
    'near_duplicate_entity_labels': 'nearly equal entity labels',
    'near_duplicate_relation_labels': 'nearly equal relation labels',
    'labels_of_both_kinds': 'labels of an entity and of a relation',
    'suspicious_columns': 'columns that look exchanged',
}
#: What should be zero: the rows and further counts of a report that its summary names.
_WRONG = ('duplicates', 'facts_in_train', 'facts_in_valid', 'facts_reversed_in_train', 'unseen_entities',
          'facts_with_unseen_entities', 'unseen_relations', 'relations_without_facts', 'isolated_entities',
          'near_duplicate_entity_labels', 'near_duplicate_relation_labels', 'suspicious_columns')
