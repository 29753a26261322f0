r"""One function for whatever holds a knowledge graph: :func:`load_dataset`."""
from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import re
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Union

import pandas as pd
import torch_geometric.data

from pyg_emu.core.errors import ArgumentError, DataError
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
    folders in :obj:`$PYG_EMU_DATA`, then PyG's and PyKEEN's downloads (:func:`dataset_names`). A known name comes
    before a folder in the working directory; write :obj:`./UMLS` to mean the latter.

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
    raise DataError(f'source: expected a name, a path, the URL of a database, a DataFrame, a PyG or PyKEEN dataset, or '
                    f'a KGData, got an object of type {type(source).__name__}')


def _is_split_graph(source: Any) -> bool:
    r"""Whether something is a training, a validation and a test graph, as RandomLinkSplit returns them."""
    kinds = (torch_geometric.data.Data, torch_geometric.data.HeteroData)
    return isinstance(source, (tuple, list)) and len(source) == len(SPLITS) and all(
        isinstance(part, kinds) for part in source)


def _as_it_is(data: KGData) -> KGData:
    return data


def dataset_names() -> list[str]:
    r"""The names that :func:`load_dataset` knows, those of folders in :obj:`$PYG_EMU_DATA` among them."""
    names = {_key(name): name for name in (*_folders(), *_BUNDLED, *_PYG, *_PYKEEN)}
    return sorted(names.values(), key=str.lower)


def _load_path_or_name(source: Union[str, os.PathLike], root: Optional[Union[str, os.PathLike]],
                       options: Mapping[str, Any]) -> KGData:
    known = {_key(name): name for name in dataset_names()}
    name = known.get(_key(source)) if isinstance(source, str) and not _looks_like_path(source) else None
    if name is not None:
        return _load_name(name, root, options)
    if os.fspath(source) == '':
        raise DataError('source: expected the name of a dataset or a path, got an empty one')
    try:
        path = Path(source).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, not allowed, no such user, a null byte
        raise DataError(f'{source}: cannot be read ({getattr(error, "strerror", None) or error})') from error
    if exists:
        return _call(_path_reader(path), path, options)
    if isinstance(source, str) and not _looks_like_path(source):
        nearest = difflib.get_close_matches(_key(source), list(known), n=1, cutoff=0.0)
        home = os.environ.get(DATA_VARIABLE)
        where = f'in ${DATA_VARIABLE}, {home}' if home else f'in ${DATA_VARIABLE}, which is not set'
        raise DataError(f'unknown dataset {source!r}, and no such folder or file, neither in the working directory nor '
                        f'{where}; did you mean {known[nearest[0]]!r}? Known: {", ".join(known.values())}')
    raise DataError(f'{path}: no such folder or file; expected a folder with train.txt, valid.txt and test.txt, or a '
                    f'file of facts')


def is_folder(source: str) -> bool:
    r"""Returns whether a recipe's source is read by :func:`from_folder`, as far as paths and URLs tell: a name is."""
    path = Path(source).expanduser()
    return not is_url(source) and not path.is_file() and not is_fact_store(path)


def absolute_source(source: str) -> str:
    r"""Returns a path that exists, or the URL of an SQLite database, in absolute form, other sources as they are."""
    if is_url(source):
        return absolute_url(source)
    path = Path(source).expanduser()
    known = source.lower() in (name.lower() for name in dataset_names())
    return source if known or not path.exists() else str(path.resolve())


def reader_options(source: str, options: Mapping[str, Any]) -> set[str]:
    r"""The options of :func:`load_dataset` that apply to a recipe's source.

    Args:
        source (str): A name, a path or a URL.
        options (dict): Options that are given for this source.

    Raises:
        DataError: If it is a path whose beginning contradicts its name or :obj:`format`, or that cannot be read.
    """
    path = Path(source).expanduser()
    if is_url(source) or (path.is_file() and _path_reader(path) is from_sql):
        return set(inspect.signature(from_sql).parameters)
    if is_fact_store(path):
        return set(inspect.signature(open_fact_store).parameters)
    if path.exists():
        return options_that_apply(path, options.get('format'), options.get('extra_files', ()))
    return set(inspect.signature(from_folder).parameters)


def _path_reader(path: Path) -> Callable[..., KGData]:
    if path.is_dir():
        return _folder_reader(path)
    return from_sql if path.is_file() and head_of(path).kind == 'sqlite' else from_file


def _load_name(name: str, root: Optional[Union[str, os.PathLike]], options: Mapping[str, Any]) -> KGData:
    folders = {_key(folder): path for folder, path in _folders().items()}
    folder = _bundled_folder(name) if name in _BUNDLED else None
    folder = folder or folders.get(_key(name))
    if folder is not None:
        return _call(_folder_reader(folder), folder, options)
    if name in _BUNDLED:
        raise DataError(f'{name} comes with PyKEEN, which is not installed: pip install pykeen, or {_put_it(name)}')
    root = Path.home() / '.cache' / 'pyg_emu' if root is None else Path(root).expanduser()
    try:
        if name in _PYG:
            module = importlib.import_module('torch_geometric.datasets')
            # PyG keeps ids alone, but leaves the files it read beside them.
            folder = Path(getattr(module, _PYG[name])(str(root / name)).raw_dir)
        else:
            module = importlib.import_module('pykeen.datasets')
            dataset = module.get_dataset(dataset=_PYKEEN[name], dataset_kwargs={'cache_root': root})
            dataset.validation  # noqa: B018  (downloads happen on first use)
    except Exception as error:
        raise DataError(f'{name} could not be downloaded to {root} ({type(error).__name__}: {error}); '
                        f'{_put_it(name)}') from error
    return _call(from_pykeen, dataset, options) if folder is None else _call(from_folder, folder, options)


def _folder_reader(folder: Path) -> Callable[..., KGData]:
    return open_fact_store if is_fact_store(folder) else from_folder


def _put_it(name: str) -> str:
    return f'set ${DATA_VARIABLE} to a folder that holds a folder {name} with train.txt, valid.txt and test.txt'


def _bundled_folder(name: str) -> Optional[Path]:
    # The files are read in place: importing PyKEEN takes seconds, and finding it does not.
    spec = importlib.util.find_spec('pykeen')
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / 'datasets' / name.lower()
    return folder if folder is not None and (folder / 'train.txt').is_file() else None


def _folders() -> dict[str, Path]:
    home = os.environ.get(DATA_VARIABLE)
    if not home:
        return {}
    try:
        return {path.name: path for path in sorted(Path(home).expanduser().iterdir()) if path.is_dir()}
    except OSError as error:
        raise DataError(f'${DATA_VARIABLE} is {home!r}, which is not a readable folder ({error.strerror})') from error


def _key(name: str) -> str:
    return re.sub('[^a-z0-9]', '', name.lower())


def _looks_like_path(source: str) -> bool:
    return '/' in source or os.sep in source or source.startswith('~')


def _call(function: Callable[..., KGData], source: Any, options: Mapping[str, Any]) -> KGData:
    accepted = list(inspect.signature(function).parameters)[1:]
    strange = [option for option in options if option not in accepted]
    if strange:
        reader = getattr(function, '__name__', 'load_dataset')
        raise ArgumentError(f'{strange[0]!r} is not an argument of {reader}, which reads this source; '
                            f'{"it takes " + ", ".join(accepted) if accepted else "it takes none"}')
    return function(source, **options)


def is_published(source: str) -> bool:
    r"""Returns whether a source is the name of a dataset whose files are not the user's: options that say how files are
    read do not apply to it.
    """
    if _looks_like_path(source):
        return False
    own = {*map(_key, _folders())} - {*map(_key, _BUNDLED)}
    return _key(source) in {*map(_key, (*_BUNDLED, *_PYG, *_PYKEEN))} - own
