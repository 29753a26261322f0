r"""The commands :obj:`pyg-emu score | calibrate | classify`."""
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from pyg_emu.core.errors import CheckpointError
from pyg_emu.experiments.cli.options import Formatter, add_common, add_output
from pyg_emu.experiments.cli.run import add_run, labels_of, open_options, run_dir_of

#: The file of a run folder that holds its calibration.
CALIBRATION = 'calibration.json'

_SCORE = """\
Score facts of a file. After "pyg-emu calibrate", probabilities and decisions are added.

examples:
  pyg-emu score --run runs/umls --input facts.tsv
  pyg-emu score --run runs/umls --input facts.tsv --output scored.csv    # or .tsv, .jsonl, .parquet
"""

_CALIBRATE = """\
Fit probabilities, and a threshold for each relation, to the scores of true and false facts, and write them to the run
folder. The true facts are those of the validation split. The false ones are drawn, or read from a file.

examples:
  pyg-emu calibrate --run runs/umls
  pyg-emu calibrate --run runs/umls --method isotonic --num-negatives 5
  pyg-emu calibrate --run runs/umls --negatives valid_negatives.tsv
  pyg-emu calibrate --run runs/umls --facts labelled.tsv    # with a column label: 1 or 0
"""

_CLASSIFY = """\
Classify facts as true or false by the thresholds of the run's calibration, or of one that is fitted on the validation
facts. The true facts are those of a split. The false ones are drawn, or read from a file.

examples:
  pyg-emu classify --run runs/umls
  pyg-emu classify --run runs/umls --negatives test_negatives.tsv --json
"""


def add_scores(commands: Any) -> None:
    r"""Adds the commands to the parser."""
    score = commands.add_parser('score', help='score facts', description=_SCORE, formatter_class=Formatter)
    score.set_defaults(command=_score)
    add_run(score)
    score.add_argument('--input', metavar='FILE', required=True, help='the facts')
    add_output(score)
    score.add_argument('--side', choices=('tail', 'head', 'both'),
                       help='which end is predicted (default: that of the calibration, or tail)')
    add_common(score)

    calibrate = commands.add_parser('calibrate', help='fit probabilities and thresholds', description=_CALIBRATE,
                                    formatter_class=Formatter)
    calibrate.set_defaults(command=_calibrate)
    add_run(calibrate)
    calibrate.add_argument('--method', choices=('platt', 'isotonic'), default='platt', help='(default: platt)')
    calibrate.add_argument('--side', choices=('tail', 'head', 'both'), default='tail',
                           help='which end is predicted (default: tail)')
    _add_negatives(calibrate, 'valid')
    add_common(calibrate)

    classify = commands.add_parser('classify', help='classify facts as true or false', description=_CLASSIFY,
                                   formatter_class=Formatter)
    classify.set_defaults(command=_classify)
    add_run(classify)
    _add_negatives(classify, 'test')
    classify.add_argument('--output', metavar='FILE', help='write each fact and its decision to a file')
    classify.add_argument('--json', action='store_true', help='print JSON')
    add_common(classify)


def _add_negatives(parser: argparse.ArgumentParser, split: str) -> None:
    parser.add_argument('--split', choices=('train', 'valid', 'test'), help=f'the true facts (default: {split})')
    given = parser.add_mutually_exclusive_group()
    given.add_argument('--facts', metavar='FILE', help='labelled facts instead: a file with a column label, 1 or 0')
    given.add_argument('--negatives', metavar='FILE', help='the false facts (default: drawn)')
    parser.add_argument('--known-facts', metavar='FILE', help='further facts that are not drawn as false ones')
    parser.add_argument('--num-negatives', type=int, metavar='N', help='false facts drawn for each true one (default: '
                                                                       '1)')


def _score(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    from pyg_emu.data.io.frames import check_table_path, write_table
    from pyg_emu.evaluation.graphs import ranker_of
    from pyg_emu.evaluation.scoring import score
    if options.output is not None:
        check_table_path('--output', options.output)
    model, data, _, name = open_options(options, run_dir, whole=True)
    with labels_of(name):
        frame = score(ranker_of(model, data), data, options.input, side=options.side,
                      calibration=_calibration(options, run_dir))
    if options.output is not None:
        write_table(frame, '--output', options.output)
    else:
        print(frame.to_csv(index=False) if options.csv else frame.to_string(index=False),
              end='' if options.csv else '\n')


def _calibrate(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    from pyg_emu.evaluation.classification import calibrate
    from pyg_emu.evaluation.graphs import ranker_of
    model, data, _, _ = open_options(options, run_dir, inference=False)
    found = calibrate(ranker_of(model, data), data, options.split, method=options.method, side=options.side,
                      facts=options.facts, negatives=options.negatives, num_negatives=options.num_negatives,
                      known_facts=options.known_facts)
    path = Path(run_dir) / CALIBRATION
    replace(found, weights=_weights(options, run_dir)).save(path)
    print(f'{path}: {found}')


def _classify(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    from pyg_emu.data.io.frames import check_table_path, write_table
    from pyg_emu.evaluation.classification import classify
    from pyg_emu.evaluation.graphs import ranker_of
    if options.output is not None:
        check_table_path('--output', options.output)
    model, data, _, _ = open_options(options, run_dir, inference=options.split in (None, 'test'))
    found = classify(ranker_of(model, data), data, _calibration(options, run_dir), options.split, facts=options.facts,
                     negatives=options.negatives, num_negatives=options.num_negatives,
                     known_facts=options.known_facts)
    if options.output is not None:
        write_table(found.facts, '--output', options.output)
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)


def _calibration(options: argparse.Namespace, run_dir: str) -> Optional[Any]:
    r"""The calibration in the run folder, if there is one.

    Raises:
        CheckpointError: If it was made for other weights.
    """
    from pyg_emu.evaluation.calibration import Calibration

    path = Path(run_dir) / CALIBRATION
    if not path.exists():
        return None
    found = Calibration.load(path)
    if found.weights != _weights(options, run_dir):
        raise CheckpointError(f'{path} was made for other weights of the run than the {options.checkpoint} ones; run '
                              f'pyg-emu calibrate --checkpoint {options.checkpoint} again, or remove the file')
    return found


def _weights(options: argparse.Namespace, run_dir: str) -> Optional[str]:
    from pyg_emu.training.checkpoint import verified_digest
    from pyg_emu.training.run_folder import RunFolder

    return verified_digest(RunFolder(run_dir).weights(options.checkpoint))
