from __future__ import annotations

from typing import Callable, Iterator

import pytest

from tests.robustness.cases import Cases
from tests.robustness.report import PROPERTY


@pytest.fixture
def cases(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Cases]:
    r"""The cases of a test. A failed one fails the test in the end."""
    share, seed = (request.config.getoption(f'--robustness-{name}') for name in ('cases', 'seed'))
    cases = Cases(share, seed, request.node.name)
    yield cases
    record_property(PROPERTY, {'cases': cases.tried or 1, 'failures': cases.kinds()})
    if cases.failures:
        pytest.fail(cases.message(), pytrace=False)
