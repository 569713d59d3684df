"""The page over a tuning study: its course, the best configuration, what mattered, every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any

from luthier.report import html
from luthier.report.html import BLUE, GREEN, GREY

Row = Mapping[str, Any]
_MOST_ROWS = 500
_KINDS = ("complete", "stopped", "failed", "paused", "running")


def study_page(content: Row) -> str:
    """One self-contained page.

    Args:
        content: plain values:
            name: the study's name.
            objectives: list of (metric, "min" or "max").
            trials: rows with number, status, feasible, params, metrics, cause, seconds.
            best: number of the best trial, or None.
            estimates: metric -> mean, low, high, count and by, where more is known of the best than its measurement.
            front: numbers of the trials on the front.
            importance: parameter -> share; may be empty.
            interactions: the largest, as (parameter, other, share), for the words below; may be left out.
            command: how to run it again, or None.

    Returns:
        HTML.

    Raises:
        MissingExtra: plotly is not installed.
    """
    count = {s: sum(t["status"] == s for t in content["trials"]) for s in _KINDS}
    summary = ", ".join(f"{n} {s}" for s, n in count.items() if n)
    parts = [
        f"<h1>Study {escape(content['name'])}</h1>",
        f"<p class='sub'>{len(content['trials'])} trials: {summary or 'none yet'}.</p>",
        _best(content),
        html.section(
            "Course" if len(content["objectives"]) == 1 else "Front", html.figure(course_figure(content), 380, "course")
        ),
        html.section(
            "What mattered",
            html.figure(importance_figure(content["importance"]), 320, "importance"),
            lead=_interactions(content),
        )
        if content["importance"]
        else "",
        html.section("Trials", trials_table(content)),
        html.section("Again", html.code(content["command"]), lead="It goes on from here: totals count every run.")
        if content.get("command")
        else "",
    ]
    return html.page(f"Luthier: {content['name']}", [p for p in parts if p])


def _best(content: Row) -> str:
    best = next((t for t in content["trials"] if t["number"] == content["best"]), None)
    if best is None:
        return html.section("No trial has completed yet")
    shown = [html.card(html.short(best["metrics"][name]), name, direction) for name, direction in content["objectives"]]
    return html.section(
        f"Best: trial {best['number']}",
        html.cards(*shown, *_estimates(content)),
        f"<p class='lead' style='margin-top:12px'>{html.settings(dict(best['params']))}</p>",
    )


def _estimates(content: Row) -> list[str]:
    """A card for each metric whose noise-free value is known better than by one measurement."""
    out = []
    for name, each in content.get("estimates", {}).items():
        source = f"{each['count']} repeats" if each["by"] == "repeats" else "a model of all trials"
        interval = f"95 %: {html.short(each['low'])} to {html.short(each['high'])}, by {source}"
        out.append(html.card(html.short(each["mean"]), f"{name}, without noise", interval))
    return out


def course_figure(content: Row) -> Any:
    """One objective: every trial and the best so far. Several: the first two against each other, the front marked."""
    done = [t for t in content["trials"] if t["status"] == "complete"]
    return _trade_off(content, done) if len(content["objectives"]) > 1 else _progress(content, done)


def _progress(content: Row, done: Sequence[Row]) -> Any:
    go = html.graph_objects()
    name, direction = content["objectives"][0]
    values = [t["metrics"][name] for t in done]
    drawing = go.Figure()
    drawing.add_scatter(
        x=[t["number"] for t in done],
        y=values,
        mode="markers",
        name="trials",
        marker={"color": BLUE, "size": 7, "opacity": 0.6},
        text=[html.settings(dict(t["params"]), "<br>") for t in done],
        hovertemplate="trial %{x}: %{y:.5g}<br>%{text}<extra></extra>",
    )
    kept = [t for t in done if t["feasible"]]
    best = list(accumulate((t["metrics"][name] for t in kept), max if direction == "max" else min))
    line = {"color": GREEN, "width": 2, "shape": "hv"}
    drawing.add_scatter(x=[t["number"] for t in kept], y=best, mode="lines", name="best so far", line=line)
    drawing.update_xaxes(title="trial")
    drawing.update_yaxes(title=name)
    return drawing


def _trade_off(content: Row, done: Sequence[Row]) -> Any:
    go = html.graph_objects()
    (first, _), (second, direction) = content["objectives"][:2]
    steps = {"color": GREEN, "width": 1, "dash": "dot", "shape": "hv" if direction == "min" else "vh"}
    front = [t for t in done if t["number"] in content["front"]]
    drawing = go.Figure()
    for label, colour, some in (
        ("behind the front", GREY, [t for t in done if t["number"] not in content["front"]]),
        ("front", GREEN, sorted(front, key=lambda t: t["metrics"][second])),
    ):
        drawing.add_scatter(
            x=[t["metrics"][second] for t in some],
            y=[t["metrics"][first] for t in some],
            mode="lines+markers" if label == "front" and len(content["objectives"]) == 2 else "markers",
            line=steps,
            name=label,
            marker={"color": colour, "size": 9},
            text=[f"trial {t['number']}<br>" + html.settings(dict(t["params"]), "<br>") for t in some],
            hovertemplate="%{text}<br>%{x:.5g}, %{y:.5g}<extra></extra>",
        )
    drawing.update_xaxes(title=second)
    drawing.update_yaxes(title=first)
    return drawing


def _interactions(content: Row) -> str:
    found = [
        f"{escape(a)} with {escape(b)} ({share:.0%})"
        for a, b, share in content.get("interactions", ())
        if share >= 0.01
    ]
    each = "A parameter's own effect and half of its interactions."
    return f"{each} Interactions: {', '.join(found)}." if found else each


def importance_figure(shares: Mapping[str, float]) -> Any:
    """Bars, the most important parameter on top."""
    go = html.graph_objects()
    ranked = sorted(shares.items(), key=lambda item: item[1])
    drawing = go.Figure(
        go.Bar(
            x=[v for _, v in ranked],
            y=[k for k, _ in ranked],
            orientation="h",
            marker={"color": BLUE},
            texttemplate="%{x:.0%}",
            textposition="outside",
            cliponaxis=False,
        )
    )
    drawing.update_xaxes(title="share of the variation explained", tickformat=".0%")
    drawing.update_yaxes(ticksuffix=" ")
    return drawing


def _notes(trial: Row) -> list[str]:
    again = trial.get("repeats")
    notes = [trial["cause"], f"repeats trial {again}" if again is not None else None]
    return [note for note in notes if note]


def trials_table(content: Row) -> str:
    """Every trial with its parameters and metrics; beyond 500 the last ones."""
    trials = content["trials"][-_MOST_ROWS:]
    params = list(dict.fromkeys(name for t in trials for name in t["params"]))
    metrics = list(dict.fromkeys(name for t in trials for name in t["metrics"]))
    rows = [
        [
            str(t["number"]),
            escape(t["status"]) + "".join(f"<small>{escape(note)}</small>" for note in _notes(t)),
            *(escape(html.short(t["metrics"].get(name, ""))) for name in metrics),
            *(escape(html.short(t["params"].get(name, ""))) for name in params),
        ]
        for t in trials
    ]
    marked = next((i for i, t in enumerate(trials) if t["number"] == content["best"]), None)
    return html.table(["trial", "status", *metrics, *params], rows, marked)
