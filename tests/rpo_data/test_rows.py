"""Duplicates, contradictions and splits, on small tables where the answer can be read off."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support import pair

from rpo_data.pairs import collect_rows, open_rows
from rpo_data.rows import identities, merge_duplicates
from rpo_data.sources import find_sources


@pytest.fixture
def rows_of(tmp_path, write_lines):
    def make(**files):
        paths = [write_lines(f"{name}.jsonl", records) for name, records in files.items()]
        collect_rows(find_sources(paths), tmp_path)
        return identities(open_rows(tmp_path))

    return make


def places(rows):
    return sorted(zip(rows["source"], rows["source_row"], strict=True))


def test_exact_duplicates_merge_into_the_first(rows_of):
    rows = rows_of(b=[pair(0), pair(1), pair(0)], a=[pair(2), pair(1)])
    kept, merged = merge_duplicates(rows)
    assert places(kept) == [("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1)]
    assert sorted(merged.sentence) == [
        "b.jsonl:2: merged into a.jsonl:2, the same row",
        "b.jsonl:3: merged into b.jsonl:1, the same row",
    ]


def test_annotators_of_one_pair_stay_apart(rows_of):
    rows = rows_of(a=[pair(0, annotator="x"), pair(0, annotator="y"), pair(0, annotator="x"), pair(0), pair(0)])
    kept, merged = merge_duplicates(rows)
    assert places(kept) == [("a.jsonl", 1), ("a.jsonl", 2), ("a.jsonl", 4)]
    assert len(merged.position) == 2


def test_a_pair_judged_both_ways_is_left_out_on_both_sides(rows_of):
    flipped = {"prompt": "question 1?", "chosen": "bad 1", "rejected": "good answer 1"}
    rows, _ = merge_duplicates(rows_of(a=[pair(0), pair(1), flipped, pair(2)]))
    kept, conflicts = drop_conflicts(rows)
    assert places(kept) == [("a.jsonl", 1), ("a.jsonl", 4)]
    assert sorted(conflicts.sentence) == [
        "a.jsonl:2: a.jsonl:3 judges the same two responses the other way: keep one of them",
        "a.jsonl:3: a.jsonl:2 judges the same two responses the other way: keep one of them",
    ]


def test_the_same_responses_to_another_prompt_are_no_conflict(rows_of):
    other = {"prompt": "another question?", "chosen": "bad 1", "rejected": "good answer 1"}
    _, conflicts = drop_conflicts(rows_of(a=[pair(1), other]))
    assert conflicts.position == []


NONE = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
# first hex digits decide: 0x00.. is below any fraction, 0xff.. above
IDS = ["00" + "0" * 30, "ff" + "0" * 30, "ff" + "1" * 30, "ff" + "2" * 30]


def test_hold_out_by_hash():
    assert hold_out(IDS, 0.02, NONE)[0].tolist() == [True, False, False, False]
    assert hold_out(IDS, 0.0, NONE)[0].tolist() == [False] * 4


def test_near_duplicates_of_a_test_prompt_go_with_it_also_over_a_chain():
    is_test, moved = hold_out(IDS, 0.02, (np.array([0, 1]), np.array([1, 2])))
    assert is_test.tolist() == [True, True, True, False]
    assert moved == 2


def test_duplicates_in_one_line_of_a_file_merge_too(tmp_path):
    logs = tmp_path / "logs.json"
    logs.write_text(json.dumps([pair(0), pair(0), pair(1), pair(0)]))
    collect_rows(find_sources([logs]), tmp_path)
    kept, merged = merge_duplicates(identities(open_rows(tmp_path)))
    assert len(kept) == 2
    assert merged.sentence == [
        "logs.json:2: merged into logs.json:1, the same row",
        "logs.json:4: merged into logs.json:1, the same row",
    ]


def test_of_duplicates_the_one_with_scores_stays(rows_of):
    kept, _ = merge_duplicates(rows_of(a=[pair(0), pair(0, score_chosen=5, score_rejected=1)]))
    assert kept["score_chosen"].to_list() == [5.0]


def test_outer_blanks_make_no_other_row(rows_of):
    flipped = {"prompt": "question 1? ", "chosen": " bad 1", "rejected": "good answer 1"}
    kept, merged = merge_duplicates(rows_of(a=[pair(0), pair(0, chosen="good answer 0 "), pair(1), flipped]))
    assert len(merged.position) == 1
    assert places(drop_conflicts(kept)[0]) == [("a.jsonl", 1)]


@given(st.sets(st.integers(0, 16**32 - 1), min_size=2, max_size=60), st.floats(0, 0.9), st.data())
def test_more_logs_move_no_prompt_from_test_to_train(numbers, fraction, data):
    ids = [f"{number:032x}" for number in sorted(numbers)]
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, len(ids) - 1)] * 2), max_size=40))
    early = data.draw(st.integers(1, len(ids)))

    def split(count):
        inside = np.array([edge for edge in pairs if max(edge) < count], dtype=np.int64).reshape(-1, 2)
        return hold_out(ids[:count], fraction, (inside[:, 0], inside[:, 1]))[0]

    before, after = split(early), split(len(ids))
    assert (after[:early] >= before).all()
    for a, b in pairs:
        assert after[a] == after[b]
