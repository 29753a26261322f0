from __future__ import annotations

import pytest

pytest.importorskip('lightning')
pytest.importorskip('pykeen', reason='UMLS is loaded from PyKEEN')

from examples import with_lightning


@pytest.mark.filterwarnings('ignore')
def test_learns() -> None:
    metrics = with_lightning.main(epochs=6, accelerator='cpu', logger=False, enable_checkpointing=False,
                                  enable_progress_bar=False, enable_model_summary=False)
    # With 135 entities, a random order has a mean reciprocal rank of about 0.04.
    assert 0.3 < metrics['test_mrr'] <= 1.0
