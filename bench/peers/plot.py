"""A plot of a run as SVG: bars on a logarithmic scale, one panel for each measure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_LABEL_PX: Final = 270
_BAR_AREA_PX: Final = 330
_VALUE_PX: Final = 130
_WIDTH_PX: Final = _LABEL_PX + _BAR_AREA_PX + _VALUE_PX
_ROW_PX: Final = 26
_BAR_PX: Final = 16
_HEAD_PX: Final = 62
_GAP_PX: Final = 14
# Readable on a light and on a dark page: text and grid take the page's own colour.
_STYLE: Final = """\
svg{color:#24292f;background:#fff;font:13px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}
text{fill:currentColor}.title{font-weight:600}.small{font-size:11px;opacity:.7}
.grid{stroke:currentColor;opacity:.15}.bar{fill:#6e7f94}.ours{fill:#1a7f64}.limit{fill:#b8860b}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One contestant's number above zero, how it is printed, and the class that colours it."""

    label: str
    value: float
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure; `hint` says which way is better."""

    title: str
    hint: str
    bars: Sequence[Bar]


def svg(panels: Sequence[Panel]) -> str:
    """Return the plot; panels without bars are left out."""
    shown = [panel for panel in panels if panel.bars]
    parts, top_px = [], 0
    for panel in shown:
        parts.append(_panel(panel, top_px))
        top_px += _panel_px(panel)
    names = "; ".join(panel.title for panel in shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH_PX} {top_px}" '
        f'width="{_WIDTH_PX}" height="{top_px}" role="img" aria-label="{escape(names)}">\n'
        f"<style>{_STYLE}</style>\n" + "".join(parts) + "</svg>\n"
    )


def _panel_px(panel: Panel) -> int:
    return _HEAD_PX + len(panel.bars) * _ROW_PX + _GAP_PX


def _panel(panel: Panel, top_px: int) -> str:
    lowest = math.floor(math.log10(min(bar.value for bar in panel.bars)))
    highest = math.ceil(math.log10(max(bar.value for bar in panel.bars)))
    # A bar of the lowest value still has a length.
    lowest, highest = lowest - (lowest == highest), max(highest, lowest + 1)

    def x_px(value: float) -> float:
        return _LABEL_PX + _BAR_AREA_PX * (math.log10(value) - lowest) / (highest - lowest)

    bottom_px = top_px + _HEAD_PX + len(panel.bars) * _ROW_PX
    lines = [
        f'<text class="title" x="8" y="{top_px + 20}">{escape(panel.title)}</text>',
        f'<text class="small" x="8" y="{top_px + 37}">{escape(panel.hint)}</text>',
    ]
    for power in range(lowest, highest + 1):
        x = x_px(10.0**power)
        lines.append(
            f'<line class="grid" x1="{x:.1f}" y1="{top_px + _HEAD_PX - 4}" x2="{x:.1f}" '
            f'y2="{bottom_px}"/><text class="small" x="{x:.1f}" y="{top_px + _HEAD_PX - 8}" '
            f'text-anchor="middle">{10.0**power:g}</text>'
        )
    for number, bar in enumerate(panel.bars):
        y = top_px + _HEAD_PX + number * _ROW_PX
        width = max(x_px(bar.value) - _LABEL_PX, 2)
        lines.append(
            f'<text x="{_LABEL_PX - 8}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="{bar.kind}" x="{_LABEL_PX}" y="{y}" width="{width:.1f}" '
            f'height="{_BAR_PX}" rx="2"/>'
            f'<text x="{_LABEL_PX + width + 6:.1f}" y="{y + 13}">{escape(bar.text)}</text>'
        )
    return "\n".join(lines) + "\n"
