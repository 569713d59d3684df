"""The lowest scores anywhere, each score as a share of what would be left of its group."""

from __future__ import annotations

from luthier.allocate import Request
from luthier.allocate._scores import cut_together
from luthier.allocate._scores import lamp as normalised


class Lamp:
    """The lowest scores anywhere, each score as a share of what would be left of its group.

    A group's last unit has the highest score there is, so that no group is emptied; no scale is left between groups.
    Groups with a ratio of 0 stay whole. The ratio is the share of all indices together.

    Formula:
        s_u^2 / sum of s_v^2 over all v of the group that are not below u

    Source:
        Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021.
    """

    def widths(self, request: Request) -> dict[str, float]:
        """How many of each group's scores are above the common cut."""
        active = request.active
        compared = {g.name: normalised(request.scores[g.name]) for g in active}
        return request.whole | cut_together(active, compared, request.gone(active))


METHOD = Lamp
