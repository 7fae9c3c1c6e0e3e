r"""Nectar: answers to one dialogue, ranked by GPT-4; rank 1 is best.

Rules: dataset card of berkeley-nest/Nectar: `prompt` is a dialogue in the turns of HH-RLHF that ends with an empty
"\n\nAssistant: ", `answers` are objects with `answer`, `model` and `rank`.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Response, Row, Shape, ShapeError, assistant, text
from rpo_data.shapes.hh import split_dialogue
from rpo_data.shapes.scales import members, rank


def _claims(data: Mapping[str, Any]) -> bool:
    answers = data["answers"]
    return (
        isinstance(data["prompt"], str)
        and isinstance(answers, list)
        and any(isinstance(answer, Mapping) and "answer" in answer and "rank" in answer for answer in answers)
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    prompt, opening = split_dialogue(text(data, "prompt"), "prompt")
    if opening["content"]:
        raise ShapeError("no_turn_marker", "'prompt' does not end with an empty '\\n\\nAssistant:' turn")
    answers = [(text(answer, "answer"), rank(answer, "rank", best=1)) for answer in members(data, "answers")]
    ranked = sum(place is not None for _, place in answers)
    if ranked < 2:
        raise ShapeError("no_judgement", f"holds no judgement: {ranked} of {len(answers)} answers are ranked")
    return [Response(prompt=prompt, completion=[assistant(answer)], rank=place) for answer, place in answers]


SHAPE = Shape(
    name="nectar",
    title="Nectar",
    gives="scored",
    source="https://huggingface.co/datasets/berkeley-nest/Nectar",
    needs=(("prompt", "answers"),),
    claims=_claims,
    read=_read,
)
