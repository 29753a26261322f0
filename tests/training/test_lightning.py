r"""Tests of training by Lightning: its steps, what it logs, and how it resumes."""
from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch

from pyg_emu import DistMult, EMULoss, EMUNegatives, KBGANSampler, KGData, NSCachingSampler, TripletLoader, evaluate
from pyg_emu import Trainer as OurTrainer
from pyg_emu.core.errors import ArgumentError, CheckpointError

pytest.importorskip('lightning')

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pyg_emu.training.lightning import LinkPredictionModule

pytestmark = pytest.mark.filterwarnings('ignore')  # Lightning recommends workers, loggers and others
QUIET: dict[str, Any] = {'accelerator': 'cpu', 'logger': False, 'enable_progress_bar': False,
                         'enable_model_summary': False, 'num_sanity_val_steps': 0}


def graph() -> KGData:
    generator = torch.Generator().manual_seed(0)
    edges, types = torch.randint(9, (2, 46), generator=generator), torch.randint(2, (46, ), generator=generator)
    return KGData(edges[:, :40], types[:40], 9, 2, valid_edge_index=edges[:, 40:43], valid_edge_type=types[40:43],
                  test_edge_index=edges[:, 43:], test_edge_type=types[43:])


def parts(sampler: Optional[Any] = None) -> tuple[Any, ...]:
    torch.manual_seed(0)
    model = DistMult(9, 2, 8)
    loader = TripletLoader(graph(), batch_size=12, shuffle=True, transform=EMUNegatives(4, sampler=sampler))
    return model, EMULoss(), loader, torch.optim.Adagrad(model.parameters(), lr=0.1)


def fit(module: LinkPredictionModule, ckpt_path: Optional[Path] = None, **options: Any) -> Trainer:
    trainer = Trainer(**{**QUIET, 'enable_checkpointing': False, **options})
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(mine, yours) for mine, yours in zip(one.parameters(), other.parameters(), strict=True))


def test_takes_the_steps_of_a_loop() -> None:
    model, criterion, loader, optimizer = parts()
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            criterion(model, batch).backward()
            optimizer.step()
    module = LinkPredictionModule(*parts())
    fit(module, max_epochs=2)
    assert same(module.model, model) and not same(module.model, parts()[0])


@pytest.mark.parametrize('make', [lambda: NSCachingSampler(cache_size=4, num_candidates=4),
                                  lambda: KBGANSampler(num_candidates=6, hidden_channels=4)])
def test_parts_learn(make: Any) -> None:
    ours = parts(make())
    OurTrainer(*ours, num_steps=9, progress=False, restore_best=False).fit()
    module = LinkPredictionModule(*parts(make()))
    fit(module, max_steps=9)
    assert same(module.model, ours[0])


def test_logs() -> None:
    data = graph()
    module = LinkPredictionModule(*parts(KBGANSampler(num_candidates=6, hidden_channels=4)),
                                  validate=lambda model: evaluate(model, data, split='valid'),
                                  test=lambda model: {'mrr': 0.25})
    trainer = fit(module, max_epochs=1)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {'loss', 'loss_mutated', 'loss_vanilla', 'transform.sampler.reward', 'valid_hits@10'} <= logged.keys()
    assert logged['valid_mrr'] == pytest.approx(evaluate(module.model, data, split='valid')['mrr'])
    assert trainer.test(module, verbose=False) == [{'test_mrr': 0.25}]


class _Dropout(EMULoss):
    r"""Draws from the global generator, as a model with dropout does."""
    def forward(self, model: Any, batch: Any) -> torch.Tensor:
        penalty = torch.nn.functional.dropout(model.node_emb.weight, 0.5).square().mean()
        return super().forward(model, batch) + penalty


@pytest.mark.parametrize('kind', ['NSCaching', 'KBGAN', 'dropout'])
@pytest.mark.parametrize('steps', [3, 4, 5])  # an epoch has four
def test_resumes(steps: int, kind: str, tmp_path: Path) -> None:
    def make() -> LinkPredictionModule:
        samplers = {'NSCaching': lambda: NSCachingSampler(cache_size=4, num_candidates=4),
                    'KBGAN': lambda: KBGANSampler(num_candidates=6, hidden_channels=4), 'dropout': lambda: None}
        model, criterion, loader, optimizer = parts(samplers[kind]())
        return LinkPredictionModule(model, _Dropout() if kind == 'dropout' else criterion, loader, optimizer)
    whole = make()
    fit(whole, max_steps=9)
    keep = ModelCheckpoint(tmp_path, filename='kept', every_n_train_steps=steps, save_top_k=-1)
    fit(make(), max_steps=steps, enable_checkpointing=True, callbacks=[keep])
    resumed = make()
    torch.manual_seed(99)
    fit(resumed, tmp_path / 'kept.ckpt', max_steps=9)
    assert same(resumed.model, whole.model)


def test_does_not_resume_with_other_parts(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename='kept', every_n_train_steps=2, save_top_k=-1)
    fit(LinkPredictionModule(*parts(NSCachingSampler(cache_size=4, num_candidates=4))), max_steps=2,
        enable_checkpointing=True, callbacks=[keep])
    with pytest.raises(CheckpointError, match=r'^ckpt_path: .*transform\.sampler.* has (?!.*sampler)'):
        fit(LinkPredictionModule(*parts()), tmp_path / 'kept.ckpt', max_steps=4)


class _OwnOptimizer(NSCachingSampler):
    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def test_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    model, criterion, loader, optimizer = parts()
    with pytest.raises(ArgumentError, match='optimizer: .*DistMult'):
        LinkPredictionModule(DistMult(9, 2, 8), criterion, loader, optimizer)
    with pytest.raises(ArgumentError, match='validate: .* 0.5'):
        LinkPredictionModule(model, criterion, loader, optimizer, validate=0.5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='loader: .*sampler'):
        fit(LinkPredictionModule(*parts(_OwnOptimizer())), max_steps=1)
    module = LinkPredictionModule(model, criterion, loader, optimizer)
    monkeypatch.setattr(LinkPredictionModule, 'trainer', SimpleNamespace(world_size=2))
    with pytest.raises(ArgumentError, match='trainer: .* 2; .*torchrun'):
        module.on_fit_start()


def test_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'pyg_emu.training.lightning')
    monkeypatch.setitem(sys.modules, 'lightning.pytorch', None)
    with pytest.raises(ArgumentError, match=r'pyg_emu\[lightning\]'):
        import_module('pyg_emu.training.lightning')
