r"""One function for whatever holds a knowledge graph: :func:`load_dataset`."""
from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import re
import unicodedata
import warnings
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Optional, Union

import pandas as pd
import torch_geometric.data

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.detection import head_of
from pyg_emu.data.io.files import from_file, from_folder, options_that_apply, to_folder
from pyg_emu.data.io.hetero import from_hetero
from pyg_emu.data.io.pyg import from_pyg
from pyg_emu.data.io.pykeen import from_pykeen
from pyg_emu.data.io.sql import absolute_url, from_sql, is_url
from pyg_emu.data.io.store import is_fact_store, open_fact_store, write_fact_store
from pyg_emu.data.io.tables import from_dataframe, to_dataframe

__all__ = ['absolute_source', 'dataset_names', 'from_dataframe', 'from_file', 'from_folder', 'from_hetero', 'from_pyg',
           'from_pykeen', 'from_sql', 'is_folder', 'is_published', 'load_dataset', 'open_fact_store', 'reader_options',
           'to_dataframe', 'to_folder', 'write_fact_store']

#: A folder whose sub-folders are datasets, each known by its name.
DATA_VARIABLE = 'PYG_EMU_DATA'

# Datasets whose files PyKEEN's wheel brings along.
_BUNDLED = ('Kinships', 'Nations', 'UMLS')
# Datasets that PyG downloads as files of labels, and the class that does it.
_PYG = {'FB15k-237': 'FB15k_237', 'WN18RR': 'WordNet18RR'}
# Datasets that PyKEEN downloads, and its name for them.
_PYKEEN = {'CoDEx-L': 'CoDExLarge', 'CoDEx-M': 'CoDExMedium', 'CoDEx-S': 'CoDExSmall', 'FB15k': 'FB15k', 'WN18': 'WN18',
           'YAGO3-10': 'YAGO310'}
_GRAPHS = (torch_geometric.data.Data, torch_geometric.data.HeteroData)


def load_dataset(source: Any, *, root: Optional[Union[str, os.PathLike]] = None, **options: Any) -> KGData:
    r"""Makes a :class:`~pyg_emu.KGData` of a named dataset, a folder, a file, a table, or a PyG or PyKEEN
    object.

    .. code-block:: python

        load_dataset('UMLS')                                         # by name; dashes and case do not matter
        load_dataset('path/to/folder')                               # train.txt, valid.txt, test.txt
        load_dataset('facts.tsv.gz', fractions=(0.9, 0.05, 0.05))    # one file, split at random
        load_dataset('dump.nt.gz')                                   # RDF; also Parquet and JSON Lines
        load_dataset('sqlite:///kg.db', table='facts')               # a database
        load_dataset('fb237_v1_ind', vocabulary=load_dataset('fb237_v1'))  # the same relations, other entities
        load_dataset('new_facts.tsv', entities=data)                 # the same ids for the same labels

    Names are looked for among the datasets of PyKEEN's wheel (UMLS, Nations, Kinships: no download), then among the
    folders in :obj:`$PYG_EMU_DATA`, then PyG's and PyKEEN's downloads (:func:`dataset_names`). The exact name of a
    dataset or folder comes before one that differs in case and punctuation. If several differ only so, the name has to
    be exact. A known name comes before a folder in the working directory; write :obj:`./UMLS` to mean the latter.

    Args:
        source (Any): A name; a path to a folder (:func:`from_folder`), fact store
            (:func:`~pyg_emu.data.io.store.open_fact_store`) or file (:func:`from_file`); the URL of a
            database, the path of an SQLite database, or an engine of SQLAlchemy (:func:`from_sql`); a
            :class:`pandas.DataFrame` (:func:`from_dataframe`); a dataset or :class:`~torch_geometric.data.Data` of PyG
            (:func:`from_pyg`); a :class:`~torch_geometric.data.HeteroData` (:func:`from_hetero`); several of these by
            split, or the three that :class:`~torch_geometric.transforms.RandomLinkSplit` returns; a dataset or factory
            of PyKEEN (:func:`from_pykeen`); or a :class:`~pyg_emu.KGData`, which is returned as it is.
        root (str or os.PathLike, optional): Where downloads are kept. (default: :obj:`~/.cache/pyg_emu`)
        **options (optional): Arguments of the function that :obj:`source` goes to, in parentheses above.

    Raises:
        DataError: If there is no such dataset, or it cannot be read.
        ArgumentError: If an option does not apply to such a source.
    """
    if isinstance(source, (str, os.PathLike)) and not is_url(source):
        return _load_path_or_name(source, root, options)
    if root is not None:
        raise ArgumentError(f'root: the folder of downloaded datasets does not apply to a {type(source).__name__}; '
                            'leave it out')
    if isinstance(source, str) or type(source).__module__.partition('.')[0] == 'sqlalchemy':
        return _call(from_sql, source, options)
    if isinstance(source, KGData):
        return _call(_as_it_is, source, options)
    if isinstance(source, pd.DataFrame):
        return _call(from_dataframe, source, options)
    if _is_split_graph(source):
        source = dict(zip(SPLITS, source))
    sample = next(iter(source.values()), None) if isinstance(source, Mapping) else source
    if isinstance(sample, (torch_geometric.data.Data, torch_geometric.data.Dataset)):
        return _call(from_pyg, source, options)
    # By name, so that PyKEEN is not imported for those who do not use it.
    if any(base.__module__.partition('.')[0] == 'pykeen' for base in type(sample).__mro__):
        return _call(from_pykeen, source, options)
    if isinstance(sample, torch_geometric.data.HeteroData):
        return _call(from_hetero, source, options)
    raise _unknown_source(source)


def _unknown_source(source: Any) -> DataError:
    r"""The error for a source that no reader takes. It says how to make one of facts in lists, arrays and tensors."""
    parts = list(source.values()) if isinstance(source, Mapping) else source
    remedy = ''
    if isinstance(parts, (tuple, list)) and parts and all(isinstance(part, _GRAPHS) for part in parts):
        remedy = '; name the split of each graph: {"train": ..., "valid": ..., "test": ...}'
    elif isinstance(parts, (tuple, list)) and parts and all(isinstance(part, pd.DataFrame) for part in parts):
        remedy = ("; make one table of them, pandas.concat([train.assign(split='train'), test.assign(split='test')]), "
                  "and pass split='split', too")
    elif isinstance(source, Iterable):
        remedy = ("; make a table of labels, pandas.DataFrame(rows, columns=['head', 'relation', 'tail']), or a graph "
                  'of ids, Data(edge_index=..., edge_type=...)')
    return DataError('source: expected a name, a path, the URL of a database, a DataFrame, a Data, HeteroData or '
                     'dataset of PyG, several of these by split, the three parts of RandomLinkSplit, a dataset of '
                     f'PyKEEN, or a KGData, got an object of type {type(source).__name__}{remedy}')


def _is_split_graph(source: Any) -> bool:
    r"""Whether something is a training, a validation and a test graph, as RandomLinkSplit returns them."""
    return isinstance(source, (tuple, list)) and len(source) == len(SPLITS) and all(
        isinstance(part, _GRAPHS) for part in source)


def _as_it_is(data: KGData) -> KGData:
    return data


def dataset_names() -> list[str]:
    r"""The names that :func:`load_dataset` knows, those of folders in :obj:`$PYG_EMU_DATA` among them."""
    return sorted({*_local_datasets(), *_BUNDLED, *_PYG, *_PYKEEN}, key=lambda name: (name.lower(), name))


class _Found(NamedTuple):
    r"""What a source is.

    Args:
        name (str, optional): The name of a dataset. (default: :obj:`None`, the source is a path)
        path (Path, optional): The folder or file, which need not exist if the source is a path.
            (default: :obj:`None`, the dataset has to be downloaded)
    """
    name: Optional[str] = None
    path: Optional[Path] = None

    @property
    def reader(self) -> Callable[..., KGData]:
        r"""The function that reads it."""
        if self.path is None:
            return from_pykeen if self.name in _PYKEEN else from_folder
        if self.path.is_dir():
            return open_fact_store if is_fact_store(self.path) else from_folder
        return from_sql if self.path.is_file() and head_of(self.path).kind == 'sqlite' else from_file


def _find(source: Union[str, os.PathLike]) -> _Found:
    r"""The dataset that a source names, or else its path. Every function that takes a source asks this one.

    Raises:
        DataError: If it is empty, several datasets have such a name, or there cannot be such a path.
    """
    if os.fspath(source) == '':
        raise DataError('source: expected the name of a dataset or a path, got an empty one')
    if isinstance(source, str) and not _looks_like_path(source):
        local, key = _local_datasets(), _key(source)
        similar = [source] if source in local else [name for name in local if key and _key(name) == key]
        if len(similar) > 1:
            raise DataError(f'{source!r} is the name of no dataset, but similar to those of {len(similar)}: '
                            f'{", ".join(map(repr, similar))}; write one of them, or ./{source} for a path')
        if similar:
            return _Found(similar[0], local[similar[0]])
        for name in (*_BUNDLED, *_PYG, *_PYKEEN):
            if _key(name) == key:
                return _Found(name)
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, not allowed, no such user, a null byte
        raise DataError(f'{shown(os.fspath(source))}: cannot be read ({getattr(error, "strerror", None) or error})'
                        ) from error
    return _Found(None, path)


def _load_path_or_name(source: Union[str, os.PathLike], root: Optional[Union[str, os.PathLike]],
                       options: Mapping[str, Any]) -> KGData:
    found = _find(source)
    if found.path is None:
        return _download(str(found.name), root, options)
    if found.path.exists():
        if not _is_published(found):
            return _call(found.reader, found.path, options)
        with warnings.catch_warnings():
            # Its other files, such as literals.txt of PyKEEN's wheel, are no facts that a user has forgotten.
            warnings.filterwarnings('ignore', '.* to hold facts', DataWarning)
            return _call(found.reader, found.path, options)
    if isinstance(source, str) and not _looks_like_path(source):
        names = dataset_names()
        nearest = difflib.get_close_matches(source.lower(), [name.lower() for name in names], n=1, cutoff=0.0)
        meant = next(name for name in names if name.lower() == nearest[0])
        home = os.environ.get(DATA_VARIABLE)
        where = f'in ${DATA_VARIABLE}, {home}' if home else f'in ${DATA_VARIABLE}, which is not set'
        raise DataError(f'unknown dataset {source!r}, and no such folder or file, neither in the working directory nor '
                        f'{where}; did you mean {meant!r}? Known: {", ".join(names)}')
    raise DataError(f'{found.path}: no such folder or file; expected a folder with train.txt, valid.txt and test.txt, '
                    f'or a file of facts')


def is_folder(source: str) -> bool:
    r"""Returns whether a recipe's source is read by :func:`from_folder`."""
    return not is_url(source) and _find(source).reader is from_folder


def absolute_source(source: Union[str, os.PathLike]) -> str:
    r"""Returns a path that exists, or the URL of an SQLite database, in absolute form, other sources as they are."""
    if isinstance(source, str) and is_url(source):
        return absolute_url(source)
    found = _find(source)
    if found.path is None or found.name is not None or (isinstance(source, str) and not found.path.exists()):
        return os.fspath(source)
    return str(found.path.resolve())


def reader_options(source: str, options: Mapping[str, Any]) -> set[str]:
    r"""The options of :func:`load_dataset` that apply to a recipe's source.

    Args:
        source (str): A name, a path or a URL.
        options (dict): Options that are given for this source.

    Raises:
        DataError: If it is a path whose beginning contradicts its name or :obj:`format`, or that cannot be read.
    """
    found = _Found() if is_url(source) else _find(source)
    reader = from_sql if is_url(source) else found.reader
    if reader in (from_file, from_folder) and found.path is not None and found.path.exists():
        return options_that_apply(found.path, options.get('format'), options.get('extra_files', ()))
    return set(inspect.signature(reader).parameters)


def _download(name: str, root: Optional[Union[str, os.PathLike]], options: Mapping[str, Any]) -> KGData:
    if name in _BUNDLED:
        raise DataError(f'{name} comes with PyKEEN, which is not installed: pip install pykeen, or {_put_it(name)}')
    root = Path.home() / '.cache' / 'pyg_emu' if root is None else Path(root).expanduser()
    try:
        if name in _PYG:
            module = importlib.import_module('torch_geometric.datasets')
            # PyG keeps ids alone, but leaves the files it read beside them.
            dataset = Path(getattr(module, _PYG[name])(str(root / name)).raw_dir)
        else:
            module = importlib.import_module('pykeen.datasets')
            dataset = module.get_dataset(dataset=_PYKEEN[name], dataset_kwargs={'cache_root': root})
            dataset.validation  # noqa: B018  (downloads happen on first use)
    except Exception as error:
        raise DataError(f'{name} could not be downloaded to {root} ({type(error).__name__}: {error}); '
                        f'{_put_it(name)}') from error
    return _call(_Found(name).reader, dataset, options)


def _put_it(name: str) -> str:
    return f'set ${DATA_VARIABLE} to a folder that holds a folder {name} with train.txt, valid.txt and test.txt'


def _bundled_folder(name: str) -> Optional[Path]:
    # The files are read in place: importing PyKEEN takes seconds, and finding it does not.
    spec = importlib.util.find_spec('pykeen')
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / 'datasets' / name.lower()
    return folder if folder is not None and (folder / 'train.txt').is_file() else None


def _local_datasets() -> dict[str, Path]:
    r"""The folders of datasets that need no download. Those of PyKEEN's wheel come first."""
    bundled = {name: _bundled_folder(name) for name in _BUNDLED}
    return {**_folders(), **{name: folder for name, folder in bundled.items() if folder is not None}}


def _folders() -> dict[str, Path]:
    home = os.environ.get(DATA_VARIABLE)
    if not home:
        return {}
    try:
        return {path.name: path for path in sorted(Path(home).expanduser().iterdir()) if path.is_dir()}
    except OSError as error:
        raise DataError(f'${DATA_VARIABLE} is {home!r}, which is not a readable folder ({error.strerror})') from error


def _key(name: str) -> str:
    r"""What names are compared by if none is the same: letters and digits of any script, in any case."""
    return re.sub(r'[\W_]', '', unicodedata.normalize('NFKC', name).casefold())


def _looks_like_path(source: str) -> bool:
    return '/' in source or os.sep in source or source.startswith('~')


def _call(function: Callable[..., KGData], source: Any, options: Mapping[str, Any]) -> KGData:
    accepted = list(inspect.signature(function).parameters)[1:]
    strange = [option for option in options if option not in accepted]
    if strange:
        near = difflib.get_close_matches(strange[0].lower(), accepted, n=1, cutoff=0.7)
        known = f'; did you mean {near[0]!r}? Its' if near else '; its'
        raise ArgumentError(f'load_dataset: {_KINDS[function]} has no option {strange[0]!r}'
                            f'{f"{known} options are " + ", ".join(accepted) if accepted else ", and no other one"}')
    return function(source, **options)


# What each reader reads, for messages.
_KINDS: dict[Callable[..., KGData], str] = {
    _as_it_is: 'a KGData', from_dataframe: 'a DataFrame', from_file: 'a file', from_folder: 'a folder',
    from_hetero: 'a HeteroData', from_pyg: 'a Data or dataset of PyG', from_pykeen: 'a dataset of PyKEEN',
    from_sql: 'a database', open_fact_store: 'a fact store',
}


def is_published(source: str) -> bool:
    r"""Returns whether a source is the name of a dataset whose files are not the user's: options that say how files are
    read do not apply to it.
    """
    return _is_published(_find(source))


def _is_published(found: _Found) -> bool:
    return found.name is not None and found.path not in _folders().values()
