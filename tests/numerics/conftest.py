"""What tests of numerics share."""

import numpy as np
import pytest


@pytest.fixture
def every_numeric_error_raises():
    with np.errstate(all="raise", under="ignore"):
        yield
