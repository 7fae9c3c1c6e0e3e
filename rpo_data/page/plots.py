"""The plots of the page as Vega-Lite specifications (version 6): plain data in, plain data out.

Colours are those of the page's style sheet (`var(--mined)`), so that a plot follows light, dark and print by itself. A text of
the logs stands in the data of a specification only, never in an expression of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from rpo_data.page.cells import Curves
from rpo_data.schemas.manifest import Distribution

Spec = dict[str, Any]

_COLORS = {
    "own": "own", "mined": "mined", "random": "random",
    "chosen": "mined", "rejected": "random", "wins": "mined", "losses": "random",
}  # fmt: skip
"""Colour in the style sheet by the first word of a name."""

_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12}
_TEXT |= {"titleFontWeight": "normal", "labelLimit": 260}
_CONFIG = {
    "font": "system-ui, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {**_TEXT, "domainColor": "var(--line)", "tickColor": "var(--line)", "gridColor": "var(--grid)"},
    "legend": {**_TEXT, "orient": "top"},
    "text": {"fill": "currentColor", "fontSize": 12},
}
_SHARE_AXIS = {"format": "~%", "tickCount": 5}
_TEMPERATURE_AXIS = {"format": "~g", "values": [0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 5, 10, 100, 1000]}
_LENGTH_AXIS = {"format": "~s", "values": [10**power for power in range(7)]}
_HIDDEN_AXIS = {"labels": False, "ticks": False, "domain": False, "grid": False}


def bars(rows: Sequence[Mapping[str, Any]], label: str, number: str, title: str, color: str) -> Spec:
    """Horizontal bars, in the order given, each with its number."""
    y = _named(label, title=None, sort=[row[label] for row in rows])
    x = _number(number, axis=None)
    bar = _layer({"type": "bar", "fill": f"var(--{color})"}, x=x, y=y)
    text = _layer({"type": "text", "align": "left", "dx": 4}, x=x, y=y, text=_number(number, format=","))
    values = [{label: row[label], number: row[number]} for row in rows]
    return _plot(title, values, 26 * len(rows), layer=[bar, text])


def histogram(
    values: Mapping[str, np.ndarray],
    edges: np.ndarray,
    axis: str,
    what: str,
    marks: Mapping[str, float | None] | None = None,
    log: bool = False,
    domain: Sequence[float] | None = None,
) -> Spec:
    """Share of the values between edges, one outline for each named array.

    Args:
        values: numbers by name; what lies outside the edges counts in the first or the last bin.
        edges: of the bins, rising.
        axis: title of the x axis.
        what: of which a share is told.
        marks: upright lines with a name.
        log: whether the x axis is logarithmic.
        domain: ends of the x axis, where they are not those of the values.
    """
    rows: list[dict[str, Any]] = []
    values = {name: found for name, found in values.items() if len(found)}
    for name, found in values.items():
        counts = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(found)
        low, high = np.flatnonzero(counts)[[0, -1]] + [0, 1]
        outline = zip(edges[[low, *range(low, high + 1)]], [0.0, *counts[low:high], 0.0], strict=True)
        rows += [{"x": _short(x), "share": _short(y), "of": name} for x, y in outline]
    x = (
        _number("x", title=axis, scale={"type": "log"}, axis=_LENGTH_AXIS)
        if log
        else _number("x", title=axis, scale=_scale(domain, padding=8), axis={"tickCount": 8})
    )
    y = _number("share", title=f"share of {what}", stack=None, axis=_SHARE_AXIS)
    area = {"type": "area", "interpolate": "step-after", "fillOpacity": 0.25, "line": {"strokeWidth": 2}}
    lines = {name: at for name, at in (marks or {}).items() if at is not None}
    layers = [_layer(area, x=x, y=y, color=_color(list(values), legend=len(values) > 1)), *_upright(lines)]
    return _plot(f"{axis}, as shares of {what}", rows, 200, layer=layers)


def ranges(
    distributions: Mapping[str, Distribution], title: str, axis: str, domain: Sequence[float] | None = None
) -> Spec:
    """From quantiles: a line from 5 % to 95 %, a bar over the middle half, a tick at the median; `domain` as in `histogram`."""
    names = list(distributions)
    rows = [{"of": name, **distributions[name].model_dump()} for name in names]
    y, color = _named("of", title=None, sort=names), _color(names, legend=False)
    told = [_named("of", title="cells"), *(_number(q, format=".3f") for q in ("p5", "p25", "p50", "p75", "p95"))]

    def mark(kind: Spec, low: str, **more: Any) -> Spec:
        x = _number(low, title=axis, scale=_scale(domain, padding=12), axis={"tickCount": 8})
        return _layer(kind, **{"x": x, "y": y, "color": color, "tooltip": told, **more})

    layers = [
        mark({"type": "rule", "strokeWidth": 2}, "p5", x2={"field": "p95"}),
        mark({"type": "bar", "height": 14}, "p25", x2={"field": "p75"}),
        mark({"type": "tick", "thickness": 3, "height": 22}, "p50", color={"value": "currentColor"}),
    ]
    return _plot(title, rows, 36 * len(rows), layer=layers)


def contrasts_curve(curves: Curves, used: Sequence[float], target: float | None, step: int) -> Spec:
    """Effective contrasts against the temperature, and the place of the slider (signal `step`).

    Args:
        curves: what each temperature makes of the weights.
        used: temperatures in use.
        target: effective contrasts of random groups at the paper's temperature.
        step: where the slider stands.
    """
    rows = [
        {"step": place, "temperature": _short(heat), "contrasts": _short(count)}
        for place, (heat, count) in enumerate(zip(curves.temperatures, curves.contrasts, strict=True))
    ]
    x = _number(
        "temperature", title="temperature (log scale)", scale={"type": "log", "nice": False}, axis=_TEMPERATURE_AXIS
    )
    y = _number("contrasts", title="effective contrasts of a win", scale={"zero": True})
    here = [{"filter": "datum.step == step"}]
    point = {"type": "point", "filled": True, "fill": "var(--own)", "size": 110, "opacity": 1}
    layers = [
        _layer({"type": "line", "stroke": "var(--mined)", "strokeWidth": 2.5}, x=x, y=y),
        _layer({"type": "rule", "stroke": "var(--own)", "strokeWidth": 2}, x=x) | {"transform": here},
        _layer(point, x=x, y=y, tooltip=[x, _number("contrasts", format=".2f")]) | {"transform": here},
        *_upright({f"in use: {heat:.3g}": heat for heat in used}),
    ]
    if target is not None:
        data = {"values": [{"y": _short(target), "name": "random groups at τ = 0.5"}]}
        dash = {"type": "rule", "stroke": "var(--random)", "strokeDash": [6, 4], "strokeWidth": 2}
        text = {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -4}
        layers += [
            _layer(dash, y=_number("y")) | {"data": data},
            _layer(text, y=_number("y"), x={"value": 0}, text={"field": "name"}) | {"data": data},
        ]
    return _plot("Effective contrasts against temperature", rows, 240, layer=layers, params=[_slider(step)])


def shares_plot(curves: Curves, step: int) -> Spec:
    """Where the weight of a win lies at the temperature of the slider (signal `step`)."""
    rows = [
        {"step": place, "cell": name, "share": _short(share)}
        for place, shares in enumerate(curves.shares)
        for name, share in zip(curves.names, shares, strict=True)
    ]
    label = "datum.label == 'nearest' ? '1st' : datum.label"  # shorter, so that labels have room on a telephone
    axis = {"labelAngle": 0, "labelExpr": label}
    x = _named("cell", title="losses that the win meets: own, then the nearest", sort=curves.names, axis=axis)
    y = _number("share", title="share of a win's weight", scale={"domain": [0, 1]}, axis=_SHARE_AXIS)
    bar = _layer({"type": "bar", "fill": "var(--mined)"}, x=x, y=y, tooltip=[x, _number("share", format=".1%")])
    text = _layer({"type": "text", "dy": -7}, x=x, y=y, text=_number("share", format=".0%"))
    here = [{"filter": "datum.step == step"}]
    layers = [bar, text]
    return _plot("Where a win's weight lies", rows, 240, layer=layers, transform=here, params=[_slider(step)])


def prompt_map(points: pl.DataFrame, by: str) -> Spec:
    """The map; pointing at a prompt lights up its group. The page itself hands over the data, under the name `points`.

    Args:
        points: as `map_points` has it.
        by: what colours tell: `topic` or `cosine`.
    """
    topics = points["topic"].unique().sort().to_list()
    colors = [f"var(--topic{place})" for place in range(1, len(topics) + 1)]
    legend = {"title": None, "columns": {"expr": "max(1, floor(width / 240))"}, "symbolOpacity": 1, "labelLimit": 230}
    coloured = {
        "topic": _named("topic", scale={"domain": topics, "range": colors}, legend=legend),
        "cosine": _number("cosine", title="mean cosine of the group", scale={"scheme": "viridis"}),
    }
    told = [_named("text", title="prompt"), _named("topic"), _named("group"), _number("cosine", title="mean cosine")]
    place = {"axis": _HIDDEN_AXIS, "title": None, "scale": {"zero": False}}
    lit = {"param": "pointed", "empty": False}
    pointed = {"type": "point", "on": "pointerover", "clear": "pointerout", "fields": ["group"]}
    drawn = _layer(
        {"type": "point", "filled": True, "aria": False},
        x=_number("x", **place),
        y=_number("y", **place),
        color=coloured[by],
        size={"condition": {**lit, "value": 160}, "value": 36},
        opacity={"condition": {**lit, "value": 1}, "value": 0.6},
        stroke={"condition": {**lit, "value": "currentColor"}, "value": None},
        tooltip=told,
    )
    plot = _plot("Map of prompts", [], 520, params=[{"name": "pointed", "select": pointed}], **drawn)
    return plot | {"data": {"name": "points"}}


def _plot(description: str, rows: Sequence[Mapping[str, Any]], height: int, **rest: Any) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(rows)},
        "config": _CONFIG,
        **rest,
    }


def _scale(domain: Sequence[float] | None, padding: int) -> Spec:
    return {"domain": list(domain), "nice": False} if domain else {"zero": False, "nice": False, "padding": padding}


def _layer(mark: Spec, **encoding: Any) -> Spec:
    return {"mark": mark, "encoding": encoding}


def _number(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative"} | more


def _named(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal"} | more


def _color(names: Sequence[str], legend: bool) -> Spec:
    known = [f"var(--{_COLORS[name.split()[0]]})" for name in names]
    hidden: Spec = {} if legend else {"legend": None}
    return _named("of", title=None, scale={"domain": list(names), "range": known}, **hidden)


def _slider(step: int) -> Spec:
    return {"name": "step", "value": step}


def _upright(lines: Mapping[str, float]) -> list[Spec]:
    """Upright lines, each with its name above the plot, where nothing else stands."""
    data = {"values": [{"at": _short(at), "name": name} for name, at in lines.items()]}
    rule = {"type": "rule", "stroke": "currentColor", "strokeDash": [3, 3]}
    text = {"type": "text", "angle": 270, "align": "left", "baseline": "middle", "dx": 4, "fontSize": 11}
    named = _layer(text, x=_number("at"), y={"value": 0}, text={"field": "name"})
    return [_layer(rule, x=_number("at")) | {"data": data}, named | {"data": data}] if lines else []


def _short(value: float) -> float:
    """Four significant digits: more would only make the page larger."""
    return float(f"{value:.4g}")
