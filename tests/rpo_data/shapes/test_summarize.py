"""summarize-from-feedback: comparisons of two summaries, and scores of one."""

import pytest
from comparison_records import COMPARISON_RECORDS, refusal, rows_of

from rpo_data.shapes import Pair, Response
from rpo_data.shapes.base import assistant, user

POST = COMPARISON_RECORDS["summarize"][0]
(AXIS,) = COMPARISON_RECORDS["summarize_axis"]
ARTICLE = [user("Article:\nHe was sent off.\n\nTL;DR:\n")]


def test_the_choice_is_the_place_of_the_better_summary():
    assert rows_of("summarize") == [
        [
            Pair(
                prompt=[
                    user("SUBREDDIT: r/legaladvice\n\nTITLE: Car accident\n\nPOST: I had an accident.\n\nTL;DR:"),
                ],
                chosen=[assistant(" how can i get an investigation ?")],
                rejected=[assistant(" car accident, what now")],
                annotator="ikNmucwunMnYJCQpnq6ZYb57OW7NiD",
            )
        ],
        [Pair(prompt=ARTICLE, chosen=[assistant("Sent off.")], rejected=[assistant("A match.")], annotator="w2")],
    ]


def test_the_overall_axis_is_the_score():
    assert rows_of("summarize_axis") == [
        [
            Response(
                prompt=ARTICLE,
                completion=[assistant("He may be banned.")],
                score=3.0,
                annotator="qo6WIyEh27cwAjWpA3Q60J7NaDxzQJ",
            )
        ]
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"choice": 2}, "unknown_judgement"),
        ({"choice": None}, "no_judgement"),
        ({"summaries": POST["summaries"][:1]}, "wrong_type"),
        ({"summaries": [*POST["summaries"], {"text": "c"}]}, "wrong_type"),
        ({"summaries": [{"text": "a"}, {}]}, "missing_column"),
        ({"info": {"post": "a", "title": "b"}}, "missing_column"),
        ({"info": {"article": 3}}, "wrong_type"),
        ({"info": None}, "missing_value"),
    ],
    ids=range(8),
)
def test_comparisons_that_are_refused(change, code):
    assert refusal("summarize", POST | change)[0] == code


@pytest.mark.parametrize(
    ("summary", "code"),
    [
        ({"text": "a", "axes": {"overall": None, "accuracy": 5}}, "no_judgement"),
        ({"text": "a", "axes": {"accuracy": 5}}, "missing_column"),
        ({"text": "a", "axes": None}, "missing_value"),
        ({"text": None, "axes": {"overall": 3}}, "missing_value"),
        ("a", "wrong_type"),
    ],
    ids=range(5),
)
def test_scored_summaries_that_are_refused(summary, code):
    assert refusal("summarize_axis", AXIS | {"summary": summary})[0] == code
