"""OpenAssistant message trees: replies to a prompt, ranked by people, at every depth of a dialogue.

Rules: oasst-data/README.md ("Message Trees") and oasst_data/schemas.py of github.com/LAION-AI/Open-Assistant, dataset card
of OpenAssistant/oasst1: the best of several replies has `rank` 0. Every set of at least two ranked assistant replies gives
ranked responses to the path that leads there. As in the publisher's own loader
(model/model_training/custom_datasets/oasst_dataset.py) only trees "ready_for_export" count, and what is deleted is left
out with all that follows it. So is what failed its review: the README calls a message with `review_result` false spam.
`lang` is the one of the message answered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rpo_data.shapes.base import Message, Response, Row, Shape, ShapeError, assistant, kind, text, user
from rpo_data.shapes.scales import member, members, rank, value_key


def _claims(data: Mapping[str, Any]) -> bool:
    prompt = data["prompt"]
    return isinstance(prompt, Mapping) and "replies" in prompt and "role" in prompt


def _read(data: Mapping[str, Any]) -> list[Row]:
    state = data.get("tree_state")
    if state is not None and state != "ready_for_export":
        raise ShapeError("no_judgement", "holds no judgement: its 'tree_state' is not ready_for_export")
    rows = [row for path, node in _prompts(member(data, "prompt")) for row in _ranked(path, node)]
    if not rows:
        raise ShapeError("no_judgement", "holds no judgement: no two replies to one message are ranked")
    return rows


def _prompts(root: Mapping[str, Any]) -> Iterator[tuple[list[Message], Mapping[str, Any]]]:
    """Every prompter message with the dialogue up to it, in the order of the file."""
    waiting: list[tuple[list[Message], Mapping[str, Any]]] = [([], root)] if _counts(root) else []
    while waiting:  # no recursion: a damaged file can nest deeper than Python calls
        before, node = waiting.pop()
        path = [*before, _message(node)]
        if node["role"] == "prompter":
            yield path, node
        waiting += [(path, reply) for reply in reversed(_replies(node)) if _counts(reply)]


def _ranked(prompt: list[Message], node: Mapping[str, Any]) -> list[Row]:
    replies = [reply for reply in _replies(node) if _counts(reply) and reply.get("role") == "assistant"]
    places = [(reply, rank(reply, "rank", best=0)) for reply in replies]
    if sum(place is not None for _, place in places) < 2:
        return []
    language = value_key(node.get("lang")) or None
    return [
        Response(prompt=prompt, completion=[assistant(text(reply, "text"))], rank=place, language=language)
        for reply, place in places
    ]


def _message(node: Mapping[str, Any]) -> Message:
    role = text(node, "role")
    if role not in ("prompter", "assistant"):
        raise ShapeError("wrong_type", f"'role' is '{role[:40]}', where prompter or assistant is needed")
    return user(text(node, "text")) if role == "prompter" else assistant(text(node, "text"))


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return members(node, "replies") if node.get("replies") is not None else []


def _counts(node: Mapping[str, Any]) -> bool:
    """Neither deleted nor failed in review."""
    deleted, reviewed = node.get("deleted"), node.get("review_result")
    for column, value in (("deleted", deleted), ("review_result", reviewed)):
        if not isinstance(value, (bool, type(None))):
            raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where true or false is needed")
    return not deleted and reviewed is not False


SHAPE = Shape(
    name="open_assistant",
    title="OpenAssistant trees",
    gives="scored",
    source="https://github.com/LAION-AI/Open-Assistant/tree/main/oasst-data",
    needs=(("message_tree_id", "prompt"),),
    claims=_claims,
    read=_read,
)
