"""What a model remembers never changes what it gives, in whatever order it is asked."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.search._encode import Encoding
from luthier.search.bayes.model import Models
from luthier.space import Float, Space

ROWS = np.random.default_rng(0).random((14, 2))
VALUES = np.exp(3 * ROWS[:, 0]) - 4.0 * ROWS[:, 1]
ASKED = {
    "calm": lambda m: m.objective(ROWS, VALUES),
    "linear": lambda m: m.objective(ROWS, VALUES, linear=True),
    "exact": lambda m: m.objective(ROWS, VALUES, exact=True),
    "bound": lambda m: m.bound(ROWS, VALUES),
}


@pytest.mark.parametrize("last", ASKED)
def test_whatever_was_asked_before_the_same_process_comes(last):
    encoding = Encoding(Space(x=Float(0, 1), y=Float(0, 1)))
    fresh = ASKED[last](Models(encoding)).theta
    for first in ASKED:
        models = Models(encoding)
        ASKED[first](models)
        assert np.array_equal(ASKED[last](models).theta, fresh), first
