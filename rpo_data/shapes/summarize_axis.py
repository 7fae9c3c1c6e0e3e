"""Axis evaluations of summarize-from-feedback: one summary, scored by a worker on several axes.

Rules: README of github.com/openai/summarize-from-feedback, section "Axis evals". The score is `summary.axes.overall`,
higher is better. The prompt is the one of the comparisons (`rpo_data.shapes.summarize`).
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Response, Row, Shape, assistant, text
from rpo_data.shapes.scales import member, score, value_key
from rpo_data.shapes.summarize import query


def _claims(data: Mapping[str, Any]) -> bool:
    return isinstance(data["info"], Mapping) and isinstance(data["summary"], Mapping) and "axes" in data["summary"]


def _read(data: Mapping[str, Any]) -> list[Row]:
    summary = member(data, "summary")
    return [
        Response(
            prompt=[query(data)],
            completion=[assistant(text(summary, "text"))],
            score=score(member(summary, "axes"), "overall"),
            annotator=value_key(data.get("worker")) or None,
        )
    ]


SHAPE = Shape(
    name="summarize_axis",
    title="summarize-from-feedback, axis evaluations",
    gives="scored",
    source="https://github.com/openai/summarize-from-feedback#axis-evals",
    needs=(("info", "summary"),),
    claims=_claims,
    read=_read,
)
