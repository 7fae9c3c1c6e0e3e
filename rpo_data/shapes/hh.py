r"""Anthropic HH-RLHF: `chosen` and `rejected` are whole dialogues, "\n\nHuman: ...\n\nAssistant: ...".

Rules: README of github.com/anthropics/hh-rlhf. Each dialogue is split at its *own* last assistant marker.
"""

import re
from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, text

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _claims(data: Mapping[str, Any]) -> bool:
    sides = (data["chosen"], data["rejected"])
    return data.get("prompt") is None and all(
        isinstance(side, str) and side.startswith("\n\nHuman:") and "\n\nAssistant:" in side for side in sides
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    (prompt, chosen), (other_prompt, rejected) = (
        split_dialogue(text(data, column), column) for column in ("chosen", "rejected")
    )
    return [Pair(prompt=prompt, chosen=[chosen], rejected=[rejected], prompts_equal=prompt == other_prompt)]


def split_dialogue(dialogue: str, column: str = "dialogue") -> tuple[list[Message], Message]:
    r"""Split an HH dialogue at its last assistant marker.

    >>> split_dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    ([{'role': 'user', 'content': 'Hi'}], {'role': 'assistant', 'content': 'Hello'})

    Raises:
        ShapeError: the text does not start with a human turn, or does not end with an assistant turn.
    """
    parts = _MARKER.split(dialogue)
    if parts[0].strip() or len(parts) < 3 or parts[1] != "Human":
        raise ShapeError("no_turn_marker", f"'{column}' does not start with '\\n\\nHuman:'")
    if parts[-2] != "Assistant":
        raise ShapeError("no_turn_marker", f"'{column}' does not end with an '\\n\\nAssistant:' turn")
    turns = [
        {"role": _ROLES[role], "content": content.strip()}
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return turns[:-1], turns[-1]


SHAPE = Shape(
    name="hh",
    title="Anthropic HH-RLHF",
    gives="pairs",
    source="https://github.com/anthropics/hh-rlhf",
    needs=(("chosen", "rejected"),),
    claims=_claims,
    read=_read,
)
