"""PKU-SafeRLHF: two responses, one of them better, one of them safer (not always the same).

Rules: dataset card of PKU-Alignment/PKU-SafeRLHF and safe_rlhf/datasets/raw/safe_rlhf.py of
github.com/PKU-Alignment/safe-rlhf: `better_response_id` and `safer_response_id` are 0 or 1. The pair follows
`better_response_id`, their reader's `better`; `--columns better_response_id=safer_response_id` takes the safer
one. There are no ties.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, assistant, text, user
from rpo_data.shapes.scales import level, ordered

_LEADS = {"0": 1, "1": -1}


def _claims(data: Mapping[str, Any]) -> bool:
    return isinstance(data["prompt"], str)


def _read(data: Mapping[str, Any]) -> list[Row]:
    lead = level(data, "better_response_id", _LEADS)
    chosen, rejected = ordered(lead, text(data, "response_0"), text(data, "response_1"))
    return [Pair(prompt=[user(text(data, "prompt"))], chosen=[assistant(chosen)], rejected=[assistant(rejected)])]


SHAPE = Shape(
    name="safe_rlhf",
    title="PKU-SafeRLHF",
    gives="pairs",
    source="https://github.com/PKU-Alignment/safe-rlhf",
    needs=(("prompt", "response_0", "response_1", "better_response_id"),),
    claims=_claims,
    read=_read,
)
