"""Line charts as inline SVG. Colours are CSS classes, so that the page decides on light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from msgspec import Struct

WIDTH, HEIGHT = 920, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 34
Point = tuple[float, float]


class Line(Struct, frozen=True):
    """A named curve; `style` is its CSS class. `filled`: the area below it is tinted."""

    name: str
    style: str
    points: Sequence[Point]
    filled: bool = False


class Axis(Struct, frozen=True):
    """A direction of the plot: where a value lies between 0 and 1, the values with a label, and those labels."""

    place: Callable[[float], float]
    ticks: Sequence[float]
    label: Callable[[float], str]


def linear(top: float, label: Callable[[float], str]) -> Axis:
    """From 0 to a round number at or above `top`."""
    step = nice_step(top)
    count = max(1, math.ceil(top / step))
    return Axis(lambda value: value / (step * count), [step * n for n in range(count + 1)], label)


def elapsed(seconds: float) -> Axis:
    """From 0 to the end of the run."""
    step = nice_step(seconds)
    return Axis(lambda value: value / seconds, [step * n for n in range(int(seconds / step) + 1)], lambda value: f"{value:g} s")


def logarithmic(low: float, top: float, label: Callable[[float], str]) -> Axis:
    """Whole powers of ten around the values, and 2 and 5 between them where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(top))
    last = max(last, first + 1)
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [f * 10.0**n for n in range(first, last) for f in factors] + [10.0**last]
    return Axis(lambda value: (math.log10(max(value, 10.0**first)) - first) / (last - first), ticks, label)


def nines(points: Sequence[float]) -> Axis:
    """Percentiles, with as much room from 99 to 99.9 as from 90 to 99."""

    def depth(percentile: float) -> float:
        return -math.log10(max(1 - percentile / 100, 1e-6))

    deepest = max((depth(p) for p in points if p < 100), default=1.0)
    known = [p for p in (0, 50, 90, 99, 99.9, 99.99, 99.999) if depth(p) < deepest] + [100.0]
    deepest += 0.35
    return Axis(lambda p: min(depth(p) / deepest, 1.0), known, lambda p: f"{p:g} %" if p < 100 else "all")


def nice_step(top: float) -> float:
    """A round step that divides 0..top in three to six."""
    if top <= 0:
        return 1.0
    rough = top / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """The plot, with a legend when there is more than one curve."""
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in y.ticks:
        at = _y(y.place(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{escape(y.label(tick))}</text>')
    for tick in x.ticks:
        at = _x(x.place(tick))
        parts.append(f'<text x="{at}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.label(tick))}</text>')
    parts += [_curve(x, y, line) for line in lines if line.points]
    parts.append("</svg>")
    legend = "".join(f'<span class="{line.style}"><i></i>{escape(line.name)}</span>' for line in lines)
    return (f'<div class="legend">{legend}</div>' if len(lines) > 1 else "") + "".join(parts)


def _curve(x: Axis, y: Axis, line: Line) -> str:
    places = [(_x(x.place(a)), _y(y.place(b))) for a, b in line.points]
    path = "M" + "L".join(f"{a},{b}" for a, b in places)
    dots = "".join(
        f'<circle class="dot" cx="{a}" cy="{b}" r="7"><title>{escape(line.name)} {escape(x.label(px))}: '
        f"{escape(y.label(py))}</title></circle>"
        for (a, b), (px, py) in zip(places, line.points, strict=True)
    )
    area = ""
    if line.filled:
        area = f'<path class="area" d="{path}L{places[-1][0]},{_y(0)}L{places[0][0]},{_y(0)}Z"/>'
    single = f'<circle class="mark" cx="{places[0][0]}" cy="{places[0][1]}" r="3"/>' if len(places) == 1 else ""
    return f'<g class="{line.style}">{area}<path class="line" d="{path}"/>{single}{dots}</g>'


def _x(place: float) -> float:
    return round(LEFT + place * (WIDTH - LEFT - RIGHT), 1)


def _y(place: float) -> float:
    return round(HEIGHT - BOTTOM - max(0.0, min(place, 1.0)) * (HEIGHT - TOP - BOTTOM), 1)
