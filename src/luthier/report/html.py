"""Pieces of a page, and the page around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from luthier.extras import need

BLUE, ORANGE, GREY, INK, GREEN = "#2f5d8a", "#d9822b", "#b9bec7", "#22262e", "#3c8d5a"


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page that opens without a network: style and plotly's script are inside.

    Raises:
        MissingExtra: plotly is not installed.
    """
    style = files("luthier.report").joinpath("page.css").read_text(encoding="utf-8")
    script = need("plotly.offline", "plot", "a report").get_plotlyjs()
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style><script>{script}</script></head>\n"
        f"<body><main>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


def section(heading: str, *parts: str, lead: str = "") -> str:
    """A titled part of the page."""
    intro = f"<p class='lead'>{lead}</p>" if lead else ""
    return f"<section><h2>{escape(heading)}</h2>{intro}{''.join(parts)}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], marked: int | None = None) -> str:
    """A table; cells are HTML already. Columns of words are left-aligned, the row ``marked`` stands out."""
    cells = [list(row) for row in rows]
    sides = [" class=words" if any(map(_is_words, column)) else "" for column in zip(*cells, strict=True)]
    sides = sides or [""] * len(head)
    top = "".join(f"<th{side}>{escape(h)}</th>" for side, h in zip(sides, head, strict=True))
    body = "".join(
        f"<tr{' class=marked' if i == marked else ''}>"
        + "".join(f"<td{side}>{cell}</td>" for side, cell in zip(sides, row, strict=True))
        + "</tr>"
        for i, row in enumerate(cells)
    )
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _is_words(cell: str) -> bool:
    """Whether a cell begins with a letter: no number, no sign, nothing that is empty."""
    return re.sub("<[^>]*>", "", cell).strip()[:1].isalpha() and cell.strip().lower() not in ("nan", "inf", "none")


def card(figure: str, words: str, detail: str = "") -> str:
    """One number that matters."""
    return f"<div class='card'><b>{escape(figure)}</b><span>{escape(words)}</span><small>{escape(detail)}</small></div>"


def cards(*parts: str) -> str:
    """Several of them in a row."""
    return f"<div class='cards'>{''.join(parts)}</div>"


def code(text: str) -> str:
    """A command to copy."""
    return f"<pre><code>{escape(text)}</code></pre>"


def settings(values: dict[str, Any], between: str = ", ") -> str:
    """Parameters as a short list."""
    return between.join(f"{escape(str(k))} = {escape(short(v))}" for k, v in values.items())


def short(value: Any) -> str:
    """A value with no more digits than help.

    Example:
        >>> short(0.00123456), short(True), short("l2"), short(12)
        ('0.00123', 'True', 'l2', '12')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def figure(drawing: Any, height: int, name: str) -> str:
    """A plotly figure as a piece of a page; its name is its place in the page."""
    drawing.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="#fbfbfc",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY},
    )
    drawing.update_xaxes(gridcolor="#e7e9ee", zeroline=False)
    drawing.update_yaxes(gridcolor="#e7e9ee", zeroline=False, automargin=True)
    text: str = drawing.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True},
    )
    return f"<div class='figure'>{text}</div>"


def graph_objects() -> Any:
    """Plotly's figures.

    Raises:
        MissingExtra: plotly is not installed.
    """
    return need("plotly.graph_objects", "plot", "a report")
