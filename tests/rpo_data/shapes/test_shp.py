"""Stanford Human Preferences."""

import pytest
from comparison_records import COMPARISON_RECORDS, refusal, rows_of

from rpo_data.shapes import Pair
from rpo_data.shapes.base import assistant, user

RECORD = COMPARISON_RECORDS["shp"][0]


def test_the_label_says_whether_a_is_preferred():
    assert rows_of("shp") == [
        [
            Pair(
                prompt=[user("What's the best way to disassemble raspberries?")],
                chosen=[assistant("Pectinex, perhaps?")],
                rejected=[assistant("Raspberry juice will make a bright stain.")],
                score_chosen=340.0,
                score_rejected=166.0,
                strength=2.0481927711,
            )
        ],
        [
            Pair(
                prompt=[user("Which oil?")],
                chosen=[assistant("See the manual.")],
                rejected=[assistant("Any.")],
                score_chosen=6.0,
                score_rejected=2.0,
                strength=3.0,
            )
        ],
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"labels": 2}, "unknown_judgement"),
        ({"labels": True}, "unknown_judgement"),
        ({"labels": None}, "no_judgement"),
        ({"human_ref_B": None}, "missing_value"),
        ({"history": 1}, "wrong_type"),
        ({"score_ratio": "twice"}, "wrong_type"),
    ],
    ids=range(6),
)
def test_records_that_are_refused(change, code):
    assert refusal("shp", RECORD | change)[0] == code
