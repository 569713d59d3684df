"""The page over a compression run: the front, what was cut where, training curves, proofs, how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from luthier.report import html
from luthier.report.html import BLUE, GREEN, GREY, INK, ORANGE

Row = Mapping[str, Any]

_KINDS = (
    ("pruned", "pruned", BLUE, "circle"),
    ("distilled", "pruned and distilled", ORANGE, "diamond"),
)


def run_page(content: Row) -> str:
    """One self-contained page.

    Args:
        content: what run.json holds: title, dense, front, best, trials, metric, settings, note.

    Returns:
        HTML.

    Raises:
        MissingExtra: plotly is not installed.
    """
    parts = [
        f"<h1>Compression of {escape(content.get('title', 'a network'))}</h1>",
        f"<p class='sub'>{escape(content['note'])}</p>",
        _best(content),
        html.section(
            "The front",
            html.figure(front_figure(content), 460, "front"),
            front_table(content),
            lead="Each dot is a trial; the line joins the proven files. "
            f"Latency: ONNX Runtime, 1 thread, batches of {content['settings']['batch_size']}, as a share of dense.",
        ),
        html.section(
            "What was cut where",
            html.figure(cuts_figure(content["front"]), 130 + 34 * len(content["front"][0]["cuts"]), "cuts"),
            lead="Units kept of every width, for each file on the front.",
        )
        if content["front"]
        else "",
        _sensitivity(content.get("sensitivity")),
        html.section(
            "Training curves",
            html.figure(curves_figure(content), 360, "curves"),
            lead=f"Validation {escape(content['metric']['name'])} after each epoch; epoch 0 is right after the cut.",
        ),
        html.section("Proofs", proofs_table(content["front"])) if content["front"] else "",
        html.section("Again", html.code(_command(content)), lead="The command that made this page."),
    ]
    return html.page("Luthier: " + content.get("title", "compression"), [p for p in parts if p])


def _command(content: Row) -> str:
    return str(content["settings"].get("command") or "luthier.compress(...) called from Python")


def _best_row(content: Row) -> Row | None:
    return next((p for p in content["front"] if p["trial"] == content["best"]), None)


def _values(point: Row) -> Row:
    values: Row = point["test"] or point["valid"]
    return values


def _best(content: Row) -> str:
    best, dense, name = _best_row(content), content["dense"], content["metric"]["name"]
    if best is None:
        return html.section("No file within the budget", lead=escape(content["note"]))
    ratio = best["ratio"]
    value, before = _values(best)[name], _values(dense)[name]
    data = "test" if best["test"] else "validation"
    return html.section(
        f"Best within the budget: point {best['trial']} ({best['kind']})",
        html.cards(
            html.card(f"{value:.4f}", f"{name} ({data})", f"dense {before:.4f}"),
            html.card(
                f"{ratio['latency']:.2f} x",
                "latency",
                f"[{ratio['latency_low']:.2f}, {ratio['latency_high']:.2f}], {best['cost']['latency_ms']:.3g} ms",
            ),
            html.card(f"{ratio['macs']:.2f} x", "MACs", f"{best['cost']['macs']:,.0f} per example"),
            html.card(f"{ratio['parameters']:.2f} x", "parameters", f"{best['cost']['parameters']:,.0f}"),
            html.card(f"{ratio['bytes']:.2f} x", "bytes", f"{best['cost']['bytes']:,.0f} in model.onnx"),
        ),
        f"<p class='lead' style='margin-top:12px'>Made with {html.settings(best['params'])}.</p>",
    )


def front_figure(content: Row) -> Any:
    """Metric over latency: every trial by its kind, the rejected ones apart, the front joined."""
    go, metric = html.graph_objects(), content["metric"]["name"]
    drawing = go.Figure()
    accepted = [t for t in content["trials"] if t["status"] == "complete" and t["feasible"]]
    rejected = [t for t in content["trials"] if t not in accepted and metric in t["metrics"]]
    drawing.add_scatter(**_dots(rejected, metric), name="rejected", marker={"symbol": "x", "size": 8, "color": GREY})
    for kind, label, colour, symbol in _KINDS:
        some = [t for t in accepted if t["kind"] == kind]
        marker = {"symbol": symbol, "size": 9, "color": colour, "opacity": 0.55}
        drawing.add_scatter(**_dots(some, metric), name=label, marker=marker)
    front = sorted(content["front"], key=lambda p: p["ratio"]["latency"])
    drawing.add_scatter(
        x=[p["ratio"]["latency"] for p in front],
        y=[p["valid"][metric] for p in front],
        text=[f"<b>point {p['trial']}</b> ({p['kind']}), on the front<br>{_lines(p['params'])}" for p in front],
        mode="lines+markers",
        name="front: proven files",
        line={"color": GREEN, "width": 2},
        marker={"size": 11, "color": GREEN, "symbol": "circle-open", "line": {"width": 2}},
        hovertemplate="%{text}<br>latency %{x:.3f} x, " + metric + " %{y:.4f}<extra></extra>",
    )
    drawing.add_scatter(
        x=[1.0],
        y=[content["dense"]["valid"][metric]],
        name="dense",
        mode="markers",
        marker={"symbol": "star", "size": 15, "color": INK},
        hovertemplate="dense<br>" + metric + " %{y:.4f}<extra></extra>",
    )
    limit = content["settings"]["budget"].get("latency")
    if limit:
        drawing.add_vline(x=limit, line={"dash": "dot", "color": GREY}, annotation_text=f"budget {limit:g}")
    drawing.update_xaxes(title="latency, share of dense", rangemode="tozero")
    drawing.update_yaxes(title=f"validation {metric}", range=_y_range(accepted, content, metric))
    return drawing


def _y_range(accepted: Sequence[Row], content: Row, metric: str) -> list[float]:
    """From the worst trained network to the best, with a margin; those rejected may lie outside."""
    shown = [t["metrics"][metric] for t in accepted] + [content["dense"]["valid"][metric]]
    margin = 0.08 * (max(shown) - min(shown)) or 0.05 * abs(shown[0]) or 0.05
    return [min(shown) - margin, max(shown) + margin]


def _dots(trials: Sequence[Row], metric: str) -> dict[str, Any]:
    return {
        "x": [t["metrics"].get("latency_ratio") for t in trials],
        "y": [t["metrics"][metric] for t in trials],
        "text": [f"<b>trial {t['number']}</b>: {_fate(t)}<br>{_lines(t['params'])}" for t in trials],
        "mode": "markers",
        "hovertemplate": "%{text}<br>latency %{x:.3f} x, " + metric + " %{y:.4f}<extra></extra>",
    }


def _fate(trial: Row) -> str:
    if trial["status"] != "complete":
        return escape(f"{trial['status']}{': ' + trial['cause'] if trial['cause'] else ''}")
    return str(trial["kind"]) if trial["feasible"] else "over the budget, not trained"


def _lines(params: Row) -> str:
    return "<br>".join(f"{escape(str(k))} {escape(html.short(v))}" for k, v in params.items())


def cuts_figure(front: Sequence[Row]) -> Any:
    """A row for every width, a column for every file: the share kept, with the numbers in it."""
    go = html.graph_objects()
    names = [c["name"] for c in front[0]["cuts"]]
    share = [[p["cuts"][i]["after"] / p["cuts"][i]["before"] for p in front] for i in range(len(names))]
    text = [[f"{p['cuts'][i]['after']} of {p['cuts'][i]['before']}" for p in front] for i in range(len(names))]
    drawing = go.Figure(
        go.Heatmap(
            x=[f"point {p['trial']}" for p in front],
            y=names,
            z=share,
            text=text,
            texttemplate="%{text}",
            zmin=0,
            zmax=1,
            colorscale=[[0, "#fff7ec"], [0.5, "#9ebcda"], [1, BLUE]],
            hovertemplate="%{y}, %{x}: %{text} kept<extra></extra>",
            colorbar={"title": "kept", "tickformat": ".0%"},
            xgap=3,
            ygap=3,
        )
    )
    drawing.update_yaxes(autorange="reversed")
    return drawing


def _sensitivity(found: Row | None) -> str:
    if not found:
        return ""
    return html.section(
        "What removal costs",
        html.figure(sensitivity_figure(found), 130 + 26 * len(found["rises"]), "sensitivity"),
        lead=f"How much the {escape(found['measure'])} on validation data rises (from {found['dense']:.4g}) when a "
        "share of one width alone is removed, before any training: what spreads a stage's share over its widths.",
    )


def sensitivity_figure(found: Row) -> Any:
    """A row for every width, a column for every share removed: the rise."""
    go = html.graph_objects()
    rises = [list(row) for row in found["rises"].values()]
    drawing = go.Figure(
        go.Heatmap(
            x=[f"{r:.0%} removed" for r in found["ratios"]],
            y=list(found["rises"]),
            z=rises,
            text=[[f"{r:+.3f}" for r in row] for row in rises],
            texttemplate="%{text}",
            colorscale=[[0, "#fff7ec"], [0.5, "#fdbb84"], [1, "#b30000"]],
            hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
            colorbar={"title": "rise"},
            xgap=3,
            ygap=3,
        )
    )
    drawing.update_yaxes(autorange="reversed")
    return drawing


def curves_figure(content: Row) -> Any:
    """The metric after every epoch of every trial."""
    go, metric = html.graph_objects(), content["metric"]["name"]
    drawing, seen = go.Figure(), set()
    front = {p["trial"] for p in content["front"]}
    for trial in content["trials"]:
        points = [(p["step"], p[metric]) for p in trial["curve"] if metric in p]
        label, colour, width = _curve_style(trial, front)
        drawing.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers",
            name=label,
            legendgroup=label,
            showlegend=label not in seen,
            line={"color": colour, "width": width},
            marker={"size": 4},
            opacity=1.0 if trial["number"] in front else 0.6,
            hovertemplate=f"trial {trial['number']}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
        )
        seen.add(label)
    longest = max((p["step"] for t in content["trials"] for p in t["curve"]), default=0)
    drawing.update_xaxes(title="epoch", dtick=1 if longest <= 12 else None)
    drawing.update_yaxes(title=f"validation {metric}")
    return drawing


def _curve_style(trial: Row, front: set[int]) -> tuple[str, str, float]:
    if trial["number"] in front:
        return "on the front", GREEN, 2.5
    if trial["status"] == "complete" and trial["feasible"]:
        return "behind the front", BLUE, 1.2
    return "rejected or stopped early", GREY, 1.2


def front_table(content: Row) -> str:
    """Dense and every file on the front: metrics and costs, with ratios."""
    points = [content["dense"], *content["front"]]
    names = list(_values(content["dense"]))
    head = ["", *(n.replace("_", " ") for n in names), "parameters", "MACs", "bytes", "latency ms", "latency x"]
    rows = [_front_row(p, content["dense"], names) for p in points]
    best = next((i for i, p in enumerate(points) if p["trial"] == content["best"] and p["trial"] is not None), None)
    return html.table(head, rows, marked=best)


def _front_row(point: Row, dense: Row, names: Sequence[str]) -> list[str]:
    label = "dense" if point["trial"] is None else f"point {point['trial']}"
    values, cost, ratio = _values(point), point["cost"], point["ratio"]
    reference = _values(dense)
    row = [f"{label}<small>{point['kind']}</small>"]
    for name in names:
        share = f"{values[name] / reference[name]:.3f} x" if reference[name] else ""
        row.append(f"{values[name]:.4f}<small>{share}</small>")
    row += [f"{cost[n]:,.0f}<small>{ratio[n]:.3f} x</small>" for n in ("parameters", "macs", "bytes")]
    row.append(f"{cost['latency_ms']:.3f}<small>[{cost['latency_low']:.3f}, {cost['latency_high']:.3f}]</small>")
    row.append(f"{ratio['latency']:.3f}<small>[{ratio['latency_low']:.3f}, {ratio['latency_high']:.3f}]</small>")
    return row


def proofs_table(front: Sequence[Row]) -> str:
    """A row for every proof, a column for every file: what was measured, and what was allowed."""
    kinds = {c["name"]: c for p in front for c in p["checks"]}
    rows = []
    for name, kind in kinds.items():
        head = f"{escape(name)}<small>at most {kind['limit']:.0e}; {escape(kind['words'])}</small>"
        cells = [next((c for c in p["checks"] if c["name"] == name), None) for p in front]
        rows.append([head, *map(_proof, cells)])
    return html.table(["proof", *(f"point {p['trial']}" for p in front)], rows)


def _proof(check: Row | None) -> str:
    if check is None:
        return "-"
    word = "<span class='ok'>holds</span>" if check["passed"] else "<span class='bad'>fails</span>"
    return f"{word} {check['error']:.1e}"
