r"""A long run: its memory does not grow."""
from __future__ import annotations

import gc
import resource
from pathlib import Path

import pytest
import torch

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, Trainer, TripletLoader
from pyg_emu.ops import use_backend
from tests.robustness.cases import Cases

#: Of :obj:`make robustness`.
STEPS = 200_000
#: Measurements of the memory.
MEASURED = 16
#: MiB by which it may be larger in the second half of the run than in the first.
GROWTH_MIB = 8.0


def test_memory_stays_flat(tmp_path: Path, cases: Cases) -> None:
    steps = cases.count(STEPS)
    torch.manual_seed(0)
    data = KGData(torch.randint(12, (2, 40)), torch.randint(3, (40, )), num_nodes=12, num_relations=3)
    model = DistMult(12, 3, 4)
    memory: list[float] = []

    def validate(model: torch.nn.Module) -> dict[str, float]:
        gc.collect()
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        memory.append(pages * resource.getpagesize() / 2**20)
        return {'mrr': 0.5}

    with use_backend('torch'):
        trainer = Trainer(model, EMULoss(), TripletLoader(data, 16, shuffle=True, transform=EMUNegatives(4)),
                          torch.optim.Adagrad(model.parameters(), lr=0.1), num_steps=steps,
                          evaluate_every=steps // MEASURED, validate=validate, run_dir=tmp_path / 'run', progress=False)
        trainer.fit()
    cases.tried = trainer.step
    # The first quarter fills caches. The lowest of each part: what other parts of the process hold comes and goes.
    quarter = len(memory) // 4
    first, last = min(memory[quarter:2 * quarter]), min(memory[-quarter:])
    if last - first > GROWTH_MIB:
        pytest.fail(f'{first:.1f} MiB after {steps // 4} steps, {last:.1f} MiB after {steps}: {memory}')
