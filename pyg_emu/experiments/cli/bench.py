r"""The command :obj:`pyg-emu bench`."""
from __future__ import annotations

import argparse
import json
from typing import Any

from pyg_emu.experiments.cli.options import Formatter, add_common

_BENCH = """\
Time training steps on this machine, with and without EMU, and next to the same steps in plain PyTorch. Takes a minute.

The facts are random, with the numbers of entities, relations and facts of FB15k-237. Nothing is written.

examples:
  pyg-emu bench
  pyg-emu bench --model RotatE --negatives 64 --json
"""


def add_bench(commands: Any) -> None:
    r"""Adds the command to the parser."""
    bench = commands.add_parser('bench', help='time training steps on this machine', description=_BENCH,
                                formatter_class=Formatter)
    bench.set_defaults(command=_bench)
    bench.add_argument('--model', metavar='NAME', default='DistMult',
                       help='DistMult, ComplEx, TransE or RotatE (default: DistMult)')
    bench.add_argument('--batch-size', metavar='N', type=int, default=1000, help='facts per step (default: 1000)')
    bench.add_argument('--negatives', metavar='N', type=int, default=256, help='negatives per fact (default: 256)')
    bench.add_argument('--dim', metavar='D', type=int, default=100, help='components of an embedding (default: 100)')
    bench.add_argument('--seconds', metavar='S', type=float, default=40.0, help='how long to measure (default: 40)')
    bench.add_argument('--seed', metavar='N', type=int, default=0, help='seed of facts and weights (default: 0)')
    bench.add_argument('--json', action='store_true', help='print JSON')
    add_common(bench)


def _bench(options: argparse.Namespace) -> None:
    from pyg_emu.experiments.bench import bench

    result = bench(options.model, batch_size=options.batch_size, num_negatives=options.negatives,
                   hidden_channels=options.dim, seconds=options.seconds, device=options.device, seed=options.seed,
                   progress=not options.quiet)
    print(json.dumps(result.to_dict(), indent=2) if options.json else result)
