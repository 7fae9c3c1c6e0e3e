"""What mining says besides its tables: warnings, and lines on the screen."""

import numpy as np
import pytest
from tests_support import pair

from rpo_data import Recipe, build, load
from rpo_data.pipelines.regroup import regroup

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
    assert f"weights temperature {data.manifest.temperature:g}, " in said[1]


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
