r"""Recognise the shape of a preference record and turn it into a candidate pair.

hh          Anthropic HH-RLHF: `chosen` and `rejected` are whole dialogues, "\n\nHuman: ...\n\nAssistant: ..."
            (README of github.com/anthropics/hh-rlhf). Each is split at its *own* last assistant marker.
preference  TRL "preference" rows, standard (texts) or conversational (lists of messages), the prompt explicit
            (`prompt` column) or implicit (the common start of chosen and rejected); docs: TRL, "Dataset formats and types".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class ShapeError(ValueError):
    """A record does not fit its shape: `code` says why (see schemas/reasons.py)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair before it is checked. `prompts_equal` is False where chosen and rejected answer different prompts."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    prompts_equal: bool = True
    extras: dict[str, Any] = field(default_factory=dict)


def detect_shape(data: dict[str, Any]) -> str | None:
    """Name of the shape a record has; None where it has none, or only that of texts with a common start."""
    chosen, rejected = data.get("chosen"), data.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        dialogues = all(text.startswith("\n\nHuman:") and "\n\nAssistant:" in text for text in (chosen, rejected))
        if data.get("prompt") is None:
            return "hh" if dialogues else None
        return "preference"
    if isinstance(chosen, list) and isinstance(rejected, list):
        return "preference"
    return None


def to_candidate(data: dict[str, Any], shape: str) -> Candidate:
    """Turn a record of a known shape into a candidate pair.

    Raises:
        ShapeError: the record does not fit; code and sentence say why.
    """
    for column in ("chosen", "rejected"):
        if column not in data:
            raise ShapeError("missing_column", f"has no column '{column}' (it has: {', '.join(data) or 'none'})")
        if data[column] is None:
            raise ShapeError("missing_value", f"'{column}' is null")
        if isinstance(data[column], float):
            code = "not_a_number" if data[column] != data[column] else "wrong_type"
            raise ShapeError(code, f"'{column}' is the number {data[column]}, where a text is needed")
    candidate = _SHAPES[shape](data)
    candidate.extras.update(_extras(data))
    return candidate


def _hh(data: dict[str, Any]) -> Candidate:
    sides = []
    for column in ("chosen", "rejected"):
        if not isinstance(data[column], str):
            raise ShapeError(
                "wrong_type", f"'{column}' must be a dialogue text in the hh shape, not a {_kind(data[column])}"
            )
        sides.append(split_dialogue(data[column], column))
    (prompt, chosen), (other_prompt, rejected) = sides
    return Candidate(prompt, [chosen], [rejected], prompts_equal=prompt == other_prompt)


def split_dialogue(text: str, column: str = "dialogue") -> tuple[list[Message], Message]:
    r"""Split an HH dialogue at its last assistant marker.

    >>> split_dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    ([{'role': 'user', 'content': 'Hi'}], {'role': 'assistant', 'content': 'Hello'})

    Raises:
        ShapeError: the text does not start with a human turn, or does not end with an assistant turn.
    """
    parts = _MARKER.split(text)
    if parts[0].strip() or len(parts) < 3 or parts[1] != "Human":
        raise ShapeError("no_turn_marker", f"'{column}' does not start with '\\n\\nHuman:'")
    if parts[-2] != "Assistant":
        raise ShapeError("no_turn_marker", f"'{column}' does not end with an '\\n\\nAssistant:' turn")
    turns = [
        {"role": _ROLES[role], "content": content.strip()}
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return turns[:-1], turns[-1]


def _preference(data: dict[str, Any]) -> Candidate:
    chosen, rejected, prompt = data["chosen"], data["rejected"], data.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None and "prompt" in data:
            raise ShapeError("missing_value", "'prompt' is null")
        if prompt is None:
            prompt, chosen, rejected = _split_common_text(chosen, rejected)
        if not isinstance(prompt, str):
            raise ShapeError("wrong_type", f"'prompt' is a {_kind(prompt)}, where chosen and rejected are texts")
        return Candidate([_user(prompt)], [_assistant(chosen)], [_assistant(rejected)])
    chosen, rejected = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    if isinstance(prompt, list):
        return _behind_prompt(_messages(prompt, "prompt"), chosen, rejected)
    if prompt is not None:
        raise ShapeError(
            "wrong_type", f"'prompt' is a {_kind(prompt)}, where chosen and rejected are lists of messages"
        )
    return _split_common_messages(chosen, rejected)


def _split_common_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The common start of two texts is the prompt, cut back to the last blank so that no word is torn.

    >>> _split_common_text("Q: hi A: yellow", "Q: hi A: yes")
    ('Q: hi A:', 'yellow', 'yes')
    """
    shorter = min(len(chosen), len(rejected))
    same = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    while same and not chosen[same - 1].isspace():
        same -= 1
    return chosen[:same].strip(), chosen[same:], rejected[same:]


def _behind_prompt(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Candidate:
    """A pair with an explicit prompt; sides that repeat the whole conversation lose the prompt's turns."""
    if chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    for column, side in (("chosen", chosen), ("rejected", rejected)):
        if side and side[0]["role"] in ("user", "system"):
            raise ShapeError(
                "wrong_type", f"'{column}' starts with a {side[0]['role']} message that is not the prompt's"
            )
    return Candidate(prompt, chosen, rejected)


def _split_common_messages(chosen: list[Message], rejected: list[Message]) -> Candidate:
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    # a user turn behind the common start means that the two dialogues part before the last answer
    differ = any(message["role"] == "user" for message in chosen[same:] + rejected[same:])
    return Candidate(chosen[:same], chosen[same:], rejected[same:], prompts_equal=not differ)


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list):
        raise ShapeError("wrong_type", f"'{column}' is a {_kind(value)}, where a list of messages is needed")
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ShapeError("wrong_type", f"message {number} of '{column}' is no object with a 'role'")
        for key in ("name", "tool_call_id"):
            if not isinstance(message.get(key), (str, type(None))):
                raise ShapeError("wrong_type", f"message {number} of '{column}' has a {_kind(message[key])} as '{key}'")
        content = message.get("content")
        if not isinstance(content, str) and (content is not None or not message.get("tool_calls")):
            raise ShapeError(
                "wrong_type", f"message {number} of '{column}' has a {_kind(message.get('content'))} as content"
            )
        messages.append({key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None})
    return messages


def _extras(data: dict[str, Any]) -> dict[str, Any]:
    """Scores, annotator and language, where the record carries them under their usual names."""
    extras: dict[str, Any] = {}
    for column in ("score_chosen", "score_rejected"):
        value = data.get(column)
        if isinstance(value, str) and not value.strip():
            value = None
        if value is not None:
            try:
                extras[column] = float(value)
            except (TypeError, ValueError, OverflowError):
                raise ShapeError("wrong_type", f"'{column}' is {str(value)[:40]}, not a number") from None
    for column in ("annotator", "language"):
        if str(data.get(column) or "").strip():  # an empty cell is how CSV writes null
            extras[column] = str(data[column])
    return extras


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _kind(value: Any) -> str:
    names = {str: "text", list: "list", dict: "object", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


_SHAPES: dict[str, Callable[[dict[str, Any]], Candidate]] = {"hh": _hh, "preference": _preference}
