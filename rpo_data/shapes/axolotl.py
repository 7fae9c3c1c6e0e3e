"""Axolotl DPO rows that keep the prompt in columns of their own: question or input, or a prompt with its `system` text.

Rules: Axolotl, docs/rlhf.qmd, "DPO": chatml.intel (`question`), chatml.icr (`input`), chatml.prompt_pairs (`prompt`),
chatml.ultra (`prompt`, sides that are whole conversations), chatml.argilla (`instruction`, `chosen_response`,
`rejected_response`); all with an optional `system`. Without a system text the last three are read as TRL preference and
UltraFeedback binarized. In argilla/distilabel-intel-orca-dpo-pairs, which chatml.icr names, `status` says "tie" where both
answers are rated the same (dataset card). Other types of Axolotl are other shapes: chat_template.default is sharegpt,
argilla_chat is preference, zephyr.nectar is nectar, user_defined is what --columns does.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, assistant, kind, messages, required, text, user
from rpo_data.shapes.preference import split_common_messages
from rpo_data.shapes.turns import with_system

_PROMPTS = ("prompt", "instruction", "question", "input")
_OTHERS = ("conversations", "conversation", "messages")
_SIDES, _RESPONSES = ("chosen", "rejected"), ("chosen_response", "rejected_response")


def _claims(data: Mapping[str, Any]) -> bool:
    asked = [column for column in _PROMPTS if data.get(column) is not None]
    if len(asked) != 1 or any(data.get(column) is not None for column in _OTHERS):
        return False
    column = asked[0]
    sides = [data.get(side) for side in _sides(data, column)]
    texts = all(isinstance(side, str) for side in sides)
    if column in ("question", "input"):
        return isinstance(data[column], str) and texts
    both = texts or (column == "prompt" and all(isinstance(side, list) for side in sides))
    return isinstance(data[column], str) and isinstance(data.get("system"), str) and both


def _sides(data: Mapping[str, Any], column: str) -> tuple[str, str]:
    return _RESPONSES if column == "instruction" and "chosen" not in data else _SIDES


def _read(data: Mapping[str, Any]) -> list[Row]:
    column = _prompt_column(data)
    prompt = text(data, column)
    names = _sides(data, column)
    sides = [required(data, name) for name in names]
    if all(isinstance(side, str) for side in sides):
        chosen, rejected = ([assistant(side)] for side in sides)
        pair = Pair(prompt=[user(prompt)], chosen=chosen, rejected=rejected)
    else:
        conversations = (_conversation(side, name, prompt) for side, name in zip(sides, names, strict=True))
        pair = split_common_messages(*conversations)
    pair.prompt = with_system(pair.prompt, data)
    pair.tie = data.get("status") == "tie"
    return [pair]


def _prompt_column(data: Mapping[str, Any]) -> str:
    asked = [column for column in _PROMPTS if data.get(column) is not None]
    if len(asked) > 1:
        raise ShapeError(
            "wrong_type", f"has both '{asked[0]}' and '{asked[1]}', where one of them should be the prompt"
        )
    if not asked:
        required(data, next((column for column in _PROMPTS if column in data), "question"))
    return asked[0]


def _conversation(side: Any, name: str, prompt: str) -> list[Message]:
    """A side as a whole conversation; the prompt goes before a bare answer."""
    if not isinstance(side, list):
        raise ShapeError("wrong_type", f"'{name}' is a {kind(side)}, where both sides should be texts or both lists")
    found = messages(side, name)
    if not found:
        raise ShapeError("wrong_type", f"'{name}' is an empty list, where the answer should stand")
    first = next((message for message in found if message["role"] == "user"), None)
    if first is None:
        return [user(prompt), *found]
    if first.get("content") != prompt:
        raise ShapeError("wrong_type", f"'{name}' starts with a user message that is not the prompt")
    return found


SHAPE = Shape(
    name="axolotl",
    title="Axolotl DPO",
    gives="pairs",
    source="https://docs.axolotl.ai/docs/rlhf.html#dpo",
    needs=(
        ("question", *_SIDES),
        ("input", *_SIDES),
        ("prompt", "system", *_SIDES),
        ("instruction", "system", *_RESPONSES),
    ),
    claims=_claims,
    read=_read,
)
