"""What tests of the attack share."""

import pytest

from dedup.engines.local import LocalEngine


@pytest.fixture(scope="session")
def engine():
    """Worker processes that stay: each pool of its own would import all modules again."""
    engine = LocalEngine(2)
    yield engine
    engine.close()
