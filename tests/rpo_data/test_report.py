"""The page says what the manifest says, and nothing in a log can become markup."""

import re

from tests_support import pair

from rpo_data import Recipe, build


def test_texts_of_the_logs_stay_text(write_lines, tmp_path, cache_dir):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    records = [pair(n, chosen=f"{evil} {n}", prompt=f"javascript:alert({n}) {evil}") for n in range(4)]
    logs = write_lines("<b>logs.jsonl", records)
    data = build(logs, tmp_path / "out", Recipe(embedder="static", test_fraction=0), cache_dir=cache_dir)
    page = (data.path / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;logs.jsonl" in page
    assert not re.search(r"<(script|img|b)\b", page)
    assert not re.search(r"<[a-z][^>]*(href|src)=", page)


def test_it_shows_what_the_manifest_says(write_lines, tmp_path, cache_dir):
    logs = write_lines("logs.jsonl", [*(pair(n) for n in range(12)), pair(1), pair(2, chosen="")])
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4)
    data = build(logs, tmp_path / "out", recipe, cache_dir=cache_dir)
    page = " ".join((data.path / "report.html").read_text().split())
    assert "14 log records became 12 preference pairs in contrast groups of 4" in page
    assert f"{data.manifest.quality.mean_similarity:.4f}" in page
    assert page.count("<section>") == 3
    assert "empty_response" in page
    assert "duplicate" in page
