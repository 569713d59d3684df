"""What a model remembers never changes what it gives, in whatever order it is asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from luthier.search._encode import Encoding
from luthier.search.bayes.fit import Evidence
from luthier.search.bayes.model import QUIET, Models
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


@pytest.mark.parametrize("exact", [False, True])
def test_a_fit_that_begins_where_fewer_results_ended_depends_on_the_history_only(exact):
    encoding = Encoding(Space(x=Float(0, 1), y=Float(0, 1)))
    rows = np.random.default_rng(1).random((40, 2))
    values = np.sin(9 * rows[:, 0]) + rows[:, 1]
    kept = Models(encoding)
    for n in range(2, 41, 3):
        fresh = Models(encoding).objective(rows[:n], values[:n], exact=exact).theta
        assert np.array_equal(kept.objective(rows[:n], values[:n], exact=exact).theta, fresh), n


def test_a_fit_that_begins_where_fewer_results_ended_is_as_good_as_any():
    encoding = Encoding(Space(x=Float(0, 1), y=Float(0, 1)))
    rows = np.random.default_rng(2).random((40, 2))
    process = Models(encoding).objective(rows, np.sin(9 * rows[:, 0]) + rows[:, 1], exact=True)
    evidence = Evidence(process.data)
    low, high = evidence.bounds()
    high[evidence.d + 1] = math.log(QUIET)
    drawn = np.random.default_rng(0).normal(size=(6, evidence.d + 3))
    starts = [np.clip(s, low, high) for s in (evidence.start(), evidence.start(loud=True), *drawn)]
    bounds = list(zip(low, high, strict=True))
    theirs = [optimize.minimize(evidence, s, jac=True, method="L-BFGS-B", bounds=bounds).fun for s in starts]
    assert evidence(process.theta)[0] <= min(theirs) + 0.3
