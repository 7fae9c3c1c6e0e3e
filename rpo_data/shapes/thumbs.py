"""Thumbs up or down in application logs: `messages` that end with the answer, and a verdict on it.

The verdict stands in `label`, `liked`, `rating` or `feedback`; where it is nested, map it: `--columns
feedback=feedback.rating`. Known verdicts, and who documents them:
true/false (ms-swift "Custom Dataset", "KTO"; LLaMA-Factory's kto_en_demo; Gradio `LikeData.liked`; Helicone `rating`),
thumbs_up/thumbs_down (Dialogflow CX `AnswerFeedback.Rating`; ChatGPT's data export), like/dislike (Dify "Submit Message
Feedback"), positive/negative (assistant-ui "Feedback and scores"), good/bad (Sendbird `FeedbackRating`),
1/-1 (Open WebUI), in `feedback` only: a bare number in `rating` or `label` may as well count stars or classes, and 0 means
bad to one publisher and no vote to another.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Response, Row, Shape, ShapeError, required
from rpo_data.shapes.scales import value_key
from rpo_data.shapes.turns import ROLES, as_boolean, last_answer, shown, turns, with_system

_COLUMNS = ("label", "liked", "rating", "feedback")
_VERDICTS = {
    "thumbs_up": True, "like": True, "positive": True, "good": True,
    "thumbs_down": False, "dislike": False, "negative": False, "bad": False,
}  # fmt: skip
_NUMBERS = {"1": True, "-1": False}
_NOT_GIVEN = ("", "none", "rating_unspecified")
_OTHERS = {"chosen", "rejected", "rejected_response", "kto_tag"}


def _claims(data: Mapping[str, Any]) -> bool:
    conversation = data["messages"]
    if not isinstance(conversation, list) or not conversation or _OTHERS & set(data):
        return False
    last = conversation[-1]
    speaker = (last.get("from") or last.get("role")) if isinstance(last, dict) else None
    is_answer = isinstance(speaker, str) and ROLES.get(speaker) == "assistant"
    return is_answer and any(verdict is not None for verdict in _verdicts(data).values())


def _read(data: Mapping[str, Any]) -> list[Row]:
    prompt, completion = last_answer(turns(required(data, "messages"), "messages"), "messages")
    return [Response(prompt=with_system(prompt, data), completion=completion, label=_verdict(data))]


def _verdict(data: Mapping[str, Any]) -> bool:
    given = _verdicts(data)
    if not given:
        if not any(column in data for column in _COLUMNS):
            required(data, _COLUMNS[0])
        raise ShapeError("no_judgement", "holds no judgement: nobody has voted")
    known = {column: verdict for column, verdict in given.items() if verdict is not None}
    if not known:
        column = next(iter(given))
        hint = " (map it with --columns feedback=... if it is 1 or -1 for a thumb)" if value_key(data[column]) else ""
        raise ShapeError(
            "unknown_judgement", f"'{column}' is {shown(data[column])}, which is no thumb up or down{hint}"
        )
    if len(set(known.values())) > 1:
        raise ShapeError("unknown_judgement", f"{' and '.join(known)} say the opposite of each other")
    return next(iter(known.values()))


def _verdicts(data: Mapping[str, Any]) -> dict[str, bool | None]:
    """What each column that is filled says; None where that is not known."""
    filled = {column: data[column] for column in _COLUMNS if column in data and not _is_empty(data[column])}
    return {column: _meaning(column, value) for column, value in filled.items()}


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _NOT_GIVEN
    return value is None or (isinstance(value, float) and value != value)


def _meaning(column: str, value: Any) -> bool | None:
    verdict = as_boolean(value)
    if verdict is None and isinstance(value, str):
        verdict = _VERDICTS.get(value.strip().lower())
    if verdict is None and column == "feedback":
        verdict = _NUMBERS.get(value_key(value))
    return verdict


SHAPE = Shape(
    name="thumbs",
    title="Thumbs up and down",
    gives="labelled",
    source="https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html",
    needs=tuple(("messages", column) for column in _COLUMNS),
    claims=_claims,
    read=_read,
)
