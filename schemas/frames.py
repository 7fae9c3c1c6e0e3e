"""Pandera checks of candidate rows, applied in batches; the error of a check is the code a failing row is left out under.

A frame holds measures (lengths, flags), never texts: a failed frame-level check would copy the text into its report.
"""

import pandera.polars as pa

MAX_CHARACTERS = 1_000_000
"""Longest prompt or response, in characters (some 250,000 tokens of English)."""


def _at_least_one(code: str) -> pa.Check:
    return pa.Check.ge(1, error=code)


def _is_true(code: str) -> pa.Check:
    return pa.Check.eq(True, error=code)


def _at_most_the_limit(code: str) -> pa.Check:
    return pa.Check.le(MAX_CHARACTERS, error=code)


CANDIDATES = pa.DataFrameSchema(
    {
        "prompts_equal": pa.Column(bool, _is_true("prompts_differ")),
        "judged": pa.Column(bool, _is_true("no_judgement")),
        "prompt_characters": pa.Column(int, [_at_least_one("empty_prompt"), _at_most_the_limit("too_long")]),
        "shorter_response": pa.Column(int, _at_least_one("empty_response")),  # outer blanks not counted
        "longer_response": pa.Column(int, _at_most_the_limit("too_long")),
        "responses_differ": pa.Column(bool, _is_true("identical_responses")),
        "numbers_finite": pa.Column(bool, _is_true("not_a_number")),
        "weight_positive": pa.Column(bool, _is_true("bad_weight")),
        "roles_in_order": pa.Column(bool, _is_true("roles_out_of_order")),
        "prompt_asks": pa.Column(bool, _is_true("prompt_ends_with_assistant")),
        "answers_last": pa.Column(bool, _is_true("no_assistant_turn")),
        "printable": pa.Column(bool, _is_true("control_characters")),
    }
)
"""Checks in order of importance: a row that fails several is left out under the first."""
