"""UltraFeedback as published: `instruction` and `completions`, each rated on several aspects.

Rules: README of github.com/OpenBMB/UltraFeedback, section "Dataset Format", and
src/data_annotation/fix_overall_score_issue.py of the same repository: the score of a completion is the mean `Rating`
of its aspects without "N/A", which later files carry as `fine-grained_score`. `overall_score` is not read: the
publisher's own script shows that some of its tens were ones. The system prompts of the completions are not read
either: they differ from completion to completion, where all were rated as answers to the one instruction.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Response, Row, Shape, assistant, number, text, user
from rpo_data.shapes.scales import member, members, score


def _claims(data: Mapping[str, Any]) -> bool:
    completions = data["completions"]
    return isinstance(completions, list) and any(
        isinstance(completion, Mapping) and "response" in completion for completion in completions
    )


def _read(data: Mapping[str, Any]) -> list[Row]:
    prompt = user(text(data, "instruction"))
    return [
        Response(prompt=[prompt], completion=[assistant(text(completion, "response"))], score=_score(completion))
        for completion in members(data, "completions")
    ]


def _score(completion: Mapping[str, Any]) -> float | None:
    """The mean rating, None where no aspect was rated."""
    if number(completion, "fine-grained_score") is not None:
        return score(completion, "fine-grained_score")
    if completion.get("annotations") is None:
        return None
    aspects = member(completion, "annotations")
    ratings = [
        score(aspect, "Rating")
        for aspect in (member(aspects, name) for name in aspects)
        if aspect.get("Rating") not in (None, "N/A")
    ]
    return sum(ratings) / len(ratings) if ratings else None


SHAPE = Shape(
    name="ultrafeedback",
    title="UltraFeedback",
    gives="scored",
    source="https://github.com/OpenBMB/UltraFeedback#dataset-format",
    needs=(("instruction", "completions"),),
    claims=_claims,
    read=_read,
)
