"""LLMBar and the sets it processed: two outputs for one instruction, `label` says which is better, 1 or 2.

Rules: README of github.com/princeton-nlp/LLMBar, section "Data". There are no ties.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, assistant, text, user
from rpo_data.shapes.scales import level, ordered, value_key

_LEADS = {"1": 1, "2": -1}


def _claims(data: Mapping[str, Any]) -> bool:
    label = data["label"]
    return isinstance(data["input"], str) and (label is None or value_key(label) in _LEADS)


def _read(data: Mapping[str, Any]) -> list[Row]:
    lead = level(data, "label", _LEADS)
    chosen, rejected = ordered(lead, text(data, "output_1"), text(data, "output_2"))
    return [Pair(prompt=[user(text(data, "input"))], chosen=[assistant(chosen)], rejected=[assistant(rejected)])]


SHAPE = Shape(
    name="llmbar",
    title="LLMBar",
    gives="pairs",
    source="https://github.com/princeton-nlp/LLMBar#data",
    needs=(("input", "output_1", "output_2", "label"),),
    claims=_claims,
    read=_read,
)
