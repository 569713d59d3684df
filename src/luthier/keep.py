"""Which weights stay: masks from scores, by a ratio, a threshold or a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from luthier.allocate import lamp
from luthier.errors import UsageError

Scores = dict[str, Tensor]
SCOPES = ("global", "layer", "lamp")


def keep_by_ratio(scores: Scores, ratio: float, scope: str = "global") -> Scores:
    """Masks that remove the share ``ratio`` with the lowest scores, exactly (ties by position).

    Args:
        scores: parameter name -> score of each entry.
        ratio: share removed, in [0, 1].
        scope: "global" (all entries compete), "lamp" (all compete by their share of what is left of their parameter,
            see ``luthier.allocate.lamp``) or "layer" (the share is removed from each parameter).
    """
    if scope == "lamp":
        return keep_by_ratio({name: lamp(s) for name, s in scores.items()}, ratio)
    if scope == "layer":
        return {name: _keep_top(s.flatten(), ratio).view(s.shape) for name, s in scores.items()}
    flat = torch.cat([s.flatten() for s in scores.values()])
    parts = torch.tensor_split(_keep_top(flat, ratio), _ends(scores))
    return {name: part.view(s.shape) for (name, s), part in zip(scores.items(), parts, strict=True)}


def _ends(scores: Scores) -> list[int]:
    """Where each parameter ends when all are laid end to end, the last left out."""
    return list(accumulate(s.numel() for s in scores.values()))[:-1]


def _keep_top(flat: Tensor, ratio: float) -> Tensor:
    kept = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    kept[flat.argsort(stable=True)[: round(ratio * len(flat))]] = False
    return kept


def keep_by_pattern(score: Tensor, n: int, m: int) -> Tensor:
    """Keeps the n highest of every m neighbours along the inputs of a weight of shape (out, in, ...).

    Source:
        Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch", 2021.
    """
    rows = score.movedim(1, -1).reshape(-1, m)
    kept = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.topk(n, dim=1).indices, True)
    shape = score.movedim(1, -1).shape
    return kept.view(shape).movedim(-1, 1)


def _read_pattern(pattern: str) -> tuple[int, int]:
    n, _, m = str(pattern).partition(":")
    if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
        raise UsageError(
            "the pattern cannot be read", expected='"n:m" with 0 < n < m, such as "2:4"', got=repr(pattern)
        )
    return int(n), int(m)


def choose(
    scores: Scores,
    how: str,
    amount: Any,
    scope: str,
    before: Mapping[str, Tensor],
    flipped: Mapping[str, int] | None = None,
) -> tuple[Scores, dict[str, str]]:
    """Masks from scores, by "ratio", "threshold" or "pattern", within those from before.

    Args:
        scores: parameter name -> score of each entry.
        how: what the amount is.
        amount: the ratio, threshold or pattern.
        scope: see :func:`keep_by_ratio`.
        before: parameter name -> what earlier masks kept, where there are some.
        flipped: weights of shape (in, out / groups, ...) -> their groups.

    Returns:
        the masks; and what was left whole, with the reason.
    """
    odd: dict[str, str] = {}
    if how == "threshold":
        masks = {name: s >= amount for name, s in scores.items()}
    elif how == "ratio":
        masks = keep_by_ratio(_lowest_where_gone(scores, before, scope), amount, scope)
    else:
        masks, odd = _by_pattern(_lowest_where_gone(scores, before, "layer"), _read_pattern(amount), flipped or {})
    return {name: kept & before[name] if name in before else kept for name, kept in masks.items()}, odd


def _by_pattern(scores: Scores, pattern: tuple[int, int], flipped: Mapping[str, int]) -> tuple[Scores, dict[str, str]]:
    """Masks of weights whose inputs can be told off by m; and why not of the rest."""
    n, m = pattern
    rows = {name: _flip(s, flipped[name]) if name in flipped else s for name, s in scores.items()}
    odd = {name: f"its {s.shape[1]} inputs are no multiple of {m}" for name, s in rows.items() if s.shape[1] % m}
    masks = {name: keep_by_pattern(s, n, m) for name, s in rows.items() if name not in odd}
    return {name: _flip(kept, flipped[name]) if name in flipped else kept for name, kept in masks.items()}, odd


def _flip(weight: Tensor, groups: int) -> Tensor:
    """(in, out / groups, ...) as (out, in / groups, ...), and back."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def _lowest_where_gone(scores: Scores, kept: Mapping[str, Tensor], scope: str) -> Scores:
    """Scores from above 0, and 0 where a weight is gone already: a kept one with a score of 0 goes after it.

    All that compete are shifted alike, so that those of different layers still compare.
    """
    if not any(name in kept for name in scores):
        return scores
    if scope != "global" and len(scores) > 1:
        return {name: _lowest_where_gone({name: s}, kept, scope)[name] for name, s in scores.items()}
    lowest = min(float(s.min()) for s in scores.values())
    floor = 1e-9 * max(float(s.abs().max()) for s in scores.values()) or 1e-9
    shifted = {name: s - min(lowest, 0.0) + floor for name, s in scores.items()}
    return {name: torch.where(kept[name], s, 0) if name in kept else s for name, s in shifted.items()}
