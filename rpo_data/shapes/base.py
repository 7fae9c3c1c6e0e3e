"""What a reader of a shape gives and takes: rows out of one record, messages, and the error that says why not.

A shape is one module: a `SHAPE` that says which records it claims and how one of them becomes rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, Any]
"""`role` and `content` (null only beside `tool_calls`), perhaps `name`, `tool_calls`, `tool_call_id`."""

_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")


class ShapeError(ValueError):
    """A record does not fit its shape: `code` says why (see schemas/rules.py)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True, kw_only=True)
class Pair:
    """Two responses to one prompt, compared. In a `tie` neither is better: `chosen` is only the first of the two.

    `prompts_equal` is False where chosen and rejected answer different prompts. `strength` says how much better chosen is,
    `score_*` what each is worth, both in the log's own units.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tie: bool = False
    prompts_equal: bool = True
    score_chosen: float | None = None
    score_rejected: float | None = None
    strength: float | None = None
    annotator: str | None = None
    language: str | None = None
    weight: float | None = None


@dataclass(slots=True, kw_only=True)
class Response:
    """One response, judged by itself: liked or not (`label`), scored (higher is better) or ranked (1 is best)."""

    prompt: list[Message]
    completion: list[Message]
    label: bool | None = None
    score: float | None = None
    rank: int | None = None
    annotator: str | None = None
    language: str | None = None
    weight: float | None = None


Row = Pair | Response


def is_judged(response: Response) -> bool:
    """Whether a response is labelled, scored or ranked; one that is not is rejected by a check."""
    return not (response.label is None and response.score is None and response.rank is None)


@dataclass(frozen=True)
class Shape:
    """A shape of preference records, as its publisher documents it.

    Attributes:
        name: what `--format` calls it.
        title: what people call it.
        gives: pairs, labelled responses or scored responses.
        source: where the publisher documents it.
        needs: sets of columns; a record that has all columns of one set may be of this shape.
        claims: True where a record that has the columns is of this shape; never raises.
        read: the rows of one record.

    `read` raises ShapeError where the record does not fit.
    """

    name: str
    title: str
    gives: Literal["pairs", "labelled", "scored"]
    source: str
    needs: tuple[tuple[str, ...], ...]
    claims: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], list[Row]]


def user(text: str) -> Message:
    """A user message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant message."""
    return {"role": "assistant", "content": text}


def required(data: Mapping[str, Any], column: str) -> Any:
    """The value of a column.

    Raises:
        ShapeError: the column is not there, null, or NaN (how tables write null).
    """
    if column not in data:
        close = [name for name in data if isinstance(name, str) and name.strip().lower() == column.lower()]
        hint = f"; is it '{close[0]}'?" if close else ""
        raise ShapeError(
            "missing_column", f"has no column '{column}' (it has: {', '.join(map(str, data)) or 'none'}{hint})"
        )
    value = data[column]
    if value is None:
        raise ShapeError("missing_value", f"'{column}' is null")
    if isinstance(value, float) and value != value:
        raise ShapeError("not_a_number", f"'{column}' is the number {value}")
    return value


def text(data: Mapping[str, Any], column: str) -> str:
    """The text of a column.

    Raises:
        ShapeError: it is not there, null or no text.
    """
    value = required(data, column)
    if not isinstance(value, str):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where a text is needed")
    return value


def number(data: Mapping[str, Any], column: str) -> float | None:
    """The number of a column; None where it is not there, null or blank. NaN and infinity stay, to be rejected by a check.

    Raises:
        ShapeError: it is no number.
    """
    value = data.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        raise ShapeError("wrong_type", f"'{column}' is a boolean, not a number")
    try:
        return float(value)
    except (TypeError, ValueError):
        # only a text is shown: what nests deeply cannot be written
        shown = value[:40] if isinstance(value, str) else f"a {kind(value)}"
        raise ShapeError("wrong_type", f"'{column}' is {shown}, not a number") from None
    except OverflowError:
        raise ShapeError("wrong_type", f"'{column}' is too large a number") from None


def messages(value: Any, column: str) -> list[Message]:
    """A list of messages, with the keys that are kept.

    Raises:
        ShapeError: it is no list of objects with a role and a content.
    """
    if not isinstance(value, list):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where a list of messages is needed")
    found = []
    for place, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ShapeError("wrong_type", f"message {place} of '{column}' is no object with a 'role'")
        for key in ("name", "tool_call_id"):
            if not isinstance(message.get(key), (str, type(None))):
                raise ShapeError("wrong_type", f"message {place} of '{column}' has a {kind(message[key])} as '{key}'")
        content = message.get("content")
        if not isinstance(content, str) and (content is not None or not message.get("tool_calls")):
            raise ShapeError("wrong_type", f"message {place} of '{column}' has a {kind(content)} as content")
        found.append({key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None})
    return found


def kind(value: Any) -> str:
    """What a JSON value is, in one word."""
    names = {str: "text", list: "list", dict: "object", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
