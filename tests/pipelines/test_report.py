"""report.html in a real browser: it draws, answers to keys, asks for nothing, runs nothing of the data, and fits the screen."""

import json
import re
import shutil
from itertools import pairwise

import pytest
from playwright.sync_api import sync_playwright
from tests_support import pair
from typer.testing import CliRunner

from rpo_data import Recipe, build
from rpo_data.dataset import load
from rpo_data.pipelines.cli import app
from rpo_data.pipelines.report import plot_script, write_report

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><!-- <script> {{ 7 * 7 }} ${7 * 7}"
TOPICS = ("how do I bake bread with yeast", "which horse won the race", "is my car engine broken", "tax law of Spain")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs Debian's")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, cache_dir):
    """A dataset whose every text tries to run, with something lost for several reasons."""
    folder = tmp_path_factory.mktemp("hostile")
    more = {"language": EVIL, "annotator": EVIL}
    records = [
        pair(n, prompt=f"{TOPICS[n % 4]} {n * 37}? javascript:alert({n}) {EVIL}", chosen=f"{EVIL} {n}", **more)
        for n in range(44)
    ]
    records += [
        pair(1, prompt="x", chosen="same", rejected="other"),
        pair(1, prompt="x", chosen="other", rejected="same"),
    ]
    records += [pair(50, chosen=""), records[7], records[8]]
    logs = folder / "<b>logs.jsonl"
    logs.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, views=2)
    return build(logs, folder / "out", recipe, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, hostile):
    """Open the page; what the console said and what was asked for stand in `page.told` and `page.asked`."""
    contexts = []

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.told, page.asked = [], []
        page.on("console", lambda message: page.told.append(message.text))
        page.on("pageerror", lambda error: page.told.append(str(error)))
        page.on("dialog", lambda dialog: page.told.append(dialog.message))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto((hostile.path / "report.html").as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-drawn]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_it_draws_every_plot_without_a_word_or_a_request(opened, hostile):
    page = opened()
    places = page.locator("[data-plot]")
    assert places.count() >= 9
    for place in places.all():
        assert place.locator("svg").count() == 1, place.get_attribute("id")
        assert place.locator("svg path, svg line").count() > 3
    assert page.told == []
    assert page.asked == [(hostile.path / "report.html").as_uri()]
    shown = "".join(page.locator(part).inner_html() for part in ("header", "nav", "main"))
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\(""", shown)


def test_nothing_of_the_data_runs(opened):
    page = opened()
    page.locator("#plot-map svg path[transform]").first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert EVIL[:30] in page.locator("#vg-tooltip-element").inner_text()
    assert page.locator("#vg-tooltip-element td.key").all_inner_texts() == [
        "prompt",
        "topic",
        "group",
        "mean cosine",
    ]
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 3  # the data, Vega, and ours
    assert page.locator("main img, main b, #vg-tooltip-element img").count() == 0
    assert "49" not in page.locator("#read").locator("..").inner_text()
    assert page.get_by_text("javascript:alert(").count() > 3
    assert page.told == []


def test_the_policy_of_the_page_stops_a_script_that_is_not_its_own(opened):
    page = opened()
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s)"
    )
    page.evaluate("document.body.insertAdjacentHTML('beforeend', `<img src=x onerror='window.hacked = 1'>`)")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in line for line in page.told)


def test_keys_on_the_slider_move_the_curves(opened):
    page = opened()
    slider, told = page.get_by_role("slider", name="Temperature"), page.locator("#temperature-told")
    assert told.get_attribute("for") == "temperature"

    def state():
        rule = page.locator("#plot-contrasts svg .mark-symbol path").first.get_attribute("transform")
        bars = [bar.get_attribute("d") for bar in page.locator("#plot-shares svg .mark-rect path").all()]
        return rule, bars

    before = state()
    seen = [(told.inner_text(), before)]
    slider.focus()
    for key in ("ArrowRight", "ArrowRight", "End"):
        page.keyboard.press(key)
        page.wait_for_function(
            "before => document.querySelector('#temperature-told').textContent != before", arg=seen[-1][0]
        )
        page.wait_for_timeout(100)
        seen.append((told.inner_text(), state()))
        assert slider.get_attribute("aria-valuetext") == seen[-1][0]
    for (_, (rule, bars)), (_, (next_rule, next_bars)) in pairwise(seen):
        assert rule != next_rule
        assert bars != next_bars
    contrasts = [float(re.search(r"meets ([0-9.]+)", text)[1]) for text, _ in seen]
    assert contrasts == sorted(contrasts)
    assert contrasts[-1] > contrasts[0] > 1


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen(opened, tmp_path, width):
    page = opened(viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for place in page.locator("[data-plot] svg").all():
        assert place.bounding_box()["width"] <= width
        for text in place.locator("text").all():
            assert "…" not in text.text_content()  # as Vega ends a label that it cuts
            box, frame = text.bounding_box(), place.bounding_box()
            assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1, text.text_content()
    assert len(page.screenshot(path=tmp_path / "page.png", full_page=True)) > 50_000


def test_light_and_dark_have_contrast(opened):
    def luminance(color):
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    backgrounds = set()
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        backgrounds.add(back)
        axis = "document.querySelector('#plot-cosines svg .role-axis-label text')"
        assert page.evaluate(f"getComputedStyle({axis}).fill") == page.evaluate("getComputedStyle(document.body).color")
        for name, least in {
            "text": 7,
            "soft": 4.5,
            "mined": 3,
            "random": 3,
            "own": 3,
            "topic1": 3,
            "topic8": 3,
        }.items():
            color = page.evaluate(
                "name => { const p = document.createElement('p'); p.style.color = `var(--${name})`; "
                "document.body.append(p); return getComputedStyle(p).color }",
                name,
            )
            lighter, darker = sorted([luminance(back), luminance(color)], reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= least, (scheme, name)
    assert len(backgrounds) == 2


def test_headings_labels_and_tables_serve_a_screen_reader(opened):
    page = opened()
    levels = [int(tag[1]) for tag in page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(one => one.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.eval_on_selector_all("input", "all => all.every(one => one.labels.length == 1)")
    assert page.eval_on_selector_all("th", "all => all.every(one => one.hasAttribute('scope'))")
    named = "all => all.every(one => document.getElementById(one.getAttribute('aria-labelledby')).textContent.trim())"
    assert page.eval_on_selector_all("[aria-labelledby]", named)
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the figures"


def test_the_colours_of_the_map_can_be_changed(opened):
    page = opened()
    points = page.locator("#plot-map svg .mark-symbol.role-mark path")
    assert points.count() > 20
    before = page.locator("#plot-map svg").inner_html()
    page.get_by_label("mean cosine of the group", exact=True).check()
    page.wait_for_function("() => document.querySelector('#plot-map svg linearGradient')")
    assert page.locator("#plot-map svg").inner_html() != before
    assert page.locator("#caption-map").inner_text() == "Prompts by the mean cosine of their group in view 0"
    page.get_by_label("topic", exact=True).check()
    page.wait_for_function("() => !document.querySelector('#plot-map svg linearGradient')")
    assert page.locator("#caption-map").inner_text().startswith("Prompts by topic")
    assert page.told == []


def test_it_prints_with_every_table_open_and_reads_without_scripts(opened):
    page = opened()
    assert page.locator("details[open]").count() == 0
    assert page.pdf().startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == 0
    bare = opened(java_script_enabled=False)
    tables = page.locator("main table").all_text_contents()
    assert bare.locator("main table").all_text_contents() == tables
    assert len(tables) > 10
    assert bare.locator("main table").first.is_visible()


def test_the_command_writes_the_page_anew(hostile, cache_dir, tmp_path):
    page = hostile.path / "report.html"
    before = page.read_bytes()
    page.write_text("gone")
    run = CliRunner().invoke(app, ["report", str(hostile.path), "--cache-dir", str(cache_dir)])
    assert run.exit_code == 0, run.output
    assert page.read_bytes() == before
    assert write_report(load(hostile.path), tmp_path, cache_dir).read_bytes() == before
    assert "</script" not in plot_script(cache_dir)
