from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.prediction import predict
from pyg_emu.evaluation.questions import answer

NAMES, VERBS = ['ann', 'bob', 'cat', 'dan'], ['knows', 'likes']
TABLE = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(0))


def make_data(labels: bool = True) -> KGData:
    names: dict[str, Any] = {'entity_labels': NAMES, 'relation_labels': VERBS} if labels else {}
    return KGData(torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 1]), 4, 2, **names)


def one(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
    rows = TABLE if side == 'tail' else TABLE.permute(2, 1, 0)
    return rows[known, rel_type]


def test_questions_of_all_kinds(tmp_path: Path) -> None:
    rows = [('ann', 'knows', '?'), ('?', 'likes', 'bob'), ('ann', '?', 'cat'), ('ann', 'knows', '?'),
            ('dan', 'likes', '?')]
    frame = pd.DataFrame(rows, columns=['head', 'relation', 'tail'])
    data = make_data()
    found = answer(one, data, frame, k=2)
    assert list(found) == ['question', 'head', 'relation', 'tail', 'rank', 'score', 'known']
    assert found['question'].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and found['rank'].tolist() == [1, 2] * 5
    for number, (head, relation, tail) in enumerate(rows):
        known = {'heads': head, 'relations': relation, 'tails': tail}
        expected = predict(one, data, k=2, **{name: value for name, value in known.items() if value != '?'})
        own = found[found['question'] == number].drop(columns='question').reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.DataFrame(own), pd.DataFrame(expected), check_dtype=False)
    path = tmp_path / 'questions.tsv'
    path.write_text(''.join('\t'.join(row) + '\n' for row in rows))
    pd.testing.assert_frame_equal(answer(one, data, path, k=2), found)
    path.write_text('object\tsubject\tpredicate\n' + ''.join(f'{t}\t{h}\t{r}\n' for h, r, t in rows))
    pd.testing.assert_frame_equal(answer(one, data, str(path), k=2), found)
    # Tables in files, where null stands for the answer, too.
    pytest.importorskip('pyarrow')
    for table in (frame, frame.replace('?', None)):
        table.to_parquet(tmp_path / 'questions.parquet')
        table.to_json(tmp_path / 'questions.jsonl', orient='records', lines=True)
        for name in ('questions.parquet', 'questions.jsonl'):
            pd.testing.assert_frame_equal(answer(one, data, tmp_path / name, k=2), found)
    # Only two of the columns, and options of predict.
    path.write_text('head\trelation\nann\tknows\nann\tlikes\n')
    left = answer(one, data, path, exclude_known=True)
    assert left['question'].tolist() == [0] * 3 + [1] * 3 and not left['known'].any()
    pairs = answer(one, data, frame.replace('?', None).iloc[:2])
    assert set(pairs['question']) == {0, 1}
    assert len(answer(one, data, frame[:0])) == 0


def test_without_labels_and_without_answers() -> None:
    frame = pd.DataFrame({'head': [0, 3], 'relation': [0, 1]})
    found = answer(one, make_data(labels=False), frame, k=1)
    assert found['question'].tolist() == [0, 1] and found['head'].tolist() == [0, 3]
    none = answer(one, make_data(labels=False), frame, candidates=[1], exclude_known=True)
    assert none['question'].tolist() == [1]


@pytest.mark.parametrize('start', [None, 10, 2**53 + 1])
def test_missing_values_beside_integers(tmp_path: Path, start: Any) -> None:
    data = make_data(labels=False)
    if start is not None:
        data.entity_labels, data.relation_labels = ([str(start + 2 * number) for number in range(size)]
                                                    for size in (4, 2))
    one_id, two_id = (number if start is None else start + 2 * number for number in (1, 2))
    asked = [(one_id, one_id, None), (None, one_id, two_id), (two_id, None, one_id)]
    expected = answer(one, data, pd.DataFrame(asked, columns=['head', 'relation', 'tail'], dtype=object).fillna('?'))
    assert expected['question'].tolist() == [0] * 4 + [1] * 4 + [2] * 2
    frame = pd.DataFrame(asked, columns=['head', 'relation', 'tail'])
    assert all(kind.kind == 'f' for kind in frame.dtypes)
    exact = pd.DataFrame({name: pd.array(values, dtype='Int64') for name, values in zip(frame, zip(*asked))})
    tables = [exact]
    if start != 2**53 + 1:
        tables += [frame, frame.astype('float32')]
    else:
        # Floats of this size may stand for other integers.
        with pytest.raises(DataError, match='row 0'):
            answer(one, data, frame)
    for table in tables:
        pd.testing.assert_frame_equal(answer(one, data, table), expected)
    pyarrow = pytest.importorskip('pyarrow')
    from pyarrow.parquet import write_table
    # Without the types of pandas, as other programs write it.
    write_table(pyarrow.Table.from_pandas(exact).replace_schema_metadata(None), tmp_path / 'questions.parquet')
    exact.to_json(tmp_path / 'questions.jsonl', orient='records', lines=True)
    for name in ('questions.parquet', 'questions.jsonl'):
        pd.testing.assert_frame_equal(answer(one, data, tmp_path / name), expected)


def test_floats_are_no_labels() -> None:
    for values, tails in (([1.0, 2.0], ['?', '?']), ([1.5, None], ['?', 1])):
        with pytest.raises(DataError, match="row 0: .*'1.[05]'"):
            answer(one, make_data(labels=False), pd.DataFrame({'head': values, 'relation': [0, 0], 'tail': tails}))


@pytest.mark.parametrize('rows, told', [
    ([('ann', 'knows', 'bob')], "row 0.*'ann', 'knows', 'bob'"),
    ([('ann', 'knows', '?'), ('?', 'knows', '?')], "row 1.*'knows'"),
    ([('ann', 'knows', '?'), ('eve', 'knows', '?')], "row 1: .*'eve'"),
    ([('ann', 'know', '?')], "row 0: .*'know'.*'knows'"),
])
def test_bad_rows(rows: list[tuple[str, ...]], told: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(rows, columns=['head', 'relation', 'tail'])
    with pytest.raises(DataError, match=f'questions: {told}'):
        answer(one, make_data(), frame)
    path = tmp_path / 'q.tsv'
    path.write_text(''.join('\t'.join(row) + '\n' for row in rows))
    with pytest.raises(DataError, match=f'q.tsv:{len(rows)}: '):
        answer(one, make_data(), path)


def test_bad_sources(tmp_path: Path) -> None:
    (tmp_path / 'q.tsv').write_text('ann\tknows\n')
    with pytest.raises(DataError, match='q.tsv:1: .*3'):
        answer(one, make_data(), tmp_path / 'q.tsv')
    (tmp_path / 'q.tsv').write_text('')
    for source in (tmp_path / 'q.tsv', tmp_path / 'missing.tsv', pd.DataFrame({'head': ['ann']})):
        with pytest.raises(DataError):
            answer(one, make_data(), source)
    (tmp_path / 'q.jsonl').write_text('{"head": "ann", "relation": "knows"}\n{"head": "eve", "relation": "knows"}\n')
    with pytest.raises(DataError, match="q.jsonl: row 2: .*'eve'"):
        answer(one, make_data(), tmp_path / 'q.jsonl')
    (tmp_path / 'q.nt').write_text('<x:ann> <x:knows> <x:bob> .\n')
    with pytest.raises(DataError, match='q.nt: .*Parquet.*N-Triples'):
        answer(one, make_data(), tmp_path / 'q.nt')
    with pytest.raises(ArgumentError, match='questions'):
        answer(one, make_data(), [('ann', 'knows', '?')])  # type: ignore[arg-type]
    for option in ('heads', 'foo'):
        with pytest.raises(ArgumentError, match=f'{option}: answer .*exclude_known'):
            answer(one, make_data(), pd.DataFrame({'head': ['ann'], 'relation': ['knows']}), **{option: 'ann'})


def test_questions_whose_labels_are_like_names_of_columns(tmp_path: Path) -> None:
    data = KGData(torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 1]), entity_labels=['x', 'y', 'a', 'b'],
                  relation_labels=['r', 'p'])
    for content in ('x\tr\t\ny\tp\t?\n', 'x\tr\t?\ny\tp\t\n', '\thead\trelation\n0\tx\tr\n1\ty\tp\n',
                    '\thead\trelation\ttail\n0\tx\tr\t\n1\ty\tp\t\n'):
        (tmp_path / 'a.tsv').write_text(content)
        found = answer(one, data, tmp_path / 'a.tsv', k=1)
        assert found['head'].tolist() == ['x', 'y'] and found['relation'].tolist() == ['r', 'p']
