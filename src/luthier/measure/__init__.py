"""Measuring: quality (metrics), latency, size."""

from luthier.measure.quality import evaluate

__all__ = ["evaluate"]
