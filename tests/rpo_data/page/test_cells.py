"""Figures on groups: by hand, and against the loader's and the manifest's own."""

import json
import math

import numpy as np
import pytest
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.cells import Cells
from rpo_data.page.cells import RANKS, GroupCells, group_figures, read_groups, sums_of_columns, temperature_curves


def one_group(similarity, weight=None, own=None):
    cosine = np.array(similarity, dtype=np.float32)
    heavy = np.array(weight if weight is not None else np.ones_like(cosine), dtype=np.float32)
    diagonal = np.eye(*cosine.shape, dtype=bool) if own is None else np.array(own)
    shape = np.array([cosine.shape])
    masked = (heavy.ravel() == 0).astype(np.int8)
    cells = Cells(shape, cosine.ravel(), masked, diagonal.ravel(), ("masked",))
    return GroupCells(["g"], cells, heavy.ravel(), np.arange(cosine.shape[0]), np.arange(cosine.shape[1]))


@pytest.fixture(scope="module")
def built(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("cells")
    answers = [{"chosen": "yes", "rejected": "no"}] * 13 + [
        {"chosen": "no", "rejected": "yes"}
    ] * 9  # mixed groups mask
    records = [pair(n, prompt=f"question {n * 37}, about {n % 7}?", **said) for n, said in enumerate(answers)]
    (folder / "logs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, views=2, duplicate_score=1.001)
    return build(folder / "logs.jsonl", folder / "out", recipe, cache_dir=cache_dir)


def test_figures_by_hand():
    groups = one_group([[1.0, 0.2], [0.4, 1.0]], [[0.5, 0.5], [1.0, 0.0]])
    told = group_figures(groups).row(0, named=True)
    assert (told["similarity"], told["cross"]) == (pytest.approx(0.3), 2)
    assert told["contrasts"] == pytest.approx(1.5)  # 2 losses alike, and 1 alone
    assert (told["heaviest"], told["hub"]) == (pytest.approx(1.5), 0)  # sums 1.5 and 0.5, mean 1
    assert (told["wins"], told["losses"], told["masked"]) == (2, 2, 1)
    assert sums_of_columns(groups).tolist() == [1.5, 0.5]
    assert group_figures(one_group([[1.0]]))["similarity"].to_list() == [None]  # nothing but its own cell


def test_figures_are_those_of_the_loader_and_the_manifest(built):
    groups = read_groups(built)
    assert len(groups.ids) == len(built.groups["train"]) == 2 * built.manifest.splits["train"].groups
    figures = group_figures(groups)
    for by, column in {"similarity": "similarity", "hubs": "heaviest", "masked": "masked"}.items():
        found = dict(zip(figures["group"], figures[column], strict=True))
        for name, figure in built.ranked_groups(by=by):
            assert found[name] == pytest.approx(figure, rel=1e-6, abs=1e-6)
    quality = built.manifest.quality
    assert figures["masked"].sum() == sum(quality.masked_cells.values()) > 0
    assert sums_of_columns(groups).mean() == pytest.approx(quality.mined.column_sums.mean, rel=1e-5)


def test_a_mean_leaves_out_answers_to_one_prompt_and_pairs_alone(tmp_path, cache_dir):
    """In groups of responses, too, the loader's mean cosine is the page's; a group that has none is not ranked with 0."""
    records = [pair(n, prompt=f"question {n % 6}?", score_chosen=5 + n % 3, score_rejected=n % 4) for n in range(18)]
    (tmp_path / "logs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    recipe = Recipe(embedder="static", mode="scored", test_fraction=0, group_size=5, duplicate_score=1.001)
    scored = build(tmp_path / "logs.jsonl", tmp_path / "scored", recipe, cache_dir=cache_dir)
    groups = read_groups(scored)
    assert groups.cells.own.any()
    found = dict(group_figures(groups).drop_nulls("similarity").select("group", "similarity").iter_rows())
    ranked = dict(scored.ranked_groups())
    assert ranked == pytest.approx(found, abs=1e-6)
    assert len(ranked) > 1
    (tmp_path / "five.jsonl").write_text("".join(json.dumps(pair(n)) + "\n" for n in range(5)), encoding="utf-8")
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4)
    data = build(tmp_path / "five.jsonl", tmp_path / "out", recipe, cache_dir=cache_dir)
    assert [len(group["win_rows"]) for group in data.groups["train"]] == [4, 1]
    assert [name for name, _ in data.ranked_groups()] == ["train-0-0"]
    assert len(data.ranked_groups(by="masked")) == 2
    alone = build(tmp_path / "five.jsonl", tmp_path / "one", recipe, limit=1, cache_dir=cache_dir)
    assert math.isnan(alone.ranked_groups()[0][1])


def test_curves_by_hand():
    curves = temperature_curves(one_group([[1.0, 0.0], [0.0, 1.0]]), np.array([1e-3, 1.0, 1e6]), "row")
    own = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(curves.shares, [[1, 0], [own, 1 - own], [0.5, 0.5]], atol=1e-6)
    middle = math.exp(-own * math.log(own) - (1 - own) * math.log(1 - own))
    np.testing.assert_allclose(curves.contrasts, [1, middle, 2], atol=1e-5)
    assert curves.names == ["own", "nearest"]


def test_shares_are_ranked_and_masked_cells_have_none():
    groups = one_group([[1.0, 0.1, 0.9, 0.5]], [[1, 1, 0, 1]], [[True, False, False, False]])
    curves = temperature_curves(groups, np.array([0.5]), "row")
    powers = [math.exp(-(1 - cosine) / 0.5) for cosine in (1.0, 0.5, 0.1)]  # own, nearest, second; the third is masked
    np.testing.assert_allclose(curves.shares[0], np.array(powers) / sum(powers), rtol=1e-6)
    assert curves.names == ["own", "nearest", "2nd"]


def test_far_losses_of_a_wide_group_are_one_share():
    cosine = np.linspace(1, 0, RANKS + 4)[None]
    groups = one_group(cosine, own=np.arange(RANKS + 4)[None] == 0)
    curves = temperature_curves(groups, np.array([1e6]), "row")
    assert curves.names[-1] == "further"
    assert len(curves.names) == RANKS + 2
    np.testing.assert_allclose(curves.shares[0], [1 / (RANKS + 4)] * (RANKS + 1) + [3 / (RANKS + 4)], rtol=1e-4)


def test_at_the_temperature_in_use_the_curve_meets_the_manifest(built):
    temperature = built.manifest.temperature
    curves = temperature_curves(read_groups(built), np.array([temperature, 2 * temperature]), "row")
    assert curves.contrasts[0] == pytest.approx(built.manifest.quality.effective_contrasts, rel=1e-5)
    assert curves.contrasts[1] > curves.contrasts[0]
    np.testing.assert_allclose(curves.shares.sum(axis=1), 1, rtol=1e-6)
