"""The view of the interactive map on responses, and its layout."""

import shutil

import numpy as np
import pytest

from rpo_data import Recipe, build, load
from rpo_data.errors import DatasetError
from rpo_data.page import view
from rpo_data.page.view import explore_view


@pytest.fixture
def thumbs(write_lines, tmp_path, cache_dir):
    """Liked and disliked answers to nine prompts; the first view's groups are those of the view."""
    records = [
        {
            "messages": [
                {"role": "user", "content": f"question {n % 9}?"},
                {"role": "assistant", "content": f"answer {n}"},
            ]
        }
        | {"label": n % 3 > 0, "language": "en"}
        for n in range(25)
    ]
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, views=2, duplicate_score=1.001)
    return build(write_lines("logs.jsonl", records), tmp_path / "out", recipe, cache_dir=cache_dir)


def test_responses_have_a_row_for_each_prompt(thumbs):
    prompts, labels = explore_view(thumbs)
    assert len(prompts) == 9
    assert sum(prompts["rows"].to_pylist()) == 25
    group_of = {row: g for g in thumbs.view("train", 0) for row in [*g["win_rows"], *g["loss_rows"]]}
    logged = thumbs.responses["train"]
    for told in prompts.to_pylist():
        first = next(n for n, row in enumerate(logged) if told["prompt"] == f"user: {row['prompt'][0]['content']}")
        assert told["completion"] == logged[first]["completion"][0]["content"]
        group = group_of[first]
        assert told["group"] == group["group_id"]
        prompt = [logged[row]["prompt_id"] for row in range(25)]
        cosines = [
            group["similarity"][i][j]
            for i, win in enumerate(group["win_rows"])
            for j, loss in enumerate(group["loss_rows"])
            if prompt[win] != prompt[loss]
        ]
        assert told["group_cosine"] == (pytest.approx(np.mean(cosines), abs=1e-4) if cosines else None)
        assert (told["own_weight"] is None) == (first in group["loss_rows"])
        assert told["language"] == "en"
    assert set(labels["text"].to_pylist()) == set(prompts["topic"].to_pylist())
    assert explore_view(thumbs)[0].equals(prompts)


def test_it_needs_vectors(thumbs):
    shutil.rmtree(thumbs.path / "vectors")
    with pytest.raises(DatasetError, match="holds no vectors/, which the map needs: build the dataset again"):
        explore_view(load(thumbs.path))


@pytest.mark.slow
def test_umap_keeps_what_is_alike_together(monkeypatch):
    pytest.importorskip("umap", reason="the extra explore is not installed; .ci/run installs it")
    random = np.random.default_rng(0)
    vectors = np.eye(8, dtype=np.float32)[np.repeat([0, 1], 20)] + 0.1 * random.standard_normal((40, 8)).astype(
        np.float32
    )
    topics = np.repeat([0, 1], 20)
    places = view._layout(vectors, topics)
    middles = np.array([places[topics == topic].mean(axis=0) for topic in (0, 1)])
    inside = max(np.linalg.norm(places[topics == topic] - middles[topic], axis=1).max() for topic in (0, 1))
    assert np.linalg.norm(middles[0] - middles[1]) > 2 * inside
    assert (view._layout(vectors, topics) == places).all()
    monkeypatch.setattr(view, "UMAP_PROMPTS", 39)
    assert view._layout(vectors, topics).shape == (40, 2)
