"""Box plots of a manifest's distributions as SVG, for the card: no package draws them, and equal figures give equal bytes."""

import html
import math
from collections.abc import Mapping

from rpo_data.schemas.manifest import Distribution, Manifest

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 720, 150, 60, 56, 46
_STYLE = (  # greys that can be read on white and on black: an image does not know its page's theme
    "text{font:14px system-ui,sans-serif;fill:#777}.title{font-weight:600}.small{font-size:12px}"
    "line,circle{stroke:#777;stroke-width:1.5}.grid{stroke:#8884;stroke-width:1}"
    ".ours{fill:#3b7dd8}.other{fill:#9a9a9a}.median{stroke:#fff;stroke-width:2.5}"
)


def card_plots(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """The plots of the card: (SVG, what it shows) by path; none of distributions that the manifest does not have."""
    mined, random = manifest.quality.mined, manifest.quality.random
    if not mined or not random:
        return {}
    wanted = {
        "plots/similarity.svg": ("cosine of two prompts of a group", mined.cross_similarity, random.cross_similarity),
        "plots/losses.svg": ("weight that falls on a loss (1 is even)", mined.column_sums, random.column_sums),
    }
    return {
        path: (
            box_plot(title, {"these groups": ours, "random groups": theirs}),
            f"{title}: median {ours.p50:.3f}, in random groups {theirs.p50:.3f}",
        )
        for path, (title, ours, theirs) in wanted.items()
        if ours and theirs
    }


def box_plot(title: str, rows: Mapping[str, Distribution]) -> str:
    """One box for each distribution, the first in colour: box p25 to p75, line p50, whiskers p5 and p95, dots min and max."""
    ticks = _ticks(min(row.min for row in rows.values()), max(row.max for row in rows.values()))
    low, high = ticks[0], ticks[-1]
    bottom = _TOP + _ROW * len(rows)

    def place(value: float) -> str:
        return f"{_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    parts = [f'<text class="title" x="{_LEFT}" y="22">{html.escape(title)}</text>']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{place(tick)}" y1="{_TOP - 10}" x2="{place(tick)}" y2="{bottom}"/>')
        parts.append(f'<text class="small" x="{place(tick)}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for number, (name, row) in enumerate(rows.items()):
        middle = _TOP + _ROW * number + _ROW // 2 - 8
        start, stop = place(row.p25), place(row.p75)
        wide = max(float(stop) - float(start), 1.0)
        kind = "other" if number else "ours"
        parts += [
            f'<text x="{_LEFT - 12}" y="{middle + 5}" text-anchor="end">{html.escape(name)}</text>',
            f'<line x1="{place(row.p5)}" y1="{middle}" x2="{place(row.p95)}" y2="{middle}"/>',
            f'<rect class="{kind}" x="{start}" y="{middle - 12}" width="{wide:.1f}" height="24" rx="2"/>',
            f'<line class="median" x1="{place(row.p50)}" y1="{middle - 12}" x2="{place(row.p50)}" y2="{middle + 12}"/>',
            *(f'<circle cx="{place(end)}" cy="{middle}" r="2.5" fill="none"/>' for end in (row.min, row.max)),
            f'<text class="small" x="{_WIDTH - _RIGHT + 8}" y="{middle + 4}">{row.p50:.3g}</text>',
        ]
    legend = "box: middle half; line and number: median; whiskers: 5 % to 95 %; dots: extremes"
    parts.append(f'<text class="small" x="{_LEFT}" y="{bottom + 40}">{legend}</text>')
    size = f'width="{_WIDTH}" height="{bottom + 52}" viewBox="0 0 {_WIDTH} {bottom + 52}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{html.escape(title)}</title>'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, five to eleven of them, from at most `low` to at least `high`."""
    spread = next(width for width in (high - low, abs(high), 1.0) if width > 1e-6)  # ticks cannot tell less apart
    power = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if spread / (power * factor) <= 8)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]
