"""The page says what the manifest says, nothing in a log can become markup, and no log makes it large."""

import json
import re
import shutil

import pytest
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.dataset import load
from rpo_data.errors import DatasetError
from rpo_data.page.map import POINTS
from rpo_data.report import render_report

SCRIPT = "/* the plots */"


@pytest.fixture
def render(write_lines, tmp_path, cache_dir):
    def make(records, name="logs.jsonl", **keys):
        recipe = Recipe(**{"embedder": "static", "test_fraction": 0, "group_size": 4} | keys)
        data = build(write_lines(name, records), tmp_path / "out", recipe, cache_dir=cache_dir)
        return data, render_report(data, SCRIPT)

    return make


def test_texts_of_the_logs_stay_text(render):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    records = [pair(n, chosen=f"{evil} {n}", prompt=f"javascript:alert({n}) {evil}", language=evil) for n in range(4)]
    _, page = render(records, "<b>logs.jsonl")
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;logs.jsonl" in page
    assert re.findall(r"<script[^>]*>", page) == [
        '<script type="application/json" id="page-data">', '<script type="module">', '<script type="module">',
    ]  # fmt: skip
    assert page.count("</script>") == 3
    assert not re.search(r"<(img|b)\b", page)
    assert not re.search(r"<[a-z][^>]*(href|src)=[\"']?[^\"'#]", page)


def test_it_shows_what_the_manifest_says(render):
    records = [*(pair(n) for n in range(12)), pair(1), pair(2, chosen="")]
    records += [pair(0, prompt="x?", chosen="a", rejected="b"), pair(0, prompt="x?", chosen="b", rejected="a")]
    data, page = render(records)
    page = " ".join(page.split())
    quality = data.manifest.quality
    assert "16 log records became 12 preference pairs in contrast groups of 4" in page
    assert (
        f"<strong>{quality.mean_similarity:.3f}</strong> against <strong>{quality.random_similarity:.3f}</strong>"
        in page
    )
    assert page.count("<section> <h3>") == 3
    for step in (
        'records read</th><td class="n">16',
        'records used</th><td class="n">15',
        'pairs kept</th><td class="n">12',
    ):
        assert step in page
    assert "At logs.jsonl:14." in page  # the empty response
    assert page.count("chosen or rejected is empty") == 1  # the reason stands in the table, the list adds to it
    assert "the 12 pairs are split into 12 in train (3 groups a view, 12 prompts)." in page
    assert "<strong>Good:</strong>" in page
    assert "left out or merged 25.0% (at most 10%)</a>" in page  # 1 record and 3 of 15 pairs
    assert "The logs name no language and no annotator." in page
    assert "1 merged into an equal one" in page
    assert "2 pairs speak against others and were left out: 2 conflict." in page
    assert "<li>logs.jsonl:15: logs.jsonl:16 judges" in page
    assert "To keep such rows instead: <code>--conflicts keep-and-mask</code>" in page


@pytest.mark.parametrize("mode", ["unpaired", "scored"])
def test_responses_have_a_page_too(render, mode):
    turns = [
        [{"role": "user", "content": f"question {n}?"}, {"role": "assistant", "content": f"answer {n}"}]
        for n in range(20)
    ]
    thumbs = [{"messages": said, "label": n % 3 > 0} for n, said in enumerate(turns)]
    answers = [{"response": f"answer {score}", "fine-grained_score": score} for score in (1, 2, 5)]
    scored = [{"instruction": f"question {n}?", "completions": answers} for n in range(20)]
    _, page = render(thumbs if mode == "unpaired" else scored, mode=mode, group_size=6)
    assert "wins: prompt, last turn" in page
    assert "losses: prompt, last turn" in page
    drawn = _drawn(page)
    assert {"contrasts", "map", "lengths"} <= set(drawn["plots"])
    assert len(drawn["points"]) == 20


def test_a_dialogue_shows_its_first_turn_too(render):
    def turns(n):
        said = [("user", f"Tell me of <horses> {n * 37}."), ("assistant", "Of which?"), ("user", f"of red ones {n}")]
        return [{"role": role, "content": text} for role, text in said]

    def answered(n, text):
        return [*turns(n), {"role": "assistant", "content": text}]

    _, page = render([{"chosen": answered(n, "yes"), "rejected": answered(n, "no")} for n in range(8)], views=2)
    assert '<span class="soft">first turn: Tell me of &lt;horses&gt; 37.</span>' in page
    assert "of red ones 1</div>" in page
    assert "The map shows view 0 only" in page
    rows = re.findall(r'<tr><th scope="row" class="n">(\d)</th><td class="n">2</td>', page)
    assert rows == ["0", "1"]


def test_without_vectors_and_rejects_the_rest_is_there(render):
    data, page = render([*(pair(n) for n in range(12)), pair(2, chosen="")])
    for name in ("vectors", "rejects.parquet"):
        path = data.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    bare = render_report(load(data.path), SCRIPT)
    assert {"map", "map-cosine"} == set(_drawn(page)["plots"]) - set(_drawn(bare)["plots"])
    assert "There is no map" in bare
    assert "empty_response" in bare
    assert "logs.jsonl:13" not in bare


def test_a_plot_of_nothing_is_not_drawn(render):
    """Vega would warn of an infinite extent; a pair alone has no cosine of two prompts."""
    _, page = render([pair(1)])
    drawn = _drawn(page)["plots"]
    assert {"funnel", "cells", "contrasts", "shares", "columns", "lengths"} == set(drawn)
    assert set(re.findall(r'data-plot="(.*?)"', page)) == set(drawn)
    assert page.count("there is nothing to draw") == 2


def test_damaged_files_beside_the_tables_are_told(render):
    data, _ = render([*(pair(n) for n in range(12)), pair(2, chosen="")])
    state = data.path / "vectors" / "train" / "state.json"
    state.write_text(state.read_text().replace(data.manifest.tables["vectors/train"], "0" * 32))
    with pytest.raises(DatasetError, match=r"vectors/train is not the table that the manifest names"):
        render_report(data, SCRIPT)
    state.unlink()
    with pytest.raises(DatasetError, match=r"vectors cannot be opened .*: build the dataset again"):
        render_report(data, SCRIPT)
    shutil.rmtree(data.path / "vectors")
    (data.path / "rejects.parquet").write_text("no table")
    with pytest.raises(DatasetError, match=r"rejects.parquet cannot be read .*: build the dataset again"):
        render_report(data, SCRIPT)


def test_equal_data_gives_equal_bytes(render, tmp_path):
    data, page = render([pair(n, prompt=f"question {n}, {n * 7}?") for n in range(30)], views=2)
    moved = shutil.copytree(data.path, tmp_path / "elsewhere")
    assert render_report(load(moved), SCRIPT) == page
    assert str(tmp_path) not in page


def test_many_long_texts_leave_the_page_small(render):
    count = POINTS + 203  # so that there is a remainder, too
    wide, long = "漢字 <&> " * 25, "漢字 <&> " * 200
    records = [
        pair(n, prompt=f"{n * 7919} {wide}", chosen=f"{n} {long}", annotator=f"{n} {wide}") for n in range(count)
    ]
    _, page = render(records, group_size=8, duplicate_score=1.001)
    assert POINTS - 8 <= len(_drawn(page)["points"]) <= POINTS + 8
    assert len(page.encode()) < 2_000_000  # the plots' script takes 900,000 more


def _drawn(page):
    return json.loads(re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page, re.DOTALL)[1])
