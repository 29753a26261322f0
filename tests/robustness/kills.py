r"""The runs that :mod:`tests.robustness.test_kills` kills, each in a process of its own."""
from __future__ import annotations

import os
import sys
import types

import pyg_emu.training.run_folder
import pyg_emu.training.trainer
from pyg_emu.experiments.cli.main import main
from pyg_emu.ops import use_backend

_STEPS = ['--batch-size', '40', '--steps', '240', '--evaluate-every', '8', '--dim', '8', '--negatives', '4']

#: The flags of each run.
CONFIGURATIONS = {
    'plain': [*_STEPS],
    'NSCaching': [*_STEPS, '--set', 'negatives.sampler={name: nscaching, cache_size: 5, num_candidates: 5}'],
    'learned mask': [*_STEPS, '--set', 'negatives.mutation={name: learned, width: 8}'],
    'reciprocal, schedule': [*_STEPS, '--set', 'model.reciprocal=true', '--schedule', 'cosine', '--optimizer', 'adam'],
    'mapped': [*_STEPS, '--storage', 'mmap', '--set', 'model.sparse=true'],
    # Three optimisers: those of the model, of the generator and of the discriminator.
    'DANS': [*_STEPS, '--model', 'RGCN', '--steps', '48', '--set', 'model.num_bases=2', '--set', 'checkpoint_every=4',
             '--set', 'negatives.sampler={name: dans, generator_steps: 2}', '--optimizer', 'adam'],
    'KBGAN': [*_STEPS, '--steps', '120', '--set',
              'negatives.sampler={name: kbgan, hidden_channels: 4, num_candidates: 8}'],
    'NBFNet': [*_STEPS, '--model', 'NBFNet', '--steps', '48', '--set', 'model.num_layers=2', '--set',
               'checkpoint_every=4'],
}


def train(name: str, graph: str, folder: str, errors: str) -> None:
    r"""Trains as far as it gets. Timings, which differ from run to run, are left out of the files."""
    pyg_emu.training.trainer.time = types.SimpleNamespace(perf_counter=lambda: 0.0)  # type: ignore[assignment]
    pyg_emu.training.run_folder._commit = lambda: None  # type: ignore[assignment]
    with open(errors, 'w', encoding='utf-8') as sys.stderr, open(os.devnull, 'w', encoding='utf-8') as sys.stdout:
        with use_backend('torch'):
            code = main(['train', '--data', graph, '--run-dir', folder, '--quiet', '--device', 'cpu',
                         *CONFIGURATIONS[name]])
    sys.exit(code)
