"""Alpaca rankings: `instruction` and `input` ask, `output` is a list of answers, the best first.

Rules: LLaMA-Factory, data/README.md before May 2024 (and ChatGLM-Efficient-Tuning before it): for preference data the
response is a list of texts with the preferred answers first. Its own `oaast_rm` files hold two to ten answers each.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.alpaca import alpaca_prompt
from rpo_data.shapes.base import Response, Row, Shape, ShapeError, assistant, kind, required


def _claims(data: Mapping[str, Any]) -> bool:
    answers = data["output"]
    return (
        isinstance(data["instruction"], str)
        and isinstance(answers, list)
        and len(answers) > 1
        and all(isinstance(answer, str) for answer in answers)
        and not {"chosen", "rejected", "kto_tag"} & set(data)
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    answers = required(data, "output")
    if not isinstance(answers, list):
        raise ShapeError("wrong_type", f"'output' is a {kind(answers)}, where a list of texts, best first, is needed")
    for place, answer in enumerate(answers, start=1):
        if not isinstance(answer, str):
            raise ShapeError("wrong_type", f"answer {place} of 'output' is a {kind(answer)}, where a text is needed")
    if len(answers) < 2:
        raise ShapeError("no_judgement", f"'output' ranks {len(answers)} of the two or more answers that are needed")
    prompt = alpaca_prompt(data)
    return [
        Response(prompt=prompt, completion=[assistant(answer)], rank=rank)
        for rank, answer in enumerate(answers, start=1)
    ]


SHAPE = Shape(
    name="alpaca_ranking",
    title="Alpaca ranking",
    gives="scored",
    source="https://github.com/hiyouga/ChatGLM-Efficient-Tuning/blob/main/data/README.md",
    needs=(("instruction", "output"),),
    claims=_claims,
    read=_read,
)
