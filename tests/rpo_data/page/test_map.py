"""The map of prompts: projection, topics and their names by hand; whole groups and random pairs on the real sample."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data import Recipe, build
from rpo_data.page import map as prompt_map
from rpo_data.page.cells import group_figures, read_groups
from rpo_data.page.map import map_points, name_topics, project, random_cosines, topic_centres, topic_rows, topics_of


@pytest.fixture(scope="module")
def sampled(sample, tmp_path_factory, cache_dir):
    recipe = Recipe(embedder="static", test_fraction=0.1, views=2)
    return build(sample, tmp_path_factory.mktemp("map") / "out", recipe, cache_dir=cache_dir)


def blobs(sizes, seed=0):
    random = np.random.default_rng(seed)
    parts = [np.eye(8)[place] + 0.05 * random.standard_normal((size, 8)) for place, size in enumerate(sizes)]
    vectors = np.concatenate(parts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.repeat(np.arange(len(sizes)), sizes)


@given(st.permutations([5, 9, 14]), st.integers(0, 99))
def test_topics_are_the_blobs_the_largest_first(sizes, seed):
    vectors, blob = blobs(sizes, seed)
    topics = topics_of(vectors, topic_centres(vectors, 3))
    for number, size in enumerate(sizes):
        assert set(topics[blob == number]) == {sorted(sizes, reverse=True).index(size)}
    assert topic_centres(vectors[:2], 8).shape == (2, 8)  # no more topics than rows


def test_the_axes_tell_the_topics_apart_and_do_not_hang_on_signs():
    vectors, topics = blobs([10, 20, 30])
    places, shown = project(vectors, topics)
    middles = np.array([places[topics == topic].mean(axis=0) for topic in range(3)])
    spread = max(places[topics == topic].std(axis=0).max() for topic in range(3))
    apart = [np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(apart) > 5 * spread
    assert 0.8 < shown <= 1
    mirrored, _ = project(-vectors, topics)
    np.testing.assert_allclose(np.abs(mirrored), np.abs(places), atol=1e-9)
    assert ((places**3).sum(axis=0) >= 0).all()


def test_names_are_the_words_that_tell():
    texts = ["bake the bread", "bake the cake", "the horse runs", "the horse eats", "the tax", "the law"]
    names = name_topics(texts, np.array([0, 0, 1, 1, 2, 2]))
    assert names == {0: "1: bake, bread, cake", 1: "2: horse, eats, runs", 2: "3: law, tax"}
    assert name_topics(["12 34", "!"], np.array([0, 0])) == {0: "1"}


def test_the_map_holds_whole_groups_of_view_0(sampled, monkeypatch):
    monkeypatch.setattr(prompt_map, "POINTS", 200)
    groups = read_groups(sampled)
    figures = group_figures(groups)
    points, shown, topics = map_points(sampled, groups, figures)
    assert 190 <= len(points) <= 208
    assert 0 < shown < 1
    told = {name: count for name, count in points["group"].value_counts().iter_rows()}
    sizes = {row["group_id"]: len(row["win_rows"]) for row in sampled.view("train", 0)}
    assert told == {name: sizes[name] for name in told}
    mean = dict(zip(figures["group"], figures["similarity"], strict=True))
    assert all(row["cosine"] == round(mean[row["group"]], 3) for row in points.to_dicts())
    assert sum(topic["prompts"] for topic in topics) == len(points)
    assert [topic["topic"].partition(":")[0] for topic in topics] == [str(n + 1) for n in range(len(topics))]


def test_the_example_of_a_topic_is_the_prompt_nearest_to_its_centre():
    points = pl.DataFrame(
        {
            "topic": ["2: b", "1: a", "1: a", "2: b"],
            "cosine": [0.1, 0.2, 0.4, 0.3],
            "near": [0.9, 0.5, 0.7, 0.8],
            "text": ["w", "x", "y", "z"],
            "opening": ["W", "X", "", "Z"],
        }
    )
    told = [(row["topic"], row["prompts"], row["text"], row["opening"]) for row in topic_rows(points)]
    assert told == [("1: a", 2, "y", ""), ("2: b", 2, "w", "W")]
    assert [row["cosine"] for row in topic_rows(points)] == pytest.approx([0.3, 0.2])


def test_random_pairs_are_as_near_as_random_groups(sampled):
    cosines = random_cosines(sampled)
    assert len(cosines) > 15_000
    assert cosines.mean() == pytest.approx(sampled.manifest.quality.random_similarity, abs=0.01)
    assert (cosines == random_cosines(sampled)).all()
