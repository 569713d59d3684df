"""Whatever scores below an absolute threshold."""

from __future__ import annotations

from luthier.allocate import Request
from luthier.errors import UsageError


class Threshold:
    """Whatever scores below an absolute threshold."""

    def widths(self, request: Request) -> dict[str, float]:
        """The number of scores at or above the threshold.

        Raises:
            UsageError: no threshold was given.
        """
        if request.threshold is None:
            raise UsageError("the allocation 'threshold' needs threshold=", got="None")
        return {g.name: float((request.scores[g.name] >= request.threshold).sum()) for g in request.groups}


METHOD = Threshold
