"""WebGPT comparisons: two answers to one question, each with its quotes and a score from -1 to 1.

Rules: dataset card of openai/webgpt_comparisons: `question.full_text` is the question; `score_0` is how strongly
`answer_0` is preferred over `answer_1`, `score_1` its negative; an answer is preferred where its score is above 0, two
zeros are a tie. The quotes belong to one answer each, so they are no part of the common prompt.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, ShapeError, assistant, text, user
from rpo_data.shapes.scales import member, ordered, score


def _claims(data: Mapping[str, Any]) -> bool:
    return isinstance(data["question"], Mapping)


def _read(data: Mapping[str, Any]) -> list[Row]:
    first, second = score(data, "score_0"), score(data, "score_1")
    if abs(first + second) > 1e-6:
        raise ShapeError("unknown_judgement", f"'score_0' is {first} and 'score_1' {second}, where their sum must be 0")
    chosen, rejected = ordered(first, text(data, "answer_0"), text(data, "answer_1"))
    score_chosen, score_rejected = ordered(first, first, second)
    return [
        Pair(
            prompt=[user(text(member(data, "question"), "full_text"))],
            chosen=[assistant(chosen)],
            rejected=[assistant(rejected)],
            tie=first == 0,
            score_chosen=score_chosen,
            score_rejected=score_rejected,
            strength=abs(first),
        )
    ]


SHAPE = Shape(
    name="webgpt",
    title="WebGPT comparisons",
    gives="pairs",
    source="https://huggingface.co/datasets/openai/webgpt_comparisons",
    needs=(("question", "answer_0", "answer_1", "score_0", "score_1"),),
    claims=_claims,
    read=_read,
)
