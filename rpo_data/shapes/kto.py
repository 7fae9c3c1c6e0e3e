"""LLaMA-Factory KTO rows: `kto_tag` says whether the answer is liked.

Rules: LLaMA-Factory, data/README.md, "KTO Dataset", and its converter. The answer is `output` of an Alpaca record
(`instruction`, `input`, `history`, `system`), or the last turn of `conversations` (or `messages`).
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.alpaca import alpaca_prompt
from rpo_data.shapes.base import Response, Row, Shape, assistant, required, text
from rpo_data.shapes.sharegpt import conversation_column
from rpo_data.shapes.turns import as_boolean, last_answer, turns, with_system, yes_or_no


def _claims(data: Mapping[str, Any]) -> bool:
    if as_boolean(data["kto_tag"]) is None or {"chosen", "rejected"} & set(data):
        return False
    alpaca = isinstance(data.get("instruction"), str) and isinstance(data.get("output"), str)
    return alpaca != isinstance(data.get(conversation_column(data)), list)


def _read(data: Mapping[str, Any]) -> list[Row]:
    label = yes_or_no(data, "kto_tag")
    column = conversation_column(data)
    if data.get(column) is None and "instruction" in data:
        return [Response(prompt=alpaca_prompt(data), completion=[assistant(text(data, "output"))], label=label)]
    prompt, completion = last_answer(turns(required(data, column), column), column)
    return [Response(prompt=with_system(prompt, data), completion=completion, label=label)]


SHAPE = Shape(
    name="kto",
    title="LLaMA-Factory KTO",
    gives="labelled",
    source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#kto-dataset",
    needs=(("instruction", "output", "kto_tag"), ("conversations", "kto_tag"), ("messages", "kto_tag")),
    claims=_claims,
    read=_read,
)
