"""ms-swift preference rows: `messages` end with the chosen answer, `rejected_response` is the text of the other one.

Rules: ms-swift documentation, "Custom Dataset", section "RLHF", "DPO/ORPO/CPO/SimPO/RM". (Its KTO rows, `messages` and
`label`, are thumbs rows.) `tools`, `images`, `videos`, `audios` and `objects` are not kept.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, assistant, required, text
from rpo_data.shapes.turns import last_answer, turns, with_system


def _claims(data: Mapping[str, Any]) -> bool:
    return (
        isinstance(data["messages"], list)
        and isinstance(data["rejected_response"], str)
        and not {"chosen", "rejected", "chosen_response"} & set(data)
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    prompt, chosen = last_answer(turns(required(data, "messages"), "messages"), "messages")
    rejected = [assistant(text(data, "rejected_response"))]
    return [Pair(prompt=with_system(prompt, data), chosen=chosen, rejected=rejected)]


SHAPE = Shape(
    name="swift",
    title="ms-swift preference",
    gives="pairs",
    source="https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html",
    needs=(("messages", "rejected_response"),),
    claims=_claims,
    read=_read,
)
