"""Tulu human evaluation: five levels, several evaluators (rows of allenai/open-instruct, Apache-2.0)."""

import gzip
import json
from collections import Counter

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Pair
from rpo_data.shapes.base import assistant, user

RECORD = COMPARISON_RECORDS["tulu_human_eval"][0]
EQUATION = [user("Solve this equation.\n\nx^3 - 4x^2 + 6x - 24 = 0\n")]


def test_five_levels():
    code = 'if (20 > 18) {\n  printf("20 is greater than 18");\n}\n'
    assert rows_of("tulu_human_eval") == [
        [
            Pair(
                prompt=EQUATION,
                chosen=[assistant("x = 4")],
                rejected=[assistant("x = 2")],
                strength=2.0,
                annotator="da",
            )
        ],
        [
            Pair(
                prompt=[user(f"Identify the programming language used to write the given code.\n\n{code}")],
                chosen=[assistant("C or C++")],
                rejected=[assistant("C")],
                strength=1.0,
                annotator="yi",
            )
        ],
        [
            Pair(
                prompt=[user("Solve for x in the equation 3x + 10 = 5(x - 2).\n")],
                chosen=[assistant("2")],
                rejected=[assistant("x = 2")],
                tie=True,
                strength=0.0,
                annotator="al",
            )
        ],
        [
            Pair(
                prompt=EQUATION,
                chosen=[assistant("x = 4")],
                rejected=[assistant("-4")],
                strength=1.0,
                annotator="yi",
            )
        ],
        [
            Pair(
                prompt=[user("Write down antonyms for the given word.\n\nlaureating\n")],
                chosen=[assistant("Demure, somber, unassuming, uncelebrated, unheralded.")],
                rejected=[assistant("Doubting")],
                strength=2.0,
                annotator="ja",
            )
        ],
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"preference": "a-is-best"}, "unknown_judgement"),
        ({"preference": None}, "no_judgement"),
        ({"preference": ["tie"]}, "unknown_judgement"),
        ({"completion_a": None}, "missing_value"),
        ({"prompt": 5}, "wrong_type"),
    ],
    ids=range(5),
)
def test_records_that_are_refused(change, code):
    assert refusal("tulu_human_eval", RECORD | change)[0] == code


def test_the_whole_file(shared_data):
    path = shared_data / "tulu_human_eval" / "eval_annotations_tulu_1.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    pairs = [pair for record in records for pair in read("tulu_human_eval", record)]
    assert len(pairs) == 1150
    assert Counter((pair.tie, pair.strength) for pair in pairs) == {
        (True, 0.0): 376,
        (False, 1.0): 235 + 191,
        (False, 2.0): 188 + 160,
    }
    assert len({pair.annotator for pair in pairs}) == 16
    for record, pair in zip(records, pairs, strict=True):
        best = "b" if record["preference"].startswith("b-") else "a"
        assert pair.chosen == [assistant(record[f"completion_{best}"])]
