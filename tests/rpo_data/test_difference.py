"""What changed between two datasets: moved rows against a plain count, and the whole on small builds."""

import json
from itertools import combinations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from tests_support import pair
from typer.testing import CliRunner

from rpo_data import Recipe, build
from rpo_data.difference import compare_datasets, moved_rows
from rpo_data.pipelines.cli import app
from rpo_data.pipelines.regroup import regroup

PLACES = st.dictionaries(
    st.sampled_from("abcdefghij"), st.tuples(st.sampled_from(["train", "test"]), st.integers(0, 2))
)


def places(of):
    rows = [{"id": name, "split": split, "group": f"{split}-{number}"} for name, (split, number) in of.items()]
    return pl.DataFrame(rows, schema={"id": pl.String, "split": pl.String, "group": pl.String})


def test_worked_example():
    one = {"a": ("train", 0), "b": ("train", 0), "c": ("train", 0), "d": ("train", 1), "e": ("test", 0)}
    other = {"a": ("train", 0), "b": ("train", 0), "c": ("train", 1), "e": ("train", 1), "f": ("train", 0)}
    found = moved_rows(places(one), places(other))
    assert found.both == 4
    assert found.only == (1, 1)
    assert found.moves == {"test to train": 1}
    assert found.examples == {"only in the one": ["d"], "only in the other": ["f"], "test to train": ["e"]}
    assert found.groups == (3, 2, 0)
    assert found.company == (3, 2, 1)  # ab ac bc, then ab ce; d and f are in one alone


@given(PLACES, PLACES)
def test_moves_and_company_as_counted_one_by_one(one, other):
    found = moved_rows(places(one), places(other))
    both = sorted(one.keys() & other.keys())
    assert found.both == len(both)
    assert found.only == (len(one) - len(both), len(other) - len(both))
    assert sum(found.moves.values()) == sum(one[name][0] != other[name][0] for name in both)
    share = [[(one[a] == one[b]), (other[a] == other[b])] for a, b in combinations(both, 2)]
    assert found.company == (sum(s[0] for s in share), sum(s[1] for s in share), sum(all(s) for s in share))
    sets = [{frozenset(n for n in of if of[n] == place) for place in of.values()} for of in (one, other)]
    assert found.groups == (len(sets[0]), len(sets[1]), len(sets[0] & sets[1]))


def test_more_logs_and_other_groups_are_told(write_lines, tmp_path, cache_dir):
    records = [pair(n, prompt=f"question {n * 37}, about {n % 7}?") for n in range(24)]
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, duplicate_score=1.0)
    first = write_lines("logs.jsonl", records)
    one = build(first, tmp_path / "one", recipe, cache_dir=cache_dir)
    more = write_lines("more.jsonl", [*(pair(n, prompt=f"more {n}?") for n in range(100, 108)), pair(1, chosen="")])
    other = build([first, more], tmp_path / "other", recipe, cache_dir=cache_dir, previous=one.path)
    found = compare_datasets(one, other)
    assert not found.same_tables
    assert set(found.settings) == {"temperature in use"}
    assert found.sources == {"more.jsonl": "new"}
    assert found.reasons == {"empty_response": (0, 1)}
    assert found.counts["records_read"] == (24, 33)
    assert found.counts["train preference pairs"] == (24, 32)
    assert "mean_similarity" in found.quality
    assert (found.rows.both, found.rows.only, found.rows.moves) == (24, (0, 8), {})

    again = regroup(one.path, tmp_path / "again", {"normalize": "sinkhorn"}, cache_dir=cache_dir)
    found = compare_datasets(one, again)
    assert found.settings["normalize"] == ("row", "sinkhorn")
    assert found.counts == found.reasons == found.sources == {}
    assert found.rows.groups == (6, 6, 6)
    assert found.rows.company == (36, 36, 36)
    assert compare_datasets(one, one).model_dump(exclude={"rows", "same_tables"}) == {
        name: {} for name in ("settings", "versions", "sources", "counts", "reasons", "quality")
    }

    run = CliRunner().invoke(app, ["diff", str(one.path), str(other.path)])
    assert run.exit_code == 0, run.output
    assert "24 in both, 0 only before, 8 only after" in run.output
    assert "more.jsonl" in run.output
    told = json.loads(CliRunner().invoke(app, ["diff", str(one.path), str(one.path), "--json"]).stdout)
    assert told["same_tables"]


def test_pairs_and_responses_have_no_rows_in_common(write_lines, tmp_path, cache_dir):
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, duplicate_score=1.0)
    logs = write_lines("logs.jsonl", [pair(n) for n in range(8)])
    sides = [
        build(logs, tmp_path / mode, recipe.model_copy(update={"mode": mode}), cache_dir=cache_dir)
        for mode in ("paired", "unpaired")
    ]
    found = compare_datasets(*sides)
    assert found.rows is None
    assert found.settings["mode"] == ("paired", "unpaired")
    run = CliRunner().invoke(app, ["diff", *(str(side.path) for side in sides)])
    assert "rows cannot be compared" in run.output
