"""Whether a study that goes on is about what it was about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.store import Header, short
from luthier.study import exchange


def same_study(stored: Header, given: Header) -> None:
    """Refuses to go on with a study that is about something else, and says what differs.

    Raises:
        UsageError: other parameters, objectives or, where they decide about trials, settings.
        StoreError: what is stored is damaged.
    """
    exchange.understood(stored)
    facts = [
        *_differences("parameter", stored.space["parameters"], given.space["parameters"]),
        *_differences("rule of", {"where": stored.space.get("where", 0)}, {"where": given.space["where"]}),
        *_differences("objective", stored.objectives["directions"], given.objectives["directions"]),
        *_differences("constraint", stored.objectives["constraints"], given.objectives["constraints"]),
    ]
    if given.settings["lag"] is not None or stored.settings.get("lag") is not None:
        facts += _differences("setting", _deciding(stored.settings), _deciding(given.settings))
    if facts:
        raise UsageError(
            f"the store already holds another study named {short(given.name)!r}",
            expected="the same space and objectives, to go on with it",
            got="; ".join(facts),
            fix="choose another name, or another store",
        )


def same_folder(known: Path | None, given: Path | None) -> None:
    """Refuses another folder than that in which a study's checkpoints are.

    Raises:
        UsageError: another one.
    """
    if known is None or given is None or known.absolute() == given.absolute():
        return
    raise UsageError(
        "the study keeps its checkpoints elsewhere",
        expected=f"checkpoints={str(known)!r}, or none given: the study remembers it",
        got=f"checkpoints={str(given)!r}",
        fix="leave 'checkpoints' out, or begin a study of another name",
    )


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change which trials there are."""
    return {n: v for n, v in settings.items() if n != "checkpoints"}


def _differences(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    both = [n for n in old if n in new and old[n] != new[n] and _text(old[n]) != _text(new[n])]
    out = [f"{kind} {n!r} was {old[n]} and is {new[n]} now" for n in both]
    out += [f"{kind} {n!r} is gone" for n in old if n not in new]
    return out + [f"{kind} {n!r} is new" for n in new if n not in old]


def _text(value: Any) -> str:
    """As a store has it, in which NaN, an option like any other, is like NaN."""
    return json.dumps(value, sort_keys=True, default=repr)
