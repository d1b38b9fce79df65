"""The plot: each figure as a bar against its target, drawn as one self-contained SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isnan

from tests.bench.figures import Finding

_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 44, 330, 420, 170, 70
_REACHED, _MISSED, _INK, _FAINT = "#2f7d5b", "#b3452c", "#222222", "#8a8a8a"
_SCALE_MAX = 2.0
"""Bars end at twice the target; what goes beyond is cut there, and its number says by how much."""


def bars(findings: Sequence[Finding], title: str) -> str:
    """The line in the middle is the target of every figure; dots are the rounds."""
    height = _TOP + _ROW * len(findings) + 40
    width = _LEFT + _WIDTH + _RIGHT
    middle = _LEFT + _WIDTH / _SCALE_MAX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(20, 28, title, size=16),
        _text(20, 48, "Each bar is measured / target, the median of the rounds; dots are single rounds.", colour=_FAINT),
    ]
    for number, finding in enumerate(findings):
        parts += _row(finding, _TOP + _ROW * number)
    parts.append(
        f'<line x1="{middle}" y1="{_TOP - 4}" x2="{middle}" y2="{height - 34}" stroke="{_INK}" stroke-dasharray="4 3"/>'
    )
    parts += [_text(middle, height - 16, "target", anchor="middle", colour=_FAINT), "</svg>"]
    return "\n".join(parts) + "\n"


def _row(finding: Finding, top: float) -> list[str]:
    colour = _REACHED if finding.reached else _MISSED
    label = f"{finding.measured:.2f} {finding.unit} ({finding.wanted})"
    length = _place(finding, finding.measured) - _LEFT
    dots = [
        f'<circle cx="{_place(finding, value):.1f}" cy="{top + 30}" r="3" fill="{_INK}" fill-opacity="0.45"/>'
        for value in finding.by_round
    ]
    return [
        _text(_LEFT - 12, top + 21, finding.name.strip(), anchor="end"),
        f'<rect x="{_LEFT}" y="{top + 6}" width="{max(1, length):.1f}" height="20" rx="2" fill="{colour}"/>',
        *dots,
        _text(_LEFT + _WIDTH + 12, top + 21, label, colour=colour),
        _text(_LEFT + _WIDTH + 12, top + 37, finding.rests_on, colour=_FAINT),
    ]


def _place(finding: Finding, value: float) -> float:
    if isnan(value):
        return _LEFT
    return _LEFT + _WIDTH * min(max(0.0, value / finding.target), _SCALE_MAX) / _SCALE_MAX


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = _INK, size: int = 13) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
