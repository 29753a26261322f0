r"""The command :obj:`pyg-emu predict`."""
from __future__ import annotations

import argparse
from typing import Any

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.cli.options import Formatter, add_common, add_output, add_shard
from pyg_emu.experiments.cli.run import add_candidates, add_run, candidates_of, labels_of, open_options, run_dir_of

_PREDICT = """\
Print the best tails for a head and a relation, the best heads for a relation and a tail, or the best relations for a
head and a tail.

examples:
  pyg-emu predict --run runs/umls --head virus --relation causes
  pyg-emu predict --run runs/umls --tail disease_or_syndrome --relation causes -k 5 --exclude-known
  pyg-emu predict --run runs/umls --head virus --tail disease_or_syndrome
  pyg-emu predict --run runs/umls --input questions.tsv --output answers.csv    # lines such as "virus  causes  ?"
  pyg-emu predict --run runs/umls --head virus --relation causes --types types.tsv   # lines of an entity and its type
"""


def add_predict(commands: Any) -> None:
    r"""Adds the command to the parser."""
    predict = commands.add_parser('predict', help='answer with labels', description=_PREDICT,
                                  formatter_class=Formatter)
    predict.set_defaults(command=_predict)
    add_run(predict)
    predict.add_argument('--head', nargs='+', metavar='LABEL', help='the known head')
    predict.add_argument('--tail', nargs='+', metavar='LABEL', help='the known tail')
    predict.add_argument('--relation', nargs='+', metavar='LABEL', help='the known relation')
    predict.add_argument('--input', metavar='FILE', help='a file of questions: head, relation and tail on each line, '
                                                         'with ? for the answer')
    add_output(predict)
    predict.add_argument('-k', type=int, default=10, metavar='K', help='answers for each question (default: 10)')
    predict.add_argument('--exclude-known', action='store_true', help='leave out answers that are known facts')
    predict.add_argument('--known-facts', metavar='FILE', help='a file of further known facts')
    add_candidates(predict)
    add_shard(predict)
    add_common(predict)


def _predict(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    known = [name for name in ('head', 'relation', 'tail') if getattr(options, name) is not None]
    if options.input is not None and known:
        raise RecipeError(f'--input, --{known[0]}: give the questions in a file or with flags, not both')
    if options.input is None and len(known) != 2:
        raise RecipeError('--head, --relation, --tail: expected two of the three, the third is predicted; got '
                          f'{", ".join(f"--{name}" for name in known) or "none"}')
    from pyg_emu.core.distributed import process_group
    from pyg_emu.data.io.frames import check_table_path, write_table
    from pyg_emu.evaluation.graphs import ranker_of
    from pyg_emu.evaluation.prediction import predict
    from pyg_emu.evaluation.questions import answer
    if options.output is not None:
        check_table_path('--output', options.output)
    with process_group(options.device) as place:
        options.device = str(place.device)
        model, data, _, name = open_options(options, run_dir, whole=True)
        kind: Any = 'relation' if options.head is not None and options.tail is not None else 'entity'
        with labels_of(name):
            settings: dict[str, Any] = {'k': options.k, 'exclude_known': options.exclude_known,
                                        'known_facts': options.known_facts,
                                        'candidates': candidates_of(options, data, kind)}
            if options.input is not None:
                frame = answer(ranker_of(model, data), data, options.input, progress=not options.quiet, **settings)
            else:
                frame = predict(ranker_of(model, data), data, heads=options.head, relations=options.relation,
                                tails=options.tail, **settings)
    if place.rank > 0:
        return
    if options.output is not None:
        write_table(frame, '--output', options.output)
        return
    print(frame.to_csv(index=False) if options.csv else frame.to_string(index=False), end='' if options.csv else '\n')
