r"""Alpaca preference rows: `instruction` and `input` ask, `chosen` and `rejected` answer; `history`, `system` optional.

Rules: LLaMA-Factory, data/README.md, "Alpaca Format", section "Preference Dataset", and its converter: the question is
`instruction`, a line break and `input`, without the empty one; `history` holds pairs of question and answer that came
before. An `output` beside `chosen` is an answer for supervised training and is not kept.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, assistant, kind, text, user
from rpo_data.shapes.turns import optional_text, with_system


def _claims(data: Mapping[str, Any]) -> bool:
    texts = all(isinstance(data[column], str) for column in ("instruction", "chosen", "rejected"))
    return texts and data.get("prompt") is None


def _read(data: Mapping[str, Any]) -> list[Row]:
    chosen, rejected = (assistant(text(data, side)) for side in ("chosen", "rejected"))
    return [Pair(prompt=alpaca_prompt(data), chosen=[chosen], rejected=[rejected])]


def alpaca_prompt(data: Mapping[str, Any]) -> list[Message]:
    r"""The prompt of an Alpaca record: system, history, then instruction and input.

    >>> alpaca_prompt({"instruction": "Add.", "input": "1, 2", "history": [["Hi", "Hello"]]})[1:]
    [{'role': 'assistant', 'content': 'Hello'}, {'role': 'user', 'content': 'Add.\n1, 2'}]

    Raises:
        ShapeError: a column is missing or has the wrong type.
    """
    question = "\n".join(part for part in (text(data, "instruction"), optional_text(data, "input")) if part)
    return with_system([*_history(data.get("history")), user(question)], data)


def _history(value: Any) -> list[Message]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ShapeError("wrong_type", f"'history' is a {kind(value)}, where a list of pairs is needed")
    found = []
    for place, turn in enumerate(value, start=1):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            raise ShapeError("wrong_type", f"item {place} of 'history' is no pair of question and answer")
        found += [user(turn[0]), assistant(turn[1])]
    return found


SHAPE = Shape(
    name="alpaca",
    title="Alpaca preference",
    gives="pairs",
    source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#alpaca-format",
    needs=(("instruction", "chosen", "rejected"),),
    claims=_claims,
    read=_read,
)
