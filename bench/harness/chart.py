"""Charts as SVG, written by hand: readable on white and on black, in a browser and in a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH = 760
_LABEL = 190
_BAR = 22
_GAP = 12
_PANEL_GAP = 26
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .note { fill: #59636e; font-size: 12px }
  .bar { fill: #8c959f }
  .ours { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .bar { fill: #656c76 }
    .ours { fill: #4493f8 }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its length, what is written at its end, and whether it is ours."""

    name: str
    value: float
    text: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale, with a title."""

    title: str
    bars: Sequence[Bar]


def bar_chart(panels: Sequence[Panel], *, note: str) -> str:
    """An SVG document: the panels below each other, each with a scale of its own that begins at 0.

    Args:
        panels: at least one; values are 0 or more.
        note: the line below all: machine, date, conditions.
    """
    parts: list[str] = []
    top = 0
    for panel in panels:
        parts.append(f'<text class="title" x="0" y="{top + 18}">{escape(panel.title)}</text>')
        longest = max((bar.value for bar in panel.bars), default=0) or 1
        y = top + 32
        for bar in panel.bars:
            width = round((_WIDTH - _LABEL - 110) * bar.value / longest, 1)
            middle = y + _BAR - 6
            parts.append(f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>')
            kind = "ours" if bar.ours else "bar"
            parts.append(
                f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{width}" height="{_BAR}" rx="3"/>'
            )
            parts.append(f'<text x="{_LABEL + width + 6}" y="{middle}">{escape(bar.text)}</text>')
            y += _BAR + _GAP
        top = y + _PANEL_GAP - _GAP
    parts.append(f'<text class="note" x="0" y="{top}">{escape(note)}</text>')
    height = top + 12
    described = escape("; ".join(panel.title for panel in panels))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" aria-label="{described}">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'
    )
