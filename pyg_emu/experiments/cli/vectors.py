r"""The commands :obj:`pyg-emu export | neighbors`."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyg_emu.experiments.cli.options import Formatter, add_common
from pyg_emu.experiments.cli.run import add_run, labels_in, labels_of, open_options, run_dir_of

_EXPORT = """\
Write the vectors of all entities or relations with their labels. The ending of the file decides the format: .parquet,
.safetensors, or .txt and .vec for the text format of word2vec. A folder gets the files of the TensorBoard projector.

examples:
  pyg-emu export --run runs/umls --output entities.parquet
  pyg-emu export --run runs/umls --kind relation --output relations.safetensors
  pyg-emu export --run runs/umls --output projector
"""

_NEIGHBORS = """\
Print the entities whose vectors are most similar to those of given entities.

examples:
  pyg-emu neighbors --run runs/umls --entity virus -k 5
"""


def add_vectors(commands: Any) -> None:
    r"""Adds the commands to the parser."""
    export = commands.add_parser('export', help='write vectors for other programs', description=_EXPORT,
                                 formatter_class=Formatter)
    export.set_defaults(command=_export)
    add_run(export)
    export.add_argument('--output', metavar='FILE|DIR', required=True, help='the file, or the folder of the projector')
    export.add_argument('--kind', choices=('entity', 'relation'), default='entity', help='(default: entity)')
    export.add_argument('--format', choices=('parquet', 'safetensors', 'word2vec', 'projector'),
                        help='(default: by the ending)')
    add_common(export)

    neighbors = commands.add_parser('neighbors', help='print the most similar entities', description=_NEIGHBORS,
                                    formatter_class=Formatter)
    neighbors.set_defaults(command=_neighbors)
    add_run(neighbors)
    neighbors.add_argument('--entity', nargs='+', metavar='LABEL', required=True, help='the entities')
    neighbors.add_argument('-k', type=int, default=10, metavar='K', help='neighbours of each (default: 10)')
    neighbors.add_argument('--similarity', choices=('cosine', 'dot', 'euclidean'), default='cosine',
                           help='(default: cosine)')
    neighbors.add_argument('--candidates', metavar='FILE', help='only these entities may be neighbours: a file with a '
                                                                'label on each line')
    neighbors.add_argument('--csv', action='store_true', help='print CSV')
    add_common(neighbors)


def _export(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    from pyg_emu.data.io.vectors import format_of, write_vectors
    from pyg_emu.evaluation.vectors import embeddings
    format_of('--output', options.output, options.format)
    model, data, _, _ = open_options(options, run_dir, whole=True)
    vectors = embeddings(model, data, options.kind)
    path = write_vectors(vectors, options.output, options.format)
    print(f'{path}: {len(vectors)} vectors of {vectors.shape[1]} components')


def _neighbors(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    from pyg_emu.evaluation.vectors import neighbors
    model, data, _, name = open_options(options, run_dir, whole=True)
    with labels_of(name):
        candidates = None if options.candidates is None else [
            record[0] for record in labels_in(Path(options.candidates), ('entity', ), data)]
        frame = neighbors(model, data, options.entity, options.k, similarity=options.similarity, candidates=candidates)
    print(frame.to_csv(index=False) if options.csv else frame.to_string(index=False), end='' if options.csv else '\n')
