"""Latency of ONNX files, measured so that it can be trusted on a shared machine.

Files are timed in turn within each round, so that a machine that slows down slows all of them; the clock is the
calling thread's CPU time, which other processes do not lengthen; medians and their intervals are reported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom
from torch import Tensor

from luthier.measure.runtime import Session
from luthier.pareto import Array

_SAMPLE_SECONDS = 2e-3  # a sample repeats the call until it is at least this long


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call: the median, a 95 % interval of it, and the median ratio to the first file.

    Attributes:
        ms: median.
        low: lower end of the median's interval.
        high: upper end.
        ratio: median over the rounds of this file's time / the first file's time in the same round.
        ratio_low: lower end of that median's interval.
        ratio_high: upper end.
        rounds: how many rounds.
    """

    ms: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int


def median_interval(sample: Array, level: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of a median, from order statistics.

    Args:
        sample: shape (n,).
        level: coverage.

    Example:
        >>> median_interval(np.arange(1.0, 12.0))
        (2.0, 10.0)

    Source:
        Conover, "Practical nonparametric statistics", 1999, section 3.2 (p = 1/2).
    """
    values = np.sort(sample)
    n = len(values)
    below = max(int(binom.ppf((1 - level) / 2, n, 0.5)) - 1, 0)
    return float(values[below]), float(values[n - 1 - below])


def measure(
    files: Mapping[str, str | Path], inputs: Sequence[Tensor], rounds: int = 25, warmup: int = 3
) -> dict[str, Latency]:
    """Times ONNX files side by side on one thread.

    Args:
        files: name -> path; ratios are to the first.
        inputs: one batch; its size is the latency's batch size.
        rounds: samples of each file.
        warmup: calls before that are not counted.

    Returns:
        name -> :class:`Latency`.
    """
    sessions = {name: Session(path, threads=1) for name, path in files.items()}
    calls = {name: (session, session.feed(*inputs)) for name, session in sessions.items()}
    repeats = {name: _repeats(*call, warmup) for name, call in calls.items()}
    times = np.array([[_sample(*calls[n], repeats[n]) for n in calls] for _ in range(rounds)])
    return {name: _summary(times[:, i], times[:, 0]) for i, name in enumerate(calls)}


def _repeats(session: Session, feed: dict[str, Array], warmup: int) -> int:
    for _ in range(warmup):
        session.run(feed)
    return max(1, round(_SAMPLE_SECONDS / max(_sample(session, feed, 1) / 1e3, 1e-9)))


def _sample(session: Session, feed: dict[str, Array], repeats: int) -> float:
    session.run(feed)  # not counted: the file before has filled the caches with its own weights
    start = time.thread_time()
    for _ in range(repeats):
        session.run(feed)
    return (time.thread_time() - start) / repeats * 1e3


def _summary(times: Array, reference: Array) -> Latency:
    ratios = times / reference
    return Latency(
        float(np.median(times)),
        *median_interval(times),
        float(np.median(ratios)),
        *median_interval(ratios),
        len(times),
    )
