"""A sensitivity map: what each group's removal does to the network, by evaluation alone."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luthier.errors import UsageError
from luthier.files import write_json
from luthier.model import Analysis, axes
from luthier.model.contents import as_bytes
from luthier.model.groups import Group

RATIOS = (0.25, 0.5, 0.75, 0.9)
_SHADES = " ░▒▓█"
_FLAT = 1e-4
_SAME = 1e-6
_FAR = 3.0  # how much worse than anything measured it is taken to be when a group goes altogether


@dataclass(frozen=True)
class SensitivityMap:
    """What the removal of a share of one group alone costs.

    Args:
        ratios: the shares that were tried, rising.
        rises: group name -> how much the measure rose at each ratio.
        dense: the measure before.
        measure: what was measured, such as "loss"; lower is better.

    Example:
        >>> m = SensitivityMap((0.5, 0.9), {"a": (0.1, 0.3), "b": (0.0, 0.1)}, 1.0)
        >>> round(m.rise("a", 0.7), 3)
        0.2
    """

    ratios: tuple[float, ...]
    rises: Mapping[str, tuple[float, ...]]
    dense: float
    measure: str = "loss"

    def rise(self, name: str, ratio: float) -> float:
        """The rise at a ratio, by interpolation; never falling with the ratio."""
        ratios = [0.0, *self.ratios, 1.0]
        rises = np.maximum.accumulate([0.0, *self.rises[name], _FAR * max(1e-9, *self.rises[name])])
        return float(np.interp(ratio, ratios, rises))

    def slopes(self) -> dict[str, float]:
        """Group name -> a of the law a r / (1 - r), the least-squares fit to its rises; all above 0.

        A group without a measurable rise counts as a ten-thousandth of the largest.

        Example:
            >>> SensitivityMap((0.5, 0.75), {"a": (0.1, 0.3), "b": (0.0, 0.0)}, 1.0).slopes()
            {'a': 0.1, 'b': 1e-05}
        """
        odds = np.array(self.ratios) / (1 - np.array(self.ratios))
        fitted = {name: float(np.maximum(rises, 0) @ odds / (odds @ odds)) for name, rises in self.rises.items()}
        largest = max(fitted.values(), default=0.0) or 1.0
        return {name: max(a, _FLAT * largest) for name, a in fitted.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "measure": self.measure,
            "dense": self.dense,
            "ratios": list(self.ratios),
            "rises": {name: list(r) for name, r in self.rises.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SensitivityMap:
        """The map from plain data."""
        rises = {name: tuple(r) for name, r in data["rises"].items()}
        return cls(tuple(data["ratios"]), rises, data["dense"], data["measure"])

    def __str__(self) -> str:
        """A picture: a row for each group, a column for each ratio, darker where it costs more."""
        width = max([len(name) for name in self.rises] + [5])
        worst = max([max(r) for r in self.rises.values()] + [1e-12])
        head = "  ".join(f"{r:>9.0%}" for r in self.ratios)
        lines = [f"{'removed':<{width}}  {head}   ({self.measure} rises by; before: {self.dense:.4g})"]
        for name, rises in self.rises.items():
            cells = "  ".join(f"{_shade(r / worst) * 2} {r:>6.3f}" for r in rises)
            lines.append(f"{name:<{width}}  {cells}")
        return "\n".join(lines)


def _shade(share: float) -> str:
    return _SHADES[min(len(_SHADES) - 1, max(0, round(share * (len(_SHADES) - 1))))]


def measure_map(
    analysis: Analysis,
    scores: Mapping[str, Tensor],
    evaluate: Callable[[nn.Module], float],
    *,
    ratios: Sequence[float] = RATIOS,
    measure: str = "loss",
    cache: str | Path | None = None,
    data: str = "",
) -> SensitivityMap:
    """Removes the lowest share of one group at a time, by zeroing, and evaluates; nothing is trained.

    Args:
        analysis: of the network, which is not changed.
        scores: group name -> scores: what goes first.
        evaluate: of a model; lower is better, such as the mean loss over held-out data.
        ratios: the shares to try, rising, in (0, 1).
        measure: what ``evaluate`` gives, for the picture.
        cache: a file that keeps the map; one of the same weights, scores, ratios and ``data`` is read instead.
        data: names all that ``evaluate`` goes by, such as a digest of the data; where it is not given, a kept map is
            read only if what is measured of the dense network, and of the removal that did most, is still the same.

    Raises:
        UsageError: ratios that do not rise, or a network whose own measure is no number.

    Example:
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> analysis = analyse(net, torch.zeros(1, 2))
        >>> found = measure_map(analysis, {"0": torch.arange(4)}, lambda m: float(m(torch.ones(1, 2)).square()))
        >>> sorted(found.rises)
        ['0']
    """
    shares = tuple(ratios)
    if not shares or any(not 0 < r < 1 for r in shares) or list(shares) != sorted(set(shares)):
        raise UsageError("the ratios of a sensitivity map rise from 0 to 1", expected="0 < r1 < r2 ... < 1", got=shares)
    key = _key(analysis, scores, shares, measure, data)
    known = _read(cache, key)
    if known is not None and data:
        return known
    model = copy.deepcopy(analysis.model).eval()
    dense = evaluate(model)
    if known is not None and _holds(known, dense, model, analysis, scores, evaluate):
        return known
    if not math.isfinite(dense):
        raise UsageError("the network itself measures no number", expected="a finite measure", got=dense)
    rises = {}
    for group in (g for g in analysis.all_groups if g.name in scores):
        rises[group.name] = tuple(_rise(model, group, scores[group.name], r, evaluate) - dense for r in shares)
    found = SensitivityMap(shares, _finite(rises), dense, measure)
    if cache is not None:
        write_json(cache, {"key": key, **found.to_json()}, indent=None)
    return found


def _holds(
    known: SensitivityMap,
    dense: float,
    model: nn.Module,
    analysis: Analysis,
    scores: Mapping[str, Tensor],
    evaluate: Callable[[nn.Module], float],
) -> bool:
    """Whether a kept map is one of this measure on these data: its first number, and that of the largest rise."""
    if not math.isclose(dense, known.dense, rel_tol=_SAME):
        return False
    if not known.rises:
        return True
    rise, name, i = max((abs(r), name, i) for name, row in known.rises.items() for i, r in enumerate(row))
    again = _rise(model, analysis.group(name), scores[name], known.ratios[i], evaluate)
    return math.isclose(again, dense + known.rises[name][i], rel_tol=_SAME, abs_tol=_SAME * rise)


def _finite(rises: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """The same, with what is no number taken to be far worse than anything that is one; says so."""
    known = [abs(r) for row in rises.values() for r in row if math.isfinite(r)]
    far = _FAR * max([1.0, *known])
    broken = [name for name, row in rises.items() if not all(map(math.isfinite, row))]
    if broken:
        warnings.warn(
            f"without parts of {', '.join(broken[:4])} the measure is no finite number: it counts as a rise of {far:g}",
            stacklevel=3,
        )
    return {name: tuple(r if math.isfinite(r) else far for r in row) for name, row in rises.items()}


def _rise(
    model: nn.Module, group: Group, scores: Tensor, ratio: float, evaluate: Callable[[nn.Module], float]
) -> float:
    gone = scores.double().cpu().argsort(stable=True)[: min(round(ratio * group.size), group.size - 1)]
    with _without(model, group, gone):
        return evaluate(model)


@contextmanager
def _without(model: nn.Module, group: Group, gone: Tensor) -> Iterator[None]:
    """Zeroes all that goes with some of a group's indices."""
    parameters = dict(model.named_parameters())
    before = {p.parameter: parameters[p.parameter].detach().clone() for p in group.occurrences}
    try:
        with torch.no_grad():
            for place in group.occurrences:
                where = torch.from_numpy(axes.positions(place.expr, group.axis))
                mine = torch.isin(where, gone).nonzero()[:, 0].to(parameters[place.parameter].device)
                parameters[place.parameter].index_fill_(place.dim, mine, 0.0)
        yield
    finally:
        with torch.no_grad():
            for name, values in before.items():
                parameters[name].copy_(values)


def _key(analysis: Analysis, scores: Mapping[str, Tensor], ratios: tuple[float, ...], measure: str, data: str) -> str:
    total = hashlib.sha256(f"{ratios} {measure} {data}".encode())
    for name, value in [*analysis.model.state_dict().items(), *scores.items()]:
        total.update(name.encode())
        total.update(as_bytes(value))
    return total.hexdigest()


def _read(cache: str | Path | None, key: str) -> SensitivityMap | None:
    try:
        data = json.loads(Path(cache).read_text()) if cache is not None else None
        return SensitivityMap.from_json(data) if data is not None and data["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not there yet, or damaged: it is measured again
