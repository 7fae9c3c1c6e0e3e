"""OpenAI preference fine-tuning: `input.messages`, `preferred_output` and `non_preferred_output` (lists of messages).

Rules: OpenAI guide "Direct preference optimization", section "Data format"; the outputs are assistant messages, and tool
messages between them (Azure OpenAI, "Prepare preference data"). Together and Fireworks read the same files. A content
of one text part is that text; images are refused. `input.tools` and `input.parallel_tool_calls` are not kept.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, kind, required
from rpo_data.shapes.turns import behind, turns

_SIDES = ("preferred_output", "non_preferred_output")


def _claims(data: Mapping[str, Any]) -> bool:
    asked = data["input"]
    return (
        isinstance(asked, dict)
        and isinstance(asked.get("messages"), list)
        and all(isinstance(data[side], list) for side in _SIDES)
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    asked = required(data, "input")
    if not isinstance(asked, dict):
        raise ShapeError("wrong_type", f"'input' is a {kind(asked)}, where an object with 'messages' is needed")
    prompt = _messages(required(asked, "messages"), "input.messages")
    chosen, rejected = (behind(prompt, _messages(required(data, side), side), side) for side in _SIDES)
    return [Pair(prompt=prompt, chosen=chosen, rejected=rejected)]


def _messages(value: Any, column: str) -> list[Message]:
    return turns([_plain(message) for message in value] if isinstance(value, list) else value, column)


def _plain(message: Any) -> Any:
    """A message whose content is one text part, with that text as content."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return {**message, "content": part["text"]}
    return message


SHAPE = Shape(
    name="openai",
    title="OpenAI preference fine-tuning",
    gives="pairs",
    source="https://platform.openai.com/docs/guides/direct-preference-optimization",
    needs=(("input", *_SIDES),),
    claims=_claims,
    read=_read,
)
