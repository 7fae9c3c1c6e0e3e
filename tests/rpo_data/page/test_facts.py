"""What the page tells of views, weak groups and remainders: by hand, and against the manifest."""

import numpy as np
import polars as pl
import pytest
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.page.facts import _domain, _views, collect_facts
from rpo_data.schemas.manifest import Distribution


@pytest.fixture(scope="module")
def sampled(sample, tmp_path_factory, cache_dir):
    recipe = Recipe(embedder="static", test_fraction=0.1, views=2)
    return build(sample, tmp_path_factory.mktemp("facts") / "out", recipe, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def told(sampled):
    return collect_facts(sampled).told


def test_a_view_counts_each_cell_once():
    figures = pl.DataFrame(
        {
            "view": [0, 0, 1, 1],
            "similarity": [0.5, 0.2, 0.1, None],
            "cross": [56, 6, 56, 0],
            "small": [False, True, False, True],
        }
    )
    first, second = _views(figures, {"limit": 0.15})
    assert first == {"view": 0, "cosine": pytest.approx((0.5 * 56 + 0.2 * 6) / 62), "groups": 2, "weak": 0, "small": 1}
    assert second == {"view": 1, "cosine": pytest.approx(0.1), "groups": 2, "weak": 1, "small": 1}
    assert [row["weak"] for row in _views(figures, None)] == [0, 0]


def test_views_together_are_what_the_manifest_says(sampled, told):
    views, quality = told["views"], sampled.manifest.quality
    assert [row["view"] for row in views] == [0, 1]
    assert sum(row["groups"] for row in views) == len(sampled.groups["train"])
    mean = sum(row["cosine"] for row in views) / 2  # both hold the same sizes, so the same number of cells
    assert mean == pytest.approx(quality.mean_similarity, abs=1e-5)
    assert views[0]["cosine"] > views[1]["cosine"]  # pairs of rows that met count less the second time
    assert sum(row["weak"] for row in views) == told["weak"]["number"] > 0


def test_every_weak_group_is_named(sampled, told):
    limit = (sampled.manifest.quality.mean_similarity + sampled.manifest.quality.random_similarity) / 2
    cosines = {row["group_id"]: np.array(row["similarity"]) for row in sampled.groups["train"]}
    means = {name: (found.sum() - found.trace()) / (found.size - len(found)) for name, found in cosines.items()}
    assert {row["group"] for row in told["weak"]["named"]} == {name for name, mean in means.items() if mean < limit}
    assert told["weak"]["contrasts"] < sampled.manifest.quality.effective_contrasts


def test_remainders_stand_apart_from_full_groups(sampled, told):
    sizes = {row["group_id"]: len(row["win_rows"]) for row in sampled.groups["train"]}
    assert {row["group"] for row in told["small"]} == {name for name, size in sizes.items() if size < 8} != set()
    shown = {group["title"]: sizes[group["group_id"]] for group in told["examples"]}
    assert shown.pop("Remainder") < 8
    assert shown == {"Best": 8, "Median": 8, "Worst": 8}


def test_a_single_small_group_is_shown_as_what_it_is(write_lines, tmp_path, cache_dir):
    records = write_lines("logs.jsonl", [pair(n) for n in range(3)])
    data = build(records, tmp_path / "out", Recipe(embedder="static", test_fraction=0), cache_dir=cache_dir)
    assert [group["title"] for group in collect_facts(data).told["examples"]] == ["Remainder"]


@pytest.mark.parametrize(("temperature", "word"), [("auto", "met"), (0.5, "set")])
def test_whether_the_temperature_was_calibrated(write_lines, tmp_path, cache_dir, temperature, word):
    records = write_lines("logs.jsonl", [pair(n, prompt=f"question {n * 37}, about {n % 7}?") for n in range(40)])
    recipe = Recipe(embedder="static", test_fraction=0, temperature=temperature, duplicate_score=1.001)
    told = collect_facts(build(records, tmp_path / "out", recipe, cache_dir=cache_dir)).told
    assert told["calibrated"] == word
    if word == "set":
        assert told["used"] == "0.5"


def test_both_plots_of_cosines_have_one_axis(told, sampled):
    plots = collect_facts(sampled).drawn["plots"]
    scales = [layer["encoding"]["x"]["scale"] for name in ("cells", "cosines") for layer in plots[name]["layer"]]
    assert all(scale == scales[0] for scale in scales)
    assert scales[0]["domain"][1] == 1.0
    spread = Distribution(count=1, mean=0, min=-0.9, p5=-0.31, p25=0, p50=0, p75=0, p95=0, max=0)
    assert _domain({}, {"random cells": spread}) == [-0.4, 1.0]
    names = [mark["name"] for mark in plots["groups"]["layer"][1]["data"]["values"]]
    assert names == ["random", "mean", "weak below", "best possible mean"]
