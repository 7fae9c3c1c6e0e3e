"""Nectar: ranked answers to a dialogue."""

import pytest
from comparison_records import COMPARISON_RECORDS, refusal, rows_of

from rpo_data.shapes import Response
from rpo_data.shapes.base import assistant, user

(RECORD,) = COMPARISON_RECORDS["nectar"]


def test_ranks_stay_and_the_empty_turn_goes():
    prompt = [user("Hi"), assistant("Hello!"), user("Name a river.")]
    assert rows_of("nectar") == [
        [
            Response(prompt=prompt, completion=[assistant("The Nile.")], rank=1),
            Response(prompt=prompt, completion=[assistant("Rivers flow.")], rank=3),
            Response(prompt=prompt, completion=[assistant("The Rhine, in Europe.")], rank=2),
        ]
    ]


def answers(*entries):
    return {"answers": [{"answer": answer, "model": "gpt-4", "rank": rank} for answer, rank in entries]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (answers(("a", 1)), "no_judgement"),
        (answers(("a", 1), ("b", None)), "no_judgement"),
        (answers(), "no_judgement"),
        (answers(("a", 1), ("b", 0)), "unknown_judgement"),
        (answers(("a", 1), ("b", "last")), "unknown_judgement"),
        (answers(("a", 1), (None, 2)), "missing_value"),
        ({"answers": ["a", "b"]}, "wrong_type"),
        ({"prompt": "Name a river."}, "no_turn_marker"),
        ({"prompt": "\n\nHuman: Hi"}, "no_turn_marker"),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant: Hello"}, "no_turn_marker"),
        ({"prompt": None}, "missing_value"),
    ],
    ids=range(11),
)
def test_records_that_are_refused(change, code):
    assert refusal("nectar", RECORD | change)[0] == code
