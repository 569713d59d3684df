"""The lowest scores anywhere, each group's scores divided by their mean so that groups compare."""

from __future__ import annotations

from luthier.allocate import Request
from luthier.allocate._scores import by_mean, cut_together


class Global:
    """The lowest scores anywhere, each group's scores divided by their mean so that groups compare.

    Groups with a ratio of 0 stay whole. The ratio is the share of all indices together.
    """

    def widths(self, request: Request) -> dict[str, float]:
        """How many of each group's scores are above the common cut."""
        active = request.active
        compared = {g.name: by_mean(request.scores[g.name]) for g in active}
        return request.whole | cut_together(active, compared, request.gone(active))


METHOD = Global
