"""UltraFeedback binarized: the best completion of a prompt against another one, with the score of each.

Rules: dataset cards of HuggingFaceH4/ultrafeedback_binarized (`prompt` is a text; `chosen` and `rejected` are whole
conversations that begin with it; `score_chosen`, `score_rejected`), argilla/ultrafeedback-binarized-preferences-cleaned
(the same with `chosen-rating`, `rejected-rating`) and argilla/ultrafeedback-binarized-preferences (`instruction`,
`chosen_response`, `rejected_response`, `chosen_avg_rating`, `rejected_avg_rating`). The second of two answers was picked
at random, so both can have one score: the cards of argilla say that such rows hold no preference, so they are ties.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import (
    Message,
    Pair,
    Row,
    Shape,
    ShapeError,
    assistant,
    messages,
    number,
    required,
    text,
    user,
)
from rpo_data.shapes.preference import split_common_messages

_SCORES = (("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating"))


def _claims(data: Mapping[str, Any]) -> bool:
    if "chosen_response" in data and isinstance(data.get("instruction"), str):
        return True
    sides = data.get("chosen"), data.get("rejected")
    return isinstance(data.get("prompt"), str) and all(isinstance(side, list) for side in sides)


def _read(data: Mapping[str, Any]) -> list[Row]:
    if "chosen_response" in data:
        pair = Pair(
            prompt=[user(text(data, "instruction"))],
            chosen=[assistant(text(data, "chosen_response"))],
            rejected=[assistant(text(data, "rejected_response"))],
        )
        return [_with_scores(data, pair, "chosen_avg_rating", "rejected_avg_rating")]
    prompt = text(data, "prompt")
    sides = [_side(data, column, prompt) for column in ("chosen", "rejected")]
    columns = next((names for names in _SCORES if names[0] in data), _SCORES[0])
    return [_with_scores(data, split_common_messages(*sides), *columns)]


def _side(data: Mapping[str, Any], column: str, prompt: str) -> list[Message]:
    """A conversation that begins with the prompt, which is put before a bare answer."""
    side = messages(required(data, column), column)
    first = next((message for message in side if message["role"] == "user"), None)
    if first is None:
        return [user(prompt), *side]
    if first.get("content") != prompt:
        raise ShapeError("wrong_type", f"'{column}' starts with a user message that is not the prompt")
    return side


def _with_scores(data: Mapping[str, Any], pair: Pair, chosen: str, rejected: str) -> Pair:
    pair.score_chosen, pair.score_rejected = number(data, chosen), number(data, rejected)
    pair.tie = pair.score_chosen is not None and pair.score_chosen == pair.score_rejected
    return pair


SHAPE = Shape(
    name="ultrafeedback_binarized",
    title="UltraFeedback binarized",
    gives="pairs",
    source="https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized",
    needs=(("prompt", "chosen", "rejected"), ("instruction", "chosen_response", "rejected_response")),
    claims=_claims,
    read=_read,
)
