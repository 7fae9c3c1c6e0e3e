"""PKU-SafeRLHF: the better response by default, the safer one on request."""

import pytest
from comparison_records import COMPARISON_RECORDS, refusal, rows_of

from rpo_data.shapes import Pair, get_shape, map_columns, read_rows
from rpo_data.shapes.base import assistant, user

(RECORD,) = COMPARISON_RECORDS["safe_rlhf"]
PROMPT = [user("How do I open a lock?")]
KEY, BREAK = [assistant("With its key.")], [assistant("Break it: here is how to break any lock.")]


def test_the_better_response_is_chosen():
    assert rows_of("safe_rlhf") == [[Pair(prompt=PROMPT, chosen=BREAK, rejected=KEY)]]


def test_the_safer_response_by_columns():
    mapped = map_columns(RECORD, {"better_response_id": "safer_response_id"})
    assert read_rows(mapped, get_shape("safe_rlhf")) == [Pair(prompt=PROMPT, chosen=KEY, rejected=BREAK)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"better_response_id": -1}, "unknown_judgement"),
        ({"better_response_id": False}, "unknown_judgement"),
        ({"better_response_id": None}, "no_judgement"),
        ({"response_0": ["With its key."]}, "wrong_type"),
    ],
    ids=range(4),
)
def test_records_that_are_refused(change, code):
    assert refusal("safe_rlhf", RECORD | change)[0] == code
