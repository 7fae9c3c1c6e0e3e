"""Identities and exact duplicates, on small tables where the answer can be read off."""

import json

import numpy as np
import pytest
from tests_support import pair

from rpo_data.pairs import collect_rows
from rpo_data.row_table import open_rows
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


NONE = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
# first hex digits decide: 0x00.. is below any fraction, 0xff.. above
IDS = ["00" + "0" * 30, "ff" + "0" * 30, "ff" + "1" * 30, "ff" + "2" * 30]


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
    kept, merged = merge_duplicates(
        rows_of(a=[pair(0), pair(0, prompt=" question 0?", chosen="good answer 0 "), pair(1)])
    )
    assert places(kept) == [("a.jsonl", 1), ("a.jsonl", 3)]
    assert merged.position == [1]
