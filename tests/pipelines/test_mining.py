"""What mining promises of paired groups, whatever the data; its warnings, and its lines on the screen."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests_support import pair

from rpo_data import Recipe, build, load
from rpo_data.contrasts import group_masks, judgements
from rpo_data.embed import unit_vectors
from rpo_data.errors import LogError
from rpo_data.neighbors import neighbors_within
from rpo_data.pipelines.build import _warnings as prompt_warnings
from rpo_data.pipelines.mining import mine
from rpo_data.pipelines.prompts import Prompts
from rpo_data.pipelines.regroup import regroup
from rpo_data.schemas.manifest import EmbedderInfo, NeighborsInfo
from rpo_data.splits import Split

BASE = {"embedder": "column:v", "test_fraction": 0, "duplicate_score": 1.001, "group_size": 3}


@pytest.fixture
def built(write_lines, tmp_path, cache_dir):
    """A dataset of these records, its warnings, and the lines that were said."""

    def make(records, **recipe):
        said = []
        logs = write_lines("logs.jsonl", records)
        data = build(logs, tmp_path / "dataset", Recipe(**BASE | recipe), cache_dir=cache_dir, say=said.append)
        return data, data.manifest.warnings, [line for line in said if line.startswith(("groups", "weights"))]

    return make


def in_mode(mode, number):
    """Records on one prompt in a mode: a pair, a thumb (one up in three), or two scored answers."""
    if mode == "paired":
        return pair(number)
    if mode == "unpaired":
        return {"prompt": f"question {number}?", "completion": f"answer {number}", "label": number % 3 == 0}
    return {
        "instruction": f"question {number}?",
        "completions": [
            {"response": f"{answer} {number}", "fine-grained_score": score + number % 3}
            for answer, score in (("good", 8.0), ("bad", 1.0))
        ],
    }


@pytest.mark.parametrize("mode", ["paired", "unpaired", "scored"])
def test_a_clamped_temperature_is_warned_of_in_every_mode(built, mode):
    """Clusters of three equal vectors: mined groups meet all their losses alike at any temperature, random ones do not."""
    corner = np.eye(8)
    records = [in_mode(mode, number) | {"v": corner[number // 3].tolist()} for number in range(24)]
    data, warnings, said = built(records, mode=mode, group_size=6 if mode == "scored" else 3)
    assert data.manifest.temperature in (0.001, 1000.0)
    (warning,) = warnings
    assert warning.startswith("temperature auto: ")
    assert warning.endswith(f"than {data.manifest.temperature:g}, which is used")
    assert data.manifest.quality.mean_similarity > 0.99
    assert f"weights temperature {data.manifest.temperature:g} (auto), effective contrasts " in said[1]


def test_sinkhorn_weights_that_masks_forbid_are_warned_of_until_others_are_made(built, tmp_path, cache_dir):
    """Two of three wins have the text of one of two losses; the other loss is all they meet, and would get 2 of its 1.5."""
    rows = [("x", True), ("x", True), ("z", True), ("x", False), ("y", False)]
    records = [
        {"prompt": f"question {number}?", "completion": text, "label": liked, "v": [1.0, number]}
        for number, (text, liked) in enumerate(rows)
    ]
    data, warnings, said = built(records, normalize="sinkhorn", group_size=5, temperature=0.5)
    assert warnings == [
        "normalize sinkhorn: the masks of 1 of 1 groups allow no even columns; these have the weights of row"
    ]
    assert data.manifest.quality.row_fallbacks == 1
    assert said[0].endswith(", 2 of 6 cells masked")
    regroup(data.path, tmp_path / "other", {"normalize": "row"}, cache_dir=cache_dir)
    assert load(tmp_path / "other").manifest.warnings == []


def test_hubs_are_told(built):
    """Two wins, four losses, one of these near to both wins: at a low temperature it has nearly all of the weight."""
    angles = np.radians([0, 5, 2, 60, 70, 80])
    records = [
        {"prompt": f"question {n}?", "completion": f"answer {n}", "label": n < 2, "v": [np.cos(angle), np.sin(angle)]}
        for n, angle in enumerate(angles)
    ]
    data, _, said = built(records, group_size=6, temperature=0.05)
    assert data.manifest.quality.mined.hubs == 1
    assert said[1].startswith("weights temperature 0.05, effective contrasts 1.0")
    assert said[1].endswith(", 1 of 4 losses are hubs")
    even, _, said = built(records, group_size=6, temperature=0.05, normalize="sinkhorn")
    assert even.manifest.quality.mined.hubs == 0
    assert said[1].endswith(", 0 of 4 losses are hubs")


def test_temperatures_without_a_view_are_warned_of(built):
    records = [pair(n, v=[1.0, n]) for n in range(6)]
    _, warnings, said = built(records, temperature=(0.2, 0.4, 0.8), views=2)
    assert warnings == ["temperature lists more numbers (3) than there are views (2): the last go unused"]
    assert "temperature 0.2, 0.4, effective" in said[1]
    assert built(records, temperature=(0.2, 0.4), views=2)[1] == []


def prompts_of(kinds, of_row, is_test, seed):
    """Prompts whose vectors are alike, zero, far from all others, or any."""
    rng, count = np.random.default_rng(seed), len(kinds)
    vectors = rng.normal(size=(count, 8 + count))
    vectors[:, 8:] = 0
    for number, kind in enumerate(kinds):
        if kind == "alike":
            vectors[number] = np.eye(8 + count)[0]
        elif kind == "zero":
            vectors[number] = 0
        elif kind == "far":
            vectors[number] = np.eye(8 + count)[8 + number]
    vectors, nothing = unit_vectors(vectors), (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    neighbors, similarity = neighbors_within(vectors, is_test.astype(np.int64), 3)
    model = EmbedderInfo(name="m", content_hash="", dimension=8, max_tokens=None, device="cpu", dtype="float32")
    split = Split(is_test, np.zeros(count, dtype=bool), moved=0, giants=[], crossing=0)
    info = NeighborsInfo(k=3, index="Flat", recall=1.0)
    ids = [f"p{number:02d}" for number in range(count)]
    return Prompts(ids, of_row, vectors, model, nothing, nothing, split, neighbors, similarity, info)


def pairs_of(drawn):
    """Identities of pairs (prompt, chosen, rejected), in canonical order."""
    columns = dict(
        zip(("prompt_id", "chosen_id", "rejected_id"), map(list, zip(*sorted(drawn), strict=True)), strict=True)
    )
    empty = {name: pl.lit(None, pl.String) for name in ("annotator", "language")}
    empty |= {name: pl.lit(None, pl.Float64) for name in ("score_chosen", "score_rejected")}
    return pl.DataFrame(columns).with_columns(source=pl.lit("log"), source_row=pl.int_range(pl.len()), **empty)


DRAWN = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from("ABCDEFG"), st.sampled_from("ABCDEFG")).filter(
        lambda t: t[1] != t[2]
    ),
    min_size=1,
    max_size=37,
    unique=True,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=DRAWN,
    kinds=st.lists(st.sampled_from(["any", "alike", "zero", "far"]), min_size=13, max_size=13),
    size=st.sampled_from([1, 2, 3, 4, 7, 50]),
    views=st.integers(1, 3),
    strategy=st.sampled_from(["nearest", "random", "cluster", "curriculum"]),
    weights=st.tuples(st.sampled_from(["row", "sinkhorn", "none"]), st.sampled_from(["row1", "mean1"])),
    temperature=st.sampled_from(["auto", 0.03, 0.5]),
    band=st.sampled_from([{}, {"min_score": 0.2, "max_score": 0.9}, {"range_min": 1}, {"range_max": 2}]),
    test=st.sets(st.integers(0, 12)),
    seed=st.integers(0, 99),
)
def test_promises_of_paired_groups(
    drawn, kinds, size, views, strategy, weights, temperature, band, test, seed, tmp_path
):
    used = sorted({prompt for prompt, *_ in drawn})
    ids = pairs_of([(f"p{used.index(prompt):02d}", *texts) for prompt, *texts in drawn])
    of_row = ids["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1
    is_test = np.array([prompt in test for prompt in used])
    prompts = prompts_of([kinds[prompt] for prompt in used], of_row, is_test, seed)
    recipe = Recipe(
        group_size=size, views=views, strategy=strategy, seed=seed, normalize=weights[0], scale=weights[1],
        temperature=temperature, neighbors=3, **band,
    )  # fmt: skip
    said = []
    try:
        mined = mine(ids, ids.clear(), prompts, recipe, "paired", cache=tmp_path, say=said.append)
    except LogError as error:
        if "cannot be contrasted with each other" not in str(error):
            raise
        event("a group of nothing but contradictions")
        return
    known, seen = judgements(ids), []
    for split, table in mined.groups.items():
        rows = mined.order[split]
        seen += rows.tolist()
        assert (is_test[of_row[rows]] == (split == "test")).all()
        for view in range(views):
            groups = [group for group in table.to_pylist() if group["view"] == view]
            assert sorted(row for group in groups for row in group["win_rows"]) == list(range(len(rows)))
            assert sorted(len(group["win_rows"]) for group in groups)[1:] == [size] * (len(groups) - 1)
            for group in groups:
                members, weight = rows[group["win_rows"]], np.array(group["weight"])
                assert group["loss_rows"] == group["win_rows"]
                masked = np.logical_or.reduce(list(group_masks(members, members, known).values()))
                assert ((weight == 0) == masked).all()
                assert np.isfinite(weight).all()
                assert not masked.all()
                if weights == ("row", "row1"):
                    np.testing.assert_allclose(weight.sum(axis=1), ~masked.all(axis=1), atol=1e-5)
                unit = prompts.vectors[of_row[members]].astype(float)
                plain = np.where(of_row[members][:, None] == of_row[members], 1, unit @ unit.T)
                np.testing.assert_allclose(group["similarity"], plain, atol=1e-6)
    assert sorted(seen) == list(range(len(ids)))
    assert [line.split()[0] for line in said] == ["groups", "weights"]


def test_an_index_that_cannot_reach_the_recall_is_warned_of():
    prompts = prompts_of(["any"] * 4, np.arange(4), np.array([False, False, True, False]), 0)
    recipe = Recipe(test_fraction=0.25, index="HNSW32")
    assert prompt_warnings(prompts, recipe) == []
    low = replace(prompts, search=NeighborsInfo(k=3, index="HNSW32", recall=0.912))
    assert prompt_warnings(low, recipe) == [
        "the search found 91.2% of the true neighbours, less than min_recall 0.95: HNSW32 finds no more; leave index at auto"
    ]
