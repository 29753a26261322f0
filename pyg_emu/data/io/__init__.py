r"""Where graphs come from and go to: names, folders, files, databases, tables, and the objects of PyG and PyKEEN."""
from pyg_emu.data.io.datasets import (
    dataset_names,
    from_dataframe,
    from_file,
    from_folder,
    from_hetero,
    from_pyg,
    from_pykeen,
    from_sql,
    load_dataset,
    open_fact_store,
    to_dataframe,
    to_folder,
    write_fact_store,
)
from pyg_emu.data.io.frames import write_table
from pyg_emu.data.io.vectors import read_vectors, write_vectors

__all__ = [
    'dataset_names',
    'from_dataframe',
    'from_file',
    'from_folder',
    'from_hetero',
    'from_pyg',
    'from_pykeen',
    'from_sql',
    'load_dataset',
    'open_fact_store',
    'read_vectors',
    'to_dataframe',
    'to_folder',
    'write_fact_store',
    'write_table',
    'write_vectors',
]
