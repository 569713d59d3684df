"""Bayesian search with a Gaussian process."""

from __future__ import annotations

from luthier.search.bayes.algorithm import Bayes
from luthier.search.bayes.maximise import Effort

__all__ = ["METHOD", "Bayes", "Effort"]

METHOD = Bayes
