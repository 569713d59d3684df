"""Stages of a network: widths that belong together by their names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

MOST_FAMILIES = 6


def families(names: Sequence[str], most: int = MOST_FAMILIES) -> dict[str, tuple[str, ...]]:
    """Groups axes into stages: by the first part of their names that tells some apart, at most ``most``.

    Example:
        >>> families(["stem.0", "stage1.conv1", "stage1.conv2", "stage2.conv1"])
        {'stem': ('stem.0',), 'stage1': ('stage1.conv1', 'stage1.conv2'), 'stage2': ('stage2.conv1',)}
    """
    deepest = max((name.count(".") + 1 for name in names), default=1)
    for depth in range(1, deepest + 1):
        found: dict[str, tuple[str, ...]] = {}
        for name in names:
            prefix = ".".join(name.split(".")[:depth])
            found[prefix] = (*found.get(prefix, ()), name)
        if len(found) > 1:
            break
    return _merged(found, most) if names else {}


def _merged(found: Mapping[str, tuple[str, ...]], most: int) -> dict[str, tuple[str, ...]]:
    """Neighbours put together until there are at most ``most``, of about as many members each."""
    stages = list(found)
    if len(stages) <= most:
        return dict(found)
    bounds = [round(i * len(stages) / most) for i in range(most + 1)]
    out = {}
    for low, high in itertools.pairwise(bounds):
        part = stages[low:high]
        name = part[0] if len(part) == 1 else f"{part[0]}..{part[-1]}"
        out[name] = tuple(axis for stage in part for axis in found[stage])
    return out
