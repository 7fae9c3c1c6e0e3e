"""Box plots: each figure stands where its value is, the axis holds all of them, the text is XML."""

import math
import re
from itertools import pairwise
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rpo_data.plots import _ticks, box_plot, card_plots
from rpo_data.schemas.manifest import Distribution

SVG = "{http://www.w3.org/2000/svg}"


def distribution(*numbers: float) -> Distribution:
    low, p5, p25, p50, p75, p95, high = numbers
    return Distribution(count=9, mean=p50, min=low, p5=p5, p25=p25, p50=p50, p75=p75, p95=p95, max=high)


OURS, OTHERS = distribution(0, 0.1, 0.2, 0.3, 0.5, 0.9, 1), distribution(-0.9, -0.5, -0.2, 0, 0.2, 0.5, 0.9)


def test_figures_stand_where_their_values_are():
    tree = ElementTree.fromstring(box_plot("a < b", {"these": OURS, "others": OTHERS}))
    assert tree.find(f"{SVG}title").text == "a < b"
    texts = {text.text: float(text.get("x")) for text in tree.iter(f"{SVG}text")}
    left, right = texts["-1"], texts["1"]  # the ticks at the ends

    def at(value):
        return pytest.approx(left + (value + 1) / 2 * (right - left), abs=0.11)

    boxes = list(tree.iter(f"{SVG}rect"))
    assert [box.get("class") for box in boxes] == ["ours", "other"]
    for box, row in zip(boxes, (OURS, OTHERS), strict=True):
        assert float(box.get("x")) == at(row.p25)
        assert float(box.get("x")) + float(box.get("width")) == at(row.p75)
    lines = [line for line in tree.iter(f"{SVG}line") if line.get("class") is None]
    assert [(float(line.get("x1")), float(line.get("x2"))) for line in lines] == [
        (at(row.p5), at(row.p95)) for row in (OURS, OTHERS)
    ]
    medians = [float(line.get("x1")) for line in tree.iter(f"{SVG}line") if line.get("class") == "median"]
    assert medians == [at(OURS.p50), at(OTHERS.p50)]
    dots = [float(dot.get("cx")) for dot in tree.iter(f"{SVG}circle")]
    assert dots == [at(value) for row in (OURS, OTHERS) for value in (row.min, row.max)]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(0.0, 5e-324)
@example(1e6, 2e-7)
def test_ticks_are_few_round_and_hold_everything(low, spread):
    high = low + spread
    ticks = _ticks(low, high)
    steps = {round(b - a, 6) for a, b in pairwise(ticks)}
    assert 2 <= len(ticks) <= 11
    assert max(steps) - min(steps) < 1e-5 * max(1, max(steps))
    near = 1e-6 * max(1, abs(low), spread)
    assert ticks[0] <= low + near
    assert ticks[-1] >= high - near


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (0, 0, [0, 0.2]),
        (-7, 41, [-10, 0, 10, 20, 30, 40, 50]),
    ],
)
def test_ticks(low, high, ticks):
    assert _ticks(low, high) == ticks
    assert all(math.isfinite(tick) for tick in ticks)


def test_the_plots_of_a_card_name_their_medians():
    contrasts = SimpleNamespace(cross_similarity=OURS, column_sums=None)
    others = SimpleNamespace(cross_similarity=OTHERS, column_sums=OTHERS)
    quality = SimpleNamespace(mined=contrasts, random=others)
    plots = card_plots(SimpleNamespace(quality=quality))
    assert list(plots) == ["plots/similarity.svg"]
    svg, caption = plots["plots/similarity.svg"]
    assert caption == "cosine of two prompts of a group: median 0.300, in random groups 0.000"
    assert not re.search(r"<script|href|on\w+=", svg)
    quality.mined = None
    assert card_plots(SimpleNamespace(quality=quality)) == {}
