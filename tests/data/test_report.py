r"""Counts of what looks wrong, by hand and by brute force, and the sentences that they lead to."""
from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pyg_emu.data.graph import KGData
from pyg_emu.data.report import DataReport, make_warnings

FACTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 4)), max_size=12)
SPLITS = ('train', 'valid', 'test')


def graph(train: Any, valid: Any = (), test: Any = (), **options: Any) -> KGData:
    edges = {}
    for prefix, facts in zip(('', 'valid_', 'test_'), (train, valid, test)):
        facts = torch.tensor(list(facts), dtype=torch.int64).view(-1, 3)
        edges[f'{prefix}edge_index'], edges[f'{prefix}edge_type'] = facts[:, [0, 2]].t().contiguous(), facts[:, 1]
    return KGData(**{**edges, **options})


def labelled(rows: list[tuple[str, str, str]]) -> KGData:
    entities = sorted({label for head, _, tail in rows for label in (head, tail)})
    relations = sorted({relation for _, relation, _ in rows})
    return graph([(entities.index(h), relations.index(r), entities.index(t)) for h, r, t in rows],
                 entity_labels=entities, relation_labels=relations)


def test_suspicious_data_is_counted() -> None:
    data = graph([(0, 0, 1), (0, 0, 1), (1, 0, 0), (0, 0, 1)], [(0, 0, 1), (2, 1, 0), (3, 0, 2)],
                 [(1, 0, 2), (1, 0, 2)], num_nodes=5, num_relations=4)
    report = data.report()
    assert report == {
        'num_nodes': 5, 'num_relations': 4, 'isolated_entities': 1, 'relations_without_facts': 3,
        'entities_without_facts': 3,
        'train_facts': 4, 'train_duplicates': 2, 'train_self_loops': 0, 'train_reversed_pairs': 1,
        'valid_facts': 3, 'valid_duplicates': 0, 'valid_self_loops': 0, 'valid_reversed_pairs': 0,
        'valid_unseen_entities': 2, 'valid_facts_with_unseen_entities': 2, 'valid_unseen_relations': 1,
        'valid_facts_in_train': 1, 'valid_facts_reversed_in_train': 1,
        'test_facts': 2, 'test_duplicates': 1, 'test_self_loops': 0, 'test_reversed_pairs': 0,
        'test_unseen_entities': 1, 'test_facts_with_unseen_entities': 2, 'test_unseen_relations': 0,
        'test_facts_in_train': 0, 'test_facts_reversed_in_train': 0, 'test_facts_in_valid': 0,
        'near_duplicate_entity_labels': 0, 'near_duplicate_relation_labels': 0, 'labels_of_both_kinds': 0,
        'suspicious_columns': 0, 'symmetric_relations': 1,
        'relations_1-1': 1, 'relations_1-N': 0, 'relations_N-1': 0, 'relations_N-N': 0,
    }
    facts = ['2 of the 4 train', '2 entities of the valid split', '1 relation of the valid', '1 of the 3 valid',
             '1 of the 2 test', '1 entity of the test split', '3 of the 4 relations']
    assert len(report.warnings) == len(facts)
    assert all(sentence.startswith(fact) for sentence, fact in zip(report.warnings, facts))
    assert make_warnings(data) == report.warnings
    text = str(report)
    assert '5 entities, 4 relations' in text and all(sentence in text for sentence in report.warnings)


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
@given(FACTS.filter(len), FACTS, FACTS)
@example([(0, 0, 1), (1, 0, 0), (2, 0, 2)], [], [])  # loops make a relation no less symmetric
def test_counts_equal_brute_force(train: list, valid: list, test: list) -> None:
    report = graph(train, valid, test, num_nodes=5, num_relations=3).report()
    parts = dict(zip(SPLITS, (train, valid, test)))
    for split, rows in parts.items():
        distinct = set(rows)
        assert report[f'{split}_duplicates'] == len(rows) - len(distinct)
        assert report[f'{split}_self_loops'] == sum(head == tail for head, _, tail in rows)
        pairs = [1 for a, b in combinations(sorted(distinct), 2) if a == b[::-1]]
        assert report[f'{split}_reversed_pairs'] == len(pairs)
        if split != 'train':
            assert report[f'{split}_facts_in_train'] == sum(row in train for row in rows)
            assert report[f'{split}_facts_reversed_in_train'] == sum(
                row[::-1] in train and row[0] != row[2] for row in rows)
    assert report['test_facts_in_valid'] == sum(row in valid for row in test)
    used = {end for rows in parts.values() for row in rows for end in row[::2]}
    assert report['isolated_entities'] == 5 - len(used)
    symmetric = 0
    for relation in range(3):
        directed = {row for row in train if row[1] == relation and row[0] != row[2]}
        symmetric += bool(directed) and sum(row[::-1] in directed for row in directed) >= 0.9 * len(directed)
    assert report['symmetric_relations'] == symmetric


def test_reversed_test_facts_are_warned_of() -> None:
    # An undirected graph whose directions were split apart, beside one symmetric fact among many.
    ring = [(a, 0, (a + 1) % 10) for a in range(10)]
    report = graph(ring, test=[row[::-1] for row in ring[:4]]).report()
    assert report['test_facts_reversed_in_train'] == 4
    assert [sentence for sentence in report.warnings if '4 of the 4 test' in sentence]
    report = graph(ring, test=[ring[0][::-1], *((a, 0, a) for a in range(9))]).report()
    assert report.warnings == []
    # Which is not to say that nothing is to be looked at: the count is in the table.
    assert str(report).splitlines()[-1] == 'no warnings' and 'nothing' not in report.summary()


@pytest.mark.parametrize(('first', 'second'), [
    ('Paris', 'Paris '), ('Paris', ' Paris'), ('New York', 'New  York'), ('New York', 'New\u00a0York'),
    ('Paris', 'PARIS'), ('caf\u00e9', 'cafe\u0301'), ('Stra\u00dfe', 'STRASSE'), ('Paris', 'Paris\u200b'),
    ('Paris', '\ufeffParis'), ('\uff21', 'a'),
])
def test_labels_that_look_alike_are_counted(first: str, second: str) -> None:
    rows = [(first, 'is', 'x'), (second, 'is', 'y'), ('other', 'is', 'x')]
    report = labelled(rows).report()
    assert report['near_duplicate_entity_labels'] == 2 and report['near_duplicate_relation_labels'] == 0
    sentence, = report.warnings
    assert ascii(first) in sentence and ascii(second) in sentence
    report = labelled([('a', first, 'b'), ('a', second, 'b')]).report()
    assert report['near_duplicate_entity_labels'] == 0 and report['near_duplicate_relation_labels'] == 2


def test_labels_that_differ_are_not_counted() -> None:
    rows = [('01', 'r', '1'), ('1.0', 'r', '10'), ('m/0a', 'r', 'm/0b'), ('New_York', 'r', 'New York'),
            ('NA', 'r', 'NaN')]
    assert labelled(rows).report()['near_duplicate_entity_labels'] == 0


PEOPLE = [('ann', 'likes', 'bob'), ('bob', 'likes', 'cid'), ('cid', 'knows', 'ann'), ('dan', 'knows', 'bob')]
SHOPPING = [(f'user {number % 12}', ('buys', 'sees')[number % 2], f'item {number}') for number in range(30)]


@pytest.mark.parametrize('rows', [PEOPLE, SHOPPING])
@pytest.mark.parametrize(('order', 'advice'), [
    ((0, 2, 1), 'head=0, relation=2, tail=1'), ((1, 0, 2), 'head=1, relation=0, tail=2'),
])
def test_exchanged_columns_are_suspicious(rows: list, order: tuple[int, int, int], advice: str) -> None:
    assert labelled(rows).report()['suspicious_columns'] == 0
    report = labelled([(row[order[0]], row[order[1]], row[order[2]]) for row in rows]).report()
    assert report['suspicious_columns'] == 2
    sentence = report.warnings[0]
    assert advice in sentence and ' 2 ' in sentence


def test_many_relations_are_not_suspicious() -> None:
    # As in Nations: more relations than entities. As in graphs of numbers: relations called like entities.
    many = [(f'e{number % 7}', f'r{number}', f'e{number % 5}') for number in range(70)]
    numbers = [(str(number % 9), str(number % 3), str(number * 7 % 9)) for number in range(40)]
    apart = [(str(number), str(number % 3), str(100 + number % 20)) for number in range(40)]
    for rows in (many, numbers, apart):
        report = labelled(rows).report()
        assert report['suspicious_columns'] == 0 and not any('columns' in sentence for sentence in report.warnings)


def test_a_report_prints_as_a_table() -> None:
    report = graph([(0, 0, 1), (1, 0, 2)], test=[(0, 0, 2)]).report()
    assert isinstance(report, DataReport) and report['train_facts'] == 2
    lines = str(report).splitlines()
    assert lines[0] == '3 entities, 1 relations' and lines[3].split() == ['facts', '2', '0', '1']
    assert 'no warnings' in lines[-1] and sum('warning' in line for line in lines) == 1


def test_summary_names_sizes_and_what_looks_wrong() -> None:
    data = graph([(0, 0, 1), (0, 0, 1), (1, 0, 0), (0, 0, 1)], [(0, 0, 1), (2, 1, 0), (3, 0, 2)],
                 [(1, 0, 2), (1, 0, 2)], num_nodes=5, num_relations=4)
    summary = data.report().summary()
    assert summary.count('\n') == 1
    for fact in ('5 entities', '4 relations', '4 train', '3 valid', '2 test', 'train duplicates: 2',
                 'valid in train reversed: 1', 'test duplicates: 1', 'valid unseen entities: 2',
                 'relations without a training fact: 3', 'entities without any fact: 1'):
        assert fact in summary, fact
    assert 'valid duplicates' not in summary and 'equal' not in summary
    clean = graph([(0, 0, 1), (1, 0, 2)], [(0, 0, 2)], num_nodes=3, num_relations=1).report()
    assert 'nothing' in clean.summary() and ': 0' not in clean.summary()


def test_a_report_shows_itself_in_a_notebook() -> None:
    report = labelled([('a', 'r', 'b'), ('a', 'r', 'b'), ('<A>', 'r', 'b')]).report()
    shown = report._repr_html_()
    assert '<table' in shown and 'duplicates' in shown and '3 entities' in shown
    report.warnings.append('<b>')
    assert '<b>' not in report._repr_html_() and '&lt;b&gt;' in report._repr_html_()
