"""The lowest scores anywhere, each group's scores divided by their mean so that groups compare."""

from __future__ import annotations

import torch

from luthier.allocate import Request


class Global:
    """The lowest scores anywhere, each group's scores divided by their mean so that groups compare.

    Groups with a ratio of 0 stay whole. The ratio is the share of all indices together.
    """

    def widths(self, request: Request) -> dict[str, float]:
        """How many of each group's scores are above the common cut."""
        active = [g for g in request.groups if request.ratios[g.name] > 0]
        out = {g.name: float(g.size) for g in request.groups}
        if not active:
            return out
        compared = {g.name: _normalised(request.scores[g.name]) for g in active}
        together = torch.cat(list(compared.values())).sort().values
        gone = round(sum(g.size * request.ratios[g.name] for g in active))
        if gone:
            line = together[gone - 1]
            out.update({name: float((scores > line).sum()) for name, scores in compared.items()})
        return out


def _normalised(scores: torch.Tensor) -> torch.Tensor:
    scores = scores.double()
    mean = scores.abs().mean()
    return scores / mean if mean > 0 else scores


METHOD = Global
