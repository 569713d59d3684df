"""Bayesian search with a Gaussian process."""

from __future__ import annotations

from luthier.search.bayes.algorithm import Bayes

__all__ = ["METHOD", "Bayes"]

METHOD = Bayes
