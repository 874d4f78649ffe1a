"""Curves as HTML: an SVG that stretches to its place, with labels beside it that keep their size on any screen."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

MOST_POINTS = 500  # of one curve; more are averaged by neighbours


@dataclass(frozen=True)
class Series:
    """One curve. `kind` is the CSS class that colours it: "train", "val" or "test", or "plain" for a dashed floor."""

    name: str
    kind: str
    steps: Sequence[float]  # ascending
    values: Sequence[float]  # what is not finite is a gap
    halves: Sequence[float] = ()  # half the width of each value's interval, drawn as a band


def chart(
    title: str,
    series: Sequence[Series],
    *,
    floors: Mapping[str, float],
    from_zero: bool,
    wide: bool,
    by: str = "step",
    logarithmic: bool = False,
) -> str:
    """A figure of the curves, their last values in the legend, and a dashed line for each floor.

    A logarithmic axis has its ticks at the steps of the curves. Returns "" where no curve has a finite value.
    """
    series = [thin(curve) for curve in series if any(map(math.isfinite, curve.values))]
    if not series:
        return ""
    floors = {name: value for name, value in floors.items() if math.isfinite(value)}
    values = [value for curve in series for value in _extent(curve)] + list(floors.values())
    low, high = (min(0.0, *values) if from_zero else min(values)), max(values)
    ticks = nice_ticks(low, high)
    y_range = (min(low, ticks[0]), max(high, ticks[-1]))
    if logarithmic:
        series, x_range, x_labels = _by_logarithm(series)
    else:
        x_range, x_labels = _by_step(series)

    grid = "".join(f'<path class="grid" d="M0 {_y(tick, y_range)}H100"/>' for tick in ticks)
    dashed = "".join(f'<path class="floor" d="M0 {_y(value, y_range)}H100"/>' for value in floors.values())
    bands = "".join(_band(curve, x_range, y_range) for curve in series if len(curve.halves))
    curves = "".join(_curve(curve, x_range, y_range) for curve in series)
    y_labels = "".join(_label(_number(tick, ticks), top=_y(tick, y_range)) for tick in ticks)
    floor_labels = _floor_labels(floors, y_range)
    place, caption = "chart wide" if wide else "chart", f"{html.escape(title)} {_legend(series)}"
    return (
        f'<figure class="{place}"><figcaption>{caption}</figcaption>'
        f'<div class="plot"><div class="ys">{y_labels}</div><div class="area">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{html.escape(title)} by {by}">'
        f"{grid}{bands}{dashed}{curves}</svg>{floor_labels}</div>"
        f'<div class="xs">{x_labels}</div></div></figure>'
    )


def thin(series: Series) -> Series:
    """At most MOST_POINTS points, each the mean of the finite values of as many neighbours, at its last step."""
    size = math.ceil(len(series.steps) / MOST_POINTS)
    if size <= 1:
        return series
    starts = range(0, len(series.steps), size)
    steps = [series.steps[min(start + size, len(series.steps)) - 1] for start in starts]
    values = [_mean(series.values[start : start + size]) for start in starts]
    return Series(series.name, series.kind, steps, values)


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that span the range."""
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    return [index * spacing for index in range(first, last + 1)]


def _by_step(series: Sequence[Series]) -> tuple[tuple[float, float], str]:
    """The range of the steps, from 0, and the labels of its round numbers."""
    last = max(curve.steps[-1] for curve in series)
    first = min(0.0, *(curve.steps[0] for curve in series))
    x_range = (first, max(last, first + 1))
    ticks = [tick for tick in nice_ticks(*x_range) if x_range[0] <= tick <= x_range[1]]
    return x_range, "".join(_label(_number(tick, ticks), left=_x(tick, x_range)) for tick in ticks)


def _by_logarithm(series: Sequence[Series]) -> tuple[list[Series], tuple[float, float], str]:
    """The curves over the logarithms of their steps, the range of these, and labels at the steps themselves."""
    steps = sorted({step for curve in series for step in curve.steps})
    x_range = (math.log(steps[0]), max(math.log(steps[-1]), math.log(steps[0]) + 1e-6))
    labels, before = [], -math.inf
    for step in steps:
        left = _x(math.log(step), x_range)
        if left - before >= 8:  # nearer ones would lie on each other
            labels.append(_label(short(step), left=left))
            before = left
    return [replace(curve, steps=[*map(math.log, curve.steps)]) for curve in series], x_range, "".join(labels)


def _extent(series: Series) -> list[float]:
    """The finite values, and the ends of their intervals."""
    halves = series.halves or [0.0] * len(series.values)
    ends = [value + sign * half for value, half in zip(series.values, halves, strict=True) for sign in (-1, 0, 1)]
    return [value for value in ends if math.isfinite(value)]


def _band(series: Series, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    points = list(zip(series.steps, series.values, series.halves, strict=True))
    above = [f"{_x(step, x_range)} {_y(value + half, y_range)}" for step, value, half in points]
    below = [f"{_x(step, x_range)} {_y(value - half, y_range)}" for step, value, half in reversed(points)]
    return f'<path class="band {series.kind}" d="M{"L".join([*above, *below])}Z"/>'


def _curve(series: Series, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    """A line with gaps; a point with no neighbour, and each point of a short curve, is a dot."""
    runs: list[list[str]] = [[]]
    for step, value in zip(series.steps, series.values, strict=True):
        if math.isfinite(value):
            runs[-1].append(f"{_x(step, x_range)} {_y(value, y_range)}")
        elif runs[-1]:
            runs.append([])
    points = [point for run in runs for point in run]
    lines = "".join("M" + "L".join(run) for run in runs if len(run) > 1)
    dots = points if len(points) <= 30 else [run[0] for run in runs if len(run) == 1]
    dotted = "".join(f"M{point}h0" for point in dots)  # a line of no length with round ends stays round when stretched
    return f'<path class="line {series.kind}" d="{lines}"/><path class="dots {series.kind}" d="{dotted}"/>'


def _legend(series: Sequence[Series]) -> str:
    keys = []
    for curve in series:
        last = next((value for value in reversed(curve.values) if math.isfinite(value)), math.nan)
        keys.append(f'<span class="key {curve.kind}">{html.escape(curve.name)} <b>{short(last)}</b></span>')
    return "".join(keys)


def _floor_labels(floors: Mapping[str, float], y_range: tuple[float, float]) -> str:
    """Above their lines at the right; further left where the label before lies too close."""
    labels, right, before = [], 0, -math.inf
    for name, value in sorted(floors.items(), key=lambda floor: -floor[1]):
        top = _y(value, y_range)
        right = (right + 30) % 90 if top - before < 12 else 0
        below = " below" if top < 12 else ""
        text = f"{html.escape(name)} {short(value)}"
        labels.append(f'<span class="floor-label{below}" style="top:{top}%;right:{right}%">{text}</span>')
        before = top
    return "".join(labels)


def _label(text: str, *, top: float | None = None, left: float | None = None) -> str:
    place = f"top:{top}%" if left is None else f"left:{left}%"
    return f'<span style="{place}">{text}</span>'


def _x(step: float, x_range: tuple[float, float]) -> float:
    return round(100 * (step - x_range[0]) / (x_range[1] - x_range[0]), 3)


def _y(value: float, y_range: tuple[float, float]) -> float:
    return round(100 - 100 * (value - y_range[0]) / (y_range[1] - y_range[0]), 3)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _number(tick: float, ticks: Sequence[float]) -> str:
    """A tick with as many digits as tells it from its neighbours; thousands and millions shortened."""
    if tick == 0:
        return "0"
    largest = max(map(abs, ticks))
    if largest < 0.01:
        mantissa, exponent = f"{tick:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    size, suffix = _size(largest)
    spacing = (ticks[1] - ticks[0]) / size if len(ticks) > 1 else 1.0
    return f"{tick / size:.{_decimals(spacing)}f}{suffix}"


def _size(value: float) -> tuple[float, str]:
    """The unit to give a number in; thousands from 10,000 on."""
    for size, suffix, least in ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e3, "k", 1e4)):
        if abs(value) >= least:
            return size, suffix
    return 1.0, ""


def _decimals(spacing: float) -> int:
    return next(count for count in range(12) if abs(spacing * 10**count - round(spacing * 10**count)) < 1e-6)


def short(value: float) -> str:
    """Four significant digits; whole numbers below 10 million in full."""
    if not math.isfinite(value):
        return "n/a"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    size, suffix = _size(value)
    return f"{value / size:.4g}{suffix}"
