"""LLMBar (rows of princeton-nlp/LLMBar, MIT)."""

import gzip
import json

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Pair
from rpo_data.shapes.base import assistant, user

RECORD = COMPARISON_RECORDS["llmbar"][0]


def test_the_label_names_the_better_output():
    assert rows_of("llmbar") == [
        [
            Pair(
                prompt=[user("Generate two rhymes for the following word. Moon")],
                chosen=[assistant("Soon, Loon")],
                rejected=[assistant("Clone, June, Nore, Tune")],
            )
        ],
        [
            Pair(
                prompt=[user("Given a base number and a power, calculate the result.\n\nBase:5   Power:3")],
                chosen=[assistant("125")],
                rejected=[assistant("5 x 5 x 5 = 625")],
            )
        ],
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"label": 0}, "unknown_judgement"),
        ({"label": True}, "unknown_judgement"),
        ({"label": None}, "no_judgement"),
        ({"output_2": 125}, "wrong_type"),
    ],
    ids=range(4),
)
def test_records_that_are_refused(change, code):
    assert refusal("llmbar", RECORD | change)[0] == code


def test_all_files(shared_data):
    count = 0
    for path in sorted((shared_data / "llmbar").glob("*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            records = json.load(file)
        for record in records:
            (pair,) = read("llmbar", record)
            best, other = (1, 2) if record["label"] == 1 else (2, 1)
            assert pair.chosen == [assistant(record[f"output_{best}"])]
            assert pair.rejected == [assistant(record[f"output_{other}"])]
        count += len(records)
    assert count == 419 + 466
