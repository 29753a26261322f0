r"""Files of facts, in a folder or alone, to a :class:`~pyg_emu.KGData`, and folders of text back."""
from __future__ import annotations

import csv
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Collection, Literal, Optional, Sequence, Union

import pandas as pd

from pyg_emu.core.arguments import file_path, instance
from pyg_emu.core.errors import DataError
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.columns import COLUMNS, Column
from pyg_emu.data.io.detection import check_format, format_of
from pyg_emu.data.io.factfiles import FactFiles, options_of, refuse_others
from pyg_emu.data.io.folders import check_extra_files, check_required, find_splits, named_files, warn_of_unread_facts
from pyg_emu.data.io.layouts import LAYOUTS, OPTIONS, Layout, delimiter_of, layout_of, read_red_gnn
from pyg_emu.data.io.numbered import NumberedFacts
from pyg_emu.data.io.ogb import read_ogb
from pyg_emu.data.io.openke import read_openke
from pyg_emu.data.io.pykeen import read_pykeen_folder
from pyg_emu.data.io.rdf import Prefixes, Treatment
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS
from pyg_emu.data.io.tables import check_split_or_fractions, to_dataframe


def from_folder(
    folder: Union[str, os.PathLike],
    *,
    format: Optional[str] = None,
    require_splits: Collection[str] = SPLITS,
    extra_files: Collection[str] = (),
    part: Optional[Literal['train', 'inference']] = None,
    delimiter: Optional[str] = None,
    header: Optional[bool] = None,
    comment: Optional[str] = None,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    weights: Optional[Column] = None,
    literals: Optional[Treatment] = None,
    blank_nodes: Optional[Treatment] = None,
    graphs: Optional[Sequence[str]] = None,
    prefixes: Optional[Prefixes] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Reads a folder of :obj:`train.txt`, :obj:`valid.txt` and :obj:`test.txt`: lines of head, relation and tail, or
    another layout.

    File names may end in :obj:`.txt`, :obj:`.tsv` or :obj:`.csv`; in :obj:`.nt`, :obj:`.nq`, :obj:`.ttl`,
    :obj:`.trig`, :obj:`.rdf` or :obj:`.owl` (RDF); in :obj:`.parquet` or :obj:`.pq`; or in :obj:`.jsonl`,
    :obj:`.ndjson` or :obj:`.json`. All of them but Parquet may be compressed, with :obj:`.gz` appended. :obj:`valid`
    may also be called :obj:`validation`, :obj:`dev` or :obj:`val`. A warning names other files of the folder that look
    like facts. Labels are kept as written. Ids follow the alphabetical (code point) order of the labels of all splits,
    so they do not depend on the order of lines.

    The layouts of OpenKE (:obj:`train2id.txt`), OGB (:obj:`split/time/train.pt`), PyKEEN
    (:obj:`training/numeric_triples.tsv.gz`), RED-GNN (:obj:`facts.txt` beside :obj:`entities.txt`) and of inductive
    data as ULTRA reads it (:obj:`inference_graph.txt`, :obj:`train_ind.txt`, :obj:`msg.txt`, :obj:`inference.txt`) are
    recognised by these files. The first four keep their own ids.

    Args:
        folder (str or os.PathLike): The folder.
        format (str, optional): The format of the files: :obj:`"text"`, :obj:`"ntriples"`, :obj:`"nquads"`,
            :obj:`"turtle"`, :obj:`"trig"`, :obj:`"rdfxml"`, :obj:`"parquet"`, :obj:`"jsonl"`; or the layout of the
            folder: :obj:`"splits"`, :obj:`"openke"`, :obj:`"ogb"`, :obj:`"pykeen"`, :obj:`"red-gnn"`, :obj:`"ultra"`.
            (default: decided by the file names, and by the first line of each file if its name does not decide)
        require_splits (collection of str, optional): Splits that have to be there and hold facts; :obj:`"train"` always
            does. (default: :obj:`("train", "valid", "test")`)
        extra_files (collection of str, optional): Names of further files of the folder, whose facts are added to the
            training facts, such as :obj:`["facts.txt"]`. (default: :obj:`()`)
        part (str, optional): The graph of inductive data that is read: :obj:`"train"` or :obj:`"inference"`.
            (default: :obj:`"train"`)
        delimiter (str, optional): The character between columns. (default: a comma in :obj:`.csv`, else a tab)
        header (bool, optional): Whether the first line of each file names the columns, which are then found by name:
            head, relation, tail, or usual synonyms (subject, predicate, object; source, target; h, r, t; ...).
            (default: :obj:`None`, a first line of such names is a header, with a warning, unless they occur as labels
            in other lines)
        comment (str, optional): The prefix of lines that are not read. (default: :obj:`None`)
        head (str or int, optional): The column of the heads: its name, or its position from 0.
            (default: by name, or else 0)
        relation (str or int, optional): The column of the relations. (default: by name, or else 1)
        tail (str or int, optional): The column of the tails. (default: by name, or else 2)
        weights (str or int, optional): The column of the weights of facts (not for RDF), finite numbers above 0; see
            :class:`~pyg_emu.KGData`. Each copy of a fact keeps its own weight. (default: :obj:`None`, all facts count
            equally)
        literals, blank_nodes, graphs, prefixes: Only for RDF, see :func:`from_file`.
        vocabulary (KGData, optional): A graph whose relations, and their ids, this one shares, while its entities are
            its own: the graph to infer on in the inductive setting. (default: :obj:`None`)
        entities (KGData, optional): A graph whose entities keep their ids, and whose relations are shared as with
            :obj:`vocabulary`, so that rows of embeddings belong to the same labels. Other entities get the ids after
            them, and a warning names them. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is outside of its domain, or does not apply to the layout or a format.
        DataError: If a file is missing, empty or unreadable, or a line is not a fact; names file and line.
    """
    file_path('folder', folder)
    check_format(format, tuple(LAYOUTS))
    check_required(require_splits)
    check_extra_files(extra_files)
    folder = Path(folder)
    options = FactFiles(None if format in LAYOUTS else format, delimiter, header, comment, head, relation, tail, None,
                        literals, blank_nodes, graphs, prefixes, weights)
    layout = layout_of(folder, format, extra_files, part)
    if layout.name != 'splits':
        given = [*options.given, *(['extra_files'] if extra_files else []), *(['part'] if part is not None else [])]
        refuse_others(given, OPTIONS[layout.name], f'{folder} has {LAYOUTS[layout.name]}')
        layout.required(folder, require_splits, part)
    if layout.name not in ('splits', 'ultra'):
        return _numbered(folder, layout, options).to_graph(folder, vocabulary, entities)
    collector = Collector(vocabulary, entities)
    found = layout.splits or find_splits(folder, require_splits, options.format)
    extra = named_files(folder, extra_files)
    for split, path in [*found.items(), *(('train', path) for path in extra)]:
        files = options if layout.name == 'splits' else replace(options, delimiter=delimiter_of(path, options))
        files.add_to(collector, split, path)
    for split, path in found.items():
        if collector.count(split) == 0 and (split == 'train' or split in require_splits):
            raise DataError(f"{path}: the split '{split}' has no facts; expected lines of head, relation and tail")
    if layout.name == 'splits':
        warn_of_unread_facts(folder, [*found.values(), *extra], options.text)
    return collector.finish()


def _numbered(folder: Path, layout: Layout, options: FactFiles) -> NumberedFacts:
    if layout.name == 'openke':
        return read_openke(folder, [*layout.splits], options.text.chosen)
    if layout.name == 'ogb':
        return read_ogb(folder, [*layout.splits])
    if layout.name == 'pykeen':
        return read_pykeen_folder(folder, [*layout.splits])
    return read_red_gnn(folder, layout.splits, options)


def from_file(
    path: Union[str, os.PathLike],
    fractions: Optional[Sequence[float]] = None,
    seed: int = 0,
    *,
    format: Optional[str] = None,
    delimiter: Optional[str] = None,
    header: Optional[bool] = None,
    comment: Optional[str] = None,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    split: Optional[Column] = None,
    weights: Optional[Column] = None,
    literals: Optional[Treatment] = None,
    blank_nodes: Optional[Treatment] = None,
    graphs: Optional[Sequence[str]] = None,
    prefixes: Optional[Prefixes] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Reads one file of facts, and splits them as :func:`~pyg_emu.data.io.tables.from_dataframe` does.

    .. code-block:: python

        load_dataset('facts.tsv.gz', fractions=(0.9, 0.05, 0.05))
        load_dataset('dump.nt.gz', prefixes={'dbr': 'http://dbpedia.org/resource/'})
        load_dataset('facts.parquet', head='s', relation='p', tail='o', split='split')

    RDF is read through pyoxigraph: labels are IRIs without angle brackets, :obj:`"_:name"` for blank nodes, and, if
    they are kept, literals as N-Triples writes them, :obj:`'"Bonn"@de'`. Blank nodes without a label in the file are
    named by file and order, :obj:`"_:facts.ttl#1"`. The columns are subject, predicate, object, and graph, if there is
    one.

    Args:
        path (str or os.PathLike): The file.
        fractions (sequence of float, optional): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int, optional): The same seed gives the same split. (default: :obj:`0`)
        format (str, optional): :obj:`"text"`, :obj:`"ntriples"`, :obj:`"nquads"`, :obj:`"turtle"`, :obj:`"trig"`,
            :obj:`"rdfxml"`, :obj:`"parquet"` or :obj:`"jsonl"`. (default: decided by the ending of the file name, and
            by the first line if the ending is :obj:`.txt` or unknown)
        delimiter, header, comment, head, relation, tail, weights, vocabulary, entities: See :func:`from_folder`.
        split (str or int, optional): Column (not for RDF) that holds :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`,
            instead of :obj:`fractions`. (default: :obj:`None`)
        literals (str, optional): What to do with statements about literals: :obj:`"leave out"`, with a warning that
            counts them, :obj:`"keep"`, or :obj:`"refuse"`. (default: :obj:`"leave out"`)
        blank_nodes (str, optional): The same for blank nodes. (default: :obj:`"keep"`)
        graphs (list of str, optional): The IRIs of the named graphs that are read; :obj:`""` is the default graph.
            (default: all of them, as one graph)
        prefixes (dict or bool, optional): Prefixes by which IRIs are shortened, such as
            :obj:`{"dbr": "http://dbpedia.org/resource/"}`, or :obj:`True` for those that the file declares.
            (default: :obj:`None`, IRIs in full)

    Raises:
        ArgumentError: If an argument is outside of its domain, or does not apply to the format.
        DataError: If the file is empty or unreadable, its beginning contradicts its name or :obj:`format`, or a line is
            not a fact; names file and line.
    """
    file_path('path', path)
    check_split_or_fractions(split, fractions)
    options = FactFiles(format, delimiter, header, comment, head, relation, tail, split, literals, blank_nodes, graphs,
                        prefixes, weights)
    path = Path(path)
    collector = Collector(vocabulary, entities)
    options.add_to(collector, 'all', path)
    if split is None and collector.count('all') == 0:
        raise DataError(f'{path}: the file has no facts; expected lines of head, relation and tail')
    return collector.finish(DEFAULT_FRACTIONS if fractions is None and split is None else fractions, seed)


def options_that_apply(path: Path, format: Optional[str] = None, extra_files: Collection[str] = ()) -> set[str]:
    r"""The arguments of :func:`from_file` or :func:`from_folder` that apply to a file or folder.

    Args:
        path (Path): The file or folder.
        format (str, optional): The argument :obj:`format`. (default: :obj:`None`)
        extra_files (collection of str, optional): The argument :obj:`extra_files`. (default: :obj:`()`)

    Raises:
        DataError: If it cannot be read, or its beginning contradicts its name or :obj:`format`.
    """
    shared = {'format', 'vocabulary', 'entities'}
    if path.is_file():
        return {*shared, 'fractions', 'seed', *options_of(format_of(path, format))}
    layout = layout_of(path, format, extra_files)
    if layout.name != 'splits':
        return {*shared, 'require_splits', *OPTIONS[layout.name]}
    found = find_splits(path, (), format)
    own = {option for file in found.values() for option in options_of(format_of(file, None if format in LAYOUTS else
                                                                                 format))} - {'split'}
    return {*shared, 'require_splits', 'extra_files', *own}


def to_folder(data: KGData, folder: Union[str, os.PathLike]) -> Path:
    r"""Writes :obj:`train.txt`, :obj:`valid.txt` and :obj:`test.txt`, tab-separated, as :func:`from_folder` reads them.

    Weights of facts are a fourth column, which :obj:`weights=3` reads. A split without facts gets no file. Each file is
    written completely or not at all. There is no header. If the first fact of a split looks like one, read the folder
    with :obj:`header=False`.

    Args:
        data (KGData): The graph. If it has no labels, its ids are written instead.
        folder (str or os.PathLike): The folder, created if it does not exist.

    Raises:
        DataError: If a label cannot be written (it is empty, holds a tab, a line break or a null byte, or is no valid
            Unicode), or two entities have the same label, or the folder cannot be written.
    """
    instance('data', data, KGData)
    file_path('folder', folder)
    folder = Path(folder)
    table = to_dataframe(data)
    for column in COLUMNS:
        labels = pd.Series(table[column].unique(), dtype=object)
        bad = labels[labels.str.contains('[\t\r\n\x00]') | (labels == '')]
        if len(bad) > 0:
            raise DataError(f'the {column} label {bad.iloc[0]!r} cannot be written to a tab-separated file; expected '
                            f'text without tabs, line breaks and null bytes')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            part = table.loc[table['split'] == split, [*COLUMNS, *(['weight'] if 'weight' in table else [])]]
            target = folder / f'{split}.txt'
            if len(part) > 0:
                _write(part, target)
            else:
                target.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        raise DataError(f'{folder}: a label is not valid Unicode text ({error}); expected text that UTF-8 can '
                        f'hold') from error
    except OSError as error:
        raise DataError(f'{folder}: cannot be written ({error.strerror})') from error
    return folder


def _write(part: pd.DataFrame, target: Path) -> None:
    # A label may begin with what would be taken for a byte order mark: a real one in front of it protects it.
    encoding = 'utf-8-sig' if str(part.iat[0, 0]).startswith('\ufeff') else 'utf-8'
    with tempfile.NamedTemporaryFile('w', encoding=encoding, newline='', dir=target.parent, prefix=f'.{target.name}.',
                                     delete=False) as handle:
        try:
            part.to_csv(handle, sep='\t', header=False, index=False, quoting=csv.QUOTE_NONE, lineterminator='\n')
            handle.flush()
            os.fsync(handle.fileno())
        except BaseException:
            os.unlink(handle.name)
            raise
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, target)
