r"""The printed values of the DANS paper, `"Diversified and Adaptive Negative Sampling on Knowledge Graphs"
<https://arxiv.org/abs/2410.07592>`_: Tables 2 and 3. Means and standard deviations are of five seeds.

FB15k-237 is in an appendix that the printed paper lacks. The values of Figure 2 are not printed either.
"""
from __future__ import annotations

import functools
from typing import Iterator, Sequence

from benchmarks.paper import Printed, Row

DATASETS = ('UMLS', 'WN18RR', 'NELL-995', 'FB15k-237')
DECODERS = ('DistMult', 'RotatE', 'ComplEx')
#: The numbers of the result tables and of the figures that are training runs.
TABLES = (2, 3)
FIGURES = (2, )
#: The number of seeds behind the printed deviations.
SEEDS = 5
METRICS = ('mrr', 'hits@1', 'ndcg@5')
#: The negatives of Table 2, DANS last.
SAMPLERS = ('Rand', 'Pop', 'Self-adv', 'MCNS', 'DANS')
#: The points of Figure 2: the ablation, the numbers of negatives, and the weights of the regularizer of FiLM.
ABLATION = ('G-E', 'G-R', 'G-ER', 'DANS')
NEGATIVES = (4, 12, 20, 28, 40)
FILM_WEIGHTS = ('1e-2', '1e-3', '1e-4', '1e-5', '1e-6')

_PRINTED = ('WN18RR', 'NELL-995', 'UMLS')
# Columns: MRR, Hits@1 and NDCG@5, each with its standard deviation, for WN18RR, NELL-995 and UMLS.
_TABLE_2 = """
DistMult Rand     .372 .002 .343 .003 .369 .005   .218 .001 .146 .002 .219 .002   .696 .010 .607 .082 .693 .007
DistMult Pop      .374 .002 .342 .002 .376 .006   .216 .001 .142 .002 .216 .003   .680 .009 .589 .012 .692 .005
DistMult Self-adv .370 .007 .332 .010 .373 .006   .238 .003 .156 .003 .241 .003   .717 .009 .624 .015 .733 .008
DistMult MCNS     .376 .004 .340 .005 .374 .006   .226 .002 .144 .002 .221 .003   .700 .002 .606 .008 .717 .002
DistMult DANS     .381 .006 .352 .007 .386 .008   .227 .004 .162 .007 .220 .009   .724 .008 .641 .009 .725 .008
RotatE   Rand     .234 .009 .110 .003 .260 .008   .182 .003 .093 .003 .189 .003   .817 .015 .683 .021 .855 .013
RotatE   Pop      .235 .007 .095 .003 .268 .007   .181 .002 .131 .002 .200 .003   .800 .005 .673 .010 .839 .004
RotatE   Self-adv .202 .007 .058 .010 .235 .006   .186 .002 .096 .003 .194 .002   .809 .007 .677 .007 .848 .007
RotatE   MCNS     .242 .009 .132 .004 .288 .006   .194 .003 .122 .004 .200 .004   .822 .005 .682 .006 .884 .006
RotatE   DANS     .249 .002 .154 .001 .274 .003   .195 .010 .135 .011 .208 .010   .833 .004 .716 .006 .866 .005
ComplEx  Rand     .386 .007 .346 .005 .390 .006   .245 .004 .172 .003 .251 .006   .898 .008 .822 .017 .920 .015
ComplEx  Pop      .389 .011 .341 .007 .387 .012   .241 .005 .179 .006 .245 .004   .840 .009 .747 .009 .865 .008
ComplEx  Self-adv .375 .006 .329 .011 .382 .013   .250 .005 .181 .007 .277 .008   .908 .009 .844 .006 .925 .010
ComplEx  MCNS     .392 .008 .343 .007 .394 .008   .248 .007 .177 .004 .264 .009   .879 .007 .835 .005 .892 .011
ComplEx  DANS     .404 .005 .347 .004 .392 .009   .257 .006 .186 .010 .255 .008   .920 .007 .857 .011 .927 .008
"""
_TABLE_3 = """
DistMult SANS-RW   .349 .010 .340 .013 .334 .010   .135 .006 .109 .008 .110 .008   .510 .008 .369 .009 .478 .003
DistMult NSCaching .374 .002 .337 .003 .374 .002   .177 .004 .150 .003 .140 .002   .625 .004 .508 .021 .607 .004
DistMult KBGAN     .172 .004 .070 .006 .155 .002   .170 .002 .077 .004 .195 .009   .680 .005 .556 .023 .654 .004
DistMult CAKE      .353 .007 .345 .005 .351 .008   .204 .006 .130 .007 .175 .012   .441 .013 .365 .008 .383 .010
DistMult SMiLE     .315 .006 .291 .007 .294 .012   .131 .004 .127 .005 .105 .008   .414 .015 .345 .007 .372 .013
DistMult DANS      .381 .006 .352 .007 .386 .008   .227 .004 .162 .007 .220 .009   .724 .008 .641 .009 .725 .008
"""


@functools.cache
def rows() -> tuple[Row, ...]:
    r"""Returns all rows of Tables 2 and 3 and all points of Figure 2, UMLS first."""
    found: list[Row] = []
    for table, text in ((2, _TABLE_2), (3, _TABLE_3)):
        lines = list(_lines(text))
        for dataset in DATASETS:
            found += [Row(f'DANS Table {table}', dataset, model, method, _cells(dataset, values))
                      for model, method, values in lines]
    points = [*ABLATION, *(f'Ns={number}' for number in NEGATIVES), *(f'lambda={weight}' for weight in FILM_WEIGHTS)]
    empty = {metric: Printed() for metric in METRICS}
    return tuple(found + [Row('DANS Figure 2', dataset, 'DistMult', point, empty)
                          for dataset in DATASETS[:3] for point in points])


def _cells(dataset: str, values: Sequence[float]) -> dict[str, Printed]:
    if dataset not in _PRINTED:
        return {metric: Printed() for metric in METRICS}
    start = 2 * len(METRICS) * _PRINTED.index(dataset)
    own = values[start:start + 2 * len(METRICS)]
    return {metric: Printed(mean, std) for metric, mean, std in zip(METRICS, own[::2], own[1::2])}


def _lines(text: str) -> Iterator[tuple[str, str, list[float]]]:
    for line in text.strip().splitlines():
        model, method, *values = line.split()
        yield model, method, [float(value) for value in values]
