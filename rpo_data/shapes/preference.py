"""TRL "preference" rows: texts or lists of messages, the prompt explicit, or implicit as the common start of both sides.

Rules: TRL documentation, "Dataset formats and types", section "Preference".
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, assistant, kind, messages, required, user

_OTHERS = ("instruction", "conversations", "conversation", "input")
"""Columns that hold the prompt in other shapes: there chosen and rejected are answers without it."""


def _claims(data: Mapping[str, Any]) -> bool:
    prompt, sides = data.get("prompt"), (data["chosen"], data["rejected"])
    if any(data.get(column) is not None for column in _OTHERS) and prompt is None:
        return False
    if isinstance(prompt, str) and isinstance(data.get("system"), str):
        return False  # Axolotl's: TRL has no such column, and its text would be lost
    if all(isinstance(side, str) for side in sides):
        return isinstance(prompt, str)  # two texts with a common start are too little to claim a record by
    return all(isinstance(side, list) for side in sides) and isinstance(prompt, (list, type(None)))


def _read(data: Mapping[str, Any]) -> list[Row]:
    chosen, rejected, prompt = required(data, "chosen"), required(data, "rejected"), data.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None and "prompt" in data:
            raise ShapeError("missing_value", "'prompt' is null")
        if prompt is None:
            prompt, chosen, rejected = _split_common_text(chosen, rejected)
            _check_implicit(prompt, data)
        if not isinstance(prompt, str):
            raise ShapeError("wrong_type", f"'prompt' is a {kind(prompt)}, where chosen and rejected are texts")
        return [Pair(prompt=[user(prompt)], chosen=[assistant(chosen)], rejected=[assistant(rejected)])]
    sides = messages(chosen, "chosen"), messages(rejected, "rejected")
    if isinstance(prompt, list):
        return [behind_prompt(messages(prompt, "prompt"), *sides)]
    if prompt is not None:
        raise ShapeError("wrong_type", f"'prompt' is a {kind(prompt)}, where chosen and rejected are lists of messages")
    return [split_common_messages(*sides)]


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


def _check_implicit(prompt: str, data: Mapping[str, Any]) -> None:
    """A common start is no prompt where it is empty, or where another column holds words that may be the question.

    Raises:
        ShapeError: it is none.
    """
    others = [column for column, value in data.items() if column not in ("chosen", "rejected") and _has_words(value)]
    if others:
        named = ", ".join(f"'{column}'" for column in others[:3])
        raise ShapeError("missing_column", f"has no column 'prompt', and {named} could be it")
    if not prompt:
        raise ShapeError("missing_column", "has no column 'prompt', and chosen and rejected have no common start")


def _has_words(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) > 1


def behind_prompt(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Pair:
    """A pair with an explicit prompt; sides that repeat the whole conversation lose the prompt's turns.

    Raises:
        ShapeError: a side starts with a user or system message that is not the prompt's.
    """
    if chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    for column, side in (("chosen", chosen), ("rejected", rejected)):
        if side and side[0]["role"] in ("user", "system"):
            raise ShapeError(
                "wrong_type", f"'{column}' starts with a {side[0]['role']} message that is not the prompt's"
            )
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected)


def split_common_messages(chosen: list[Message], rejected: list[Message]) -> Pair:
    """A pair whose prompt is the common start of two conversations."""
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    # a user turn behind the common start means that the two dialogues part before the last answer
    differ = any(message["role"] == "user" for message in chosen[same:] + rejected[same:])
    return Pair(prompt=chosen[:same], chosen=chosen[same:], rejected=rejected[same:], prompts_equal=not differ)


SHAPE = Shape(
    name="preference",
    title="TRL preference",
    gives="pairs",
    source="https://huggingface.co/docs/trl/dataset_formats#preference",
    needs=(("chosen", "rejected"),),
    claims=_claims,
    read=_read,
)
