"""Draws the bar charts of docs/explanation/performance.md from docs/explanation/performance.json.

The JSON holds a list of charts: `file`, `title`, and `bars`, from label to figure.
Each becomes an SVG file beside it, readable on light and dark pages.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGES = Path(__file__).resolve().parents[1] / "docs" / "explanation"
WIDTH, LABEL_WIDTH, FIGURE_WIDTH, ROW = 720, 230, 80, 26
OURS, OTHERS = "#c2571a", "#7a8699"


def chart(title: str, bars: Mapping[str, float]) -> str:
    """Return an SVG with a horizontal bar for each figure; those whose label begins with Howdah stand out."""
    longest = max(bars.values())
    rows = []
    for number, (label, figure) in enumerate(bars.items()):
        middle = 44 + number * ROW
        length = (WIDTH - LABEL_WIDTH - FIGURE_WIDTH) * figure / longest
        colour = OURS if label.startswith("Howdah") else OTHERS
        shown = f"{figure:,.0f}" if figure >= 100 else f"{figure:,.2f}"
        rows.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{middle + 5}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{middle - 8}" width="{length:.1f}" height="16" fill="{colour}"/>'
            f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{middle + 5}">{shown}</text>'
        )
    height = 40 + len(bars) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="13" fill="#6b7280"><title>{escape(title)}</title>'
        f'<text x="0" y="18" font-weight="bold">{escape(title)}</text>' + "".join(rows) + "</svg>\n"
    )


if __name__ == "__main__":
    for drawn in json.loads((PAGES / "performance.json").read_text()):
        (PAGES / drawn["file"]).write_text(chart(drawn["title"], drawn["bars"]))
