"""The same share of every stage; inside a stage the lowest scores go."""

from __future__ import annotations

from luthier.allocate import Request
from luthier.allocate._families import families
from luthier.allocate._scores import by_mean, cut_together


class Family:
    """The same share of every stage; inside a stage the lowest scores go.

    A stage is what the first part of the names tells apart ("layer1", "layer2"). Ratios by pattern, such as
    ``{"layer1.*": 0.3}``, are shares of each stage's indices together.
    """

    def widths(self, request: Request) -> dict[str, float]:
        """How many of each group's scores are above its stage's cut."""
        out, by_name = request.whole, {g.name: g for g in request.active}
        for members in families(list(by_name)).values():
            stage = [by_name[name] for name in members]
            compared = {name: by_mean(request.scores[name]) for name in members}
            out |= cut_together(stage, compared, request.gone(stage))
        return out


METHOD = Family
