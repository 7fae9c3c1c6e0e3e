"""`regroup`: what a build with these settings would have made, from what is stored."""

import json
import subprocess
import sys
from filecmp import cmp, dircmp

import numpy as np
import pytest
from tests_support import pair

from rpo_data import Recipe, build, load
from rpo_data.errors import DatasetError, RecipeError
from rpo_data.pipelines.cli import _REGROUP_KEYS
from rpo_data.pipelines.regroup import KEYS, regroup

BASE = {"embedder": "static", "test_fraction": 0.2, "group_size": 4, "duplicate_score": 1.001}


def same_files(one, other):
    """Names of files that differ between two folders, but for run.json."""
    found, waiting = [], [dircmp(one, other)]
    while waiting:
        here = waiting.pop()
        found += [*here.left_only, *here.right_only]
        found += [
            name for name in here.common_files if not cmp(f"{here.left}/{name}", f"{here.right}/{name}", shallow=False)
        ]
        waiting += here.subdirs.values()
    return sorted(set(found) - {"run.json"})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, sample_rows):
    """Real pairs, one with tool calls, ties, contradictions and several annotators; kept and masked."""
    folder = tmp_path_factory.mktemp("regroup")
    call = [{"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}]
    answer = [{"role": "assistant", "content": "no"}]
    odd = [
        {"prompt": [{"role": "user", "content": "call it"}], "chosen": call, "rejected": answer},
        pair(1, prompt="who?", chosen="A", rejected="B", annotator="x", weight=2.0),
        pair(2, prompt="who?", chosen="B", rejected="A", annotator="y"),
        pair(3, prompt="who?", chosen="A", rejected="C", score_chosen=2, score_rejected=1),
    ]  # fmt: skip
    tie = {"instruction": "who?", "input": "", "response1": "A", "response2": "D", "annotator1": "0"}
    (folder / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sample_rows[:120]))
    (folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    (folder / "ties.jsonl").write_text(json.dumps(tie) + "\n")
    recipe = Recipe(**BASE, conflicts="keep-and-mask")
    logs = [folder / name for name in ("hh.jsonl", "odd.jsonl", "ties.jsonl")]
    build(logs, folder / "dataset", recipe, cache_dir=folder / "cache")
    return folder, logs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"group_size": 6, "views": 2, "seed": 3},
        {"strategy": "cluster", "temperature": (0.2, 0.4), "normalize": "sinkhorn", "scale": "mean1"},
        {"strategy": "curriculum", "views": 2, "min_score": 0.1, "max_score": 0.9, "range_min": 1, "range_max": 8},
    ],
    ids=["nothing", "sizes", "weights", "band"],
)
def test_it_makes_what_a_build_would_make_byte_for_byte(dataset, changes, tmp_path):
    folder, logs = dataset
    regroup(folder / "dataset", tmp_path / "regrouped", changes, cache_dir=tmp_path / "cache")
    recipe = Recipe(**BASE | changes, conflicts="keep-and-mask")
    build(logs, tmp_path / "built", recipe, cache_dir=folder / "cache")
    assert same_files(tmp_path / "regrouped", tmp_path / "built") == []
    masked = load(tmp_path / "regrouped").manifest.quality.masked_cells
    assert changes or masked["judged_other"] >= 2


@pytest.mark.parametrize("changes", [{}, {"group_size": 3, "views": 2, "seed": 4, "normalize": "sinkhorn"}])
@pytest.mark.parametrize("mode", ["unpaired", "scored"])
def test_responses_too(mode, changes, tmp_path, cache_dir):
    pairs = [pair(n, score_chosen=5 - n % 3, score_rejected=1 + n % 2, weight=1 + n % 2) for n in range(24)]
    answers = [{"answer": f" answer {n}", "rank": n + 1, "model": "m"} for n in range(4)]
    other = {
        "unpaired": [],
        "scored": [{"prompt": f"\n\nHuman: q{n}?\n\nAssistant: ", "answers": answers} for n in range(5)],
    }
    twice = {"prompt": "question 3?", "completion": "good answer 3", "label": False}
    judged = {
        "unpaired": [twice, twice | {"prompt": "question 4?"}],
        "scored": [pair(3, score_chosen=2, score_rejected=5)],
    }
    for name, records in (("a", [*pairs, *other[mode]]), ("b", judged[mode])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    logs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    policy = {"conflicts": "keep-and-mask"} if mode == "unpaired" else {}
    for out, more in (("dataset", {}), ("built", changes)):
        build(logs, tmp_path / out, Recipe(**BASE | policy | more, mode=mode), cache_dir=cache_dir)
    regroup(tmp_path / "dataset", tmp_path / "regrouped", changes, cache_dir=tmp_path / "cache")
    assert same_files(tmp_path / "regrouped", tmp_path / "built") == []
    assert len(load(tmp_path / "built").responses["test"]) > 0


def test_a_group_size_that_leaves_responses_over_needs_a_build(tmp_path, cache_dir):
    records = [{"prompt": f"q {n}", "completion": f"a {n}", "label": n > 2} for n in range(40)]
    (tmp_path / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    recipe = Recipe(**BASE | {"test_fraction": 0}, max_group=20)
    build(tmp_path / "logs.jsonl", tmp_path / "dataset", recipe, cache_dir=cache_dir)
    with pytest.raises(RecipeError, match="group_size 21 is above max_group 20"):
        regroup(tmp_path / "dataset", tmp_path / "out", {"group_size": 21}, cache_dir=cache_dir)


def test_a_dataset_may_be_regrouped_in_place(dataset, tmp_path):
    folder, _ = dataset
    regroup(folder / "dataset", tmp_path / "out", {"group_size": 5}, cache_dir=tmp_path / "cache")
    regroup(tmp_path / "out", tmp_path / "out", {"group_size": 4}, cache_dir=tmp_path / "cache")
    assert same_files(folder / "dataset", tmp_path / "out") == []


def test_what_needs_a_build_is_refused(dataset, tmp_path):
    folder, _ = dataset
    with pytest.raises(RecipeError, match="regroup cannot change 'embedder': build again; it can change group_size"):
        regroup(folder / "dataset", tmp_path / "out", {"embedder": "static"})
    with pytest.raises(RecipeError, match=r"min_score 0\.9 is above max_score 0\.1"):
        regroup(folder / "dataset", tmp_path / "out", {"min_score": 0.9, "max_score": 0.1})
    with pytest.raises(DatasetError, match="it is not there"):
        regroup(tmp_path / "nowhere", tmp_path / "out", {})


def test_the_command_line_has_every_key():
    assert _REGROUP_KEYS == KEYS


def test_the_command(dataset, tmp_path):
    folder, _ = dataset
    command = [sys.executable, "-m", "rpo_data.pipelines.cli", "regroup", folder / "dataset", "--out", tmp_path / "out"]
    options = ["--temperature", "0.3", "--group-size", "3", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run([*map(str, command), *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = load(tmp_path / "out")
    assert (data.manifest.temperature, len(data.groups["train"][0]["win_rows"])) == (0.3, 3)
    weight = np.array(data.groups["train"][0]["weight"])
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-6)
