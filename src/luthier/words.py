"""Numbers and tables as people read them."""

from __future__ import annotations

from typing import Any


def number(value: float) -> str:
    """A count in three digits and a unit.

    Example:
        >>> number(2_412_000), number(950), number(0)
        ('2.41 M', '950', '0')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def printed(thing: Any) -> str:
    """What rich would print, as plain text of at most 100 columns."""
    from rich.console import Console

    console = Console(width=100, color_system=None)
    with console.capture() as text:
        console.print(thing)
    return text.get().rstrip()
