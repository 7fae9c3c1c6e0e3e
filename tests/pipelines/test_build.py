"""The whole build on real logs: the promises of the format, byte for byte, with real MiniLM weights."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from datasets import load_from_disk
from tests_support import pair

from rpo_data import Recipe, build, load
from rpo_data.errors import DatasetError, LogError
from rpo_data.shapes import split_dialogue
from rpo_data.weights import contrast_weights

RECIPE = Recipe(test_fraction=0.1, views=2, group_size=8)


@pytest.fixture(scope="module")
def built(sample, cache_dir, tmp_path_factory):
    """The sample, built once."""
    out = tmp_path_factory.mktemp("built") / "dataset"
    return build(sample, out, RECIPE, cache_dir=cache_dir)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but run.json, which says when and how long."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "run.json"
    }


def test_the_folder_is_as_documented(built):
    assert sorted(path.name for path in built.path.iterdir()) == [
        "README.md", "groups", "manifest.json", "neighbors", "pairs", "rejects.parquet", "report.html", "run.json", "vectors",
    ]  # fmt: skip


def test_every_table_opens_with_datasets(built):
    for table in ("pairs", "groups", "neighbors", "vectors"):
        opened = load_from_disk(str(built.path / table))
        assert sorted(opened) == ["test", "train"]
        assert all(len(rows) for rows in opened.values())


def test_promise_1_every_row_in_one_group_of_each_view(built):
    for split in ("train", "test"):
        rows = len(built.pairs[split])
        for view in range(2):
            groups = built.view(split, view)
            assert sorted(row for group in groups["win_rows"] for row in group) == list(range(rows))
            sizes = [len(group) for group in groups["win_rows"]]
            assert sum(size != 8 for size in sizes) <= 1
            for group in groups:
                assert group["win_rows"] == group["loss_rows"]
                assert np.count_nonzero(group["weight"]) >= 1
                assert group["view"] == view
        assert [row for group in built.view(split, 0)["win_rows"] for row in group] == list(range(rows))


def test_promise_3_no_prompt_and_no_near_duplicate_crosses_splits(built):
    vectors = {split: rows.with_format("numpy") for split, rows in load_from_disk(str(built.path / "vectors")).items()}
    ids = {split: set(rows["prompt_id"][:]) for split, rows in vectors.items()}
    assert not ids["train"] & ids["test"]
    crossing = np.array(vectors["train"]["vector"][:]) @ np.array(vectors["test"]["vector"][:]).T
    assert crossing.max() < RECIPE.duplicate_score
    for split in ("train", "test"):
        assert set(built.pairs[split]["prompt_id"]) == ids[split]
        rows = built.neighbors[split]
        assert rows["prompt_id"][:] == load_from_disk(str(built.path / "vectors"))[split]["prompt_id"][:]
        for number, found in enumerate(rows["neighbors"]):
            assert number not in found
            assert len(found) == min(32, len(rows) - 1)
            assert all(0 <= other < len(rows) for other in found)


def test_promise_4_counts_balance_file_by_file(built):
    (source,) = built.manifest.sources
    rejects = pl.read_parquet(built.path / "rejects.parquet")
    assert source.records_read == 1000 == source.records_used + source.records_rejected
    assert source.rows_made == source.rows_kept + source.rows_rejected + source.rows_merged
    assert source.rows_kept == sum(len(rows) for rows in built.pairs.values())
    assert len(rejects) == source.records_rejected + source.rows_rejected + source.rows_merged
    assert dict(Counter(rejects["code"])) == built.manifest.left_out == {"empty_response": 2, "prompts_differ": 5}
    assert all(rejects["message"].str.len_chars() > 20)


def test_counts_balance_where_rows_merge_and_contradict(write_lines, tmp_path, cache_dir):
    flipped = {"prompt": "question 3?", "chosen": "bad 3", "rejected": "good answer 3"}
    one = write_lines("one.jsonl", [*(pair(n) for n in range(10)), pair(1), {"prompt": "x"}])
    two = write_lines("two.jsonl", [pair(2), flipped, *(pair(n) for n in range(20, 25)), pair(9, chosen="")])
    data = build([one, two], tmp_path / "out", Recipe(embedder="static", test_fraction=0), cache_dir=cache_dir)
    counts = {source.name: source.model_dump() for source in data.manifest.sources}
    for source in counts.values():
        del source["content_hash"]
        assert source.pop("shapes") == {"preference": source["records_used"] + source["name"].startswith("two")}
    assert counts == {
        "one.jsonl": {
            "name": "one.jsonl", "records_read": 12, "records_used": 11, "records_rejected": 1,
            "rows_made": 11, "rows_kept": 9, "rows_rejected": 1, "rows_merged": 1,
        },
        "two.jsonl": {
            "name": "two.jsonl", "records_read": 8, "records_used": 7, "records_rejected": 1,
            "rows_made": 7, "rows_kept": 5, "rows_rejected": 1, "rows_merged": 1,
        },
    }  # fmt: skip
    assert data.manifest.left_out == {"conflict": 2, "duplicate": 2, "empty_response": 1, "missing_column": 1}
    rejects = pl.read_parquet(tmp_path / "out" / "rejects.parquet")
    assert rejects.select("file", "line").rows() == sorted(rejects.select("file", "line").rows())
    conflict = rejects.filter(pl.col("code") == "conflict").row(0, named=True)
    assert json.loads(conflict["raw"])["prompt"][0]["content"] == "question 3?"


def test_weights_are_those_of_the_stored_similarities(built):
    temperature = built.manifest.temperature
    for group in built.groups["train"].select(range(50)):
        weight, similarity = np.array(group["weight"], dtype=np.float32), np.array(group["similarity"])
        np.testing.assert_array_equal(contrast_weights(similarity, weight == 0, temperature), weight)


def test_similarities_are_those_of_the_vectors(built):
    vectors = load_from_disk(str(built.path / "vectors"))["train"]
    of_prompt = dict(zip(vectors["prompt_id"], np.array(vectors["vector"][:], dtype=np.float64), strict=True))
    prompts = built.pairs["train"]["prompt_id"][:]
    for group in built.groups["train"].select(range(30)):
        members = np.stack([of_prompt[prompts[row]] for row in group["win_rows"]])
        np.testing.assert_allclose(group["similarity"], members @ members.T, atol=2e-7)


def test_quality_is_recorded_and_mining_beats_random(built):
    quality = built.manifest.quality
    assert quality.random_similarity < quality.mean_similarity < quality.nearest_similarity
    assert quality.mean_similarity > quality.random_similarity + 0.1
    assert quality.effective_contrasts == pytest.approx(quality.random_contrasts, abs=1e-3)
    assert sum(quality.masked_cells.values()) < quality.cells


def test_texts_survive_unchanged(built, sample_rows):
    answers = {row["chosen"].rsplit("\n\nAssistant:", 1)[1].strip() for row in sample_rows}
    for row in built.pairs["train"].select(range(100)):
        assert row["chosen"][0]["content"] in answers
        original = sample_rows[row["source_row"] - 1]
        assert original["chosen"].endswith(row["chosen"][0]["content"] or "?")
        assert original["rejected"].rsplit("\n\nAssistant:", 1)[1].strip() == row["rejected"][0]["content"]


def test_the_manifest_holds_no_path_and_no_time(built, sample):
    text = "".join((built.path / name).read_text() for name in ("manifest.json", "README.md", "report.html"))
    assert str(sample.parent) not in text
    assert str(built.path) not in text
    assert "20" + "26-" not in text


def test_a_second_build_embeds_nothing_and_a_larger_one_only_what_is_new(write_lines, tmp_path, sample_rows):
    said = []
    logs = write_lines("logs.jsonl", sample_rows[:40])
    build(logs, tmp_path / "one", cache_dir=tmp_path / "cache", say=said.append)
    build(logs, tmp_path / "two", cache_dir=tmp_path / "cache", say=said.append)
    more = write_lines("more.jsonl", sample_rows[:50])
    build(more, tmp_path / "three", cache_dir=tmp_path / "cache", say=said.append)
    embeds = [line for line in said if line.startswith("embed")]
    assert [line.rsplit(", ", 1)[1] for line in embeds] == ["40 of them new", "0 of them new", "10 of them new"]
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


BUILD = """
import sys, json, faiss, torch
from rpo_data import Recipe, build
logs, out, cache, batch_size, threads = json.loads(sys.argv[1])
faiss.omp_set_num_threads(threads); torch.set_num_threads(threads)
data = build(logs, out, Recipe(test_fraction=0.1, group_size=4, views=2), cache_dir=cache, batch_size=batch_size, say=print)
"""


def start_build(logs, out, cache, batch_size, threads):
    arguments = json.dumps([[str(log) for log in logs], str(out), str(cache), batch_size, threads])
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", BUILD, arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


@pytest.mark.slow
def test_promise_2_threads_batches_file_order_and_a_kill_change_no_byte(sample_rows, tmp_path):
    rows = sample_rows[:64]
    names = ["a.jsonl", "b.jsonl"]
    for name, part in zip(names, (rows[:32], rows[32:]), strict=True):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    logs = [tmp_path / name for name in names]

    finish(start_build(logs, tmp_path / "one", tmp_path / "cache1", batch_size=1024, threads=2))
    finish(start_build(logs[::-1], tmp_path / "two", tmp_path / "cache2", batch_size=24, threads=1))
    killed = start_build(logs, tmp_path / "three", tmp_path / "cache3", batch_size=8, threads=2)
    deadline = time.time() + 200
    while len(list((tmp_path / "cache3").rglob("vectors/*/*.arrow"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "three").exists()
    steps_done = len(list((tmp_path / "cache3").rglob("vectors/*/*.arrow")))
    assert 2 <= steps_done < 8
    output = finish(start_build(logs, tmp_path / "three", tmp_path / "cache3", batch_size=8, threads=2))
    prompts = sum(info.prompts for info in load(tmp_path / "one").manifest.splits.values())
    assert f"{prompts - 8 * steps_done} of them new" in output

    reference = files_of(tmp_path / "one")
    assert len(reference) > 20
    assert files_of(tmp_path / "two") == reference
    assert files_of(tmp_path / "three") == reference


def test_the_order_of_lines_changes_nothing_but_their_numbers(sample_rows, tmp_path, write_lines):
    rows = sample_rows[:60]
    shuffled = random.Random(0).sample(rows, len(rows))
    recipe = Recipe(embedder="static", test_fraction=0.1)
    one = build(write_lines("one/x.jsonl", rows), tmp_path / "a", recipe, cache_dir=tmp_path / "cache")
    two = build(write_lines("two/x.jsonl", shuffled), tmp_path / "b", recipe, cache_dir=tmp_path / "cache")
    for split in one.splits:
        assert one.pairs[split]["pair_id"][:] == two.pairs[split]["pair_id"][:]
        assert one.groups[split]["weight"][:] == two.groups[split]["weight"][:]


def test_promise_5_more_logs_move_no_row_from_test_to_train(sample_rows, tmp_path, write_lines):
    recipe = Recipe(embedder="static", test_fraction=0.2)
    few = build(write_lines("few.jsonl", sample_rows[:100]), tmp_path / "few", recipe, cache_dir=tmp_path / "cache")
    many = build(write_lines("many.jsonl", sample_rows[:300]), tmp_path / "many", recipe, cache_dir=tmp_path / "cache")
    assert len(few.pairs["test"]) > 5
    assert set(few.pairs["test"]["pair_id"]) <= set(many.pairs["test"]["pair_id"])


def test_vectors_of_the_user(write_lines, tmp_path):
    """Two directions, twice each: groups of two must follow the given vectors, whatever the texts say."""
    vectors = [[1, 0], [0, 3], [2, 0], [0, 1]]
    logs = write_lines("logs.jsonl", [pair(n, v=vector) for n, vector in enumerate(vectors)])
    recipe = Recipe(embedder="column:v", group_size=2, test_fraction=0, temperature=0.5)
    data = build(logs, tmp_path / "out", recipe, cache_dir=tmp_path / "cache")
    rows = data.pairs["train"]["source_row"][:]
    groups = {frozenset(rows[row] for row in group) for group in data.groups["train"]["win_rows"]}
    assert groups == {frozenset({1, 3}), frozenset({2, 4})}
    assert data.groups["train"]["weight"][:] == [[[0.5, 0.5], [0.5, 0.5]]] * 2
    assert data.manifest.embedder.dimension == 2


def test_languages_are_not_mixed(write_lines, tmp_path, cache_dir):
    records = [pair(n, language=language) for n, language in enumerate(["en", "de"] * 11)]
    recipe = Recipe(embedder="static", group_size=4, test_fraction=0)
    data = build(write_lines("logs.jsonl", records), tmp_path / "out", recipe, cache_dir=cache_dir)
    languages = data.pairs["train"]["language"][:]
    for group in data.groups["train"]["win_rows"]:
        assert len({languages[row] for row in group}) == 1


def test_random_strategy_is_the_papers_baseline(sample, tmp_path, cache_dir):
    data = build(sample, tmp_path / "out", RECIPE.model_copy(update={"strategy": "random"}), cache_dir=cache_dir)
    quality = data.manifest.quality
    assert quality.mean_similarity == pytest.approx(quality.random_similarity, abs=0.01)
    assert data.manifest.temperature == pytest.approx(0.5, abs=0.02)


def test_one_pair_alone_is_enough(write_lines, tmp_path, cache_dir):
    recipe = Recipe(embedder="static")
    data = build(write_lines("logs.jsonl", [pair(0)]), tmp_path / "out", recipe, cache_dir=cache_dir)
    assert data.group("train-0-0")["weight"] == [[1.0]]
    assert any("no prompt fell into the test split" in warning for warning in data.manifest.warnings)


def test_nothing_usable_is_an_error_that_names_the_first_fault(write_lines, tmp_path, cache_dir):
    logs = write_lines("logs.jsonl", [pair(0, chosen=""), {"prompt": "x"}])
    with pytest.raises(LogError, match=r"no usable pair in 2 records of logs.jsonl \(the first: logs.jsonl:"):
        build(logs, tmp_path / "out", cache_dir=cache_dir)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_dataset_is_never_replaced(write_lines, tmp_path, cache_dir):
    logs, out = write_lines("logs.jsonl", [pair(n) for n in range(4)]), tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match="exists and is no mined contrast dataset"):
        build(logs, out, Recipe(embedder="static"), cache_dir=cache_dir)
    assert (out / "thesis.txt").read_text() == "years of work"
    (out / "manifest.json").write_text('{"name": "of something else"}')
    with pytest.raises(DatasetError, match="exists and is no mined contrast dataset"):
        build(logs, out, Recipe(embedder="static"), cache_dir=cache_dir)
    recipe = Recipe(embedder="static", test_fraction=0)
    build(logs, tmp_path / "out", recipe, cache_dir=cache_dir)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="exists and is no mined contrast dataset"):
        build(logs, tmp_path / "out", recipe, cache_dir=cache_dir)
    (tmp_path / "out" / "notes.txt").unlink()
    build(logs, tmp_path / "out", recipe.model_copy(update={"group_size": 2}), cache_dir=cache_dir)
    assert load(tmp_path / "out").manifest.recipe.group_size == 2
    assert sorted(p.name for p in tmp_path.iterdir() if "unfinished" in p.name or "old" in p.name) == []


@pytest.mark.slow
def test_quality_of_a_build_on_the_first_turns_of_hh_harmless(shared_data, tmp_path, cache_dir):
    """The manifest's figures on the prompts that other groupers were measured on: random 0.085, bound 0.525."""
    with gzip.open(shared_data / "hh_rlhf" / "harmless-base.test.jsonl.gz", "rt", encoding="utf-8") as file:
        dialogues = [json.loads(line) for line in file]
    logs = tmp_path / "first-turns.jsonl"
    with logs.open("w", encoding="utf-8") as file:
        for row in dialogues:
            prompt = split_dialogue(row["chosen"])[0][0]["content"]
            sides = {side: row[side].rsplit("\n\nAssistant:", 1)[1] for side in ("chosen", "rejected")}
            file.write(json.dumps({"prompt": prompt} | sides) + "\n")
    recipe = Recipe(embed_text="last_user", test_fraction=0)
    quality = build(logs, tmp_path / "out", recipe, cache_dir=cache_dir).manifest.quality
    assert quality.mean_similarity >= 0.42
    assert quality.random_similarity == pytest.approx(0.085, abs=0.01)
    assert quality.nearest_similarity == pytest.approx(0.525, abs=0.01)
