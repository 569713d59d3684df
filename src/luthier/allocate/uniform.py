"""The same share of every group."""

from __future__ import annotations

from luthier.allocate import Request


class Uniform:
    """The same share of every group."""

    def widths(self, request: Request) -> dict[str, float]:
        """Size times one minus the ratio."""
        return {g.name: g.size * (1 - request.ratios[g.name]) for g in request.groups}


METHOD = Uniform
