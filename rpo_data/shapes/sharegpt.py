"""ShareGPT preference rows: `conversations` up to the last question, `chosen` and `rejected` as one turn each.

Rules: LLaMA-Factory, data/README.md, "Sharegpt Format", section "Preference Dataset", and its converter: a system turn in
front of the conversation wins over the `system` column; a `function_call` turn is JSON. Axolotl, docs/rlhf.qmd,
"chat_template.default": the conversation is called `messages`, turns are role/content; its code takes a side that is a
text as the assistant's answer, and a list for whole messages. `tools`, `images`, `videos` and `audios` are not kept; tags
other than the defaults (from/value or role/content, human or user, gpt or assistant, ...) are read only where a
`dataset_info.json` declares them (`rpo_data.declared`).
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, required
from rpo_data.shapes.turns import answer, behind, turns, with_system

_SIDES = ("chosen", "rejected")


def _claims(data: Mapping[str, Any]) -> bool:
    sides = [data[side] for side in _SIDES]
    if data.get("conversations") is not None:
        return isinstance(data["conversations"], list) and all(isinstance(side, (dict, str, list)) for side in sides)
    # lists beside `messages` are TRL preference rows, a prompt beside it makes it UltraFeedback binarized
    return (
        isinstance(data.get("messages"), list)
        and data.get("prompt") is None
        and all(isinstance(side, (dict, str)) for side in sides)
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    column = conversation_column(data)
    prompt = turns(required(data, column), column)
    chosen, rejected = (behind(prompt, answer(required(data, side), side), side) for side in _SIDES)
    return [Pair(prompt=with_system(prompt, data), chosen=chosen, rejected=rejected)]


def conversation_column(data: Mapping[str, Any]) -> str:
    """Name of the column that holds the conversation: `messages` where there are no `conversations`."""
    return "messages" if data.get("conversations") is None and data.get("messages") is not None else "conversations"


SHAPE = Shape(
    name="sharegpt",
    title="ShareGPT preference",
    gives="pairs",
    source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#sharegpt-format",
    needs=(("conversations", *_SIDES), ("messages", *_SIDES)),
    claims=_claims,
    read=_read,
)
