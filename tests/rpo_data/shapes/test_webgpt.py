"""WebGPT comparisons: the sign of the score decides."""

import pytest
from comparison_records import COMPARISON_RECORDS, refusal, rows_of

from rpo_data.shapes import Pair
from rpo_data.shapes.base import assistant, user

RECORD = COMPARISON_RECORDS["webgpt"][0]


def test_the_answer_with_the_positive_score_is_chosen_and_two_zeros_are_a_tie():
    third = 0.3333333333
    assert rows_of("webgpt") == [
        [
            Pair(
                prompt=[user("Why is the sky blue?")],
                chosen=[assistant("Air scatters blue light most [1].")],
                rejected=[assistant("Because of Rayleigh scattering [1].")],
                score_chosen=third,
                score_rejected=-third,
                strength=third,
            )
        ],
        [
            Pair(
                prompt=[user("Who wrote Emma?")],
                chosen=[assistant("Jane Austen.")],
                rejected=[assistant("Austen, in 1815.")],
                tie=True,
                score_chosen=0.0,
                score_rejected=0.0,
                strength=0.0,
            )
        ],
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"score_0": 0.5}, "unknown_judgement"),
        ({"score_0": None}, "no_judgement"),
        ({"score_1": float("inf")}, "not_a_number"),
        ({"score_1": "better"}, "wrong_type"),
        ({"question": "Why is the sky blue?"}, "wrong_type"),
        ({"question": {"id": "1"}}, "missing_column"),
        ({"answer_1": None}, "missing_value"),
    ],
    ids=range(7),
)
def test_records_that_are_refused(change, code):
    assert refusal("webgpt", RECORD | change)[0] == code
