"""Open WebUI feedback export: `data.rating` is 1 or -1, `snapshot` holds the chat, `meta.message_id` names the answer.

Rules: Open WebUI, backend/open_webui/models/feedbacks.py (`FeedbackModel`, which GET /evaluations/feedbacks/all/export
gives), routers/evaluations.py (1 won, -1 lost, also as text) and the chat page, which walks from a message to its parents
through `history.messages`. The chat's own system prompt is `params.system`. `user_id` is the annotator. Ratings of a whole
conversation name no message and are refused; details (1 to 10), reasons, comments and tags are not kept.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Response, Row, Shape, ShapeError, text
from rpo_data.shapes.scales import level, member, value_key
from rpo_data.shapes.turns import last_answer, turns, with_system

_RATINGS = {"1": True, "-1": False}


def _claims(data: Mapping[str, Any]) -> bool:
    rated, snapshot = data["data"], data["snapshot"]
    if not isinstance(rated, Mapping) or not isinstance(snapshot, Mapping) or not isinstance(data["meta"], Mapping):
        return False
    rating = rated.get("rating")
    return "chat" in snapshot and (rating is None or value_key(rating) in _RATINGS)


def _read(data: Mapping[str, Any]) -> list[Row]:
    label = level(member(data, "data"), "rating", _RATINGS)
    chat = member(member(member(data, "snapshot"), "chat"), "chat")
    branch = _branch(member(member(chat, "history"), "messages"), text(member(data, "meta"), "message_id"))
    prompt, completion = last_answer(branch, "history.messages")
    if isinstance(chat.get("params"), Mapping):
        prompt = with_system(prompt, chat["params"])
    annotator = data.get("user_id")
    return [
        Response(
            prompt=prompt,
            completion=completion,
            label=label,
            annotator=annotator if isinstance(annotator, str) and annotator.strip() else None,
        )
    ]


def _branch(found: Mapping[str, Any], last: str) -> list[Message]:
    """The messages from the first one to this one."""
    branch: list[Any] = []
    place: Any = last
    while place is not None:
        message = found.get(place) if isinstance(place, str) else None
        if not isinstance(message, dict) or len(branch) > len(found):
            raise ShapeError("wrong_type", "'history.messages' does not lead from the rated message to the first one")
        branch.append(message)
        place = message.get("parentId")
    return turns(branch[::-1], "history.messages")


SHAPE = Shape(
    name="open_webui",
    title="Open WebUI feedback",
    gives="labelled",
    source="https://github.com/open-webui/open-webui/blob/main/backend/open_webui/models/feedbacks.py",
    needs=(("data", "meta", "snapshot"),),
    claims=_claims,
    read=_read,
)
