r"""Tables and numbers of the pages that are written from results."""
from __future__ import annotations

import re
from itertools import groupby
from typing import Any, Iterable, Optional, Sequence

from benchmarks._record import spread

Results = list[dict[str, Any]]
#: The text of a block, and the results whose commands are named below it.
Part = tuple[str, Results]
#: A difference is clear from this many standard errors on.
CLEAR = 2.0
_SEED = re.compile(r'[-_]?seed\d+$')


def table(lines: Iterable[Sequence[str]]) -> str:
    r"""Returns rows of cells as a table. The first row is the header, the second one that of the alignments."""
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def mrr_of(results: Results, metric: str = 'mrr') -> list[float]:
    r"""Returns a test metric of all results."""
    return [result['metrics']['test'][metric] for result in results]


def mean(values: Sequence[Optional[float]], digits: int = 3) -> str:
    r"""Returns the mean of values, ± the standard deviation of several, or a dash for none."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return '-'
    middle, deviation = spread(numbers)
    return f'{middle:.{digits}f}' + (f' ± {deviation:.{digits}f}' if len(numbers) > 1 else '')


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, Optional[float]]:
    r"""Returns the difference of two means and its standard error, :obj:`None` if one of them has a single value."""
    (one, deviation), (other, other_deviation) = spread(ours), spread(theirs)
    if min(len(ours), len(theirs)) < 2:
        return one - other, None
    return one - other, (deviation**2 / len(ours) + other_deviation**2 / len(theirs))**0.5


def is_clear(change: float, error: Optional[float]) -> bool:
    r"""Returns whether a difference is more than :data:`CLEAR` of its standard errors."""
    return error is not None and abs(change) > CLEAR * error


def signed(value: float, error: Optional[float] = None) -> str:
    r"""Returns a difference with four digits, ± its standard error if that is known."""
    return f'{value:+.4f}' + ('' if error is None else f' ± {error:.4f}')


def by_setting(results: Results) -> list[tuple[str, Results]]:
    r"""Returns results in groups that differ only in their seed, by name without the seed."""
    def setting(result: dict[str, Any]) -> str:
        return _SEED.sub('', result['name'])

    return [(name, list(group)) for name, group in groupby(sorted(results, key=setting), setting)]


def listed(names: Sequence[str]) -> str:
    r"""Returns names in a sentence."""
    *first, last = names or ['']
    return f'{", ".join(first)} and {last}' if first else last
